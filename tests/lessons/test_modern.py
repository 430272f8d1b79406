"""Lessons 15 to 15c: what changed since 2020; today's backbones equal timm's."""

import functools
import re

import pytest
import timm
import torch
from comparing import TOLERANCE, assert_same, fill, run
from safetensors.torch import save_file
from timm.layers import Attention, AttentionPoolLatent, SwiGLUPacked
from timm.layers import LayerScale as TimmLayerScale
from timm.layers.pos_embed_sincos import (
    RotaryEmbeddingCat,
    RotaryEmbeddingDinoV3,
    apply_rot_embed_cat,
)
from torch import nn
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
    ViTConfig,
    ViTModel,
)

from going_modular.attention_maps import attention_gradients
from going_modular.backbones import build_modern_vit, to_modern_names
from going_modular.modern_layers import AttentionPool, LayerScale, Registers, SwiGLU
from going_modular.modern_vit import ModernAttention, ModernViT
from going_modular.multihead_attention import record_attention
from going_modular.rotary import RotaryEmbedding, rotate
from going_modular.transfer import load_pretrained
from going_modular.vit import ViT

pytestmark = pytest.mark.usefixtures("one_thread")
DTYPES = pytest.mark.parametrize("dtype", TOLERANCE, ids=str)


def tokens(*shape, dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def same_as(ours, theirs, names, *shape, dtype):
    """Copies weights, then compares outputs and all gradients."""
    torch.manual_seed(0)
    fill(theirs.to(dtype))
    named = dict(theirs.named_parameters())
    ours.to(dtype).load_state_dict(
        {n: named[names.get(n, n)] for n in ours.state_dict()}
    )
    x = tokens(*shape, dtype=dtype)
    found = run(ours, x)
    found = {names.get(name, name): value for name, value in found.items()}
    assert_same(found, run(theirs, x), TOLERANCE[dtype])


# The layers


@DTYPES
def test_layer_scale_equals_timm(dtype):
    same_as(LayerScale(8), TimmLayerScale(8), {}, 2, 3, 8, dtype=dtype)
    assert LayerScale(8, 0.1).gamma.tolist() == pytest.approx([0.1] * 8)


def test_layer_scale_from_zero_loses_one_step_only():
    """The branch has no gradient in the first step, and one in the second."""
    torch.manual_seed(0)
    dense, scale, x = nn.Linear(8, 8), LayerScale(8, 0.0), tokens(4, 8).float()
    optimizer = torch.optim.AdamW([*dense.parameters(), *scale.parameters()], lr=0.1)
    sizes = []
    for _ in range(2):
        optimizer.zero_grad()
        (x + scale(dense(x))).square().sum().backward()
        sizes.append(dense.weight.grad.norm().item())
        optimizer.step()
    assert sizes[0] == 0 and sizes[1] > 0.1


def test_registers_equal_a_loop():
    registers = fill(Registers(6, 3))
    x = tokens(2, 5, 6, dtype=torch.float32).requires_grad_()
    out = registers(x)
    for image in range(2):
        rows = [*registers.weight[0], *x[image]]
        assert torch.equal(out[image], torch.stack(rows))
    out.sum().backward()
    assert registers.weight.grad.unique().tolist() == [2]  # the sum over the images
    with pytest.raises(ValueError, match="count must be at least 1, got 0"):
        Registers(6, 0)


@DTYPES
def test_swiglu_equals_timm(dtype):
    ours = nn.Sequential(nn.Linear(8, 32), SwiGLU(), nn.Linear(16, 8))
    names = {f"{i}.{w}": f"fc{n}.{w}" for i, n in ((0, 1), (2, 2)) for w in WB}
    same_as(ours, SwiGLUPacked(8, 32), names, 2, 3, 8, dtype=dtype)


WB = ("weight", "bias")


@DTYPES
def test_attention_pool_equals_timm(dtype):
    norm = functools.partial(nn.LayerNorm, eps=1e-6)
    theirs = AttentionPoolLatent(24, num_heads=3, norm_layer=norm)
    pairs = {"out_proj": "proj", "mlp_block.layer_norm": "norm"}
    pairs |= {"mlp_block.mlp.0": "mlp.fc1", "mlp_block.mlp.3": "mlp.fc2"}
    names = {f"{a}.{w}": f"{b}.{w}" for a, b in pairs.items() for w in WB}
    same_as(AttentionPool(24, 3, 96), theirs, names, 2, 7, 24, dtype=dtype)


@DTYPES
@pytest.mark.parametrize("qkv_bias", [True, False])
def test_attention_with_qk_norm_equals_timm(dtype, qkv_bias):
    options = {"qkv_bias": qkv_bias, "qk_norm": True}
    theirs = Attention(24, 3, norm_layer=nn.LayerNorm, **options)
    names = {f"out_proj.{w}": f"proj.{w}" for w in WB}
    same_as(ModernAttention(24, 3, **options), theirs, names, 2, 7, 24, dtype=dtype)


# Rotary positions


def test_rotate_equals_complex_numbers():
    x, angles = tokens(2, 5, 8), tokens(5, 4)
    turned = torch.view_as_complex(x.unflatten(-1, (4, 2))) * torch.exp(1j * angles)
    expected = torch.view_as_real(turned).flatten(-2)
    torch.testing.assert_close(rotate(x, angles.cos(), angles.sin()), expected)
    apart = torch.arange(8).reshape(2, 4).T.flatten()  # 0, 4, 1, 5, ...
    halves = rotate(x, angles.cos(), angles.sin(), half=True)
    neighbours = rotate(x[..., apart], angles.cos(), angles.sin())
    torch.testing.assert_close(halves[..., apart], neighbours)


@pytest.mark.parametrize("kind", ["eva02", "dinov3"])
@pytest.mark.parametrize("grid", [(4, 4), (3, 5), (20, 1)])
def test_rotary_positions_equal_timm(kind, grid):
    if kind == "eva02":
        options = {"in_pixels": False, "ref_feat_shape": [16, 16]}
        theirs = RotaryEmbeddingCat(16, feat_shape=list(grid), **options)
    else:
        theirs = RotaryEmbeddingDinoV3(16, feat_shape=list(grid))
    x = tokens(2, 3, 2 + grid[0] * grid[1], 16, dtype=torch.float32)
    out = RotaryEmbedding(grid, 16, kind, num_prefix_tokens=2)(x)
    assert torch.equal(out[:, :, :2], x[:, :, :2])
    expected = apply_rot_embed_cat(x[:, :, 2:], theirs.get_embed(), kind == "dinov3")
    torch.testing.assert_close(out[:, :, 2:], expected, atol=1e-6, rtol=0)


def test_a_model_with_rotary_positions_goes_to_half_precision():
    rope = RotaryEmbedding((2, 2), 16, "dinov3", num_prefix_tokens=0).half()
    x = tokens(1, 2, 4, 16, dtype=torch.float16)
    assert rope(x).dtype == torch.float16


def test_rotary_arguments_are_checked():
    for kind, size in (("dinov2", 16), ("dinov3", 6)):
        with pytest.raises(ValueError, match=f"got {kind!r} and {size}"):
            RotaryEmbedding((2, 2), size, kind)


# The model

SMALL = {"depth": 2, "embed_dim": 192, "num_heads": 3, "num_classes": 5}
SIZES = {  # timm's names; image sizes of four by four patches
    "vit_tiny_patch16_224": {"img_size": 64},
    "deit3_small_patch16_224": {"img_size": 64},
    "vit_small_patch14_dinov2": {"img_size": 56},
    "vit_small_patch14_reg4_dinov2": {"img_size": 56},
    "vit_giant_patch14_reg4_dinov2": {"img_size": 56},
    "vit_base_patch16_siglip_224": {"img_size": 64},
    "eva02_tiny_patch14_224": {"img_size": 56},
    "eva02_base_patch14_224": {"img_size": 56},
    # Not dynamic: the angles are then single precision in both, also in fp64.
    "vit_small_patch16_dinov3": {"img_size": 64, "dynamic_img_size": False},
    "vit_small_patch16_dinov3_qkvb": {"img_size": 64, "dynamic_img_size": False},
    "vit_small_plus_patch16_dinov3": {"img_size": 64, "dynamic_img_size": False},
}


def equals(ours, theirs, images, dtype):
    """Asserts equal features, logits and gradients of every parameter."""
    ours.to(dtype), theirs.to(dtype)
    tolerance = {"atol": TOLERANCE[dtype], "rtol": TOLERANCE[dtype]}
    expected, logits = theirs.forward_features(images), theirs(images)
    torch.testing.assert_close(ours.forward_features(images), expected, **tolerance)
    torch.testing.assert_close(ours(images), logits, **tolerance)
    assert logits.std(dim=0).min() > 1e-3, "all images look alike"
    weights = tokens(*logits.shape, dtype=dtype)
    gradients = []
    for model, output in ((theirs, logits), (ours, ours(images))):
        parameters = dict(model.named_parameters())
        found = torch.autograd.grad((output * weights).sum(), parameters.values())
        gradients.append(dict(zip(parameters, found, strict=True)))
    expected, found = to_modern_names(gradients[0]), gradients[1]
    assert set(expected) == set(found)
    for name, gradient in found.items():
        if name.endswith("qkv.bias") and not expected[name].chunk(3)[1].any():
            gradient[len(gradient) // 3 : 2 * len(gradient) // 3] = 0  # keys have none
        scale = max(1.0, expected[name].abs().max().item())
        difference = (gradient - expected[name]).abs().max().item() / scale
        assert difference < TOLERANCE[dtype], name


@functools.cache
def pair(name, folder, **overrides):
    torch.manual_seed(0)
    theirs = timm.create_model(name, **SMALL | SIZES[name] | overrides)
    fill(theirs).eval()
    path = folder / f"{name}.safetensors"
    save_file(theirs.state_dict(), path)
    pool = {"pool": "mean"} if "dinov3" in name else {}  # timm's default there
    img_size = SIZES[name]["img_size"]
    ours = load_pretrained(path, build=build_modern_vit, img_size=img_size, **pool)
    return ours, theirs


@DTYPES
@pytest.mark.parametrize("name", SIZES)
def test_backbone_equals_timm(name, dtype, tmp_path_factory):
    ours, theirs = pair(name, tmp_path_factory.getbasetemp())
    size = SIZES[name]["img_size"]
    equals(ours, theirs, tokens(2, 3, size, size, dtype=dtype), dtype)
    assert ours.preprocessing["img_size"] == size
    for key in ("mean", "std"):
        assert ours.preprocessing[key] == theirs.default_cfg[key]


def test_a_family_brings_its_mean_and_std_and_another_model_none():
    """What `load_pretrained` says for its source must not be overwritten by a guess."""
    for name in SIZES:
        theirs = timm.create_model(name, **SMALL | SIZES[name])
        found = build_modern_vit(theirs.state_dict()).preprocessing
        noted = {key: theirs.default_cfg[key] for key in ("mean", "std")}
        expected = {} if name == "vit_tiny_patch16_224" else noted
        assert {k: v for k, v in found.items() if k != "img_size"} == expected, name


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "vit_tiny_patch16_224",
        "vit_small_patch14_reg4_dinov2",
        "vit_small_patch16_dinov3",
        "vit_base_patch16_siglip_224",
        "eva02_tiny_patch14_224",
    ],
)
def test_backbone_of_full_size_equals_timm(name, tmp_path):
    torch.manual_seed(0)
    theirs = fill(timm.create_model(name, num_classes=10)).eval()
    path = tmp_path / "backbone.safetensors"
    save_file(theirs.state_dict(), path)
    pool = {"pool": "mean"} if "dinov3" in name else {}
    ours = load_pretrained(path, build=build_modern_vit, **pool)
    size = ours.preprocessing["img_size"]
    equals(ours, theirs, tokens(2, 3, size, size, dtype=torch.float32), torch.float32)


