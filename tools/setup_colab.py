"""Installs what Colab lacks for the lessons, and never touches torch."""

import importlib.metadata
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Colab brings torch built for its GPU; the rest is for running outside of Colab.
LEFT_ALONE = {
    "torch",
    "torchvision",
    "jupyterlab",
    "ipywidgets",
    "nbval",
    "latex2mathml",
}


def missing(requirements: str) -> list[str]:
    """Returns the requirements, as pip reads them, that are not installed at all.

    Options such as `-c constraints.txt` are left out: with the pinned versions pip
    would exchange packages that Colab brings along.
    """
    lines = [line.split("#")[0].strip() for line in requirements.splitlines()]
    lines = [line for line in lines if line and not line.startswith("-")]
    names = {line: re.split(r"[<>=!~ \[]", line)[0] for line in lines}
    # An interrupted installation leaves folders behind that name no package.
    installed = importlib.metadata.distributions()
    found = {d.metadata["Name"].lower() for d in installed if "Name" in d.metadata}
    return [ln for ln, name in names.items() if name not in found | LEFT_ALONE]


def main() -> None:
    """Installs what is missing, keeps older versions, makes the course importable."""
    wanted = missing((ROOT / "requirements.txt").read_text())
    if wanted:
        pip = [sys.executable, "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, *wanted], check=True)
    # Processes that a lesson starts, and a terminal, find the course in any folder.
    path_file = Path(sysconfig.get_path("purelib"), "vision_transformer_course.pth")
    path_file.write_text(f"{ROOT}\n")
    print("Installed:", ", ".join(wanted) or "nothing, all is there")


if __name__ == "__main__":
    main()
