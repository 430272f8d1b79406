"""The residual stream: a token of two features, to which two blocks add notes."""

from vit_course.figures.canvas import Canvas

# What each branch adds to the token, and what it is: attention, or the MLP.
NOTES = (("MSA", (0, 0.5)), ("MLP", (1, 0)), ("MSA", (0, -0.5)), ("MLP", (0.5, 1)))
TOKEN = (8.0, 2.0)  # z_0
_STREAM, _BRANCH = 176, 92  # heights of the stream and of the branches
_LEFT, _STEP = 70, 172  # of the first branch, and of each
_PLUS = 128  # from where a branch begins to its sum


def _vector(values: tuple[float, ...]) -> str:
    """Writes a vector as in the lesson's text."""
    return "[" + ", ".join(f"{value:g}".replace("-", "−") for value in values) + "]"


def draw_residual_stream(dark: bool = False) -> Canvas:
    """Draws the stream as a thick line, and below it the branches of two blocks."""
    canvas = Canvas(800, 246, dark)
    end = _LEFT + _STEP * len(NOTES)
    look = {"colour": "layer norm", "width": 4}
    canvas.line("", (_LEFT - 18, _STREAM), (end + 4, _STREAM), **look)
    token = TOKEN
    canvas.text(28, _STREAM, r"$\mathbf{z}_0$", size=13)
    canvas.text(28, _STREAM + 24, _vector(token), size=10.5)
    for index, (kind, note) in enumerate(NOTES):
        left = _LEFT + _STEP * index
        plus = left + _PLUS
        middle = left + 56
        colour = "attention" if kind == "MSA" else "mlp"
        canvas.way((left, _STREAM), (left, _BRANCH), (middle - 42, _BRANCH))
        box = (middle - 42, _BRANCH - 21, 84, 42)
        canvas.card(box, colour, 1.0, f"LN, {kind}")
        canvas.way((middle + 42, _BRANCH), (plus, _BRANCH), (plus, _STREAM - 11))
        canvas.text(plus, _BRANCH - 34, f"adds {_vector(note)}", size=10)
        canvas.card(
            (plus - 11, _STREAM - 11, 22, 22), "layer norm", 0.2, "+", radius=11
        )
        token = tuple(old + new for old, new in zip(token, note, strict=True))
        canvas.text(plus + 12, _STREAM + 24, _vector(token), size=10.5)
    canvas.text(778, _STREAM, r"$\mathbf{z}_2$", size=13)
    for block in (1, 2):
        first = _LEFT + 2 * _STEP * (block - 1) - 8
        last = first + 2 * _STEP - 16
        canvas.line("", (first, 34), (last, 34), colour="layer norm", width=1.2)
        canvas.text((first + last) / 2, 18, f"block {block}", size=10)
    canvas.text(20, 230, "the residual stream", size=10, weight="bold", ha="left")
    return canvas
