"""How `patchify` cuts an image: four axes become six, change places, become three.

A second drawing shows how `unpatchify` puts the six axes back in their places.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch

from vit_course.figures.canvas import Canvas

FOLLOWED = 22  # the pixel whose index is shown at every step
BATCH, CHANNELS, HEIGHT, WIDTH, SIZE = 5, 1, 4, 6, 2  # B, C, H, W, P
ROWS, COLUMNS = HEIGHT // SIZE, WIDTH // SIZE
# Blue splits the height and orange the width; the darker of each counts patches.
# Nothing happens to batch and channels, so they are grey; the pixel is black.
BATCH_AXIS, CHANNEL = "layer norm", "light grey"
PATCH_ROW, PIXEL_ROW = "patch embedding", "head"
PATCH_COLUMN, PIXEL_COLUMN = "class token", "mlp"
PIXEL = "ink"


@dataclass
class Step:
    """A tensor on the way from the images to the patches, and where the pixel is."""

    tensor: torch.Tensor
    index: tuple[int, ...]


def measure() -> list[Step]:
    """Cuts five numbered images as `patchify` does, and keeps what lies between."""
    images = torch.arange(BATCH * CHANNELS * HEIGHT * WIDTH)
    images = images.reshape(BATCH, CHANNELS, HEIGHT, WIDTH)
    split = images.reshape(BATCH, CHANNELS, ROWS, SIZE, COLUMNS, SIZE)
    moved = split.permute(0, 2, 4, 1, 3, 5)
    patches = moved.reshape(BATCH, ROWS * COLUMNS, CHANNELS * SIZE**2)
    steps = []
    for tensor in (images, split, moved, patches):
        index = (tensor == FOLLOWED).nonzero()[0].tolist()
        steps.append(Step(tensor, tuple(index)))
    return steps


# Per step: name of an axis, its colours, and the first and last column that it covers.
AXES = (
    (
        ("B", (BATCH_AXIS,), 0, 0),
        ("C", (CHANNEL,), 1, 1),
        ("H", (PATCH_ROW, PIXEL_ROW), 2, 3),
        ("W", (PATCH_COLUMN, PIXEL_COLUMN), 4, 5),
    ),
    (
        ("B", (BATCH_AXIS,), 0, 0),
        ("C", (CHANNEL,), 1, 1),
        ("H/P", (PATCH_ROW,), 2, 2),
        ("P", (PIXEL_ROW,), 3, 3),
        ("W/P", (PATCH_COLUMN,), 4, 4),
        ("P", (PIXEL_COLUMN,), 5, 5),
    ),
    (
        ("B", (BATCH_AXIS,), 0, 0),
        ("H/P", (PATCH_ROW,), 1, 1),
        ("W/P", (PATCH_COLUMN,), 2, 2),
        ("C", (CHANNEL,), 3, 3),
        ("P", (PIXEL_ROW,), 4, 4),
        ("P", (PIXEL_COLUMN,), 5, 5),
    ),
    (
        ("B", (BATCH_AXIS,), 0, 0),
        ("N", (PATCH_ROW, PATCH_COLUMN), 1, 2),
        ("C·P·P", (CHANNEL, PIXEL_ROW, PIXEL_COLUMN), 3, 5),
    ),
)
TITLES = (
    ("images", "four axes"),
    ("reshape", "split H and W: six axes"),
    ("permute", "old axes, new order"),
    ("reshape", "join: three axes"),
)
_LEFT, _WIDE, _GAP, _TALL, _DIGIT = 200, 44, 6, 48, 18
_TOPS = (740, 570, 400, 230)  # of the four steps
# What the four axes of height and width count; below the drawing, each with its middle.
_LEGEND = (
    (PATCH_ROW, "row of patches", 100),
    (PIXEL_ROW, "row inside the patch", 282),
    (PATCH_COLUMN, "column of patches", 474),
    (PIXEL_COLUMN, "column inside the patch", 672),
)
_CELL = 26


def _span(first: int, last: int) -> tuple[float, float]:
    """Returns left edge and width of an axis that covers some of the six columns."""
    left = _LEFT + first * (_WIDE + _GAP)
    return left, (last - first) * (_WIDE + _GAP) + _WIDE


def _ends(axes: tuple, top: float, below: bool) -> dict[str, tuple[float, float]]:
    """Returns for each colour where its line leaves a step, or where it arrives."""
    places = {}
    for _, colours, first, last in axes:
        columns = np.linspace(first, last, len(colours))
        for column, colour in zip(columns, colours, strict=True):
            x = _LEFT + column * (_WIDE + _GAP) + _WIDE / 2
            places[colour] = (x, top - _TALL if below else top)
    return places


def _draw_axes(
    canvas: Canvas, top: float, axes: tuple, step: Step, heading: tuple[int, str, str]
) -> None:
    """Draws the axes of one step, their sizes, and the index of the pixel."""
    number, title, words = heading
    canvas.step(16, top - 12, number, PATCH_ROW, title)
    canvas.text(16, top - 36, words, ha="left")
    words, bold = f"index of pixel {FOLLOWED}", "bold"
    canvas.text(16, top - _TALL - 15, words, PIXEL, ha="left", weight=bold)
    shown = zip(axes, step.tensor.shape, step.index, strict=True)
    for (name, colours, first, last), size, index in shown:
        left, width = _span(first, last)
        part = width / len(colours)
        whole = colours[0] if len(colours) == 1 else "ink"
        canvas.card((left, top - _TALL, width, _TALL), whole, 0.1)
        for place, colour in enumerate(colours):
            canvas.card((left + place * part, top - 8, part, 8), colour, 1, radius=1)
        x = left + width / 2
        canvas.text(x, top - 20, name, size=10.5, weight="bold")
        canvas.text(x, top - 37, f"{size}")
        y = top - _TALL - 15
        box = (x - _DIGIT / 2, y - _DIGIT / 2, _DIGIT, _DIGIT)
        fill = 0.15 if whole == "ink" else 1
        canvas.card(box, whole, fill, f"{index}", weight="bold")


def _number_axes(canvas: Canvas, *steps: tuple[float, tuple]) -> None:
    """Numbers six axes, and again where the permute puts them.

    Args:
        canvas: to draw on.
        steps: top and axes, of the step before the permute and the one after it.
    """
    numbers: dict[tuple[str, ...], int] = {}
    for n, (_, colours, _, _) in enumerate(steps[0][1]):
        numbers[colours] = n
    for top, axes in steps:
        for _, colours, first, last in axes:
            left, width = _span(first, last)
            x = left + width / 2 + 11
            canvas.text(x, top + 9, f"{numbers[colours]}", size=9)


def _draw_links(canvas: Canvas, *steps: tuple[float, tuple]) -> None:
    """Draws where each axis goes from one step, a top and its axes, to the next."""
    for (above, axes), (below, moved) in pairwise(steps):
        end = _ends(moved, below, below=False)
        for colour, (x, y) in _ends(axes, above, below=True).items():
            along, down = end[colour]
            low, high = y - 30, down + 12
            canvas.line("", (x, y), (x, low), colour=colour, width=2)
            canvas.line("", (x, low), (along, high), colour=colour, width=2)
            canvas.line("", (along, high), (along, down), colour=colour, width=2)


def _cell(
    canvas: Canvas, value: int, left: float, bottom: float, side: float = _CELL
) -> None:
    """Draws one pixel; each patch of the image has a grey of its own."""
    row, column = divmod(value, WIDTH)
    patch = row // SIZE * COLUMNS + column // SIZE
    face = canvas.blend(canvas.colours["ink"], 0.05 + 0.065 * patch)
    if value == FOLLOWED:
        face = canvas.colours[PIXEL]
    canvas.block((left, bottom, side, side), face, f"{value}")


def _draw_image(canvas: Canvas, values: np.ndarray) -> None:
    """Draws the first image, with rows and columns numbered."""
    left, top = 610, _TOPS[0] - 18
    for (row, column), value in np.ndenumerate(values):
        _cell(canvas, int(value), left + column * _CELL, top - (row + 1) * _CELL)
    for number in range(HEIGHT):
        middle = (number + 0.5) * _CELL
        canvas.text(left - 12, top - middle, f"{number}", PATCH_ROW)
    for number in range(WIDTH):
        middle = (number + 0.5) * _CELL
        canvas.text(left + middle, top + 11, f"{number}", PATCH_COLUMN)


def _draw_split(canvas: Canvas, top: float, values: np.ndarray) -> None:
    """Draws the first image with its patches apart: two numbers for each direction."""
    left, top, gap = 598, top - 30, 12
    for (down, row, across, column), value in np.ndenumerate(values):
        x = left + (across * SIZE + column) * _CELL + across * gap
        y = top - (down * SIZE + row + 1) * _CELL - down * gap
        _cell(canvas, int(value), x, y)
    wide = SIZE * _CELL + gap  # from one patch to the next
    inside = [(pixel, (pixel + 0.5) * _CELL) for pixel in range(SIZE)]
    for patch in range(ROWS):
        start = top - patch * wide
        middle = start - SIZE * _CELL / 2
        canvas.text(left - 34, middle, f"{patch}", PATCH_ROW, weight="bold")
        for pixel, middle in inside:
            canvas.text(left - 12, start - middle, f"{pixel}", PIXEL_ROW)
    for patch in range(COLUMNS):
        start = left + patch * wide
        middle = start + SIZE * _CELL / 2
        canvas.text(middle, top + 28, f"{patch}", PATCH_COLUMN, weight="bold")
        for pixel, middle in inside:
            canvas.text(start + middle, top + 11, f"{pixel}", PIXEL_COLUMN)


def _draw_moved(canvas: Canvas, top: float, values: np.ndarray) -> None:
    """Draws the patches of the first image in a row, each with its two numbers."""
    start, top, gap, side = 514, top - 26, 6, 20
    for (down, across), patch in ((i, values[i]) for i in np.ndindex(ROWS, COLUMNS)):
        left = start + (down * COLUMNS + across) * (SIZE * side + gap)
        middle = left + SIZE * side / 2
        canvas.text(middle - 8, top + 13, f"{down}", PATCH_ROW, weight="bold")
        canvas.text(middle + 8, top + 13, f"{across}", PATCH_COLUMN, weight="bold")
        for (row, column), value in np.ndenumerate(patch[0]):
            bottom = top - (row + 1) * side
            _cell(canvas, int(value), left + column * side, bottom, side)


def _draw_patches(canvas: Canvas, values: np.ndarray) -> None:
    """Draws the result: a row per patch, numbered from 1 as in the paper."""
    left, top = 648, _TOPS[3] - 4
    for (row, column), value in np.ndenumerate(values):
        _cell(canvas, int(value), left + column * _CELL, top - row * 29 - _CELL)
    for row in range(len(values)):
        middle = top - row * 29 - _CELL / 2
        canvas.text(left - 10, middle, f"patch {row + 1}", ha="right")


def draw_patch_axes(dark: bool = False) -> Canvas:
    """Draws the shapes of `patchify` with an axis per colour, and one pixel's index."""
    steps, canvas = measure(), Canvas(800, 756, dark)
    canvas.colours[CHANNEL] = canvas.blend(canvas.colours["ink"], 0.3)
    places = tuple(zip(_TOPS, AXES, strict=True))
    _draw_links(canvas, *places)
    for number, ((top, axes), step) in enumerate(zip(places, steps, strict=True)):
        _draw_axes(canvas, top, axes, step, (number + 1, *TITLES[number]))
    _number_axes(canvas, *places[1:3])
    images, split, moved, patches = (step.tensor.numpy() for step in steps)
    _draw_image(canvas, images[0, 0])
    _draw_split(canvas, _TOPS[1], split[0, 0])
    _draw_moved(canvas, _TOPS[2], moved[0])
    _draw_patches(canvas, patches[0])
    for colour, words, x in _LEGEND:
        canvas.card((x - 92, 14, 14, 14), colour, 1, radius=2)
        canvas.text(x - 72, 21, words, ha="left")
    return canvas


def draw_patch_axes_back(dark: bool = False) -> Canvas:
    """Draws the permute of `unpatchify`: six axes go back to their old order."""
    _, split, moved, _ = measure()
    canvas = Canvas(800, 340, dark)
    canvas.colours[CHANNEL] = canvas.blend(canvas.colours["ink"], 0.3)
    places = ((316, AXES[2]), (166, AXES[1]))
    _draw_links(canvas, *places)
    headings = ((1, "reshape", "split: six axes"), (2, "permute", "0, 3, 1, 4, 2, 5"))
    for (top, axes), step, heading in zip(
        places, (moved, split), headings, strict=True
    ):
        _draw_axes(canvas, top, axes, step, heading)
    _number_axes(canvas, *places)
    _draw_moved(canvas, 316, moved.tensor.numpy()[0])
    _draw_split(canvas, 166, split.tensor.numpy()[0, 0])
    return canvas
