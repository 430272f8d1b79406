"""A copy of the project, for tests that change it and see whether it is noticed."""

import contextlib
import io
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from hypothesis import Phase, settings

ROOT = Path(__file__).resolve().parents[2]


def copy_project(folder):
    """Returns a copy of the project below `folder`."""
    ignore = shutil.ignore_patterns(".venv", ".git", "build", "data", ".*cache*")
    return Path(shutil.copytree(ROOT, folder / "course", ignore=ignore))


@contextlib.contextmanager
def pytest_in(copy):
    """Yields a function that runs pytest in the copy, in one process for all calls.

    It returns exit code and a test that failed; it fails the test if nothing was run.
    """
    with ProcessPoolExecutor(1, get_context("spawn")) as process:

        def run(*arguments):
            done = process.submit(run_in_this_process, copy, *map(str, arguments))
            code, failed, output = done.result()
            assert code in (0, 1), output
            print(output)  # shown when the test fails
            return code, failed

        yield run


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
    os.environ["PYTHONPATH"] = str(copy)  # for the kernels that it starts
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
    used = sys.modules.get("going_modular")  # which some tests of texts do not import
    assert used is None or Path(used.__file__).is_relative_to(copy)
    return int(code), failed[-1], output.getvalue()


def change(path, old, new):
    text = path.read_text(encoding="utf-8")
    assert text.count(old) >= 1, f"{path} has no {old!r}"
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
