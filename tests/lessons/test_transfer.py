"""Lesson 12: weights of torchvision, timm and the official code in our ViT."""

import functools
import hashlib
import io
import re
import urllib.error

import numpy as np
import pytest
import timm
import torch
from comparing import MakesFile, fill
from PIL import Image
from safetensors.torch import load_file, save_file
from serving import serving
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import (
    VisionTransformer,
    ViT_B_16_Weights,
    ViT_B_32_Weights,
    ViT_H_14_Weights,
    ViT_L_16_Weights,
    ViT_L_32_Weights,
    Weights,
    WeightsEnum,
)
from torchvision.transforms._presets import ImageClassification

from going_modular.data_setup import create_transform
from going_modular.position_embedding import interpolate_position_embedding
from going_modular.transfer import (
    HEADS,
    extract_features,
    freeze,
    load_pretrained,
    load_weights,
    read_npz,
    replace_head,
    to_our_names,
)
from going_modular.vit import ViT

POSITIONS = "embedding.position_embedding.weight"
TOKEN = "embedding.class_token.weight"
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
# D and heads that go together in published models.
WIDTHS = [(192, 3), (384, 6), (1280, 16), (1408, 16)]


def in_torchvision(dim=192, heads=3, classes=5):
    torch.manual_seed(0)
    return fill(VisionTransformer(32, 8, 2, heads, dim, 40, num_classes=classes)).eval()


def in_timm(dim=192, heads=3, classes=5, img_size=32, **options):
    torch.manual_seed(0)
    sizes = {"embed_dim": dim, "depth": 2, "num_heads": heads, "mlp_ratio": 40 / dim}
    vit = timm.models.VisionTransformer(img_size, 8, 3, classes, **options, **sizes)
    return fill(vit).eval()


def ours(**overrides):
    sizes = {"img_size": 32, "patch_size": 8, "num_transformer_layers": 2}
    sizes |= {"embedding_dim": 192, "mlp_size": 40, "num_heads": 3, "num_classes": 5}
    return fill(ViT(**sizes | overrides)).eval()


def images(size=32):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(4, 3, size, size, generator=generator)


@torch.no_grad()
def assert_same_logits(vit, theirs, x=None):
    """Asserts equal logits, and that there is something to compare."""
    x = images() if x is None else x
    expected = theirs(x)
    assert expected.std(dim=0).min() > 0.01, "all images look alike"
    torch.testing.assert_close(vit(x), expected, atol=2e-6, rtol=2e-6)


def saved(state, path):
    (save_file if path.suffix == ".safetensors" else torch.save)(dict(state), path)
    return path


def equal(state, other, but=()):
    """Asserts that two state dicts hold the same, but for some names."""
    assert set(state) == set(other)
    for name in set(state) - set(but):
        assert torch.equal(state[name], other[name]), name
    for name in but:
        assert not torch.equal(state[name], other[name]), name


# torchvision and timm


@pytest.mark.parametrize("dim, heads", WIDTHS)
def test_equals_torchvision(tmp_path, dim, heads):
    theirs = in_torchvision(dim, heads)
    vit = load_pretrained(saved(theirs.state_dict(), tmp_path / "vit.pth"))
    assert not vit.training
    assert vit.preprocessing == {"img_size": 32} | IMAGENET
    assert_same_logits(vit, theirs)


@pytest.mark.parametrize("ending", [".safetensors", ".pth", ".pt", ".bin"])
def test_any_kind_of_file(tmp_path, ending):
    theirs = in_torchvision()
    path = saved(theirs.state_dict(), tmp_path / f"vit{ending}")
    assert_same_logits(load_pretrained(str(path)), theirs)


def test_the_older_names_of_torchvision(tmp_path):
    """The files that torchvision offers are that old; it renames when it loads them."""
    theirs, state = in_torchvision(), {}
    for name, tensor in theirs.state_dict().items():
        name = name.replace(".mlp.0.", ".mlp.linear_1.")
        state[name.replace(".mlp.3.", ".mlp.linear_2.")] = tensor
    assert "encoder.layers.encoder_layer_1.mlp.linear_2.bias" in state
    fill(theirs).load_state_dict(dict(state))  # torchvision itself reads these names
    path = saved(state, tmp_path / "vit.pth")
    assert_same_logits(load_pretrained(path), theirs)


@pytest.mark.parametrize("dim, heads", WIDTHS)
def test_equals_timm(tmp_path, dim, heads):
    theirs = in_timm(dim, heads)
    vit = load_pretrained(saved(theirs.state_dict(), tmp_path / "vit.safetensors"))
    assert not vit.training
    assert vit.preprocessing == {"img_size": 32} | HALF
    assert_same_logits(vit, theirs)


def test_timm_without_class_token(tmp_path):
    options = {"class_token": False, "global_pool": "avg", "fc_norm": False}
    theirs = in_timm(**options)
    vit = load_pretrained(saved(theirs.state_dict(), tmp_path / "vit.pth"))
    assert vit.pool == "mean"
    assert_same_logits(vit, theirs)


def test_timm_with_another_last_norm_is_refused(tmp_path):
    """fc_norm=True takes the mean first, then a LayerNorm: another model."""
    theirs = in_timm(class_token=False, global_pool="avg", fc_norm=True)
    path = saved(theirs.state_dict(), tmp_path / "vit.pth")
    with pytest.raises(ValueError, match="fc_norm") as caught:
        load_pretrained(path)
    assert str(path) in str(caught.value)


