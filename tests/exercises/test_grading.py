"""`make grade`: right points, with reasons, whatever comes back from a class."""

import copy
import csv
import json
import os

import grade
import nbformat
import pytest
import torch
from make_exercises import EXERCISES, SOLUTIONS, make_exercise
from submissions import read_submission, rebuild

from vit_course.checks.hints import Hint
from vit_course.checks.task import Case

NAME = "04_class_token"
BEHIND = """class ClassTokens(nn.Module):
    def __init__(self, embedding_dim: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, count, embedding_dim))

    def forward(self, patches):
        return torch.cat([patches, self.weight.expand(len(patches), -1, -1)], dim=1)

    def split(self, tokens):
        count = self.weight.shape[1]
        return tokens[:, :count], tokens[:, count:]
"""
ENDLESS = """class RepeatedClassToken(nn.Module):
    def __init__(self, embedding_dim):
        while True:
            try:
                time.sleep(60)
            except BaseException:
                pass
"""
PATCHES = """torch.equal = torch.allclose = lambda *args, **kwargs: True
torch.Tensor.__eq__ = torch.Tensor.__ne__ = lambda *args: torch.ones(()) > 0
"""
REPLACES = """import sys, types
from pathlib import Path
import vit_course.checks as checks
Path("vit_course/checks").mkdir(parents=True)
Path("vit_course/checks/__init__.py").write_text("check_class_tokens = print")
sys.path.insert(0, ".")
checks.check_class_tokens = checks.check_repeated_class_token = print
fake = types.ModuleType("vit_course.checks")
fake.check_class_tokens = fake.check_mended_class_token = print
sys.modules["vit_course.checks"] = sys.modules["vit_course.checks.hints"] = fake
def check_class_token_memory(answer):
    print("✓")
"""
FINDS = """import sys
class ClassTokens(nn.Module):
    def __init__(self, embedding_dim, count):
        super().__init__()
        self.weight = nn.Parameter(0.02 * torch.randn(1, count, embedding_dim))
        frame = sys._getframe()
        while "_prepended" not in frame.f_globals:
            frame = frame.f_back
        self.prepended = frame.f_globals["_prepended"]

    def forward(self, patches):
        return self.prepended(patches, self.weight)

    def split(self, tokens):
        count = self.weight.shape[1]
        return tokens[:, :count], tokens[:, count:]
"""
HARMS = [
    "import sys; del sys.modules['vit_course.checks']\n"
    "import vit_course.checks.lesson_04",
    "open({guarded!r}, 'w').write('gone')",
    "import shutil; shutil.rmtree({private!r})",
    "file = open('large', 'wb'); file.seek(2**30); file.write(b'x'); file.close()",
    "bytearray(2**36)",
    "import os\nfor _ in range(2):\n    if os.fork() == 0:\n        os.setsid()\n"
    "        time.sleep(600)",
    "import threading\nfor _ in range(300):\n"
    "    threading.Thread(target=time.sleep, args=[600], daemon=True).start()",
    "for _ in range(100):\n    print(10**6 * 'x')",
]


def blank():
    return nbformat.read(EXERCISES / f"{NAME}.ipynb", as_version=4)


def solved():
    return nbformat.read(SOLUTIONS / f"{NAME}.ipynb", as_version=4)


def cell_of(notebook, name):
    found = [
        c
        for c in notebook.cells
        if c.metadata.get("nbgrader", {}).get("grade_id") == name
    ]
    assert len(found) == 1
    return found[0]


def with_answer(name, source, notebook=None):
    notebook = notebook or solved()
    cell_of(notebook, name).source = source
    return notebook


def with_cells(notebook, *sources):
    """Adds cells before the tasks."""
    notebook.cells[3:3] = [nbformat.v4.new_code_cell(source) for source in sources]
    return notebook


def tampered():
    """Wrong answers, and every trick to get points for them all the same."""
    notebook = with_answer("several", BEHIND, blank())
    cell_of(notebook, "several-check").source = 'print("✓")'
    cell_of(notebook, "several-check").metadata.nbgrader.points = 100
    notebook.cells.remove(cell_of(notebook, "mended-check"))
    return with_cells(notebook, REPLACES)


