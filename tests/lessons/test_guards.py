"""The guards themselves: each small change to a copy of the project must be noticed."""

import subprocess
import sys

import pytest
from project_copy import change, copy_project, pytest_in

NBVAL = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=120"]
NBVAL += ["--nbval-sanitize-with=tests/nbval_sanitize.cfg"]
EXPORT = "tests/lessons/test_export.py"
ONE_RUN = ["tests/lessons/test_lessons.py", "-k", "one_run and 04_class_token"]
LESSON = "notebooks/04_class_token.ipynb"
MODULE = "going_modular/class_token.py"


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    return copy_project(tmp_path_factory.mktemp("guards"))


@pytest.fixture(scope="module")
def passes(untouched):
    """Whether pytest passes in the copy."""
    with pytest_in(untouched) as run:
        yield lambda *arguments: run(*arguments)[0] == 0


@pytest.fixture
def copy(untouched):
    """The copy, whose lesson and module are what they were for the next test."""
    paths = (untouched / LESSON, untouched / MODULE)
    before = {path: path.read_bytes() for path in paths}
    yield untouched
    for path, content in before.items():
        path.write_bytes(content)


@pytest.mark.slow
def test_the_untouched_copy_passes(copy, passes):
    assert passes(EXPORT)
    assert passes(*ONE_RUN)
    assert passes(*NBVAL, LESSON)


@pytest.mark.slow
def test_a_module_edited_by_hand_is_noticed(copy, passes):
    change(copy / MODULE, "for all images", "for every image")
    assert not passes(EXPORT)


@pytest.mark.slow
def test_a_lesson_changed_and_not_exported_is_noticed(copy, passes):
    """That the tests of values notice such changes is test_mutations.py's to show."""
    change(copy / LESSON, "[class_token, patch_emb", "[-class_token, patch_emb")
    assert not passes(EXPORT), "lesson and module differ"
    export = [sys.executable, copy / "tools" / "export_modules.py"]
    subprocess.run(export, cwd=copy, check=True, capture_output=True)
    assert passes(EXPORT), "exported again, they agree"


@pytest.mark.slow
def test_a_changed_output_is_noticed(copy, passes):
    text = "parameters of the class token: 76"
    change(copy / LESSON, f"{text}8", f"{text}9")
    assert not passes(*NBVAL, LESSON)


@pytest.mark.slow
def test_cells_out_of_order_are_noticed(copy, passes):
    # Never run: nbval alone would pass it.
    change(copy / LESSON, '"execution_count": 4,', '"execution_count": null,')
    assert not passes(*ONE_RUN)
