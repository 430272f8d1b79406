"""The modules are the lessons' exported cells, and read as if written by hand."""

import tempfile
from pathlib import Path

import pytest
from export_modules import export_all

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def exported():
    # Beside going_modular, so that header lines and ruff's settings are the same.
    with tempfile.TemporaryDirectory(dir=ROOT, prefix=".exported-") as folder:
        yield {path.name: path.read_text() for path in export_all(Path(folder))}


def test_modules_equal_their_lessons(exported):
    for name, text in exported.items():
        module = ROOT / "going_modular" / name
        assert module.is_file(), f"{name} is missing: run `make export`"
        assert module.read_text() == text, f"{name} differs: run `make export`"


def test_no_module_without_a_lesson(exported):
    modules = {path.name for path in (ROOT / "going_modular").glob("*.py")}
    assert modules - {"__init__.py"} == set(exported)


def test_modules_name_their_notebook_once(exported):
    for name, text in exported.items():
        assert text.count("File to edit: ../notebooks/") == 1, name
        assert "# %%" not in text and "#|" not in text, name
        assert text.startswith(('"""', 'r"""')), f"{name} has no docstring"
