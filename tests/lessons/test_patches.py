"""Lesson 02: patchify against F.unfold and slices, over random sizes."""

import json
import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from going_modular.patches import (
    grid_size,
    image_size,
    patchify,
    spread_patches,
    unpatchify,
)
from vit_course.figures import patch_axes

LESSON = Path(__file__).resolve().parents[2] / "notebooks/02_patch_visualization.ipynb"
sizes = st.tuples(*[st.integers(1, 4)] * 4, st.integers(1, 7))  # B, C, rows, columns, P


@given(sizes)
@settings(deadline=None)
def test_equals_unfold_and_slices_and_returns(size):
    batch, channels, rows, columns, p = size
    x = torch.randn(batch, channels, rows * p, columns * p)
    patches = patchify(x, p)
    assert patches.shape == (batch, rows * columns, channels * p * p)
    assert torch.equal(patches, F.unfold(x, p, stride=p).transpose(1, 2))
    for i in range(rows * columns):
        r, c = divmod(i, columns)
        piece = x[:, :, r * p : (r + 1) * p, c * p : (c + 1) * p]
        assert torch.equal(patches[:, i], piece.flatten(1))
    assert torch.equal(unpatchify(patches, p, (rows * p, columns * p)), x)


def test_the_tempting_view_is_another_thing():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert not torch.equal(patchify(x, 2), x.view(1, 4, 4))


