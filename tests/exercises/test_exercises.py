"""Exercises hold no solutions, and their checks know right answers from wrong ones."""

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
import torch
from answers import ANSWERS
from make_exercises import EXERCISES, SOLUTIONS, STUB, make_exercise
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from vit_course import checks
from vit_course.checks import Hint
from vit_course.checks.task import Task

ROOT = Path(__file__).resolve().parents[2]
LESSON = ROOT / "notebooks" / "00_replicating_a_paper.ipynb"
PATHS = sorted(SOLUTIONS.glob("*.ipynb"))
CHECKS = [name for name in checks.__all__ if name.startswith("check_")]
TASKS = [getattr(checks, name) for name in CHECKS]
MISTAKES = [
    pytest.param(case, wrong, text, id=f"{task.name}-{text[:40]}")
    for task in TASKS
    if isinstance(task, Task)
    for case in task.cases
    for wrong, text in case.known_mistakes()
]
for _path in sorted((ROOT / "tests" / "exercises" / "answers").glob("lesson_*.py")):
    importlib.import_module(f"answers.{_path.stem}")


@pytest.fixture(params=PATHS, ids=lambda path: path.stem)
def solution(request):
    return request.param


def read(path):
    return nbformat.read(path, as_version=4)


def about(cell):
    return cell.metadata.get("nbgrader", {})


def lines_of_solutions(path):
    """Lines between BEGIN SOLUTION and END SOLUTION that stand nowhere else."""
    pattern = r"^ *### BEGIN SOLUTION\n(.*?)^ *### END SOLUTION"
    text = "\n".join(cell.source for cell in read(path).cells) + "\n"
    blocks = re.findall(pattern, text, re.DOTALL | re.MULTILINE)
    given = re.sub(pattern, "", text, flags=re.DOTALL | re.MULTILINE)
    known = {line.strip() for line in given.splitlines()}
    return {line.strip() for block in blocks for line in block.splitlines()} - known


def test_exercises_are_those_of_the_solutions(solution):
    made, stored = make_exercise(solution), read(EXERCISES / solution.name)
    assert nbformat.writes(made) == nbformat.writes(stored), "run `make exercises`"


def test_each_exercise_has_a_solution():
    assert [p.name for p in sorted(EXERCISES.glob("*.ipynb"))] == [
        path.name for path in PATHS
    ]


def test_nothing_of_a_solution_leaks(solution):
    """Neither a line of one, nor an output, nor a trace in the metadata."""
    text = (EXERCISES / solution.name).read_text(encoding="utf-8")
    exercise = read(EXERCISES / solution.name)
    sources = "\n".join(cell.source for cell in exercise.cells)
    assert not re.search("BEGIN|END|HIDDEN|SOLUTION", text)
    lines = lines_of_solutions(solution)
    lines = {x for x in lines if len(x) >= 12 and re.search("[a-z]{3}", x)}
    assert len(lines) >= 4
    assert not [line for line in lines if line in sources]
    for cell in exercise.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
        assert not cell.get("attachments")
        assert set(cell.metadata) <= {"nbgrader", "deletable", "editable", "tags"}
    assert set(exercise.metadata) == {"kernelspec", "language_info"}


def test_every_task_can_be_graded(solution):
    cells = read(EXERCISES / solution.name).cells
    names = [about(cell)["grade_id"] for cell in cells if about(cell)]
    assert len(set(names)) == len(names)
    tasks = [cell for cell in cells if about(cell).get("grade")]
    assert 2 <= len([c for c in tasks if c.cell_type == "code"]) <= 6
    assert any(c.cell_type == "markdown" for c in tasks), "no open question"
    code = [cell for cell in cells if cell.cell_type == "code"]
    # The set-up cell names the repository, which may move: it has no checksum.
    lesson = [cell for cell in read(LESSON).cells if cell.cell_type == "code"]
    assert code[0].source == lesson[0].source and not about(code[0])
    for cell in cells:
        if cell.cell_type == "code" and cell is not code[0]:
            assert about(cell), "a code cell that nbgrader does not know"
            assert about(cell)["solution"] == (STUB in cell.source), cell.source
        if about(cell).get("grade"):
            assert about(cell)["points"] > 0
            assert cell.cell_type == "markdown" or "check_" in cell.source


def test_lesson_and_guide_list_the_same_tasks_and_minutes(solution):
    texts = [c.source for c in read(solution).cells if c.cell_type == "markdown"]
    titles = re.findall(r"^## \d+\. (.+)$", "\n".join(texts), re.MULTILINE)
    path = ROOT / "notebooks" / solution.name
    if not path.is_file():  # the capstone belongs to no lesson
        return
    cells = [cell.source for cell in read(path).cells]
    [listed] = [text for text in cells if text.startswith("## Exercises\n")]
    assert re.findall(r"^\d+\. (.+)$", listed, re.MULTILINE) == titles
    minutes = re.search(r"about (\d+) minutes", texts[0]).group(1)
    assert f"about {minutes} minutes" in listed
    read_in = re.search(r"About (\d+) minutes", cells[0]).group(1)
    guide = (SOLUTIONS / "README.md").read_text(encoding="utf-8")
    number = solution.name.split("_")[0]
    assert f"| {number} | {read_in} | {minutes} |" in guide


