"""Positions as clock faces: one hand and its two waves, and a second, slower hand."""

from collections.abc import Callable
from math import cos, pi, sin

import numpy as np
from matplotlib.patches import Circle

from vit_course.figures.canvas import Canvas

FAST, SLOW = 8, 64  # positions per turn
_GREEN = "position embedding"
_LEFT, _STEP, _RADIUS = 122, 82, 30  # first clock, from clock to clock, size
_HEIGHT = 32  # of a wave, above and below its line


def _x(position: float) -> float:
    """The middle of a position's clock."""
    return _LEFT + _STEP * position


def _hand(canvas: Canvas, middle, turns: float, length: float, colour: str) -> None:
    """Draws a hand that began at twelve and has turned clockwise."""
    x, y = middle
    tip = (x + length * sin(2 * pi * turns), y + length * cos(2 * pi * turns))
    canvas.line("", middle, tip, colour=colour, width=3)
    tone = tuple(canvas.tone("", colour, 0.75 if colour == "ink" else 1))
    canvas.axes.add_patch(Circle(tip, 4, fc=tone, lw=0))


def _clocks(canvas: Canvas, y: float, slow: bool) -> None:
    """Draws the clocks of positions 0 to 8, and frames the first and the last."""
    face, edge = (tuple(canvas.tone("", "ink", part)) for part in (0.04, 0.5))
    for position in range(FAST + 1):
        middle = (_x(position), y)
        canvas.axes.add_patch(Circle(middle, _RADIUS, fc=face, ec=edge, lw=1.2))
        if slow:
            _hand(canvas, middle, position / SLOW, 16, "ink")
        _hand(canvas, middle, position / FAST, 25, _GREEN)
        canvas.text(middle[0], y + 50, f"position {position}")
        if position in (0, FAST):
            side = _RADIUS + 6
            canvas.mark((middle[0] - side, y - side, 2 * side, 2 * side))


def _wave(
    canvas: Canvas, y: float, of: Callable[[float], float], label: str, style
) -> None:
    """Draws how far right or up the tip is, as a height below each clock."""
    canvas.text(_LEFT - 44, y, label, ha="right")
    for value in (1, 0, -1):
        name = f"{value}".replace("-", "−")
        canvas.text(_LEFT - 14, y + value * _HEIGHT, name, ha="right")
    canvas.line("", (_x(0), y), (_x(FAST), y), width=0.8)
    tone = tuple(canvas.readable(_GREEN))
    turns = np.linspace(0, 1, 200)
    heights = [y + _HEIGHT * of(2 * pi * turn) for turn in turns]
    canvas.axes.plot(_x(0) + _STEP * FAST * turns, heights, color=tone, ls=style)
    for position in range(FAST + 1):
        tip = (_x(position), y + _HEIGHT * of(2 * pi * position / FAST))
        canvas.axes.add_patch(Circle(tip, 4, fc=tone, lw=0, zorder=3))


def _page(height: float, dark: bool, title: str) -> Canvas:
    """Returns a page with its title."""
    canvas = Canvas(830, height, dark)
    canvas.text(20, height - 18, title, ha="left", size=10, weight="bold")
    return canvas


def draw_clock_hand(dark: bool = False) -> Canvas:
    """Draws one hand at nine positions, and below it the sine and the cosine."""
    canvas = _page(338, dark, "one hand: an eighth of a turn per position")
    _clocks(canvas, 238, slow=False)
    _wave(canvas, 144, sin, "right: sine", "-")
    _wave(canvas, 48, cos, "up: cosine", (0, (5, 3)))
    return canvas


def draw_clock_hands(dark: bool = False) -> Canvas:
    """Draws two hands at nine positions: the second turns eight times slower."""
    canvas = _page(144, dark, "two hands: the short one turns eight times slower")
    _clocks(canvas, 46, slow=True)
    return canvas
