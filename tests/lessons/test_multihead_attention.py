"""Lesson 07: LayerNorm by hand; heads against a loop and nn.MultiheadAttention."""

import contextlib
import json
import re
from pathlib import Path

import pytest
import torch
from comparing import (
    TOLERANCE,
    assert_quarter_dropped,
    assert_same,
    copy_weights,
    fill,
    layer_norm,
    run,
    seeds,
    value_and_gradients,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from going_modular.multihead_attention import (
    MultiheadSelfAttention,
    MultiheadSelfAttentionBlock,
    record_attention,
)

LESSON = Path(__file__).resolve().parents[2] / "notebooks/07b_norms_heads_memory.ipynb"
NAMES = [("^qkv.", "in_proj_")]
# batch, tokens, heads, features per head
sizes = st.tuples(*[st.integers(1, 4)] * 4)
# Sizes where two axes swapped by mistake would keep every shape.
same_sizes = [(1, 1, 1, 1), (2, 2, 2, 1), (4, 4, 2, 2), (3, 3, 3, 3), (2, 6, 2, 3)]
paths = pytest.mark.parametrize("recorded", [False, True], ids=["fused", "recorded"])


def layer(heads, head_dim, dtype=torch.float32, attn_dropout=0.0):
    msa = MultiheadSelfAttention(heads * head_dim, heads, attn_dropout)
    return fill(msa).to(dtype).eval()


def path(model, recorded):
    """The fused kernel as it is, or the explicit weights of `record_attention`."""
    return record_attention(model) if recorded else contextlib.nullcontext()


def built_in(msa):
    dim = msa.out_proj.in_features
    theirs = nn.MultiheadAttention(dim, msa.num_heads, batch_first=True)
    return copy_weights(msa, theirs, NAMES)


class BuiltIn(nn.Module):
    """nn.MultiheadAttention, called with its own kind of mask: True = hidden."""

    def __init__(self, msa):
        super().__init__()
        self.theirs = built_in(msa)

    def forward(self, x, mask=None):
        if mask is not None:
            batch, n, _ = x.shape
            mask = ~mask.expand(batch, self.theirs.num_heads, n, n).flatten(0, 1)
        return self.theirs(x, x, x, attn_mask=mask, need_weights=False)[0]


def one_head_after_the_other(msa, z, mask=None):
    """Equations 5 to 8 of Appendix A: U_qkv and A for each head, then U_msa."""
    k, dim = msa.num_heads, msa.out_proj.in_features
    batch, n, _ = z.shape
    head_dim = dim // k
    if mask is None:
        mask = torch.ones(n, n, dtype=torch.bool)
    mask = mask.expand(batch, k, n, n)
    heads, maps = [], []
    for h in range(k):
        q, key, v = (
            z @ msa.qkv.weight[start : start + head_dim].T
            + msa.qkv.bias[start : start + head_dim]
            for start in (h * head_dim, dim + h * head_dim, 2 * dim + h * head_dim)
        )  # Equation 5
        scores = torch.einsum("bid,bjd->bij", q, key) / head_dim**0.5
        exps = scores.exp() * mask[:, h]
        A = exps / exps.sum(-1, keepdim=True)  # Equation 6
        heads.append(A @ v)  # Equation 7
        maps.append(A)
    joined = torch.cat(heads, dim=-1)
    return joined @ msa.out_proj.weight.T + msa.out_proj.bias, torch.stack(maps, 1)


def some_mask(shape):
    """A random mask in which every token may attend to itself."""
    return (torch.rand(shape) > 0.5) | torch.eye(shape[-1], dtype=torch.bool)


def mask_shapes(batch, heads, n):
    return [(n, n), (batch, 1, n, n), (1, heads, n, n), (batch, heads, n, n)]


@given(st.sampled_from((1, 4, 5, 16)), st.sampled_from((1.0, 1e-3)), seeds)
@settings(deadline=None, max_examples=50)
def test_layer_norm_by_hand(dim, scale, seed):
    torch.manual_seed(seed)
    theirs = fill(nn.LayerNorm(dim, eps=1e-6)).double()
    x = (scale * torch.randn(2, 3, dim, dtype=torch.float64)).requires_grad_()
    gain, bias = theirs.weight, theirs.bias
    assert_same(
        value_and_gradients(layer_norm(x, gain, bias), x=x, weight=gain, bias=bias),
        run(theirs, x),
        1e-11,
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@given(sizes, seeds, st.integers(-1, 3))
@settings(deadline=None)
def test_equals_the_built_in_layer(dtype, size, seed, which):
    torch.manual_seed(seed)
    batch, n, heads, head_dim = size
    ours = layer(heads, head_dim, dtype)
    x = torch.randn(batch, n, heads * head_dim, dtype=dtype)
    mask = None if which < 0 else some_mask(mask_shapes(batch, heads, n)[which])
    names = [("^(?!output|x$)", "theirs."), ("qkv.", "in_proj_")]
    theirs = run(BuiltIn(ours), x, mask)
    for recorded in (False, True):
        with path(ours, recorded):
            assert_same(run(ours, x, mask), theirs, TOLERANCE[dtype], names)


@given(sizes)
@settings(deadline=None)
def test_the_lessons_einops_lines_cut_and_join_as_we_do(size):
    cells = json.loads(LESSON.read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    (block,) = re.findall(r"```python\n(from einops import .*?)```", text, re.DOTALL)
    batch, n, heads, head_dim = size
    names = {"projected": torch.randn(batch, n, heads * head_dim), "k": heads}
    exec(block, names)
    cut = names["projected"].reshape(batch, n, heads, head_dim).transpose(1, 2)
    assert torch.equal(names["query"], cut)
    assert torch.equal(names["joined"], names["projected"])


@given(sizes, seeds, st.booleans())
@settings(deadline=None)
@example(same_sizes[0], 0, True)
@example(same_sizes[1], 0, True)
@example(same_sizes[2], 0, True)
@example(same_sizes[3], 0, True)
@example(same_sizes[4], 0, True)
def test_equals_one_head_after_the_other(size, seed, masked):
    torch.manual_seed(seed)
    batch, n, heads, head_dim = size
    msa = layer(heads, head_dim, torch.float64)
    x = torch.randn(batch, n, heads * head_dim, dtype=torch.float64)
    mask = some_mask((batch, heads, n, n)) if masked else None
    x.requires_grad_()
    output, maps = one_head_after_the_other(msa, x, mask)
    expected = value_and_gradients(output, x=x, **dict(msa.named_parameters()))
    assert_same(run(msa, x, mask), expected, 1e-12)
    with record_attention(msa) as recorded:
        assert_same(run(msa, x, mask), expected, 1e-12)
    torch.testing.assert_close(recorded[0], maps.detach(), atol=1e-12, rtol=1e-12)


def test_the_scale_is_that_of_a_head():
    """With D for the head's dimension, the averages would be flatter."""
    torch.manual_seed(0)
    msa = layer(4, 4, torch.float64)
    x = 3 * torch.randn(1, 5, 16, dtype=torch.float64)
    with record_attention(msa) as maps:
        msa(x)
    query, key, _ = msa.qkv(x).reshape(5, 3, 4, 4).permute(1, 2, 0, 3)
    for scale, equal in ((4, True), (16, False)):
        weights = (query @ key.transpose(1, 2) / scale**0.5).softmax(-1)
        assert torch.allclose(maps[0][0], weights, atol=1e-12) == equal


@pytest.mark.parametrize("which", range(4))
@paths
def test_a_hidden_token_changes_nothing_for_the_others(which, recorded):
    torch.manual_seed(0)
    msa, x = layer(2, 3), torch.randn(3, 5, 6)
    mask = torch.ones(mask_shapes(3, 2, 5)[which], dtype=torch.bool)
    mask[..., 2] = False  # nobody attends to token 2
    changed = x.clone()
    changed[:, 2] += 1
    others = [0, 1, 3, 4]
    with path(msa, recorded), torch.no_grad():
        before, after = msa(x, mask), msa(changed, mask)
        torch.testing.assert_close(after[:, others], before[:, others])
        assert not torch.allclose(after[:, 2], before[:, 2]), "its own query changed"
        assert not torch.allclose(msa(changed)[:, others], msa(x)[:, others])


@paths
def test_padding_is_a_mask_of_one_row_an_image(recorded):
    torch.manual_seed(0)
    msa, x = layer(2, 3), torch.randn(2, 5, 6)
    lengths = torch.tensor([2, 4])
    mask = (torch.arange(5) < lengths[:, None])[:, None, None]  # (2, 1, 1, 5)
    with path(msa, recorded):
        out = msa(x, mask)
        for i, length in enumerate(lengths):
            alone = msa(x[i : i + 1, :length])
            torch.testing.assert_close(out[i : i + 1, :length], alone)


@pytest.mark.parametrize("dtype", TOLERANCE)
@paths
def test_a_token_that_may_attend_to_nothing_gets_the_bias(dtype, recorded):
    torch.manual_seed(0)
    msa, x = layer(2, 3, dtype), torch.randn(2, 5, 6, dtype=dtype)
    mask = torch.ones(2, 1, 5, 5, dtype=torch.bool)
    mask[0, :, 1] = mask[1] = False
    with path(msa, recorded) as maps, torch.autograd.set_detect_anomaly(True):
        found = run(msa, x, mask)
    empty = torch.zeros(2, 5, dtype=torch.bool)
    empty[0, 1] = empty[1] = True
    bias = msa.out_proj.bias.detach()
    torch.testing.assert_close(found["output"][empty], bias.expand(6, 6))
    assert (found["output"][~empty] - bias).abs().amax(-1).min() > 0.01
    for name, tensor in found.items():
        assert tensor.isfinite().all(), name
    assert not found["x"][1].any() and found["x"][0].any()
    if recorded:
        assert not maps[0].transpose(1, 2)[empty].any()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("masked", [False, True])
def test_recording_changes_no_output(training, masked):
    torch.manual_seed(0)
    msa, x = layer(3, 4).train(training), torch.randn(2, 7, 12)
    mask = some_mask((2, 3, 7, 7)) if masked else None
    fused = run(msa, x, mask)
    with record_attention(msa):
        assert_same(run(msa, x, mask), fused, 1e-6)


@paths
def test_attention_dropout_hits_its_share_of_the_weights(recorded):
    torch.manual_seed(0)
    msa = MultiheadSelfAttention(6, 1, attn_dropout=0.25)
    with torch.no_grad():
        msa.qkv.weight[12:] = torch.eye(6)  # values: the tokens themselves
        msa.out_proj.weight.copy_(torch.eye(6))
        x = torch.eye(6).expand(2000, 6, 6)  # so that the output is the weights
        exact = msa.eval()(x[:1])
        torch.testing.assert_close(exact.sum(-1), torch.ones(1, 6))
        with path(msa.train(), recorded) as maps:
            dropped = msa(x)
    gone = dropped == 0
    assert_quarter_dropped(dropped, exact, gone, 0.01)
    torch.testing.assert_close(dropped.mean(0), exact[0], atol=0.02, rtol=0)
    if recorded:  # the weights before dropout
        torch.testing.assert_close(maps[0][:, 0], exact.expand_as(dropped))


@paths
def test_attention_dropout_acts_in_training_only_and_keeps_the_expectation(recorded):
    torch.manual_seed(0)
    msa, x = layer(2, 4, attn_dropout=0.5), torch.randn(1, 5, 8)
    with torch.no_grad(), path(msa, recorded):
        exact = msa(x)
        assert torch.equal(msa(x), exact)
        dropped = msa.train()(x.expand(10_000, -1, -1))
    changed = ((dropped - exact).abs() > 1e-4).any(-1)
    assert changed.float().mean() > 0.9
    torch.testing.assert_close(dropped.mean(0), exact[0], atol=0.05, rtol=0)


def three_layers(dim=12, heads=3, dtype=torch.float32):
    torch.manual_seed(0)
    blocks = (MultiheadSelfAttentionBlock(dim, heads) for _ in range(3))
    return fill(nn.Sequential(*blocks)).to(dtype).eval()


def test_the_maps_come_in_the_order_of_the_layers():
    model, x = three_layers(dtype=torch.float64), torch.randn(2, 5, 12).double()
    with record_attention(model) as maps:
        out = model(x)
    assert len(maps) == 3
    for block, ours in zip(model, maps, strict=True):
        normed = block.layer_norm(x)
        theirs = built_in(block.attention)
        x, weights = theirs(normed, normed, normed, average_attn_weights=False)
        assert ours.shape == (2, 3, 5, 5)
        torch.testing.assert_close(ours, weights.detach(), atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(ours.sum(-1), torch.ones(2, 3, 5).double())
    torch.testing.assert_close(out, x, atol=1e-12, rtol=1e-12)


def test_maps_hold_no_gradient_and_the_output_does():
    model, x = three_layers(), torch.randn(2, 5, 12)
    with record_attention(model) as maps:
        found = run(model, x)
    assert not any(weights.requires_grad for weights in maps)
    assert all(found[name].any() for name in found)


def test_recording_ends_with_its_block_even_after_an_error():
    model, x = three_layers(), torch.randn(2, 5, 12)
    with pytest.raises(KeyError), record_attention(model) as maps:
        model(x)
        raise KeyError
    model(x)
    assert len(maps) == 3
    assert all(block.attention.recorded is None for block in model)


def test_recording_inside_a_recording():
    model, x = three_layers(), torch.randn(2, 5, 12)
    with record_attention(model) as outer:
        model(x)
        with record_attention(model[1]) as inner:
            model(x)
        model(x)
    assert (len(outer), len(inner)) == (3 + 2 + 3, 1)
    torch.testing.assert_close(inner[0], outer[1])


def test_a_model_without_attention_has_nothing_to_record():
    with pytest.raises(ValueError, match="Linear holds no MultiheadSelfAttention"):
        with record_attention(nn.Linear(2, 2)):
            pass


# Below four features, LayerNorm meets tokens that are nearly constant: rounding counts.
@given(
    st.tuples(*[st.integers(low, 4) for low in (1, 1, 2, 2)]),
    seeds,
    st.sampled_from((1.0, 1e-3)),
    st.booleans(),
)
@settings(deadline=None)
def test_the_block_is_layer_norm_then_attention(size, seed, scale, masked):
    torch.manual_seed(seed)
    batch, n, heads, head_dim = size
    dim = heads * head_dim
    block = fill(MultiheadSelfAttentionBlock(dim, heads)).double().eval()
    x = scale * torch.randn(batch, n, dim, dtype=torch.float64)
    x.requires_grad_()
    mask = some_mask((n, n)) if masked else None
    norm = block.layer_norm
    normed = layer_norm(x, norm.weight, norm.bias, eps=1e-6)
    output, _ = one_head_after_the_other(block.attention, normed, mask)
    expected = value_and_gradients(output, x=x, **dict(block.named_parameters()))
    # Small tokens make the gradient of x large: 1 / sqrt(eps).
    assert_same(run(block, x, mask), expected, 1e-12 if scale == 1 else 1e-11)


def test_the_block_adds_no_residual():
    block = fill(MultiheadSelfAttentionBlock(12, 3)).eval()
    nn.init.zeros_(block.attention.out_proj.weight)
    nn.init.zeros_(block.attention.out_proj.bias)
    assert not block(torch.randn(2, 5, 12)).any()


def test_the_block_drops_what_the_projection_gives():
    torch.manual_seed(0)
    block, x = MultiheadSelfAttentionBlock(12, 3, dropout=0.25), torch.randn(1, 5, 12)
    with torch.no_grad():
        exact = fill(block).eval()(x)
        assert torch.equal(block(x), exact)
        dropped = block.train()(x.expand(1000, -1, -1))
    gone = dropped == 0
    assert_quarter_dropped(dropped, exact, gone, 0.01)


def test_the_block_passes_attention_dropout_on():
    torch.manual_seed(0)
    block, x = MultiheadSelfAttentionBlock(8, 2, attn_dropout=0.5), torch.randn(1, 5, 8)
    with torch.no_grad():
        exact = fill(block).eval()(x)
        dropped = block.train()(x.expand(10_000, -1, -1))
    assert ((dropped - exact).abs() > 1e-4).any(-1).float().mean() > 0.9
    torch.testing.assert_close(dropped.mean(0), exact[0], atol=0.05, rtol=0)


def test_initial_values():
    torch.manual_seed(0)
    msa = MultiheadSelfAttention(96, 3)
    bound = (6 / (96 + 96)) ** 0.5  # Xavier, each of the matrices as (D, D)
    for weight in (*msa.qkv.weight.chunk(3), msa.out_proj.weight):
        assert weight.shape == (96, 96)
        assert 0.99 * bound < weight.abs().max() <= bound
        assert abs(weight.std().item() / (bound / 3**0.5) - 1) < 0.02
    assert not msa.qkv.bias.any() and not msa.out_proj.bias.any()


def test_names_and_defaults():
    block = MultiheadSelfAttentionBlock()
    assert {name: tuple(v.shape) for name, v in block.state_dict().items()} == {
        "layer_norm.weight": (768,),
        "layer_norm.bias": (768,),
        "attention.qkv.weight": (3 * 768, 768),
        "attention.qkv.bias": (3 * 768,),
        "attention.out_proj.weight": (768, 768),
        "attention.out_proj.bias": (768,),
    }
    msa = block.attention
    assert (msa.num_heads, msa.attn_dropout, block.dropout.p) == (12, 0.0, 0.0)
    assert block.layer_norm.eps == 1e-6


def test_the_callers_tensors_stay():
    block, x = fill(MultiheadSelfAttentionBlock(6, 2, 0.5, 0.5)), torch.randn(2, 5, 6)
    mask = some_mask((5, 5))
    before = x.clone(), mask.clone()
    block(x, mask)
    assert torch.equal(x, before[0]) and torch.equal(mask, before[1])


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.half, 1e-2), (torch.bfloat16, 0.1)]
)
@paths
def test_half_precision_stays_close(dtype, tolerance, recorded):
    torch.manual_seed(0)
    block = fill(MultiheadSelfAttentionBlock(24, 3)).to(dtype).eval()
    x, mask = torch.randn(2, 9, 24).to(dtype), some_mask((9, 9))
    mask[4] = False
    with path(block, recorded), torch.no_grad():
        half = block(x, mask)
        full = block.float()(x.float(), mask)
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), full, atol=tolerance, rtol=0)


