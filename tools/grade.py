"""Grades submitted exercises through nbgrader and writes a table.

    make grade SUBMISSIONS=DIR OUT=grades.csv

DIR holds a folder for each student, and in it notebooks named like the exercises. Each
notebook is run in a process and a gradebook of its own, so that nobody's crash costs
another's grade. The code in it runs with your rights: read it, or use a container.
"""

import argparse
import csv
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from make_exercises import CONFIG, ROOT, SOLUTIONS, make_exercise
from nbformat import NotebookNode
from submissions import read_submission, rebuild

BIN = Path(sys.executable).parent
COLUMNS: list[str] = [
    "student",
    "notebook",
    "task",
    "points",
    "of",
    "reason",
    "answer",
]
# Before each check, so that it is ours whatever the cells before have put in its place.
FRESH = """import sys as _sys
import warnings as _warnings
_warnings.filterwarnings("ignore")
for _name in [n for n in _sys.modules if n.startswith("vit_course")]:
    del _sys.modules[_name]
from vit_course.checks import *
"""
ENDED = 'raise RuntimeError("this cell ended the whole run, or never ended")'


def _config(course: Path, timeout: int) -> None:
    lines = ["c = get_config()", f"c.CourseDirectory.root = {str(course)!r}"]
    lines += [f"c.Execute.timeout = {timeout}", "c.Execute.interrupt_on_timeout = True"]
    stubs = CONFIG.ClearSolutions
    lines += [f"c.ClearSolutions.{key} = {value!r}" for key, value in stubs.items()]
    (course / "nbgrader_config.py").write_text("\n".join(lines) + "\n")


def _nbgrader(course: Path, limit: float, *words: str) -> str:
    """Runs an nbgrader command; returns "" or what went wrong."""
    env = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    env |= {"PYTHONPATH": str(ROOT), "VIT_COURSE_OFFLINE": "1", "MPLBACKEND": "agg"}
    log = course / "log.txt"
    with log.open("w") as file:
        process = subprocess.Popen(
            [BIN / "nbgrader", *words],
            cwd=course,
            env=env,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # so that kernels end with it
        )
        try:
            code = process.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            process.wait()
    if code is None:
        return "the notebook took too long"
    return "" if code == 0 else log.read_text()[-2000:]


