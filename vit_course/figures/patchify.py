"""From an image to tokens in four steps, with the values of the course's model."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from matplotlib.colors import to_rgb

from going_modular.checkpoint import load_checkpoint
from going_modular.data_setup import create_transform, load_image
from going_modular.patches import patchify
from vit_course.figures.canvas import Canvas
from vit_course.figures.hero import TEST

IMAGE = "pizza/003.jpg"
MARKED = (3, 2)  # row and column of the patch that is followed
_NAMES = ("red", "green", "blue")
_LIGHTS = ("#E4572E", "#3DA35D", "#3B7DD8")  # the channels', at half strength


@dataclass
class Tokens:
    """What the course's checkpoint computes from an image, up to its tokens.

    Attributes:
        image: (3, 64, 64), normalised to -1 … 1.
        patches: (64, 192), by `patchify`.
        matrix: (192, 192), E of Equation 1.
        tokens: (64, 192), by the model's own patch embedding.
        patch_size: P.
    """

    image: torch.Tensor
    patches: torch.Tensor
    matrix: torch.Tensor
    tokens: torch.Tensor
    patch_size: int


@cache
def measure(file: str = IMAGE) -> Tokens:
    """Cuts a test image into patches and projects them as the checkpoint does."""
    model, metadata = load_checkpoint()
    # In double precision, or the last bit, another on each machine, may be drawn.
    embedding = model.embedding.patch_embedding.double()
    transform = create_transform(**metadata["preprocessing"])
    image = transform(load_image(TEST / file)).double()
    with torch.no_grad():
        tokens = embedding(image[None])[0]
    size = embedding.patch_size
    matrix = embedding.patcher.weight.detach().flatten(1).T
    return Tokens(image, patchify(image[None], size)[0], matrix, tokens, size)


def _shape(tensor: torch.Tensor) -> str:
    return f"({', '.join(map(str, tensor.shape))})"


def _pixels(image: torch.Tensor) -> np.ndarray:
    """Returns (3, height, width) in -1 … 1 as (height, width, 3) in 0 … 1."""
    return (image.permute(1, 2, 0).numpy() + 1) / 2


def _quantise(values: np.ndarray) -> np.ndarray:
    """Rounds to sevenths: nobody sees it in a large matrix, and it halves the file."""
    return (7 * values).round() / 7


def _by_channel(patches: np.ndarray) -> np.ndarray:
    """Colours flat patches (n, 3 * P * P): black to red, then green, then blue."""
    lights = (patches + 1) / 2
    colours = np.array([to_rgb(colour) for colour in _LIGHTS])
    colours = colours.repeat(patches.shape[1] // 3, axis=0)
    # From dark over the pure colour to nearly white, so that all three differ in light.
    lights = lights[..., None]
    return np.where(
        lights < 0.5, 2 * lights * colours, 1 - 2 * (1 - lights) * (1 - colours)
    )


def _draw_cutting(canvas: Canvas, found: Tokens) -> None:
    """Draws steps 1 and 2: the image, and its patches apart."""
    pixels, size = _pixels(found.image), found.patch_size
    across, count = pixels.shape[1] // size, len(found.patches)
    side, top = 192, 552
    cell = side / across
    canvas.step(20, 584, 1, "patch embedding", "an image")
    canvas.image(pixels, (20, top - side, side, side))
    for shift in np.arange(1, across) * cell:
        canvas.line("", (20 + shift, top), (20 + shift, top - side), colour="paper")
        canvas.line("", (20, top - shift), (20 + side, top - shift), colour="paper")
    row, column = MARKED
    canvas.mark((20 + column * cell, top - (row + 1) * cell, cell, cell))
    canvas.text(116, top - side - 16, _shape(found.image))
    canvas.way((219, top - side / 2), (245, top - side / 2))

    canvas.step(
        252, 584, 2, "patch embedding", f"{across} × {across} = {count} patches"
    )
    gap = 4
    cell = (side + gap) / across - gap
    for r, c in np.ndindex(across, across):
        box = (252 + c * (cell + gap), top - r * (cell + gap) - cell, cell, cell)
        canvas.image(pixels[r * size :, c * size :][:size, :size], box)
        if (r, c) == MARKED:
            canvas.mark(box)
    each = found.patches[0].reshape(3, size, size)
    canvas.text(348, top - side - 16, f"each {_shape(each)}")
    canvas.way((451, top - side / 2), (477, top - side / 2))


def _draw_vector(canvas: Canvas, found: Tokens) -> None:
    """Draws step 3: one patch, its three colours, and all of it in one row."""
    size = found.patch_size
    row, column = MARKED
    pixels = _pixels(found.image)
    number = row * (pixels.shape[1] // size) + column
    flat = found.patches[number].numpy()
    planes = _by_channel(flat[None]).reshape(3, size, size, 3)
    canvas.step(484, 584, 3, "patch embedding", "one patch becomes a vector")
    patch = pixels[row * size :, column * size :][:size, :size]
    canvas.image(patch, (484, 396, 120, 120))
    canvas.mark((484, 396, 120, 120))
    canvas.text(544, 376, f"{size} × {size} pixels")
    canvas.way((611, 456), (633, 456))
    for index, (plane, name) in enumerate(zip(planes, _NAMES, strict=True)):
        bottom = 492 - 66 * index
        canvas.image(plane, (640, bottom, 60, 60))
        canvas.text(710, bottom + 30, name, ha="left")
    canvas.way((670, 354), (670, 330))
    left, wide = 20, 760 / len(flat)
    canvas.image(_by_channel(flat[None]), (left, 300, 760, 24))
    # A closer look at the first row of red: as many values as the patch is wide.
    cells, cell = planes[0, 0], 54
    canvas.line("", (left, 300), (left, 268))
    canvas.line("", (left + wide * size, 300), (left + cell * size, 268))
    for index, (face, value) in enumerate(zip(cells, flat, strict=False)):
        box = (left + index * cell, 242, cell - 2, 26)
        canvas.block(box, face, f"{value:.2f}".replace("-", "−"))
    canvas.text(460, 255, f"…  {len(flat)} values, −1 … 1", ha="left")
    canvas.text(780, 255, f"3 · {size} · {size} = {len(flat)}", ha="right")


def _draw_projection(canvas: Canvas, found: Tokens) -> None:
    """Draws step 4: all vectors times E are the tokens."""
    blue, count = "patch embedding", len(found.patches)
    canvas.step(
        20, 206, 4, "patch embedding", "each vector times E, plus a bias, is a token"
    )
    middle, scale = 108, 0.8
    shades = []
    for tensor in (found.matrix, found.tokens):
        low, high = np.quantile(tensor, (0.02, 0.98))
        strength = ((tensor.numpy() - low) / (high - low)).clip(0, 1)[..., None]
        shades.append(canvas.blend(canvas.colours[blue], _quantise(strength)))
    row, column = MARKED
    number = row * (found.image.shape[2] // found.patch_size) + column
    for left, pixels, name, tensor in (
        (20, _by_channel(_quantise(found.patches.numpy())), "patches", found.patches),
        (226, shades[0], "E", found.matrix),
        (432, shades[1], "tokens", found.tokens),
    ):
        height, width = scale * pixels.shape[0], scale * pixels.shape[1]
        bottom = middle - height / 2
        canvas.image(pixels, (left, bottom, width, height))
        if name != "E":
            # The row that is followed, ten times as high as the others, to be seen.
            y = bottom + height - scale * (number + 0.5)
            canvas.mark((left - 3, y - 5.5, width + 6, 11), 1.2)
            canvas.image(pixels[number : number + 1], (left, y - 4, width, 8))
        words = f"{name}  {_shape(tensor)}"
        canvas.text(left + width / 2, bottom - 16, words, weight="bold")
    canvas.text(200, middle, "×", size=14)
    canvas.text(407, middle, "=", size=14)
    canvas.way((594, middle), (628, middle))
    for y, shown in ((172, 1), (110, number + 1), (48, count)):
        canvas.card((636, y - 13, 36, 26), blue, 1, f"{shown}")
    for y in (141, 79):
        canvas.text(654, y, "⋮", size=12)
    canvas.text(686, 120, "N tokens,", ha="left")
    canvas.text(686, 100, "one per patch", ha="left")


def draw_patchify(dark: bool = False) -> Canvas:
    """Draws an image, its patches, one patch as a vector, and all vectors times E."""
    found, canvas = measure(), Canvas(800, 606, dark)
    _draw_cutting(canvas, found)
    _draw_vector(canvas, found)
    _draw_projection(canvas, found)
    return canvas
