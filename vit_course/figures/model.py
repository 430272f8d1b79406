"""The course's figure of the whole Vision Transformer; one part can be highlighted.

One unit of the drawing is a hundredth of an inch; (0, 0) is the bottom left corner.
"""

import difflib

import numpy as np
from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch, PathPatch, Polygon, Rectangle
from matplotlib.path import Path
from PIL import Image, ImageDraw

PALETTE: dict[str, str] = {
    "patch embedding": "#0072B2",
    "class token": "#D55E00",
    "position embedding": "#009E73",
    "attention": "#CC79A7",
    "mlp": "#E69F00",
    "layer norm": "#6E6E6E",  # and the residual connections
    "head": "#56B4E9",
}

# The frame of a highlighted part: left, bottom, width and height, and a colour.
_MARKS = {
    "image": (8, 169, 120, 120, "patch embedding"),
    "patches": (140, 79, 36, 300, "patch embedding"),
    "patch embedding": (190, 79, 90, 300, "patch embedding"),
    "class token": (136, 376, 144, 36, "class token"),
    "position embedding": (302, 77, 40, 335, "position embedding"),
    "attention": (455, 119, 142, 192, "attention"),
    "multi-head attention": (388, 102, 252, 290, "attention"),
    "mlp": (643, 102, 144, 290, "mlp"),
    "encoder": (377, 73, 428, 362, "attention"),
    "head": (869, 74, 124, 345, "head"),
}
MODEL_PARTS: tuple[str, ...] = tuple(_MARKS)

# To highlight a part is to highlight what it holds.
_HOLDERS = {
    "attention": ("multi-head attention", "encoder"),
    "multi-head attention": ("encoder",),
    "mlp": ("encoder",),
}
_WIDTH, _HEIGHT = 1000, 460
_ROWS = [394 - 33 * number for number in range(10)]  # heights of the ten tokens
_MIDDLE, _AROUND = 244, 378  # heights of the main path and of the residual paths
_NAMES, _SHAPES = 56, 30  # heights of the two lines of text at the bottom
_SMALL = 8.7  # points: still readable where the figure is 900 pixels wide
_BOLD = {"size": 9.2, "weight": "bold"}
_UPRIGHT = {"rotation": 90, "va": "center"}
_SHADES = ["82311", "27511", "13931", "51482", "31257"]  # out of ten, invented


def middle_of(part: str) -> float:
    """Returns where the middle of a part stands: 0 at the left edge, 1 at the right."""
    left, _, width, _, _ = _MARKS[part]
    return (left + width / 2) / _WIDTH


def draw_pizza(size: int = 240) -> np.ndarray:
    """Returns a pizza on a table, (size, size, 3), values in 0 … 1."""
    scale = 2 * size / 100  # drawn at twice the size, so that the edges come out smooth
    image = Image.new("RGB", (2 * size, 2 * size), "#66757C")
    draw = ImageDraw.Draw(image)

    def disc(x: float, y: float, radius: float, colour: str, flat: float = 1) -> None:
        corners = (x - radius, y - flat * radius, x + radius, y + flat * radius)
        draw.ellipse([scale * corner for corner in corners], fill=colour)

    for radius, colour in ((46, "#D2924A"), (38, "#F8CF63")):
        disc(50, 50, radius, colour)
    for x, y in ((37, 28), (63, 34), (30, 53), (52, 54), (74, 57), (39, 74), (62, 76)):
        disc(x, y, 7.5, "#C73E2A")
    for x, y in ((49, 38), (69, 45), (42, 65), (24, 42)):
        disc(x, y, 4, "#3F7D3A", flat=0.6)
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS)) / 255