def attend(shape=(2, 5, 8), mask=None):
    MultiheadSelfAttention(8, 2)(torch.zeros(shape), mask)


@pytest.mark.parametrize(
    "shape", [(), (5,), (1, 5, 5), (2, 5, 5), (3, 5, 5), (1, 1, 1, 5, 5)]
)
def test_a_mask_has_two_or_four_axes(shape):
    """With three, the first could mean images or heads."""
    with pytest.raises(ValueError, match="2 or 4 axes"):
        attend(mask=torch.ones(shape, dtype=torch.bool))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: MultiheadSelfAttention(8, 3), "got 3 heads for embedding_dim 8"),
        (lambda: MultiheadSelfAttention(8, 0), "got 0 heads"),
        (lambda: MultiheadSelfAttention(8, -2), "got -2 heads"),
        (lambda: MultiheadSelfAttention(0, 2), "2 heads for embedding_dim 0"),
        (lambda: MultiheadSelfAttention(2, 4), "4 heads for embedding_dim 2"),
        (lambda: MultiheadSelfAttention(8, 2, 1.0), r"\[0, 1\), got 1.0"),
        (lambda: MultiheadSelfAttention(8, 2, -0.5), "got -0.5"),
        (lambda: MultiheadSelfAttentionBlock(8, 3), "got 3 heads"),
        (lambda: MultiheadSelfAttentionBlock(8, 2, 1.5), "attn_dropout .* got 1.5"),
        (lambda: MultiheadSelfAttentionBlock(8, 2, dropout=1.5), "^dropout .* got 1.5"),
        (lambda: MultiheadSelfAttentionBlock(8, 2, dropout=1.0), "^dropout .* got 1.0"),
        (lambda: attend((2, 5, 7)), r"num_tokens, 8\), got \(2, 5, 7\)"),
        (lambda: attend((5, 8)), r"got \(5, 8\)"),
        (
            lambda: MultiheadSelfAttentionBlock(8, 2)(torch.zeros(2, 5, 7)),
            r"num_tokens, 8\), got \(2, 5, 7\)",
        ),
        (lambda: attend((1, 2, 5, 8)), r"got \(1, 2, 5, 8\)"),
        (lambda: attend(mask=torch.ones(5, 5)), "boolean.*got torch.float32"),
        (lambda: attend(mask=[[True] * 5] * 5), "boolean.*got list"),
        (lambda: attend(mask=torch.ones(4, 5).bool()), r"5, 5\), got \(4, 5\)"),
        (
            lambda: attend(mask=torch.ones(3, 1, 5, 5).bool()),
            r"to \(2, 2, 5, 5\), got \(3, 1, 5, 5\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
