"""The first figure of the README: an image, its patches, and attention rollout."""

from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from matplotlib.patches import Polygon
from matplotlib.transforms import Affine2D
from PIL import Image, ImageDraw, ImageFilter

from going_modular.attention_maps import attention_rollout, class_token_map
from going_modular.checkpoint import load_checkpoint
from going_modular.data_setup import create_transform, load_image
from going_modular.multihead_attention import record_attention
from vit_course.figures.canvas import Canvas

TEST = Path(__file__).resolve().parents[2] / "images" / "foodvision_mini" / "test"
IMAGE = "pizza/010.jpg"  # chosen for its looks, not for the model's prediction
_WIDTH, _HEIGHT = 900, 338
_YAW, _PITCH = np.radians(-27), np.radians(52)  # turned, and looked at from above
_SIDE = 8  # patches across
_BASE, _RISE = 0.14, 2.5  # height of a tile, and what the most attention adds to it


@dataclass
class Attention:
    """Attention of the course's checkpoint for one image.

    Attributes:
        image: (size, size, 3) in 0 … 1, the crop that the model gets, at the file's
            resolution.
        rollout: (8, 8), attention rollout from the patches to the class token.
        layers: number of layers multiplied.
        heads: per layer, averaged.
        file: of the image.
    """

    image: np.ndarray
    rollout: np.ndarray
    layers: int
    heads: int
    file: str

    @property
    def heights(self) -> np.ndarray:
        """The rollout, from 0 at its smallest value to 1 at its largest."""
        low, high = self.rollout.min(), self.rollout.max()
        return (self.rollout - low) / (high - low)

    def caption(self) -> str:
        """Says in one line what is drawn, for a caption that is true."""
        top = np.sort(self.rollout.ravel())[::-1]
        return (
            f"{self.file}: attention rollout of the class token over all "
            f"{self.layers} layers, {self.heads} heads averaged, residual weight 1/2; "
            f"checkpoint pre-trained on 98 other foods, not fine-tuned; of what comes "
            f"from patches ({top.sum():.1%}; the rest is the class token's own), the 8 "
            f"highest of {top.size} give {top[:8].sum() / top.sum():.0%} "
            f"(if all were equal: {8 / top.size:.1%}); a patch gives "
            f"{top[-1] / top.sum():.2%} to {top[0] / top.sum():.2%}; heights run from "
            "the smallest value to the largest"
        )


@cache
def measure(file: str = IMAGE) -> Attention:
    """Runs the course's checkpoint on a test image and records its attention.

    Args:
        file: of FoodVision Mini's test images, such as "pizza/010.jpg".
    """
    model, metadata = load_checkpoint()
    image = load_image(TEST / file)
    batch = create_transform(**metadata["preprocessing"])(image)[None]  # (1, 3, 64, 64)
    with torch.no_grad(), record_attention(model) as maps:
        model(batch)
    rollout = class_token_map(attention_rollout(maps), (_SIDE, _SIDE))[0, 0]
    # The same crop, not scaled down; a multiple of 8, so that patches are whole pixels.
    size = round(image.width * metadata["preprocessing"]["crop_pct"] / _SIDE) * _SIDE
    edge = (image.width - size) // 2
    crop = np.asarray(image.crop((edge, edge, edge + size, edge + size))) / 255
    heads = maps[0].shape[1]
    return Attention(crop, rollout.numpy(), len(maps), heads, f"test/{file}")