def test_without_options_it_is_the_vit_of_2020():
    sizes = {"img_size": 32, "patch_size": 8, "num_transformer_layers": 2}
    sizes |= {"embedding_dim": 24, "mlp_size": 40, "num_heads": 3, "num_classes": 5}
    for options in ({}, {"pool": "mean", "class_token": False}):
        plain = fill(ViT(**sizes, pool=options.get("pool", "cls"))).eval()
        modern = ModernViT(**sizes, **options).eval()
        modern.load_state_dict(plain.state_dict())
        x = tokens(2, 3, 32, 32, dtype=torch.float32)
        assert torch.equal(modern(x), plain(x))


def test_positions_are_resized_as_by_timm(tmp_path):
    """Registers and class tokens have no place: only the patches' rows are resized."""
    for name, size in (
        ("vit_small_patch14_reg4_dinov2", 84),
        ("deit3_small_patch16_224", 96),
    ):
        theirs = fill(timm.create_model(name, **SMALL | SIZES[name])).eval()
        path = tmp_path / f"{name}.safetensors"
        save_file(theirs.state_dict(), path)
        theirs.set_input_size(size)
        ours = load_pretrained(path, build=build_modern_vit, img_size=size)
        x = tokens(1, 3, size, size, dtype=torch.float32)
        torch.testing.assert_close(ours(x), theirs(x), atol=1e-5, rtol=1e-5)


