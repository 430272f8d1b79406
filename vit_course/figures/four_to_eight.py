"""Interpolation on a ruler: four values become eight."""

from matplotlib.patches import Circle

from vit_course.figures.canvas import Canvas

_OLD = (0, 10, 20, 30)
_NEW = (0, 2.5, 7.5, 12.5, 17.5, 22.5, 27.5, 30)
_LEFT, _WIDE = 110, 160  # of the first old value; a new one is half as wide
_GREEN = "position embedding"
_OLD_Y, _NEW_Y, _HEIGHT = 138, 44, 40


def _dot(canvas: Canvas, x: float, y: float) -> None:
    """Draws the middle of a box."""
    tone = tuple(canvas.readable(_GREEN))
    canvas.axes.add_patch(Circle((x, y), 4, fc=tone, lw=0, zorder=4))


def draw_four_to_eight(dark: bool = False) -> Canvas:
    """Draws four wide boxes over eight narrow ones, and where the second gets 2.5."""
    canvas = Canvas(770, 240, dark)
    title = "each new value comes from the two old ones on its left and right"
    canvas.text(20, 222, title, ha="left", size=10, weight="bold")
    canvas.text(_LEFT - 14, _OLD_Y + _HEIGHT / 2, "old", ha="right")
    canvas.text(_LEFT - 14, _NEW_Y + _HEIGHT / 2, "new", ha="right")
    for y in (20, _OLD_Y + _HEIGHT + 14):
        canvas.text(_LEFT - 14, y, "place", ha="right")
    for i, value in enumerate(_OLD):
        left = _LEFT + i * _WIDE
        canvas.card((left + 2, _OLD_Y, _WIDE - 4, _HEIGHT), _GREEN, 0.3, f"{value}")
        _dot(canvas, left + _WIDE / 2, _OLD_Y)
        canvas.text(left + _WIDE / 2, _OLD_Y + _HEIGHT + 14, f"{1 + 2 * i}")
    for i, value in enumerate(_NEW):
        left = _LEFT + i * _WIDE / 2
        fill = 0.3 if i == 1 else 0.08
        box = (left + 2, _NEW_Y, _WIDE / 2 - 4, _HEIGHT)
        canvas.card(box, _GREEN, fill, f"{value:g}")
        _dot(canvas, left + _WIDE / 4, _NEW_Y + _HEIGHT)
        canvas.text(left + _WIDE / 4, 20, f"{0.5 + i:g}")
    to = (_LEFT + 0.75 * _WIDE, _NEW_Y + _HEIGHT + 6)
    for middle, part, side in ((0.5, "3/4 of 0", "right"), (1.5, "1/4 of 10", "left")):
        start = (_LEFT + middle * _WIDE, _OLD_Y - 6)
        canvas.way(start, to)
        x = (start[0] + to[0]) / 2 + (30 if side == "left" else -8)
        canvas.text(x, (start[1] + to[1]) / 2 - 3, part, ha=side)
    canvas.mark((_LEFT + _WIDE / 2, _NEW_Y - 2, _WIDE / 2, _HEIGHT + 4))
    return canvas
