"""Writes the repository's address into badges, set-up cells, README and metadata."""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def rewrite(root: Path, repository: str) -> list[Path]:
    """Replaces the address that pyproject.toml names now, and returns the files.

    Raises:
        ValueError: `repository` is not of the form owner/name.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repository):
        raise ValueError(f"expected the repository as owner/name, got {repository!r}")
    metadata = (root / "pyproject.toml").read_text(encoding="utf-8")
    now = re.search(r'Repository = "https://github.com/([^"]+)"', metadata).group(1)
    places = [root / "pyproject.toml", root / "README.md"]
    places += sorted((root / "notebooks").rglob("*.ipynb"))
    changed = []
    for path in places:
        text = path.read_text(encoding="utf-8")
        # The host in front keeps the name from matching by chance.
        pattern = rf"(github\.com/|/github/){re.escape(now)}(?![\w.-])"
        new = re.sub(pattern, rf"\g<1>{repository}", text)
        if new != text:
            path.write_text(new, encoding="utf-8")
            changed.append(path)
    return changed


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: make badges REPO=owner/name")
    for file in rewrite(ROOT, sys.argv[1]):
        print(file.relative_to(ROOT))
