"""The figures: their parts, colours, numbers and files."""

import base64
import io
import json
import re
from pathlib import Path

import nbformat
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from going_modular.checkpoint import load_checkpoint
from going_modular.data_setup import create_transform, load_image
from going_modular.multihead_attention import record_attention
from going_modular.training.distributed import DistributedBatchSampler
from going_modular.variants import VARIANTS, count_parameters
from vit_course.figures import (
    MODEL_PARTS,
    PALETTE,
    attention,
    draw,
    draw_model,
    equations,
    hero,
    lesson_drawings,
    patchify,
    shapes,
    two_processes,
)
from vit_course.figures.canvas import PAGES, READABLE, Canvas, contrast

ROOT = Path(__file__).resolve().parents[2]
PAGES_WITH_FIGURES = "start.md", "model.md"
FOODS = "pizza", "steak", "sushi"


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


@pytest.mark.parametrize("lit", [None, *MODEL_PARTS])
def test_the_position_table_has_no_batch_axis(lit: str | None) -> None:
    shown = [text.get_text() for text in draw_model(lit).axes[0].texts]
    alone = lit == "position embedding"
    assert ("(1, 197, 768)" in shown) == ("sum: (B, 197, 768)" in shown) == alone
    assert shown.count("(B, 197, 768)") == (1 if alone else 2)


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


# --- The other figures, each a canvas of vit_course/figures/canvas.py ---

NAMES = ("equations", "shapes", "encoder_block", "attention", "patchify", "hero")
LESSONS = tuple(lesson_drawings.OF_LESSONS)
THEMES = ("light", "dark")


@pytest.fixture(scope="module")
def drawn() -> dict[tuple[str, str], Canvas]:
    """Each figure once, for all tests that only look."""
    canvases = {}
    for theme in THEMES:
        of_lessons = {
            name: function(theme == "dark")
            for name, (_, function) in lesson_drawings.OF_LESSONS.items()
        }
        for name, canvas in (draw.draw_canvases(theme) | of_lessons).items():
            canvas.frame()
            canvases[name, theme] = canvas
    return canvases


def texts_of(canvas: Canvas) -> list[Text]:
    return [text for text in canvas.axes.texts if text.get_text()]


def words_of(canvas: Canvas) -> list[str]:
    return [text.get_text() for text in texts_of(canvas)]


def number(value: float, form: str = "{:.2f}") -> str:
    """Writes a number as the figures do."""
    text = form.format(value)
    return (form.format(0.0) if float(text) == 0 else text).replace("-", "−")


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", NAMES + LESSONS)
def test_no_text_of_a_new_figure_is_small_cut_off_or_on_another(
    drawn, name, theme
) -> None:
    canvas = drawn[name, theme]
    texts = texts_of(canvas)
    boxes = [text.get_window_extent() for text in texts]
    for i, (text, box) in enumerate(zip(texts, boxes, strict=True)):
        # 100 units are 72 points: 9 points are 12.5 pixels where 800 units are 800.
        assert text.get_fontsize() >= 9, text.get_text()
        inside = 3 < box.x0 < box.x1 < canvas.width - 3
        assert inside and 3 < box.y0 < box.y1 < canvas.height - 3, text.get_text()
        for other, its_box in zip(texts[:i], boxes[:i], strict=True):
            together = type(box).intersection(box, its_box)
            overlap = together is not None and min(together.size) > 1.5
            assert not overlap, (text.get_text(), other.get_text())


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("name", NAMES + LESSONS)
def test_text_stands_out_from_what_is_behind_it(drawn, name, theme) -> None:
    canvas = drawn[name, theme]
    texts = texts_of(canvas)
    boxes = [text.get_window_extent() for text in texts]
    for text in texts:
        text.set_visible(False)
    behind = pixels(canvas.figure)[::-1, :, :3] / 255  # row 0 at the bottom
    for text in texts:
        text.set_visible(True)
    paper = canvas.colours["paper"]
    for text, box in zip(texts, boxes, strict=True):
        left, bottom, right, top = (round(edge) for edge in box.extents)
        seen = behind[bottom:top, left:right].reshape(-1, 3)
        colour = np.array(to_rgb(text.get_color()))
        bare = np.abs(seen - paper).max(axis=1) < 0.01
        for page in PAGES[theme]:  # where the paper shows, it may be the page's own
            on_page = np.where(bare[:, None], to_rgb(page), seen)
            enough = contrast(colour, on_page) >= READABLE
            # A line or a frame may touch a corner of the box around a text.
            assert enough.mean() > 0.9, (text.get_text(), page)


