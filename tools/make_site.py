"""Builds the web site into build/site: lessons, exercises, solutions, reference."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import nbformat
from run_course import title
from set_repository import address_of
from start_page import start_page
from write_ledger import link_to_test, proofs

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = ("notebooks", "notebooks/exercises", "notebooks/solutions")
# Pages of text.
TEXTS = (
    "docs/install.md",
    "docs/terminal.md",
    "docs/model.md",
    "docs/proofs.md",
    "docs/measurements.md",
    "docs/reading.md",
    "notebooks/GLOSSARY.md",
    "notebooks/solutions/README.md",
    "notebooks/solutions/WRITE_A_TASK.md",
    "benchmarks/RESULTS.md",
    "models/README.md",
)
WARNING = """:::{warning}
This page holds **solutions**. A task taught you something when you have tried it
first: the [exercise](../exercises/%s) has a check under each task that says what is
missing. The answers below stay folded until you open them.
:::

"""
FOLDED = "<details><summary>Show the answer</summary>\n\n%s\n\n</details>"
EXERCISES = """# Exercises

A notebook for each lesson, with a check under each task; and a capstone. They are
meant to be run: download one with the button above it, or open it in Colab.

```{toctree}
:maxdepth: 1

%s
```
"""
SOLUTIONS = """# Solutions

:::{warning}
Behind these links are the answers to all exercises. Try first: the
[exercises](../exercises/index.md) tell you themselves what is missing.
:::

```{toctree}
:maxdepth: 1

%s
```
"""
REFERENCE = """# The code

`going_modular` is what the lessons export, one module per lesson. Every page shows the
equation that its lesson is about, and what its classes are proved equal to.

```{toctree}
:maxdepth: 1

%s
```
"""


def notebooks_in(folder: str) -> list[Path]:
    """Returns the notebooks of a folder of the repository, in their order."""
    return sorted((ROOT / folder).glob("*.ipynb"))


@cache  # every cell with a link asks
def module_name(path: Path) -> str:
    """Returns "vit" for going_modular/vit.py, a package's name for its first file."""
    parts = path.relative_to(ROOT / "going_modular").with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def repository() -> tuple[str, str]:
    """Returns the address of the repository and its branch, from pyproject.toml."""
    name, branch = address_of(ROOT)
    return f"https://github.com/{name}", branch


def published() -> str:
    """Returns where GitHub Pages shows the site."""
    owner, name = address_of(ROOT)[0].split("/")
    return f"https://{owner}.github.io/{name}/"


def relative(target: str, page: str) -> str:
    """Returns how `page` links to `target`, both counted from the top."""
    return Path(os.path.relpath(target, Path(page).parent)).as_posix()


def adapt_links(text: str, page: str) -> str:
    """Turns the links of a page of the repository into links of the site.

    Modules lead to their reference, folders of notebooks to their list, and what is no
    page of the site to the repository.
    """
    address, branch = repository()

    def at_home(match: re.Match) -> str:
        # HTML, because Sphinx would look for a source of that page.
        words, target = match.groups()
        return f'<a href="{relative(target, page)}">{words}</a>'

    # Pages of the site that have no source in the repository: the playground.
    text = re.sub(rf"\[([^]]+)\]\({re.escape(published())}([^)]+)\)", at_home, text)

    def adapt(match: re.Match) -> str:
        target, _, anchor = match.group(1).partition("#")
        if not target or re.match(r"\w+:", target):
            return match.group(0)
        path = os.path.normpath(Path(page).parent / target)
        if re.fullmatch(r"going_modular/[\w/]+\.py", path):
            new = relative(f"reference/{module_name(ROOT / path)}.md", page)
        elif path in NOTEBOOKS[1:]:
            new = relative(f"{path}/index.md", page)
        elif path == "going_modular":
            new = relative("reference/index.md", page)
        elif path == "README.md":
            new = relative("index.md", page)
        elif path.endswith(".ipynb") or path in TEXTS:
            new = relative(path, page)
        elif path.endswith((".png", ".jpg", ".svg")):
            new = target
        else:
            new = f"{address}/blob/{branch}/{path}"
        return f"]({new}{'#' + anchor if anchor else ''})"

    return re.sub(r"\]\(([^)\s]+)\)", adapt, text)