class Grader:
    """Grades notebooks of one set of exercises.

    Args:
        folder: for temporary files.
        solutions: folder with the notebooks that the exercises were made from.
        timeout: seconds that a cell may take.
        limit: seconds that a notebook may take.
    """

    def __init__(
        self, folder: Path, solutions: Path, timeout: int = 60, limit: int = 300
    ) -> None:
        self.folder, self.timeout, self.limit = folder, timeout, limit
        self.solutions = {path.stem: path for path in sorted(solutions.glob("*.ipynb"))}
        self._courses = {}

    def match(self, path: Path) -> str:
        """Finds the exercise for a file such as `Copy of 04_class_token (1).ipynb`."""
        return next((name for name in self.solutions if name in path.stem), "")

    def _course(self, name: str) -> Path:
        """Makes a course with one assignment, once."""
        if name not in self._courses:
            course = self.folder / "courses" / name
            source = course / "source" / name / f"{name}.ipynb"
            source.parent.mkdir(parents=True)
            notebook = nbformat.read(self.solutions[name], as_version=4)
            for cell in notebook.cells:
                about = cell.metadata.get("nbgrader", {})
                if about.get("grade") and cell.cell_type == "code":
                    cell.source = FRESH + cell.source
            nbformat.write(notebook, source)
            _config(course, self.timeout)
            wrong = _nbgrader(course, 300, "generate_assignment", name)
            if wrong:
                raise RuntimeError(f"nbgrader cannot use {source.name}: {wrong}")
            self._courses[name] = course
        return self._courses[name]

    def _run(
        self, name: str, notebook: NotebookNode
    ) -> tuple[NotebookNode | None, str]:
        """Autogrades one notebook in a copy of the course."""
        course = self.folder / "run"
        shutil.rmtree(course, ignore_errors=True)
        shutil.copytree(self._course(name), course)
        _config(course, self.timeout)
        submitted = course / "submitted" / "student" / name / f"{name}.ipynb"
        submitted.parent.mkdir(parents=True)
        nbformat.write(notebook, submitted)
        wrong = _nbgrader(course, self.limit, "autograde", name, "--student", "student")
        graded = course / "autograded" / "student" / name / f"{name}.ipynb"
        if wrong or not graded.is_file():
            return None, wrong or "nbgrader wrote nothing"
        return nbformat.read(graded, as_version=4), ""

    def grade(self, name: str, path: Path) -> list[dict]:
        """Grades a submission; one row for each task.

        Raises:
            ValueError: the file is no notebook.
        """
        exercise = make_exercise(self.solutions[name])
        notebook, notes = rebuild(read_submission(path), exercise)
        tasks = [
            c for c in exercise.cells if c.metadata.get("nbgrader", {}).get("grade")
        ]
        graded, wrong = self._run(name, notebook)
        if graded is None:
            given = {cell.source for cell in exercise.cells}
            graded = self._without_what_ends_the_run(name, notebook, notes, given)
        blank = {
            cell.metadata.nbgrader.grade_id: cell.source
            for cell in exercise.cells
            if "nbgrader" in cell.metadata
        }
        cells = {}
        for cell in graded.cells if graded else []:
            cells[cell.metadata.get("nbgrader", {}).get("grade_id", "")] = cell
        rows = []
        for task in tasks:
            about = task.metadata.nbgrader
            remarks = [*notes.get(about.grade_id, [])]
            remarks += notes.get(about.grade_id.removesuffix("-check"), [])
            row = {"notebook": name, "task": about.grade_id, "of": about.points}
            cell = cells.get(about.grade_id)
            if cell is None:
                points, reason = 0, wrong
            elif task.cell_type == "markdown":
                answered = cell.source.strip() != blank[about.grade_id].strip()
                row["answer"] = cell.source if answered else ""
                points = "" if answered else 0
                reason = "to be read by you" if answered else "no answer"
            else:
                points, reason = _points(cell, about.points)
            remarks = ([reason] if reason else []) + remarks + notes.get("", [])
            rows.append(
                row | {"points": points, "reason": "; ".join(dict.fromkeys(remarks))}
            )
        return rows

    def _without_what_ends_the_run(
        self, name: str, notebook: NotebookNode, notes: dict, given: set[str]
    ) -> NotebookNode | None:
        """Leaves out one answer after the other until the rest can be graded.

        Args:
            name: of the notebook.
            notebook: as it was handed in; what is left out is replaced in it.
            notes: remarks by task, to which this adds.
            given: sources of the exercise's own cells, which are no answers.
        """
        own = [
            cell
            for cell in notebook.cells
            if cell.cell_type == "code" and cell.source not in given
        ]
        kept = [cell.source for cell in own]
        for cell in own:
            cell.source = ENDED
        graded = None
        for cell, source in zip(own, kept, strict=True):
            cell.source = source
            attempt, _ = self._run(name, notebook)
            if attempt is None:
                cell.source = ENDED
                task = cell.metadata.get("nbgrader", {}).get("grade_id", "")
                text = "its code ended the whole run, or never ended: it was left out"
                notes.setdefault(task, []).append(text)
            else:
                graded = attempt
        return graded


def _points(cell: NotebookNode, of: float) -> tuple[float, str]:
    """Points of a check that was run, and why some are missing."""
    for output in cell.outputs:
        if output.output_type == "error":
            if output.ename == "Hint":
                return 0, output.evalue
            if (
                output.ename == "CellTimeoutError"
                or output.ename == "KeyboardInterrupt"
            ):
                return 0, "the code does not come to an end"
            return 0, f"{output.ename}: {output.evalue}"
    return of, ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("submissions", type=Path, help="one folder per student")
    parser.add_argument("--out", type=Path, default=Path("grades.csv"), help="table")
    parser.add_argument("--solutions", type=Path, default=SOLUTIONS)
    parser.add_argument("--timeout", type=int, default=60, help="seconds per cell")
    parser.add_argument("--limit", type=int, default=300, help="seconds per notebook")
    args = parser.parse_args(arguments)
    if not args.submissions.is_dir():
        parser.error(f"{args.submissions} is no folder")
    entries = sorted(args.submissions.iterdir())
    students = [p for p in entries if p.is_dir() and not p.name.startswith(".")]
    if not students:
        parser.error(f"{args.submissions} holds no folders of students")
    with (
        tempfile.TemporaryDirectory() as folder,
        args.out.open("w", newline="") as file,
    ):
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        grader = Grader(Path(folder), args.solutions, args.timeout, args.limit)
        for student in students:
            points = of = unread = 0.0
            for path in sorted(student.rglob("*.ipynb")):
                if ".ipynb_checkpoints" in path.parts:
                    continue
                name = grader.match(path)
                try:
                    if not name:
                        raise ValueError(f"{path.name} is named like no exercise")
                    rows = grader.grade(name, path)
                except ValueError as error:
                    rows = [{"notebook": path.name, "points": 0, "reason": str(error)}]
                for row in rows:
                    table.writerow({"student": student.name} | row)
                    points += row["points"] or 0
                    unread += row.get("of", 0) if row["points"] == "" else 0
                    of += row.get("of", 0)
                file.flush()  # an interrupted run keeps what it has
            told = f"{points:g} of {of - unread:g} checked, {unread:g} to be read"
            print(f"{student.name}: {told}", flush=True)
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
