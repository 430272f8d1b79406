"""Commands of the course, run as a terminal would run them, on one thread each."""

import io
import multiprocessing
import os
import socket
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
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


def _as_rank(rank, size, port, function, *arguments):
    """Calls the function as torchrun would, and returns also what it printed."""
    import torch  # has been imported before the fork

    torch.set_num_threads(1)
    group = {"RANK": rank, "LOCAL_RANK": rank, "MASTER_ADDR": "127.0.0.1"}
    group |= {"WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "MASTER_PORT": port}
    group |= {"TORCHELASTIC_RUN_ID": "tests", "TORCHELASTIC_RESTART_COUNT": 0}
    os.environ |= {key: str(value) for key, value in group.items()}
    said = io.StringIO()
    with redirect_stdout(said):
        return function(*arguments), said.getvalue()


def call_together(function, *arguments, processes):
    """Calls a function in so many processes of one group; returns a pair of each.

    Where the system can, they are forked from a process that has imported torch: with
    torchrun each imports it anew, which takes longer than what these tests train.
    """
    known = multiprocessing.get_all_start_methods()
    way = "forkserver" if "forkserver" in known else "spawn"
    context = multiprocessing.get_context(way)
    context.set_forkserver_preload(["going_modular.train", "torch._dynamo"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        ranks = [
            pool.submit(_as_rank, rank, processes, port, function, *arguments)
            for rank in range(processes)
        ]
        return [rank.result() for rank in ranks]


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
