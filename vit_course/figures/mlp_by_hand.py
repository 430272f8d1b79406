"""Five tokens of one value pass a tiny MLP, one row per token: no row meets another."""

from dataclasses import dataclass

import torch

from vit_course.figures.canvas import Canvas

TOKENS = (-2, -1, 0, 1, 2)
SHOWN = 4  # the token that is followed
FIRST_LAYER = ("x", "−x", "x−1", "−x−1")  # what each hidden unit computes
ORANGE = "mlp"


@dataclass
class Passed:
    """The values of the five tokens on their way.

    Attributes:
        tokens: (5, 1).
        before: (5, 4), the hidden units before ReLU.
        after: (5, 4), the same after ReLU.
        second: (4, 1), the weights of the second layer.
        out: (5, 1).
    """

    tokens: torch.Tensor
    before: torch.Tensor
    after: torch.Tensor
    second: torch.Tensor
    out: torch.Tensor


def measure() -> Passed:
    """Runs the MLP of lesson 08's first example."""
    tokens = torch.tensor(TOKENS, dtype=torch.float32)[:, None]
    w1 = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    b1 = torch.tensor([0.0, 0.0, -1.0, -1.0])
    w2 = torch.tensor([[2.0], [1.0], [-4.0], [-2.0]])
    before = tokens @ w1 + b1
    after = before.relu()
    return Passed(tokens, before, after, w2, after @ w2)


def _column(canvas: Canvas, values, left, top, cell, title, below, heads=()) -> None:
    """Draws (rows, columns) with a title and heads above, its shape below."""
    rows, columns = values.shape
    strongest = max(values.max().item(), 1)
    for row in range(rows):
        for column in range(columns):
            value = values[row, column].item()
            face = canvas.blend(
                canvas.colours[ORANGE], 0.06 + 0.8 * max(value, 0) / strongest
            )
            box = (left + column * cell, top - (row + 1) * cell, cell, cell)
            canvas.block(box, face, f"{value:.0f}".replace("-", "−"))
    side = (left + 1, top - (SHOWN + 1) * cell + 1, columns * cell - 2, cell - 2)
    canvas.mark(side, 3)
    middle = left + columns * cell / 2
    for column, head in enumerate(heads):
        canvas.text(left + (column + 0.5) * cell, top + 13, head, ORANGE)
    canvas.text(middle, top + 34, title, size=10, weight="bold")
    canvas.text(middle, top - rows * cell - 18, below)


def draw_mlp_by_hand(dark: bool = False) -> Canvas:
    """Draws tokens, hidden units before and after ReLU, and outputs, left to right."""
    found = measure()
    canvas = Canvas(800, 306, dark)
    top, cell = 246, 36
    middle = top - 2.5 * cell
    for row in range(len(TOKENS)):
        canvas.text(40, top - (row + 0.5) * cell, f"token {row}")
    below = "4 D = 4 hidden units"
    times = [f"×{weight:.0f}".replace("-", "−") for weight in found.second.flatten()]
    _column(canvas, found.tokens, 80, top, cell, "tokens", "D = 1", ("x",))
    _column(canvas, found.before, 222, top, cell, "before ReLU", below, FIRST_LAYER)
    _column(
        canvas,
        found.after,
        462,
        top,
        cell,
        "after ReLU",
        "each × its weight, added",
        times,
    )
    _column(canvas, found.out, 712, top, cell, "output", "D = 1")
    ways = (
        (80 + cell, 222, "first layer"),
        (222 + 4 * cell, 462, "ReLU"),
        (462 + 4 * cell, 712, "second layer"),
    )
    for start, end, label in ways:
        canvas.way((start + 10, middle), (end - 10, middle))
        canvas.text((start + end) / 2, middle + 16, label)
    canvas.text(400, 18, "one row per token: no arrow leads from row to row", ORANGE)
    return canvas
