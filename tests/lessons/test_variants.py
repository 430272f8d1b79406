"""Lesson 00b: the parameter formula against Table 1, torchvision and timm."""

import dataclasses

import pytest
import timm
import torch
from torchvision.models import VisionTransformer

from going_modular.variants import (
    REPORTED_MILLIONS,
    TABLE_3,
    VARIANTS,
    ViTVariant,
    count_parameters,
)

# (1000 classes, 3 classes), counted on torchvision's and timm's models.
EXACT = {
    "vit_base_16": (86_567_656, 85_800_963),
    "vit_base_32": (88_224_232, 87_457_539),
    "vit_large_16": (304_326_632, 303_304_707),
    "vit_large_32": (306_535_400, 305_513_475),
    "vit_huge_14": (632_045_800, 630_768_643),
}


@pytest.mark.parametrize("name", EXACT)
def test_exact_counts(name):
    counts = [sum(count_parameters(VARIANTS[name], k).values()) for k in (1000, 3)]
    assert tuple(counts) == EXACT[name]


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize("num_classes", [1, 3, 1000])
def test_counts_equal_torchvision(name, num_classes):
    v = VARIANTS[name]
    with torch.device("meta"):
        theirs = VisionTransformer(
            v.img_size,
            v.patch_size,
            v.num_transformer_layers,
            v.num_heads,
            v.embedding_dim,
            v.mlp_size,
            num_classes=num_classes,
        )
    total = sum(p.numel() for p in theirs.parameters())
    ours = count_parameters(v, num_classes)
    assert sum(ours.values()) == total
    assert ours["patch embedding"] == sum(
        p.numel() for p in theirs.conv_proj.parameters()
    )
    assert ours["position embedding"] == theirs.encoder.pos_embedding.numel()
    assert ours["encoder"] == sum(p.numel() for p in theirs.encoder.layers.parameters())


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_deit_sizes_equal_timm(name):
    with torch.device("meta"):
        theirs = timm.create_model(f"vit_{name}_patch16_224")
    ours = sum(count_parameters(VARIANTS[f"vit_{name}_16"]).values())
    assert ours == sum(p.numel() for p in theirs.parameters())


def test_table_1_rounds_to_what_the_paper_prints():
    fits = {"Base": "vit_base_16", "Large": "vit_large_32", "Huge": "vit_huge_14"}
    for size, name in fits.items():
        millions = sum(count_parameters(VARIANTS[name]).values()) / 1e6
        # The paper cuts Base to 86M and rounds the others.
        assert abs(millions - REPORTED_MILLIONS[size]) < 1


def test_table_3():
    assert len(TABLE_3) == 13
    imagenet = TABLE_3[-1]
    assert (imagenet.epochs, imagenet.base_lr, imagenet.lr_decay) == (
        (300,),
        3e-3,
        "cosine",
    )
    assert (imagenet.weight_decay, imagenet.dropout) == (0.3, 0.1)
    assert {recipe.lr_decay for recipe in TABLE_3} == {"linear", "cosine"}
    assert all(recipe.dropout == 0 for recipe in TABLE_3 if "JFT" in recipe.dataset)


def test_a_variant_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        VARIANTS["vit_base_16"].num_heads = 1


def test_patches_must_fill_the_image():
    with pytest.raises(ValueError, match="100 and 16"):
        ViTVariant(1, 8, 16, 2, img_size=100)


@pytest.mark.parametrize("size", [f.name for f in dataclasses.fields(ViTVariant)])
@pytest.mark.parametrize("value", [0, -16])
def test_sizes_are_positive(size, value):
    """224 is a multiple of -16, too."""
    with pytest.raises(ValueError, match=f"at least 1, got .*{size}={value}"):
        dataclasses.replace(VARIANTS["vit_base_16"], **{size: value})


@pytest.mark.parametrize("classes, channels", [(0, 3), (-1, 3), (10, 0)])
def test_bad_counts(classes, channels):
    with pytest.raises(ValueError, match=f"{classes} and {channels}"):
        count_parameters(ViTVariant(1, 8, 16, 2), classes, channels)
