"""Lesson 04: the class token against a loop, and where its gradient comes from."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from going_modular.class_token import ClassToken


@given(st.integers(1, 6), st.integers(1, 9), st.integers(1, 9))
@settings(deadline=None)
def test_equals_a_loop(batch, patches, dim):
    layer = ClassToken(dim)
    nn.init.normal_(layer.weight)  # at zero, a version that forgets it would pass
    x = torch.randn(batch, patches, dim, requires_grad=True)
    before = x.detach().clone()
    out = layer(x)
    expected = torch.full((batch, patches + 1, dim), float("nan"))
    for b in range(batch):
        expected[b, 0] = layer.weight[0, 0]
        expected[b, 1:] = x[b]
    assert torch.equal(out, expected)
    assert torch.equal(x, before)
    downstream = torch.randn_like(out)
    out.backward(downstream)
    assert layer.weight.grad.shape == (1, 1, dim)
    torch.testing.assert_close(layer.weight.grad[0, 0], downstream[:, 0].sum(0))
    assert torch.equal(x.grad, downstream[:, 1:])


def test_one_vector_whatever_the_batch():
    layer = ClassToken(768)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {
        "weight": (1, 1, 768)
    }
    for batch in (1, 32, 7):
        assert layer(torch.zeros(batch, 4, 768)).shape == (batch, 5, 768)


def test_autocast_keeps_the_token_exact():
    layer = ClassToken(4)
    nn.init.normal_(layer.weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = layer(torch.randn(2, 3, 4).bfloat16())
    assert out.dtype == torch.float32
    assert torch.equal(out[1, 0], layer.weight[0, 0])


@pytest.mark.parametrize("shape", [(2, 4), (2, 3, 5), (1, 2, 3, 4)])
def test_another_shape_is_refused(shape):
    with pytest.raises(ValueError, match=r"\(batch, num_patches, 4\), got"):
        ClassToken(4)(torch.zeros(shape))


@pytest.mark.parametrize("dim", [0, -3])
def test_no_dimension(dim):
    with pytest.raises(ValueError, match=f"at least 1, got {dim}"):
        ClassToken(dim)
