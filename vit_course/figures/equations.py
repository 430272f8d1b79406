"""The four equations of the paper, and the part of the model that each one is."""

from typing import NamedTuple

import numpy as np

from vit_course.figures.canvas import Canvas
from vit_course.figures.model import draw_pizza


class Equation(NamedTuple):
    """A row of the figure; `colour` is of the palette, `formula` is mathtext."""

    colour: str
    formula: str
    words: str


# As in section 3.1 of the paper, arXiv 2010.11929.
EQUATIONS = (
    Equation(
        "patch embedding",
        r"$\mathbf{z}_0 = [\mathbf{x}_\mathrm{class};\ \mathbf{x}_p^1\mathbf{E};\ "
        r"\mathbf{x}_p^2\mathbf{E};\ \cdots;\ \mathbf{x}_p^N\mathbf{E}]"
        r" + \mathbf{E}_{pos}$",
        r"$\mathbf{E}\in\mathbb{R}^{(P^2\cdot C)\times D},\ \ "
        r"\mathbf{E}_{pos}\in\mathbb{R}^{(N+1)\times D}$",
    ),
    Equation(
        "attention",
        r"$\mathbf{z}'_\ell = \mathrm{MSA}(\mathrm{LN}(\mathbf{z}_{\ell-1}))"
        r" + \mathbf{z}_{\ell-1}$",
        r"$\ell = 1 \ldots L$: tokens take from each other",
    ),
    Equation(
        "mlp",
        r"$\mathbf{z}_\ell = \mathrm{MLP}(\mathrm{LN}(\mathbf{z}'_\ell))"
        r" + \mathbf{z}'_\ell$",
        r"$\ell = 1 \ldots L$: each token for itself",
    ),
    Equation(
        "head",
        r"$\mathbf{y} = \mathrm{LN}(\mathbf{z}_L^0)$",
        "the class token, the input of the head",
    ),
)
_BOTTOM, _TALL, _MIDDLE = 246, 190, 332  # of the four parts of the drawing


def _part(canvas: Canvas, number: int, left: float, width: float, title: str) -> None:
    """Draws the frame of a part of the model, with the number of its equation."""
    colour = EQUATIONS[number - 1].colour
    canvas.card((left, _BOTTOM, width, _TALL), colour, 0.08, radius=8)
    y = _BOTTOM + _TALL - 24
    canvas.card((left + 10, y - 12, 24, 24), colour, 1, f"{number}", radius=12)
    canvas.text(left + 42, y, title, size=10, weight="bold", ha="left")


def _draw_tokens(canvas: Canvas) -> None:
    """Draws Equation 1: patches, times E, the class token, plus positions."""
    pizza, y = draw_pizza(160), 308
    for row, column in np.ndindex(2, 2):
        part = pizza[80 * row :, 80 * column :][:80, :80]
        canvas.image(part, (34 + 38 * column, y + 1 - 38 * row, 36, 36))
    canvas.way((112, y), (128, y))
    canvas.card((128, y - 48, 26, 96), "patch embedding", 0.25, "E", weight="bold")
    canvas.way((154, y), (170, y))
    for index in range(5):
        colour = "patch embedding" if index else "class token"
        bottom = y + 51 - 25 * index
        canvas.card((172, bottom, 30, 20), colour, 1, f"{index}")
        canvas.text(217, bottom + 10, "+")
        canvas.card((232, bottom, 30, 20), "position embedding", 1, f"{index}")


def _draw_block(canvas: Canvas, left: float, colour: str, name: str) -> None:
    """Draws LayerNorm, an operation, and the residual path around them."""
    tall, below = 88, _MIDDLE - 62
    canvas.card((left + 24, _MIDDLE - 44, 28, tall), "layer norm", 0.2, "LN")
    canvas.way((left + 52, _MIDDLE), (left + 68, _MIDDLE))
    box = (left + 68, _MIDDLE - 44, 48, tall)
    canvas.card(box, colour, 1, name, size=10, weight="bold")
    plus = left + 142
    canvas.way((left + 116, _MIDDLE), (plus - 10, _MIDDLE))
    canvas.way(
        (left + 12, _MIDDLE), (left + 12, below), (plus, below), (plus, _MIDDLE - 10)
    )
    canvas.card((plus - 10, _MIDDLE - 10, 20, 20), "layer norm", 0.2, "+", radius=10)


def _draw_head(canvas: Canvas, left: float) -> None:
    """Draws Equation 4: the class token, its LayerNorm, and what reads it."""
    canvas.card((left + 10, _MIDDLE - 10, 26, 20), "class token", 1, "0")
    canvas.way((left + 36, _MIDDLE), (left + 50, _MIDDLE))
    canvas.card((left + 50, _MIDDLE - 44, 28, 88), "layer norm", 0.2, "LN")
    canvas.way((left + 78, _MIDDLE), (left + 92, _MIDDLE))
    upright = {"rotation": 90, "va": "center"}
    canvas.card((left + 92, _MIDDLE - 44, 28, 88), "head", 1, "linear", **upright)


def _draw_rows(canvas: Canvas) -> None:
    """Writes the equations, each in the colour and with the number of its part."""
    for number, (colour, formula, words) in enumerate(EQUATIONS, start=1):
        bottom = 182 - 56 * (number - 1)
        canvas.card((20, bottom, 760, 48), colour, 0.08, radius=8)
        canvas.card((30, bottom + 12, 24, 24), colour, 1, f"{number}", radius=12)
        canvas.text(70, bottom + 24, formula, colour, size=13.5, ha="left")
        size = 11 if number == 1 else 9.6  # with exponents, which are smaller
        canvas.text(768, bottom + 24, words, size=size, ha="right")


def draw_equations(dark: bool = False) -> Canvas:
    """Draws the model in four coloured parts above, its equations below."""
    canvas = Canvas(800, 476, dark)
    left = {1: 20, 2: 294, 3: 472, 4: 650}
    _part(canvas, 1, left[1], 252, "patches and positions")
    _part(canvas, 2, left[2], 166, "attention")
    _part(canvas, 3, left[3], 166, "MLP")
    _part(canvas, 4, left[4], 130, "head")
    _draw_tokens(canvas)
    _draw_head(canvas, left[4])
    canvas.way((262, _MIDDLE), (left[2] + 24, _MIDDLE))
    _draw_block(canvas, left[2], "attention", "MSA")
    canvas.way((left[2] + 152, _MIDDLE), (left[3] + 24, _MIDDLE))
    _draw_block(canvas, left[3], "mlp", "MLP")
    canvas.way((left[3] + 152, _MIDDLE), (left[4] + 10, _MIDDLE))
    top = _BOTTOM + _TALL + 6
    ends = left[2] + 4, left[3] + 162
    bracket = ((ends[0], top), (ends[0], top + 12), (ends[1], top + 12), (ends[1], top))
    canvas.line("", *bracket)
    middle = sum(ends) / 2
    canvas.card(
        (middle - 66, top + 1, 132, 22), "ink", 0, "encoder block × L", radius=11
    )
    _draw_rows(canvas)
    return canvas
