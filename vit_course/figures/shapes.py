"""From images to logits: the shape after each step, as the model has it."""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn

from going_modular.vit import ViT, create_vit
from vit_course.figures.canvas import Canvas
from vit_course.figures.model import draw_pizza

BATCH = (32, 3, 224, 224)
CLASSES = 3


@dataclass
class Seen:
    """A module as a forward hook saw it: shapes in and out, and its own parameters."""

    module: Any  # of any class, whose attributes the figure reads
    before: tuple[int, ...]
    after: tuple[int, ...]
    parameters: int


def trace(model: nn.Module, *inputs: torch.Tensor) -> dict[str, Seen]:
    """Runs a model once and records the input and output shape of each module.

    Args:
        model: any; on the device "meta" nothing is computed but shapes.
        inputs: of the model.
    """
    seen: dict[str, Seen] = {}

    def note(name):
        def hook(module, given, result):
            count = sum(weight.numel() for weight in module.parameters())
            seen[name] = Seen(module, tuple(given[0].shape), tuple(result.shape), count)

        return hook

    handles = [m.register_forward_hook(note(n)) for n, m in model.named_modules()]
    with torch.no_grad():
        model(*inputs)
    for handle in handles:
        handle.remove()
    return seen


@cache
def measure() -> dict[str, Seen]:
    """Traces ViT-B/16 with a batch of 32, without its memory or its time."""
    with torch.device("meta"):
        model: ViT = create_vit("vit_base_16", num_classes=CLASSES).eval()
        return trace(model, torch.empty(BATCH))


def written(shape: tuple[int, ...]) -> str:
    """Returns a shape as the course writes it, (32, 197, 768)."""
    return f"({', '.join(map(str, shape))})"


def _bars(canvas: Canvas, x: float, y: float, colours: list[str], tall=58) -> None:
    """Draws a sequence of nine tokens, with x and y in its middle."""
    for index, colour in enumerate(colours):
        left = x + (index - len(colours) / 2) * 13 + 1.5
        fill = 0.15 if colour == "ink" else 1
        canvas.card((left, y - tall / 2, 10, tall), colour, fill, radius=2)


def _icon(canvas: Canvas, kind: str, x: float, y: float) -> None:
    """Draws the output of a step as an icon, about 120 units wide and 64 high."""
    patch, token = "patch embedding", "class token"
    if kind == "images":
        for shift in (12, 6, 0):
            box = (x - 38 + shift, y - 38 + shift, 64, 64)
            canvas.card(box, "ink", 0.1, radius=2)
        canvas.image(draw_pizza(128), (x - 36, y - 36, 60, 60))
    elif kind == "maps":
        for shift in (12, 6, 0):
            box = (x - 38 + shift, y - 38 + shift, 64, 64)
            canvas.card(box, patch, 0.25, radius=2)
        left, bottom = x - 38, y - 38
        for cut in np.arange(1, 7) * 64 / 7:
            across = (left + cut, bottom), (left + cut, bottom + 64)
            up = (left, bottom + cut), (left + 64, bottom + cut)
            for ends in (across, up):
                canvas.line("", *ends, colour=patch, width=0.8)
    elif kind == "sequence":
        _bars(canvas, x, y - 4, [patch] * 9)
    elif kind == "class token":
        _bars(canvas, x, y - 4, [token] + [patch] * 9)
    elif kind == "positions":
        _bars(canvas, x, y + 13, [token] + [patch] * 9, 34)
        canvas.text(x, y - 14, "+", size=11)
        _bars(canvas, x, y - 32, ["position embedding"] * 10, 16)
    elif kind == "encoder":
        for shift in (12, 6, 0):
            box = (x - 52 + shift, y - 38 + shift, 92, 64)
            canvas.card(box, "ink", 0.05, radius=6)
        canvas.card((x - 44, y - 28, 36, 44), "attention", 1, "MSA")
        canvas.card((x - 4, y - 28, 36, 44), "mlp", 1, "MLP")
    elif kind == "norm":
        _bars(canvas, x, y - 4, [token] + ["ink"] * 9)
    else:
        for row, probability in enumerate((0.86, 0.16, 0.1)):
            bottom = y + 10 - 22 * row
            canvas.card((x - 50, bottom, 100, 16), "head", 0.12, radius=2)
            canvas.card((x - 50, bottom, 100 * probability, 16), "head", 1, radius=2)


def draw_shapes(dark: bool = False) -> Canvas:
    """Draws eight steps in two rows: what happens, its icon, and the shape."""
    seen = measure()
    conv = seen["embedding.patch_embedding.patcher"]
    size, stride = conv.module.kernel_size, conv.module.stride
    blocks, head = len(seen["encoder"].module), seen["head"]
    steps = (
        ("images", "a batch of images", "channels first", conv.before),
        ("maps", f"Conv2d, {size[0]} × {size[1]}", f"stride {stride[0]}", conv.after),
        (
            "sequence",
            "flatten, transpose",
            "one token per patch",
            seen["embedding.patch_embedding"].after,
        ),
        (
            "class token",
            "class token",
            "prepended",
            seen["embedding.class_token"].after,
        ),
        (
            "positions",
            "+ positions",
            "a sum: same shape",
            seen["embedding.position_embedding"].after,
        ),
        (
            "encoder",
            f"{blocks} encoder blocks",
            "shape unchanged",
            seen["encoder"].after,
        ),
        ("norm", "LayerNorm", "of token 0 only", seen["layer_norm"].after),
        ("head", "head, a linear layer", f"{head.after[1]} logits", head.after),
    )
    colours = ("ink",) + ("patch embedding",) * 2
    colours += ("class token", "position embedding", "attention", "layer norm", "head")
    canvas = Canvas(800, 422, dark)
    width, height, gap = 172, 184, 24
    for index, (kind, title, words, shape) in enumerate(steps):
        row, column = divmod(index, 4)
        left, bottom = 20 + column * (width + gap), 226 - 214 * row
        x = left + width / 2
        canvas.card((left, bottom, width, height), colours[index], 0.06, radius=8)
        canvas.text(x, bottom + 164, title, size=10, weight="bold")
        canvas.text(x, bottom + 144, words)
        _icon(canvas, kind, x, bottom + 88)
        canvas.text(x, bottom + 20, written(shape), size=11, weight="bold")
        if column:
            canvas.way((left - gap + 2, bottom + 92), (left - 2, bottom + 92))
    canvas.way((694, 224), (694, 211), (106, 211), (106, 198))
    return canvas
