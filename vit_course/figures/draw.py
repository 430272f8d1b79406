"""Draws the figures of the README and the site: python -m vit_course.figures.draw."""

from functools import cache
from pathlib import Path

import matplotlib
import matplotlib.style

from vit_course.figures.attention import draw_attention
from vit_course.figures.canvas import SETTINGS, Canvas
from vit_course.figures.encoder_block import draw_encoder_block
from vit_course.figures.equations import draw_equations
from vit_course.figures.hero import draw_hero, measure, save_hero
from vit_course.figures.model import draw_model
from vit_course.figures.patchify import draw_patchify
from vit_course.figures.shapes import draw_shapes

IMAGES = Path(__file__).resolve().parents[2] / "images"
METADATA = {"Title": "The Vision Transformer", "Date": None, "Creator": None}
# A title and who draws it, for light or dark pages; alt_texts.json has the words.
FIGURES = {
    "equations": ("The four equations of the Vision Transformer", draw_equations),
    "shapes": ("Shapes on the way through ViT-B/16", draw_shapes),
    "encoder_block": ("One encoder block of ViT-B/16", draw_encoder_block),
    "attention": ("Attention in five steps", draw_attention),
    "patchify": ("From an image to tokens", draw_patchify),
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
            # The dpi of an SVG is that of the images inside it.
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