class Pen:
    """Draws boxes, words and arrows; all but the highlighted part is pale.

    `parts` names the part of the model that a thing belongs to, or "this|that".
    A box is (left, bottom, width, height).
    """

    def __init__(self, axes: Axes, lit: str | None, dark: bool) -> None:
        self.axes, self.lit = axes, lit
        paper, ink = ("#111418", "#ECECEC") if dark else ("#FFFFFF", "#202020")
        colours = {"paper": paper, "ink": ink, **PALETTE}
        self.colours = {name: np.array(to_rgb(code)) for name, code in colours.items()}

    def is_lit(self, parts) -> bool:
        names = parts.split("|")
        holders = [holder for name in names for holder in _HOLDERS.get(name, ())]
        return self.lit is None or self.lit in names + holders

    def blend(self, colour, strength) -> np.ndarray:
        """Returns a colour laid on the paper: all of it at 1, nothing at 0."""
        return strength * colour + (1 - strength) * self.colours["paper"]

    def tone(self, parts, colour, strength=1.0) -> np.ndarray:
        if not self.is_lit(parts):
            strength *= 0.5 if colour == "ink" else 0.3
        return self.blend(self.colours[colour], strength)

    def word(self, parts, x, y, text, **kwargs) -> None:
        look = {"ha": "center", "va": "center_baseline", "size": _SMALL}
        look |= {"color": self.tone(parts, "ink"), "family": "DejaVu Sans"}
        self.axes.text(x, y, text, **look | kwargs)

    def outline(self, box, radius, **kwargs) -> None:
        left, bottom, width, height = box
        shape = f"round,pad=0,rounding_size={radius}"
        patch = FancyBboxPatch((left, bottom), width, height, shape, **kwargs)
        self.axes.add_patch(patch)

    def box(self, parts, box, colour, fill=0.2, label="", radius=3, **kwargs) -> None:
        """Draws a rounded box; `fill` is how much of the colour is inside."""
        face, edge = self.tone(parts, colour, fill), self.tone(parts, "ink", 0.5)
        if colour != "ink":  # some ink all the same: orange and blue are faint on white
            edge = 0.7 * self.tone(parts, colour) + 0.3 * self.tone(parts, "ink")
        self.outline(box, radius, fc=face, ec=edge, lw=1.2)
        if label:
            if fill == 1:  # black or white, whichever is easier to read on the colour
                ink = 0.05 if face @ (0.2126, 0.7152, 0.0722) > 0.42 else 1.0
                pale = 0 if self.is_lit(parts) else 0.4
                kwargs["color"] = pale * face + (1 - pale) * ink
            left, bottom, width, height = box
            self.word(parts, left + width / 2, bottom + height / 2, label, **kwargs)

    def line(self, parts, *points, colour="ink", width=1.2) -> None:
        """Draws a line through the points, round where it turns."""
        points = np.array(points, dtype=float)
        route, codes = [points[0]], [Path.MOVETO]
        for before, corner, after in zip(points, points[1:], points[2:], strict=False):
            ways = [end - corner for end in (before, after)]
            back, on = (6 * way / np.hypot(*way) for way in ways)
            route += [corner + back, corner, corner + on]
            codes += [Path.LINETO, Path.CURVE3, Path.CURVE3]
        path = Path([*route, points[-1]], [*codes, Path.LINETO])
        colour = self.tone(parts, colour, 0.75 if colour == "ink" else 1)
        self.axes.add_patch(PathPatch(path, fc="none", ec=colour, lw=width))

    def arrow(self, parts, *points) -> None:
        """Draws a line through the points with its tip exactly on the last one."""
        tip, last = np.array(points[-1], float), np.array(points[-2], float)
        ahead = (tip - last) / np.hypot(*(tip - last))
        neck, aside = tip - 7 * ahead, 3.6 * np.array([-ahead[1], ahead[0]])
        self.line(parts, *points[:-1], neck)
        colour = self.tone(parts, "ink", 0.75)
        self.axes.add_patch(Polygon([tip, neck + aside, neck - aside], fc=colour, lw=0))

    def draw_image(self, parts, pixels, left, bottom, size) -> None:
        pixels = self.blend(pixels, 1 if self.is_lit(parts) else 0.3)
        # Half a step up: resampling truncates, and would leave specks in flat colours.
        pixels = (pixels + 0.5 / 255).clip(0, 1)
        extent = (left, left + size, bottom, bottom + size)
        self.axes.imshow(pixels, extent=extent, zorder=1, interpolation="antialiased")

    def equation(self, parts, x, y, number) -> None:
        box = (x - 23, y - 10, 46, 20)
        self.box(parts, box, "ink", 0, f"Eq. {number}", radius=10)

    def norm(self, parts, left) -> None:
        box = (left, _MIDDLE - 60, 24, 120)
        self.box(parts, box, "layer norm", 0.2, "LayerNorm", **_UPRIGHT)

    def residual(self, parts, start, end, number) -> None:
        """Draws the way around an operation, and the plus where it comes back."""
        corners = (start, _AROUND), (end, _AROUND)
        self.arrow(parts, (start, _MIDDLE), *corners, (end, _MIDDLE + 9))
        self.box(parts, (end - 9, _MIDDLE - 9, 18, 18), "layer norm", 0.2, "+", 9)
        self.equation(parts, (start + end) / 2, _AROUND, number)


