"""Lesson 08: the MLP block against plain tensors and against Python's own floats."""

import math

import pytest
import torch
from comparing import (
    assert_quarter_dropped,
    assert_same,
    fill,
    layer_norm,
    run,
    seeds,
    value_and_gradients,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from going_modular.mlp import MLPBlock

# batch, tokens, embedding_dim, mlp_size
# Below four values, LayerNorm meets tokens that are nearly constant: rounding counts.
sizes = st.tuples(*[st.integers(low, 9) for low in (1, 1, 4, 1)])


def block(dim, mlp_size, dropout=0.1, dtype=torch.float64):
    return fill(MLPBlock(dim, mlp_size, dropout)).to(dtype).eval()


def written_out(mlp, x, eps=1e-6):
    """W_2 GELU(W_1 LN(x) + b_1) + b_2, with GELU(h) = h Phi(h) by the erf."""
    norm, first, second = mlp.layer_norm, mlp.mlp[0], mlp.mlp[3]
    normed = layer_norm(x, norm.weight, norm.bias, eps)
    h = torch.einsum("...d,md->...m", normed, first.weight) + first.bias
    h = h * 0.5 * (1 + torch.erf(h / math.sqrt(2)))
    return torch.einsum("...m,dm->...d", h, second.weight) + second.bias


def in_plain_floats(mlp, token):
    """The same for one token, with math.erf."""
    state = {name: value.tolist() for name, value in mlp.state_dict().items()}
    mean = sum(token) / len(token)
    variance = sum((value - mean) ** 2 for value in token) / len(token)
    normed = [
        (value - mean) / math.sqrt(variance + 1e-6) * gamma + beta
        for value, gamma, beta in zip(
            token, state["layer_norm.weight"], state["layer_norm.bias"], strict=True
        )
    ]

    def dense(values, layer):
        rows = zip(state[f"{layer}.weight"], state[f"{layer}.bias"], strict=True)
        return [
            sum(w * x for w, x in zip(row, values, strict=True)) + bias
            for row, bias in rows
        ]

    hidden = dense(normed, "mlp.0")
    return dense([h * (1 + math.erf(h / math.sqrt(2))) / 2 for h in hidden], "mlp.3")


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.float32, 1e-5), (torch.float64, 1e-12)]
)
@given(sizes, seeds)
@settings(deadline=None)
def test_equals_plain_tensors(dtype, tolerance, size, seed):
    torch.manual_seed(seed)
    batch, n, dim, mlp_size = size
    ours = block(dim, mlp_size, dtype=dtype)
    x = torch.randn(batch, n, dim, dtype=dtype, requires_grad=True)
    expected = value_and_gradients(
        written_out(ours, x), x=x, **dict(ours.named_parameters())
    )
    assert_same(run(ours, x), expected, tolerance)


@given(sizes, seeds)
@settings(deadline=None, max_examples=50)
def test_equals_a_loop_over_plain_floats(size, seed):
    torch.manual_seed(seed)
    batch, n, dim, mlp_size = size
    ours = block(dim, mlp_size)
    x = torch.randn(batch, n, dim, dtype=torch.float64)
    expected = [
        [in_plain_floats(ours, token) for token in image.tolist()] for image in x
    ]
    expected = torch.tensor(expected, dtype=torch.float64)
    torch.testing.assert_close(ours(x).detach(), expected, atol=1e-12, rtol=1e-12)


@given(sizes, seeds)
@settings(deadline=None, max_examples=50)
def test_token_by_token(size, seed):
    torch.manual_seed(seed)
    batch, n, dim, mlp_size = size
    ours, x = block(dim, mlp_size), torch.randn(batch, n, dim).double()
    out, order = ours(x), torch.randperm(n)
    torch.testing.assert_close(ours(x[:, order]), out[:, order])
    for i in range(n):
        torch.testing.assert_close(ours(x[:, i : i + 1]), out[:, i : i + 1])


@given(st.lists(st.integers(1, 3), max_size=4), seeds)
@settings(deadline=None, max_examples=30)
def test_any_leading_axes(lead, seed):
    torch.manual_seed(seed)
    ours, x = block(4, 8), torch.randn(*lead, 4).double()
    expected = torch.stack([ours(token) for token in x.reshape(-1, 4)])
    torch.testing.assert_close(ours(x), expected.reshape(x.shape))