def test_contrast_is_that_of_wcag() -> None:
    black, white = np.zeros(3), np.ones(3)
    assert contrast(black, white) == pytest.approx(21)
    assert contrast(white, white) == 1
    grey = np.array(to_rgb("#767676"))  # the classic grey that just passes on white
    assert 4.5 <= contrast(grey, white) < 4.6


@pytest.fixture
def smaller_batch(monkeypatch):
    """Another batch and other classes: a figure of typed-in shapes would not notice."""
    monkeypatch.setattr(shapes, "BATCH", (8, 3, 224, 224))
    monkeypatch.setattr(shapes, "CLASSES", 5)
    shapes.measure.cache_clear()
    yield
    shapes.measure.cache_clear()


def test_shapes_are_those_of_the_model(drawn, smaller_batch) -> None:
    variant = VARIANTS["vit_base_16"]
    n, d, side = variant.num_patches, variant.embedding_dim, variant.img_size // 16
    for canvas, batch, classes in (
        (drawn["shapes", "light"], 32, 3),
        (shapes.draw_shapes(), 8, 5),
    ):
        shown = [words for words in words_of(canvas) if words.startswith("(")]
        tokens = (batch, n + 1, d)
        expected = [(batch, 3, 224, 224), (batch, d, side, side), (batch, n, d)]
        expected += [tokens, tokens, tokens, (batch, d), (batch, classes)]
        assert shown == [str(shape) for shape in expected]
        assert f"{variant.num_transformer_layers} encoder blocks" in words_of(canvas)
        assert f"{classes} logits" in words_of(canvas)


def test_parameters_of_a_block_are_those_of_the_formula(drawn) -> None:
    variant = VARIANTS["vit_base_16"]
    words = words_of(drawn["encoder_block", "dark"])
    block = count_parameters(variant)["encoder"] // variant.num_transformer_layers
    assert words[-1].endswith(f"all parameters: {block:,}")
    counts = [int(w.replace(",", "")) for w in words if re.fullmatch(r"[\d,]+", w)]
    assert len(counts) == 12 and sum(counts) == block
    shown = [word for word in words if word.startswith("(B, ")]
    assert len(shown) == 12 and shown.count("(B, 197, 3072)") == 3
    assert "(B, 12, 197, 197)" in shown and "(B, 197, 2304)" in shown
    assert words.count("768 → 3072") == words.count("3072 → 768") == 1


def test_numbers_of_attention_are_those_of_pytorch(drawn) -> None:
    found = attention.measure()
    query, key, value = map(torch.from_numpy, (found.query, found.key, found.value))
    scores = query @ key.T
    weights = (scores / 2).softmax(dim=1)
    output = F.scaled_dot_product_attention(query[None], key[None], value[None])[0]
    words = words_of(drawn["attention", "light"])
    cells = [number(x, "{:.1f}") for x in (scores / 2).flatten()]
    cells += [number(x) for tensor in (weights, output) for x in tensor.flatten()]
    for tensor in (query, key, value, scores):
        cells += [number(x, "{:.0f}") for x in tensor.flatten()]
    # Five steps; the rows of seven matrices and the columns of three are numbered.
    cells += [f"{step}" for step in range(1, 6)]
    cells += [f"{token}" for token in range(4)] * 10
    shown = [word for word in words if re.fullmatch(r"−?\d(\.\d+)?", word)]
    assert sorted(shown) == sorted(cells)
    assert words.count("= 1.00") == 4
    # Who multiplies the rounded weights gets the output shown.
    rounded = weights.round(decimals=2)
    torch.testing.assert_close(rounded.sum(dim=1), torch.ones(4).double())
    torch.testing.assert_close(rounded @ value, output.round(decimals=2))
    framed = output[attention.FOLLOWED]
    assert all(f"{{{x:.2f}}}" in words[-2] for x in framed.tolist())


