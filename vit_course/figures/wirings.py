"""Three ways to wire an encoder block: no skip connection, post-norm, pre-norm."""

from typing import NamedTuple

from vit_course.figures.canvas import Canvas


class _Wiring(NamedTuple):
    title: str
    words: str
    skip: bool
    formula: str


WIRINGS = (
    _Wiring(
        "none",
        "each branch replaces the tokens",
        False,
        r"$f(\mathrm{LN}(\mathbf{z}))$",
    ),
    _Wiring(
        "post-norm",
        "LayerNorm lies on the residual stream",
        True,
        r"$\mathrm{LN}(\mathbf{z} + f(\mathbf{z}))$",
    ),
    _Wiring(
        "pre-norm, as in the ViT",
        "the residual stream is free; LayerNorm lies on the branch",
        True,
        r"$\mathbf{z} + f(\mathrm{LN}(\mathbf{z}))$",
    ),
)
_TOPS = (428, 318, 144)  # of the titles
_WIDTH, _TALL = 86, 44  # of a box
_HALF = 346  # length of one half: attention, or the MLP
_BRANCH, _UP = 14, 60  # where the branch leaves the stream, and how high that runs
_STREAM = 4  # width of its line
# In each half: the middle of LayerNorm, of the operation, and of the sum.
_PLACES = {
    "none": (96, 242, None),
    "post-norm": (262, 90, 174),
    "pre-norm, as in the ViT": (90, 206, 290),
}


def _half(canvas: Canvas, title: str, left: float, y: float, kind: str) -> None:
    """Draws attention or MLP with its LayerNorm; tokens come in and leave at y."""
    norm, operation, plus = _PLACES[title]
    colour = "attention" if kind == "MSA" else "mlp"
    first, last = sorted((norm, operation))
    if plus is None:
        canvas.way((left, y), (left + first - _WIDTH / 2, y))
        canvas.way((left + first, y), (left + last - _WIDTH / 2, y))
        if kind == "MSA":
            canvas.line("", (left + last, y), (left + _HALF, y))
        else:
            canvas.way((left + last, y), (left + _HALF, y))
    else:
        leaves, arrives = left + _BRANCH, left + plus
        around = (leaves, y + _UP), (arrives, y + _UP), (arrives, y)
        for points in (
            ((left, y), (leaves, y), *around),
            ((arrives, y), (left + _HALF, y)),
        ):
            canvas.line("", *points, colour="layer norm", width=_STREAM)
        canvas.way((leaves, y), (left + first - _WIDTH / 2, y))
        if last < plus:
            canvas.way((left + first, y), (left + last - _WIDTH / 2, y))
        end = last if last < plus else first
        canvas.way((left + end, y), (arrives - 11, y))
        canvas.card((arrives - 11, y - 11, 22, 22), "layer norm", 0.2, "+", radius=11)
    for place, (shade, label, fill) in (
        (norm, ("layer norm", "LayerNorm", 0.2)),
        (operation, (colour, kind, 1.0)),
    ):
        box = (left + place - _WIDTH / 2, y - _TALL / 2, _WIDTH, _TALL)
        canvas.card(box, shade, fill, label)


def draw_wirings(dark: bool = False) -> Canvas:
    """Draws the three wirings of one block as rows, the residual stream thick."""
    canvas = Canvas(800, 450, dark)
    for index, (wiring, top) in enumerate(zip(WIRINGS, _TOPS, strict=True)):
        y = top - (96 if wiring.skip else 50)
        canvas.step(20, top, index + 1, "layer norm", wiring.title)
        words = f"{wiring.words}:  {wiring.formula}"
        canvas.text(780, top, words, ha="right", size=10)
        canvas.text(30, y, r"$\mathbf{z}_{\ell-1}$", size=13)
        canvas.text(774, y, r"$\mathbf{z}_\ell$", size=13)
        for half, kind in enumerate(("MSA", "MLP")):
            _half(canvas, wiring.title, 54 + _HALF * half, y, kind)
    return canvas