def test_weights_without_a_head(tmp_path):
    theirs = in_timm(classes=0)
    vit = load_pretrained(saved(theirs.state_dict(), tmp_path / "vit.pth"))
    assert vit.head.out_features == 1000
    vit.head = nn.Identity()
    assert_same_logits(vit, theirs)


def test_our_own_names_stay(tmp_path):
    theirs = ours()
    vit = load_pretrained(saved(theirs.state_dict(), tmp_path / "vit.pth"))
    equal(vit.state_dict(), theirs.state_dict())
    assert_same_logits(vit, theirs)
    assert set(to_our_names(theirs.state_dict())) == set(theirs.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_half_precision_becomes_single(tmp_path, dtype, ending):
    theirs = in_torchvision().to(dtype)
    vit = load_pretrained(saved(theirs.state_dict(), tmp_path / f"vit{ending}"))
    assert {p.dtype for p in vit.parameters()} == {torch.float32}
    assert_same_logits(vit, theirs.float())


# The official code


def official(theirs, heads):
    """torchvision's ViT as the official code stores it: heads have their own axis."""
    weights = {k: v.detach().numpy() for k, v in theirs.state_dict().items()}
    raw = {
        "cls": weights["class_token"],
        "Transformer/posembed_input/pos_embedding": weights["encoder.pos_embedding"],
        "embedding/kernel": np.einsum("oihw->hwio", weights["conv_proj.weight"]),
        "embedding/bias": weights["conv_proj.bias"],
        "Transformer/encoder_norm/scale": weights["encoder.ln.weight"],
        "Transformer/encoder_norm/bias": weights["encoder.ln.bias"],
        "head/kernel": np.einsum("kd->dk", weights["heads.head.weight"]),
        "head/bias": weights["heads.head.bias"],
    }
    dim = raw["cls"].shape[-1]
    for i in range(2):
        block = f"Transformer/encoderblock_{i}"
        layer = f"encoder.layers.encoder_layer_{i}"
        msa = f"{block}/MultiHeadDotProductAttention_1"
        matrix = weights[f"{layer}.self_attention.in_proj_weight"]
        bias = weights[f"{layer}.self_attention.in_proj_bias"]
        for part, name in enumerate(("query", "key", "value")):
            rows = slice(part * dim, (part + 1) * dim)
            kernel = np.empty((dim, heads, dim // heads), np.float32)
            for row, numbers in enumerate(matrix[rows]):
                kernel[:, row // (dim // heads), row % (dim // heads)] = numbers
            raw[f"{msa}/{name}/kernel"] = kernel
            raw[f"{msa}/{name}/bias"] = bias[rows].reshape(heads, dim // heads)
        out = weights[f"{layer}.self_attention.out_proj.weight"]
        raw[f"{msa}/out/kernel"] = out.T.reshape(heads, dim // heads, dim)
        raw[f"{msa}/out/bias"] = weights[f"{layer}.self_attention.out_proj.bias"]
        for name, norm in (("LayerNorm_0", "ln_1"), ("LayerNorm_2", "ln_2")):
            raw[f"{block}/{name}/scale"] = weights[f"{layer}.{norm}.weight"]
            raw[f"{block}/{name}/bias"] = weights[f"{layer}.{norm}.bias"]
        for name, dense in (("Dense_0", "mlp.0"), ("Dense_1", "mlp.3")):
            mlp = f"{block}/MlpBlock_3/{name}"
            raw[f"{mlp}/kernel"] = weights[f"{layer}.{dense}.weight"].T
            raw[f"{mlp}/bias"] = weights[f"{layer}.{dense}.bias"]
    return raw


def write(raw, path):
    with path.open("wb") as file:
        np.savez(file, **raw)
    return path


@pytest.mark.parametrize("dim, heads", WIDTHS)
def test_equals_the_official_file(tmp_path, dim, heads):
    theirs = in_torchvision(dim, heads)
    path = write(official(theirs, heads), tmp_path / "vit.npz")
    vit = load_pretrained(path)
    assert not vit.training
    assert vit.preprocessing == {"img_size": 32} | HALF
    assert_same_logits(vit, theirs)
    assert len(read_npz(path)) == len(theirs.state_dict())


def test_the_official_file_tells_its_heads(tmp_path):
    """Its kernels are (D, heads, D_h), so no width has to be looked up."""
    for dim, heads in [(192, 6), (96, 4)]:
        theirs = in_torchvision(dim, heads)
        path = write(official(theirs, heads), tmp_path / "vit.npz")
        assert_same_logits(load_pretrained(path), theirs)
    vit = load_pretrained(path, num_heads=2)
    assert vit.encoder[0].msa_block.attention.num_heads == 2


def test_a_head_on_a_further_layer_is_left_out(tmp_path):
    theirs = in_torchvision()
    extra = {"pre_logits/kernel": np.eye(192), "pre_logits/bias": np.zeros(192)}
    path = write(official(theirs, 3) | extra, tmp_path / "vit.npz")
    assert not any("head" in name for name in read_npz(path))
    vit = load_pretrained(path, num_classes=5)
    assert not torch.equal(vit.head.weight, theirs.heads.head.weight)
    vit.head, theirs.heads = nn.Identity(), nn.Identity()
    assert_same_logits(vit, theirs)


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions_of_the_official_code(tmp_path, dtype):
    raw = {k: v.astype(dtype) for k, v in official(in_torchvision(), 3).items()}
    vit = load_pretrained(write(raw, tmp_path / "vit.npz"))
    assert {p.dtype for p in vit.parameters()} == {torch.float32}
    bias = raw["head/bias"].astype(np.float32)
    np.testing.assert_array_equal(vit.head.bias.detach().numpy(), bias)


def refused(path, *words, **options):
    """Asserts that the file is refused by its name, in a sentence with these words."""
    with pytest.raises(ValueError) as caught:
        load_pretrained(path, **options)
    text = str(caught.value)
    assert str(path) in text
    for word in words:
        assert word in text and len(text) < len(str(path)) + 300


@pytest.mark.parametrize(
    "missing",
    [
        "cls",
        "embedding/bias",
        "head/bias",
        "Transformer/encoder_norm/scale",
        "Transformer/encoderblock_1/MlpBlock_3/Dense_1/kernel",
        "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/key/bias",
    ],
)
def test_an_official_file_that_lacks_something(tmp_path, missing):
    raw = official(in_torchvision(), 3)
    del raw[missing]
    refused(write(raw, tmp_path / "vit.npz"))


def test_an_official_file_with_one_layer_too_many(tmp_path):
    raw, new = official(in_torchvision(), 3), {}
    for name, array in raw.items():
        new[name.replace("encoderblock_1", "encoderblock_2")] = array
    path = write(raw | new, tmp_path / "vit.npz")
    assert len(load_pretrained(path).encoder) == 3
    del new["Transformer/encoderblock_2/LayerNorm_2/bias"]
    refused(write(raw | new, path))


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.999])
def test_a_truncated_official_file(tmp_path, share):
    path = write(official(in_torchvision(), 3), tmp_path / "vit.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path)


def test_one_wrong_bit_in_an_official_file(tmp_path):
    path = write(official(in_torchvision(), 3), tmp_path / "vit.npz")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused(path)


@pytest.mark.parametrize("content", [b"hello", b"<html>", bytes(100), b"\x80\x02}."])
def test_garbage_for_an_official_file(tmp_path, content):
    (tmp_path / "vit.npz").write_bytes(content)
    refused(tmp_path / "vit.npz")


@pytest.mark.parametrize(
    "array",
    [np.array(["text"]), np.zeros(2, "V2"), np.ones(3)],
    ids=["text", "no numbers", "another shape"],
)
def test_other_arrays_in_an_official_file(tmp_path, array):
    raw = official(in_torchvision(), 3)
    refused(write(raw | {"embedding/kernel": array}, tmp_path / "vit.npz"))


def test_a_single_array_for_an_official_file(tmp_path):
    with (tmp_path / "vit.npz").open("wb") as file:
        np.save(file, np.ones(3))
    refused(tmp_path / "vit.npz")


def test_code_in_an_official_file_is_not_run(tmp_path):
    made = tmp_path / "made"
    objects = np.array([MakesFile(made)], dtype=object)
    path = write(official(in_torchvision(), 3) | {"cls": objects}, tmp_path / "a.npz")
    np.load(path, allow_pickle=True)["cls"]
    made.unlink()  # without an error: the code works
    refused(path)
    assert not made.exists()


# Weights as people hold them: heads, prefixes, files of runs, parts that ours lacks


def heads_of_timm(name):
    with torch.device("meta"):
        vit = timm.create_model(f"vit_{name}")
    return vit.embed_dim, vit.blocks[0].attn.num_heads


def test_the_table_of_heads_is_that_of_published_models():
    names = ["tiny_patch16_224", "small_patch16_224", "base_patch32_224"]
    names += ["large_patch16_224", "huge_patch14_224", "giant_patch14_224"]
    assert HEADS == dict(map(heads_of_timm, [*names, "gigantic_patch14_224"]))


@pytest.mark.parametrize("dim, heads", [(64, 4), (64, 1), (128, 2), (1536, 24)])
@pytest.mark.parametrize("make", [in_torchvision, in_timm])
def test_heads_are_asked_for_and_not_guessed(tmp_path, dim, heads, make):
    theirs = make(dim, heads)
    path = saved(theirs.state_dict(), tmp_path / "vit.pth")
    refused(path, f"D = {dim}", "say num_heads=")
    assert_same_logits(load_pretrained(path, num_heads=heads), theirs)


def test_another_number_of_heads_may_be_said(tmp_path):
    theirs = in_torchvision(192, heads=8)
    path = saved(theirs.state_dict(), tmp_path / "vit.pth")
    assert_same_logits(load_pretrained(path, num_heads=8), theirs)


def test_nothing_is_said_of_plain_files(tmp_path, recwarn):
    for make in (in_torchvision, in_timm, ours):
        load_pretrained(saved(make().state_dict(), tmp_path / "vit.pth"))
    assert not [w for w in recwarn if "vit.pth" in str(w.message)]


PREFIXES = ["module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod."]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("make", [in_torchvision, in_timm, ours])
def test_a_prefix_of_all_names_is_left_off(tmp_path, prefix, make):
    theirs = make()
    state = {f"{prefix}{name}": t for name, t in theirs.state_dict().items()}
    path = saved(state, tmp_path / "vit.safetensors")
    with pytest.warns(UserWarning, match=f"{path}: '{prefix}' before all names"):
        vit = load_pretrained(path)
    assert_same_logits(vit, theirs)


WRAPPERS = {"module.": nn.DataParallel, "_orig_mod.": torch.compile}


@pytest.mark.parametrize("prefix", WRAPPERS)
def test_the_prefixes_are_those_of_torch(tmp_path, prefix):
    theirs = in_torchvision()
    state = WRAPPERS[prefix](theirs).state_dict()
    assert all(name.startswith(prefix) for name in state)
    with pytest.warns(UserWarning, match=f"'{prefix}' before all names is left off"):
        vit = load_pretrained(saved(state, tmp_path / "vit.pth"))
    assert_same_logits(vit, theirs)


def test_a_prefix_of_some_names_only(tmp_path):
    state = {f"model.{k}": v for k, v in in_torchvision().state_dict().items()}
    path = saved(state | {"loss.weight": torch.ones(5)}, tmp_path / "vit.pth")
    refused(path, "not all names begin with 'model.': loss.weight")


def test_an_averaged_model(tmp_path):
    theirs = in_torchvision()
    averaged = torch.optim.swa_utils.AveragedModel(theirs)
    for _ in range(2):
        averaged.update_parameters(fill(theirs))
    path = saved(averaged.state_dict(), tmp_path / "vit.pth")
    with pytest.warns(UserWarning) as said:
        vit = load_pretrained(path)
    texts = [str(w.message) for w in said]
    assert f"{path}: not used: n_averaged" in texts
    assert f"{path}: 'module.' before all names is left off" in texts
    assert_same_logits(vit, averaged)


def a_run(model):
    """What a run saves beside the weights, from torch's own objects."""
    optimizer = torch.optim.AdamW(model.parameters())
    model(images()).square().mean().backward()
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 2)
    rest = {"optimizer": optimizer.state_dict(), "lr": scheduler.state_dict()}
    rest |= {"scaler": torch.amp.GradScaler("cpu").state_dict(), "callbacks": {}}
    return rest | {"epoch": 3, "rng": {"cpu": torch.get_rng_state()}, "loss": 0.5}


@pytest.mark.parametrize("name", ["state_dict", "model", "model_state_dict"])
@pytest.mark.parametrize("ending", [".pth", ".ckpt"])
def test_the_state_dict_in_the_file_of_a_run(tmp_path, name, ending):
    theirs = in_torchvision()
    content = a_run(theirs) | {name: theirs.state_dict()}
    path = saved(content, tmp_path / f"run{ending}")
    assert_same_logits(load_pretrained(path), theirs)
    assert_same_logits(load_pretrained(path, part=name), theirs)
    refused(path, f"say part='{name}'", part="ema")


def test_the_file_of_a_lightning_run(tmp_path):
    """Lightning saves a module's names; the network is an attribute of it."""
    theirs = in_timm()
    state = {f"model.{k}": v for k, v in theirs.state_dict().items()}
    content = {"state_dict": state, "epoch": 1, "pytorch-lightning_version": "2.5"}
    path = saved(content | {"optimizer_states": []}, tmp_path / "last.ckpt")
    with pytest.warns(UserWarning, match="'model.' before all names"):
        assert_same_logits(load_pretrained(path), theirs)


def test_one_of_several_state_dicts_is_chosen(tmp_path):
    model, average = in_timm(), in_timm()
    fill(average)
    content = {"model": model.state_dict(), "model_ema": average.state_dict()}
    path = saved(content, tmp_path / "run.pth")
    refused(path, "say part='model' or part='model_ema'")
    assert_same_logits(load_pretrained(path, part="model"), model)
    assert_same_logits(load_pretrained(path, part="model_ema"), average)
    refused(path, "say part='model' or part='model_ema'", part="teacher")


NEW_HEADS = {
    "linear": lambda: nn.Linear(192, 3),
    "sequential": lambda: nn.Sequential(nn.Linear(192, 3)),
    "with dropout": lambda: nn.Sequential(nn.Dropout(0.2), nn.Linear(192, 3)),
}


@pytest.mark.parametrize("head", NEW_HEADS.values(), ids=NEW_HEADS)
def test_a_head_that_was_replaced(tmp_path, head):
    for theirs, name in ((in_torchvision(), "heads"), (in_timm(), "head")):
        setattr(theirs, name, fill(head()).eval())
        vit = load_pretrained(saved(theirs.state_dict(), tmp_path / "vit.pth"))
        assert vit.head.out_features == 3
        assert_same_logits(vit, theirs)


def test_a_head_of_several_layers_is_refused(tmp_path):
    theirs = in_torchvision()
    theirs.heads = nn.Sequential(nn.Linear(192, 8), nn.GELU(), nn.Linear(8, 3))
    path = saved(theirs.state_dict(), tmp_path / "vit.pth")
    refused(path, "a head of 2 layers: head.0, head.2")


def with_decoder():
    """The names of MAE's pre-training (facebookresearch/mae, models_mae.py)."""
    state = in_timm(classes=0).state_dict()
    state["mask_token"] = torch.ones(1, 1, 64)
    state["decoder_pos_embed"] = torch.ones(1, 17, 64)
    return state | {"decoder_blocks.0.norm1.weight": torch.ones(64)}


def distilled():
    sizes = {"embed_dim": 192, "depth": 2, "num_heads": 3, "mlp_ratio": 2}
    return timm.models.deit.VisionTransformerDistilled(32, 8, **sizes).state_dict()


def rest_of_dinov2():
    """What its published files have besides timm's plain names, registers included."""
    state = in_timm(init_values=1e-5, classes=0).state_dict()
    return state | {"register_tokens": torch.ones(1, 4, 192)}


def pre_logits():
    vit = VisionTransformer(32, 8, 2, 3, 192, 40, representation_size=16)
    return vit.state_dict()


def of_timm(**options):
    return lambda: in_timm(**options).state_dict()


def without_bias_of_keys():
    """The names of EVA-02's small models: a bias for queries and one for values."""
    state = in_timm(qkv_bias=False).state_dict()
    return state | {f"blocks.0.attn.{p}_bias": torch.ones(192) for p in "qv"}


def learned_rope():
    return in_timm().state_dict() | {"rope.freqs": torch.ones(2, 2, 96)}


OTHERS = {
    "a distillation token": distilled,
    "4 registers": of_timm(reg_tokens=4),
    "4 registers, LayerScale": rest_of_dinov2,
    "LayerScale": of_timm(init_values=1e-5),
    "a LayerNorm on queries and keys (qk_norm)": of_timm(qk_norm=True),
    "no bias for queries, keys and values": of_timm(qkv_bias=False),
    "no bias for keys": without_bias_of_keys,
    "learned rotary positions": learned_rope,
    "attention pooling (map)": of_timm(global_pool="map"),
    "a LayerNorm after the mean (fc_norm)": of_timm(global_pool="avg", fc_norm=True),
    "a LayerNorm before the blocks": of_timm(pre_norm=True),
    "a decoder": with_decoder,
    "a further layer before the head (pre_logits)": pre_logits,
}


@pytest.mark.parametrize("part", OTHERS)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_part_that_ours_lacks_is_named(tmp_path, part, prefix):
    state = {f"{prefix}{name}": tensor for name, tensor in OTHERS[part]().items()}
    path = saved(state, tmp_path / "vit.safetensors")
    refused(path, f"it has {part}; our ViT is another")


def test_many_other_names_become_one_sentence(tmp_path):
    state = in_timm().state_dict()
    others = {f"blocks.{i}.adapter.{i}.weight": torch.ones(2) for i in range(900)}
    path = saved(state | others, tmp_path / "vit.safetensors")
    refused(path, "have besides encoder.0.adapter.0.weight", "and 897 more")
    refused(saved(others, path), "is missing under the names of torchvision, timm")


def test_positions_without_one_for_the_class_token(tmp_path):
    path = saved(of_timm(no_embed_class=True)(), tmp_path / "vit.pth")
    refused(path, "15 patches form no square")
    refused(path, "16 positions fit neither", img_size=32)


def test_rectangular_images_must_be_said(tmp_path):
    theirs = in_timm(img_size=(16, 24))
    path = saved(theirs.state_dict(), tmp_path / "vit.pth")
    refused(path, "6 patches form no square: say img_size=(height, width)")
    vit = load_pretrained(path, img_size=(16, 24))
    assert vit.preprocessing["img_size"] == (16, 24)
    x = torch.randn(4, 3, 16, 24, generator=torch.Generator().manual_seed(1))
    assert_same_logits(vit, theirs, x)
    refused(path, "7 positions fit neither", "for a grid of (4, 4)", img_size=32)


# Hugging Face


class Logits(nn.Module):
    """A model of transformers that gives its logits, as others do."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x).logits


def hugging_face(dim=192, heads=3, eps=1e-6, kind="ViTForImageClassification"):
    import transformers  # takes seconds

    torch.manual_seed(0)
    sizes = {"hidden_size": dim, "num_attention_heads": heads, "intermediate_size": 40}
    sizes |= {"image_size": 32, "patch_size": 8, "num_hidden_layers": 2}
    config = transformers.ViTConfig(**sizes, num_labels=5, layer_norm_eps=eps)
    return fill(getattr(transformers, kind)(config)).eval()


@pytest.mark.parametrize("dim, heads", WIDTHS)
def test_equals_hugging_face(tmp_path, dim, heads):
    """The names of published files, such as those of google/vit-base-patch16-224."""
    theirs = hugging_face(dim, heads)
    theirs.save_pretrained(tmp_path)
    names = load_file(tmp_path / "model.safetensors")
    assert "vit.encoder.layer.1.attention.attention.query.weight" in names
    vit = load_pretrained(tmp_path / "model.safetensors")
    assert vit.preprocessing == {"img_size": 32} | HALF
    assert_same_logits(vit, Logits(theirs))


def test_the_state_dict_of_hugging_face(tmp_path):
    theirs = hugging_face()
    assert "vit.layers.1.attention.q_proj.weight" in theirs.state_dict()
    vit = load_pretrained(saved(theirs.state_dict(), tmp_path / "vit.pth"))
    assert_same_logits(vit, Logits(theirs))
    state = {f"model.{name}": t for name, t in theirs.state_dict().items()}
    with pytest.warns(UserWarning, match="'model.' before all names"):
        vit = load_pretrained(saved(state, tmp_path / "vit.pth"))
    assert_same_logits(vit, Logits(theirs))


@torch.no_grad()
def test_another_eps_of_hugging_face_is_no_matter(tmp_path):
    """Its LayerNorm adds 1e-12 by default; ours 1e-6, as the official code."""
    theirs = hugging_face(eps=1e-12)
    vit = load_pretrained(saved(theirs.state_dict(), tmp_path / "vit.pth"))
    difference = (vit(images()) - theirs(images()).logits).abs().max()
    assert 0 < difference < 1e-4


@torch.no_grad()
def test_hugging_face_without_a_head(tmp_path):
    theirs = hugging_face(kind="ViTModel")
    theirs.save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="not used: pooler.dense.bias, pooler.dense"):
        vit = load_pretrained(tmp_path / "model.safetensors")
    vit.head, x = nn.Identity(), images()
    expected = theirs(x).last_hidden_state[:, 0]
    torch.testing.assert_close(vit(x), expected, atol=2e-6, rtol=2e-6)


def test_other_parts_of_hugging_face(tmp_path):
    theirs = hugging_face(kind="ViTForMaskedImageModeling")
    refused(saved(theirs.state_dict(), tmp_path / "vit.pth"), "it has a decoder")
    state = {k: v for k, v in hugging_face().state_dict().items() if "_proj.b" not in k}
    path = saved(state, tmp_path / "vit.pth")
    refused(path, "no bias for queries, keys and values")
    state = hugging_face().state_dict()
    state = {k: v for k, v in state.items() if not re.search("k(ey|_proj).b", k)}
    refused(saved(state, tmp_path / "vit.pth"), "it has no bias for keys;")


# A download through torchvision


@pytest.fixture
def server(monkeypatch, tmp_path):
    """Files at 127.0.0.1, and a cache of torch.hub of its own."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with serving() as running:
        yield running


def offered(server, content, digest=None):
    """A member of torchvision's kind of list; the file's name holds its hash."""
    digest = digest or hashlib.sha256(content).hexdigest()
    name = f"/vit-{digest[:8]}.pth"
    server.answers[name] = content
    transforms = functools.partial(ImageClassification, crop_size=32)

    class Local_Weights(WeightsEnum):
        FIRST = Weights(f"{server.url}{name}", transforms, {})

    return Local_Weights.FIRST


def packed(value):
    memory = io.BytesIO()
    torch.save(value, memory)
    return memory.getvalue()


def cached(tmp_path):
    return [path.name for path in (tmp_path / "hub" / "checkpoints").iterdir()]


def test_a_download_through_torchvision(server, tmp_path):
    theirs = in_torchvision()
    weights = offered(server, packed(theirs.state_dict()))
    vit = load_pretrained(weights)
    own = {"crop_pct": 32 / 256, "interpolation": "bilinear"}
    assert vit.preprocessing == {"img_size": 32} | own | IMAGENET
    assert_same_logits(vit, theirs)
    assert_same_logits(load_pretrained(weights), theirs)
    assert len(server.seen) == 1, "downloaded once"
    assert cached(tmp_path) == [weights.url.rsplit("/")[-1]]


def test_overrides_of_a_download(server):
    theirs = in_torchvision()
    vit = load_pretrained(offered(server, packed(theirs.state_dict())), num_classes=3)
    assert vit.head.out_features == 3
    assert torch.equal(vit.embedding.class_token.weight, theirs.class_token)


def test_a_wrong_hash_is_refused(server, tmp_path):
    weights = offered(server, packed(in_torchvision().state_dict()), digest="0" * 64)
    with pytest.raises(RuntimeError, match='invalid hash value .expected "00000000"'):
        load_pretrained(weights)
    assert cached(tmp_path) == []


def test_a_file_that_is_not_there(server, tmp_path):
    weights = offered(server, packed({}))
    server.answers.clear()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        load_pretrained(weights)
    assert cached(tmp_path) == []


def test_a_download_of_something_else(server):
    with pytest.raises(ValueError, match="Local_Weights.FIRST cannot become a ViT"):
        load_pretrained(offered(server, packed({"fc.weight": torch.ones(2, 2)})))


def test_code_in_a_download_is_not_run(server, tmp_path):
    made = tmp_path / "made"
    weights = offered(server, packed({"conv_proj.weight": MakesFile(made)}))
    with pytest.raises(Exception, match="."):
        load_pretrained(weights)
    assert server.seen and not made.exists()


# Torchvision's transforms


def photograph(size):
    pixels = np.random.default_rng(5).integers(0, 256, (*size, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC)


MEMBERS = [*ViT_B_16_Weights, *ViT_B_32_Weights, *ViT_L_16_Weights]
MEMBERS += [*ViT_L_32_Weights, *ViT_H_14_Weights]


@pytest.mark.parametrize("member", MEMBERS, ids=str)
def test_the_transform_of_torchvisions_members(monkeypatch, member):
    """Value by value, those of SWAG bicubic."""
    side = member.transforms().crop_size[0]
    theirs = VisionTransformer(side, 14 if side == 518 else 16, 1, 3, 192, 8)
    monkeypatch.setattr(type(member), "get_state_dict", lambda *_, **__: dict(state))
    state = theirs.state_dict()
    transform = create_transform(**load_pretrained(member).preprocessing)
    for size in [(300, 451), (600, 240)]:
        image = photograph(size)
        torch.testing.assert_close(transform(image), member.transforms()(image))


# Another image size, other classes


@pytest.mark.parametrize("size, grid", [(48, (6, 6)), (16, (2, 2)), ((48, 16), (6, 2))])
def test_positions_of_another_image_size(tmp_path, size, grid):
    theirs = in_torchvision()
    path = saved(theirs.state_dict(), tmp_path / "vit.pth")
    same, vit = load_pretrained(path), load_pretrained(path, img_size=size)
    assert vit.preprocessing == {"img_size": size} | IMAGENET
    old = theirs.encoder.pos_embedding
    expected = interpolate_position_embedding(old, (4, 4), grid, 1)
    state = vit.state_dict()
    assert torch.equal(state[POSITIONS], expected)
    height, width = (8 * side for side in grid)
    assert vit(torch.rand(2, 3, height, width)).shape == (2, 5)
    others = {k: v for k, v in same.state_dict().items() if k != POSITIONS}
    equal(others, {k: v for k, v in state.items() if k != POSITIONS})


def test_positions_without_class_token(tmp_path):
    theirs = in_timm(class_token=False, global_pool="avg", fc_norm=False)
    path = saved(theirs.state_dict(), tmp_path / "vit.pth")
    found = load_pretrained(path, img_size=48).state_dict()[POSITIONS]
    expected = interpolate_position_embedding(theirs.pos_embed, (4, 4), (6, 6), 0)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("classes", [3, 7])
def test_other_classes_keep_the_rest(tmp_path, classes):
    theirs = in_torchvision(classes=5)
    path = saved(theirs.state_dict(), tmp_path / "vit.pth")
    same, other = load_pretrained(path), load_pretrained(path, num_classes=classes)
    assert other.head.out_features == classes
    assert not other.head.bias.any(), "not trained"
    assert 0.01 < other.head.weight.std() < 0.03, "not trained"
    same.head = other.head = nn.Identity()
    equal(same.state_dict(), other.state_dict())
    assert_same_logits(other, same)


def test_a_dropout_may_be_asked_for(tmp_path):
    path = saved(in_torchvision().state_dict(), tmp_path / "vit.pth")
    vit = load_pretrained(path, mlp_dropout=0.3, embedding_dropout=0.2)
    rates = {m.p for m in vit.modules() if isinstance(m, nn.Dropout)}
    assert rates >= {0.2, 0.3}


# load_weights


def test_loading_weights_changes_nothing_but_the_model():
    source, model = ours(img_size=48, num_classes=7), ours()
    state = source.state_dict()
    names = list(state)
    shapes = {name: tensor.shape for name, tensor in state.items()}
    head = model.head.weight.clone()
    assert load_weights(model, state) is None
    assert list(state) == names
    assert {name: tensor.shape for name, tensor in state.items()} == shapes
    assert torch.equal(model.head.weight, head), "another number of classes: its own"
    block = model.encoder[1].mlp_block.mlp[3].weight
    assert torch.equal(block, source.encoder[1].mlp_block.mlp[3].weight)
    expected = interpolate_position_embedding(state[POSITIONS], (6, 6), (4, 4), 1)
    assert torch.equal(model.state_dict()[POSITIONS], expected)


def test_the_same_classes_bring_their_head():
    source, model = ours(), ours()
    load_weights(model, source.state_dict())
    equal(model.state_dict(), source.state_dict())


def without(state, name):
    return {k: v for k, v in state.items() if k != name}


WRONG = {
    "nothing": lambda state: {},
    "no class token": lambda state: without(state, TOKEN),
    "no positions": lambda state: without(state, POSITIONS),
    "no bias of the head": lambda state: without(state, "head.bias"),
    "too much": lambda state: state | {"fc_norm.weight": torch.ones(192)},
    "another shape": lambda state: state | {TOKEN: torch.ones(1, 1, 64)},
    "no square": lambda state: state | {POSITIONS: torch.ones(1, 1 + 15, 192)},
    "positions for a mean": lambda state: state | {POSITIONS: torch.ones(1, 16, 192)},
    "positions of another D": lambda state: state | {POSITIONS: torch.ones(1, 10, 64)},
    "positions of two axes": lambda state: state | {POSITIONS: torch.ones(10, 192)},
    "flat positions": lambda state: state | {POSITIONS: torch.ones(10)},
    "a layer too many": lambda state: ours(num_transformer_layers=3).state_dict(),
    "a layer too few": lambda state: ours(num_transformer_layers=1).state_dict(),
    "another kind of pool": lambda state: ours(pool="mean").state_dict(),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_weights_that_do_not_fit(change):
    with pytest.raises(ValueError):
        load_weights(ours(), change(ours().state_dict()))


SINES = ["sinusoidal_1d", "sinusoidal_2d"]


@pytest.mark.parametrize("position", [*SINES, "none"])
def test_learned_positions_replace_no_others(tmp_path, position):
    learned, fixed = ours(), ours(position=position)
    before = {name: t.clone() for name, t in fixed.state_dict().items()}
    text = f"other positions than position='{position}'"
    with pytest.raises(ValueError, match=text):
        load_weights(fixed, learned.state_dict())
    equal(fixed.state_dict(), before)
    path = saved(learned.state_dict(), tmp_path / "vit.pth")
    refused(path, text, position=position)


@pytest.mark.parametrize("position", SINES)
def test_sines_stay_what_they_are(position):
    source, model = ours(position=position), ours(position=position)
    table = model.embedding.position_embedding.weight.clone()
    for state in (source.state_dict(), source.half().state_dict()):
        load_weights(model, state)
        assert torch.equal(model.embedding.position_embedding.weight, table)
        assert torch.equal(model.head.weight, state["head.weight"].float())


@pytest.mark.parametrize("ending", [".npz", ".pth", ".safetensors"])
def test_missing_files(tmp_path, ending):
    with pytest.raises(ValueError, match=f"nothing{ending} is not a file"):
        load_pretrained(tmp_path / f"nothing{ending}")


@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"<html>", bytes(99), b"PK\x03\x04" + bytes(80)]
)
def test_garbage(tmp_path, ending, content):
    (tmp_path / f"vit{ending}").write_bytes(content)
    refused(tmp_path / f"vit{ending}")


@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_truncated_files(tmp_path, ending, share):
    path = saved(in_torchvision().state_dict(), tmp_path / f"vit{ending}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path)


def test_code_in_a_file_is_not_run(tmp_path):
    path = tmp_path / "vit.pth"
    path.write_bytes(packed({"conv_proj.weight": MakesFile(tmp_path / "made")}))
    refused(path)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize(
    "value",
    [
        {"fc.weight": torch.ones(2, 2)},
        {"model": {"conv_proj.weight": torch.ones(2)}},
        {0: torch.ones(2)},
        [torch.ones(2)],
        {"conv_proj.weight": torch.ones(8, 3, 8, 8)},
    ],
)
def test_weights_of_something_else(tmp_path, value):
    path = tmp_path / "other.pth"
    torch.save(value, path)
    refused(path)


# Frozen features and a new head


PARTS = ["head", "layer_norm", "encoder.1", "encoder.1.mlp_block", ""]


@pytest.mark.parametrize("but", PARTS)
def test_freezing_leaves_exactly_what_is_named(but):
    vit = ours()
    for first in ("embedding", but):  # what was frozen before is free again
        freeze(vit, first)
    free = {name for name, p in vit.named_parameters() if p.requires_grad}
    names = {name for name, _ in vit.named_parameters()}
    assert free == {name for name in names if name[: len(but)] == but}
    assert len(free) == dict(zip(PARTS, [2, 2, 12, 6, len(names)], strict=True))[but]


def test_freezing_all_but_the_head_is_the_default():
    vit = ours()
    freeze(vit)
    vit(images()).square().sum().backward()
    with_gradient = {k for k, p in vit.named_parameters() if p.grad is not None}
    assert with_gradient == {"head.weight", "head.bias"}


def test_freezing_everything_is_refused():
    vit = ours()
    with pytest.raises(ValueError, match="begins with 'haed'"):
        freeze(vit, "haed")
    assert all(p.requires_grad for p in vit.parameters())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_new_head_answers_zero(dtype):
    vit = ours().to(dtype)
    before = {k: v.clone() for k, v in vit.state_dict().items() if "head" not in k}
    freeze(vit)
    replace_head(vit, 3)
    logits = vit(images().to(dtype))
    assert logits.shape == (4, 3) and logits.dtype == dtype
    assert not logits.any()
    assert vit.head.weight.requires_grad and vit.head.bias.requires_grad
    equal({k: v for k, v in vit.state_dict().items() if "head" not in k}, before)
    nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 0])).backward()
    assert vit.head.weight.grad.abs().max() > 0, "zeros are no dead end"


def test_a_new_head_is_where_the_model_is():
    with torch.device("meta"):  # stands for a GPU
        vit = ours()
    replace_head(vit, 3)
    assert {p.device.type for p in vit.parameters()} == {"meta"}


@pytest.mark.parametrize("classes", [0, -3])
def test_a_head_without_classes_is_refused(classes):
    vit = ours()
    with pytest.raises(ValueError, match=f"at least 1, got {classes}"):
        replace_head(vit, classes)
    assert vit.head.out_features == 5


def loader(number=10, **options):
    x = torch.randn(number, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    labels = torch.arange(number) * 7 % 5
    return DataLoader(TensorDataset(x, labels), batch_size=4, **options)


def test_the_head_on_stored_features_is_the_whole_model():
    vit = ours(mlp_dropout=0.5).train()  # dropout would show
    head, batches = vit.head, list(loader())
    features, labels = extract_features(vit, loader()).tensors
    assert not vit.training
    assert vit.head is head
    assert features.shape == (10, 192) and not features.requires_grad
    x = torch.cat([x for x, _ in batches])
    with torch.no_grad():
        expected = torch.cat([vit(x) for x, _ in batches])
        assert torch.equal(torch.cat([head(f) for f in features.split(4)]), expected)
        torch.testing.assert_close(head(features), vit(x), atol=1e-6, rtol=1e-6)
    assert expected.std(dim=0).min() > 0.01, "all images look alike"
    assert labels.tolist() == [0, 2, 4, 1, 3, 0, 2, 4, 1, 3]


def test_labels_stay_with_their_images():
    vit = ours()
    mixed = loader(shuffle=True, generator=torch.Generator().manual_seed(3))
    again = loader(shuffle=True, generator=torch.Generator().manual_seed(3))
    features, labels = extract_features(vit, mixed).tensors
    x, expected = (torch.cat(parts) for parts in zip(*again, strict=True))
    assert torch.equal(labels, expected)
    assert labels.tolist() != torch.cat([y for _, y in loader()]).tolist()
    with torch.no_grad():
        torch.testing.assert_close(vit.head(features), vit(x), atol=1e-6, rtol=1e-6)


def test_the_head_comes_back_after_an_error():
    vit = ours()
    head = vit.head

    def breaks():
        yield from loader(4)
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        extract_features(vit, breaks())
    assert vit.head is head
    assert vit(images()).shape == (4, 5)


def test_the_whole_model_moves_to_the_device():
    vit = ours()

    def no_images():
        raise OSError("enough")
        yield

    with pytest.raises(OSError, match="enough"):
        extract_features(vit, no_images(), "meta")  # stands for a GPU
    assert {p.device.type for p in vit.parameters()} == {"meta"}
