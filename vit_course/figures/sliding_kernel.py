"""A kernel that moves by its own width: one value per patch, one feature per kernel."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from vit_course.figures.canvas import Canvas

IMAGE = ((1, 1, 1, 5), (1, 1, 1, 5), (0, 0, 5, 5), (4, 4, 5, 5))
KERNELS = (((1, 1), (1, 1)), ((-1, 1), (-1, 1)), ((-1, -1), (1, 1)))
SHOWN = 1  # the patch and the kernel of step 2
P = 2
BLUE = "patch embedding"


@dataclass
class Visited:
    """A tiny image and what each kernel computes from it.

    Attributes:
        image: (4, 4).
        kernels: (3, 2, 2).
        maps: (3, 2, 2), by a convolution.
        tokens: (4, 3), the maps flattened and transposed.
    """

    image: torch.Tensor
    kernels: torch.Tensor
    maps: torch.Tensor
    tokens: torch.Tensor


def measure() -> Visited:
    """Convolves the tiny image with three kernels and a stride of the patch size."""
    image = torch.tensor(IMAGE, dtype=torch.float32)
    kernels = torch.tensor(KERNELS, dtype=torch.float32)
    maps = F.conv2d(image[None, None], kernels[:, None], stride=P)[0]
    return Visited(image, kernels, maps, maps.flatten(1).T)


def _whole(value: float) -> str:
    return f"{value:.0f}".replace("-", "−")


def _grid(canvas: Canvas, values: torch.Tensor, left, top, cell, strength) -> None:
    """Draws whole numbers as cells; `strength` gives how much blue each has."""
    for (row, column), value in np.ndenumerate(values.numpy()):
        face = canvas.blend(canvas.colours[BLUE], strength(value))
        box = (left + column * cell, top - (row + 1) * cell, cell, cell)
        canvas.block(box, face, _whole(value))


def _light(value: float) -> float:
    return 0.06 + 0.1 * float(value)


def _weight(value: float) -> float:
    return 0.55 if value > 0 else 0.08


def _output(value: float) -> float:
    return 0.06 + 0.04 * float(value)


def _draw_visits(canvas: Canvas, found: Visited) -> None:
    """Draws step 1: the image, and the kernel's four places in it."""
    left, top, cell = 64, 406, 44
    canvas.step(20, 474, 1, BLUE, "the kernel visits patch by patch")
    _grid(canvas, found.image, left, top, cell, _light)
    side = P * cell
    for number in range(4):
        row, column = divmod(number, 2)
        x, y = left + column * side, top - row * side
        width = 3 if number == SHOWN else 1
        canvas.mark((x + 1, y - side + 1, side - 2, side - 2), width)
        label = (x + side / 2, top + 14 if row == 0 else top - 2 * side - 14)
        canvas.text(*label, f"patch {number + 1}")
    middle = top - side / 2
    canvas.way((left - 14, middle), (left - 14, middle - side))
    canvas.text(left - 32, middle - side / 2, "stride 2", rotation=90, va="center")
    canvas.way((left + side / 2, top + 28), (left + 1.5 * side, top + 28))
    canvas.text(left + side, top + 40, "stride 2 = P")


def _draw_one_value(canvas: Canvas, found: Visited) -> None:
    """Draws step 2: the marked patch times a kernel, summed to one value."""
    start = 356
    canvas.step(start - 10, 474, 2, BLUE, "one kernel, one patch: one value")
    top, cell = 406, 44
    row, column = divmod(SHOWN, 2)
    patch = found.image[row * P :, column * P :][:P, :P]
    kernel = found.kernels[1]
    middle = top - cell
    _grid(canvas, patch, start, top, cell, _light)
    canvas.mark((start + 1, top - 2 * cell + 1, 2 * cell - 2, 2 * cell - 2), 3)
    canvas.text(start + cell, top + 14, "patch 2")
    canvas.text(start + 112, middle, "×", size=14)
    _grid(canvas, kernel, start + 136, top, cell, _weight)
    canvas.text(start + 180, top + 14, "kernel 2")
    canvas.way((start + 234, middle), (start + 298, middle))
    canvas.text(start + 264, middle + 14, "sum")
    value = found.maps[1, row, column]
    _grid(canvas, value[None, None], start + 308, middle + cell / 2, cell, _output)
    pairs = zip(patch.flatten().tolist(), kernel.flatten().tolist(), strict=True)
    products = " + ".join(f"{_whole(a)}·({_whole(b)})" for a, b in pairs)
    words = products.replace("(1)", "1") + f" = {_whole(value.item())}"
    canvas.text(start, top - 2 * cell - 30, words, ha="left", size=11)
    question = "right minus left: brighter on the right?"
    canvas.text(start, top - 2 * cell - 58, question, ha="left")


def _draw_features(canvas: Canvas, found: Visited) -> None:
    """Draws step 3: three kernels, three feature maps, four tokens of three values."""
    canvas.step(
        20, 182, 3, BLUE, "D kernels give D feature maps, so D features per token"
    )
    cell, top = 32, 124
    questions = ("how bright?", "brighter right?", "brighter below?")
    row, column = divmod(SHOWN, 2)
    for index, question in enumerate(questions):
        left = 20 + 172 * index
        _grid(canvas, found.kernels[index], left, top, cell, _weight)
        canvas.way((left + 68, top - cell), (left + 84, top - cell))
        _grid(canvas, found.maps[index], left + 88, top, cell, _output)
        canvas.mark(
            (left + 89 + column * cell, top - (row + 1) * cell + 1, cell - 2, cell - 2)
        )
        canvas.text(left + 32, top + 14, f"kernel {index + 1}")
        canvas.text(left + 120, top + 14, f"map {index + 1}")
        canvas.text(left + 76, top - 2 * cell - 16, question)
    canvas.way((530, top - cell), (562, top - cell))
    for number, token in enumerate(found.tokens):
        y = top + 40 - cell * number
        _grid(canvas, token[None], 640, y, cell, _output)
        canvas.text(630, y - cell / 2, f"token {number + 1}", ha="right")
        if number == SHOWN:
            canvas.mark((641, y - cell + 1, 3 * cell - 2, cell - 2))
    canvas.text(674, top - 2 * cell - 42, "N = 4 rows, D = 3 features", weight="bold")


def draw_sliding_kernel(dark: bool = False) -> Canvas:
    """Draws a kernel's four visits, one sum, and the tokens of three kernels."""
    found, canvas = measure(), Canvas(800, 500, dark)
    _draw_visits(canvas, found)
    _draw_one_value(canvas, found)
    _draw_features(canvas, found)
    return canvas
