"""Figure 1 of the paper, drawn again: inputs, layers, blocks and outputs by name."""

from vit_course.figures.canvas import Canvas
from vit_course.figures.model import draw_pizza
from vit_course.figures.shapes import measure

_TOP, _BELOW = 322, 112  # heights of the two rows' middles
_TALL = 72


def _sizes() -> dict[str, str]:
    """Returns the shape after each step of ViT-B/16, for a batch of B images."""
    seen = measure()
    after = {
        "patches": seen["embedding.patch_embedding"].after,
        "tokens": seen["encoder"].before,
        "encoded": seen["encoder"].after,
        "y": seen["layer_norm"].after,
        "logits": seen["head"].after,
    }
    image = seen["embedding.patch_embedding.patcher"].before
    sizes = {name: shape[1:] for name, shape in after.items()} | {"image": image[1:]}
    return {k: f"(B, {', '.join(map(str, shape))})" for k, shape in sizes.items()}


def _card(canvas: Canvas, row: float, box: tuple, colour: str, words: tuple) -> None:
    """Draws one step of a row: its name in up to three lines, and its kind below.

    Args:
        canvas: to draw on.
        row: height of the middle.
        box: left end and width.
        colour: of the palette.
        words: the lines of the name, then the kind.
    """
    left, width = box
    *name, kind = words
    fill = 0.05 if colour == "ink" else 0.2  # a block is grey, as in the whole model
    canvas.card((left, row - _TALL / 2, width, _TALL), colour, fill, radius=6)
    for line, text in enumerate(name):
        y = row + 8 * (len(name) - 1) - 16 * line
        canvas.text(left + width / 2, y, text, weight="bold")
    canvas.text(left + width / 2, row - _TALL / 2 - 14, kind)


def _way(canvas: Canvas, row: float, start: float, end: float) -> None:
    canvas.way((start, row), (end, row))


def _architecture(canvas: Canvas, sizes: dict[str, str]) -> None:
    """Draws the way from an image to logits, with the frame of the architecture."""
    canvas.card((118, 246, 566, 176), "ink", 0, radius=10)
    title = "architecture: the Vision Transformer"
    canvas.text(132, 404, title, size=10, weight="bold", ha="left")
    canvas.image(draw_pizza(144), (22, _TOP - 36, 72, 72))
    canvas.text(58, _TOP + 54, "input: image", weight="bold")
    canvas.text(58, _TOP - 50, sizes["image"])
    steps = (
        (130, 90, "patch embedding", ("patch", "embedding", "layer")),
        (238, 58, "class token", ("class", "token", "layer")),
        (314, 90, "position embedding", ("position", "embedding", "layer")),
        (422, 82, "ink", ("encoder", "block", "block, 12 times")),
        (532, 72, "layer norm", ("Layer-", "Norm", "layer")),
        (622, 50, "head", ("head", "layer")),
    )
    for shift in (10, 5):  # a pile: the block is repeated
        box = (422 + shift, _TOP - _TALL / 2 + shift, 82, _TALL)
        canvas.card(box, "ink", 0.05, radius=6)
    end = 94.0
    for left, width, colour, words in steps:
        _way(canvas, _TOP, end, left)
        end = left + width
        _card(canvas, _TOP, (left, width), colour, words)
    _way(canvas, _TOP, end, 706)
    for bar, (left, length) in enumerate(((724, 46), (724, 8), (711, 13))):
        box = (left, _TOP + 12 - 20 * bar, length, 15)
        canvas.card(box, "head", 1, radius=2)  # the last logit is negative
    canvas.line("", (724, _TOP - 34), (724, _TOP + 33))
    canvas.text(742, _TOP + 54, "output: logits", weight="bold")
    canvas.text(742, _TOP - 50, sizes["logits"])


def _block(canvas: Canvas, sizes: dict[str, str]) -> None:
    """Draws one encoder block: two halves, each with its skip connection."""
    canvas.card((118, 18, 566, 200), "ink", 0.05, radius=10)
    canvas.way((463, 260), (463, 220))
    canvas.text(474, 232, "one block, inside", ha="left")
    canvas.text(58, _BELOW + 26, "input: tokens", weight="bold")
    canvas.text(58, _BELOW - 24, sizes["tokens"])
    canvas.text(742, _BELOW + 26, "output: tokens", weight="bold")
    canvas.text(742, _BELOW - 24, sizes["encoded"])
    norm = ("Layer-", "Norm", "layer")
    halves = (
        (132, "attention", "Equation 2: attention", ("self-", "attention", "layer")),
        (410, "mlp", "Equation 3: MLP", ("Linear", "GELU", "Linear", "3 layers")),
    )
    end = 22.0
    for left, colour, title, words in halves:
        canvas.card((left, 30, 262, 176), colour, 0.06, radius=8)
        canvas.text(left + 12, 190, title, weight="bold", ha="left")
        _way(canvas, _BELOW, end, left + 26)
        _card(canvas, _BELOW, (left + 26, 66), "layer norm", norm)
        _way(canvas, _BELOW, left + 92, left + 108)
        _card(canvas, _BELOW, (left + 108, 98), colour, words)
        _way(canvas, _BELOW, left + 206, left + 226)
        start, plus = left + 12, left + 236
        around = (start, _BELOW + 58), (plus, _BELOW + 58)
        canvas.way((start, _BELOW), *around, (plus, _BELOW + 10))
        canvas.card((plus - 10, _BELOW - 10, 20, 20), "layer norm", 0.2, "+", radius=10)
        end = left + 246
    _way(canvas, _BELOW, end, 778)


def draw_figure_1(dark: bool = False) -> Canvas:
    """Draws the architecture above and one of its encoder blocks below."""
    canvas = Canvas(800, 436, dark)
    sizes = _sizes()
    _architecture(canvas, sizes)
    _block(canvas, sizes)
    return canvas
