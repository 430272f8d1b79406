"""The benchmark scripts run, and their stored results are what they say."""

import json
import math
import statistics
import sys

import ablation
import make_photographs
import pretraining
import pytest
import torch
import transfer
from PIL import Image
from scipy import stats

from going_modular.checkpoint import load_checkpoint, save_checkpoint
from going_modular.vit import create_vit
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


@pytest.fixture
def quick_transfer(few, tmp_path, monkeypatch):
    """Runs the script on few images, one epoch each; returns the table it stores."""
    quick = {name: m | {"epochs": 1} for name, m in transfer.METHODS.items()}
    monkeypatch.setattr(transfer, "METHODS", quick)
    monkeypatch.setattr(transfer, "FOLDS", 2)
    monkeypatch.setenv("VIT_COURSE_DATA", "")
    table, runs = tmp_path / "table.json", tmp_path / "runs.jsonl"
    words = ["transfer.py", "--data", few, "--seeds", 2, "--json", table]
    monkeypatch.setattr(sys, "argv", list(map(str, [*words, "--runs", runs])))

    def run():
        transfer.main()
        return json.loads(table.read_text()), runs.read_text().splitlines()

    return run


def test_transfer_on_any_folder(quick_transfer, capsys):
    """Rates by cross-validation, one accuracy per seed, and runs that are not lost."""
    stored, runs = quick_transfer()
    assert stored["train_images"] == 12 and stored["test_images"] == 6
    assert stored["baseline"] == pytest.approx(1 / 3) and stored["seeds"] == [0, 1]
    printed = capsys.readouterr().out
    for name, method in stored["methods"].items():
        found = {float(rate): mean for rate, mean in method["cross_validation"].items()}
        assert set(transfer.METHODS[name]["rates"]) <= set(found)
        assert found[method["lr"]] == max(found.values())
        check_summary(method, stored)
        assert f"{name:11} {method['lr']:g} {method['mean']:.1f} %" in printed
    check_differences(stored, [json.loads(line) for line in runs])
    assert quick_transfer() == (stored, runs), "what is stored is not run again"


def check_summary(method, stored):
    """The mean is that of the accuracies, which are whole images."""
    values = method["accuracies"]
    assert len(values) == len(method["seconds"]) == len(stored["seeds"])
    hits = [v / 100 * stored["test_images"] for v in values]
    assert hits == pytest.approx([round(h) for h in hits], abs=0.05)
    assert method["mean"] == pytest.approx(statistics.mean(values), abs=0.02)
    low, high = method["interval"]
    assert low <= method["mean"] <= high


def check_differences(stored, runs):
    """Fine-tuned against frozen, frozen against from scratch, image by image."""
    methods = stored["methods"]

    def hits(name):
        found = [
            list(map(float, run["correct"]))
            for run in runs
            if (run["split"], run["method"]) == ("test", name)
            and run["lr"] == methods[name]["lr"]
        ]
        return torch.tensor(found)

    for name, other in (("frozen", "scratch"), ("fine_tuned", "frozen")):
        a, b = hits(name), hits(other)
        found = dict(methods[name][f"over_{other}"])
        images, seeds = stored["test_images"], len(stored["seeds"])
        assert found.pop("of") == f"{images} test images and {seeds} seeds"
        assert found == transfer.difference(a, b)
        assert a.shape == b.shape == (seeds, images)
        means = methods[name]["mean"], methods[other]["mean"]
        assert found["mean"] == pytest.approx(means[0] - means[1], abs=0.02)
        assert methods[name]["interval"] == transfer.bootstrap(a)


def test_an_interval_over_images_and_seeds():
    """Seeds that agree add nothing; images in common cancel in a difference."""
    right = torch.arange(300) < 240
    alike = right.float().expand(5, 300)
    low, high = transfer.bootstrap(alike)
    half = 196 * math.sqrt(0.8 * 0.2 / 300)
    assert [low, high] == pytest.approx([80 - half, 80 + half], abs=0.6)
    assert transfer.bootstrap(alike, alike) == [0, 0]
    seeds = torch.tensor([0.0, 0, 1, 1, 1])[:, None].expand(5, 300)
    low, high = transfer.bootstrap(seeds)  # all images alike: only the seeds differ
    assert (low, high) == (20, 100)  # one of five in 8.7 % of the draws, none in 1 %


