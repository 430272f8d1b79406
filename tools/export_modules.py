"""Writes going_modular/ from the cells of the lessons that are marked `#| export`."""

import ast
import re
import subprocess
import sys
from pathlib import Path

from nbdev.export import ExportModuleProc
from nbdev.maker import ModuleMaker
from nbdev.process import NBProcessor

ROOT = Path(__file__).resolve().parent.parent


def parts(notebook: Path) -> list[Path]:
    """Returns the notebooks of a lesson: 05_… and, where it goes on, 05b_…, 05c_…"""
    number = re.split("[a-z_]", notebook.name)[0]
    return sorted(notebook.parent.glob(f"{number}[_a-z]*.ipynb"))


def export(notebook: Path, destination: Path) -> list[Path]:
    """Writes the modules of one lesson, and returns their paths.

    A module that begins in one part of the lesson may go on in the next; imports that
    are new there join those at the top.
    """
    modules, sources = {}, {}
    for part in parts(notebook):
        exporter = ExportModuleProc()
        NBProcessor(part, [exporter]).process()
        for name, cells in exporter.modules.items():
            if all(cell.cell_type == "markdown" for cell in cells):
                continue  # a title alone makes no module
            name = exporter.default_exp if name == "#" else name
            if name in modules:  # its title is the docstring already
                cells = [cell for cell in cells if cell.cell_type == "code"]
                imports = [cell for cell in cells if only_imports(cell.source)]
                cells = [cell for cell in cells if cell not in imports]
                modules[name][1:1] = imports  # below the title
            modules.setdefault(name, []).extend(cells)
            sources.setdefault(name, part)
    written = []
    for name, cells in modules.items():
        # parse=False keeps imports as the lesson shows them; solo_nb leaves out marks.
        maker = ModuleMaker(destination, name, sources[name], parse=False, solo_nb=True)
        # nbdev's decorator adds this method to the class; pyright cannot follow it.
        maker.make(cells, lib_path=destination)  # pyright: ignore[reportAttributeAccessIssue]
        path = destination.joinpath(*name.split(".")).with_suffix(".py")
        text = docstring_first(path.read_text(encoding="utf-8"))
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def only_imports(source: str) -> bool:
    """Whether a cell holds import statements and nothing else."""
    statements = ast.parse(source).body
    return all(isinstance(s, ast.Import | ast.ImportFrom) for s in statements)


def docstring_first(text: str) -> str:
    """Moves a one-line docstring that follows the header line before it.

    nbdev makes the notebook's title a docstring, of its first module only; a second
    module opens its first cell with one.
    """
    header, _, code = text.partition("\n")
    if not header.startswith("#") or not code.lstrip().startswith('"""'):
        return text
    docstring, _, rest = code.lstrip().partition("\n")
    return f"{docstring}\n\n{header}\n{rest}"


def export_all(destination: Path) -> list[Path]:
    """Exports every notebook into `destination`, sorted and formatted by ruff."""
    notebooks = sorted((ROOT / "notebooks").glob("*.ipynb"))
    lessons = [notebook for notebook in notebooks if parts(notebook)[0] == notebook]
    modules = [path for lesson in lessons for path in export(lesson, destination)]
    ruff = [sys.executable, "-m", "ruff"]
    subprocess.run(
        [*ruff, "check", "-q", "--select", "I", "--fix", *modules], check=True
    )
    subprocess.run([*ruff, "format", "-q", *modules], check=True)
    return modules


if __name__ == "__main__":
    for module in export_all(ROOT / "going_modular"):
        print(module.relative_to(ROOT))
