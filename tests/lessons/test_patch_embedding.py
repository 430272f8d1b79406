"""Lesson 03: the patch embedding against unfold and the same matrix, and timm."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import PatchEmbed
from torch import nn

from going_modular.checkpoint import load_checkpoint
from going_modular.patch_embedding import PatchEmbedding
from vit_course.figures import sliding_kernel

sizes = st.tuples(*[st.integers(1, 4)] * 4, st.integers(1, 6), st.integers(1, 9))


@given(sizes)
@settings(deadline=None)
def test_equals_unfold_and_matrix(size):
    batch, channels, rows, columns, p, dim = size
    layer = PatchEmbedding(channels, p, dim).double()
    nn.init.normal_(layer.patcher.bias)  # at zero, forgetting it would pass
    x = torch.randn(batch, channels, rows * p, columns * p, dtype=torch.float64)
    x.requires_grad_()
    w = layer.patcher.weight.detach().flatten(1).T.clone().requires_grad_()
    b = layer.patcher.bias.detach().clone().requires_grad_()
    theirs_x = x.detach().clone().requires_grad_()
    ours = layer(x)
    theirs = F.unfold(theirs_x, p, stride=p).transpose(1, 2) @ w + b
    assert ours.shape == (batch, rows * columns, dim)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=1e-12)
    downstream = torch.randn_like(ours)
    ours.backward(downstream)
    theirs.backward(downstream)
    grad = layer.patcher.weight.grad.flatten(1).T
    torch.testing.assert_close(grad, w.grad, atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(layer.patcher.bias.grad, b.grad, atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(x.grad, theirs_x.grad, atol=1e-11, rtol=1e-11)


def test_state_dict_and_size():
    layer = PatchEmbedding()
    assert set(layer.state_dict()) == {"patcher.weight", "patcher.bias"}
    assert sum(p.numel() for p in layer.parameters()) == 590_592


@pytest.mark.parametrize("norm_layer", [None, nn.LayerNorm])
def test_equals_timm_with_and_without_norm(norm_layer):
    torch.manual_seed(0)
    ours = PatchEmbedding(3, 4, 10, norm_layer=norm_layer).double()
    theirs = PatchEmbed((8, 12), 4, 3, 10, norm_layer=norm_layer).double()
    for parameter in ours.parameters():  # at one and zero, forgetting it would pass
        nn.init.normal_(parameter)
    renamed = {k.replace("patcher", "proj"): v for k, v in ours.state_dict().items()}
    theirs.load_state_dict(renamed)  # strict: the norm has timm's names
    x = torch.randn(2, 3, 8, 12, dtype=torch.float64, requires_grad=True)
    theirs_x = x.detach().clone().requires_grad_()
    out, expected = ours(x), theirs(theirs_x)
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=1e-12)
    downstream = torch.randn_like(out)
    out.backward(downstream)
    expected.backward(downstream)
    torch.testing.assert_close(x.grad, theirs_x.grad, atol=1e-12, rtol=1e-12)
    gradients = dict(theirs.named_parameters())
    assert len(gradients) == (2 if norm_layer is None else 4)
    for name, parameter in ours.named_parameters():
        grad = gradients[name.replace("patcher", "proj")].grad
        torch.testing.assert_close(parameter.grad, grad, atol=1e-11, rtol=1e-11)


def test_without_norm_a_stored_checkpoint_still_loads():
    stored = load_checkpoint()[0].embedding.patch_embedding.state_dict()
    assert set(stored) == {"patcher.weight", "patcher.bias"}
    PatchEmbedding(3, 8, 192).load_state_dict(stored)


def test_the_drawing_shows_what_the_class_computes():
    found = sliding_kernel.measure()
    layer = PatchEmbedding(in_channels=1, patch_size=2, embedding_dim=3)
    with torch.no_grad():
        layer.patcher.weight.copy_(found.kernels[:, None])
        assert torch.equal(layer(found.image[None, None])[0], found.tokens)
    canvas = sliding_kernel.draw_sliding_kernel()
    words = [text.get_text() for text in canvas.axes.texts]
    tokens = [f"{value:.0f}" for value in found.tokens.flatten()]
    start = words.index("token 1")
    drawn = [word for word in words[start - 3 :] if word.isdigit()]
    assert drawn == tokens
    assert "1·(−1) + 5·1 + 1·(−1) + 5·1 = 8" in words


def test_two_patch_sizes_live_together():
    small, large = PatchEmbedding(3, 8, 4), PatchEmbedding(3, 16, 4)
    x = torch.rand(1, 3, 32, 32)
    assert small(x).shape == (1, 16, 4) and large(x).shape == (1, 4, 4)


def test_initial_weights_have_variance_one_over_inputs():
    torch.manual_seed(0)
    layer = PatchEmbedding(3, 16, 768)
    assert abs(layer.patcher.weight.std().item() * 768**0.5 - 1) < 0.02
    assert layer.patcher.bias.abs().max() == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integers_raise(dtype):
    with pytest.raises(ValueError, match="floating point, got torch"):
        PatchEmbedding(3, 8, 4)(torch.ones(1, 3, 16, 16, dtype=dtype))


@pytest.mark.parametrize(
    "shape, message",
    [
        ((3, 16, 16), r"got \(3, 16, 16\)"),
        ((1, 1, 16, 16), r"\(batch, 3, height, width\)"),
        ((1, 4, 16, 16), r"got \(1, 4, 16, 16\)"),
        ((1, 3, 16, 20), "width 20 is not divisible by patch_size 8"),
        ((1, 3, 20, 16), "height 20 is not divisible"),
        ((1, 3, 4, 4), "not divisible"),
    ],
)
def test_images_that_do_not_fit(shape, message):
    with pytest.raises(ValueError, match=message):
        PatchEmbedding(3, 8, 4)(torch.rand(shape))


@pytest.mark.parametrize("name", ["in_channels", "patch_size", "embedding_dim"])
@pytest.mark.parametrize("value", [0, -1])
def test_sizes_below_one(name, value):
    with pytest.raises(ValueError, match=f"{name} must be at least 1, got {value}"):
        PatchEmbedding(**{name: value})