def test_images_won_and_lost_by_most_seeds():
    """Two won and one lost of four; by the fair coin, no news at all."""
    a = torch.tensor([[1.0, 1, 0, 1], [1, 1, 0, 1], [1, 0, 1, 1]])
    b = torch.tensor([[0.0, 0, 1, 1], [0, 0, 1, 1], [0, 1, 0, 1]])
    found = transfer.difference(a, b)
    assert (found["won"], found["lost"], found["p"]) == (2, 1, 1.0)
    assert found["mean"] == pytest.approx(100 * 3 / 12, abs=0.01)
    found = transfer.difference(torch.ones(1, 6), torch.zeros(1, 6))
    assert found["p"] == pytest.approx(2 / 2**6, abs=0.001)
    assert transfer.difference(a, a)["p"] == 1


def test_the_stored_table_is_printed_without_images(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["transfer.py", "--report"])
    monkeypatch.setattr(transfer, "load_checkpoint", None)
    transfer.main()
    assert "fine_tuned - frozen: +2.6 (+0.3 … +5.1)" in capsys.readouterr().out


def test_each_image_is_held_out_once_and_classes_are_spread():
    labels = torch.arange(3).repeat_interleave(10)
    held = []
    for train_on, held_out in transfer.folds(labels):
        assert sorted([*train_on.tolist(), *held_out.tolist()]) == list(range(30))
        assert labels[held_out].bincount().tolist() == [2, 2, 2]
        held += held_out.tolist()
    assert sorted(held) == list(range(30))


def test_frozen_means_frozen(few):
    """Only the head changes; fine-tuning begins with it and changes the rest."""
    start, metadata = load_checkpoint()
    data, classes = transfer.decode(few / "train", metadata["preprocessing"])
    model = transfer.frozen(start, data, len(classes), lr=1e-3)
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
    """Each row of lesson 11b's table, computed again from the runs."""
    stored = json.loads((ablation.ROOT / "benchmarks" / "ablation.json").read_text())
    runs = ablation.read_runs(ablation.RUNS, stored["epochs"])
    names = [row["name"] for row in stored["rows"]]
    assert names == list(ablation.CHANGES) and len(stored["seeds"]) >= 5
    assert stored["rows"] == ablation.table(runs, names, stored["seeds"])
    assert stored["grid"] == ablation.grid_gains(stored["rows"])
    rates, means = ablation.choose_rates(runs)
    for name, found in means.items():
        rounded = {f"{rate:g}": round(mean, 2) for rate, mean in found.items()}
        assert stored["validation"][name] == rounded
    for run in runs:
        if "confusion" in run:
            assert sum(map(sum, run["confusion"])) == stored[f"{run['split']}_images"]
        if run["split"] == "test":
            assert run["lr"] == ablation.settings_of(run["name"], rates)["lr"]


def test_a_change_is_compared_with_the_recipes_seeds():
    """Its newest round with all seeds counts; a row without one is left out."""

    def run(part, name, seed, correct):
        entry = {"split": "test", "round": part, "name": name, "seed": seed}
        return entry | {"lr": 5e-4, "correct": 6 * correct}

    changed = "no warm-up"
    runs = [run(2, "the recipe", s, 60 + s) for s in (0, 1)]
    runs += [run(1, "the recipe", s, 50 + s) for s in (0, 1)]
    runs += [run(1, changed, 0, 48), run(1, changed, 1, 47), run(2, changed, 0, 90)]
    runs += [run(2, "post-norm", 0, 10)]
    rows = ablation.table(runs, ["the recipe", changed, "post-norm"], [0, 1])
    assert [row["name"] for row in rows] == ["the recipe", changed]
    assert rows[0]["mean"] == 55.5 and rows[1]["difference"] == -8
    assert rows[0]["accuracies"] == [60, 61, 50, 51] and rows[1]["rounds"] == [1]

    def p(*base):  # one comparison, so Holm's correction changes nothing
        return float(f"{stats.ttest_ind([48, 47], base, equal_var=False).pvalue:.2g}")

    assert rows[1]["p"] == rows[1]["p_holm"] == p(55, 56)
    # All pairs have a variance of 0.5, so t is -3 / sqrt(0.5), with two degrees.
    t = 3 / math.sqrt(0.5)
    assert p(50, 51) == pytest.approx(1 - t / math.sqrt(2 + t * t), abs=0.01)
    assert rows[1]["p_holm_against"] == {
        "its own round": p(50, 51),
        "round 2": p(60, 61),
        "round 1": p(50, 51),
        "all runs": p(60, 61, 50, 51),
    }


