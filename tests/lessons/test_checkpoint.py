"""Lesson 12: a checkpoint is what was saved, in 16 bits; all else is refused."""

import hashlib
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from comparing import MakesFile, fill
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import going_modular
from going_modular import checkpoint
from going_modular.checkpoint import (
    SHIPPED_NAME,
    load_checkpoint,
    save_checkpoint,
    shipped_checkpoint,
)
from going_modular.vit import create_vit

CONFIG = {
    "name": "vit_mini_8",
    "img_size": 16,
    "num_transformer_layers": 1,
    "embedding_dim": 24,
    "mlp_size": 40,
    "num_classes": 3,
}
NAMES = ["apple pie", "crème brûlée", "tacos"]
KEYS = {"config", "class_names", "preprocessing", "facts"}
PREPROCESSING = {"img_size": 16, "mean": [0.5, 0.4, 0.3], "std": [0.5, 0.6, 0.7]}


def vit(**overrides):
    return fill(create_vit(**CONFIG | overrides))


def save(model, path, names=NAMES, **facts):
    return save_checkpoint(model, path, CONFIG, names, PREPROCESSING, **facts)


@pytest.fixture
def path(tmp_path):
    return save(vit(), tmp_path / "vit.safetensors", samples_seen=7)


def test_weights_come_back_rounded_to_16_bits(tmp_path):
    model = vit().train()
    loaded, _ = load_checkpoint(save(model, tmp_path / "vit.safetensors"))
    assert not loaded.training
    assert set(loaded.state_dict()) == set(model.state_dict())
    for name, tensor in loaded.state_dict().items():
        assert tensor.dtype == torch.float32
        exact = model.state_dict()[name].numpy()
        rounded = exact.astype(np.float16).astype(np.float32)
        np.testing.assert_array_equal(tensor.numpy(), rounded)
        np.testing.assert_allclose(rounded, exact, rtol=2**-11, atol=2**-24)


def test_the_loaded_model_is_the_same_function(tmp_path):
    model, x = vit().eval(), torch.rand(2, 3, 16, 16)
    loaded, _ = load_checkpoint(str(save(model, str(tmp_path / "vit.safetensors"))))
    torch.testing.assert_close(loaded(x), model(x), atol=0.01, rtol=0)
    assert torch.equal(loaded(x), model.half().float()(x))


def test_saving_leaves_the_model_as_it_was(tmp_path):
    model = vit().train()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    save(model, tmp_path / "vit.safetensors")
    assert model.training
    for name, tensor in model.state_dict().items():
        assert tensor.dtype == torch.float32 and torch.equal(tensor, before[name])


def test_what_is_known_about_it_comes_along(tmp_path):
    path = tmp_path / "a" / "b" / "vit.safetensors"
    facts = {"samples_seen": 7, "val_top1": 0.25, "notes": ["é", None]}
    assert save(vit(), path, **facts) == path
    model, metadata = load_checkpoint(path)
    assert metadata == {
        "config": CONFIG,
        "class_names": NAMES,
        "preprocessing": PREPROCESSING,
        "facts": facts,
    }
    assert model.preprocessing == PREPROCESSING
    assert os.listdir(path.parent) == [path.name]


def test_any_reader_of_safetensors_can_read_it(path):
    with safe_open(path, "np") as file:
        metadata = {name: json.loads(text) for name, text in file.metadata().items()}
        assert {file.get_tensor(name).dtype.name for name in file.keys()} == {"float16"}
    assert metadata["config"] == CONFIG and metadata["class_names"] == NAMES
    assert metadata["facts"] == {"samples_seen": 7}
    assert len(metadata.pop("sha256")) == 64 and set(metadata) == KEYS


@pytest.mark.parametrize("value", [7e4, -7e4, torch.inf, torch.nan])
def test_what_16_bits_cannot_hold_is_refused(tmp_path, value):
    model = vit()
    with torch.no_grad():
        model.encoder[0].mlp_block.mlp[3].bias[5] = value
    with pytest.raises(ValueError, match=r"encoder\.0\.mlp_block\.mlp\.3\.bias"):
        save(model, tmp_path / "vit.safetensors")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("names", [NAMES[:2], [*NAMES, "waffles"], []])
