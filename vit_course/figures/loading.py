"""From files on the disk to a batch: folders, Dataset, DataLoader, tensors."""

import numpy as np
from PIL import Image, ImageDraw

from vit_course.figures.canvas import Canvas
from vit_course.figures.model import draw_pizza

_CLASSES = ("pizza", "steak", "sushi")
_ORDER = (4, 1, 5, 0, 2, 3)  # one shuffle of six entries
_IMAGE = "patch embedding"  # the colour of images; labels have that of the head


def _draw_steak(size: int) -> np.ndarray:
    """Draws a grilled steak on a white plate: (size, size, 3), values 0 to 1."""
    image = Image.new("RGB", (size, size), "#66757C")
    draw = ImageDraw.Draw(image)
    u = size / 32
    draw.ellipse((2 * u, 2 * u, 30 * u, 30 * u), fill="#F2EFE8")
    draw.ellipse((6 * u, 8 * u, 26 * u, 24 * u), fill="#7A3B22")
    for x in (11, 15, 19):
        draw.line((x * u, 11 * u, (x + 3) * u, 21 * u), "#3A1B10", round(1.6 * u))
    return np.asarray(image) / 255


def _draw_sushi(size: int) -> np.ndarray:
    """Draws two pieces of sushi on a dark plate: (size, size, 3), values 0 to 1."""
    image = Image.new("RGB", (size, size), "#66757C")
    draw = ImageDraw.Draw(image)
    u = size / 32
    draw.rectangle((2 * u, 4 * u, 30 * u, 28 * u), fill="#2B3338")
    for y in (7, 18):
        draw.rounded_rectangle((5 * u, y * u, 27 * u, (y + 8) * u), 3 * u, "#F7F4EC")
        draw.rounded_rectangle((5 * u, y * u, 27 * u, (y + 5) * u), 2 * u, "#F08A5D")
        for x in (10, 16, 22):
            draw.line((x * u, (y + 1) * u, (x + 2) * u, (y + 4) * u), "#F9D0B8", 3)
    return np.asarray(image) / 255


_DRAWN = (draw_pizza, _draw_steak, _draw_sushi)


def _entry(canvas: Canvas, left: float, y: float, number: int, label: int) -> None:
    """Draws an entry of the album: its number, an image as a tensor, its label."""
    canvas.text(left + 12, y, f"{number}")
    canvas.card((left + 28, y - 9, 62, 18), _IMAGE, 0.25, "tensor", radius=2)
    canvas.card((left + 98, y - 9, 26, 18), "head", 0.35, f"{label}", radius=2)


def _folders(canvas: Canvas, left: float, top: float) -> None:
    for label, name in enumerate(_CLASSES):
        bottom = top - 44 - 50 * label
        canvas.card((left + 14, bottom, 144, 40), "ink", 0.06, radius=4)
        canvas.text(left + 24, bottom + 20, f"{name}/", ha="left")
        for i in range(2):
            box = (left + 86 + 34 * i, bottom + 6, 28, 28)
            canvas.image(_DRAWN[label](128), box)


def _batch(canvas: Canvas, left: float, top: float) -> None:
    x, y = left + 86, top - 58
    for shift in (18, 12, 6, 0):
        canvas.card((x - 44 + shift, y - 38 + shift, 66, 66), _IMAGE, 0.25, radius=2)
    canvas.text(x, y - 54, "(32, 3, 224, 224)", weight="bold")
    labels = [entry // 2 for entry in _ORDER]
    for i, label in enumerate(labels[:4]):
        box = (x - 58 + 24 * i, y - 90, 22, 18)
        canvas.card(box, "head", 0.35, f"{label}", radius=2)
    canvas.text(x + 48, y - 81, "…")


def draw_loading(dark: bool = False) -> Canvas:
    """Draws four steps: the folders, the Dataset, the DataLoader and one batch."""
    titles = ("folders", "Dataset", "DataLoader", "a batch")
    below = (
        ("one per class,", "named after it"),
        ("makes an entry", "when asked for it"),
        ("asks in random order,", "deals 32 at a time"),
        ("images in one tensor,", "labels: (32,)"),
    )
    canvas = Canvas(800, 290, dark)
    width, gap, top = 172, 24, 280
    for column, (title, words) in enumerate(zip(titles, below, strict=True)):
        left = 20 + column * (width + gap)
        canvas.card((left, 10, width, top - 10), "ink", 0.04, radius=8)
        canvas.step(left + 12, top - 24, column + 1, "layer norm", title)
        for row, line in enumerate(words):
            canvas.text(left + width / 2, 44 - 18 * row, line)
        if column == 0:
            _folders(canvas, left, top - 44)
        elif column == 3:
            _batch(canvas, left, top - 44)
        else:
            order = range(6) if column == 1 else _ORDER
            first, step = (96, 22) if column == 1 else (62, 26)
            if column == 1:  # what the Dataset does before it gives an entry
                box = (left + 14, top - 76, 144, 22)
                canvas.card(box, "layer norm", 0.15, "the transform", radius=4)
            for row, number in enumerate(order):
                y = top - first - step * row
                _entry(canvas, left + 20, y, number, number // 2)
        if column:
            canvas.way((left - gap + 2, 145), (left - 2, 145))
    return canvas