def test_a_contrast_of_two_is_welchs_and_one_of_equal_values_has_no_width():
    a, b = [1.0, 2.0, 4.0], [5.0, 5.5, 9.0, 9.5]
    test = stats.ttest_ind(a, b, equal_var=False)
    found = ablation.contrast([(1, a), (-1, b)])
    expected = pytest.approx(list(test.confidence_interval(0.95)), abs=0.006)
    assert found["interval"] == expected and found["p"] == pytest.approx(test.pvalue)
    assert ablation.contrast([(1, [3.0, 3.0]), (-1, [1.0, 1.0])])["interval"] == [2, 2]


def test_most_frequent_prediction_is_a_share_of_all_images():
    assert ablation.most_frequent([[2, 0, 0], [1, 1, 0], [1, 1, 2]]) == 50


def test_holm_by_hand():
    """Three p-values: times 3, 2 and 1 from the smallest, and never falling."""
    assert ablation.holm([0.01, 0.03, 0.02]) == pytest.approx([0.03, 0.04, 0.04])
    assert ablation.holm([0.6, 0.5]) == [1.0, 1.0]


def test_stored_transfer_is_whole_and_pre_training_is_worth_it():
    stored = json.loads((ablation.ROOT / "benchmarks" / "transfer.json").read_text())
    methods = stored["methods"]
    assert list(methods) == list(transfer.METHODS) and len(stored["seeds"]) >= 5
    for name, method in methods.items():
        check_summary(method, stored)
        rates = {float(r): a for r, a in method["cross_validation"].items()}
        assert set(transfer.METHODS[name]["rates"]) <= set(rates)
        assert rates[method["lr"]] == max(rates.values())
        assert min(rates) < method["lr"] < max(rates)  # not at the edge of the grid
    lines = transfer.RUNS.read_text().splitlines()
    check_differences(stored, [json.loads(line) for line in lines])
    assert 100 * stored["baseline"] < methods["scratch"]["mean"]
    assert methods["frozen"]["over_scratch"]["interval"][0] > 0


def test_interval_is_students():
    """Five values with mean 3 and deviation 1.5811: 3 ± 2.776 * 0.7071."""
    low, high = ablation.interval([1.0, 2.0, 3.0, 4.0, 5.0])
    assert low == pytest.approx(1.0367, abs=1e-3)
    assert high == pytest.approx(4.9633, abs=1e-3)


def test_interval_of_equal_values_is_their_mean():
    assert ablation.interval([93.5] * 5) == [93.5, 93.5]


ROW = ["images", "train_loss", "train_acc", "val_loss", "val_acc"]


def keep_run(folder, name="val", **options):
    """A folder as a run leaves it that has done two epochs of 100 images."""
    keys = ["train_loss", "train_acc", f"{name}_loss", f"{name}_acc"]
    history = {key: [k + 0.25, k + 0.5] for k, key in enumerate(keys)}
    folder.mkdir(parents=True)
    state = {"history": history, "scheduler": {"last_epoch": 2 * 4}}
    torch.save(state, folder / "run.pt")
    options = {"epoch_size": "100", "batch_size": "32", "lr": "0.001"} | options
    options |= {"data": "['/somewhere/a.zip']"}
    (folder / "arguments.json").write_text(json.dumps(options))
    return folder


def finish(run, seen):
    """Adds the checkpoint of a run whose weights have seen so many images."""
    config = {"name": "vit_mini_8", "img_size": 32, "num_classes": 2}
    facts = {"samples_seen": seen, "val_pictures": 100, "val_top1": 0.5}
    path = run / "checkpoint.safetensors"
    model, sizes = create_vit(**config), {"img_size": 32}
    save_checkpoint(model, path, config, ["a", "b"], sizes, val_top5=1.0, **facts)
    return facts | {"val_top5": 1.0}


def read_runs(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["pretraining.py", *map(str, words)])
    pretraining.main()


