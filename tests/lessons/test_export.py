"""The modules are the lessons' exported cells, and read as if written by hand."""

import re
import tempfile
from pathlib import Path

import pytest
from export_modules import export_all

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def exported():
    # Beside going_modular, so that header lines and ruff's settings are the same.
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".exported-") as folder:
        written = export_all(Path(folder))
        yield {p.relative_to(folder).as_posix(): p.read_text() for p in written}


def test_modules_equal_their_lessons(exported):
    for name, text in exported.items():
        module = ROOT / "going_modular" / name
        assert module.is_file(), f"{name} is missing: run `make export`"
        assert module.read_text() == text, f"{name} differs: run `make export`"


def test_no_module_without_a_lesson(exported):
    folder = ROOT / "going_modular"
    modules = {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")}
    assert modules - {"__init__.py"} == set(exported)


def test_modules_name_their_notebook_once(exported):
    for name, text in exported.items():
        assert len(re.findall(r"File to edit: (\.\./)+notebooks/", text)) == 1, name
        assert "# %%" not in text and "#|" not in text, name
        assert text.startswith(('"""', 'r"""')), f"{name} has no docstring"
