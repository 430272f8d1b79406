"""Equation 1 drawn: the patches of an image, E, the class token and positions."""

import numpy as np

from vit_course.figures.canvas import Canvas
from vit_course.figures.model import draw_pizza

_PATCH, _CLASS, _POSITION = "patch embedding", "class token", "position embedding"
_GRID = 4  # patches across and down
_PITCH, _WIDE, _TALL = 32, 150, 22  # from token to token; a token's width and height
_TOP = 206  # of the first token's middle
_ARROW = 356  # height of the arrows from the image to the matrix


def _row(canvas: Canvas, left: float, y: float, colour: str, frame: bool) -> None:
    """Draws one vector as a flat bar."""
    box = (left, y - _TALL / 2, _WIDE, _TALL)
    canvas.card(box, colour, 1)
    if frame:  # the position is in it: a frame in its colour
        edge = tuple(canvas.colours[_POSITION])
        canvas.outline(box, 3, fc="none", ec=edge, lw=4)


def _sequence(canvas: Canvas, left: float, labels: tuple[str, ...], kind: str) -> None:
    """Draws the N + 1 vectors of a term, one below the other: 0, 1, 2, dots, N."""
    for index, label in enumerate(labels):
        y = _TOP - _PITCH * index
        if index == 3:
            canvas.text(left + _WIDE / 2, y, "⋮", size=13)
            continue
        own = _PATCH if index else _CLASS
        colour = _POSITION if kind == "positions" else own
        _row(canvas, left, y, colour, frame=kind == "sum")
        size = 9.4 if label.startswith("row") else 11.5
        canvas.text(left - 8, y, label, size=size, ha="right")


def _patches(canvas: Canvas) -> None:
    """Draws the image, its patches in a row, and the matrix E."""
    side, left, top = 128, 30, 420
    pixels = draw_pizza(40 * _GRID)
    canvas.image(pixels, (left, top - side, side, side))
    for cut in np.arange(1, _GRID) * side / _GRID:
        for ends in (
            ((left + cut, top), (left + cut, top - side)),
            ((left, top - cut), (left + side, top - cut)),
        ):
            canvas.line("", *ends, colour="paper", width=2)
    canvas.text(left + side / 2, top + 20, "image, H × W × C", weight="bold")
    canvas.way((left + side + 8, _ARROW), (208, _ARROW))
    count = _GRID**2
    numbers = (1, 2, None, count)
    names = (r"$\mathbf{x}_p^1$", r"$\mathbf{x}_p^2$", "", r"$\mathbf{x}_p^N$")
    canvas.text(324, top + 20, "N patches, each a row of P²·C values", weight="bold")
    for index, (number, name) in enumerate(zip(numbers, names, strict=True)):
        x = 246 + 52 * index
        if number is None:
            canvas.text(x, _ARROW, "· · ·", size=12)
            continue
        row, column = divmod(number - 1, _GRID)
        patch = pixels[40 * row :, 40 * column :][:40, :40]
        canvas.image(patch, (x - 20, _ARROW - 20, 40, 40))
        canvas.text(x, _ARROW - 40, name, size=11.5)
    canvas.way((432, _ARROW), (486, _ARROW))
    box = (490, _ARROW - 56, 70, 112)
    canvas.card(box, _PATCH, 0.25, "E", size=15, weight="bold")
    canvas.text(525, top + 20, "times E", weight="bold")
    canvas.text(525, _ARROW - 72, "P²·C × D", size=9.6)
    canvas.way((564, _ARROW), (604, _ARROW))
    canvas.text(614, _ARROW + 26, "N patch embeddings", ha="left", weight="bold")
    canvas.text(614, _ARROW, "prepend the class token", _CLASS, ha="left")
    canvas.text(614, _ARROW - 24, "add the positions", _POSITION, ha="left")


def draw_equation_1(dark: bool = False) -> Canvas:
    """Draws Equation 1: above, from the image to E; below, the sum of two tables."""
    canvas = Canvas(800, 466, dark)
    _patches(canvas)
    lefts = (82, 348, 600)
    tokens = (
        r"$\mathbf{x}_\mathrm{class}$",
        r"$\mathbf{x}_p^1\mathbf{E}$",
        r"$\mathbf{x}_p^2\mathbf{E}$",
        "",
        r"$\mathbf{x}_p^N\mathbf{E}$",
    )
    _sequence(canvas, lefts[0], tokens, "tokens")
    _sequence(canvas, lefts[1], ("row 0", "row 1", "row 2", "", "row N"), "positions")
    sums = tuple(
        rf"$\mathbf{{z}}_0^{i}$" if i else "" for i in ("0", "1", "2", "", "N")
    )
    _sequence(canvas, lefts[2], sums, "sum")
    middle = _TOP - 2 * _PITCH
    for x, sign in ((266, "+"), (532, "=")):
        canvas.text(x, middle, sign, size=18, weight="bold")
    under = (
        "tokens, (N + 1) × D",
        "$\\mathbf{E}_{pos}$, (N + 1) × D",
        "$\\mathbf{z}_0$, (N + 1) × D",
    )
    for left, words in zip(lefts, under, strict=True):
        canvas.text(left + _WIDE / 2, 36, words, size=11)
    return canvas
