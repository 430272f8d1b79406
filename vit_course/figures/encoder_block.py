"""One encoder block, box by box: shapes and parameters, as the model has them."""

from functools import cache
from typing import NamedTuple

import torch
from torch import nn

from going_modular.encoder import TransformerEncoderBlock
from going_modular.multihead_attention import record_attention
from vit_course.figures.canvas import Canvas
from vit_course.figures.shapes import Seen, trace

TOKENS = (32, 197, 768)  # of ViT-B/16 at 224 x 224 pixels


# What goes in, what comes out, and the branch between them.
EQUATIONS = {
    2: (
        r"\mathbf{z}_{\ell-1}",
        r"\mathbf{z}'_\ell",
        r"\mathrm{MSA}(\mathrm{LN}(\mathbf{z}_{\ell-1}))",
    ),
    3: (
        r"\mathbf{z}'_\ell",
        r"\mathbf{z}_\ell",
        r"\mathrm{MLP}(\mathrm{LN}(\mathbf{z}'_\ell))",
    ),
}


class _Box(NamedTuple):
    colour: str
    name: str
    words: str
    shape: tuple[int, ...]  # of what leaves it
    parameters: int


@cache
def measure() -> dict[str, Seen]:
    """Traces a block of ViT-B/16; "weights" are its attention weights."""
    with torch.device("meta"):
        block = TransformerEncoderBlock().eval()
        with record_attention(block) as maps:
            seen = trace(block, torch.empty(TOKENS))
    shape = tuple(maps[0].shape)
    seen["weights"] = Seen(nn.Identity(), shape, shape, 0)
    return seen


def _boxes(seen: dict[str, Seen]) -> dict[int, list[_Box]]:
    """Returns the boxes of Equations 2 and 3, in the order of the computation."""

    def box(colour: str, name: str, path: str, words: str = "") -> _Box:
        found = seen[path]
        if isinstance(found.module, nn.Linear):
            words = f"{found.before[-1]} → {found.after[-1]}"
        elif isinstance(found.module, nn.Dropout):
            words = f"p = {found.module.p}"
        return _Box(colour, name, words, found.after, found.parameters)

    msa, mlp, norm = "msa_block", "mlp_block.mlp", "layer norm"
    heads = f"{seen['weights'].after[1]} heads"
    out = seen[f"{msa}.attention.out_proj"].before
    return {
        2: [
            box(norm, "LayerNorm", f"{msa}.layer_norm", "each token"),
            box("attention", "q, k, v", f"{msa}.attention.qkv"),
            box("attention", "softmax", "weights", heads),
            _Box("attention", "× v", "concatenate", out, 0),
            box("attention", "dense", f"{msa}.attention.out_proj"),
            box("attention", "dropout", f"{msa}.dropout"),
        ],
        3: [
            box(norm, "LayerNorm", "mlp_block.layer_norm", "each token"),
            box("mlp", "dense", f"{mlp}.0"),
            box("mlp", "GELU", f"{mlp}.1", "elementwise"),
            box("mlp", "dropout", f"{mlp}.2"),
            box("mlp", "dense", f"{mlp}.3"),
            box("mlp", "dropout", f"{mlp}.4"),
        ],
    }


def _draw_row(canvas: Canvas, number: int, boxes: list[_Box], middle: float) -> None:
    """Draws one equation: its boxes, and the residual path around them."""
    start, end, formula = EQUATIONS[number]
    first, step, width, height, plus = 76, 108, 94, 76, 742
    above = middle + 68
    canvas.text(48, middle, f"${start}$", size=12.5, ha="right")
    left = 52
    for index, box in enumerate(boxes):
        x = first + index * step + width / 2
        canvas.way((left, middle), (x - width / 2, middle))
        left = x + width / 2
        frame = (x - width / 2, middle - height / 2, width, height)
        canvas.card(frame, box.colour, 0.2)
        canvas.text(x, middle + 21, box.name, size=10, weight="bold")
        canvas.text(x, middle + 1, box.words)
        canvas.text(x, middle - 20, f"{box.parameters:,}", box.colour)
        shape = ", ".join(["B", *map(str, box.shape[1:])])
        canvas.text(x, middle - 54, f"({shape})", size=9)
    canvas.way((left, middle), (plus - 10, middle))
    canvas.way((64, middle), (64, above), (plus, above), (plus, middle + 10))
    canvas.card((plus - 10, middle - 10, 20, 20), "layer norm", 0.2, "+", radius=10)
    canvas.way((plus + 10, middle), (plus + 28, middle))
    canvas.text(774, middle, f"${end}$", size=13, ha="left")
    words = rf"Eq. {number}:  ${end} = {formula} + {start}$"
    canvas.text(400, above + 21, words, boxes[-1].colour, size=12.5)


def draw_encoder_block(dark: bool = False) -> Canvas:
    """Draws Equations 2 and 3 as two rows of boxes, each with its residual path."""
    seen, canvas = measure(), Canvas(800, 396, dark)
    for (number, boxes), middle in zip(_boxes(seen).items(), (290, 110), strict=True):
        _draw_row(canvas, number, boxes, middle)
    total = f"{seen[''].parameters:,}"
    words = "coloured: parameters; below each box: the shape that leaves it; "
    canvas.text(400, 18, f"{words}all parameters: {total}")
    return canvas
