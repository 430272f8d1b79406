"""Writes the ledger of proofs, tests/ledger.toml, into docs/proofs.md as a table."""

import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START, END = "<!-- ledger: written by `make ledger` -->", "<!-- end of the ledger -->"


def proofs() -> list[dict[str, str]]:
    """The rows of the ledger, in the order of the lessons."""
    text = (ROOT / "tests" / "ledger.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)["proof"]


def lesson_of(proof: dict[str, str]) -> Path:
    """The notebook in which a row's code is built."""
    (path,) = (ROOT / "notebooks").glob(f"{proof['lesson']}_*.ipynb")
    return path


def file_of(module: str) -> str:
    """Path of a module, or of the package, whose first file is its face."""
    path = f"going_modular/{module.replace('.', '/')}"
    return f"{path}/__init__.py" if (ROOT / path).is_dir() else f"{path}.py"


def link_to_test(proof: dict[str, str], folder: str) -> str:
    """A row's test by its name, as a markdown link into the folder of the tests."""
    file, _, function = proof["test"].partition("::")
    return f"[`{function.removeprefix('test_')}`]({folder}/{file})"


def table() -> str:
    """The ledger as a markdown table with links to lesson, module and test."""
    lines = ["| equation | symbol | class or function | lesson | equals | test |"]
    lines += ["|---|---|---|---|---|---|"]
    for proof in proofs():
        module, _, name = proof["code"].rpartition(".")
        code = f"[`{name}`](../{file_of(module)})" if module else "by hand"
        lesson = f"[{proof['lesson']}](../notebooks/{lesson_of(proof).name})"
        test = link_to_test(proof, "../tests")
        cells = [
            proof["equation"],
            proof["symbol"],
            code,
            lesson,
            proof["equals"],
            test,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write(page: Path) -> None:
    """Replaces what stands between the two marks of a page.

    Raises:
        ValueError: the page lacks one of the marks.
    """
    text = page.read_text(encoding="utf-8")
    if START not in text or END not in text:
        raise ValueError(f"{page} needs the lines {START} and {END}")
    before, rest = text.split(START)
    after = rest.split(END)[1]
    text = f"{before}{START}\n\n{table()}\n\n{END}{after}"
    page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write(ROOT / "docs" / "proofs.md")
