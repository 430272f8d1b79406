"""Lesson 10: the whole ViT against torchvision and timm, weight for weight."""

import copy
import inspect
import io
import pickle
from dataclasses import asdict

import pytest
import timm
import torch
from comparing import TOLERANCE, assert_same, copy_weights, fill, layer_norm, run, seeds
from hypothesis import example, given, settings
from hypothesis import strategies as st
from timm.layers import calculate_drop_path_rates
from torch import nn
from torchvision.models import VisionTransformer

from going_modular.multihead_attention import record_attention
from going_modular.variants import VARIANTS, count_parameters
from going_modular.vit import POOLS, ViT, create_vit

TORCHVISION = [
    (r"^embedding\.patch_embedding\.patcher", "conv_proj"),
    (r"^embedding\.class_token\.weight", "class_token"),
    (r"^embedding\.position_embedding\.weight", "encoder.pos_embedding"),
    (r"^encoder\.(\d+)", r"encoder.layers.encoder_layer_\1"),
    (r"msa_block\.layer_norm", "ln_1"),
    (r"msa_block\.attention\.qkv\.", "self_attention.in_proj_"),
    (r"msa_block\.attention\.out_proj", "self_attention.out_proj"),
    (r"mlp_block\.layer_norm", "ln_2"),
    (r"mlp_block\.mlp", "mlp"),
    (r"^layer_norm", "encoder.ln"),
    (r"^head", "heads.head"),
]
TIMM = [
    (r"^embedding\.patch_embedding\.patcher", "patch_embed.proj"),
    (r"^embedding\.class_token\.weight", "cls_token"),
    (r"^embedding\.position_embedding\.weight", "pos_embed"),
    (r"^encoder\.", "blocks."),
    (r"msa_block\.layer_norm", "norm1"),
    (r"msa_block\.attention\.qkv", "attn.qkv"),
    (r"msa_block\.attention\.out_proj", "attn.proj"),
    (r"mlp_block\.layer_norm", "norm2"),
    (r"mlp_block\.mlp\.0", "mlp.fc1"),
    (r"mlp_block\.mlp\.3", "mlp.fc2"),
    (r"^layer_norm", "norm"),
]
SMALL = {
    "img_size": 32,
    "patch_size": 8,
    "num_transformer_layers": 3,
    "embedding_dim": 24,
    "mlp_size": 40,
    "num_heads": 3,
    "num_classes": 5,
}
NO_DROPOUT = {"mlp_dropout": 0.0, "embedding_dropout": 0.0}
# FACTS, section 1: counted on torchvision's and timm's models.
EXACT = {
    ("vit_base_16", 1000): 86_567_656,
    ("vit_base_16", 3): 85_800_963,
    ("vit_base_32", 1000): 88_224_232,
    ("vit_base_32", 3): 87_457_539,
    ("vit_large_16", 1000): 304_326_632,
    ("vit_large_16", 3): 303_304_707,
    ("vit_large_32", 1000): 306_535_400,
    ("vit_large_32", 3): 305_513_475,
    ("vit_huge_14", 1000): 632_045_800,
    ("vit_huge_14", 3): 630_768_643,
    ("vit_tiny_16", 1000): 5_717_416,
    ("vit_small_16", 1000): 22_050_664,
}


def small(dtype=torch.float32, **overrides):
    torch.manual_seed(0)
    return fill(ViT(**SMALL | overrides)).to(dtype).eval()


def in_torchvision(ours, arguments):
    s = {"in_channels": 3} | arguments
    theirs = VisionTransformer(
        s["img_size"],
        s["patch_size"],
        s["num_transformer_layers"],
        s["num_heads"],
        s["embedding_dim"],
        s["mlp_size"],
        num_classes=s["num_classes"],
    )
    return copy_weights(ours, theirs, TORCHVISION)


