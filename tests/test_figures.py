"""The figure of the whole model: its parts, its colours, its files."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from course_figures import MODEL_PARTS, PALETTE, draw_model

ROOT = Path(__file__).resolve().parents[1]


def pixels(figure: Figure) -> np.ndarray:
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba()).copy()


def test_palette_has_the_seven_colours() -> None:
    assert PALETTE == {
        "patch embedding": "#0072B2",
        "class token": "#D55E00",
        "position embedding": "#009E73",
        "attention": "#CC79A7",
        "mlp": "#E69F00",
        "layer norm": "#6E6E6E",
        "head": "#56B4E9",
    }


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_every_part_makes_another_picture(dark: bool) -> None:
    pictures = [pixels(draw_model(lit, dark)) for lit in (None, *MODEL_PARTS)]
    assert {picture.shape for picture in pictures} == {(460, 1000, 4)}
    assert len({picture.tobytes() for picture in pictures}) == len(pictures)


# A point inside each part, in the figure's units, and the colour it has when lit.
POINTS = {
    "patch embedding": (250, 328, "patch embedding"),
    "class token": (250, 403, "class token"),
    "position embedding": (311, 328, "position embedding"),
    "attention": (479, 263, "attention"),
    "mlp": (726, 244, "mlp"),
    "head": (950, 186, "head"),
}


@pytest.mark.parametrize("lit", POINTS)
def test_only_the_lit_part_has_its_full_colour(lit: str) -> None:
    picture = pixels(draw_model(lit))
    for part, (x, y, colour) in POINTS.items():
        seen = "#{:02X}{:02X}{:02X}".format(*picture[459 - y, x, :3])
        assert (seen == PALETTE[colour]) == (part == lit), part


def test_same_picture_twice_and_whatever_the_settings() -> None:
    first = pixels(draw_model("encoder"))
    with plt.rc_context(
        {"font.size": 20, "font.family": "serif", "lines.linewidth": 9}
    ):
        second = pixels(draw_model("encoder"))
    assert np.array_equal(first, second)


def test_pyplot_does_not_know_the_figure() -> None:
    before = plt.get_fignums()
    draw_model()
    assert plt.get_fignums() == before


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("class tokens", "class token"),
        ("MLP block", "mlp"),
        ("multihead", "multi-head"),
    ],
)
def test_unknown_part_names_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(ValueError, match="lit must be one of") as error:
        draw_model(wrong)
    text = str(error.value)
    assert repr(wrong) in text and f"perhaps '{near}" in text
    assert all(part in text for part in MODEL_PARTS)


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_no_text_is_small_cut_off_or_on_another(dark: bool) -> None:
    figure = draw_model(dark=dark)
    figure.canvas.draw()
    texts = [text for text in figure.axes[0].texts if text.get_text()]
    boxes = [text.get_window_extent() for text in texts]
    for i, (text, box) in enumerate(zip(texts, boxes, strict=True)):
        assert text.get_fontsize() >= 8.6, text.get_text()
        assert 5 < box.x0 < box.x1 < 995 and 5 < box.y0 < box.y1 < 455, text.get_text()
        for other, its_box in zip(texts[:i], boxes[:i], strict=True):
            # The boxes of two lines of text may touch, the letters in them do not.
            together = type(box).intersection(box, its_box)
            overlap = together is not None and min(together.size) > 1.5
            assert not overlap, (text.get_text(), other.get_text())


def test_stored_figures_are_what_the_script_draws(tmp_path: Path) -> None:
    script = ROOT / "images" / "draw_figures.py"
    spec = importlib.util.spec_from_file_location("draw_figures", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = module.draw_figures(tmp_path)
    assert sorted(path.name for path in written) == [
        "model_dark.png",
        "model_dark.svg",
        "model_light.png",
        "model_light.svg",
    ]
    for path in written:
        stored = ROOT / "images" / path.name
        assert stored.stat().st_size < 150_000, path.name
        if path.suffix == ".svg":
            same = path.read_text("utf-8") == stored.read_text("utf-8")
            assert same, f"{path.name} is stale: run python images/draw_figures.py"
