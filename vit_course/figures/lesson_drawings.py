"""The drawings that a lesson shows with `show_drawing`, by name."""

import json
from collections.abc import Callable
from pathlib import Path

from matplotlib.figure import Figure

from vit_course.figures.canvas import Canvas
from vit_course.figures.draw import FIGURES

ALT_TEXTS = Path(__file__).resolve().parents[2] / "images" / "alt_texts.json"
# Drawings that no file of `images/` holds: an alternative text, and who draws it.
OF_LESSONS: dict[str, tuple[str, Callable[..., Canvas]]] = {}


def drawing(name: str, dark: bool = False) -> tuple[Figure, str]:
    """Draws one of the drawings, and returns it with its alternative text.

    Raises:
        ValueError: there is no drawing of that name.
    """
    if name in OF_LESSONS:
        alt, draw = OF_LESSONS[name]
    elif name in FIGURES:
        alt = json.loads(ALT_TEXTS.read_text(encoding="utf-8"))[name]
        draw = FIGURES[name][1]
    else:
        known = ", ".join([*FIGURES, *OF_LESSONS])
        raise ValueError(f"no drawing is called {name!r}; there are {known}")
    canvas = draw(dark)
    canvas.frame()
    return canvas.figure, alt
