"""The benchmark scripts run, and their stored results are what they say."""

import json
import statistics
import sys

import ablation
import make_photographs
import pytest
import torch
import transfer
from PIL import Image

from going_modular.checkpoint import load_checkpoint
from helper_functions import get_foodvision_mini


@pytest.fixture
def few(tmp_path):
    """Four training and two test pictures of each class."""
    source = get_foodvision_mini()
    for split, count in (("train", 4), ("test", 2)):
        for folder in (source / split).iterdir():
            target = tmp_path / "few" / split / folder.name
            target.mkdir(parents=True)
            for path in sorted(folder.iterdir())[:count]:
                (target / path.name).write_bytes(path.read_bytes())
    return tmp_path / "few"


def test_transfer_on_any_folder(few, tmp_path, monkeypatch, capsys):
    """Its lists have one accuracy a seed, and each is a share of the six pictures."""
    for settings in ("SCRATCH", "FROZEN", "FINE_TUNED"):
        changed = getattr(transfer, settings) | {"epochs": 2}
        monkeypatch.setattr(transfer, settings, changed)
    monkeypatch.setenv("VIT_COURSE_DATA", "")
    file = tmp_path / "results.json"
    words = ["transfer.py", "--data", str(few), "--seeds", "2", "--json", str(file)]
    monkeypatch.setattr(sys, "argv", words)
    transfer.main()
    stored = json.loads(file.read_text())
    assert stored["train_pictures"] == 12 and stored["test_pictures"] == 6
    assert stored["baseline"] == pytest.approx(1 / 3)
    printed = capsys.readouterr().out
    for method in ("scratch", "frozen", "fine_tuned"):
        assert len(stored[method]) == len(stored[f"{method}_seconds"]) == 2
        assert all(
            (6 * accuracy) % 1 == pytest.approx(0) for accuracy in stored[method]
        )
        mean = statistics.mean(stored[method])
        assert f"{method:11} {mean:.1%}" in printed


def test_frozen_means_frozen(few):
    """Only the head changes; fine-tuning begins with it and changes the rest."""
    start, metadata = load_checkpoint()
    data, classes = transfer.decode(few / "train", metadata["preprocessing"])
    model = transfer.frozen(start, data, len(classes))
    for name, p in start.named_parameters():
        if not name.startswith("head"):
            assert torch.equal(p, model.get_parameter(name)), name
    assert model.head.weight.shape == (3, 192) and model.head.weight.abs().max() > 0


def test_photographs_are_made_from_their_numbers(tmp_path, monkeypatch, capsys):
    listed = json.loads(make_photographs.LIST.read_text())
    number = {name: len(rows) for name, rows in listed["train"].items()}
    assert number == {"pizza": 78, "steak": 75, "sushi": 72}
    for name, rows in listed["test"].items():
        assert len(set(rows)) == 100 and not set(rows) & set(listed["train"][name])
    few = {"train": {"pizza": [7]}, "test": {"pizza": [8]}}
    (tmp_path / "list.json").write_text(json.dumps(few))
    monkeypatch.setattr(make_photographs, "LIST", tmp_path / "list.json")
    (tmp_path / "food" / "images" / "pizza").mkdir(parents=True)
    Image.new("RGB", (90, 60), "red").save(tmp_path / "food/images/pizza/7.jpg")
    words = ["make_photographs.py", "--food101", str(tmp_path / "food")]
    monkeypatch.setattr(sys, "argv", [*words, "--target", str(tmp_path / "small")])
    with pytest.raises(ValueError, match="8.jpg"):
        make_photographs.main()
    Image.new("RGB", (90, 60), "blue").save(tmp_path / "food/images/pizza/8.jpg")
    make_photographs.main()
    assert capsys.readouterr().out.startswith("2 images in")
    with Image.open(tmp_path / "small" / "test" / "pizza" / "8.jpg") as image:
        assert image.size == (64, 64)
        red, green, blue = image.getpixel((32, 32))
        assert blue > 200 > 60 > max(red, green)


def test_post_norm_is_another_function():
    torch.manual_seed(0)
    block = ablation.PostNormBlock(16, 2, 32, mlp_dropout=0.0)
    tokens = torch.randn(2, 5, 16)
    msa, mlp = block.msa_block, block.mlp_block
    middle = msa.layer_norm(tokens + msa.attention(tokens))
    expected = mlp.layer_norm(middle + mlp.mlp(middle))
    assert torch.allclose(block(tokens), expected, atol=1e-6)


@pytest.mark.parametrize("name", ablation.CHANGES)
def test_every_change_builds_and_trains(name):
    torch.manual_seed(0)
    pictures = torch.rand(8, 3, 64, 64), torch.arange(8) % 3
    settings = ablation.settings_of(name, {"the recipe": 5e-4})
    found = ablation.run(0, settings, pictures, pictures, epochs=1)
    rows = [sum(row) for row in found["confusion"]]
    assert rows == [3, 3, 2] and 0 < found["train_loss"]
    assert 0 <= ablation.accuracy(found) <= 100


def test_stored_ablation_follows_from_its_runs():
    """Each row of lesson 11b's table, computed again from the confusion matrices."""
    stored = json.loads((ablation.ROOT / "benchmarks" / "ablation.json").read_text())
    if "train_images" not in stored:
        pytest.xfail("the stored run is older than the script: run it again")
    lines = map(json.loads, ablation.RUNS.read_text().splitlines())
    runs = [run for run in lines if run["epochs"] == stored["epochs"]]
    names = [row["name"] for row in stored["rows"]]
    assert names == list(ablation.CHANGES) and len(stored["seeds"]) >= 5
    assert stored["rows"] == ablation.table(runs, names, stored["seeds"])
    rates, means = ablation.choose_rates(runs)
    for name, found in means.items():
        rounded = {f"{rate:g}": round(mean, 2) for rate, mean in found.items()}
        assert stored["validation"][name] == rounded
    for run in runs:
        assert sum(map(sum, run["confusion"])) == stored[f"{run['split']}_images"]
        if run["split"] == "test":
            assert run["lr"] == ablation.settings_of(run["name"], rates)["lr"]


def test_holm_by_hand():
    """Three p-values: times 3, 2 and 1 from the smallest, and never falling."""
    assert ablation.holm([0.01, 0.03, 0.02]) == pytest.approx([0.03, 0.04, 0.04])
    assert ablation.holm([0.6, 0.5]) == [1.0, 1.0]


def test_stored_transfer_is_whole_and_pre_training_is_worth_it():
    stored = json.loads((ablation.ROOT / "benchmarks" / "transfer.json").read_text())
    assert len(stored["seeds"]) >= 5
    means = {}
    for method in transfer.METHODS:
        hits = [value * stored["test_pictures"] for value in stored[method]]
        assert hits == pytest.approx([round(h) for h in hits], abs=1e-3)
        assert len(hits) == len(stored[f"{method}_seconds"]) == len(stored["seeds"])
        means[method] = statistics.mean(stored[method])
    assert stored["baseline"] < means["scratch"] < means["frozen"]


def test_interval_is_students():
    """Five values with mean 3 and deviation 1.5811: 3 ± 2.776 * 0.7071."""
    low, high = ablation.interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert low == pytest.approx(1.0367, abs=1e-3)
    assert high == pytest.approx(4.9633, abs=1e-3)
