"""Lesson 09: the encoder against torch's own, DropPath against torchvision's."""

import math

import pytest
import torch
from comparing import (
    TOLERANCE,
    assert_quarter_dropped,
    assert_same,
    copy_weights,
    fill,
    run,
    seeds,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torchvision.ops import StochasticDepth

from going_modular.encoder import DropPath, TransformerEncoder, TransformerEncoderBlock

NAMES = [
    ("msa_block.layer_norm", "norm1"),
    (r"msa_block.attention.qkv\.", "self_attn.in_proj_"),
    ("msa_block.attention.out_proj", "self_attn.out_proj"),
    ("mlp_block.layer_norm", "norm2"),
    ("mlp_block.mlp.0", "linear1"),
    ("mlp_block.mlp.3", "linear2"),
]
IN_A_ROW = [*NAMES, (r"^(\d+)\.", r"layers.\1.")]

# Below four numbers, LayerNorm meets tokens that are nearly constant: rounding counts.
heads_and_numbers = [(1, 4), (2, 2), (4, 1), (1, 6), (2, 3), (3, 2), (6, 1), (3, 4)]
# batch, tokens, (heads, numbers a head), mlp_size
sizes = st.tuples(
    st.integers(1, 4),
    st.integers(1, 5),
    st.sampled_from(heads_and_numbers),
    st.integers(1, 9),
)


def blocks(count, heads, head_dim, mlp_size, dtype=torch.float32, **shares):
    shares = {"mlp_dropout": 0.0} | shares
    row = [
        TransformerEncoderBlock(heads * head_dim, heads, mlp_size, **shares)
        for _ in range(count)
    ]
    return fill(TransformerEncoder(*row)).to(dtype).eval()


def built_in(block):
    """torch's layer: pre-norm, erf, our epsilon, no dropout."""
    msa, mlp = block.msa_block.attention, block.mlp_block.mlp
    return nn.TransformerEncoderLayer(
        msa.out_proj.in_features,
        msa.num_heads,
        mlp[0].out_features,
        dropout=0.0,
        activation="gelu",
        layer_norm_eps=1e-6,
        batch_first=True,
        norm_first=True,
    )


def zero(module):
    for p in module.parameters():
        nn.init.zeros_(p)


def hidden(mask, heads, batch):
    """Our mask as torch's layer takes it: True = hidden, one for each head."""
    if mask is None:
        return None
    n = mask.shape[-1]
    return ~mask.expand(batch, heads, n, n).flatten(0, 1)


masks = st.sampled_from(["none", "all heads", "an image", "a head"])


def some_mask(kind, batch, heads, n):
    """A random mask in which every token may attend to itself."""
    shapes = {"all heads": (n, n), "an image": (batch, 1, n, n)}
    shapes["a head"] = (batch, heads, n, n)
    if kind == "none":
        return None
    return (torch.rand(shapes[kind]) > 0.5) | torch.eye(n, dtype=torch.bool)


@pytest.mark.parametrize("dtype", TOLERANCE)
@given(sizes, seeds, masks)
@settings(deadline=None, max_examples=60)
def test_a_block_equals_torchs_layer(dtype, size, seed, kind):
    torch.manual_seed(seed)
    batch, n, (heads, head_dim), mlp_size = size
    [ours] = blocks(1, heads, head_dim, mlp_size, dtype)
    theirs = copy_weights(ours, built_in(ours), NAMES)
    x = torch.randn(batch, n, heads * head_dim, dtype=dtype)
    mask = some_mask(kind, batch, heads, n)
    assert_same(
        run(ours, x, mask),
        run(theirs, x, hidden(mask, heads, batch)),
        TOLERANCE[dtype],
        NAMES,
    )


@pytest.mark.parametrize("dtype", TOLERANCE)
@given(st.integers(1, 4), sizes, seeds, masks)
@settings(deadline=None, max_examples=30)
def test_blocks_in_a_row_equal_torchs_encoder(dtype, count, size, seed, kind):
    torch.manual_seed(seed)
    batch, n, (heads, head_dim), mlp_size = size
    ours = blocks(count, heads, head_dim, mlp_size, dtype)
    theirs = nn.TransformerEncoder(built_in(ours[0]), count, enable_nested_tensor=False)
    copy_weights(ours, theirs, IN_A_ROW)
    x = torch.randn(batch, n, heads * head_dim, dtype=dtype)
    mask = some_mask(kind, batch, heads, n)
    assert_same(
        run(ours, x, mask),
        run(theirs, x, hidden(mask, heads, batch)),
        TOLERANCE[dtype],
        IN_A_ROW,
    )


def test_padding_equals_torchs_key_padding_mask():
    torch.manual_seed(0)
    ours = blocks(2, 2, 4, 16, torch.float64)
    theirs = nn.TransformerEncoder(built_in(ours[0]), 2, enable_nested_tensor=False)
    copy_weights(ours, theirs, IN_A_ROW)
    x = torch.randn(3, 5, 8, dtype=torch.float64, requires_grad=True)
    padding = torch.arange(5) >= torch.tensor([2, 5, 3])[:, None]  # (3, 5)
    expected = theirs(x, src_key_padding_mask=padding)
    out = ours(x, ~padding[:, None, None])
    torch.testing.assert_close(out, expected, atol=1e-12, rtol=1e-12)
    grads = [torch.autograd.grad(o.square().sum(), x)[0] for o in (out, expected)]
    torch.testing.assert_close(*grads, atol=1e-11, rtol=1e-11)


def test_the_equations_with_their_residuals():
    """The sums alone: a branch that gives zero leaves its input as it is."""
    torch.manual_seed(0)
    [block] = blocks(1, 2, 4, 16)
    x = torch.randn(2, 5, 8)
    zero(block.mlp_block.mlp[3])
    torch.testing.assert_close(block(x), x + block.msa_block(x))
    zero(block.msa_block.attention.out_proj)
    assert torch.equal(block(x), x)
    x.requires_grad_()
    block(x).sum().backward()
    assert torch.equal(x.grad, torch.ones_like(x))


def test_the_mask_reaches_every_block():
    torch.manual_seed(0)
    encoder = blocks(3, 2, 4, 16)
    causal = torch.ones(5, 5, dtype=torch.bool).tril()
    x = torch.randn(2, 5, 8)
    changed = x.clone()
    changed[:, 3] = torch.randn(8)  # LayerNorm would not see a constant added
    with torch.no_grad():
        before, after = encoder(x, causal), encoder(changed, causal)
        torch.testing.assert_close(after[:, :3], before[:, :3])
        assert not torch.allclose(after[:, 4], before[:, 4])
        by_hand = x
        for block in encoder:
            by_hand = block(by_hand, causal)
            assert not torch.allclose(encoder(changed)[:, 0], encoder(x)[:, 0])
        torch.testing.assert_close(before, by_hand)


def test_a_slice_is_an_encoder():
    torch.manual_seed(0)
    encoder, x = blocks(3, 2, 4, 16), torch.randn(2, 5, 8)
    mask = some_mask("all heads", 2, 2, 5)
    assert isinstance(encoder[:2], TransformerEncoder) and len(encoder[:2]) == 2
    expected = encoder[1](encoder[0](x, mask), mask)
    torch.testing.assert_close(encoder[:2](x, mask), expected)
    torch.testing.assert_close(encoder[2:](expected, mask), encoder(x, mask))


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5, 0.9])
@pytest.mark.parametrize("shape", [(64, 3, 4), (64, 7), (64,), (64, 2, 3, 4)])
def test_drop_path_equals_torchvision(rate, shape):
    x, theirs = torch.randn(shape), StochasticDepth(rate, "row").train()
    torch.manual_seed(1)
    expected = theirs(x)
    torch.manual_seed(1)
    assert torch.equal(DropPath(rate).train()(x), expected)


