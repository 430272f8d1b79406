"""`make grade`: right points, with reasons, whatever comes back from a class."""

import copy
import csv
import json
import math
import time

import grade
import nbformat
import pytest
from make_exercises import EXERCISES, SOLUTIONS, make_exercise
from submissions import read_submission, rebuild

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
            pass
"""
STUBBORN = """import time
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
"""


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


def tampered():
    """Wrong answers, and every trick to get points for them all the same."""
    notebook = with_answer("several", BEHIND, blank())
    cell_of(notebook, "several-check").source = 'print("✓")'
    cell_of(notebook, "several-check").metadata.nbgrader.points = 100
    notebook.cells.remove(cell_of(notebook, "mended-check"))
    trick = "from vit_course import checks\n"
    trick += "checks.check_repeated_class_token = print\n"
    trick += "def check_class_token_memory(answer):\n    print('✓')\n"
    notebook.cells.insert(3, nbformat.v4.new_code_cell(trick))
    return notebook


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
def orderly(tmp_path_factory):
    """The rows of runs that come to an end, and how many seconds such a run takes."""
    begin = time.monotonic()
    submissions = [
        ("blank", blank()),
        ("broken file", "{"),
        ("colab", from_colab(), f"Copy of {NAME} (1).ipynb"),
        ("other name", blank(), "homework.ipynb"),
        ("partly", with_answer("several", BEHIND)),
        ("tampered", tampered()),
    ]
    rows = grades(tmp_path_factory.mktemp("orderly"), submissions)
    return rows, math.ceil((time.monotonic() - begin) / 4)  # four of them are run


@pytest.fixture(scope="module")
def rows(orderly):
    return orderly[0]


@pytest.fixture(scope="module")
def endless(orderly, tmp_path_factory):
    """The rows of runs that never end: no longer waited for than this machine needs."""
    one_right = with_answer("several", cell_of(solved(), "several").source, blank())
    crash = with_answer("mended", "import os\nos._exit(3)", one_right)
    submissions = [
        ("crashing", with_answer("repeated", STUBBORN, crash)),
        ("endless", with_answer("repeated", ENDLESS)),
    ]
    limits = ["--timeout", str(orderly[1]), "--limit", str(3 * orderly[1])]
    return grades(tmp_path_factory.mktemp("endless"), submissions, *limits)


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
    assert points(rows, "colab") == CHECKED | IN_WORDS
    assert not any(rows["colab"][task]["reason"] for task in CHECKED)
    assert {rows["colab"][task]["reason"] for task in IN_WORDS} == {"to be read by you"}


@pytest.mark.slow
def test_a_blank_one_gets_none_and_is_told_so(rows):
    assert {float(p) for p in points(rows, "blank").values()} == {0}
    assert "not written yet" in rows["blank"]["repeated-check"]["reason"]
    assert rows["blank"]["bytes-why"]["reason"] == "no answer"


@pytest.mark.slow
def test_a_wrong_answer_costs_its_own_points_only(rows):
    assert points(rows, "partly") == CHECKED | IN_WORDS | {"several-check": "0"}
    assert "appended to the patches" in rows["partly"]["several-check"]["reason"]


@pytest.mark.slow
def test_what_ends_a_run_costs_its_own_points_only(endless):
    """One cell never ends and another ends the kernel; the one between is right."""
    zero = dict.fromkeys(CHECKED | IN_WORDS, "0")
    assert points(endless, "crashing") == zero | {"several-check": "3"}
    for task in ("repeated-check", "mended-check"):
        reason = endless["crashing"][task]["reason"]
        assert "its code ended the whole run, or never ended" in reason
    assert not endless["crashing"]["several-check"]["reason"]


@pytest.mark.slow
def test_what_can_be_interrupted_costs_its_own_points_only(endless):
    assert points(endless, "endless") == CHECKED | IN_WORDS | {"repeated-check": "0"}
    reason = endless["endless"]["repeated-check"]["reason"]
    assert "does not come to an end" in reason


@pytest.mark.slow
def test_tricks_bring_nothing_and_are_named(rows):
    found = rows["tampered"]
    assert {float(row["points"]) for row in found.values()} == {0}
    assert found["several-check"]["of"] == "3"
    assert "appended to the patches" in found["several-check"]["reason"]
    assert "check had been changed" in found["several-check"]["reason"]
    assert "check was missing" in found["mended-check"]["reason"]
    assert "touches the checks" in found["repeated-check"]["reason"]


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
