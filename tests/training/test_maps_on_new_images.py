"""The maps on new images: what is compared, and that the stored run says it."""

import json

import maps_on_new_images as maps
import pytest
import torch

from going_modular.vit import create_vit
from helper_functions import set_seeds

STORED = json.loads((maps.ROOT / "benchmarks/maps_on_new_images.json").read_text())
MAIN = [row for row in STORED["rows"] if row["way"] == maps.WAYS[0]]


def test_the_family_is_the_one_written_down():
    """21 pairs, each once, by three ways; only the first way has verdicts."""
    assert len(set(maps.FAMILY)) == len(maps.FAMILY) == 21
    for way in maps.WAYS:
        rows = [row for row in STORED["rows"] if row["way"] == way]
        assert [(row["first"], row["second"]) for row in rows] == maps.FAMILY
        assert all(("p_holm" in row) == (way == maps.WAYS[0]) for row in rows)
    assert STORED["seed"] == maps.SEED
    assert tuple(STORED["counts"]) == maps.COUNTS


def test_stored_p_values_are_holms():
    found = maps.holm([row["p"] for row in MAIN])
    for row, p in zip(MAIN, found, strict=True):
        assert row["p_holm"] == pytest.approx(p, rel=0.1)


def test_stored_differences_are_those_of_the_stored_curves():
    for row in STORED["rows"]:
        curve = STORED["curves"][row["way"]]
        first, second = (curve[row[name]] for name in ("first", "second"))
        difference = sum(first) / len(first) - sum(second) / len(second)
        assert row["difference"] == pytest.approx(difference, abs=0.02)
        low, high = row["interval"]
        assert low <= row["difference"] <= high
        assert (low > 0 or high < 0) == (row["p"] < 0.05)


def test_stored_accuracy():
    found = STORED["accuracy"]
    assert found["images"] == 3 * maps.PER_CLASS
    assert found["mean"] == pytest.approx(100 * found["hits"] / 600, abs=0.01)
    interval = maps.wilson(found["hits"], 600)
    assert found["interval"] == pytest.approx(interval, abs=0.01)
    assert maps.wilson(69, 75) == pytest.approx([83.6, 96.3], abs=0.05)  # lesson 13's


def test_chance_decides_among_equal_values():
    set_seeds()
    score = torch.tensor([[0.0, 0.0, 3.0, 1.0]]).expand(200, -1)
    ranks = maps.ranks(score)
    assert (ranks[:, 2] == 0).all() and (ranks[:, 3] == 1).all()
    assert 50 < (ranks[:, 0] == 2).sum() < 150
    assert (ranks.sort(dim=1).values == torch.arange(4)).all()


@torch.no_grad()
def test_a_token_left_out_is_a_token_masked():
    set_seeds()
    model = create_vit("vit_mini_8", num_classes=3).eval()
    images = torch.randn(30, 3, 64, 64)
    keep = torch.rand(30, 64).argsort(dim=1) >= 48
    mask = torch.cat([torch.ones(30, 1, dtype=torch.bool), keep], dim=1)
    labels = model(images, mask[:, None, None]).argmax(dim=1)
    right = maps.right(model, images, labels, keep, maps.WAYS[0])
    assert (right == 100).all()


@torch.no_grad()
def test_how_many_patches_are_removed_by_each_way(monkeypatch):
    kept = []
    monkeypatch.setattr(maps, "right", lambda *arguments: kept.append(arguments[3]))
    monkeypatch.setattr(torch, "stack", lambda values: values)
    rank = torch.arange(64)[None]
    for way in maps.WAYS:
        maps.curve(None, None, None, rank, way)
    removed = [(~keep).sum().item() for keep in kept]
    assert removed == [4, 8, 16, 32, 48, 16, 48]
    assert not kept[0][0, :4].any() and kept[-1][0, :16].all()
