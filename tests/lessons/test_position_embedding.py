"""Lessons 05 to 05c: positions against formula and timm; Equation 1 written out."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.layers import resample_abs_pos_embed
from torch import nn
from torchvision.models import VisionTransformer

from going_modular.patches import patchify, unpatchify
from going_modular.position_embedding import (
    POSITION_KINDS,
    PositionEmbedding,
    ViTEmbedding,
    interpolate_position_embedding,
    sinusoidal_1d,
    sinusoidal_2d,
)


def fill(module):
    """Gives every parameter a value: at zero, a missing term would pass."""
    for p in module.parameters():
        nn.init.normal_(p)
    return module


@given(st.integers(1, 40), st.integers(1, 12))
@settings(deadline=None, max_examples=30)
def test_sinusoidal_1d_is_the_formula(positions, pairs):
    dim = 2 * pairs
    table = sinusoidal_1d(torch.arange(positions), dim)
    for k in range(positions):
        for i in range(pairs):
            angle = k / 10000 ** (2 * i / dim)
            assert abs(table[k, 2 * i] - math.sin(angle)) < 1e-6
            assert abs(table[k, 2 * i + 1] - math.cos(angle)) < 1e-6


@given(st.integers(1, 6), st.integers(1, 6), st.integers(1, 6))
@settings(deadline=None)
def test_sinusoidal_2d_holds_row_then_column(rows, columns, quarter):
    dim = 4 * quarter
    table = sinusoidal_2d((rows, columns), dim).reshape(rows, columns, dim)
    for r in range(rows):
        for c in range(columns):
            halves = sinusoidal_1d(torch.tensor([r, c]), dim // 2)
            assert torch.equal(table[r, c], halves.flatten())


sizes = st.tuples(*[st.integers(1, 4)] * 4, st.integers(1, 5), st.integers(1, 3))


@given(sizes, st.sampled_from(POSITION_KINDS), st.booleans())
@settings(deadline=None)
def test_equation_1_written_out(size, kind, class_token):
    batch, channels, rows, columns, p, quarter = size
    dim, img_size = 4 * quarter, (rows * p, columns * p)
    ours = ViTEmbedding(img_size, channels, p, dim, 0.0, kind, class_token)
    fill(ours).double()
    x = torch.randn(batch, channels, *img_size, dtype=torch.float64)
    patcher = ours.patch_embedding.patcher
    E = patcher.weight.detach().flatten(1).T.clone().requires_grad_()
    expected = patchify(x, p) @ E + patcher.bias.detach()
    if class_token:
        token = ours.class_token.weight.detach()
        expected = torch.cat([token.repeat(batch, 1, 1), expected], dim=1)
    if kind != "none":
        expected = expected + ours.position_embedding.weight.detach()
    out = ours(x)
    assert out.shape == (batch, rows * columns + class_token, dim)
    torch.testing.assert_close(out, expected, atol=1e-11, rtol=1e-11)
    downstream = torch.randn_like(out)
    out.backward(downstream)
    expected.backward(downstream)
    torch.testing.assert_close(
        patcher.weight.grad.flatten(1).T, E.grad, atol=1e-10, rtol=1e-10
    )
    if kind == "learned":
        grad = ours.position_embedding.weight.grad
        torch.testing.assert_close(grad[0], downstream.sum(0))
    if class_token:
        torch.testing.assert_close(
            ours.class_token.weight.grad[0, 0], downstream[:, 0].sum(0)
        )


def test_equals_torchvision_up_to_the_encoder():
    theirs = fill(VisionTransformer(64, 16, 1, 2, 32, 64)).eval()
    ours = ViTEmbedding(64, 3, 16, 32).eval()
    names = {
        "patch_embedding.patcher.weight": "conv_proj.weight",
        "patch_embedding.patcher.bias": "conv_proj.bias",
        "class_token.weight": "class_token",
        "position_embedding.weight": "encoder.pos_embedding",
    }
    state = theirs.state_dict()
    ours.load_state_dict(
        {mine: state[name] for mine, name in names.items()}, strict=True
    )
    seen = {}
    theirs.encoder.dropout.register_forward_hook(lambda m, i, o: seen.update(z_0=o))
    x = torch.rand(2, 3, 64, 64)
    theirs(x)
    assert torch.equal(ours(x), seen["z_0"])


@pytest.mark.parametrize("kind", POSITION_KINDS)
def test_only_without_positions_shuffling_changes_nothing(kind):
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(
        32, 4, 64, batch_first=True, norm_first=True, dropout=0.0
    ).eval()
    embedding = fill(ViTEmbedding(32, 3, 8, 32, position=kind)).eval()
    x = torch.rand(2, 3, 32, 32)
    shuffled = unpatchify(patchify(x, 8)[:, torch.randperm(16)], 8, 32)
    with torch.no_grad():
        change = (
            (encoder(embedding(x)) - encoder(embedding(shuffled)))[:, 0].abs().max()
        )
    assert (change < 1e-5) if kind == "none" else (change > 1e-3)


def test_dropout_acts_in_training_only_and_keeps_the_expectation():
    torch.manual_seed(0)
    embedding = fill(ViTEmbedding(16, 3, 8, 16, embedding_dropout=0.25))
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        exact = embedding.eval()(x)
        assert torch.equal(exact, embedding(x))
        embedding.train()
        dropped = torch.stack([embedding(x) for _ in range(4000)])
    assert abs((dropped == 0).float().mean().item() - 0.25) < 0.01
    assert ((dropped.mean(0) - exact).abs() / exact.abs().mean()).max() < 0.2


def test_what_is_saved_and_what_is_trained():
    learned = ViTEmbedding(32, 3, 8, 16)
    assert set(learned.state_dict()) == {
        "patch_embedding.patcher.weight",
        "patch_embedding.patcher.bias",
        "class_token.weight",
        "position_embedding.weight",
    }
    assert learned.class_token.weight.shape == (1, 1, 16)
    assert learned.position_embedding.weight.shape == (1, 17, 16)
    fixed = PositionEmbedding((4, 4), 16, "sinusoidal_2d")
    assert not list(fixed.parameters()) and not fixed.state_dict()
    assert fixed.weight[0, 0].abs().max() == 0
    assert not PositionEmbedding((4, 4), 16, "none").state_dict()


@pytest.mark.parametrize("kind", ["sinusoidal_1d", "sinusoidal_2d"])
def test_learned_weights_never_overwrite_sines_in_silence(kind):
    learned = fill(ViTEmbedding(32, 3, 8, 16))
    fixed = ViTEmbedding(32, 3, 8, 16, position=kind)
    sines = fixed.position_embedding.weight.clone()
    with pytest.raises(RuntimeError, match="Unexpected.*position_embedding.weight"):
        fixed.load_state_dict(learned.state_dict())
    fixed.load_state_dict(learned.state_dict(), strict=False)
    assert torch.equal(fixed.position_embedding.weight, sines)
    assert torch.equal(fixed.class_token.weight, learned.class_token.weight)
    with pytest.raises(RuntimeError, match="Missing.*position_embedding.weight"):
        learned.load_state_dict(fixed.state_dict())
    again = ViTEmbedding(32, 3, 8, 16, position=kind)
    again.load_state_dict(fixed.state_dict())
    x = torch.rand(1, 3, 32, 32)
    assert torch.equal(again.eval()(x), fixed.eval()(x))
    assert fixed.double().position_embedding.weight.dtype == torch.float64


def test_learned_positions_start_small():
    torch.manual_seed(0)
    weight = PositionEmbedding((14, 14), 768).weight
    assert abs(weight.std().item() - 0.02) < 0.001


def test_the_callers_tokens_stay():
    tokens = torch.zeros(2, 5, 4)
    fill(PositionEmbedding((2, 2), 4))(tokens)
    assert tokens.abs().max() == 0


grids = st.tuples(st.integers(1, 9), st.integers(1, 9))
# With one column, torch 2.14 misreads the strides of what timm passes to it.
wide_grids = st.tuples(st.integers(2, 9), st.integers(2, 9))


@given(grids, grids)
@settings(deadline=None)
def test_interpolation_works_on_each_number_alone(old, new):
    weight = torch.randn(1, old[0] * old[1], 5)
    ours = interpolate_position_embedding(weight, old, new, num_prefix_tokens=0)
    for i in range(5):
        alone = interpolate_position_embedding(weight[..., i : i + 1], old, new, 0)
        torch.testing.assert_close(ours[..., i : i + 1], alone)
    assert ours.shape == (1, new[0] * new[1], 5)


@given(wide_grids, wide_grids, st.integers(0, 2))
@settings(deadline=None)
def test_interpolation_equals_timm(old, new, prefix):
    weight = torch.randn(1, prefix + old[0] * old[1], 8)
    ours = interpolate_position_embedding(weight, old, new, prefix)
    theirs = resample_abs_pos_embed(weight, list(new), list(old), prefix)
    assert ours.shape == (1, prefix + new[0] * new[1], 8)
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-5)
    assert torch.equal(ours[:, :prefix], weight[:, :prefix])


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_interpolation_is_as_exact_as_its_dtype(dtype):
    weight = torch.randn(1, 10, 4, dtype=torch.float64)
    exact = interpolate_position_embedding(weight, (3, 3), (5, 4))
    found = interpolate_position_embedding(weight.to(dtype), (3, 3), (5, 4))
    assert found.dtype == dtype
    error = (found.double() - exact).abs().max() / exact.abs().max()
    assert error < 2 * torch.finfo(dtype).eps
    in_pytorch = nn.functional.interpolate(
        weight[:, 1:].transpose(1, 2).reshape(1, 4, 3, 3),
        size=(5, 4),
        mode="bicubic",
        antialias=True,
    )
    ours = exact[:, 1:].transpose(1, 2).reshape(1, 4, 5, 4)
    torch.testing.assert_close(ours, in_pytorch, atol=1e-14, rtol=0)


def test_interpolation_to_the_same_grid_is_an_exact_copy():
    weight = torch.randn(1, 10, 4)
    same = interpolate_position_embedding(weight, (3, 3), (3, 3))
    assert torch.equal(same, weight) and same.data_ptr() != weight.data_ptr()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: sinusoidal_1d(torch.arange(3), 5), "even and positive, got 5"),
        (lambda: sinusoidal_2d((2, 2), 6), "divisible by 4, got 6"),
        (lambda: PositionEmbedding((0, 4), 8), r"\(0, 4\)"),
        (lambda: PositionEmbedding((2, 2), 0), "got .* 0 and 1"),
        (lambda: PositionEmbedding((2, 2), 8, "sinus"), "got 'sinus'"),
        (lambda: PositionEmbedding((2, 2), 8, num_prefix_tokens=-1), "and -1"),
        (
            lambda: interpolate_position_embedding(
                torch.zeros(1, 9, 4), (3, 3), (4, 4)
            ),
            r"\(1, 10, embedding_dim\), got \(1, 9, 4\)",
        ),
        (
            lambda: interpolate_position_embedding(
                torch.zeros(1, 10, 4), (3, 3), (0, 4)
            ),
            "at least 1 x 1",
        ),
        (
            lambda: PositionEmbedding((2, 2), 8)(torch.zeros(1, 6, 8)),
            "interpolate_position",
        ),
        (
            lambda: PositionEmbedding((2, 2), 8)(torch.zeros(1, 5, 9)),
            r"got \(1, 5, 9\)",
        ),
        (lambda: ViTEmbedding(30, patch_size=16), "height 30 is not divisible"),
        (lambda: ViTEmbedding((32, 40), patch_size=16), "width 40"),
        (lambda: ViTEmbedding(0), "got 0, 0 and 16"),
        (lambda: ViTEmbedding(-32), "got -32"),
        (lambda: ViTEmbedding(patch_size=0), "patch_size must be at least 1, got 0"),
        (lambda: ViTEmbedding(embedding_dropout=1.0), r"\[0, 1\), got 1.0"),
        (lambda: ViTEmbedding(embedding_dropout=-0.1), "got -0.1"),
        (lambda: ViTEmbedding((32, 32, 3)), "int or"),
        (
            lambda: ViTEmbedding(32, 3, 8, 8)(torch.rand(1, 3, 64, 64)),
            "interpolate_position",
        ),
        (
            lambda: ViTEmbedding(32, 3, 8, 8)(torch.rand(1, 1, 32, 32)),
            r"got \(1, 1, 32, 32\)",
        ),
        (
            lambda: ViTEmbedding(32, 3, 8, 8)(torch.rand(3, 32, 32)),
            r"got \(3, 32, 32\)",
        ),
        (
            lambda: ViTEmbedding(32, 3, 8, 8)(
                torch.ones(1, 3, 32, 32, dtype=torch.uint8)
            ),
            "floating point",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_copies_and_compiled_graphs_are_the_same_function():
    embedding = fill(ViTEmbedding(32, 3, 8, 16)).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(copy.deepcopy(embedding)(x), embedding(x))
    exported = torch.export.export(embedding, (x,)).module()
    torch.testing.assert_close(exported(x), embedding(x))