def test_drop_path_drops_whole_images_and_keeps_the_expectation():
    torch.manual_seed(0)
    drop_path, x = DropPath(0.25), torch.rand(8000, 3, 4) + 1
    out = drop_path(x)
    gone = (out == 0).flatten(1)
    assert torch.equal(gone.any(1), gone.all(1))
    assert abs(gone[:, 0].float().mean().item() - 0.25) < 0.01
    torch.testing.assert_close(out[~gone[:, 0]], x[~gone[:, 0]] / 0.75)
    assert abs((out.mean() / x.mean()).item() - 1) < 0.02
    assert drop_path.eval()(x) is x
    assert DropPath().train()(x) is x
    assert repr(drop_path) == "DropPath(rate=0.25)"


@pytest.mark.parametrize("branch", ["msa", "mlp"])
def test_drop_path_skips_each_branch_of_a_block(branch):
    torch.manual_seed(0)
    [block] = blocks(1, 2, 4, 16, drop_path=0.25)
    zero(block.mlp_block.mlp[3] if branch == "msa" else block.msa_block.attention)
    x = torch.randn(1, 5, 8)
    with torch.no_grad():
        exact = block(x) - x
        out = block.train()(x.expand(4000, -1, -1)) - x
    gone = (out == 0).flatten(1).all(1)
    assert_quarter_dropped(out, exact, gone, 0.03, atol=1e-5, rtol=1e-4)


def test_drop_path_draws_for_each_branch_anew():
    torch.manual_seed(0)
    [block] = blocks(1, 2, 4, 16, drop_path=0.5)
    zero(block.msa_block.attention.out_proj)
    zero(block.mlp_block.mlp[3])
    nn.init.ones_(block.msa_block.attention.out_proj.bias)  # the branch gives 1
    nn.init.constant_(block.mlp_block.mlp[3].bias, 10.0)
    out = block.train()(torch.zeros(4000, 1, 8))[:, 0, 0]
    share = [(out == value).float().mean().item() for value in (0, 2, 20, 22)]
    assert all(abs(found - 0.25) < 0.03 for found in share), share