@pytest.mark.parametrize("name", ["val", "test"])
def test_a_pre_training_run_is_read_while_it_goes_on(tmp_path, monkeypatch, name):
    run = keep_run(tmp_path / "48", name, img_size="48", decay="none")
    read_runs(monkeypatch, run, "--json", tmp_path / "stored.json")
    [stored] = json.loads((tmp_path / "stored.json").read_text())["runs"]
    assert stored["command"] == (
        "python -m going_modular.pretrain --data FOOD98 --img-size 48 "
        "--samples 200 --epoch-size 100 --batch-size 32 --decay none"
    )
    assert stored["img_size"] == 48 and stored["facts"] is None
    assert stored["epochs"] == [
        dict(zip(ROW, [100, 0.25, 1.25, 2.25, 3.25], strict=True)),
        dict(zip(ROW, [200, 0.5, 1.5, 2.5, 3.5], strict=True)),
    ]


def test_two_pre_training_runs_are_read_one_after_the_other(
    tmp_path, monkeypatch, capsys
):
    """The second begins with the weights of the first: its images are counted on."""
    first = keep_run(tmp_path / "48", img_size="48", decay="none")
    init = str(first / "checkpoint.safetensors")
    second = keep_run(tmp_path / "64", img_size="64", init=init, samples="200")
    facts = [finish(first, 200), finish(second, 400)]
    read_runs(monkeypatch, first, second, "--json", tmp_path / "stored.json")
    printed = capsys.readouterr().out
    stored = json.loads((tmp_path / "stored.json").read_text())["runs"]
    assert [run["img_size"] for run in stored] == [48, 64]
    assert [run["facts"] for run in stored] == facts
    seen = [row["images"] for run in stored for row in run["epochs"]]
    assert seen == [100, 200, 300, 400]
    assert "--init runs/48/checkpoint.safetensors --samples 200" in printed
    assert str(tmp_path) not in json.dumps(stored)
    assert "      400 images  training 0.5000 150.0%" in printed
    # By hand: 1.96 * sqrt(0.5 * 0.5 / 100) = 0.098
    assert "val_top1 50.0% (40.2% … 59.8%), 100 images" in printed
    read_runs(monkeypatch, "--report", "--json", tmp_path / "stored.json")
    assert capsys.readouterr().out == printed, "the report is what was read"
    with pytest.raises(ValueError, match="has seen 400 images, expected 0 before"):
        pretraining.read_all([second])


def test_a_pre_training_run_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="no epoch is finished yet"):
        pretraining.read(tmp_path)
    state = {"history": {"train_loss": [1.0]}, "scheduler": {"last_epoch": 3}}
    torch.save(state, tmp_path / "run.pt")
    options = {"epoch_size": "100", "batch_size": "32"}
    (tmp_path / "arguments.json").write_text(json.dumps(options))
    with pytest.raises(ValueError, match="3 steps are not 1 epochs of 100 images"):
        pretraining.read(tmp_path)


def test_no_pre_training_run_is_named(monkeypatch):
    with pytest.raises(SystemExit):
        read_runs(monkeypatch)


def without_samples(command):
    """Its options but for those that may differ: images seen, and where it writes."""
    words = command.split()
    return {
        pair
        for pair in zip(words, words[1:], strict=False)
        if pair[0].startswith("--") and pair[0] not in ("--samples", "--output")
    }


def test_stored_pre_training_repeats_the_runs_of_the_card(capsys):
    """Its two commands, finished; a shorter repetition saw fewer images in both."""
    runs = json.loads(pretraining.STORED.read_text())["runs"]
    card = (pretraining.ROOT / "models" / "README.md").read_text()
    lines = card.splitlines()
    own = [line for line in lines if line.startswith("python -m going_modular.pretr")]
    assert [run["img_size"] for run in runs] == [48, 64]
    for run, command in zip(runs, own, strict=True):
        assert without_samples(run["command"]) == without_samples(command)
    rows = [row for run in runs for row in run["epochs"]]
    assert len(rows) * 25_000 <= 1_550_000
    for i, row in enumerate(rows):
        assert list(row) == ROW and row["images"] == 25_000 * (i + 1)
        assert 0 < row["train_loss"] < 6 and 0 < row["val_loss"] < 6
        assert 0 <= row["train_acc"] <= 1 and 0 <= row["val_acc"] <= 1
    for run in runs:
        facts, last = run["facts"], run["epochs"][-1]
        assert facts["samples_seen"] == last["images"]
        assert f"on {facts['val_pictures']:,} images" in card
        assert facts["val_top1"] == pytest.approx(last["val_acc"], abs=1e-4)
        assert facts["val_top1"] < facts["val_top5"] < 1
    pretraining.report({"runs": runs})
    assert f"val_top5 {facts['val_top5']:.1%} (" in capsys.readouterr().out
