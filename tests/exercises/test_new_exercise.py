"""`make new-exercise` adds a task that works, and the teacher's page shows it."""

import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from new_exercise import TASK, add_exercise

ROOT = Path(__file__).resolve().parents[2]
TRY = """
import answers.lesson_{lesson}
from answers import ANSWERS
from vit_course import checks
from vit_course.checks import Hint, check_patch_mean

assert checks.__file__.startswith({root!r})
for case in check_patch_mean.cases:
    for mistake, text in case.mistakes.items():
        try:
            case.judge(mistake)
        except Hint as hint:
            print(str(hint) == text)
for answer in ANSWERS:
    if answer.check == "check_patch_mean":
        try:
            check_patch_mean(answer.value)
        except Hint as hint:
            print(answer.hint in str(hint))
"""


@pytest.fixture
def course(tmp_path):
    for folder in ("vit_course", "going_modular", "tests/exercises/answers"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copytree(ROOT / "notebooks" / "solutions", tmp_path / "notebooks/solutions")
    shutil.copy(ROOT / "helper_functions.py", tmp_path)
    return tmp_path


def test_a_new_exercise_works_as_it_is(course):
    lesson = "15"  # whose checks import the least
    paths = add_exercise(course, lesson, "patch_mean")
    cells = nbformat.read(paths[-1], as_version=4).cells[-3:]
    assert [c.cell_type for c in cells] == ["markdown", "code", "code"]
    code = TRY.format(lesson=lesson, root=str(course))
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=course,
        env={"PYTHONPATH": f"{course}:{course / 'tests' / 'exercises'}"},
        capture_output=True,
        text=True,
    )
    lines = found.stdout.split()
    assert lines.count("True") == 5 and lines.count("✓") == 2, found.stderr
    with pytest.raises(ValueError, match="taken"):
        add_exercise(course, lesson, "patch_mean")


@pytest.mark.parametrize("lesson, name", [("99", "patch_mean"), ("05", "Patch-mean")])
def test_a_wrong_lesson_or_name_is_an_error(course, lesson, name):
    with pytest.raises(ValueError, match=f"{lesson}|{name}"):
        add_exercise(course, lesson, name)


def test_the_page_shows_what_is_added():
    page = (ROOT / "notebooks" / "solutions" / "WRITE_A_TASK.md").read_text("utf-8")
    task = TASK.format(name="patch_mean").split("in place.\n\n\n")[1]
    assert task in page