def test_the_erf_and_not_the_tanh():
    """torchvision and timm use the erf, the official JAX code the tanh."""
    torch.manual_seed(0)
    ours, x = block(8, 32), torch.randn(2, 5, 8).double()
    exact = ours(x)
    ours.mlp[1].approximate = "tanh"
    difference = (ours(x) - exact).abs().max()
    assert 1e-5 < difference < 1e-2


def test_epsilon_is_that_of_the_official_code():
    torch.manual_seed(0)
    ours, x = block(8, 32), 1e-3 * torch.randn(2, 5, 8).double()
    torch.testing.assert_close(ours(x), written_out(ours, x, 1e-6))
    assert (ours(x) - written_out(ours, x, 1e-5)).abs().max() > 0.1


def test_no_residual():
    ours = block(4, 8)
    for p in ours.mlp[3].parameters():
        torch.nn.init.zeros_(p)
    assert not ours(torch.randn(2, 3, 4).double()).any()


def test_dropout_after_the_second_layer():
    torch.manual_seed(0)
    ours, x = block(8, 16, 0.25), torch.randn(1, 5, 8).double()
    ours.mlp[2].p = 0.0
    with torch.no_grad():
        exact = ours(x)
        assert torch.equal(ours(x), exact)
        dropped = ours.train()(x.expand(1000, -1, -1))
    gone = dropped == 0
    assert_quarter_dropped(dropped, exact, gone, 0.01)


def test_dropout_after_the_first_layer():
    torch.manual_seed(0)
    ours, x = block(8, 8, 0.25), torch.randn(1, 5, 8).double()
    ours.mlp[4].p = 0.0
    with torch.no_grad():
        # So that the output is the hidden layer, after its dropout.
        ours.mlp[3].weight.copy_(torch.eye(8))
        ours.mlp[3].bias.zero_()
        exact = ours(x)
        dropped = ours.train()(x.expand(1000, -1, -1))
    gone = dropped == 0
    assert_quarter_dropped(dropped, exact, gone, 0.01)


def test_dropout_keeps_the_expectation():
    torch.manual_seed(0)
    ours, x = block(8, 16, 0.5), torch.randn(1, 5, 8).double()
    with torch.no_grad():
        exact = ours(x)
        dropped = ours.train()(x.expand(20_000, -1, -1))
    assert (dropped != exact).any(-1).double().mean() > 0.9
    torch.testing.assert_close(dropped.mean(0), exact[0], atol=0.05, rtol=0)
    ours.mlp[2].p = ours.mlp[4].p = 0.0
    torch.testing.assert_close(ours(x), exact)


def test_initial_values():
    torch.manual_seed(0)
    ours = MLPBlock(96, 384)
    for layer in (ours.mlp[0], ours.mlp[3]):
        bound = (6 / (96 + 384)) ** 0.5
        assert 0.99 * bound < layer.weight.abs().max() <= bound
        assert 0 < layer.bias.abs().max() < 1e-5
    assert (ours.layer_norm.weight == 1).all() and not ours.layer_norm.bias.any()


def test_names_and_defaults():
    ours = MLPBlock()
    assert {name: tuple(v.shape) for name, v in ours.state_dict().items()} == {
        "layer_norm.weight": (768,),
        "layer_norm.bias": (768,),
        "mlp.0.weight": (3072, 768),
        "mlp.0.bias": (3072,),
        "mlp.3.weight": (768, 3072),
        "mlp.3.bias": (768,),
    }
    assert (ours.mlp[2].p, ours.mlp[4].p) == (0.1, 0.1)


def test_the_callers_tokens_stay():
    x = torch.randn(2, 3, 4)
    before = x.clone()
    fill(MLPBlock(4, 8))(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((0, 8), "at least 1, got 0 and 8"),
        ((8, 0), "at least 1, got 8 and 0"),
        ((-8, 8), "got -8 and 8"),
        ((8, 8, 1.5), "got 1.5"),
        ((8, 8, 1.0), r"dropout must be in \[0, 1\), got 1.0"),
        ((8, 8, -0.1), "got -0.1"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        MLPBlock(*arguments)


def test_tokens_of_another_size_raise():
    with pytest.raises(ValueError, match=r"8 dimensions each, got \(2, 3, 9\)"):
        MLPBlock(8, 8)(torch.zeros(2, 3, 9))
