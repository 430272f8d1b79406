"""The five parts of lesson 15, each where it stands in the ViT of 2020."""

from vit_course.figures.canvas import Canvas

# A colour of the palette, and where the name begins: in the order of the lesson.
CHANGES = (
    ("LayerScale", "layer norm", 24),
    ("registers", "class token", 180),
    ("QK-norm", "attention", 324),
    ("SwiGLU", "mlp", 462),
    ("attention pooling", "attention", 594),
)
_MIDDLE, _ABOVE, _TITLES = 130, 248, 298  # heights: the path, the way around, names
_NEW, _OLD = 1.0, 0.12  # how much of its colour a new part has, and an old one
# The sequence from the top: class token, registers, patches with their positions.
_TOKENS = (
    [("class token", _OLD, "class")]
    + [("class token", _NEW, f"r{number}") for number in range(1, 5)]
    + [("patch embedding", _OLD, f"p{number}") for number in range(1, 5)]
)
_ROW = 22  # height of a token


def _badge(canvas: Canvas, number: int, x: float, y: float) -> None:
    """Writes the number of a change into a circle."""
    canvas.card((x - 10, y - 10, 20, 20), "ink", 0.85, f"{number}", radius=10)


def _upright(canvas: Canvas, x: float, colour: str, fill: float, name: str) -> None:
    """Draws a narrow box across the path; x is its middle."""
    tall = 124
    box = (x - 12, _MIDDLE - tall / 2, 24, tall)
    canvas.card(box, colour, fill, name, rotation=90, va="center")


def _branch(canvas: Canvas, start: float, end: float) -> None:
    """Draws LayerNorm, LayerScale and skip connection of a branch.

    The operation between the two lasts from `start` to `end`.
    """
    leaves, scale, plus = start - 62, end + 26, end + 58
    around = (leaves, _ABOVE), (plus, _ABOVE), (plus, _MIDDLE + 9)
    canvas.way((leaves, _MIDDLE), *around)
    for left, right in (
        (leaves - 13, start - 38),
        (start - 14, start),
        (end, scale - 12),
        (scale + 12, plus - 9),
    ):
        canvas.way((left, _MIDDLE), (right, _MIDDLE))
    _upright(canvas, start - 26, "layer norm", _OLD, "LayerNorm")
    _upright(canvas, scale, "layer norm", _NEW, "LayerScale")
    _badge(canvas, 1, scale, _MIDDLE + 78)
    canvas.card((plus - 9, _MIDDLE - 9, 18, 18), "layer norm", _OLD, "+", radius=9)


def _frame(canvas: Canvas, left: float, width: float, colour: str, name: str) -> None:
    """Draws a box for what happens inside it, with its name at the top."""
    canvas.card((left, _MIDDLE - 90, width, 184), colour, 0.05)
    canvas.text(left + width / 2, _MIDDLE + 80, name, size=10, weight="bold")


def _attention(canvas: Canvas, left: float) -> None:
    """Draws attention: queries and keys are normed, values are not."""
    _frame(canvas, left, 200, "attention", "attention")
    upper, lower = _MIDDLE + 22, _MIDDLE - 66  # heights: softmax, values
    for name, y in (("q", upper + 20), ("k", upper - 20), ("v", lower)):
        canvas.card((left + 10, y - 11, 22, 22), "attention", _OLD, name, radius=11)
        if name == "v":
            canvas.way((left + 32, y), (left + 147, y))
        else:
            canvas.way((left + 32, y), (left + 50, y))
            canvas.way((left + 76, y), (left + 96, y))
    norm = (left + 50, upper - 40, 26, 80)
    canvas.card(norm, "attention", _NEW, "QK-norm", rotation=90, va="center")
    _badge(canvas, 3, left + 63, upper - 54)
    canvas.card((left + 96, upper - 40, 66, 80), "attention", _OLD, "softmax")
    canvas.way((left + 158, upper - 40), (left + 158, lower + 11))
    canvas.card((left + 147, lower - 11, 22, 22), "attention", _OLD, "×", radius=11)
    out = left + 182
    canvas.line(
        "", (left + 169, lower), (out, lower), (out, _MIDDLE), (left + 200, _MIDDLE)
    )


def _mlp(canvas: Canvas, left: float) -> None:
    """Draws the MLP, with SwiGLU between its two linear layers."""
    _frame(canvas, left, 108, "mlp", "MLP")
    for index, name in enumerate(("Linear", "SwiGLU", "Linear")):
        middle = left + 20 + 34 * index
        new = name == "SwiGLU"
        _upright(canvas, middle, "mlp", _NEW if new else _OLD, name)
        if index:
            canvas.way((middle - 22, _MIDDLE), (middle - 12, _MIDDLE))
        if new:
            _badge(canvas, 4, middle, _MIDDLE - 76)


def draw_five_changes(dark: bool = False) -> Canvas:
    """Draws sequence, one encoder block, pooling and head; new parts in full colour."""
    canvas = Canvas(800, 340, dark)
    canvas.text(
        400,
        324,
        "full colour: new; pale: as in 2020 (positions, last LayerNorm: not drawn)",
        size=10,
    )
    for number, (name, colour, x) in enumerate(CHANGES, start=1):
        canvas.step(x, _TITLES, number, colour, name)
    top = _MIDDLE + _ROW * len(_TOKENS) / 2
    for index, (colour, fill, label) in enumerate(_TOKENS):
        box = (34, top - _ROW * (index + 1) + 1, 46, _ROW - 2)
        canvas.card(box, colour, fill, label)
    _badge(canvas, 2, 18, top - 3 * _ROW)
    canvas.line("", (84, _MIDDLE), (101, _MIDDLE))
    canvas.outline((96, 18, 602, 250), 9, fc="none", ec=canvas.colours["layer norm"])
    canvas.text(397, 28, "one encoder block of L")
    _branch(canvas, start=176, end=376)
    _attention(canvas, 176)
    _branch(canvas, start=516, end=624)
    _mlp(canvas, 516)
    canvas.way((691, _MIDDLE), (714, _MIDDLE))
    _upright(canvas, 726, "attention", _NEW, "attention pooling")
    _badge(canvas, 5, 726, _MIDDLE + 78)
    canvas.way((738, _MIDDLE), (756, _MIDDLE))
    _upright(canvas, 768, "head", _OLD, "head")
    return canvas