def in_timm(ours, arguments, fc_norm=False):
    """timm's model with our weights.

    For pool="mean" this is its variant with `fc_norm=False`: LayerNorm, then the mean.
    """
    s = {"in_channels": 3} | arguments
    mean = {"class_token": False, "global_pool": "avg", "fc_norm": fc_norm}
    theirs = timm.models.VisionTransformer(
        s["img_size"],
        s["patch_size"],
        s["in_channels"],
        s["num_classes"],
        embed_dim=s["embedding_dim"],
        depth=s["num_transformer_layers"],
        num_heads=s["num_heads"],
        mlp_ratio=s["mlp_size"] / s["embedding_dim"],
        **mean if ours.pool == "mean" else {},
    )
    names = TIMM if fc_norm is False else [*TIMM, ("^norm", "fc_norm")]
    return copy_weights(ours, theirs, names)


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_equals_torchvision(dtype):
    ours, x = small(dtype), torch.randn(2, 3, 32, 32, dtype=dtype)
    found = run(ours, x)
    assert 0.5 < found["output"].abs().max() < 10, "nothing to compare"
    theirs = in_torchvision(ours, SMALL)
    assert_same(found, run(theirs, x), TOLERANCE[dtype], TORCHVISION)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("img_size", [32, (48, 16), (8, 40)])
def test_equals_timm(dtype, pool, img_size):
    arguments = SMALL | {"img_size": img_size}
    ours = small(dtype, img_size=img_size, pool=pool)
    x = torch.randn(2, 3, *ours.embedding.img_size, dtype=dtype)
    found = run(ours, x)
    assert 0.3 < found["output"].abs().max() < 10, "nothing to compare"
    assert_same(found, run(in_timm(ours, arguments), x), TOLERANCE[dtype], TIMM)


def test_mean_pooling_is_not_timms_default():
    """By default timm takes the mean first, then a LayerNorm, its `fc_norm`."""
    ours, x = small(pool="mean"), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        same = in_timm(ours, SMALL)(x)
        default = in_timm(ours, SMALL, fc_norm=None)
        assert isinstance(default.norm, nn.Identity)
        other = default(x)
        torch.testing.assert_close(ours(x), same, atol=1e-5, rtol=1e-5)
        assert (ours(x) - other).abs().max() > 0.01


# rows, columns, patch_size, channels, layers, mlp_size, classes, batch
sizes = st.tuples(*[st.integers(1, high) for high in (3, 3, 4, 3, 3, 9, 4, 3)])
# heads from one to D; below four numbers rounding counts
heads_and_numbers = [(1, 4), (2, 2), (4, 1), (1, 6), (2, 3), (3, 2), (6, 1), (3, 4)]


@given(sizes, st.sampled_from(heads_and_numbers), st.sampled_from(POOLS), seeds)
@settings(deadline=None, max_examples=40)
@example((1, 1, 4, 3, 1, 8, 1, 1), (4, 1), "cls", 0)  # one patch, heads = D, one image
@example((1, 1, 4, 3, 1, 8, 1, 1), (4, 1), "mean", 0)
def test_any_size_equals_timm(size, heads, pool, seed):
    torch.manual_seed(seed)
    rows, columns, p, channels, layers, mlp_size, classes, batch = size
    arguments = {
        "img_size": (rows * p, columns * p),
        "in_channels": channels,
        "patch_size": p,
        "num_transformer_layers": layers,
        "embedding_dim": heads[0] * heads[1],
        "mlp_size": mlp_size,
        "num_heads": heads[0],
        "num_classes": classes,
    }
    ours = fill(ViT(**arguments, pool=pool)).double().eval()
    x = torch.randn(batch, channels, rows * p, columns * p, dtype=torch.float64)
    assert ours(x).shape == (batch, classes)
    assert_same(run(ours, x), run(in_timm(ours, arguments), x), 1e-11, TIMM)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("num_classes", [3, 1000])
