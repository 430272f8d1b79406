"""Grades submitted exercises and writes a table.

    make grade SUBMISSIONS=DIR OUT=grades.csv

DIR holds a folder for each student, and in it notebooks named like the exercises. Each
is run in a process and a folder of its own (`run_cells.py`), so that nobody's crash
costs another's grade. What that cannot stop is in notebooks/solutions/README.md.
"""

import argparse
import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nbformat
from make_exercises import ROOT, SOLUTIONS, make_exercise
from nbformat import NotebookNode
from submissions import looks_inside, read_submission, rebuild

COLUMNS = ["student", "notebook", "task", "points", "of", "reason", "answer"]
RUNNER = ROOT / "tools" / "run_cells.py"
# Where root grades, submissions are run by a user that owns nothing.
USER = 60999 if os.geteuid() == 0 else None
KEPT = ("LANG", "OMP_NUM_THREADS", "PATH", "VIT_COURSE_DATA")  # of the environment


def _name(cell: NotebookNode) -> str:
    return cell.metadata.get("nbgrader", {}).get("grade_id", "")


def _is_check(cell: NotebookNode) -> bool:
    about = cell.metadata.get("nbgrader", {})
    return cell.cell_type == "code" and about.get("grade", False)


def _copy_course(folder: Path) -> None:
    """Copies what exercises import, laid out as in a wheel: without solutions."""
    shutil.rmtree(folder, ignore_errors=True)
    for name in ("going_modular", "vit_course"):
        shutil.copytree(ROOT / name, folder / name)
    for name in ("images", "models"):
        shutil.copytree(ROOT / name, folder / "going_modular" / name)
    shutil.copy(ROOT / "helper_functions.py", folder)
    subprocess.run(["chmod", "-R", "a+rX", folder], check=True)


def _hashes(folders: list[Path]) -> dict[Path, str]:
    """The sha256 of each file that grading must not change."""
    paths = [path for folder in folders for path in folder.rglob("*")]
    paths = [path for path in paths if path.is_file() and path.suffix != ".pyc"]
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