def test_another_number_of_names_is_refused(tmp_path, names):
    with pytest.raises(ValueError, match=f"3 outputs, got {len(names)} class names"):
        save(vit(), tmp_path / "vit.safetensors", names)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["vit", "vit.pth", "vit.safetensors.zip"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"must end in .safetensors, got '{name}'"):
        save(vit(), tmp_path / name)
    assert os.listdir(tmp_path) == []


@pytest.fixture(params=["write", "rename"])
def failing(request, monkeypatch, path):
    """A disk that is full half-way, or a file that may not be replaced."""

    def fail(*args, **kwargs):
        if request.param == "write":
            Path(args[1]).write_bytes(b"half of it")
        raise OSError("no space left on device")

    if request.param == "write":
        monkeypatch.setattr(checkpoint, "save_file", fail)
    else:
        monkeypatch.setattr(os, "replace", fail)


def test_a_failed_write_keeps_the_old_file(path, failing):
    before = path.read_bytes()
    with pytest.raises(OSError, match="no space left"):
        save(vit(), path)
    assert path.read_bytes() == before


def test_a_failed_write_leaves_nothing_behind(path, failing):
    with pytest.raises(OSError, match="no space left"):
        save(vit(), path)
    assert os.listdir(path.parent) == [path.name]


def refused(path):
    with pytest.raises(ValueError) as caught:
        load_checkpoint(path)
    assert str(path) in str(caught.value)


def test_missing_files(tmp_path):
    refused(tmp_path / "nothing.safetensors")
    refused(tmp_path)


@pytest.mark.parametrize("share", [0, 0.001, 0.02, 0.5, 0.999])
def test_truncated_files(path, share):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path)


@pytest.mark.parametrize(
    "content", [b"hello", bytes(100), b"\xff" * 100, b"<html>Sign in</html>"]
)
def test_garbage(path, content):
    path.write_bytes(content)
    refused(path)


def test_code_in_a_file_is_not_run(path, tmp_path):
    made = tmp_path / "made"
    value = {"head.weight": MakesFile(made)}
    for pack in (torch.save, lambda value, p: p.write_bytes(pickle.dumps(value))):
        pack(value, path)
        refused(path)
        assert not made.exists()


def test_weights_under_another_name(path):
    torch.save(vit().state_dict(), path)
    refused(path)


def change(path, **changes):
    """Writes the file again with some texts beside the weights changed or left out.

    The sha256 is left out as well, so that it is not what such a file is refused for.
    """
    with safe_open(path, "pt") as file:
        metadata = file.metadata() | {"sha256": None} | changes
    metadata = {name: text for name, text in metadata.items() if text is not None}
    save_file(load_file(path), path, metadata or None)


def test_older_files_without_a_sha256_still_load(path):
    expected, _ = load_checkpoint(path)
    change(path)
    model, metadata = load_checkpoint(path)
    assert set(metadata) == KEYS
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, expected.state_dict()[name])


def test_one_changed_bit_is_refused(path):
    """Seeded places in the header, and in the numbers, of which one byte holds 8."""
    whole, x = path.read_bytes(), np.random.default_rng(0)
    start = 8 + int.from_bytes(whole[:8], "little")
    places = {*x.integers(0, start, 150).tolist(), *range(8)}
    places |= set(x.integers(start, len(whole), 150).tolist())
    loaded = []
    for place in sorted(places):
        content = bytearray(whole)
        content[place] ^= 1 << int(x.integers(8))
        path.write_bytes(content)
        try:
            load_checkpoint(path)
            loaded.append(place)
        except ValueError as error:
            assert str(path) in str(error)
    assert not loaded and len(places) > 290


def test_a_changed_number_or_text_is_refused_as_damaged(path):
    with safe_open(path, "pt") as file:
        texts = file.metadata()
    weights = load_file(path)
    bias = {"head.bias": weights["head.bias"] + 1}
    swapped = {
        "encoder.0.msa_block.layer_norm.weight": weights["layer_norm.weight"].clone()
    }
    names = {"class_names": json.dumps(NAMES[::-1])}
    for tensors, new in ((bias, {}), (swapped, {}), ({}, names)):
        save_file(weights | tensors, path, texts | new)
        with pytest.raises(ValueError, match="its sha256 is another") as caught:
            load_checkpoint(path)
        assert str(path) in str(caught.value)
    save_file(weights, path, texts)
    load_checkpoint(path)


