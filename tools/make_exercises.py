"""Writes notebooks/exercises/ from notebooks/solutions/, without the solutions.

nbgrader does it: whatever stands between BEGIN SOLUTION and END SOLUTION becomes a line
that asks for the learner's own, hidden tests and outputs are taken out, and the cells
with checks are locked.
"""

import argparse
from pathlib import Path
from typing import Any, cast

import nbformat
from nbgrader import preprocessors
from traitlets.config import Config

ROOT = Path(__file__).resolve().parent.parent
SOLUTIONS = ROOT / "notebooks" / "solutions"
EXERCISES = ROOT / "notebooks" / "exercises"
STUB = 'raise NotImplementedError("your lines go here; then run the check below")'
CONFIG = Config(
    ClearSolutions={
        "code_stub": {"python": STUB},
        "text_stub": "*Your answer: write it here, in place of this line.*",
    }
)
# In nbgrader's own order; the checksums tell later whether a check was changed.
STEPS = (
    preprocessors.LockCells,
    preprocessors.ClearSolutions,
    preprocessors.ClearOutput,
    preprocessors.ClearHiddenTests,
    preprocessors.ClearMarkScheme,
    preprocessors.ComputeChecksums,
    preprocessors.CheckCellMetadata,
)


def make_exercise(solution: Path) -> nbformat.NotebookNode:
    """Returns the notebook that learners get for one with solutions."""
    notebook = nbformat.read(solution, as_version=4)
    resources = {}
    for step in STEPS:
        preprocess = cast(
            Any, step(config=CONFIG)
        ).preprocess  # its types are nbconvert's
        notebook, resources = preprocess(notebook, resources)
    return notebook


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument(
        "--output",
        type=Path,
        default=EXERCISES,
        help="output folder (default: notebooks/exercises)",
    )
    output = parser.parse_args(arguments).output
    output.mkdir(parents=True, exist_ok=True)
    solutions = sorted(SOLUTIONS.glob("*.ipynb"))
    for path in solutions:
        nbformat.write(make_exercise(path), output / path.name)
        print(output / path.name)
    for path in output.glob("*.ipynb"):  # of a solution that has been renamed
        if path.name not in {solution.name for solution in solutions}:
            path.unlink()


if __name__ == "__main__":
    main()
