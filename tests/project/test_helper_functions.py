"""The small functions that all lessons share, without the downloads."""

import random

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

import helper_functions as hf

RESULTS = {
    "train_loss": [1.2, 0.9, 0.7],
    "train_acc": [0.3, 0.5, 0.6],
    "test_loss": [1.1, 1.0, 0.95],
    "test_acc": [0.35, 0.45, 0.5],
}
EVERYTHING = RESULTS | {"val_loss": [1.1, 1.05, 1.0], "val_acc": [0.4, 0.3, 0.45]}


@pytest.fixture(autouse=True)
def no_figures():
    plt.close("all")
    yield
    plt.close("all")


def test_every_public_name_exists():
    for name in hf.__all__:
        assert hasattr(hf, name), name


# set_seeds


DRAWS = {
    "python": lambda: [random.random() for _ in range(5)],
    "numpy": lambda: np.random.rand(5).tolist(),
    "torch": lambda: torch.rand(5).tolist(),
}


@pytest.mark.parametrize("source", DRAWS)
def test_seeds_repeat_every_sequence(source):
    draw = DRAWS[source]
    hf.set_seeds(7)
    first = draw()
    assert draw() != first
    hf.set_seeds(7)
    assert draw() == first
    hf.set_seeds(8)
    assert draw() != first
    hf.set_seeds()
    default = draw()
    hf.set_seeds(42)
    assert draw() == default


# check_close


def test_close_tensors_pass_with_one_line(capsys):
    ours = torch.arange(6.0).reshape(2, 3)
    hf.check_close("rows", ours, ours + 1e-7)
    assert capsys.readouterr().out == "rows: (2, 3) equal to within 1e-06\n"
    hf.check_close("rows", ours, ours.clone(), tolerance=0)
    assert capsys.readouterr().out == "rows: (2, 3) equal\n"
    hf.check_close("loss", torch.tensor(0.5), torch.tensor(0.5))
    assert capsys.readouterr().out == "loss: equal to within 1e-06\n"
    hf.check_close("none", torch.zeros(0, 4), torch.zeros(0, 4))
    hf.check_close("counts", torch.tensor([1, 2]), torch.tensor([1, 2]), tolerance=0)


def test_tensors_that_want_a_gradient_pass():
    weight = torch.ones(3, requires_grad=True)
    hf.check_close("weight", weight, weight * 1)


ONES = torch.ones(2, 3)
NAN = torch.tensor([[1.0, 1.0, 1.0], [1.0, torch.nan, 1.0]])


@pytest.mark.parametrize(
    ("ours", "theirs", "tolerance", "message"),
    [
        (ONES, torch.ones(3, 2), 1e-6, r"x: \(2, 3\) and \(3, 2\)"),
        (ONES, torch.ones(1, 3), 1e-6, r"x: \(2, 3\) and \(1, 3\)"),  # would broadcast
        (ONES, torch.ones(2, 3, dtype=torch.float64), 1e-6, "x: .*float32.*float64"),
        (ONES, ONES + 1e-3, 1e-6, "x: differs by 1.0e-03"),
        (ONES, ONES - 1e-3, 1e-6, "x: differs by 1.0e-03"),  # of either sign
        (ONES, ONES + 1e-6, 0, "x: differs by"),
        (NAN, ONES, 1e-6, "x: differs by nan"),
        (ONES, NAN, 1e-6, "x: differs by nan"),
        (NAN, NAN, 1e-6, "x: differs by nan"),
    ],
)
def test_other_tensors_fail(ours, theirs, tolerance, message, capsys):
    with pytest.raises(AssertionError, match=message):
        hf.check_close("x", ours, theirs, tolerance)
    assert capsys.readouterr().out == ""


# plot_loss_curves


LABELS = {"train": "training", "val": "validation", "test": "test"}


