"""Adds the skeleton of a task, with its tests, to the exercises of a lesson.

    make new-exercise LESSON=05 NAME=patch_mean

The skeleton is a whole task that works: the mean of an image's patch tokens. Put yours
in its place; notebooks/solutions/WRITE_A_TASK.md goes through it line by line.
"""

import argparse
import re
from pathlib import Path

import nbformat
from make_exercises import ROOT, SOLUTIONS

TASK = """

# {name}: put your inputs, your reference, your mistakes and their hints in place.


def _inputs_of_{name}() -> list[tuple]:
    g = torch.Generator().manual_seed(1)
    shown = torch.arange(24.0).view(2, 3, 4)  # the example of the notebook comes first
    return [(shown,), *((torch.randn(s, generator=g),) for s in ((3, 5, 2), (1, 2, 6)))]


check_{name} = Task(
    "{name}",
    "the mean of the patch tokens",
    Case(
        inputs=_inputs_of_{name},
        right=lambda tokens: tokens[:, 1:].mean(dim=1),
        mistakes={{
            lambda tokens: tokens.mean(dim=1): (
                "the class token is in the mean. It is token 0."
            ),
            lambda tokens: tokens[:, 1:].sum(dim=1): (
                "this is the sum of the patch tokens. Divide it by their number."
            ),
            lambda tokens: tokens[:, 1:].mean(dim=2): (
                "the mean is taken over the features of a token. Tokens are axis 1."
            ),
            lambda tokens: tokens[1:].mean(dim=1): (
                "`tokens[1:]` leaves out an image. The tokens are axis 1: `[:, 1:]`."
            ),
        }},
        advice="Which axis holds the tokens, and which of them is no patch?",
    ),
)
"""
ANSWERS = """

@wrong("check_{name}", "gives back None")
def {name}_without_return(tokens):
    tokens[:, 1:].mean(dim=1)


@right("check_{name}")
def {name}_by_a_loop(tokens):
    return torch.stack([sum(image[1:]) / (len(image) - 1) for image in tokens])


@right("check_{name}")
def {name}_by_subtraction(tokens):
    rest = tokens.sum(dim=1) - tokens[:, 0]
    return rest / (tokens.shape[1] - 1)
"""
TEXT = (
    "## {number}. The mean of the patches (one line)\n\n"
    "Write `{name}(tokens)`: (B, N + 1, D) comes in, the mean of each image's patch "
    "tokens goes out, (B, D). The class token is token 0 and does not count."
)
SOLUTION = """def {name}(tokens):
    ### BEGIN SOLUTION
    return tokens[:, 1:].mean(dim=1)
    ### END SOLUTION"""
CHECK = """from vit_course.checks import check_{name}

check_{name}({name})"""


def _register(checks: Path, lesson: str, name: str) -> None:
    """Adds the check's name to the imports and to `__all__`, in order."""
    text = checks.read_text(encoding="utf-8")
    for begin, item in (
        (rf"from vit_course\.checks\.lesson_{lesson} import \(\n", f"    {name},\n"),
        (r"__all__ = \[\n", f'    "{name}",\n'),
    ):
        match = re.search(rf"({begin})((?:    .*\n)+)", text)
        if match is None:
            raise ValueError(f"{checks} holds no lesson {lesson}")
        lines = sorted([*match[2].splitlines(keepends=True), item])
        text = text[: match.end(1)] + "".join(lines) + text[match.end() :]
    checks.write_text(text, encoding="utf-8")


def _with_imports(text: str, imports: dict[str, tuple[str, ...]]) -> str:
    """Adds what the skeleton needs to a module's imports, if it is not there."""
    for module, names in imports.items():
        if not names:
            if not re.search(rf"^import {module}$", text, re.MULTILINE):
                text = re.sub(r'("""\n\n)', rf"\1import {module}\n", text, count=1)
            continue
        line = re.search(rf"^from {module} import (\w+(?:, \w+)*)$", text, re.MULTILINE)
        if line is None:
            added = rf"\1from {module} import {', '.join(names)}\n"
            text = re.sub(r'("""\n\n)', added, text, count=1)
        else:
            all_names = sorted({*line[1].split(", "), *names})
            text = text.replace(line[0], f"from {module} import {', '.join(all_names)}")
    return text


def _cells(name: str, number: int) -> list:
    given = {"schema_version": 3, "task": False}
    answer = given | {"grade": False, "solution": True, "locked": False}
    check = given | {"grade": True, "solution": False, "locked": True, "points": 1}
    new = nbformat.v4
    return [
        new.new_markdown_cell(TEXT.format(name=name, number=number)),
        new.new_code_cell(
            SOLUTION.format(name=name),
            metadata={"nbgrader": answer | {"grade_id": name}},
        ),
        new.new_code_cell(
            CHECK.format(name=name),
            metadata={"nbgrader": check | {"grade_id": f"{name}-check"}},
        ),
    ]


def add_exercise(root: Path, lesson: str, name: str) -> list[Path]:
    """Adds a task to a lesson's checks, stored answers and notebook of solutions.

    Args:
        root: of the course.
        lesson: two digits.
        name: of the function that learners write.

    Raises:
        ValueError: there are no exercises of this lesson, or the name is taken.
    """
    checks = root / "vit_course" / "checks"
    file = checks / f"lesson_{lesson}.py"
    found = sorted((root / SOLUTIONS.relative_to(ROOT)).glob(f"{lesson}_*.ipynb"))
    if not file.is_file() or not found:
        raise ValueError(f"there are no exercises of lesson {lesson!r}")
    listed = (checks / "__init__.py").read_text(encoding="utf-8")
    if not re.fullmatch(r"[a-z]\w*", name) or f'"check_{name}"' in listed:
        raise ValueError(f"{name!r} is no name of a function, or it is taken")
    answers = root / "tests" / "exercises" / "answers" / file.name
    for path, text, imports in (
        (file, TASK, {"vit_course.checks.task": ("Case", "Task"), "torch": ()}),
        (answers, ANSWERS, {"answers": ("right", "wrong"), "torch": ()}),
    ):
        whole = _with_imports(path.read_text(encoding="utf-8"), imports)
        path.write_text(whole + text.format(name=name), encoding="utf-8")
    _register(checks / "__init__.py", lesson, f"check_{name}")
    notebook = nbformat.read(found[0], as_version=4)
    text = "\n".join(cell.source for cell in notebook.cells)
    tasks = re.findall(r"^## \d+\. ", text, re.MULTILINE)
    notebook.cells += _cells(name, len(tasks) + 1)
    found[0].write_text(nbformat.writes(notebook) + "\n", encoding="utf-8")
    return [file, checks / "__init__.py", answers, found[0]]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).split("\n")[0])
    parser.add_argument("lesson", help="two digits, such as 05")
    parser.add_argument("name", help="of the function that learners write")
    args = parser.parse_args(arguments)
    try:
        paths = add_exercise(ROOT, args.lesson, args.name)
    except ValueError as error:
        parser.error(str(error))
    print("Look for", args.name, "in:", *paths, sep="\n  ")


if __name__ == "__main__":
    main()
