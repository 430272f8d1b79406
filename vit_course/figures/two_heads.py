"""Two heads on three tokens: each reads all four features, and makes two of its own."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from going_modular.self_attention import scaled_dot_product_attention
from vit_course.figures.canvas import Canvas

TOKENS = ((1, 0, 2, 1), (0, 2, 1, 1), (2, 1, 0, 1))  # N = 3, D = 4
# W_v of the first and second head, (4, 2) each: no row is zero, all features are read.
W_VALUE = (((1, 0), (0, 1), (1, 0), (0, 1)), ((1, 1), (1, 0), (0, 1), (0, -1)))
U_MSA = ((1, 0, 0, 1), (0, 1, 1, 0), (1, 0, -1, 0), (0, 1, 0, -1))
SEED = 2806  # of W_q and W_k: the two heads look at different tokens
FOLLOWED = 1  # the token whose rows are framed, from 0
_PART = "attention"
_HEIGHT = 26  # of a cell


@dataclass
class Heads:
    """Two heads and what comes of them.

    Attributes:
        value: (2, 3, 2), heads first.
        weights: (2, 3, 3).
        output: (2, 3, 2).
        joined: (3, 4), the outputs side by side.
        msa: (3, 4), joined @ U_msa.
    """

    value: np.ndarray
    weights: np.ndarray
    output: np.ndarray
    joined: np.ndarray
    msa: np.ndarray


@cache
def measure(seed: int = SEED) -> Heads:
    """Computes Equations 5 to 8 for the tokens above."""
    tokens = torch.tensor(TOKENS, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    w_query, w_key = torch.randn(2, 2, 4, 2, generator=generator, dtype=torch.float64)
    value = tokens @ torch.tensor(W_VALUE, dtype=torch.float64)
    output, weights = scaled_dot_product_attention(
        tokens @ w_query, tokens @ w_key, value
    )
    joined = torch.cat([*output], dim=1)
    msa = joined @ torch.tensor(U_MSA, dtype=torch.float64)
    parts = (value, weights, output, joined, msa)
    return Heads(*(part.numpy() for part in parts))


def _matrix(
    canvas: Canvas, values, left, top, cell, form, title, colour=_PART, framed=True
) -> None:
    """Draws a matrix with a title above and its shape below, one row framed."""
    rows, columns = values.shape
    canvas.matrix(values, left, top, (cell, _HEIGHT), colour, form)
    if framed:
        bottom = top - (FOLLOWED + 1) * _HEIGHT
        canvas.mark((left, bottom, columns * cell, _HEIGHT))
    middle = left + columns * cell / 2
    canvas.text(middle, top + 14, title, size=11)
    canvas.text(middle, top - rows * _HEIGHT - 13, f"({rows}, {columns})")


def draw_two_heads(dark: bool = False) -> Canvas:
    """Draws tokens, two heads above each other, their results, and the projection."""
    found, canvas = measure(), Canvas(800, 440, dark)
    middle = 228
    tokens = np.array(TOKENS, dtype=float)
    top = middle + 1.5 * _HEIGHT
    for row in range(len(TOKENS)):
        canvas.text(9, top - (row + 0.5) * _HEIGHT, f"{row}", weight="bold")
    _matrix(canvas, tokens, 20, top, 26, "{:.0f}", r"tokens $\mathbf{z}$", "layer norm")
    for number, lane in enumerate((318, 138)):  # the middle of each head's row
        order = ("first", "second")[number]
        count = number + 1  # the paper counts from 1
        canvas.way((128, middle), (138, middle), (138, lane), (158, lane))
        canvas.text(188, lane + 84, f"{order} head", _PART, size=9, weight="bold")
        matrix = np.array(W_VALUE[number], dtype=float)
        name = rf"$\mathbf{{W}}_v^{count}$"
        left, top = 162, lane + 2 * _HEIGHT
        _matrix(canvas, matrix, left, top, 26, "{:.0f}", name, framed=False)
        canvas.way((220, lane), (240, lane))
        value, top = found.value[number], lane + 1.5 * _HEIGHT
        name = r"values $\mathbf{v}$"
        _matrix(canvas, value, 246, top, 26, "{:.0f}", name, framed=False)
        canvas.text(319, lane, "and", size=10)
        _matrix(canvas, found.weights[number], 340, top, 35, "{:.2f}", "map $A$, given")
        canvas.way((451, lane), (471, lane))
        name = rf"$\mathrm{{SA}}_{count} = A\,\mathbf{{v}}$"
        _matrix(canvas, found.output[number], 477, top, 33, "{:.1f}", name)
        canvas.way((549, lane), (570, lane), (570, 354), (600, 354))
    left, right = 610, 786  # of the column on the right
    top = 354 + 1.5 * _HEIGHT
    _matrix(
        canvas, found.joined, left, top, 36, "{:.1f}", "first head   |   second head"
    )
    canvas.text(left + 72, top + 34, "side by side", size=11)
    matrix, name = np.array(U_MSA, dtype=float), r"times $\mathbf{U}_{msa}$"
    _matrix(canvas, matrix, left + 20, 270, 26, "{:.0f}", name, framed=False)
    canvas.way((right - 20, 354), (right, 354), (right, 73), (right - 20, 73))
    top = 73 + 1.5 * _HEIGHT
    name = r"$\mathrm{MSA}(\mathbf{z})$"
    _matrix(canvas, found.msa, left, top, 36, "{:.1f}", name)
    return canvas