def test_exact_parameter_counts(name, num_classes):
    with torch.device("meta"):
        vit = create_vit(name, num_classes=num_classes)
    counts = count_parameters(VARIANTS[name], num_classes)
    parts = {
        "patch embedding": vit.embedding.patch_embedding,
        "class token": vit.embedding.class_token,
        "position embedding": vit.embedding.position_embedding,
        "encoder": vit.encoder,
        "layer norm": vit.layer_norm,
        "head": vit.head,
    }
    found = {k: sum(p.numel() for p in part.parameters()) for k, part in parts.items()}
    assert found == counts
    total = sum(p.numel() for p in vit.parameters())
    assert total == sum(counts.values())
    assert total == EXACT.get((name, num_classes), total)
    assert {block.msa_block.attention.num_heads for block in vit.encoder} == {
        VARIANTS[name].num_heads
    }


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_as_many_as_in_torchvision_and_timm(name):
    arguments = {"num_classes": 1000} | asdict(VARIANTS[name])
    with torch.device("meta"):
        ours = create_vit(name)
        models = [ours, in_torchvision(ours, arguments), in_timm(ours, arguments)]
    counts = [sum(p.numel() for p in model.parameters()) for model in models]
    assert len(set(counts)) == 1


def test_mean_pooling_has_one_token_less():
    with torch.device("meta"):
        cls, mean = ViT(), ViT(pool="mean")
    count = [sum(p.numel() for p in vit.parameters()) for vit in (cls, mean)]
    assert count[0] - count[1] == 2 * 768
    assert mean.embedding.position_embedding.weight.shape == (1, 196, 768)


def test_the_constructor_is_that_of_the_paper():
    defaults = {
        "img_size": 224,
        "in_channels": 3,
        "patch_size": 16,
        "num_transformer_layers": 12,
        "embedding_dim": 768,
        "mlp_size": 3072,
        "num_heads": 12,
        "attn_dropout": 0,
        "mlp_dropout": 0.1,
        "embedding_dropout": 0.1,
        "num_classes": 1000,
        "pool": "cls",
    }
    parameters = inspect.signature(ViT).parameters
    assert list(parameters)[: len(defaults)] == list(defaults)
    assert {name: parameters[name].default for name in defaults} == defaults
    with torch.device("meta"):
        ours, base = ViT(), create_vit()
    assert str(ours) == str(base)
    shapes = [{k: v.shape for k, v in vit.state_dict().items()} for vit in (ours, base)]
    assert shapes[0] == shapes[1] and len(shapes[0]) == 152


def test_create_vit_takes_any_argument():
    overrides = {"num_classes": 3, "img_size": (96, 64), "in_channels": 1}
    vit = create_vit("vit_mini_8", pool="mean", drop_path=0.1, **overrides).eval()
    assert vit(torch.rand(2, 1, 96, 64)).shape == (2, 3)
    assert vit.embedding.position_embedding.weight.shape == (1, 12 * 8, 192)
    assert create_vit("vit_tiny_16", num_transformer_layers=1).head.out_features == 1000
    with pytest.raises(TypeError, match="img_sise"):
        create_vit("vit_mini_8", img_sise=32)


def patch_changed(x, row, column, size=8):
    changed = x.clone()
    rows = slice(row * size, (row + 1) * size)
    changed[:, :, rows, column * size : (column + 1) * size] = torch.rand(3, size, size)
    return changed


@pytest.mark.parametrize("shape", [(17, 17), (1, 1, 1, 17), (2, 3, 17, 17)])
def test_the_mask_reaches_the_encoder(shape):
    vit, x = small(), torch.rand(2, 3, 32, 32)
    changed = patch_changed(x, 1, 2)
    mask = torch.ones(shape, dtype=torch.bool)
    mask[..., 1 + 1 * 4 + 2] = False  # nobody sees the patch; token 0 is the class
    with torch.no_grad():
        torch.testing.assert_close(vit(changed, mask), vit(x, mask))
        assert (vit(changed) - vit(x)).abs().max() > 1e-3
        assert (vit(x, mask) - vit(x)).abs().max() > 1e-3
        everyone = torch.ones_like(mask)
        torch.testing.assert_close(vit(x, everyone), vit(x))