def test_the_heads_of_dinov3_huge_plus():
    """As wide as the ViT-H of 2020, with other heads: no shape would show it."""
    torch.manual_seed(0)
    options = {"depth": 1, "img_size": 32, "num_classes": 0, "global_pool": "token"}
    theirs = fill(timm.create_model("vit_huge_plus_patch16_dinov3", **options)).eval()
    ours = build_modern_vit(theirs.state_dict(), img_size=32).eval()
    x = tokens(1, 3, 32, 32, dtype=torch.float32)
    with torch.no_grad():
        found, expected = ours.forward_features(x), theirs.forward_features(x)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def test_attention_maps_see_norm_and_rotation(tmp_path_factory):
    """Lesson 13's tools work on the new attention, which turns queries and keys."""
    ours, _ = pair("vit_small_patch16_dinov3", tmp_path_factory.getbasetemp())
    ours.float()
    x = tokens(2, 3, 64, 64, dtype=torch.float32)
    with torch.no_grad(), record_attention(ours) as maps:
        logits = ours(x)
    torch.testing.assert_close(logits, ours(x), atol=1e-5, rtol=1e-5)
    again, _ = attention_gradients(ours, x)
    for recorded, differentiated in zip(maps, again, strict=True):
        torch.testing.assert_close(recorded, differentiated)


