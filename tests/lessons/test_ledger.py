"""The ledger of proofs: its rows point at code, lessons and tests that exist."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import nbformat
import pytest
import torch
from write_ledger import END, START, lesson_of, proofs, table, write

ROOT = Path(__file__).resolve().parents[2]
PROOFS = proofs()


@pytest.fixture(params=PROOFS, ids=lambda proof: proof["test"].split("::")[1])
def proof(request):
    return request.param


def modules_of(notebook):
    """The modules that a lesson exports."""
    cells = nbformat.read(notebook, as_version=4).cells
    name = r"#\| (?:default_exp|export) ([\w.]+)"
    found = (re.findall(name, cell.source) for cell in cells)
    return [name.removesuffix(".__init__") for names in found for name in names]


def test_the_page_of_proofs_shows_the_ledger():
    text = (ROOT / "docs" / "proofs.md").read_text(encoding="utf-8")
    assert text.split(START)[1].split(END)[0].strip() == table()


def test_code_comes_out_of_its_lesson(proof):
    lesson = lesson_of(proof)
    if not proof["code"]:  # worked out by hand in the lesson
        return
    module, _, name = proof["code"].rpartition(".")
    assert module in modules_of(lesson)
    code = getattr(importlib.import_module(f"going_modular.{module}"), name)
    assert code.__module__ == f"going_modular.{module}"


def test_the_test_is_there_and_uses_the_code(proof):
    file, function = proof["test"].split("::")
    source = (ROOT / "tests" / file).read_text(encoding="utf-8")
    tree = ast.parse(source)
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef)]
    (found,) = [n for n in functions if n.name == function]
    assert "slow" not in ast.unparse(found), "a proof belongs to `make test`"
    if proof["code"]:
        module, _, name = proof["code"].rpartition(".")
        imports = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        names = {(n.module, alias.name) for n in imports for alias in n.names}
        assert (f"going_modular.{module}", name) in names or (
            "going_modular",
            module,
        ) in names


def test_every_layer_of_the_course_has_a_proof():
    entered = {proof["code"] for proof in PROOFS}
    for path in (ROOT / "going_modular").glob("[a-z]*.py"):
        module = importlib.import_module(f"going_modular.{path.stem}")
        for name, kind in inspect.getmembers(module, inspect.isclass):
            own = kind.__module__ == module.__name__ and not name.startswith("_")
            if own and issubclass(kind, torch.nn.Module):
                assert f"{path.stem}.{name}" in entered, name


def test_all_four_equations_are_there():
    text = " ".join(proof["equation"] for proof in PROOFS)
    assert {"1", "2", "3", "4"} <= set(re.findall(r"\d", text))


def test_writing_replaces_only_the_table(tmp_path):
    page = tmp_path / "proofs.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    write(page)
    write(page)
    assert page.read_text() == f"before\n{START}\n\n{table()}\n\n{END}\nafter\n"
    page.write_text("no marks")
    with pytest.raises(ValueError, match="needs the lines"):
        write(page)