def test_the_mask_with_mean_pooling():
    vit, x = small(pool="mean"), torch.rand(2, 3, 32, 32)
    alone = torch.eye(16, dtype=torch.bool)  # each patch sees itself
    with torch.no_grad():
        tokens = vit.embedding(x)
        each = torch.stack([vit.encoder(tokens[:, i : i + 1]) for i in range(16)])
        expected = vit.head(vit.layer_norm(each).mean(0)[:, 0])
        torch.testing.assert_close(vit(x, alone), expected)
        assert (vit(x) - expected).abs().max() > 1e-3


def test_equation_4_written_out():
    vit, x, seen = small(), torch.rand(2, 3, 32, 32), []
    vit.encoder.register_forward_hook(lambda module, inputs, z: seen.append(z))
    logits = vit(x)
    [z] = seen
    gain, bias = vit.layer_norm.weight, vit.layer_norm.bias
    y = layer_norm(z[:, 0], gain, bias)
    torch.testing.assert_close(logits, y @ vit.head.weight.T + vit.head.bias)
    gradient = torch.autograd.grad(logits.square().sum(), z)[0]
    assert gradient[:, 0].any() and not gradient[:, 1:].any(), "the class token alone"


def test_maps_of_every_layer_in_order():
    vit, x = small(), torch.rand(2, 3, 32, 32)
    with torch.no_grad(), record_attention(vit) as maps:
        logits = vit(x)
    assert [tuple(weights.shape) for weights in maps] == [(2, 3, 17, 17)] * 3
    torch.testing.assert_close(logits, vit(x))


@pytest.mark.parametrize(
    "dtype, tolerance", [(torch.half, 0.02), (torch.bfloat16, 0.15)]
)
@pytest.mark.parametrize("pool", POOLS)
def test_half_precision_stays_close(dtype, tolerance, pool):
    vit, x = small(pool=pool), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        exact = vit(x)
        half = vit.to(dtype)(x.to(dtype))
    assert half.dtype == dtype
    torch.testing.assert_close(half.float(), exact, atol=tolerance, rtol=0)


