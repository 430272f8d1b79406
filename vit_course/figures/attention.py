"""Attention of four tokens, step by step, with the values that the course computes."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from going_modular.self_attention import scaled_dot_product_attention
from vit_course.figures.canvas import Canvas

TOKENS, SIZE, SEED = 4, 3, 279  # N, D_h, and a seed whose weights are not all 0 or 1
FOLLOWED = 1  # the row that is framed, from 0
_PART = "attention"
_CELL = (48, 30)


@dataclass
class Example:
    """One attention head, step by step.

    Attributes:
        query, key, value: (4, 3), rounded to tenths, so that they can be checked by
            hand.
        scores: query @ key^T, (4, 4).
        scaled: scores / sqrt(3).
        weights, output: (4, 4) and (4, 3), by `scaled_dot_product_attention`.
    """

    query: np.ndarray
    key: np.ndarray
    value: np.ndarray
    scores: np.ndarray
    scaled: np.ndarray
    weights: np.ndarray
    output: np.ndarray


@cache
def measure() -> Example:
    """Computes attention for random q, k and v of the seed."""
    generator = torch.Generator().manual_seed(SEED)
    draw = torch.randn(3, TOKENS, SIZE, generator=generator, dtype=torch.float64)
    query, key, value = draw.round(decimals=1).unbind()
    output, weights = scaled_dot_product_attention(query, key, value)
    scores = query @ key.T
    scaled = scores / SIZE**0.5
    parts = (query, key, value, scores, scaled, weights, output)
    return Example(*(part.numpy() for part in parts))


def _matrix(
    canvas: Canvas, values, left, top, form="{:.2f}", framed: bool = True
) -> float:
    """Draws a matrix with numbered rows, and returns where it ends on the right."""
    width, height = _CELL
    canvas.matrix(values, left, top, _CELL, _PART, form)
    for row in range(TOKENS):
        middle = top - (row + 0.5) * height
        canvas.text(left - 11, middle, f"{row + 1}", _PART, weight="bold")
    right = left + width * values.shape[1]
    if framed:
        canvas.mark((left, top - (FOLLOWED + 1) * height, right - left, height))
    return right


def _number_columns(canvas: Canvas, left: float, top: float) -> None:
    """Numbers the columns of a matrix of tokens by tokens."""
    for column in range(TOKENS):
        x = left + (column + 0.5) * _CELL[0]
        canvas.text(x, top + 11, f"{column + 1}", _PART, weight="bold")


def _as_sum(found: Example) -> tuple[str, str]:
    """Returns the framed row of the last step as a sum, and its result."""
    weights = found.weights[FOLLOWED]
    terms = [rf"{weight:.2f}\,v_{i}" for i, weight in enumerate(weights, start=1)]
    result = ",\\ ".join(f"{{{value:.2f}}}" for value in found.output[FOLLOWED])
    return " + ".join(terms), result


def draw_attention(dark: bool = False) -> Canvas:
    """Draws q, k, v; the scores; divided; their softmax; and the average of v."""
    found, canvas = measure(), Canvas(800, 474, dark)
    top, title = 404, 454
    canvas.step(20, title, 1, _PART, f"{TOKENS} tokens: query, key, value")
    left = 40
    for name, values in (("q", found.query), ("k", found.key), ("v", found.value)):
        middle = left + SIZE * _CELL[0] / 2
        canvas.text(middle, top + 14, rf"$\mathbf{{{name}}}$", size=13)
        left = 28 + _matrix(canvas, values, left, top, "{:.1f}", framed=name == "q")
    canvas.way((left - 20, top - 60), (left + 8, top - 60))
    canvas.step(560, title, 2, _PART, r"scores  $\mathbf{q}\,\mathbf{k}^\top$")
    _matrix(canvas, found.scores, 582, top)
    _number_columns(canvas, 582, top)
    canvas.way((678, top - 128), (678, top - 145), (136, top - 145), (136, top - 168))

    top, title = 168, 218
    canvas.step(20, title, 3, _PART, r"divided by  $\sqrt{D_h}$" + f" = √{SIZE}")
    _matrix(canvas, found.scaled, 40, top)
    _number_columns(canvas, 40, top)
    canvas.way((240, top - 60), (268, top - 60))
    canvas.step(276, title, 4, _PART, "softmax: rows sum to one")
    right = _matrix(canvas, found.weights, 296, top)
    _number_columns(canvas, 296, top)
    for row, total in enumerate(found.weights.sum(axis=1)):
        middle = top - (row + 0.5) * _CELL[1]
        canvas.text(right + 8, middle, f"= {total:.2f}", ha="left")
    canvas.way((right + 64, top - 60), (right + 100, top - 60))
    canvas.step(606, title, 5, _PART, "times v")
    _matrix(canvas, found.output, 628, top)
    terms, result = _as_sum(found)
    line = rf"token {FOLLOWED + 1}:  ${terms}\ \approx\ ({result})$"
    canvas.text(20, 18, line, ha="left")
    canvas.text(780, 18, "rows: queries, columns: keys", ha="right")
    return canvas
