"""Lesson 12: weights saved and loaded, bit for bit; damaged files are refused."""

import io
import os
import pickle
import zipfile
from pathlib import Path

import pytest
import torch
from comparing import MakesFile, fill
from safetensors.torch import load_file
from torch import nn

from going_modular import utils
from going_modular.utils import ENDINGS, load_model, save_model
from going_modular.vit import create_vit


def network(inputs=3, outputs=2):
    """Matrices, vectors, and in the statistics of BatchNorm a whole number."""
    layers = nn.Sequential(
        nn.Linear(inputs, 4), nn.BatchNorm1d(4), nn.Linear(4, outputs)
    )
    return fill(layers)


def bits(model):
    """What the state dict holds, as bytes: 0.0 and -0.0 differ, NaN equals itself."""
    state = model.state_dict()
    return {k: (t.dtype, t.shape, t.numpy().tobytes()) for k, t in state.items()}


@pytest.fixture(params=ENDINGS)
def ending(request):
    return request.param


def test_loaded_weights_are_the_same_bits(tmp_path, ending):
    saved, loaded = network(), network()
    saved(torch.rand(5, 3))  # the statistics of BatchNorm move
    with torch.no_grad():
        strange = torch.tensor([-0.0, torch.nan, torch.inf, 1e-42])
        saved[0].bias.copy_(strange)
    before = bits(saved)
    assert bits(loaded) != before
    path = save_model(saved, tmp_path, f"model{ending}")
    assert path == tmp_path / f"model{ending}"
    assert load_model(loaded, path) is loaded
    assert bits(loaded) == before == bits(saved)
    assert os.listdir(tmp_path) == [path.name]


def test_the_ending_is_the_format(tmp_path, ending):
    model = network()
    path = save_model(model, tmp_path, f"model{ending}")
    if ending == ".safetensors":
        found = load_file(path)
    else:
        assert zipfile.is_zipfile(path)
        found = torch.load(path, weights_only=True)
    expected = model.state_dict()
    assert list(sorted(found)) == list(sorted(expected))
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_vit_gives_the_same_logits(tmp_path, ending):
    sizes = {"img_size": 16, "num_transformer_layers": 1, "num_classes": 3}
    saved, loaded = (fill(create_vit("vit_mini_8", **sizes)).eval() for _ in range(2))
    x = torch.rand(2, 3, 16, 16)
    load_model(loaded, str(save_model(saved, str(tmp_path), f"vit{ending}")))
    assert torch.equal(loaded(x), saved(x))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_stay(tmp_path, ending, dtype):
    saved, loaded = fill(nn.Linear(3, 2)).to(dtype), nn.Linear(3, 2, dtype=dtype)
    path = save_model(saved, tmp_path, f"model{ending}")
    load_model(loaded, path)
    assert torch.equal(loaded.weight, saved.weight)
    state = load_file(path) if ending == ".safetensors" else torch.load(path)
    assert state["weight"].dtype == dtype


def test_transposed_weights(tmp_path, ending):
    saved, loaded = nn.Linear(3, 2), nn.Linear(3, 2)
    saved.weight = nn.Parameter(torch.randn(3, 2).T)
    assert not saved.weight.is_contiguous()
    load_model(loaded, save_model(saved, tmp_path, f"model{ending}"))
    assert torch.equal(loaded.weight, saved.weight)


def test_the_call_of_older_notebooks(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model, loaded = network(), network()
    save_model(model=model, target_dir="models", model_name="x.pth")
    load_model(model=loaded, path="models/x.pth")
    assert bits(loaded) == bits(model)
    loaded.load_state_dict(torch.load("models/x.pth"))  # as they read it themselves


def test_folders_are_made_and_files_replaced(tmp_path, ending):
    folder = tmp_path / "a" / "b"
    first, second, loaded = network(), network(), network()
    for model in (first, second):
        path = save_model(model, folder, f"model{ending}")
    assert bits(load_model(loaded, path)) == bits(second) != bits(first)


@pytest.mark.parametrize("name", ["x", "x.bin", "x.PTH", "x.pth.zip", "pth", "x.npz"])
def test_other_endings_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match=f"must end in one of .*{name}"):
        save_model(network(), tmp_path / "models", name)
    assert os.listdir(tmp_path) == []
    (tmp_path / name).write_bytes(b"something")
    with pytest.raises(ValueError, match=f"must end in one of .*{name}"):
        load_model(network(), tmp_path / name)


def refused(path, model=None):
    """Asserts that the file is refused by its name and the model stays as it was."""
    model = model or network()
    before = bits(model)
    with pytest.raises(ValueError) as caught:
        load_model(model, path)
    assert str(path) in str(caught.value)
    assert bits(model) == before
    return str(caught.value)


def test_missing_files(tmp_path, ending):
    assert "is not a file" in refused(tmp_path / f"nothing{ending}")
    (tmp_path / f"folder{ending}").mkdir()
    assert "is not a file" in refused(tmp_path / f"folder{ending}")


