"""Appendix A3: the two models of the experiment, the shuffle, and the stored runs."""

import itertools
import json
import statistics
import sys
from pathlib import Path

import inductive_bias
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from going_modular.small_cnn import ResidualBlock, SmallCNN, equal_vit, shuffle_patches

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize("classes", [2, 3, 10, 30])
def test_equal_within_one_percent(classes):
    cnn, vit = SmallCNN(classes), equal_vit(classes)
    counts = [sum(p.numel() for p in model.parameters()) for model in (cnn, vit)]
    assert counts[0] == pytest.approx(counts[1], rel=0.01)


@pytest.mark.parametrize("stride", [1, 2])
def test_block_by_hand(stride):
    torch.manual_seed(0)
    block = ResidualBlock(3, 5, stride).double().eval()
    for p in block.parameters():
        nn.init.normal_(p)
    for norm in (block.layers[1], block.layers[4]):
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2)
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)

    def normed(y, norm):
        mean, var = norm.running_mean[:, None, None], norm.running_var[:, None, None]
        y = (y - mean) / (var + norm.eps).sqrt()
        return y * norm.weight[:, None, None] + norm.bias[:, None, None]

    inner = normed(
        F.conv2d(x, block.layers[0].weight, None, stride, 1), block.layers[1]
    )
    outer = F.conv2d(inner.clamp(min=0), block.layers[3].weight, None, 1, 1)
    expected = normed(outer, block.layers[4])
    expected = expected + F.conv2d(x, block.around.weight, None, stride)
    torch.testing.assert_close(block(x), expected.clamp(min=0), atol=1e-10, rtol=1e-10)