def test_patchify_shows_the_models_own_numbers(drawn) -> None:
    found = patchify.measure()
    row, column = patchify.MARKED
    patch = found.image[:, row * 8 : row * 8 + 8, column * 8 : column * 8 + 8]
    words = words_of(drawn["patchify", "dark"])
    start = words.index(number(patch[0, 0, 0]))
    assert words[start : start + 8] == [number(x) for x in patch[0, 0]]
    model, _ = load_checkpoint()
    bias = model.embedding.patch_embedding.patcher.bias.detach()
    torch.testing.assert_close(found.patches @ found.matrix + bias, found.tokens)
    for name, shape in (("patches", (64, 192)), ("E", (192, 192))):
        assert f"{name}  {shape}" in words
    assert "tokens  (64, 192)" in words and "8 × 8 = 64 patches" in words


def test_the_hero_shows_attention_that_was_computed() -> None:
    found = hero.measure()
    model, metadata = load_checkpoint()
    image = load_image(hero.TEST / hero.IMAGE)
    batch = create_transform(**metadata["preprocessing"])(image)[None]
    with torch.no_grad(), record_attention(model) as maps:
        model(batch)
    rollout = torch.eye(65)
    for weights in maps:
        rollout = (weights[0].mean(dim=0) + torch.eye(65)) / 2 @ rollout
    patches = rollout[0, 1:].reshape(8, 8).numpy()
    np.testing.assert_allclose(found.rollout, patches, atol=1e-5)
    assert found.heights.min() == 0 and found.heights.max() == 1
    top = np.sort(patches.ravel())[-8:].sum() / patches.sum()
    assert f"give {top:.0%}" in found.caption()
    assert "all 6 layers, 3 heads" in found.caption()


def test_each_equation_is_drawn_in_its_colour(drawn) -> None:
    for theme in THEMES:
        canvas = drawn["equations", theme]
        texts = {text.get_text(): text.get_color() for text in texts_of(canvas)}
        colours = []
        for equation in equations.EQUATIONS:
            colours.append(tuple(texts[equation.formula]))
            assert colours[-1] == tuple(canvas.readable(equation.colour))
        assert len(set(colours)) == 4


def test_every_figure_has_a_text_for_those_who_do_not_see_it() -> None:
    texts = json.loads((ROOT / "images" / "alt_texts.json").read_text("utf-8"))
    assert sorted(texts) == sorted((*NAMES, "model"))
    texts |= {name: alt for name, (alt, _) in lesson_drawings.OF_LESSONS.items()}
    for name, text in texts.items():
        sentences = re.findall(r"[.](?: |$)", text)
        assert 1 <= len(sentences) <= 3 and text.endswith("."), name
        assert len(text) < 400 and not set('"<>') & set(text), name


def test_stored_figures_are_what_the_script_draws(tmp_path: Path) -> None:
    written = draw.draw_figures(tmp_path)
    expected = [f"model_{theme}.{kind}" for theme in THEMES for kind in ("png", "svg")]
    for name in NAMES:
        kind = "jpg" if name == "hero" else "svg"
        expected += [f"{name}_{theme}.{kind}" for theme in THEMES]
    assert sorted(path.name for path in written) == sorted(expected)
    for path in written:
        stored = ROOT / "images" / path.name
        assert stored.stat().st_size < 200_000, path.name
        again = "run python -m vit_course.figures.draw"
        if path.suffix == ".svg":
            same = path.read_text("utf-8") == stored.read_text("utf-8")
            assert same, f"{path.name} is stale: {again}"
        elif "hero" in path.name:  # the last bit of the attention may differ
            with Image.open(path) as new, Image.open(stored) as old:
                assert new.size == old.size, path.name
                difference = np.asarray(new).astype(int) - np.asarray(old)
            assert np.abs(difference).mean() < 0.1, f"{path.name} is stale: {again}"


