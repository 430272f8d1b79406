"""Damaged checkpoints, weights and run states: refused by name, or the same bits."""

import io
import json
import pickle

import numpy as np
import pytest
import torch
from comparing import MakesFile, fill
from damage import TIMES, damaged
from safetensors.torch import load, save
from serving import make_zip

from going_modular.checkpoint import load_checkpoint, save_checkpoint
from going_modular.engine import RandomState
from going_modular.run_state import Run
from going_modular.transfer import load_pretrained
from going_modular.utils import load_model, save_model
from going_modular.vit import create_vit

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
CONFIG = {"name": "vit_mini_8", "img_size": 16, "num_classes": 3, "mlp_size": 32}
CONFIG |= {"num_transformer_layers": 1, "embedding_dim": 24}


def fresh(seed=0):
    torch.manual_seed(seed)
    return fill(create_vit(**CONFIG))


def bits(model):
    return {name: t.numpy().tobytes() for name, t in model.state_dict().items()}


def run_of(model, path="run.pt"):
    optimizer = torch.optim.AdamW(model.parameters())
    return Run(path, model=model, optimizer=optimizer, random=RandomState(None))


def resume(model, path):
    """Loads a run; after an error all of it is as it was."""
    run = run_of(model, path)
    before = repr(run.state_dict())
    try:
        run.load()
    except ValueError:
        assert repr(run.state_dict()) == before
        raise
    return model


# The last two kinds have no checksum: there, whatever can be read fits.
LOADS = {
    "own.safetensors": lambda model, path: load_checkpoint(path)[0],
    "run.pt": resume,
    "model.pth": load_model,
    "vit.bin": lambda model, path: load_pretrained(path, num_heads=3),
    "vit.npz": lambda model, path: load_pretrained(path, num_heads=3),
    "model.safetensors": load_model,
    "old.pt": load_model,
}


@pytest.fixture
def wholes(tmp_path, monkeypatch):
    """The content of a whole file of each kind."""
    monkeypatch.chdir(tmp_path)
    model, run = fresh(), run_of(fresh())
    run.parts["model"](torch.ones(1, 3, 16, 16)).sum().backward()
    run.parts["optimizer"].step()
    run.save()
    save_checkpoint(model, "own.safetensors", CONFIG, ["a", "b", "c"], {"img_size": 16})
    for name in ("model.pth", "model.safetensors"):
        save_model(model, tmp_path, name)
    torch.save(model.state_dict(), "vit.bin")
    torch.save(model.state_dict(), "old.pt", _use_new_zipfile_serialization=False)
    np.savez("vit.npz", cls=np.ones((1, 1, 24)), b=np.ones(9, "f4"))
    return {name: (tmp_path / name).read_bytes() for name in LOADS}


def never(loaded):
    return False


def test_damaged_files(tmp_path, tally, wholes):
    fits = {"vit.npz": never, "model.safetensors": bits, "old.pt": bits}
    for name in LOADS.keys() - fits:
        expected = bits(LOADS[name](fresh(1), tmp_path / name))
        fits[name] = lambda model, expected=expected: bits(model) == expected
    for name, content in damaged(wholes, 500 * TIMES):
        (path := tmp_path / name).write_bytes(content)
        before = bits(model := fresh(1))
        done = tally.judge(path, LOADS[name], model, path, fits=fits[name])
        assert done or bits(model) == before, name
    assert {path.name for path in tmp_path.iterdir()} == set(wholes)


def too_much(wholes):
    """Headers that promise more than there is."""
    for name in ("own.safetensors", "model.safetensors"):
        for size in (0, 10**8, 2**31, 2**62, 2**64 - 1):
            yield name, size.to_bytes(8, "little") + wholes[name][8:]
    for shape in ((10**12,), (2**31, 2**31), (-1,), (3 * 10**8,)):
        array = {"shape": shape, "fortran_order": False, "descr": "<f4"}
        np.lib.format.write_array_header_1_0(header := io.BytesIO(), array)
        yield "vit.npz", make_zip([("cls.npy", header.getvalue())])


def other_dtypes(wholes):
    """And NaN, which `load_model` keeps; also of a checkpoint without its sha256."""
    whole, names = wholes["own.safetensors"], ("own.safetensors", "vit.bin")
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    texts = {k: v for k, v in header["__metadata__"].items() if k != "sha256"}
    for dtype in (torch.int64, torch.bool, torch.complex64, None):
        state = load(whole)
        for name, tensor in state.items():
            state[name] = tensor.to(dtype) if dtype else tensor * torch.nan
        torch.save(state, file := io.BytesIO())
        for name in (*names, "model.safetensors", "model.pth")[: 4 if dtype else 2]:
            tensors = name.endswith(".safetensors")
            yield name, save(state, texts) if tensors else file.getvalue()


def code(wholes):
    """Pickles that make a file; also damaged, and in the arrays of an .npz."""
    trap, files = MakesFile("made"), [io.BytesIO() for _ in range(3)]
    torch.save({"head.bias": trap}, files[0])
    torch.save(trap, files[1], _use_new_zipfile_serialization=False)
    np.savez(files[2], cls=np.array([trap], object))
    traps = {str(i): file.getvalue() for i, file in enumerate(files)}
    traps["3"] = pickle.dumps({"head.bias": trap}, protocol=2)
    for _, content in (*traps.items(), *damaged(traps, 40 * TIMES)):
        yield from ((name, content) for name in LOADS)


@pytest.mark.parametrize("cases", [too_much, other_dtypes, code])
def test_hostile_files(tmp_path, tally, wholes, cases):
    for name, content in cases(wholes):
        (path := tmp_path / name).write_bytes(content)
        tally.judge(path, LOADS[name], fresh(), path, fits=never)
    assert not (tmp_path / "made").exists()