def config(**changes):
    kept = {k: v for k, v in (CONFIG | changes).items() if v is not None}
    return {"config": json.dumps(kept)}


WRONG = {
    "nothing but weights": dict.fromkeys(
        ("config", "class_names", "preprocessing", "facts")
    ),
    "no config": {"config": None},
    "no class names": {"class_names": None},
    "no preprocessing": {"preprocessing": None},
    "broken JSON": {"config": '{"name": "vit_mini_8"'},
    "text of another library": {"format": "pt"},
    "text of another kind": {"format": '"pt"'},
    "config is no dict": {"config": "[1, 2]"},
    "unknown variant": config(name="vit_giant"),
    "unknown argument": config(img_sise=16),
    "impossible size": config(img_size=17),
    "text for a number": config(img_size="16"),
    "more layers": config(num_transformer_layers=2),
    "other image size": config(img_size=24),
    "other classes": config(num_classes=4),
    "too few names": {"class_names": json.dumps(NAMES[:2])},
    "too many names": {"class_names": json.dumps([*NAMES, "waffles"])},
    "a number of names": {"class_names": "3"},
    "unknown preprocessing": {"preprocessing": '{"size": 16}'},
    "mean without std": {"preprocessing": '{"img_size": 16, "mean": [0, 0, 0]}'},
    "no preprocessing at all": {"preprocessing": "null"},
}


@pytest.mark.parametrize("changes", WRONG.values(), ids=WRONG)
def test_wrong_facts_about_the_weights(path, changes):
    change(path, **changes)
    refused(path)


@pytest.mark.parametrize("name", ["head.bias", "embedding.class_token.weight"])
def test_a_missing_or_another_tensor(path, name):
    change(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    weights = load_file(path)
    save_file({k: v for k, v in weights.items() if k != name}, path, metadata)
    refused(path)
    save_file(weights | {"another": torch.ones(2)}, path, metadata)
    refused(path)
    save_file(weights | {name: torch.ones(2)}, path, metadata)
    refused(path)
    save_file(weights, path, metadata)
    load_checkpoint(path)


# The checkpoint of the course itself


@pytest.fixture
def shipped(path, monkeypatch):
    """A course that ships the file of these tests."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    monkeypatch.setattr(checkpoint, "shipped_checkpoint", lambda: path)
    monkeypatch.setattr(checkpoint, "SHIPPED_SHA256", sha256)
    return path


def test_the_shipped_checkpoint_is_the_default(shipped):
    model, metadata = load_checkpoint()
    expected, _ = load_checkpoint(shipped)
    assert metadata["facts"] == {"samples_seen": 7}
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_another_file_in_its_place_is_refused(shipped):
    save(vit(), shipped)  # as good as any, but not the one whose numbers are known
    with pytest.raises(ValueError, match="another sha256") as caught:
        load_checkpoint()
    assert str(shipped) in str(caught.value)
    load_checkpoint(shipped)  # asked for by its path it is one of many


def test_one_bit_of_the_shipped_file_changed(shipped):
    content = bytearray(shipped.read_bytes())
    content[-1] ^= 1
    shipped.write_bytes(content)
    with pytest.raises(ValueError, match="another sha256"):
        load_checkpoint()


def test_the_shipped_file_is_missing(shipped):
    shipped.unlink()
    with pytest.raises(ValueError, match="is not a file") as caught:
        load_checkpoint()
    assert str(shipped) in str(caught.value)


def test_where_the_shipped_file_is(tmp_path, monkeypatch):
    package = tmp_path / "going_modular"
    monkeypatch.setattr(going_modular, "__file__", str(package / "__init__.py"))
    assert shipped_checkpoint() == package / "models" / SHIPPED_NAME  # in a wheel
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / SHIPPED_NAME).touch()
    assert shipped_checkpoint() == tmp_path / "models" / SHIPPED_NAME  # in a clone
