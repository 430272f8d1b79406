"""Draws the figures of the README and the site: python images/draw_figures.py."""

import sys
from pathlib import Path

import matplotlib

IMAGES = Path(__file__).resolve().parent
sys.path.insert(0, str(IMAGES.parent))  # so that a clone needs no installation

from course_figures import draw_model  # noqa: E402

# No random names, letters as outlines, no date and no version: always the same bytes.
SETTINGS = {"svg.hashsalt": "vision transformer", "svg.fonttype": "path"}
METADATA = {"Title": "The Vision Transformer", "Date": None, "Creator": None}


def draw_figures(folder: Path = IMAGES) -> list[Path]:
    """Writes the whole model as SVG and PNG, for light and for dark pages.

    Args:
        folder: where to write; it must exist.

    Returns:
        The files written.
    """
    written = []
    for theme in ("light", "dark"):
        figure = draw_model(dark=theme == "dark")
        path = folder / f"model_{theme}"
        with matplotlib.rc_context(SETTINGS):
            # The dpi of an SVG is that of the pictures inside it.
            figure.savefig(path.with_suffix(".svg"), dpi=150, metadata=METADATA)
        figure.savefig(path.with_suffix(".png"), dpi=140, metadata={"Software": None})
        written += [path.with_suffix(".svg"), path.with_suffix(".png")]
    return written


if __name__ == "__main__":
    for file in draw_figures():
        print(f"{file.name}: {file.stat().st_size / 1000:.0f} kB")