class Grader:
    """Grades notebooks of one set of exercises.

    Args:
        folder: for temporary files.
        solutions: folder with the notebooks that the exercises were made from.
        submissions: folder with what was handed in.
        timeout: seconds that a cell may take.
        limit: seconds that a notebook may take.
    """

    def __init__(
        self,
        folder: Path,
        solutions: Path,
        submissions: Path,
        timeout: float = 300,
        limit: float = 900,
    ) -> None:
        self.folder, self.timeout, self.limit = folder, timeout, limit
        self.exercises, self.checks = {}, {}
        for path in sorted(solutions.glob("*.ipynb")):
            self.exercises[path.stem] = make_exercise(path)
            # From the solution: with the teacher's hidden tests.
            cells = nbformat.read(path, as_version=4).cells
            checks = {_name(c): c.source for c in cells if _is_check(c)}
            self.checks[path.stem] = checks
        folder.chmod(0o711)
        self.course = folder / "course"
        self.guarded = [self.course, ROOT / "vit_course", solutions, submissions]
        self._start()

    def _start(self) -> None:
        """Starts the process that runs cells, with an environment of its own."""
        _copy_course(self.course)
        env = {key: os.environ[key] for key in KEPT if key in os.environ}
        env |= {"PYTHONPATH": str(self.course), "PYTHONSAFEPATH": "1"}
        env |= {"PYTHONDONTWRITEBYTECODE": "1", "HOME": str(self.folder)}
        env |= {"VIT_COURSE_OFFLINE": "1", "MPLBACKEND": "agg"}
        words, pipe = [sys.executable, RUNNER], subprocess.PIPE
        self.runner = subprocess.Popen(words, env=env, stdin=pipe, stdout=pipe)
        if not (self.runner.stdout and self.runner.stdout.readline()):
            raise RuntimeError(f"{RUNNER} does not start")
        # It has imported the checks, whose files hold solutions, too.
        shutil.rmtree(self.course / "vit_course" / "checks")

    def grade(self, path: Path, submitted: NotebookNode | str) -> list[dict]:
        """Grades a submission; one row for each task.

        Args:
            path: whose name holds that of an exercise: `Copy of 04_class_token (1)`.
            submitted: its content, or why it could not be read.
        """
        name = next((known for known in self.exercises if known in path.stem), "")
        if not name or isinstance(submitted, str):
            reason = submitted if name else f"{path.name} is named like no exercise"
            return [{"notebook": path.name, "points": 0, "reason": reason}]
        exercise = self.exercises[name]
        notebook, notes = rebuild(submitted, exercise)
        before = _hashes(self.guarded)
        results = self._results(notebook, self.checks[name], notes)
        changed = [path for path, _ in before.items() ^ _hashes(self.guarded).items()]
        for path in sorted(set(changed)):
            notes.setdefault("", []).append(f"while it ran, {path} was changed")
        if any(self.course in path.parents for path in changed):
            self.runner.communicate()
            self._start()
        looks = looks_inside(notebook, exercise)
        answers = {_name(cell): cell.source for cell in notebook.cells}
        rows = []
        for task in exercise.cells:
            about = task.metadata.get("nbgrader", {})
            if not about.get("grade"):
                continue
            row = {"notebook": name, "task": about.grade_id, "of": about.points}
            if task.cell_type == "markdown":
                answer = answers[about.grade_id]
                answered = answer.strip() != task.source.strip()
                row["answer"] = answer if answered else ""
                points = "" if answered else 0
                reason = "to be read by you" if answered else "no answer"
            else:
                passed, reason = results[about.grade_id]
                points = about.points if passed else 0
                if passed and looks:
                    points, reason = "", f"passed with {', '.join(looks)}: to be read"
            remarks = [reason, *notes.get(about.grade_id, [])]
            remarks += notes.get(about.grade_id.removesuffix("-check"), [])
            remarks = dict.fromkeys(filter(None, [*remarks, *notes.get("", [])]))
            rows.append(row | {"points": points, "reason": "; ".join(remarks)})
        return rows

    def _results(self, notebook: NotebookNode, checks: dict, notes: dict) -> dict:
        """Whether each check passed, and what it said.

        A cell that ends the run, or never ends, is left out, and the rest run again.

        Args:
            notebook: with the learner's answers.
            checks: source of each check.
            notes: remarks by task, to which this adds.
        """
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        cells = []
        for cell in code:
            source = checks.get(_name(cell), cell.source)
            cells.append({"check": _name(cell) in checks, "source": source})
        left_out, end = {}, time.monotonic() + self.limit
        while True:
            done = self._run(cells, end - time.monotonic())
            told, at = done["told"], len(done["told"])
            if done["left"]:
                text = f"it left {done['left']} processes running, which were ended"
                notes.setdefault("", []).append(text)
            if at == len(cells) or time.monotonic() > end:
                break
            left_out[at] = f"its code {done['why']}: it was left out"
            cells[at]["source"] = ""
        told += [[False, "the notebook took too long"]] * (len(cells) - len(told))
        results = {}
        for i, cell in enumerate(code):
            passed, text = told[i]
            if cells[i]["check"]:
                results[_name(cell)] = passed and i not in left_out, text
            elif not passed and not _name(cell):  # what a learner added
                notes.setdefault("", []).append(f"an added cell stops with {text}")
            if i in left_out:
                notes.setdefault(_name(cell), []).append(left_out[i])
        return results

    def _run(self, cells: list[dict], limit: float) -> dict:
        """Runs cells in a fresh folder: what came of each, and why not of the rest."""
        where = {"dir": self.folder, "ignore_cleanup_errors": True}
        with tempfile.TemporaryDirectory(**where) as folder:
            if USER is not None:
                os.chown(folder, USER, USER)
            task = {"cells": cells, "folder": folder, "user": USER}
            task |= {"timeout": self.timeout, "limit": limit}
            told, answers = self.runner.stdin, self.runner.stdout
            assert told and answers
            told.write(json.dumps(task).encode() + b"\n")
            told.flush()
            line = answers.readline()
        if line:
            return json.loads(line)
        self._start()
        text = "its code ended the process that runs all submissions"
        return {"told": len(cells) * [[False, text]], "left": 0}


def _read(path: Path) -> NotebookNode | str:
    """Reads what was handed in, or says why not."""
    try:
        return read_submission(path)
    except ValueError as error:
        return str(error)


def _write_table(rows: list[dict], out: Path) -> None:
    with out.open("w", newline="") as file:
        table = csv.DictWriter(file, COLUMNS)
        table.writeheader()
        table.writerows(rows)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("submissions", type=Path, help="one folder per student")
    parser.add_argument("--out", type=Path, default=Path("grades.csv"), help="table")
    parser.add_argument("--solutions", type=Path, default=SOLUTIONS)
    parser.add_argument("--timeout", type=int, default=300, help="seconds per cell")
    parser.add_argument("--limit", type=int, default=900, help="seconds per notebook")
    args = parser.parse_args(arguments)
    if not args.submissions.is_dir():
        parser.error(f"{args.submissions} is no folder")
    entries = sorted(args.submissions.iterdir())
    students = [p for p in entries if p.is_dir() and not p.name.startswith(".")]
    if not students:
        parser.error(f"{args.submissions} holds no folders of students")
    # All is read before any is run: what one notebook does harms no other.
    files = [(s, p, _read(p)) for s in students for p in sorted(s.rglob("*.ipynb"))]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder), args.solutions, args.submissions
        grader = Grader(*where, args.timeout, args.limit)
        for student in students:
            mine = [found[1:] for found in files if found[0] == student]
            made = []
            for path, notebook in mine:
                made += grader.grade(path, notebook)
            rows += [{"student": student.name} | row for row in made]
            _write_table(rows, args.out)  # an interrupted run keeps what it has
            points = sum(row["points"] or 0 for row in made)
            unread = sum(row.get("of", 0) for row in made if row["points"] == "")
            of = sum(row.get("of", 0) for row in made) - unread
            told = f"{points:g} of {of:g} checked, {unread:g} to be read"
            print(f"{student.name}: {told}", flush=True)
        grader.runner.communicate()
    print(f"wrote {args.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