@pytest.mark.parametrize("share", [0, 0.01, 0.3, 0.7, 0.99])
def test_truncated_files(tmp_path, ending, share):
    path = save_model(network(), tmp_path, f"model{ending}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    refused(path)


GARBAGE = {
    "text": b"hello",
    "page": b"<html>Sign in</html>",
    "zeros": bytes(100),
    "numbers": bytes(range(256)),
    "begins like a zip": b"PK\x03\x04" + bytes(80),
    "begins like a pickle": b"\x80\x02}q\x00",
    "a pickle that goes astray": b"\x80\x02j\x01\x02\x03\x04.",
    "a pickle with bad text": b"\x80\x02X\x02\x00\x00\x00\xff\xff.",
}


@pytest.mark.parametrize("content", GARBAGE.values(), ids=GARBAGE)
def test_garbage(tmp_path, ending, content):
    path = tmp_path / f"model{ending}"
    path.write_bytes(content)
    refused(path)


def in_torchs_format(value):
    memory = io.BytesIO()
    torch.save(value, memory)
    return memory.getvalue()


def in_pickles_format(value):
    return pickle.dumps(value, protocol=2)  # the one that torch uses


def unpickle_from(path):
    return pickle.loads(path.read_bytes())


def load_without_care(path):
    return torch.load(io.BytesIO(path.read_bytes()), weights_only=False)


@pytest.mark.parametrize(
    "pack, careless",
    [(in_pickles_format, unpickle_from), (in_torchs_format, load_without_care)],
)
def test_code_in_a_file_is_not_run(tmp_path, ending, pack, careless):
    made, path = tmp_path / "made", tmp_path / f"model{ending}"
    path.write_bytes(pack({"weight": MakesFile(made)}))
    careless(path)
    made.unlink()  # without an error: the code works
    refused(path)
    assert not made.exists()


def test_a_pickled_model_is_refused(tmp_path):
    """`torch.save(model)` stores code; what is wanted is its state dict."""
    torch.save(network(), tmp_path / "model.pth")
    assert "contains more than weights" in refused(tmp_path / "model.pth")


OTHER_THINGS = {
    "list": [torch.ones(2)],
    "number": 3,
    "numbers for weights": {"0.weight": 1.0},
    "nested": {"model": {"0.weight": torch.ones(4, 3)}},
    "numbers for names": {0: torch.ones(2)},
}


@pytest.mark.parametrize("value", OTHER_THINGS.values(), ids=OTHER_THINGS)
def test_other_things_than_a_state_dict(tmp_path, value):
    torch.save(value, tmp_path / "model.pt")
    refused(tmp_path / "model.pt")


def test_the_state_dict_in_the_file_of_a_run(tmp_path):
    saved, average = network(), network()
    optimizer = torch.optim.AdamW(saved.parameters())
    content = {"model": saved.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(content | {"epoch": 3}, tmp_path / "run.pth")
    assert bits(load_model(network(), tmp_path / "run.pth")) == bits(saved)
    torch.save(content | {"ema": average.state_dict()}, tmp_path / "run.pth")
    assert "say part='model' or part='ema'" in refused(tmp_path / "run.pth")
    loaded = load_model(network(), tmp_path / "run.pth", part="ema")
    assert bits(loaded) == bits(average)


def test_a_vit_is_exported_for_other_programs(tmp_path):
    """`torch.export`, which has taken the place of `torch.jit.script`."""
    vit = fill(create_vit("vit_mini_8", img_size=16, num_classes=3)).eval()
    x, path = torch.rand(2, 3, 16, 16), tmp_path / "vit.pt2"
    torch.export.save(torch.export.export(vit, (x,)), path)
    with torch.no_grad():
        torch.testing.assert_close(torch.export.load(path).module()(x), vit(x))


@pytest.mark.filterwarnings("ignore:Validating sparse tensor invariants")
@pytest.mark.parametrize("kind", ["sparse", "meta"])
def test_tensors_that_no_parameter_can_take(tmp_path, kind):
    """Names and shapes fit, and copying would fail with the model half loaded."""
    state = network().state_dict()
    last = list(state)[-2]
    state[last] = state[last].to_sparse() if kind == "sparse" else state[last].to(kind)
    torch.save(state, tmp_path / "model.pth")
    refused(tmp_path / "model.pth")


def test_what_does_not_fit_is_named(tmp_path):
    path = save_model(network(inputs=7), tmp_path, "model.pth")
    text = refused(path, nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2, bias=False)))
    assert "lack 1.weight" not in text, "BatchNorm has one, too"
    assert "have besides 1.bias, 1.num_batches_tracked, 1.running_mean and 3" in text
    assert "0.weight (4, 7) instead of (4, 3), 1.weight (4,) instead of (2, 4)" in text
    text = refused(save_model(nn.Linear(3, 2), tmp_path, "model.pth"))
    assert "the weights lack 0.bias, 0.weight, 1.bias and 6 more" in text


def test_weights_of_another_model(tmp_path, ending):
    path = save_model(nn.Conv2d(3, 4, 1), tmp_path, f"model{ending}")
    assert "does not fit Sequential" in refused(path)


def test_another_number_of_classes(tmp_path, ending):
    path = save_model(network(outputs=5), tmp_path, f"model{ending}")
    text = refused(path, network(outputs=2))
    assert "size mismatch" in text and "Sequential" in text


@pytest.fixture(params=["write", "rename"])
def failing(request, monkeypatch):
    """A disk that is full half-way, or a file that may not be replaced."""

    def fail(*args, **kwargs):
        if request.param == "write":
            Path(args[1]).write_bytes(b"half of it")
        raise OSError("no space left on device")

    if request.param == "write":
        monkeypatch.setattr(torch, "save", fail)
        monkeypatch.setattr(utils, "save_file", fail)
    else:
        monkeypatch.setattr(os, "replace", fail)


@pytest.fixture
def saved(tmp_path, ending):
    """A file from before; a later fixture makes the next write fail."""
    return save_model(network(), tmp_path, f"model{ending}")


def test_a_failed_write_keeps_the_old_file(saved, failing):
    before = saved.read_bytes()
    with pytest.raises(OSError, match="no space left"):
        save_model(network(), saved.parent, saved.name)
    assert saved.read_bytes() == before


def test_a_failed_write_leaves_nothing_behind(saved, failing):
    with pytest.raises(OSError, match="no space left"):
        save_model(network(), saved.parent, saved.name)
    assert os.listdir(saved.parent) == [saved.name]