def test_solutions_are_stored_as_one_run(solution):
    cells = [c for c in read(solution).cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert not any(o.output_type == "error" for o in cell.outputs), cell.source
        if about(cell).get("grade"):
            assert any("✓" in o.get("text", "") for o in cell.outputs), cell.source


def test_all_checks_are_named_once():
    folder = Path(checks.__file__).parent
    found = []
    for path in sorted(folder.glob("lesson_*.py")):
        module = importlib.import_module(f"vit_course.checks.{path.stem}")
        found += [
            name
            for name, value in vars(module).items()
            if name.startswith("check_")
            and (isinstance(value, Task) or value.__module__ == module.__name__)
        ]
    assert sorted(found) == sorted(CHECKS)


def test_each_check_is_used_by_one_exercise():
    used = Counter()
    for path in PATHS:
        for cell in read(path).cells:
            if about(cell).get("grade") and cell.cell_type == "code":
                used.update(set(re.findall(r"\bcheck_\w+", cell.source)) & set(CHECKS))
    assert used == Counter(CHECKS)


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda a: f"{a.check[6:]}-{a.name}")
def test_answer(answer, one_thread):
    check = getattr(checks, answer.check)
    if answer.hint:
        with pytest.raises(Hint) as caught:
            check(answer.value)
        assert answer.hint in str(caught.value)
    else:
        check(answer.value)


@pytest.mark.parametrize("case, wrong, text", MISTAKES)
def test_each_mistake_gets_its_own_hint(case, wrong, text, one_thread):
    with pytest.raises(Hint) as caught:
        case.judge(wrong)
    assert str(caught.value) == text


class Blank(torch.nn.Module):
    def __init__(self, *sizes, **named):
        raise NotImplementedError("your lines go here")


@pytest.mark.parametrize("name", CHECKS)
def test_a_blank_answer_is_told_that_nothing_is_written(name):
    """A class that cannot be made, called as a function where one is expected."""
    with pytest.raises(Hint, match="not written yet"):
        getattr(checks, name)(Blank)


def test_each_check_has_met_enough_answers():
    right = Counter(answer.check for answer in ANSWERS if not answer.hint)
    hints = {
        name: {a.hint for a in ANSWERS if a.check == name} - {""} for name in CHECKS
    }
    assert {answer.check for answer in ANSWERS} == set(CHECKS)
    for name, task in zip(CHECKS, TASKS, strict=True):
        for case in task.cases if isinstance(task, Task) else ():
            hints[name] |= set(case.mistakes.values())
        assert right[name] >= 2, name
        assert len(hints[name]) >= 4, f"{name}: each wrong answer has its own hint"
    wrong = len(MISTAKES) + sum(bool(answer.hint) for answer in ANSWERS)
    assert wrong > 1000  # as the README says


def test_a_hint_is_all_that_a_notebook_shows():
    assert Hint("think")._render_traceback_() == ["Not yet: think"]


def test_checks_need_nothing_but_what_learners_have():
    code = "import vit_course.checks, sys; print('nbgrader' in sys.modules)"
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert found.stdout == "False\n", found.stderr


def definitions(source):
    """What a cell imports and defines, without what it computes."""
    tree = ast.parse(source)
    kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
    tree.body = [part for part in tree.body if isinstance(part, kinds)]
    return compile(tree, "cell", "exec")


def stopped_at(exercise):
    """Runs the first task and its check; of cells before them, their definitions.

    What these compute is the same in the solution, which nbval runs. Returns the cell
    that fails, and its words.
    """
    namespace, begun = {"__name__": "__main__"}, False
    for cell in exercise.cells:
        if cell.cell_type == "code":
            begun |= STUB in cell.source
            try:
                exec(cell.source if begun else definitions(cell.source), namespace)
            except Exception as error:
                return cell, str(error)


def stopped_in_a_kernel(exercise):
    client = NotebookClient(
        exercise, timeout=120, resources={"metadata": {"path": ROOT}}
    )
    with pytest.raises(CellExecutionError):
        client.execute()
    outputs = [(c, o) for c in exercise.cells for o in c.get("outputs", [])]
    [(cell, error)] = [(c, o) for c, o in outputs if o.output_type == "error"]
    if STUB not in cell.source:  # a hint, and no lines of the check's own code
        assert len(error.traceback) == 1
    return cell, error.evalue + "\n".join(error.traceback)


@pytest.mark.slow
@pytest.mark.parametrize(
    "solution, run",
    [(path, stopped_at) for path in PATHS]
    # Stopped by the task, and by its check.
    + [(path, stopped_in_a_kernel) for path in (PATHS[0], PATHS[4])],
    ids=lambda value: getattr(value, "stem", None),
)
def test_a_blank_exercise_runs_to_its_first_task_and_says_what_to_do(solution, run):
    exercise = read(EXERCISES / solution.name)
    stopped, words = run(exercise)
    first = next(cell for cell in exercise.cells if STUB in cell.source)
    task = about(first)["grade_id"]
    assert about(stopped)["grade_id"] in (task, f"{task}-check"), words
    assert "not written yet" in words or "your lines go here" in words