def test_mlp_dropout_reaches_the_projection_of_the_attention():
    torch.manual_seed(0)
    [block] = blocks(1, 2, 4, 16, mlp_dropout=0.25)
    zero(block.mlp_block.mlp[3])
    x = torch.randn(1, 5, 8)
    with torch.no_grad():
        exact = block(x) - x
        out = block.train()(x.expand(1000, -1, -1)) - x
    gone = out == 0
    assert_quarter_dropped(out, exact, gone, 0.01, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("layer", [2, 4])
def test_mlp_dropout_follows_both_layers_of_the_mlp(layer):
    torch.manual_seed(0)
    [block] = blocks(1, 1, 8, 8, mlp_dropout=0.25)
    zero(block.msa_block.attention)
    block.mlp_block.mlp[6 - layer].p = 0.0  # the other one
    with torch.no_grad():
        block.mlp_block.mlp[3].weight.copy_(torch.eye(8))
        block.mlp_block.mlp[3].bias.zero_()
        x = torch.randn(1, 5, 8)
        exact = block(x) - x
        out = block.train()(x.expand(1000, -1, -1)) - x
    gone = out == 0
    assert_quarter_dropped(out, exact, gone, 0.01, atol=1e-5, rtol=1e-4)


def test_attention_dropout_reaches_the_weights():
    """One token: its only weight is 1, and without it nothing is left."""
    torch.manual_seed(0)
    [block] = blocks(1, 1, 6, 8, attn_dropout=0.25)
    zero(block.mlp_block.mlp[3])
    nn.init.zeros_(block.msa_block.attention.out_proj.bias)
    x = torch.randn(1, 1, 6)
    with torch.no_grad():
        exact = block(x) - x
        out = block.train()(x.expand(4000, -1, -1)) - x
    gone = (out == 0).all(-1)[:, 0]
    assert_quarter_dropped(out, exact, gone, 0.03, atol=1e-5, rtol=1e-4)


def test_without_dropout_training_is_evaluation():
    torch.manual_seed(0)
    encoder, x = blocks(2, 2, 4, 16), torch.randn(2, 5, 8)
    torch.testing.assert_close(encoder.train()(x), encoder.eval()(x))
    noisy = TransformerEncoder(TransformerEncoderBlock(8, 2, 16, 0.5, 0.5, 0.5)).eval()
    assert torch.equal(noisy(x), noisy(x))


def test_names_and_defaults():
    block = TransformerEncoderBlock()
    assert sum(p.numel() for p in block.parameters()) == 7_087_872
    parts = ["msa_block.attention.out_proj", "msa_block.attention.qkv"]
    parts += ["msa_block.layer_norm", "mlp_block.layer_norm"]
    parts += ["mlp_block.mlp.0", "mlp_block.mlp.3"]
    assert set(block.state_dict()) == {
        f"{part}.{kind}" for part in parts for kind in ("weight", "bias")
    }
    msa, mlp = block.msa_block, block.mlp_block.mlp
    assert (msa.attention.num_heads, msa.attention.attn_dropout) == (12, 0.0)
    assert (msa.dropout.p, mlp[2].p, mlp[4].p) == (0.1, 0.1, 0.1)
    assert (mlp[0].in_features, mlp[0].out_features) == (768, 3072)
    assert block.drop_path.rate == 0.0


def test_the_callers_tokens_stay():
    encoder, x = blocks(2, 2, 4, 16), torch.randn(2, 5, 8)
    before = x.clone()
    encoder(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: TransformerEncoderBlock(8, 3), "got 3 heads for embedding_dim 8"),
        (lambda: TransformerEncoderBlock(8, 0), "got 0 heads"),
        (lambda: TransformerEncoderBlock(0, 1), "embedding_dim 0"),
        (lambda: TransformerEncoderBlock(8, 2, 0), "got 8 and 0"),
        (lambda: TransformerEncoderBlock(8, 2, 8, mlp_dropout=1.5), "got 1.5"),
        (lambda: TransformerEncoderBlock(8, 2, 8, attn_dropout=1.0), "got 1.0"),
        (lambda: TransformerEncoderBlock(8, 2, 8, drop_path=1.0), "got 1.0"),
        (lambda: DropPath(-0.1), r"\[0, 1\), got -0.1"),
        (lambda: DropPath(1.0), r"\[0, 1\), got 1.0"),
        (lambda: DropPath(math.nan), "got nan"),
        (lambda: blocks(2, 2, 4, 8)(torch.zeros(2, 5, 8), torch.ones(5, 5)), "boolean"),
        (
            lambda: blocks(2, 2, 4, 8)(torch.zeros(2, 5, 8), torch.ones(4, 4).bool()),
            r"to \(2, 2, 5, 5\), got \(4, 4\)",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()
