"""Attention of four tokens, step by step, with the values that the course computes."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch

from going_modular.self_attention import scaled_dot_product_attention
from vit_course.figures.canvas import Canvas

# Small integers, chosen so that rounded weights sum to 1.00 and give the output shown.
QUERY = [[0, -1, 1, 0], [-1, 1, 0, 1], [0, -1, 1, -1], [2, 1, 0, -1]]
KEY = [[2, 2, 0, 0], [2, -1, 1, 2], [1, 0, 2, 0], [1, 2, -1, 2]]
VALUE = [[3, 0, 1, 0], [0, 2, 0, 1], [1, 1, 0, 2], [1, 0, 2, 1]]
TOKENS, SIZE = 4, 4  # N, D_h
FOLLOWED = 1  # the row that is framed, from 0
_PART = "attention"
_HEIGHT, _NARROW, _WIDE = 30, 34, 42  # of a cell


@dataclass
class Example:
    """One attention head, step by step.

    Attributes:
        query, key, value: (4, 4), integers, so that they can be checked by hand.
        scores: query @ key^T, (4, 4).
        scaled: scores / sqrt(4).
        weights, output: (4, 4) each, by `scaled_dot_product_attention`.
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
    """Computes attention for the q, k and v above."""
    query, key, value = torch.tensor([QUERY, KEY, VALUE], dtype=torch.float64)
    output, weights = scaled_dot_product_attention(query, key, value)
    scores = query @ key.T
    scaled = scores / SIZE**0.5
    parts = (query, key, value, scores, scaled, weights, output)
    return Example(*(part.numpy() for part in parts))


def _matrix(
    canvas: Canvas, values, left, top, width, form="{:.2f}", framed: bool = True
) -> float:
    """Draws a matrix, rows numbered from 0, and returns where it ends on the right."""
    canvas.matrix(values, left, top, (width, _HEIGHT), _PART, form)
    for row in range(TOKENS):
        middle = top - (row + 0.5) * _HEIGHT
        canvas.text(left - 11, middle, f"{row}", _PART, weight="bold")
    right = left + width * values.shape[1]
    if framed:
        canvas.mark((left, top - (FOLLOWED + 1) * _HEIGHT, right - left, _HEIGHT))
    return right


def _number_columns(canvas: Canvas, left: float, top: float) -> None:
    """Numbers the columns of a matrix of tokens by tokens, from 0."""
    for column in range(TOKENS):
        x = left + (column + 0.5) * _WIDE
        canvas.text(x, top + 11, f"{column}", _PART, weight="bold")


def _as_sum(found: Example) -> tuple[str, str]:
    """Returns the framed row of the last step as a sum, and its result."""
    weights = found.weights[FOLLOWED]
    terms = [rf"{weight:.2f}\,v_{i}" for i, weight in enumerate(weights)]
    result = ",\\ ".join(f"{{{value:.2f}}}" for value in found.output[FOLLOWED])
    return " + ".join(terms), result


def draw_attention(dark: bool = False) -> Canvas:
    """Draws q, k, v; the scores; divided; their softmax; and the average of v."""
    found, canvas = measure(), Canvas(800, 474, dark)
    top, title = 404, 454
    canvas.step(20, title, 1, _PART, f"{TOKENS} tokens: query, key, value")
    left = 40
    for name, values in (("q", found.query), ("k", found.key), ("v", found.value)):
        middle = left + SIZE * _NARROW / 2
        canvas.text(middle, top + 14, rf"$\mathbf{{{name}}}$", size=13)
        right = _matrix(canvas, values, left, top, _NARROW, "{:.0f}", name == "q")
        left = right + 36
    canvas.way((right + 12, top - 60), (right + 60, top - 60))
    canvas.step(580, title, 2, _PART, r"scores  $\mathbf{q}\,\mathbf{k}^\top$")
    _matrix(canvas, found.scores, 602, top, _WIDE, "{:.0f}")
    _number_columns(canvas, 602, top)
    canvas.way((686, top - 128), (686, top - 145), (124, top - 145), (124, top - 168))

    top, title = 168, 218
    canvas.step(20, title, 3, _PART, r"divided by  $\sqrt{D_h}$" + f" = √{SIZE} = 2")
    right = _matrix(canvas, found.scaled, 40, top, _WIDE, "{:.1f}")
    _number_columns(canvas, 40, top)
    canvas.way((right + 14, top - 60), (right + 54, top - 60))
    canvas.step(276, title, 4, _PART, "softmax: rows sum to one")
    right = _matrix(canvas, found.weights, 296, top, _WIDE)
    _number_columns(canvas, 296, top)
    for row, total in enumerate(found.weights.sum(axis=1)):
        middle = top - (row + 0.5) * _HEIGHT
        canvas.text(right + 8, middle, f"= {total:.2f}", ha="left")
    canvas.way((right + 64, top - 60), (right + 104, top - 60))
    canvas.step(580, title, 5, _PART, "times v")
    _matrix(canvas, found.output, 602, top, _WIDE)
    terms, result = _as_sum(found)
    line = rf"token {FOLLOWED}:  ${terms}\ =\ ({result})$"
    canvas.text(20, 18, line, ha="left")
    canvas.text(780, 18, "rows: queries, columns: keys", ha="right")
    return canvas