class _Table:
    """A tilted plane on which tiles stand; u runs right, v to the front, h up."""

    def __init__(self, canvas: Canvas, left: float, top: float, scale: float) -> None:
        self.canvas, self.origin = canvas, np.array([left, top])
        cos, sin = np.cos(_YAW), np.sin(_YAW)
        self.u = scale * np.array([cos, -sin * np.sin(_PITCH)])
        self.v = scale * np.array([-sin, -cos * np.sin(_PITCH)])
        self.h = scale * np.array([0, np.cos(_PITCH)])

    def at(self, u: float, v: float, h: float = 0) -> np.ndarray:
        return self.origin + u * self.u + v * self.v + h * self.h

    def corners(self, place, height: float, size: float) -> list[np.ndarray]:
        u, v = place
        steps = ((0, 0), (size, 0), (size, size), (0, size))
        return [self.at(u + i, v + j, height) for i, j in steps]

    def shade(self, tiles, colour, blur: float) -> None:
        """Lays soft spots under tiles (place, size, strength): a shadow, or a glow."""
        canvas = self.canvas
        mask = Image.new("L", (round(canvas.width), round(canvas.height)))
        for place, size, strength in tiles:
            foot = self.corners(place, -0.3, size)
            spot = [(x, canvas.height - y) for x, y in foot]
            ImageDraw.Draw(mask).polygon(spot, fill=round(255 * strength))
        alpha = np.asarray(mask.filter(ImageFilter.GaussianBlur(blur))) / 255
        pixels = np.dstack([np.broadcast_to(colour, (*alpha.shape, 3)), alpha])
        extent = (0, canvas.width, 0, canvas.height)
        canvas.axes.imshow(pixels, extent=extent, zorder=1, interpolation="bilinear")

    def tile(self, pixels, place, height, colour, size=1.0) -> None:
        """Draws a block with an image on its top; later blocks hide earlier ones."""
        back, _, front, left = self.corners(place, height, size)
        back_foot, _, front_foot, left_foot = self.corners(place, 0, size)
        order = 2 - 1e-3 * back_foot[1]
        for corners, light in (
            ((left, front, front_foot, left_foot), 0.86),
            ((back, left, left_foot, back_foot), 0.62),
        ):
            shade = (light * np.asarray(colour)).clip(0, 1)
            face = Polygon(corners, fc=shade, ec=shade, lw=0.4, zorder=order)
            self.canvas.axes.add_patch(face)
        to_page = Affine2D(
            [
                [size * self.u[0], size * self.v[0], back[0]],
                [size * self.u[1], size * self.v[1], back[1]],
                [0, 0, 1],
            ]
        )
        self.canvas.axes.imshow(
            (pixels + 0.5 / 255).clip(0, 1),
            extent=(0, 1, 1, 0),
            transform=to_page + self.canvas.axes.transData,
            interpolation="bilinear",
            zorder=order + 1e-4,
        )


def draw_hero(dark: bool = False) -> Canvas:
    """Draws an image, its patches, and its patches as high as their attention."""
    attention, canvas = measure(), Canvas(_WIDTH, _HEIGHT, dark)
    pink, paper = canvas.colours["attention"], canvas.colours["paper"]
    image, heights = attention.image, attention.heights
    pixels = len(image) // _SIDE
    places = [
        np.array([column, row]) for row in range(_SIDE) for column in range(_SIDE)
    ]
    dusk, depth = (np.zeros(3), 0.6) if dark else (np.full(3, 0.35), 0.45)

    whole = _Table(canvas, 16, 238, 24.5)
    whole.shade([((0, 0), _SIDE, depth)], dusk, 8)
    whole.tile(image, (0, 0), _BASE, image.mean((0, 1)), size=_SIDE)
    apart = _Table(canvas, 266, 242, 23.5)
    apart.shade([(1.3 * place, 1, depth) for place in places], dusk, 3)
    lifted = _Table(canvas, 590, 236, 24.5)
    lifted.shade([((0, 0), 1.14 * _SIDE, depth)], dusk, 9)
    for blur, light in ((30, 1), (10, 1 if dark else 0.3)):
        glow = [(1.14 * (p - 0.6), 2.2, light * heights[p[1], p[0]]) for p in places]
        glow.sort(key=lambda spot: spot[2])  # the brightest on top
        lifted.shade(glow, pink, blur)
    for place in places:
        column, row = place
        part = image[row * pixels :, column * pixels :][:pixels, :pixels]
        apart.tile(part, 1.3 * place, _BASE, part.mean((0, 1)))
        height = heights[row, column]
        grey = part.mean(-1, keepdims=True)
        rest = 0.22 * grey + 0.02 if dark else 0.25 * grey + 0.68
        strong = height**0.8
        top = strong * (part + 0.06 * pink) + (1 - strong) * rest
        side = 1.12 * strong * pink + (1 - strong) * (0.4 * rest.mean() + 0.5 * paper)
        lifted.tile(top, 1.14 * place, _BASE + _RISE * height, side)

    for x, title, words in (
        (146, "an image", "64 × 64 pixels for the model"),
        (438, "its patches", "64, each becomes one token"),
        (742, "its attention", "attention rollout: higher is more"),
    ):
        canvas.text(x, 46, title, size=12, weight="bold")
        canvas.text(x, 24, words, size=9.6)
    canvas.way((232, 46), (350, 46))
    canvas.way((530, 46), (646, 46))
    return canvas


def save_hero(canvas: Canvas, path: Path) -> Path:
    """Writes the hero as JPEG: as PNG or SVG it would be three times larger."""
    canvas.frame()
    buffer = BytesIO()
    canvas.figure.savefig(buffer, dpi=160, pil_kwargs={"compress_level": 1})
    image = Image.open(buffer).convert("RGB")  # alpha is 1 everywhere
    image.save(path, quality=90, subsampling=0, optimize=True)  # letters stay sharp
    return path
