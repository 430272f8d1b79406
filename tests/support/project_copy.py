"""A copy of the project, for tests that change it and see whether it is noticed."""

import contextlib
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import Phase, settings

ROOT = Path(__file__).resolve().parents[2]


def copy_project(folder):
    """Returns a copy of the project below `folder`."""
    ignore = shutil.ignore_patterns(".venv", ".git", "build", "data", ".*cache*")
    return Path(shutil.copytree(ROOT, folder / "course", ignore=ignore))


def passes(copy, *arguments):
    """Whether pytest passes in the copy; fails the test if it ran nothing."""
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *arguments],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy)},  # its own modules come first
        capture_output=True,
        text=True,
    )
    assert result.returncode in (0, 1), result.stdout + result.stderr
    return result.returncode == 0


def run_in_this_process(copy, *arguments):
    """Returns pytest's exit code in the copy, a test that failed, what was printed.

    For a process of its own that does so many times: it loads torch once, and only
    the project's modules anew.
    """
    ours = {path.stem for path in [*copy.glob("*.py"), *copy.glob("t*s/**/*.py")]}
    ours |= {"going_modular", "vit_course"}
    for name in list(sys.modules):
        if name.split(".")[0] in ours - {Path(__file__).stem}:
            del sys.modules[name]
    os.chdir(copy)
    # The same examples each time, and no search for smaller ones that nobody reads.
    phases = [Phase.explicit, Phase.generate]
    settings.register_profile("first failure", phases=phases, derandomize=True)
    settings.load_profile("first failure")
    output, failed = io.StringIO(), [""]

    class Failures:
        def pytest_runtest_logreport(self, report):
            failed.extend([report.nodeid] if report.failed else [])

    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        words = ["-q", f"--rootdir={copy}", *arguments]
        code = pytest.main(words, plugins=[Failures()])
    assert Path(sys.modules["going_modular"].__file__).is_relative_to(copy)
    return int(code), failed[-1], output.getvalue()


def change(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) >= 1, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