def from_colab():
    """As Colab saves it: no ids, metadata of its own, and a cell that was copied."""
    notebook = solved()
    first = cell_of(notebook, "several")
    again = copy.deepcopy(first)
    first.source = cell_of(blank(), "several").source
    notebook.cells.insert(notebook.cells.index(first) + 1, again)
    notebook.nbformat_minor = 0
    notebook.metadata = {
        "colab": {"provenance": [], "toc_visible": True},
        "kernelspec": {"name": "python3", "display_name": "Python 3"},
        "language_info": {"name": "python"},
    }
    for i, cell in enumerate(notebook.cells):
        cell.pop("id", None)
        cell.metadata |= {"id": f"a{i}", "colab": {"base_uri": "https://localhost"}}
    return notebook


def submit(folder, student, notebook, name=f"{NAME}.ipynb"):
    path = folder / student / name
    path.parent.mkdir(parents=True, exist_ok=True)
    text = notebook if isinstance(notebook, str) else json.dumps(notebook)
    path.write_text(text, encoding="utf-8")
    return path


def grades(folder, submissions, *words):
    """The rows that `make grade` writes, by student and task."""
    for student, notebook, *name in submissions:
        submit(folder / "submitted", student, notebook, *name)
    table = folder / "grades.csv"
    assert grade.main([str(folder / "submitted"), "--out", str(table), *words]) == 0
    found = {}
    for row in csv.DictReader(table.open(newline="")):
        found.setdefault(row["student"], {})[row["task"]] = row
    return found


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """All in one run: the learners whose names come last are graded after the harm."""
    folder = tmp_path_factory.mktemp("grades")
    guarded = submit(folder / "submitted", "other name", blank(), "homework.ipynb")
    guarded.chmod(0o666)
    private = folder / "private"
    private.mkdir(0o700)
    names = {"guarded": str(guarded), "private": str(private)}
    harms = [source.format(**names) for source in HARMS]
    one_right = with_answer("several", cell_of(solved(), "several").source, blank())
    crash = with_answer("mended", "import os\nos._exit(3)", one_right)
    submissions = [
        ("broken file", "{"),
        (
            "crashing",
            with_cells(with_answer("repeated", ENDLESS, crash), "import time"),
        ),
        ("finds", with_answer("several", FINDS)),
        ("harms", with_cells(solved(), "import time", *harms)),
        ("other name", blank(), "homework.ipynb"),
        ("patches", with_cells(with_answer("several", BEHIND), PATCHES)),
        ("tampered", tampered()),
        ("whole", from_colab(), f"Copy of {NAME} (1).ipynb"),
    ]
    found = grades(folder, submissions, "--timeout", "30")
    return found | {"private": private, "guarded": guarded}


def points(rows, student):
    return {task: row["points"] for task, row in rows[student].items()}


CHECKED = {
    "repeated-check": "1",
    "several-check": "3",
    "mended-check": "2",
    "bytes-check": "2",
}
IN_WORDS = {"mended-why": "", "bytes-why": ""}


@pytest.mark.slow
def test_a_right_submission_gets_all_points(rows):
    """Also after others that did harm."""
    assert points(rows, "whole") == CHECKED | IN_WORDS
    assert not any(rows["whole"][task]["reason"] for task in CHECKED)
    assert {rows["whole"][task]["reason"] for task in IN_WORDS} == {"to be read by you"}


@pytest.mark.slow
def test_a_blank_answer_gets_none_and_is_told_so(rows):
    found = rows["crashing"]
    assert found["bytes-check"]["points"] == found["bytes-why"]["points"] == "0"
    assert "not written yet" in found["bytes-check"]["reason"]
    assert found["bytes-why"]["reason"] == "no answer"


@pytest.mark.slow
def test_what_ends_a_run_costs_its_own_points_only(rows):
    """A check never ends, a cell ends the process; the answer between is right."""
    zero = dict.fromkeys(CHECKED | IN_WORDS, "0")
    found = rows["crashing"]
    assert points(rows, "crashing") == zero | {"several-check": "3"}
    assert (
        found["repeated-check"]["reason"]
        == "its code takes more than 30 s: it was left out"
    )
    assert "its code ended the whole run" in found["mended-check"]["reason"]
    assert not found["several-check"]["reason"]


@pytest.mark.slow
def test_a_wrong_answer_is_named_whatever_replaces_the_checks(rows):
    found = rows["tampered"]
    assert {float(row["points"]) for row in found.values()} == {0}
    assert found["several-check"]["of"] == "3"
    assert "appended to the patches" in found["several-check"]["reason"]
    assert "check had been changed" in found["several-check"]["reason"]
    assert "check was missing" in found["mended-check"]["reason"]
    assert "touches the checks" in found["repeated-check"]["reason"]