def test_pages_show_the_figures_with_their_alt_texts_and_numbers() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    start, model = ((ROOT / "docs" / name).read_text() for name in PAGES_WITH_FIGURES)
    alts = json.loads((ROOT / "images" / "alt_texts.json").read_text(encoding="utf-8"))
    for name, alt in alts.items():
        kind = "jpg" if name == "hero" else "svg"
        dark = f'images/{name}_dark.{kind}">'
        light = f'images/{name}_light.{kind}" alt="{alt}">'
        for text in (readme, start) if name == "hero" else (model,):
            assert dark in text and light in text, name
    assert "chosen because its map is clear: most are flatter" in readme

    def of_the_highest(file: str) -> float:
        rollout = np.sort(hero.measure(file).rollout.ravel())
        return rollout[-8:].sum() / rollout.sum()

    others = [f"{food}/{i:03d}.jpg" for food in FOODS for i in range(0, 25, 6)]
    flatter = [of_the_highest(file) < of_the_highest(hero.IMAGE) for file in others]
    assert sum(flatter) > 0.5 * len(flatter)


NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
SHOWN = [
    (path, name)
    for path in NOTEBOOKS
    for name in re.findall(r'show_drawing\(\\"(\w+)', path.read_text("utf-8"))
]


def in_squares(image: Image.Image) -> np.ndarray:
    """Means over squares of 8 pixels, which compression to JPEG hardly changes."""
    return np.asarray(image.convert("L").reduce(8)).astype(int)


def assert_stored(path: Path, call: str, figure: Figure, name: str) -> str:
    """Compares a figure with what the cell with this call has stored.

    Returns:
        The stored alt text.
    """
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = [c for c in cells if c.cell_type == "code" and call in c.source]
    drawn = io.BytesIO()
    figure.savefig(drawn, dpi=150, bbox_inches="tight")
    plt.close(figure)
    ((kind, seen),) = [pair for o in cell.outputs for pair in o.metadata.items()]
    (stored,) = [o.data[kind] for o in cell.outputs if kind in o.metadata]
    with Image.open(io.BytesIO(base64.b64decode(stored))) as old:
        new = Image.open(drawn)
        assert new.size == old.size, f"{path.name} shows an older {name}: run it again"
        difference = np.abs(in_squares(new) - in_squares(old)).max()
    assert difference < 16, f"{path.name} shows an older {name}: run it again"
    return seen["alt"]


@pytest.mark.parametrize(
    ("path", "name"), SHOWN, ids=[f"{path.stem[:3]}-{name}" for path, name in SHOWN]
)
def test_a_lesson_shows_the_drawing_as_it_is_now(path: Path, name: str) -> None:
    figure, alt = lesson_drawings.drawing(name)
    stored = assert_stored(path, f'show_drawing("{name}")', figure, name)
    assert stored == alt, f"{path.name}: run it again"


@pytest.mark.parametrize("theme", THEMES)
def test_two_processes_get_the_shards_of_the_sampler(drawn, theme: str) -> None:
    batch = list(two_processes.BATCH)
    shards = [next(iter(DistributedBatchSampler([batch], r, 2))) for r in range(2)]
    assert [list(shard) for shard in two_processes.shards()] == shards
    numbers = [int(w) for w in words_of(drawn["two_processes", theme]) if w.isdigit()]
    assert numbers == batch + shards[0] + shards[1]


@pytest.mark.parametrize("theme", THEMES)
def test_unequal_shards_average_to_the_batch(drawn, theme: str) -> None:
    values = list(two_processes.VALUES)
    found = two_processes.averages()
    batches = [next(iter(DistributedBatchSampler([values], r, 2))) for r in range(2)]
    assert [shard for shard, *_ in found] == batches
    assert sum(product for *_, product in found) / 2 == sum(values) / len(values)
    words = words_of(drawn["unequal_shards", theme])
    assert {"3.50", "2.00", "3.00"} <= set(words)
    numbers = [int(w) for w in words if w.isdigit()]
    assert numbers == values + batches[0] + batches[1]


WITH_MODEL = [path for path in NOTEBOOKS if "show_model(" in path.read_text("utf-8")]


@pytest.mark.parametrize("path", WITH_MODEL, ids=lambda path: path.stem)
def test_a_lesson_shows_the_model_as_it_is_now(path: Path) -> None:
    text = path.read_text("utf-8")
    (call,) = re.findall(r"show_model\((?:lit=\\\"[\w -]+\\\")?\)", text)
    call = call.replace("\\", "")
    lit = call.split('"')[1] if '"' in call else None
    assert_stored(path, call, draw_model(lit), "model")
