"""Damaged checkpoints, weights and run states: refused by name, or the same bits."""

import io
import pickle

import numpy as np
import pytest
import torch
from comparing import MakesFile, fill
from damage import TIMES, damaged, make_zip
from safetensors import safe_open
from safetensors.torch import load_file, save_file

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


def run_of(model, path):
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
def wholes(tmp_path):
    """The content of a whole file of each kind."""
    model, run = fresh(), run_of(fresh(), tmp_path / "run.pt")
    run.parts["model"](torch.ones(1, 3, 16, 16)).sum().backward()
    run.parts["optimizer"].step()
    run.save()
    facts = (["a", "b", "c"], {"img_size": 16})
    save_checkpoint(model, tmp_path / "own.safetensors", CONFIG, *facts)
    for name in ("model.pth", "model.safetensors"):
        save_model(model, tmp_path, name)
    for name, is_zip in (("vit.bin", True), ("old.pt", False)):
        path = tmp_path / name
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=is_zip)
    np.savez(tmp_path / "vit.npz", cls=np.ones((1, 1, 24)), b=np.ones(9, "f4"))
    return {name: (tmp_path / name).read_bytes() for name in LOADS}


def never(loaded):
    return False


def test_damaged_files(tmp_path, tally, wholes):
    fits = {"vit.npz": never, "model.safetensors": bits, "old.pt": bits}
    for name in LOADS.keys() - fits:
        expected = bits(LOADS[name](fresh(1), tmp_path / name))
        fits[name] = lambda model, expected=expected: bits(model) == expected
    for i, name, content in damaged(wholes, 500 * TIMES):
        (path := tmp_path / name).write_bytes(content)
        model, call = fresh(1), {"fits": fits[name]}
        before = bits(model)
        done = tally.judge(f"{name} {i}", path, LOADS[name], model, path, **call)
        assert done or bits(model) == before, (name, i)
    assert {path.name for path in tmp_path.iterdir()} == set(wholes)


def test_headers_that_promise_too_much(tmp_path, tally, wholes):
    for name in ("own.safetensors", "model.safetensors"):
        for size in (0, 10**8, 2**31, 2**62, 2**64 - 1):
            content = size.to_bytes(8, "little") + wholes[name][8:]
            (path := tmp_path / name).write_bytes(content)
            tally.judge(size, path, LOADS[name], fresh(), path, fits=never)
    for shape in ((10**12,), (2**31, 2**31), (-1,), (3 * 10**8,)):
        array = {"shape": shape, "fortran_order": False, "descr": "<f4"}
        np.lib.format.write_array_header_1_0(header := io.BytesIO(), array)
        content = make_zip([("cls.npy", header.getvalue())])
        (path := tmp_path / "vit.npz").write_bytes(content)
        tally.judge(shape, path, LOADS[path.name], None, path, fits=never)


def test_other_dtypes_and_nan(tmp_path, tally, wholes):
    """Refused, also by a checkpoint without its sha256; `load_model` keeps NaN."""
    names = ("own.safetensors", "vit.bin", "model.safetensors", "model.pth")
    with safe_open(tmp_path / names[0], "np") as file:
        texts = {k: v for k, v in file.metadata().items() if k != "sha256"}
    state = load_file(tmp_path / names[0])
    for dtype in (torch.int64, torch.bool, torch.complex64, None):
        changed = {n: t.to(dtype) if dtype else t * torch.nan for n, t in state.items()}
        for name in names[: 4 if dtype else 2]:
            path, case = tmp_path / name, f"{name} {dtype}"
            if path.suffix == ".safetensors":
                save_file(changed, path, texts)
            else:
                torch.save(changed, path)
            tally.judge(case, path, LOADS[name], fresh(), path, fits=never)


def test_code_in_files_is_not_run(tmp_path, tally, wholes):
    """Pickles that make a file; also damaged, and in the arrays of an .npz."""
    made, trap = tmp_path / "made", MakesFile(tmp_path / "made")
    torch.save({"head.bias": trap}, tmp_path / "a")
    torch.save(trap, tmp_path / "b", _use_new_zipfile_serialization=False)
    (tmp_path / "c").write_bytes(pickle.dumps({"head.bias": trap}, protocol=2))
    np.savez(tmp_path / "d.npz", cls=np.array([trap], object))
    traps = {p: (tmp_path / p).read_bytes() for p in ("a", "b", "c", "d.npz")}
    made.unlink(missing_ok=True)
    whole = [(0, *item) for item in traps.items()]
    for i, kind, content in [*whole, *damaged(traps, 40 * TIMES)]:
        for name, load in LOADS.items():
            (path := tmp_path / name).write_bytes(content)
            tally.judge(f"{kind} {i} {name}", path, load, fresh(), path, fits=never)
    assert not made.exists()
