"""Writes repository and branch into badges, set-up cells, texts and metadata."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def address_of(root: Path) -> tuple[str, str]:
    """Returns owner/name and branch, as pyproject.toml names them now."""
    metadata = (root / "pyproject.toml").read_text(encoding="utf-8")
    colab = r'Colab = "[^"]*/github/([^/]+/[^/]+)/blob/([^/]+)/'
    found = re.search(colab, metadata)
    if found is None:
        raise ValueError(f"{root / 'pyproject.toml'} has no link named Colab")
    return found[1], found[2]


def rewrite(root: Path, repository: str, branch: str = "main") -> list[Path]:
    """Replaces the address that pyproject.toml names now, and returns the files.

    Raises:
        ValueError: `repository` is not of the form owner/name, or `branch` is not a
            name without slashes (a link could not tell its end from a folder).
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"expected the repository as owner/name, got {repository!r}")
    if not re.fullmatch(r"[\w.-]+", branch):
        raise ValueError(f"expected a branch without slashes, got {branch!r}")
    now, branch_now = address_of(root)
    places = [root / "pyproject.toml", root / "CITATION.cff", *root.glob("*.md")]
    places += (root / "docs").glob("*.md")
    places += (root / ".github" / "ISSUE_TEMPLATE").glob("*.yml")
    places += (root / "notebooks").rglob("*.ipynb")
    # The host in front keeps the name from matching by chance. The branch follows in
    # links (Binder's after a slash alone), and in the set-up cells, where JSON puts a
    # backslash before each quote.
    address = rf"(github\.com/|/github/|/gh/){re.escape(now)}(?![\w.-])"
    between = r'/blob/|/tree/|/|\\", \\"'
    its_branch = rf"(?:({between}){re.escape(branch_now)}(?![\w.-]))?"
    site = "https://{}.github.io/{}/"  # where GitHub Pages shows the site

    def replace(match: re.Match) -> str:
        host, between = match.groups()
        return host + repository + (between + branch if between else "")

    changed = []
    for path in sorted(places):
        text = path.read_text(encoding="utf-8")
        new = re.sub(address + its_branch, replace, text)
        new = new.replace(
            site.format(*now.split("/")), site.format(*repository.split("/"))
        )
        if new != text:
            path.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: make badges REPO=owner/name [BRANCH=main]")
    try:
        files = rewrite(ROOT, *sys.argv[1:])
    except ValueError as error:
        sys.exit(str(error))
    for file in files:
        print(file.relative_to(ROOT))