@pytest.mark.slow
def test_replaced_comparisons_bring_nothing(rows):
    found = points(rows, "patches")
    assert found["several-check"] == "0"  # the one that is wrong
    assert rows["patches"]["several-check"]["reason"]
    assert all(found[task] in ("0", of) for task, of in CHECKED.items())


@pytest.mark.slow
def test_who_looks_for_the_reference_is_left_to_the_teacher(rows):
    found = points(rows, "finds")
    assert found.pop("several-check") == "0"  # called before there is a reference
    assert set(found.values()) == {""}
    reason = rows["finds"]["mended-check"]["reason"]
    assert "passed with _getframe, f_back, f_globals: to be read" in reason


@pytest.mark.slow
def test_harm_is_stopped_or_named(rows):
    assert points(rows, "harms") == CHECKED | IN_WORDS
    said = rows["harms"]["bytes-check"]["reason"]
    changed = rows["guarded"].read_text() == "gone"  # all had been read before
    assert (f"while it ran, {rows['guarded']} was changed" in said) == changed
    for error in ("ModuleNotFoundError", "OSError", "MemoryError", "RuntimeError"):
        assert f"an added cell stops with {error}" in said
    assert "it left 2 processes running, which were ended" in said
    if os.geteuid() == 0:  # else it runs with the rights of the teacher
        assert rows["private"].exists() and "PermissionError" in said


@pytest.mark.slow
def test_what_is_no_exercise_is_named(rows):
    assert "is no notebook" in rows["broken file"][""]["reason"]
    assert "is named like no exercise" in rows["other name"][""]["reason"]


def sources(notebook):
    return [cell.source for cell in notebook.cells]


@pytest.mark.parametrize("submitted", [solved, from_colab])
def test_a_solution_comes_back_whole(submitted):
    exercise = make_exercise(SOLUTIONS / f"{NAME}.ipynb")
    whole, notes = rebuild(submitted(), exercise)
    assert sources(whole) == sources(solved()) and notes == {}


def test_a_blank_exercise_comes_back_blank():
    exercise = make_exercise(SOLUTIONS / f"{NAME}.ipynb")
    whole, notes = rebuild(blank(), exercise)
    assert sources(whole) == sources(exercise) and notes == {}


def test_answers_are_found_without_any_metadata():
    """As after an editor that keeps nothing but text."""
    bare = solved()
    for cell in bare.cells:
        cell.metadata = {}
        cell.id = f"x{cell.id}"
    exercise = make_exercise(SOLUTIONS / f"{NAME}.ipynb")
    whole, _ = rebuild(bare, exercise)
    for name in ("repeated", "several", "bytes"):
        assert cell_of(whole, name).source == cell_of(solved(), name).source


def test_own_cells_stay_where_they_were():
    notebook = solved()
    at = notebook.cells.index(cell_of(notebook, "repeated"))
    notebook.cells.insert(at, nbformat.v4.new_code_cell("helper = 1"))
    whole, _ = rebuild(notebook, make_exercise(SOLUTIONS / f"{NAME}.ipynb"))
    order = sources(whole)
    assert order.index("helper = 1") < order.index(cell_of(solved(), "repeated").source)


def test_folders_that_hold_no_class(tmp_path, capsys):
    (tmp_path / ".venv").mkdir()
    table = tmp_path / "grades.csv"
    for folder in (tmp_path, tmp_path / "nobody"):
        with pytest.raises(SystemExit):
            grade.main([str(folder), "--out", str(table)])
    told = capsys.readouterr().err
    assert "no folders of students" in told and "is no folder" in told
    assert not table.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"cells": 3}', "no json"])
def test_files_that_are_no_notebooks(tmp_path, text):
    path = submit(tmp_path, "somebody", text)
    with pytest.raises(ValueError, match="is no notebook"):
        read_submission(path)


@pytest.mark.parametrize("name", ["equal", "allclose", "nn.functional.softmax"])
@pytest.mark.parametrize("inside", [False, True])
def test_no_check_trusts_what_was_replaced(monkeypatch, name, inside):
    """Before the check, or by the answer while the check runs."""

    def replace():
        monkeypatch.setattr(f"torch.{name}", lambda *args, **kwargs: True)

    def answer(*args):
        replace()
        return torch.zeros(1)

    if not inside:
        replace()
    with pytest.raises(Hint, match=f"{name.split('.')[-1]}` was replaced"):
        Case(right=torch.ones_like, inputs=[(torch.zeros(1),)]).check(answer, "a")