@pytest.mark.parametrize("kinds", [["train", "test"], ["train", "val"], LABELS])
def test_loss_curves_show_all_numbers(kinds):
    wanted = {f"{kind}_{what}" for kind in kinds for what in ("loss", "acc")}
    results = {key: values for key, values in EVERYTHING.items() if key in wanted}
    hf.plot_loss_curves(results)
    losses, accuracies = plt.gcf().axes
    for axis, what, label in (
        (losses, "loss", "loss"),
        (accuracies, "acc", "accuracy"),
    ):
        assert (axis.get_xlabel(), axis.get_ylabel()) == ("epoch", label)
        lines = {line.get_label(): line for line in axis.get_lines()}
        assert set(lines) == {LABELS[kind] for kind in kinds}
        for kind in kinds:
            line = lines[LABELS[kind]]
            assert list(line.get_ydata()) == results[f"{kind}_{what}"]
            assert list(line.get_xdata()) == [1, 2, 3]


def test_loss_curves_of_training_alone_with_a_line_at_ln_k():
    results = {key: RESULTS[key] for key in ("train_loss", "train_acc")}
    hf.plot_loss_curves(results, num_classes=3)
    losses, accuracies = plt.gcf().axes
    lines = {line.get_label(): line for line in losses.get_lines()}
    assert set(lines) == {"training", "ln K"}
    assert list(lines["ln K"].get_ydata()) == pytest.approx([1.0986] * 2, abs=1e-4)
    assert len(accuracies.get_lines()) == 1


@pytest.mark.parametrize("key", RESULTS)
def test_loss_curves_want_every_key(key):
    results = {name: RESULTS[name] for name in RESULTS if name != key}
    with pytest.raises(ValueError, match=f"lack.*{key}"):
        hf.plot_loss_curves(results)
    assert plt.get_fignums() == []


@pytest.mark.parametrize("key", RESULTS)
def test_loss_curves_want_one_length(key):
    with pytest.raises(ValueError, match=f"one length.*'{key}': 2"):
        hf.plot_loss_curves({**RESULTS, key: [0.5, 0.4]})
    assert plt.get_fignums() == []


# plot_dots


def test_dots_are_the_runs_and_the_bar_is_the_interval():
    rows = [
        {"name": "a", "accuracies": [60, 68], "mean": 64.0, "interval": [58.0, 70.0]},
        {"name": "b", "accuracies": [85, 87], "mean": 86.0, "interval": [84.5, 87.5]},
    ]
    hf.plot_dots(rows, baseline=33.3)
    (axis,) = plt.gcf().axes
    line, *drawn = axis.get_lines()
    assert set(line.get_xdata()) == {33.3}
    for row, (runs, bar, mean) in zip(rows, [drawn[:3], drawn[3:]], strict=True):
        assert list(runs.get_xdata()) == row["accuracies"]
        assert list(bar.get_xdata()) == row["interval"]
        assert list(mean.get_xdata()) == [row["mean"]]
        assert list(bar.get_ydata()) == list(mean.get_ydata()) * 2
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b"]
    low, high = axis.get_ylim()
    assert low > high  # the first row is on top
    assert [text.get_text() for text in axis.texts] == ["", ""]


def test_a_note_stands_beside_its_row():
    row = {"name": "a", "accuracies": [60, 68], "mean": 64.0, "interval": [58.0, 70.0]}
    hf.plot_dots([row, row | {"name": "b", "note": "+5.0 over a"}], baseline=33.3)
    note = plt.gcf().axes[0].texts[1]
    assert (note.get_text(), note.get_position()[1]) == ("+5.0 over a", 1)


# plot_forest


