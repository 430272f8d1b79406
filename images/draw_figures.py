"""Draws the figures of the README and the site: python images/draw_figures.py."""

import sys
from functools import cache
from pathlib import Path

import matplotlib
import matplotlib.style

IMAGES = Path(__file__).resolve().parent
# So that a clone needs no installation, and the modules beside this one are found.
sys.path[:0] = [
    path for path in (str(IMAGES.parent), str(IMAGES)) if path not in sys.path
]

from figure_attention import draw_attention  # noqa: E402
from figure_canvas import SETTINGS, Canvas  # noqa: E402
from figure_encoder import draw_encoder_block  # noqa: E402
from figure_equations import draw_equations  # noqa: E402
from figure_hero import draw_hero, measure, save_hero  # noqa: E402
from figure_patchify import draw_patchify  # noqa: E402
from figure_shapes import draw_shapes  # noqa: E402

from course_figures import draw_model  # noqa: E402

METADATA = {"Title": "The Vision Transformer", "Date": None, "Creator": None}
# A title and who draws it, for light or dark pages; alt_texts.json has the words.
FIGURES = {
    "equations": ("The four equations of the Vision Transformer", draw_equations),
    "shapes": ("Shapes on the way through ViT-B/16", draw_shapes),
    "encoder_block": ("One encoder block of ViT-B/16", draw_encoder_block),
    "attention": ("Attention in five steps", draw_attention),
    "patchify": ("From a picture to tokens", draw_patchify),
}


@cache
def draw_canvases(theme: str) -> dict[str, Canvas]:
    """Draws all figures but the whole model, by name, for "light" or "dark" pages."""
    dark = theme == "dark"
    with matplotlib.style.context("default"):  # whatever the caller has set
        canvases = {name: draw(dark) for name, (_, draw) in FIGURES.items()}
        return canvases | {"hero": draw_hero(dark)}


def draw_figures(folder: Path = IMAGES) -> list[Path]:
    """Writes all figures, for light and for dark pages.

    The whole model comes as SVG and PNG, the hero as JPEG, the others as SVG.

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
        canvases = draw_canvases(theme)
        for name, (title, _) in FIGURES.items():
            written.append(canvases[name].save(folder / f"{name}_{theme}.svg", title))
        written.append(save_hero(canvases["hero"], folder / f"hero_{theme}.jpg"))
    return written


if __name__ == "__main__":
    for file in draw_figures():
        print(f"{file.name}: {file.stat().st_size / 1000:.0f} kB")
    print(f"hero: {measure().caption()}")