def _draw_sequence(pen: Pen) -> None:
    """Draws the way from the image to the sequence of tokens (Equation 1)."""
    pizza = draw_pizza()
    third = len(pizza) // 3
    pen.word("image", 68, 302, "image", **_BOLD)
    pen.draw_image("image", pizza, 14, 175, 108)
    for cut in (36, 72):
        pen.line("image", (14 + cut, 175), (14 + cut, 283), colour="paper", width=2)
        pen.line("image", (14, 175 + cut), (140, 175 + cut), colour="paper", width=2)
    pen.word("image|patches", 68, 153, "14 × 14 patches,")
    pen.word("image|patches", 68, 137, "drawn as 3 × 3")
    pen.word("image", 68, _SHAPES, "(B, 3, 224, 224)")

    pen.arrow("patches", (122, _ROWS[5]), (145, _ROWS[5]))
    # No part holds the whole sequence: its frame is pale whichever is highlighted.
    pen.box("sequence", (237, 76, 108, 338), "ink", 0.03, radius=9)
    part, title = "patch embedding", "linear projection E"
    pen.box(part, (195, 88, 26, 282), part, 0.2, title, **_BOLD, **_UPRIGHT)
    pen.word("class token", 184, _ROWS[0], "class token", **_BOLD)
    pen.arrow("class token", (226, _ROWS[0]), (245, _ROWS[0]))
    for number, y in enumerate(_ROWS):
        kind = "patch embedding" if number else "class token"
        pen.box(kind, (245, y - 13, 30, 26), kind, 1, f"{number}")
        pen.word("position embedding", 291, y, "+")
        kind = "position embedding"
        pen.box(kind, (307, y - 13, 30, 26), kind, 1, f"{number}")
        if number:
            row, column = divmod(number - 1, 3)
            patch = pizza[row * third :, column * third :][:third, :third]
            pen.draw_image("patches", patch, 145, y - 13, 26)
            pen.arrow("patch embedding", (171, y), (195, y))
            pen.arrow("patch embedding", (221, y), (245, y))
    pen.word("patches", 158, _NAMES, "patches", **_BOLD)
    pen.word("patch embedding|class token", 254, _NAMES, "tokens", **_BOLD)
    pen.word("position embedding", 328, _NAMES, "positions", **_BOLD)
    pen.word("patches|patch embedding", 206, _SHAPES, "(B, 196, 768)")
    if pen.lit == "position embedding":  # one table for all images, and the sum
        pen.word(pen.lit, 303, _SHAPES, "(1, 197, 768)")
        pen.word(pen.lit, 408, _SHAPES, "sum: (B, 197, 768)")
    else:
        pen.word("position embedding", 303, _SHAPES, "(B, 197, 768)")
    parts = "patch embedding|class token|position embedding"
    pen.line(parts, (142, 426), (142, 436), (340, 436), (340, 426))
    pen.equation(parts, 241, 436, 1)


def _draw_encoder(pen: Pen) -> None:
    """Draws one encoder block, inside and out (Equations 2 and 3)."""
    for shift in (10, 5, 0):  # a pile: the block is repeated
        pen.box("encoder", (382 + shift, 78 + shift, 408, 342), "ink", 0.03, radius=12)
    pen.word("encoder", 396, 406, "Transformer encoder", ha="left", **_BOLD)
    pen.box("encoder", (736, 395, 44, 22), "ink", 0.15, "× L", 11, **_BOLD)
    pen.word("encoder", 586, _SHAPES, "shapes of ViT-B/16, L = 12 blocks")

    msa, y = "multi-head attention", _MIDDLE
    pen.arrow("encoder", (345, y), (410, y))
    pen.residual(msa, 396, 627, 2)
    pen.norm(msa, 410)
    pen.arrow(msa, (434, y), (452, y))
    pen.box(msa, (452, 114, 148, 246), "attention")
    pen.word(msa, 526, 347, "multi-head", **_BOLD)
    pen.word(msa, 526, 331, "self-attention", **_BOLD)
    pen.arrow(msa, (600, y), (618, y))
    for shift in (8, 4, 0):  # a pile again: the heads
        pen.box("attention", (460 + shift, 124 + shift, 126, 174), "attention", 0.08)
    pen.word("attention", 523, 287, r"softmax(qkᵀ / $\sqrt{D_h}$)")
    pen.box("attention", (522, 218, 52, 52), "attention", radius=1)
    shades = np.array([list(row) for row in _SHADES], dtype=float)[..., None] / 10
    pixels = pen.blend(pen.colours["attention"], shades)
    pen.draw_image("attention", pixels, 523, 219, 50)
    for name, height, end in (("q", 262, 522), ("k", 226, 522), ("v", 158, 539)):
        pen.arrow("attention", (452, y), (466, y), (466, height), (475, height))
        pen.box("attention", (475, height - 9, 18, 18), "attention", 1, name, 9)
        pen.arrow("attention", (493, height), (end, height))
    pen.arrow("attention", (548, 218), (548, 167))
    pen.box("attention", (539, 149, 18, 18), "attention", 1, "×", 9)
    pen.line("attention", (557, 158), (580, 158), (580, y), (600, y))

    pen.arrow("mlp", (636, y), (664, y))
    pen.residual("mlp", 650, 773, 3)
    pen.norm("mlp", 664)
    pen.arrow("mlp", (688, y), (704, y))
    pen.box("mlp", (704, 156, 44, 176), "mlp")
    pen.word("mlp", 726, 318, "MLP", **_BOLD)
    for left, tall in ((712, 28), (722.5, 112), (733, 28)):  # four times wider inside
        pen.box("mlp", (left, y - 10 - tall / 2, 7, tall), "mlp", 1, radius=2)
    pen.arrow("mlp", (748, y), (764, y))
    pen.arrow("encoder", (782, y), (814, y))