@pytest.mark.parametrize("masked", [False, True])
def test_autocast_stays_close(masked):
    vit, x = small(), torch.rand(2, 3, 32, 32)
    mask = torch.ones(17, 17, dtype=torch.bool).tril() if masked else None
    exact = run(vit, x, mask)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(vit, x, mask)
        with record_attention(vit):
            recorded = vit(x, mask)
    for name, tensor in found.items():
        scale = max(1.0, exact[name].abs().max().item())
        assert (tensor.float() - exact[name]).abs().max() < 0.1 * scale, name
    torch.testing.assert_close(recorded.float(), exact["output"], atol=0.1, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("training", [False, True])
def test_a_compiled_model_is_the_same_function(training):
    vit = small(num_transformer_layers=2, **NO_DROPOUT).train(training)
    x, mask = torch.rand(2, 3, 32, 32), torch.ones(17, 17, dtype=torch.bool).tril()
    compiled = torch.compile(copy.deepcopy(vit))
    for arguments in ((x,), (x, mask)):
        out, expected = compiled(*arguments), vit(*arguments)
        torch.testing.assert_close(out, expected, atol=1e-5, rtol=1e-5)
    compiled(x).square().sum().backward()
    vit(x).square().sum().backward()
    for ours, theirs in zip(compiled.parameters(), vit.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-4, rtol=1e-4)
    with torch.no_grad(), record_attention(compiled) as maps:
        torch.testing.assert_close(compiled(x), vit(x), atol=1e-5, rtol=1e-5)
    assert [tuple(weights.shape) for weights in maps] == [(2, 3, 17, 17)] * 2


@pytest.mark.parametrize("pool", POOLS)
def test_an_exported_model_takes_any_batch(pool):
    vit, x = small(num_transformer_layers=1, pool=pool), torch.rand(5, 3, 32, 32)
    batch = torch.export.Dim("batch")
    program = torch.export.export(vit, (x[:2],), dynamic_shapes=({0: batch},))
    stored = io.BytesIO()
    torch.export.save(program, stored)
    stored.seek(0)
    loaded = torch.export.load(stored).module()
    for images in (x, x[:2], x[:1]):
        torch.testing.assert_close(loaded(images), vit(images))


@pytest.mark.parametrize("pool", POOLS)
def test_copies_are_the_same_function(pool):
    vit, x = small(pool=pool), torch.rand(2, 3, 32, 32)
    expected = vit(x)
    pickled = pickle.loads(pickle.dumps(vit))
    stored = io.BytesIO()
    torch.save(vit.state_dict(), stored)
    stored.seek(0)
    loaded = ViT(**SMALL, pool=pool).eval()
    assert not torch.allclose(loaded(x), expected)
    loaded.load_state_dict(torch.load(stored, weights_only=True), strict=True)
    for other in (copy.deepcopy(vit), pickled, loaded):
        assert torch.equal(other(x), expected)
    with torch.no_grad():
        for p in copy.deepcopy(vit).parameters():
            p.zero_()
    assert torch.equal(vit(x), expected), "a copy shares nothing"


@pytest.mark.parametrize("pool", POOLS)
def test_a_training_step_changes_every_parameter(pool):
    torch.manual_seed(0)
    vit = ViT(**SMALL, pool=pool).train()
    before = {name: p.detach().clone() for name, p in vit.named_parameters()}
    optimizer = torch.optim.SGD(vit.parameters(), lr=0.1)
    logits = vit(torch.rand(4, 3, 32, 32))
    nn.functional.cross_entropy(logits, torch.arange(4)).backward()
    optimizer.step()
    for name, p in vit.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), name
        assert not torch.equal(p, before[name]), name


def test_drop_path_drops_more_and_more():
    torch.manual_seed(0)
    vit = small(**NO_DROPOUT, drop_path=0.6).train()
    z = torch.randn(1, 17, 24).expand(2000, -1, -1)
    untouched = []
    with torch.no_grad():
        for block in vit.encoder:
            out = block(z)
            untouched.append((out == z).flatten(1).all(1).float().mean().item())
    for share, rate in zip(untouched, (0.0, 0.3, 0.6), strict=True):
        assert abs(share - rate**2) < 0.03, "both branches dropped"


def test_attention_dropout_reaches_the_attention_and_nothing_else():
    vit = small(**NO_DROPOUT, attn_dropout=0.5).train()
    x = torch.rand(2, 3, 32, 32)
    assert not torch.allclose(vit(x), vit(x))
    for block in vit.encoder:
        nn.init.zeros_(block.msa_block.attention.out_proj.weight)
    assert torch.equal(vit(x), vit(x)), "only what attention gives was random"
    assert torch.equal(vit(x), vit.eval()(x))


def test_attention_dropout_has_its_share_in_each_block():
    """One patch and no class token: the only weight is 1, dropped or doubled."""
    vit = small(**NO_DROPOUT, attn_dropout=0.25, img_size=8, pool="mean").train()
    z = torch.randn(1, 1, 24).expand(4000, -1, -1)
    for block in vit.encoder:
        nn.init.zeros_(block.msa_block.attention.out_proj.bias)
        with torch.no_grad():
            found = block.msa_block(z)
        gone = (found.reshape(4000, 24) == 0).all(-1)
        # Three heads, each with a share of its own.
        assert abs(gone.float().mean().item() - 0.25**3) < 0.01


def test_mlp_dropout_reaches_every_dense_layer_but_qkv():
    vit = small(embedding_dropout=0.0, mlp_dropout=0.25).train()
    z = torch.randn(1, 17, 24).expand(500, -1, -1)
    for block in vit.encoder:
        with torch.no_grad():
            for branch in (block.msa_block, block.mlp_block):
                gone = branch(z) == 0
                assert abs(gone.float().mean().item() - 0.25) < 0.01
            block.mlp_block.mlp[4].p = 0.0
            assert not torch.allclose(block.mlp_block(z)[0], block.mlp_block(z)[1])