def test_a_forest_has_an_interval_a_dot_and_a_p_value_per_row():
    """A full dot where the difference is decided, half where that hangs on the base."""
    rows = [
        {"name": "a", "difference": -4.0, "interval": [-6.0, -2.0], "p_holm": 0.012},
        {"name": "b", "difference": 1.0, "interval": [-1.0, 3.0], "p_holm": 0.3},
        {"name": "c", "difference": 2.0, "interval": [0.5, 3.5], "p_holm": 0.04},
    ]
    rows[0]["p_holm_against"] = {"other runs": 0.02}
    rows[2]["p_holm_against"] = {"other runs": 0.06}
    hf.plot_forest(rows, "5 seeds")
    (axis,) = plt.gcf().axes
    zero, *lines = axis.get_lines()
    assert set(zero.get_xdata()) == {0}
    for row, interval, dot in zip(rows, lines[::2], lines[1::2], strict=True):
        assert list(interval.get_xdata()) == row["interval"]
        assert list(dot.get_xdata()) == [row["difference"]]
        assert list(interval.get_ydata()) == list(dot.get_ydata()) * 2
    dots = [(dot.get_fillstyle(), dot.get_markerfacecolor()) for dot in lines[1::2]]
    assert dots == [("full", "#0072B2"), ("full", "white"), ("left", "#0072B2")]
    texts = [text.get_text() for text in axis.texts]
    assert texts == ["p = 0.012", "p = 0.3", "p = 0.04"]
    assert [label.get_text() for label in axis.get_yticklabels()] == ["a", "b", "c"]
    low, high = axis.get_ylim()
    assert low > high  # the first row is on top
    assert axis.get_title() == "5 seeds"
    (legend,) = plt.gcf().legends
    texts = [text.get_text() for text in legend.get_texts()]
    assert texts == [
        "p < 0.05 in all comparisons",
        "in some",
        "in none",
    ]
    handles = [
        (h.get_fillstyle(), h.get_markerfacecolor()) for h in legend.legend_handles
    ]
    assert handles == [dots[0], dots[2], dots[1]]
    plt.close()
    hf.plot_forest(rows[1:2])
    assert not plt.gcf().legends


# walk_through_dir


def test_walk_counts_folders_and_files(tmp_path, capsys):
    for name in ("train/sushi/1.jpg", "train/pizza/1.jpg", "train/pizza/2.jpg"):
        (tmp_path / "food" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "food" / name).touch()
    expected = [
        "There are 1 directories and 0 images in 'food'.",
        "There are 2 directories and 0 images in 'food/train'.",
        "There are 0 directories and 2 images in 'food/train/pizza'.",
        "There are 0 directories and 1 images in 'food/train/sushi'.",
    ]
    hf.walk_through_dir(tmp_path / "food")
    assert capsys.readouterr().out.splitlines() == expected
    hf.walk_through_dir(str(tmp_path / "food"))
    assert capsys.readouterr().out.splitlines() == expected


def test_walk_names_the_working_directory(tmp_path, capsys, monkeypatch):
    (tmp_path / "food").mkdir()
    monkeypatch.chdir(tmp_path / "food")
    hf.walk_through_dir(".")
    assert (
        capsys.readouterr().out == "There are 0 directories and 0 images in 'food'.\n"
    )


@pytest.mark.parametrize("name", ["missing", "file"])
def test_walk_wants_a_folder(tmp_path, name):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=name):
        hf.walk_through_dir(tmp_path / name)


def test_bytes_kept_counts_activations_and_no_parameters():
    layer = torch.nn.Linear(8, 16)
    x = torch.randn(32, 8)
    assert hf.bytes_kept(layer, x) == 4 * 32 * 8  # the input, for the weight's gradient
    two = torch.nn.Sequential(layer, torch.nn.Sigmoid(), torch.nn.Linear(16, 4))
    # Sigmoid keeps its output, which is the next layer's input: counted once.
    assert hf.bytes_kept(two, x) == 4 * (32 * 8 + 32 * 16)
    assert hf.bytes_kept(torch.nn.Identity(), x) == 0


def test_bytes_at_once_counts_what_is_alive_at_the_same_time():
    x = torch.randn(32, 8)
    one = torch.nn.Linear(8, 16)
    assert hf.bytes_at_once(one, x) == 4 * 32 * 16
    # ReLU's input and output are both there; the Linear after it replaces its input.
    three = torch.nn.Sequential(one, torch.nn.ReLU(), torch.nn.Linear(16, 4))
    assert hf.bytes_at_once(three, x) == 4 * 32 * (16 + 16)
    assert hf.bytes_at_once(torch.nn.Identity(), x) == 0
    in_place = torch.nn.Sequential(one, torch.nn.ReLU(inplace=True))
    assert hf.bytes_at_once(in_place, x) == 4 * 32 * 16
