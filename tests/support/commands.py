"""Commands of the course, run as a terminal would run them, on one thread each."""

import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "VIT_COURSE_OFFLINE": "1"}


def command(*words, processes=1, restarts=0):
    """The words after `python`, or after torchrun for several processes."""
    start = [sys.executable]
    if processes > 1 or restarts:
        start += ["-m", "torch.distributed.run", f"--nproc-per-node={processes}"]
        start += [f"--max-restarts={restarts}"]
        if words[0] == "-m":
            words = ("--module", *words[1:])
    return [*start, *map(str, words)]


def run(*words, processes=1, restarts=0, **options):
    """Runs to the end, and returns exit code and what was said."""
    options = {"capture_output": True, "text": True, "cwd": ROOT} | options
    words = command(*words, processes=processes, restarts=restarts)
    return subprocess.run(words, env=environment(), check=False, **options)


def begin(*words, processes=1, restarts=0):
    """Starts and returns the process, whose output can be read line by line."""
    words = command(*words, processes=processes, restarts=restarts)
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(words, env=environment(), cwd=ROOT, **pipe)


@contextmanager
def small_files(size):
    """As on a full disk, this process can write no file of more than `size` bytes."""
    resource = pytest.importorskip("resource")  # Windows has none
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