def test_view_mixes_two_channels_in_two_patches():
    number = torch.arange(3 * 224 * 224).reshape(1, 3, 224, 224)
    for p, mixed in ((8, [261, 522]), (16, [65, 130]), (32, [16, 32])):
        channel = number.view(1, (224 // p) ** 2, -1)[0] // 224**2
        two = channel.amin(dim=1) != channel.amax(dim=1)
        assert two.nonzero().flatten().tolist() == mixed


@given(sizes)
@settings(deadline=None)
def test_the_lessons_einops_line_gives_the_same(size):
    cells = json.loads(LESSON.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    (block,) = re.findall(r"```python\n(from einops import .*?)```", text, re.DOTALL)
    batch, channels, rows, columns, p = size
    names = {"x": torch.randn(batch, channels, rows * p, columns * p), "P": p}
    exec(block, names)
    assert torch.equal(names["patches"], patchify(names["x"], p))


@pytest.mark.parametrize(
    "shape, p",
    [
        ((2, 3, 8, 8), 8),  # one patch per image
        ((2, 1, 8, 4), 4),  # one column of patches, one channel
        ((2, 3, 4, 4), 1),  # one pixel per patch
        ((2, 3, 8, 8), 4),
    ],
)
def test_both_ways_give_a_copy(shape, p):
    images = torch.randn(shape)
    kept = images.clone()
    patches = patchify(images, p)
    back = unpatchify(patches, p, shape[2:])
    back.zero_()
    assert torch.equal(patches, patchify(images, p)), "the image shares memory"
    patches.zero_()
    assert torch.equal(images, kept), "the patches share memory"


@pytest.mark.parametrize("dark", [False, True])
def test_the_drawing_shows_the_axes_and_the_index_of_each_step(dark):
    images, split, moved, patches = patch_axes.measure()
    expected = patchify(images.tensor, patch_axes.SIZE)
    assert torch.equal(patches.tensor, expected)
    for step, axes in zip(
        (images, split, moved, patches), patch_axes.AXES, strict=True
    ):
        assert step.tensor[step.index] == patch_axes.FOLLOWED
        assert len(axes) == step.tensor.ndim == len(step.index)
    canvas = patch_axes.draw_patch_axes(dark)
    words = [text.get_text() for text in canvas.axes.texts]
    followed = [index for index, word in enumerate(words) if "index of pixel" in word]
    for start, step in zip(followed, (images, split, moved, patches), strict=True):
        shown = words[start + 1 : start + 1 + 3 * step.tensor.ndim]
        assert tuple(map(int, shown[1::3])) == tuple(step.tensor.shape)
        assert tuple(map(int, shown[2::3])) == step.index


def test_gradient_and_caller_untouched():
    x = torch.randn(2, 3, 8, 8, requires_grad=True)
    before = x.detach().clone()
    weight = torch.randn(2, 4, 48)
    (patchify(x, 4) * weight).sum().backward()
    assert torch.equal(x.grad, unpatchify(weight, 4, 8))
    patches = patchify(before, 4)
    patches.zero_()
    assert torch.equal(before, x.detach()), "patches share memory with the images"


def test_whole_numbers_can_be_cut_too():
    x = torch.arange(16, dtype=torch.uint8).reshape(1, 1, 4, 4)
    assert patchify(x, 2)[0, 1].tolist() == [2, 3, 6, 7]


@pytest.mark.parametrize(
    "size, expected",
    [
        (224, (224, 224)),
        ((96, 160), (96, 160)),
        ([96, 160], (96, 160)),
        (torch.zeros(1, 3, 96, 160).shape[-2:], (96, 160)),
        (-16, (-16, -16)),  # grid_size refuses it, and says what is wrong
    ],
)
def test_a_size_is_a_number_or_a_pair(size, expected):
    height, width = pair = image_size(size)
    assert pair == expected and type(pair) is tuple
    if height < 1:
        with pytest.raises(ValueError, match="at least 1, got -16, -16 and 4"):
            unpatchify(torch.zeros(1, 16, 16), 4, size)


@pytest.mark.parametrize(
    "size",
    [(), (8,), (8, 8, 3), 8.0, (8, 8.0), "8", "88", ("8", "8"), True, (8, True), None],
)
def test_other_sizes_are_refused_with_their_value(size):
    message = f"img_size must be an int or (height, width), got {size!r}"
    for refuse in (image_size, lambda size: unpatchify(torch.zeros(1, 4, 4), 2, size)):
        with pytest.raises(ValueError, match=re.escape(message)):
            refuse(size)


@pytest.mark.parametrize(
    "height, width, p, message",
    [
        (224, 200, 16, "width 200 is not divisible by patch_size 16"),
        (200, 224, 16, "height 200 is not divisible"),
        (8, 8, 0, "at least 1, got 8, 8 and 0"),
        (8, 8, -2, "got 8, 8 and -2"),
        (0, 8, 2, "got 0, 8 and 2"),
        (-16, 16, 16, "got -16, 16 and 16"),
        (4, 4, 8, "not divisible"),
    ],
)
def test_grid_that_does_not_fit(height, width, p, message):
    with pytest.raises(ValueError, match=message):
        grid_size(height, width, p)


@pytest.mark.parametrize("shape", [(4, 4), (3, 4, 4), (1, 1, 3, 4, 4)])
def test_rank(shape):
    with pytest.raises(ValueError, match="batch, channels, height, width"):
        patchify(torch.zeros(shape), 2)


@pytest.mark.parametrize(
    "shape, p, size",
    [((1, 5, 4), 2, 4), ((1, 4, 5), 2, 4), ((4, 4), 2, 4), ((1, 4, 4), 2, (4, 8))],
)
def test_patches_that_do_not_fit(shape, p, size):
    with pytest.raises(ValueError, match="has patches of shape"):
        unpatchify(torch.zeros(shape), p, size)


def test_spread_places_each_patch():
    patches = torch.zeros(6, 3, 4, 4)
    patches[4] = 0.5  # second row, second column of three
    image = spread_patches(patches, columns=3, gap=0.25)
    assert image.shape == (3, 9, 14)
    assert (image[:, 5:9, 5:9] == 0.5).all() and (image[:, 5:9, 0:4] == 0).all()
    assert (image[:, 4] == 1).all(), "the gap is white"
    for bad in (patches[0], patches[0, 0]):
        with pytest.raises(ValueError, match="num_patches, channels, P, P"):
            spread_patches(bad, columns=3)
    with pytest.raises(ValueError, match="columns of at least 1"):
        spread_patches(patches, columns=0)