@pytest.mark.parametrize("pool, token", [("cls", False), ("max", True)])
def test_a_pool_that_does_not_fit_is_named(pool, token):
    with pytest.raises(ValueError, match=f"got '{pool}' with class_token={token}"):
        ModernViT(pool=pool, class_token=token)


def test_images_of_another_size_are_refused():
    """Also where the number of patches is the same, and no table would notice."""
    sizes = {"img_size": 32, "patch_size": 8, "num_transformer_layers": 1}
    sizes |= {"embedding_dim": 24, "mlp_size": 40, "num_heads": 3}
    vit = ModernViT(**sizes, position="none", rope="dinov3", num_classes=2)
    with pytest.raises(ValueError, match=r"size \(32, 32\), got \(1, 3, 16, 64\)"):
        vit(torch.zeros(1, 3, 16, 64))


OTHERS = {
    "deit_tiny_distilled_patch16_224": "a distillation token",
    "vit_base_patch32_clip_224": "a LayerNorm before the blocks",
    "vit_small_patch16_rope_mixed_224": "learned rotary positions",
    # Nothing has a name that tells of it, but something is missing.
    "vit_small_patch16_rope_224": "no position embedding, and to be DINOv3 it lacks "
    "registers, keys without a bias",
    "vit_base_patch16_rope_reg1_gap_256": "no position embedding, and to be DINOv3 it "
    "lacks a class token",
    "vit_base_patch16_rpn_224": "a LayerNorm after each branch (res-post-norm)",
}


