"""What all figures use: a page, words that can be read on it, matrices, files."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import style
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vit_course.figures.model import Pen

# No random names, letters as outlines, no date and no version: always the same bytes.
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "vision transformer",
    "svg.fonttype": "path",
    "image.composite_image": False,  # an image keeps its own few pixels
}
# GitHub's pages, the site's dark page, and the paper of the figures themselves.
PAGES = {"light": ("#FFFFFF",), "dark": ("#0D1117", "#121212", "#111418")}
READABLE = 4.5  # WCAG 2, level AA, for text of any size
SMALL = 9.2  # points, with 100 units to an inch; 13 pixels where 800 units are 800


def luminance(colour: np.ndarray) -> np.ndarray:
    """Returns the relative luminance of WCAG 2 of colours (..., 3) in 0 … 1."""
    colour = np.asarray(colour, dtype=float)
    linear = np.where(
        colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4
    )
    return linear @ (0.2126, 0.7152, 0.0722)


def contrast(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Returns the contrast of two colours, from 1 (equal) to 21 (black on white)."""
    lights = luminance(one), luminance(other)
    return (np.maximum(*lights) + 0.05) / (np.minimum(*lights) + 0.05)


class Canvas(Pen):
    """A page of the course's look; (0, 0) is the bottom left, 100 units an inch.

    Args:
        width: in units; SVG and README show 800 units as 800 pixels.
        height: in units.
        dark: for a dark page.
    """

    def __init__(self, width: float, height: float, dark: bool) -> None:
        with style.context("default"):  # whatever the caller has set
            self.figure = Figure(figsize=(width / 100, height / 100), dpi=100)
            FigureCanvasAgg(self.figure)
            super().__init__(self.figure.add_axes((0, 0, 1, 1)), None, dark)
        self.width, self.height, self.dark = width, height, dark
        paper = self.colours["paper"]
        self.figure.set_facecolor(tuple(paper))
        self.axes.add_patch(Rectangle((0, 0), width, height, fc=paper, lw=0))
        self.frame()

    def frame(self) -> None:
        """Fits the axes to the page again: each image drawn stretches them."""
        self.axes.set(xlim=(0, self.width), ylim=(0, self.height), aspect="auto")
        self.axes.set_axis_off()

    def readable(self, name: str) -> np.ndarray:
        """Returns a colour of the palette with as much ink as makes it readable."""
        pages = [
            np.array(to_rgb(page)) for page in PAGES["dark" if self.dark else "light"]
        ]
        pages.append(self.blend(self.colours[name], 0.2))  # inside its own box
        ink = self.colours["ink"]
        for mixed in np.linspace(0, 1, 51):
            colour = (1 - mixed) * self.colours[name] + mixed * ink
            if min(contrast(colour, page) for page in pages) > 4.6:
                break
        return colour

    def ink_on(self, face: np.ndarray) -> np.ndarray:
        """Returns black or white, whichever is easier to read on a colour."""
        inks = np.array([[0.0] * 3, [1.0] * 3])
        return inks[np.argmax(contrast(inks, face))]

    def text(self, x: float, y: float, text: str, colour: str = "ink", **look) -> None:
        """Writes one line, centred unless `look` says otherwise."""
        tone = self.colours["ink"] if colour == "ink" else self.readable(colour)
        self.word("", x, y, text, **{"size": SMALL, "color": tone} | look)

    def card(self, box, colour: str, fill: float = 0.2, label="", **look) -> None:
        """Draws a rounded box, (left, bottom, width, height), with a label."""
        self.box("", box, colour, fill, radius=look.pop("radius", 3))
        left, bottom, width, height = box
        if label:
            face = self.blend(self.colours[colour], fill)
            look.setdefault("color", self.ink_on(face))
            self.text(left + width / 2, bottom + height / 2, label, **look)

    def step(self, x: float, y: float, number: int, colour: str, title: str) -> None:
        """Writes a numbered heading; x is where it begins, y its middle."""
        self.card((x, y - 11, 22, 22), colour, 1, f"{number}", radius=11)
        self.text(x + 30, y, title, size=10, weight="bold", ha="left")

    def way(self, *points) -> None:
        """Draws an arrow through the points."""
        self.arrow("", *points)

    def image(self, pixels: np.ndarray, box) -> None:
        """Lays pixels (rows, columns, 3) in 0 … 1 into a box, each a sharp square."""
        left, bottom, width, height = box
        pixels = (pixels + 0.5 / 255).clip(0, 1)  # as in `Pen.draw_image`
        extent = (left, left + width, bottom, bottom + height)
        # "none" leaves the scaling to whoever shows the SVG: few bytes, always sharp.
        self.axes.imshow(pixels, extent=extent, interpolation="none", zorder=1)
        self.frame()

    def mark(self, box, width: float = 2) -> None:
        """Draws a frame around what the eye should follow."""
        for colour, halo in (("paper", 2.4), ("ink", 0)):  # seen on any image
            edge = self.colours[colour]
            self.outline(box, 1.5, fc="none", ec=edge, lw=width + halo)

    def block(self, box, face: np.ndarray, label: str = "") -> None:
        """Draws a cell of a colour, with a label that can be read on it."""
        left, bottom, width, height = box
        edge = self.colours["paper"]
        patch = Rectangle((left, bottom), width, height, fc=face, ec=edge, lw=1.2)
        self.axes.add_patch(patch)
        if label:
            middle = (left + width / 2, bottom + height / 2)
            self.text(*middle, label, color=self.ink_on(face))

    def matrix(
        self,
        values: np.ndarray,
        left: float,
        top: float,
        cell: tuple[float, float],
        colour: str,
        form: str = "{:.1f}",
    ) -> None:
        """Draws a matrix as cells, the more of the colour the larger the value.

        Args:
            values: (rows, columns).
            left: of the first cell.
            top: of the first cell.
            cell: width and height of each.
            colour: of the palette.
            form: format of a value.
        """
        width, height = cell
        low, high = min(values.min(), 0), values.max()
        for (row, column), value in np.ndenumerate(values):
            strength = 0.06 + 0.94 * (value - low) / (high - low)
            face = self.blend(self.colours[colour], strength)
            label = form.format(value)
            if float(label) == 0:  # no minus before a zero
                label = form.format(0.0)
            box = (left + column * width, top - (row + 1) * height, width, height)
            self.block(box, face, label.replace("-", "−"))

    def save(self, path: Path, title: str) -> Path:
        """Writes the figure as SVG, the same bytes each time."""
        self.frame()
        metadata = {"Title": title, "Date": None, "Creator": None}
        with matplotlib.rc_context(SETTINGS):
            # The dpi of an SVG is that of the images inside it.
            self.figure.savefig(path, dpi=150, metadata=metadata)
        return path
