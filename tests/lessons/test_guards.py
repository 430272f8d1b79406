"""The guards themselves: each small change to a copy of the project must be noticed."""

import json
import subprocess
import sys

import pytest
from project_copy import change, copy_project, passes

NBVAL = ["--nbval", "--nbval-current-env", "--nbval-cell-timeout=120"]
NBVAL += ["--nbval-sanitize-with=tests/nbval_sanitize.cfg"]
EXPORT = "tests/lessons/test_export.py"
LESSON = "notebooks/04_class_token.ipynb"


@pytest.fixture
def copy(tmp_path):
    return copy_project(tmp_path)


@pytest.mark.slow
def test_the_untouched_copy_passes(copy):
    assert passes(copy, EXPORT, "tests/lessons/test_class_token.py")
    assert passes(copy, *NBVAL, LESSON)


@pytest.mark.slow
def test_a_module_edited_by_hand_is_noticed(copy):
    change(
        copy / "going_modular" / "class_token.py", "for all images", "for every image"
    )
    assert not passes(copy, EXPORT)


@pytest.mark.slow
@pytest.mark.parametrize(
    "notebook, old, new, test",
    [
        (
            "04_class_token",
            "[class_token, patch_emb",
            "[-class_token, patch_emb",
            "class_token",
        ),
        (
            "05_position_embedding",
            "else tokens + self",
            "else tokens - self",
            "position_embedding",
        ),
        (
            "03_conv2d_patchify",
            "maps.flatten(2).tr",
            "-maps.flatten(2).tr",
            "patch_embedding",
        ),
        (
            "02_patch_visualization",
            "x.permute(0, 2, 4, 1",
            "x.permute(0, 4, 2, 1",
            "patches",
        ),
    ],
)
def test_a_sign_or_axis_changed_in_an_exported_cell(copy, notebook, old, new, test):
    change(copy / "notebooks" / f"{notebook}.ipynb", old, new)
    assert not passes(copy, EXPORT), "lesson and module differ"
    export = [sys.executable, copy / "tools" / "export_modules.py"]
    subprocess.run(export, cwd=copy, check=True, capture_output=True)
    assert passes(copy, EXPORT), "exported again, they agree"
    assert not passes(copy, f"tests/lessons/test_{test}.py"), (
        "the values are still wrong"
    )


@pytest.mark.slow
def test_a_changed_output_is_noticed(copy):
    change(
        copy / LESSON,
        "parameters of the class token: 768",
        "parameters of the class token: 769",
    )
    assert not passes(copy, *NBVAL, LESSON)


@pytest.mark.slow
def test_cells_out_of_order_are_noticed(copy):
    notebook = json.loads((copy / LESSON).read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    code[3]["execution_count"] = None  # never run: nbval alone would pass it
    (copy / LESSON).write_text(json.dumps(notebook), encoding="utf-8")
    assert not passes(copy, "tests/lessons/test_lessons.py", "-k", "one_run")