def _draw_head(pen: Pen) -> None:
    """Draws the way from the class token to the classes (Equation 4)."""
    pen.box("sequence", (814, 76, 42, 338), "ink", 0.03, radius=9)
    pen.box("class token|encoder|head", (820, 381, 30, 26), "class token", 1, "0")
    for y in _ROWS[1:]:
        pen.box("encoder", (820, y - 13, 30, 26), "ink", 0.15)
    pen.word("encoder", 833, _SHAPES, "(B, 197, 768)")
    pen.line("head", (877, 426), (877, 436), (985, 436), (985, 426))
    pen.equation("head", 931, 436, 4)
    pen.arrow("head", (850, 394), (877, 394))
    pen.box("head", (877, 377, 108, 34), "layer norm", label="LayerNorm")
    pen.arrow("head", (905, 377), (905, 322))
    pen.word("head", 947, 350, "(B, 768)")
    pen.box("head", (877, 274, 108, 48), "head")
    pen.word("head", 931, 306, "head", **_BOLD)
    pen.word("head", 931, 289, "linear layer")
    pen.arrow("head", (905, 274), (905, 210))
    pen.word("head", 947, 250, "(B, 3)")
    pen.word("head", 947, 234, "softmax")
    pen.box("head", (877, 82, 108, 128), "head", 0.06)
    for y, name, width in ((188, "pizza", 52), (160, "steak", 9), (132, "sushi", 5)):
        pen.word("head", 885, y, name, ha="left")
        pen.box("head", (925, y - 8, width, 16), "head", 1, radius=2)
    pen.word("head", 931, 100, "probabilities", **_BOLD)


def draw_model(lit: str | None = None, dark: bool = False) -> Figure:
    """Draws the Vision Transformer of Figure 1, from image to class probabilities.

    Args:
        lit: the part to highlight, one of `MODEL_PARTS`; None draws all in full colour.
        dark: for a dark page.

    Returns:
        A figure outside pyplot, so a notebook shows it only when asked.

    Raises:
        ValueError: `lit` is no part of the model.
    """
    if lit is not None and lit not in MODEL_PARTS:
        near = difflib.get_close_matches(str(lit).lower(), MODEL_PARTS, 1, cutoff=0)[0]
        parts = ", ".join(MODEL_PARTS)
        raise ValueError(f"lit must be one of {parts}; got {lit!r}, perhaps {near!r}?")
    with style.context("default"):  # whatever the notebook has set
        figure = Figure(figsize=(_WIDTH / 100, _HEIGHT / 100), dpi=100)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0, 0, 1, 1))
        pen = Pen(axes, lit, dark)
        paper = pen.colours["paper"]
        figure.set_facecolor(tuple(paper))
        # As large as the figure: a tight bounding box is then the same for all parts.
        axes.add_patch(Rectangle((0, 0), _WIDTH, _HEIGHT, fc=paper, lw=0))
        _draw_sequence(pen)
        _draw_encoder(pen)
        _draw_head(pen)
        if lit is not None:
            *box, colour = _MARKS[lit]
            for width, alpha in ((13, 0.1), (9, 0.15), (5.5, 0.25), (2.4, 1)):  # a glow
                glow = {"ec": PALETTE[colour], "lw": width, "alpha": alpha}
                pen.outline(box, 9, fc="none", **glow)
        axes.set(xlim=(0, _WIDTH), ylim=(0, _HEIGHT))
        axes.set_axis_off()
    return figure
