"""Puts a learner's answers back into the notebook that was handed out.

What comes back from 30 laptops and from Colab has cells missing, moved, copied or
changed. Only the learner's own cells are taken from it: those of the answers, and what
was added between them. All others are those of the exercise.
"""

import ast
import copy
import re

import nbformat
from nbformat import NotebookNode
from nbgrader.utils import compute_checksum

TOUCHES_CHECKS = re.compile(
    r"vit_course|\bcheck_\w+\s*=|def check_|\bHint\b|"
    r"sys\.modules|nbgrader|get_ipython"
)

# What no answer needs, and who looks for the solution or changes Python does.
LOOKS_INSIDE = re.compile(
    r"_getframe|_current_frames|currentframe|\binspect\b|\bf_(?:back|locals|globals)\b|"
    r"\b(?:tb|gi|cr|ag)_frame\b|\bgc\b|ctypes|builtins|settrace|setprofile|/proc|"
    r"__(?:globals|closure|code|dict|getattribute|torch_\w+|import|subclasses)__|"
    r"TorchFunctionMode|\b(?:exec|(?<!\.)eval|getattr|vars|globals|attrgetter)\(|"
    r"importlib"
)


def _about(cell: NotebookNode) -> dict:
    return cell.metadata.get("nbgrader", {})


def _name(cell: NotebookNode) -> str:
    return _about(cell).get("grade_id", "")


def _first_definition(cell: NotebookNode) -> str:
    found = re.search(r"^\s*(?:class|def) \w+", cell.source, re.MULTILINE)
    return found.group() if found and cell.cell_type == "code" else ""


def read_submission(path) -> NotebookNode:
    """Reads a notebook of any version.

    Raises:
        ValueError: the file is no notebook.
    """
    try:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:
            assert isinstance(cell.source, str) and cell.cell_type
    except Exception as error:
        raise ValueError(
            f"{path.name} is no notebook: {type(error).__name__}"
        ) from None
    return notebook


def _answers(cells: list[NotebookNode], exercise: NotebookNode) -> dict[str, list[int]]:
    """Finds the places of each answer by name, else by id, else by what it defines."""
    found = {}
    for wanted in exercise.cells:
        if not _about(wanted).get("solution"):
            continue
        places = [i for i, c in enumerate(cells) if _name(c) == _name(wanted)]
        if not places:
            places = [i for i, c in enumerate(cells) if c.get("id") == wanted["id"]]
        if not places and (first := _first_definition(wanted)):
            places = [i for i, c in enumerate(cells) if _first_definition(c) == first]
        found[_name(wanted)] = places
    return found


def without_comments(source: str) -> str:
    try:
        return ast.unparse(ast.parse(source))
    except SyntaxError:  # such as a magic of IPython
        return source


def looks_inside(notebook: NotebookNode, exercise: NotebookNode) -> list[str]:
    """The words of LOOKS_INSIDE in a learner's code."""
    given = {cell.source for cell in exercise.cells}
    own = [c.source for c in notebook.cells if c.cell_type == "code"]
    code = [without_comments(source) for source in own if source not in given]
    return sorted({word for text in code for word in LOOKS_INSIDE.findall(text)})


def rebuild(
    submitted: NotebookNode, exercise: NotebookNode
) -> tuple[NotebookNode, dict[str, list[str]]]:
    """Fills the learner's cells into the exercise.

    Args:
        submitted: what the learner handed in.
        exercise: what was handed out.

    Returns:
        The exercise with the answers, and notes for each answer or check ("" for those
        on the whole notebook).
    """
    cells = submitted.cells
    places = _answers(cells, exercise)
    known = {_name(cell) for cell in exercise.cells} - {""}
    given = {cell.source.strip() for cell in exercise.cells}
    whole = copy.deepcopy(exercise)
    notes = {}

    def note(name: str, text: str) -> None:
        notes.setdefault(name, []).append(text)

    for cell in whole.cells:
        name = _name(cell)
        if name in places:
            answers = [cells[i].source for i in places[name]]
            blank = cell.source.strip()
            written = [a for a in dict.fromkeys(answers) if a.strip() != blank]
            if not answers:
                note(name, "the cell for the answer is missing")
            if len(written) > 1:
                note(
                    name, f"{len(written)} cells with this answer: the last one counts"
                )
            if written:
                cell.source = written[-1]
                cell.metadata.nbgrader.checksum = compute_checksum(cell)
                if cell.source.strip() == blank:
                    cell.source = blank
        elif name:
            same = [c for c in cells if _name(c) == name]
            if _about(cell).get("grade"):
                if not same:
                    note(name, "the check was missing: it was put back")
                elif any(c.source.strip() != cell.source.strip() for c in same):
                    note(name, "the check had been changed: the original was run")
    # What a learner added stays where it was: after the same known cell.
    used = {i for found in places.values() for i in found}
    at = {_name(cell): cell for cell in whole.cells if _name(cell)}
    after, last = {}, ""
    for i, cell in enumerate(cells):
        name = _name(cell)
        if name in known or i in used:
            by_place = (n for n, found in places.items() if i in found)
            last = name if name in known else next(by_place)
        elif cell.cell_type == "code" and cell.source.strip() not in given:
            extra = nbformat.v4.new_code_cell(cell.source)
            after.setdefault(last, []).append(extra)
    result = list(after.get("", []))
    for cell in whole.cells:
        result.append(cell)
        if _name(cell) in at:
            result += after.get(_name(cell), [])
    whole.cells = result
    for cell in whole.cells:
        own = cell.source.strip() not in given
        if own and cell.cell_type == "code" and TOUCHES_CHECKS.search(cell.source):
            note(_name(cell), "the code touches the checks: please read it")
    return whole, notes