def adapt_pictures(text: str) -> str:
    """Gives Sphinx the two versions of a figure, for light and for dark pages."""

    def adapt(match: re.Match) -> str:
        dark, light, alt = match.groups()
        return "\n\n".join(
            f"```{{image}} {file}\n:class: only-{theme}\n:alt: {alt}\n```"
            for theme, file in (("light", light), ("dark", dark))
        )

    pattern = (
        r'<picture>\s*<source[^>]*srcset="([^"]+)">\s*'
        r'<img src="([^"]+)" alt="([^"]+)"[^>]*>\s*</picture>'
    )
    return re.sub(pattern, adapt, text)


def first_page(images: Path) -> str:
    """Returns the start page, with the list of all pages below it.

    Args:
        images: folder for the images of the cards.
    """
    text = adapt_links(adapt_pictures(start_page(images)), "index.md")
    lessons = [path.stem for path in notebooks_in("notebooks")]
    parts = {
        "Lessons": [f"notebooks/{name}" for name in lessons if name[0] != "A"],
        "Appendices": [f"notebooks/{name}" for name in lessons if name[0] == "A"],
        "Practice": [
            "notebooks/exercises/index",
            "notebooks/solutions/index",
            "notebooks/solutions/README",
            "notebooks/solutions/WRITE_A_TASK",
        ],
        "Look things up": [
            "notebooks/GLOSSARY",
            "docs/model",
            "reference/index",
            "docs/terminal",
            "docs/install",
            "docs/proofs",
            "docs/measurements",
            "benchmarks/RESULTS",
            "models/README",
            "docs/reading",
        ],
    }
    for caption, pages in parts.items():
        text += f"\n```{{toctree}}\n:caption: {caption}\n:hidden:\n\n"
        text += "\n".join(pages) + "\n```\n"
    return text


def fold_set_up(cells: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Makes one folded cell of set-up, imports and versions that follow each other."""
    kept: list[nbformat.NotebookNode] = []
    for i, cell in enumerate(cells):
        if cell.source.startswith("## Where we are"):
            return kept + cells[i:]
        before = kept[-1] if kept else None
        if cell.cell_type == "code" and before and before.cell_type == "code":
            before.source += "\n\n" + cell.source
            before.outputs += cell.outputs
        else:
            kept.append(cell)
        if cell.cell_type == "code":
            kept[-1].metadata["tags"] = ["hide-cell"]
            prompt = {"code_prompt_show": "Show set-up, imports and versions"}
            prompt["code_prompt_hide"] = "Hide set-up, imports and versions"
            kept[-1].metadata["mystnb"] = prompt
    return kept


def next_lesson(name: str) -> str:
    """Returns the lesson that the text of a lesson names as the next; "" if none."""
    text = (ROOT / "notebooks" / f"{name}.ipynb").read_text(encoding="utf-8")
    said = re.search(r"Next: \[[^]]+\]\((\w+)\.ipynb\)", text)
    return said[1] if said else ""


def without_authors_notes(cell: nbformat.NotebookNode) -> None:
    """Takes from a code cell what says nothing to a reader of the site."""
    cell.source = re.sub(r"^#\| .*\n?", "", cell.source, flags=re.MULTILINE)
    for output in cell.outputs:
        if output.output_type == "stream":
            output.text = output.text.replace(" (VIT_COURSE_OFFLINE is set)", "")


def adapt_notebook(path: Path, page: str) -> nbformat.NotebookNode:
    """Returns a notebook with the site's links; set-up and solutions are folded."""
    notebook = nbformat.read(path, as_version=4)
    if path.parent.name == "notebooks":
        for cell in notebook.cells:
            if cell.cell_type == "code":
                without_authors_notes(cell)
        notebook.cells = fold_set_up(notebook.cells)
    for cell in notebook.cells:
        solution = cell.metadata.get("nbgrader", {}).get("solution")
        if solution:
            marks = r"^[ \t]*### (BEGIN|END) SOLUTION\n?"
            cell.source = re.sub(marks, "", cell.source, flags=re.MULTILINE).strip()
        if cell.cell_type == "markdown":
            cell.source = adapt_links(cell.source, page)
            if solution:
                cell.source = FOLDED % cell.source
        elif solution:
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), "hide-cell"]
        elif '"google.colab" in sys.modules' in cell.source:
            tags = cell.metadata.get("tags", [])
            cell.metadata["tags"] = tags or ["hide-input"]
    if path.parent.name == "solutions":
        head, _, rest = notebook.cells[0].source.partition("\n")
        head = head.replace("exercises", "solutions")
        notebook.cells[0].source = f"{head}\n\n{WARNING % path.name}{rest}"
    return notebook