def test_network_by_hand():
    """In training mode, where BatchNorm takes its numbers from the batch."""
    torch.manual_seed(0)
    cnn = SmallCNN(num_classes=4, width=6).double()
    for p in cnn.parameters():
        nn.init.normal_(p, std=0.5)
    images = torch.randn(3, 3, 16, 12, dtype=torch.float64)
    x = F.conv2d(images, cnn.stem[0].weight, None, 1, 1)
    mean, var = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
    x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    x = x * cnn.stem[1].weight[:, None, None] + cnn.stem[1].bias[:, None, None]
    x = x.clamp(min=0)
    for block, channels, side in zip(cnn.stages, (6, 12, 24), (16, 8, 4), strict=True):
        x = block(x)
        assert x.shape == (3, channels, side, side * 12 // 16)
    expected = x.sum((2, 3)) / (4 * 3) @ cnn.head.weight.T + cnn.head.bias
    torch.testing.assert_close(cnn(images), expected, atol=1e-9, rtol=1e-9)


def test_a_cnn_finds_food_anywhere():
    """Its head sees a mean over places, so a shift by whole strides hardly matters."""
    torch.manual_seed(0)
    cnn = SmallCNN(3).double().eval()
    food = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    logits = []
    for left in (28, 40):
        image = torch.zeros(1, 3, 80, 80, dtype=torch.float64)
        image[:, :, 32:40, left : left + 8] = food
        logits.append(cnn(image))
    torch.testing.assert_close(*logits, atol=1e-9, rtol=0)


def test_shuffle_moves_whole_patches():
    images = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    order = torch.tensor([5, 3, 0, 1, 2, 4])
    found = shuffle_patches(images, 2, order)
    for to, source in enumerate(order.tolist()):
        (row, column), (i, j) = divmod(to, 3), divmod(source, 3)
        patch = images[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
        place = found[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        assert torch.equal(place, patch)
    assert torch.equal(shuffle_patches(found, 2, order.argsort()), images)


@pytest.mark.parametrize("order", [[0, 1, 2], [0, 0, 1, 2], [1, 2, 3, 4]])
def test_an_order_that_is_none(order):
    with pytest.raises(ValueError, match="each of 0 … 3 once"):
        shuffle_patches(torch.zeros(1, 3, 4, 4), 2, torch.tensor(order))


@pytest.mark.parametrize("sizes", [(0, 32, 3), (3, 0, 3), (3, 32, 0)])
def test_refused(sizes):
    with pytest.raises(ValueError, match="at least 1"):
        SmallCNN(*sizes)


def test_both_learn_eight_images():
    torch.manual_seed(0)
    images, labels = torch.randn(8, 3, 32, 32), torch.arange(8) % 3
    for model in (SmallCNN(3), equal_vit(3)):
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for _ in range(40):
            loss = F.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        assert loss < 0.2


KINDS = [
    path.stem.removeprefix("inductive_bias_")
    for path in BENCHMARKS.glob("inductive_bias_*.json")
]


@pytest.mark.parametrize("kind", KINDS)
def test_the_stored_table_follows_from_the_stored_runs(kind, tmp_path, monkeypatch):
    """`--report` needs no images and trains nothing."""
    stored = json.loads((BENCHMARKS / f"inductive_bias_{kind}.json").read_text())
    for name in ("rendered", "photographs", "run"):
        monkeypatch.setattr(inductive_bias, name, None)
    words = ["inductive_bias.py", "--report", kind]
    monkeypatch.setattr(sys, "argv", [*words, "--json", str(tmp_path / "table.json")])
    inductive_bias.main()
    assert json.loads((tmp_path / "table.json").read_text()) == stored


def test_the_report_writes_nothing(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["inductive_bias.py", "--report"])
    monkeypatch.setattr(type(BENCHMARKS), "write_text", None)
    inductive_bias.main()
    printed = capsys.readouterr().out
    assert "CNN - ViT, 100 images: +13.4 (+9.4 … +17.5)" in printed
    assert "the seeds share 992" in printed


def test_the_report_has_the_sizes_that_were_run(monkeypatch, tmp_path):
    """Here three hundred images are the most."""
    runs, table = tmp_path / "runs.jsonl", tmp_path / "table.json"
    lines = inductive_bias.RUNS.read_text().splitlines()
    lines = [line for line in lines if '"images": 1000' not in line]
    for model in inductive_bias.LONGER:
        entry = {"kind": "rendered", "model": model, "lr": 0.003, "images": 300}
        entry |= {"steps": 2000, "seed": 100, "split": "validation", "accuracy": 90}
        lines.append(json.dumps(entry))
    runs.write_text("\n".join(lines))
    words = ["inductive_bias.py", "--report", "--runs", runs, "--json", table]
    monkeypatch.setattr(sys, "argv", list(map(str, words)))
    inductive_bias.main()
    found = json.loads(table.read_text())
    assert found["train_steps"] == {"30": 300, "100": 600, "300": 1000}
    assert {row["images"] for row in found["comparisons"]} == {30, 100, 300}
    assert found["twice_the_steps"][0]["twice"] == 90


@pytest.fixture
def drawn(monkeypatch):
    """1,902 images that are told apart by one value; each seed's own are negative."""
    labels = torch.arange(3).repeat_interleave(634)
    images = torch.arange(len(labels)).view(-1, 1, 1, 1).expand(-1, 3, 32, 32).float()

    def own(seed):
        return images[:700] - 700 * (seed + 1), torch.arange(700) % 3

    monkeypatch.setattr(inductive_bias, "own_images", own)
    return images, labels


def test_five_seeds_have_five_sets_of_a_thousand_images(drawn, tmp_path):
    new = inductive_bias.Experiment("rendered", *drawn, tmp_path / "none")
    old = inductive_bias.Experiment("rendered", *drawn, tmp_path / "none")
    old.own = False

    def sets(experiment, size):
        found = []
        for seed in range(5):
            images, labels = experiment.training_set(size, seed)
            counts = labels.bincount()
            assert counts.sum() == size and counts.max() - counts.min() <= 1
            found.append(set(images[:, 0, 0, 0].tolist()))
            assert len(found[-1]) == size
        return found

    def pairs(found):
        return [len(a & b) for a, b in itertools.combinations(found, 2)]

    for size, share in ((30, 0.06), (100, 0.10), (300, 0.31)):
        assert sets(new, size) == sets(old, size)
        common = statistics.mean(pairs(sets(new, size))) / size
        assert common == pytest.approx(share, abs=0.01)
    assert len(set.intersection(*sets(old, 1000))) == 992
    assert max(pairs(sets(new, 1000))) < 130  # of their 300 common images


def test_runs_with_own_images_are_not_the_stored_ones(drawn, tmp_path, monkeypatch):
    path = tmp_path / "runs.jsonl"
    lines = inductive_bias.RUNS.read_text().splitlines()
    path.write_text("\n".join(line for line in lines if "rendered" in line) + "\n")
    monkeypatch.setattr(inductive_bias, "run", lambda *args: 12.0)
    args = "ViT", 0.003
    new = inductive_bias.Experiment("rendered", *drawn, path)
    assert new.measure(*args, 300, 0, "test") > 50
    assert new.measure(*args, 1000, 0, "test") == 12
    assert json.loads(path.read_text().splitlines()[-1])["own_images"] is True
    report = inductive_bias.Experiment("rendered", None, None, path)
    assert report.measure(*args, 1000, 0, "test") == 12
    with pytest.raises(SystemExit, match="no run is stored"):
        report.measure(*args, 1000, 1, "test")


@pytest.mark.parametrize("kind", KINDS)
def test_rates_were_chosen_between_others(kind):
    stored = json.loads((BENCHMARKS / f"inductive_bias_{kind}.json").read_text())
    assert len(stored["seeds"]) >= 5
    for model, means in stored["validation"].items():
        best = max(means, key=means.get)
        assert float(best) == stored["rates"][model]
        assert best not in (list(means)[0], list(means)[-1])
    sizes = stored["models"]
    for of, model in [("parameters", "CNN"), ("mega_flops", "CNN of equal FLOPs")]:
        if model not in sizes:  # not among the photographs' models
            assert kind == "photographs" and model == "CNN of equal FLOPs"
            continue
        assert sizes[model][of] == pytest.approx(sizes["ViT"][of], rel=0.05)