def test_embedding_dropout_reaches_z_0():
    vit = small(mlp_dropout=0.0, embedding_dropout=0.25).train()
    z_0 = vit.embedding(torch.rand(100, 3, 32, 32))
    assert abs((z_0 == 0).float().mean().item() - 0.25) < 0.01
    quiet = small(**NO_DROPOUT).train()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(quiet(x), quiet.eval()(x))


def test_every_dropout_is_where_the_paper_has_it():
    with torch.device("meta"):
        vit = create_vit("vit_mini_8", attn_dropout=0.2, embedding_dropout=0.3)
    assert vit.embedding.dropout.p == 0.3
    for block in vit.encoder:
        assert block.msa_block.attention.attn_dropout == 0.2
        assert block.msa_block.dropout.p == 0.1
        assert (block.mlp_block.mlp[2].p, block.mlp_block.mlp[4].p) == (0.1, 0.1)


@pytest.mark.parametrize("layers", [2, 3, 12])
def test_drop_path_rises_linearly_to_the_last_block(layers):
    with torch.device("meta"):
        vit = ViT(**SMALL | {"num_transformer_layers": layers}, drop_path=0.3)
    rates = [block.drop_path.rate for block in vit.encoder]
    assert rates == pytest.approx(calculate_drop_path_rates(0.3, layers))
    assert rates[0] == 0 and rates[-1] == pytest.approx(0.3)


def test_initial_values():
    torch.manual_seed(0)
    vit = create_vit("vit_mini_8")
    assert abs(vit.head.weight.std().item() - 0.02) < 0.001
    assert not vit.head.bias.any() and not vit.embedding.class_token.weight.any()
    assert abs(vit.embedding.position_embedding.weight.std().item() - 0.02) < 0.001
    gains = [p for name, p in vit.named_parameters() if "layer_norm.weight" in name]
    assert len(gains) == 13 and all((gain == 1).all() for gain in gains)


def test_an_untrained_model_gives_logits_that_depend_on_seed_and_picture():
    x = torch.rand(2, 3, 32, 32)
    logits = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        logits.append(ViT(**SMALL).eval()(x))
    assert torch.equal(logits[0], logits[1])
    assert not torch.allclose(logits[0], logits[2])
    assert (logits[0].abs() > 1e-5).all()
    assert not torch.allclose(logits[0][0], logits[0][1])


def test_the_callers_images_stay():
    vit, x = small(), torch.rand(2, 3, 32, 32)
    before = x.clone()
    vit(x)
    assert torch.equal(x, before)


def test_positions_of_every_kind():
    x = torch.rand(2, 3, 32, 32)
    for kind in ("none", "learned", "sinusoidal_1d", "sinusoidal_2d"):
        assert small(position=kind)(x).shape == (2, 5)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"num_heads": 5}, "got 5 heads for embedding_dim 24"),
        ({"num_heads": 0}, "at least 1.*got 0 heads"),
        ({"num_transformer_layers": 0}, "at least 1, got 0 and 5"),
        ({"num_transformer_layers": -1}, "at least 1, got -1 and 5"),
        ({"num_classes": 0}, "num_classes must be at least 1, got 3 and 0"),
        ({"num_classes": -3}, "got 3 and -3"),
        ({"embedding_dim": 0}, "embedding_dim must be at least 1, got 0"),
        ({"mlp_size": 0}, "at least 1, got 24 and 0"),
        ({"patch_size": 0}, "patch_size must be at least 1, got 0"),
        ({"in_channels": 0}, "in_channels must be at least 1, got 0"),
        ({"img_size": 0}, "got 0"),
        ({"img_size": 36}, "height 36 is not divisible by patch_size 8"),
        ({"img_size": (32, 30)}, "width 30 is not divisible by patch_size 8"),
        ({"img_size": (32, 32, 3)}, "int or"),
        ({"attn_dropout": 1.0}, r"attn_dropout must be in \[0, 1\), got 1.0"),
        ({"embedding_dropout": -0.5}, "got -0.5"),
        ({"mlp_dropout": 1.5}, "got 1.5"),
        ({"drop_path": 1.0}, r"\[0, 1\), got 1.0"),
        ({"drop_path": 2.0, "num_transformer_layers": 1}, r"\[0, 1\), got 2.0"),
        ({"drop_path": -0.1}, "got -0.1"),
        ({"pool": "class"}, "one of cls, mean; got 'class', perhaps 'cls'"),
        ({"pool": "Mean"}, "got 'Mean', perhaps 'mean'"),
        ({"pool": "avg"}, "one of cls, mean; got 'avg'"),
        ({"pool": None}, "one of cls, mean; got None"),
        ({"position": "sinus"}, "got 'sinus'"),
    ],
)
def test_bad_arguments(wrong, message):
    with pytest.raises(ValueError, match=message):
        ViT(**SMALL | wrong)