def reference_page(module: Path) -> str:
    """Returns the page of a module: its lesson, equation, proofs and docstrings."""
    source, name = module.read_text(encoding="utf-8"), module_name(module)
    [lesson] = re.findall(r"File to edit: (?:\.\./)+notebooks/(\w+)\.ipynb", source)
    path = ROOT / "notebooks" / f"{lesson}.ipynb"
    first = nbformat.read(path, as_version=4).cells[0].source
    built = f"Built in [{title(path)}](../notebooks/{lesson}.ipynb)."
    lines = [f"# {name}", built]
    equation = re.search(r"\$\$.+?\$\$", first, re.DOTALL)
    if equation:
        lines.append(equation.group(0))
    rows = [p for p in proofs() if p["code"].startswith(f"{name}.")]
    if rows:
        address, branch = repository()
        lines.append("| code | symbol | equals | proved by |\n|---|---|---|---|")
        for proof in rows:
            test = link_to_test(proof, f"{address}/blob/{branch}/tests")
            code = proof["code"].removeprefix(f"{name}.")
            cells = [f"`{code}`", proof["symbol"], proof["equals"], test]
            lines[-1] += f"\n| {' | '.join(cells)} |"
    directive = f".. automodule:: going_modular.{name}\n   :members:"
    lines.append(f"```{{eval-rst}}\n{directive}\n   :show-inheritance:\n```")
    return "\n\n".join(lines) + "\n"


def prepare(source: Path) -> None:
    """Writes the pages that Sphinx reads into the folder `source`."""
    shutil.rmtree(source, ignore_errors=True)
    for folder in (*NOTEBOOKS, "docs", "reference", "models"):
        (source / folder).mkdir(parents=True, exist_ok=True)
    no_text = shutil.ignore_patterns("*.md")  # each .md would become a page
    shutil.copytree(ROOT / "images", source / "images", ignore=no_text)
    (source / "index.md").write_text(first_page(source / "images"), encoding="utf-8")
    shutil.copytree(ROOT / "benchmarks" / "plots", source / "benchmarks" / "plots")
    for page in TEXTS:
        text = (ROOT / page).read_text(encoding="utf-8")
        text = adapt_links(adapt_pictures(text), page)
        (source / page).write_text(text, encoding="utf-8")
    for folder in NOTEBOOKS:
        for path in notebooks_in(folder):
            page = f"{folder}/{path.name}"
            nbformat.write(adapt_notebook(path, page), source / page)
    modules = [p for p in (ROOT / "going_modular").rglob("*.py") if module_name(p)]
    for module in modules:
        page = source / "reference" / f"{module_name(module)}.md"
        page.write_text(reference_page(module), encoding="utf-8")
    lists = {"reference": (REFERENCE, sorted(map(module_name, modules)))}
    for folder, text in zip(NOTEBOOKS[1:], (EXERCISES, SOLUTIONS), strict=True):
        lists[folder] = text, [path.stem for path in notebooks_in(folder)]
    for folder, (text, names) in lists.items():
        text = text % "\n".join(names)
        (source / folder / "index.md").write_text(text, encoding="utf-8")


def build(output: Path) -> Path:
    """Builds the site; a warning of Sphinx is an error.

    Args:
        output: where the pages go; beside it `OUTPUT_source`, which Sphinx reads.

    Returns:
        The first page.

    Raises:
        subprocess.CalledProcessError: Sphinx found fault, and has printed what.
    """
    import make_playground  # needs torch, which Sphinx's settings shall not wait for

    source = output.with_name(f"{output.name}_source")
    prepare(source)
    shutil.rmtree(output, ignore_errors=True)
    sphinx = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-j", "2"]
    subprocess.run([*sphinx, "-c", ROOT / "docs", source, output], check=True)
    # The download buttons give the notebooks themselves, not the site's versions.
    for folder in NOTEBOOKS:
        for path in notebooks_in(folder):
            shutil.copy(path, output / "_sources" / folder / path.name)
    make_playground.build(output / "playground")
    return output / "index.html"


def main() -> None:
    """Builds the site and says where it is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "site")
    start = time.perf_counter()
    page = build(parser.parse_args().output.resolve())
    seconds = time.perf_counter() - start
    print(f"The site is built, in {seconds:.0f} seconds. Open this page:\n{page}")


if __name__ == "__main__":
    main()
