"""Small functions that all lessons share: seeds, data, proofs and figures."""

import base64
import io
import os
import random
from collections.abc import Iterable
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from IPython import get_ipython
from IPython.display import display
from matplotlib.figure import Figure
from PIL import Image

from vit_course.data import download_data, find_pictures, get_foodvision_mini
from vit_course.figures import PALETTE, draw_model
from vit_course.memory import bytes_at_once, bytes_kept

__all__ = [
    "PALETTE",
    "bytes_at_once",
    "bytes_kept",
    "check_close",
    "download_data",
    "find_pictures",
    "get_foodvision_mini",
    "plot_confusion_matrix",
    "plot_dots",
    "plot_forest",
    "plot_loss_curves",
    "set_seeds",
    "show",
    "show_drawing",
    "show_images",
    "show_model",
    "walk_through_dir",
]


LARGEST_PNG = 80_000  # bytes of a figure; above it JPEG is several times smaller


def set_seeds(seed: int = 42) -> None:
    """Seeds python, numpy and torch (CPU and every accelerator)."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # also seeds CUDA and MPS, on all devices


def check_close(
    name: str, ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-6
) -> None:
    """Asserts that two tensors hold the same values, and prints one line.

    Args:
        name: what is compared, such as "gradient of the class token".
        ours: any shape.
        theirs: the same shape and dtype.
        tolerance: largest absolute difference allowed; 0 asks for equality.

    Raises:
        AssertionError: another shape or dtype, a NaN, or a larger difference.
    """
    shape = tuple(ours.shape)
    assert shape == tuple(theirs.shape), f"{name}: {shape} and {tuple(theirs.shape)}"
    assert ours.dtype == theirs.dtype, f"{name}: {ours.dtype} and {theirs.dtype}"
    largest = (ours - theirs).abs().max().item() if ours.numel() else 0.0
    # Written so that a NaN, which compares as False, fails as well.
    wrong = f"{name}: differs by {largest:.1e}, not {tolerance:.0e}"
    assert largest <= tolerance, wrong
    verdict = "equal" if tolerance == 0 else f"equal to within {tolerance:.0e}"
    print(f"{name}: {shape} {verdict}" if shape else f"{name}: {verdict}")


def show(fig: Figure, alt: str) -> None:
    """Displays a figure once, with a text for those who cannot see it.

    Its pixels are those of 150 dpi, its size on the page that of 90, so it stays sharp
    on fine screens. Line plots are stored as PNG, photographs as JPEG. Outside a
    notebook the figure stays open, for `plt.show()` or `savefig`.
    """
    if get_ipython() is None:
        return
    drawn, stored = io.BytesIO(), io.BytesIO()
    fig.savefig(drawn, dpi=150, bbox_inches="tight")
    plt.close(fig)
    image = Image.open(drawn).convert("RGB")
    image.save(stored, format=(kind := "png"), optimize=True)
    if stored.tell() > LARGEST_PNG:
        kind, stored = "jpeg", io.BytesIO()
        image.save(stored, format=kind, quality=78, subsampling=0, optimize=True)
    encoded = base64.b64encode(stored.getvalue()).decode()
    seen = {"alt": alt, "width": round(image.width * 90 / 150)}
    data = {f"image/{kind}": encoded, "text/plain": alt}
    display(data, metadata={f"image/{kind}": seen}, raw=True)


def show_drawing(name: str) -> None:
    """Shows a drawing of `vit_course/figures/`, such as "patchify" or "equations"."""
    # Imported here: some drawings run the whole model, which most lessons do not need.
    from vit_course.figures.lesson_drawings import drawing

    show(*drawing(name))


def show_model(lit: str | None = None) -> None:
    """Draws the model, one part highlighted; see `vit_course.figures.MODEL_PARTS`."""
    part = f"the part in colour: {lit}" if lit else "all parts in colour"
    show(draw_model(lit), alt=f"The Vision Transformer from image to class; {part}.")


def show_images(
    images: Iterable,
    titles: Iterable[str] = (),
    columns: int = 8,
    alt: str = "",
    width: float | None = None,
    **options,
) -> None:
    """Shows images in a grid.

    Args:
        images: PIL images, arrays (height, width) or (height, width, channels), or
            tensors of shape (channels, height, width) in 0 … 1.
        titles: one per image, or none.
        columns: images per row.
        alt: the alternative text of the figure.
        width: of the whole figure in inches; None chooses one.
        options: for `imshow`, such as `cmap` and `vmin`.
    """
    images, titles = list(images), list(titles)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    side = width / columns if width else min(2.2, 9.6 / columns)  # inches
    breaks = max((title.count("\n") for title in titles), default=0)
    above = 0.3 + 0.2 * breaks if titles else 0  # inches for a title, per row
    size = (side * columns, rows * (side + above))
    fig, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for i, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):
        if isinstance(image, torch.Tensor):
            image = image.detach().cpu().permute(1, 2, 0).clamp(0, 1)
        axis.imshow(image, **{"cmap": "gray"} | options)
        axis.set_title(titles[i] if titles else "", fontsize=9)
    fig.tight_layout(pad=0.3, h_pad=0.6, w_pad=0.8)
    show(fig, alt=alt or f"{len(images)} images: {', '.join(titles) or 'untitled'}")


def plot_loss_curves(
    results: dict[str, list[float]], num_classes: int | None = None
) -> None:
    """Plots loss and accuracy against the epoch: training, validation, test.

    Args:
        results: lists of one length, as `engine.train` returns them: `train_loss` and
            `train_acc`, and where there are any the same with `val_` and `test_`.
        num_classes: K, for a line at ln K, the loss of equal probabilities.

    Raises:
        ValueError: a missing key, or lists of different lengths.
    """
    names = {"train": "training", "val": "validation", "test": "test"}
    there = {"train", *(key.partition("_")[0] for key in results)}
    kinds = {kind: name for kind, name in names.items() if kind in there}
    keys = [f"{kind}_{what}" for kind in kinds for what in ("loss", "acc")]
    missing = [key for key in keys if key not in results]
    if missing:
        raise ValueError(f"results lack {missing}; expected the keys {keys}")
    lengths = {key: len(results[key]) for key in keys}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"results must be lists of one length, got {lengths}")
    epochs = range(1, lengths["train_loss"] + 1)
    fig, axes = plt.subplots(1, 2, figsize=(9, 3.2))
    if num_classes:
        axes[0].axhline(np.log(num_classes), color="k", linestyle=":", label="ln K")
    colours = {"train": "#6E6E6E", "val": "#0072B2", "test": "#D55E00"}
    for axis, what, label in zip(
        axes, ("loss", "acc"), ("loss", "accuracy"), strict=True
    ):
        for kind, name in kinds.items():
            values = results[f"{kind}_{what}"]
            axis.plot(epochs, values, color=colours[kind], label=name)
        axis.set(xlabel="epoch", ylabel=label)
        axis.legend()
    fig.tight_layout()
    alt = f"Loss and accuracy against the epoch, on {' and '.join(kinds.values())} "
    show(fig, alt=f"{alt}images.")


def plot_confusion_matrix(
    matrix: torch.Tensor, class_names: list[str], title: str = ""
) -> None:
    """Draws a confusion matrix: images per true class and predicted class.

    Args:
        matrix: (classes, classes) of counts; a row per true class, a column per
            predicted class.
        class_names: in the order of rows and columns.
        title: above the figure.

    Raises:
        ValueError: the matrix is not square with a row per name.
    """
    count = len(class_names)
    if tuple(matrix.shape) != (count, count):
        raise ValueError(
            f"matrix must be {(count, count)} for {count} classes, "
            f"got {tuple(matrix.shape)}"
        )
    side = 1.5 + 0.5 * count  # inches
    fig, axis = plt.subplots(figsize=(side + 0.6, side))
    axis.imshow(matrix, cmap="Blues", vmin=0)
    for i, row in enumerate(matrix.tolist()):
        for j, entry in enumerate(row):
            ink = "white" if entry > matrix.max() / 2 else "black"
            axis.text(j, i, f"{entry:g}", ha="center", va="center", color=ink)
    axis.set_xticks(range(count), class_names, rotation=30, ha="right")
    axis.set_yticks(range(count), class_names)
    axis.set(xlabel="prediction", ylabel="true class", title=title)
    lines = (f"{n}: {r}" for n, r in zip(class_names, matrix.tolist(), strict=True))
    show(fig, alt=f"Rows are true classes, columns predictions. {'; '.join(lines)}")


def plot_dots(rows: list[dict], baseline: float) -> None:
    """Draws one line per row: a dot per run, and below them their mean and interval.

    Args:
        rows: each with `name`, `accuracies` (one per run), `mean` and `interval` (low,
            high), in percent; perhaps a `note`, written beside it.
        baseline: accuracy of one class for all, in percent; a dotted line.
    """
    fig, axis = plt.subplots(figsize=(7, 1 + 0.5 * len(rows)))
    axis.axvline(baseline, color="k", linestyle=":", label="one class for all")
    lines = []
    for i, row in enumerate(rows):
        (low, high), note = row["interval"], row.get("note", "")
        above = [i - 0.2] * len(row["accuracies"])
        axis.plot(row["accuracies"], above, "o", color="#0072B2", alpha=0.6)
        axis.plot([low, high], [i + 0.15] * 2, color="k", marker="|")
        axis.plot(row["mean"], i + 0.15, "kD", markersize=4)
        axis.text(1.02, i, note, transform=axis.get_yaxis_transform(), va="center")
        line = f"{row['name']} {row['mean']:.1f} ({low:.1f} to {high:.1f}) {note}"
        lines.append(line.strip())
    axis.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axis.set(ylim=(len(rows) - 0.5, -0.5), xlabel="test accuracy in percent")
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    show(fig, alt=f"Test accuracy in percent, mean and interval: {'; '.join(lines)}.")


def plot_forest(rows: list[dict], title: str = "") -> None:
    """Draws one line per row: a difference with its interval, and its p-value.

    Rows have `name`, `difference`, `interval` (low, high), `p_holm`, and perhaps
    `p_holm_against`: the same compared with other runs. Then a dot is full where all
    are below 0.05, half full where some are, and a legend says so.
    """
    fig, axis = plt.subplots(figsize=(7, 1 + 0.27 * len(rows)))
    axis.axvline(0, color="k", linestyle=":")
    names, dots = ["p < 0.05 in all comparisons", "in some", "in none"], {}
    for i, row in enumerate(rows):
        p_values = [row["p_holm"], *row.get("p_holm_against", {}).values()]
        decided = [p < 0.05 for p in p_values]
        kind = 0 if all(decided) else 1 if any(decided) else 2
        axis.plot(row["interval"], [i, i], color="#0072B2")
        (dot,) = axis.plot(row["difference"], i, "o", color="#0072B2", mfcalt="white")
        dot.set_fillstyle("left" if kind == 1 else "full")
        dot.set_markerfacecolor("white" if kind == 2 else "#0072B2")
        dots[kind] = dot
        beside = {"transform": axis.get_yaxis_transform(), "va": "center"}
        axis.text(1.02, i, f"p = {row['p_holm']:.2g}", fontsize=9, **beside)
    axis.set_yticks(range(len(rows)), [row["name"] for row in rows])
    axis.invert_yaxis()
    axis.set(xlabel="difference in accuracy, percentage points", title=title)
    if any("p_holm_against" in row for row in rows):
        place = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "frameon": False}
        legend = {names[kind]: dots[kind] for kind in sorted(dots)}
        fig.legend(list(legend.values()), list(legend), ncols=3, **place)
    lines = (f"{row['name']} {row['difference']:+.1f}" for row in rows)
    show(fig, alt=f"Differences in percentage points: {'; '.join(lines)}.")


def walk_through_dir(dir_path: str | Path) -> None:
    """Prints how many folders and files each folder below `dir_path` holds.

    Raises:
        ValueError: `dir_path` is not a folder.
    """
    root = Path(dir_path)
    if not root.is_dir():
        raise ValueError(f"dir_path must be a folder, got {str(dir_path)!r}")
    for folder, folders, files in os.walk(root):
        folders.sort()
        name = Path(root.resolve().name, Path(folder).relative_to(root)).as_posix()
        count = f"{len(folders)} directories and {len(files)} images"
        print(f"There are {count} in '{name}'.")