@pytest.mark.parametrize(
    "name, near",
    [
        ("vit_bse_16", "vit_base_16"),
        ("ViT-B/16", "vit_base_16"),
        ("vit_l_32", "vit_large_32"),
        ("vit_base_patch16_224", "vit_base_16"),
        ("huge", "vit_huge_14"),
    ],
)
def test_an_unknown_variant_is_told_the_nearest(name, near):
    with pytest.raises(ValueError, match=f"got '{name}', perhaps '{near}'"):
        create_vit(name)


@pytest.mark.parametrize("name", ["resnet50", "", None])
def test_a_name_that_resembles_nothing_gets_the_list(name):
    with pytest.raises(ValueError, match="vit_mini_8, .*vit_huge_14; got") as raised:
        create_vit(name)
    assert "perhaps" not in str(raised.value)


@pytest.mark.parametrize(
    "shape, mask, message",
    [
        ((1, 3, 64, 64), None, "32.{1,3}32.*got.*interpolate_position_embedding"),
        ((1, 3, 32, 40), None, "32.{1,3}32.*got.*interpolate_position_embedding"),
        ((1, 1, 32, 32), None, r"\(batch, 3, .*got \(1, 1, 32, 32\)"),
        ((3, 32, 32), None, r"got \(3, 32, 32\)"),
        ((1, 3, 32, 32), torch.ones(17, 17), "boolean, .*got torch.float32"),
        ((1, 3, 32, 32), [[True] * 17] * 17, "boolean, .*got list"),
        ((1, 3, 32, 32), torch.ones(16, 16).bool(), r"17\), got \(16, 16\)"),
        ((1, 3, 32, 32), torch.ones(1, 17, 17).bool(), "2 or 4 axes"),
        ((1, 3, 32, 32), torch.ones(17).bool(), "2 or 4 axes"),
        ((1, 3, 32, 32), torch.ones(2, 1, 17, 17).bool(), r"got \(2, 1, 17, 17\)"),
    ],
)
def test_bad_images_and_masks(shape, mask, message):
    with pytest.raises(ValueError, match=message):
        small()(torch.rand(shape), mask)


@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.float64, marks=pytest.mark.slow)]
)
def test_base_at_224_pixels(dtype):
    torch.manual_seed(0)
    ours = fill(create_vit("vit_base_16")).to(dtype).eval()
    assert len(ours.state_dict()) == 152
    base = {"num_classes": 1000} | asdict(VARIANTS["vit_base_16"])
    x = torch.randn(2, 3, 224, 224, dtype=dtype)
    found = run(ours, x)
    assert 0.5 < found["output"].abs().max() < 10, "nothing to compare"
    for make, names in ((in_torchvision, TORCHVISION), (in_timm, TIMM)):
        assert_same(found, run(make(ours, base), x), TOLERANCE[dtype], names)