@pytest.mark.parametrize("name", OTHERS)
def test_a_part_that_is_still_missing_is_named(name, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file(fill(timm.create_model(name, depth=1)).state_dict(), path)
    message = re.escape(f"it has {OTHERS[name]}; our ViT is another")
    with pytest.raises(ValueError, match=message):
        load_pretrained(path, build=build_modern_vit)


# Hugging Face

COMMON = {"hidden_size": 192, "num_hidden_layers": 2, "num_attention_heads": 3}
HUGGING_FACE = {
    "ViT": (ViTModel, ViTConfig, {"patch_size": 16, "image_size": 64}),
    "DINOv2": (Dinov2Model, Dinov2Config, {"patch_size": 14, "image_size": 56}),
    "DINOv2 with registers": (
        Dinov2WithRegistersModel,
        Dinov2WithRegistersConfig,
        {"patch_size": 14, "image_size": 56},
    ),
    "DINOv3": (
        DINOv3ViTModel,
        DINOv3ViTConfig,
        {"patch_size": 16, "image_size": 64, "num_register_tokens": 4},
    ),
}


@pytest.mark.parametrize("name", HUGGING_FACE)
def test_the_names_of_hugging_face(name, tmp_path):
    kind, config, sizes = HUGGING_FACE[name]
    if name in ("ViT", "DINOv3"):
        sizes = sizes | {"intermediate_size": 400}
    torch.manual_seed(0)
    theirs = fill(kind(config(**COMMON, **sizes))).eval()
    theirs.save_pretrained(tmp_path)  # with the names of published files
    size = sizes["image_size"]
    path = tmp_path / "model.safetensors"
    eps = {"eps": theirs.config.layer_norm_eps}
    ours = load_pretrained(path, build=build_modern_vit, img_size=size, **eps)
    x = tokens(2, 3, size, size, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs(pixel_values=x).last_hidden_state
        torch.testing.assert_close(
            ours.forward_features(x), expected, atol=1e-5, rtol=1e-5
        )
    state = {n: t for n, t in theirs.state_dict().items() if "pooler" not in n}
    same = build_modern_vit(state, img_size=size, **eps)
    for key, value in same.state_dict().items():
        if not key.startswith("head"):
            assert torch.equal(value, ours.state_dict()[key]), key


# DINO's authors


def of_authors(theirs):
    """Weights of timm under the names of the repositories dinov2 and dinov3."""
    state = {}
    for name, tensor in theirs.state_dict().items():
        state[name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")] = (
            tensor
        )
    registers = state.pop("reg_token")
    width = registers.shape[-1]
    state["mask_token"] = torch.ones(1, width)
    if "pos_embed" in state:  # DINOv2: also a position for the class token
        state["register_tokens"] = registers
        rows = [torch.randn(1, 1, width), state["pos_embed"]]
        return state | {"pos_embed": torch.cat(rows, dim=1)}
    state["storage_tokens"] = registers
    state["rope_embed.periods"] = torch.ones(16)
    for i in range(len(theirs.blocks)):
        bias = torch.randn(3 * width)
        bias[width : 2 * width] = 0  # the keys', which the mask leaves out
        mask = torch.ones(3 * width)
        mask[width : 2 * width] = 0
        state[f"blocks.{i}.attn.qkv.bias"] = bias
        state[f"blocks.{i}.attn.qkv.bias_mask"] = mask
        for name in ("q_bias", "v_bias"):
            state.pop(f"blocks.{i}.attn.{name}")
        state.pop(f"blocks.{i}.attn.k_bias", None)
    return state


@pytest.mark.parametrize(
    "name, convert",
    [
        ("vit_small_patch14_reg4_dinov2", timm.models.vision_transformer),
        ("vit_small_patch16_dinov3_qkvb", timm.models.eva),
    ],
)
def test_the_names_of_dinos_authors(name, convert, tmp_path):
    """timm converts the same file by its own code."""
    torch.manual_seed(0)
    sizes = SMALL | SIZES[name] | {"num_classes": 0}
    theirs = fill(timm.create_model(name, **sizes)).eval()
    state = of_authors(theirs)
    path = tmp_path / "authors.safetensors"
    save_file(state, path)
    theirs.load_state_dict(convert.checkpoint_filter_fn(dict(state), theirs))
    size = SIZES[name]["img_size"]
    ours = load_pretrained(path, build=build_modern_vit, img_size=size)
    x = tokens(2, 3, size, size, dtype=torch.float32)
    with torch.no_grad():
        expected = theirs.forward_features(x)
        found = ours.forward_features(x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
