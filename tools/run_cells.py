"""Runs submitted cells for grade.py, each notebook in a process without rights.

This process imports torch and the checks once, before any learner's code. For each line
of standard input, a notebook as JSON, it forks a process that has a folder, limits and
no files of ours, and ends it with all that it started. It answers with a line of JSON.
"""

import ctypes
import json
import os
import resource
import secrets
import select
import signal
import struct
import sys
import time
import types
from pathlib import Path

import torch
from IPython.core.interactiveshell import InteractiveShell
from matplotlib import pyplot  # noqa: F401  its list of fonts takes seconds
from traitlets.config import Config

import vit_course.checks

LINUX = sys.platform == "linux"
MOST_FILE, MOST_MEMORY, MOST_PROCESSES = 2**28, 2**32, 64
# Numbers of Linux: PR_SET_CHILD_SUBREAPER, by which what a process leaves running
# becomes our child; PR_SET_KEEPCAPS, CAP_DAC_READ_SEARCH, and how to lend it.
ADOPT, KEEP_RIGHTS, MAY_READ, RIGHTS_VERSION = 36, 8, 2, 0x20080522
LEND_RIGHT = (47, 2)  # PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE
# What is used after a learner's code has run, as it was before.
_compile, _exec, _write, _exit = compile, exec, os.write, os._exit


def take_checks() -> dict:
    """Takes the checks from where a learner's code would find them, and their answers.

    What it can import in their place does nothing.
    """
    kept = {
        name: getattr(vit_course.checks, name) for name in vit_course.checks.__all__
    }
    empty = types.ModuleType("vit_course.checks")
    vars(empty).update({name: lambda *args, **kwargs: None for name in kept})
    vars(empty)["Hint"] = type("Hint", (AssertionError,), {})
    for name in [name for name in sys.modules if name.startswith(empty.__name__)]:
        del sys.modules[name]
    sys.modules[empty.__name__] = vit_course.checks = empty
    return kept


def run(shell: InteractiveShell, cells: list[dict], checks: dict, token: str) -> None:
    """Runs one cell after the other; tells whether it came to its end, or why not."""
    for i, cell in enumerate(cells):
        error = None
        if cell["check"]:
            names = {**shell.user_ns, **checks}
            try:
                _exec(_compile(cell["source"], "<check>", "exec"), names)
            except BaseException as caught:
                error = caught
            # Later cells may use what this one has computed.
            shell.user_ns.update({k: v for k, v in names.items() if k not in checks})
        else:
            result = shell.run_cell(cell["source"])
            error = result.error_before_exec or result.error_in_exec
        name = "" if isinstance(error, checks["Hint"]) else f"{type(error).__name__}: "
        text = "" if error is None else f"{name}{error}"[:900]
        line = f"{token} {i} {error is None:d} ".encode()
        _write(3, line + text.encode("unicode_escape") + b"\n")


def processes_of(user: int) -> int:
    """Counts the processes and threads of a user, as the system's limit does."""
    count = 0
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            count += (folder.stat().st_uid == user) * len(os.listdir(folder / "task"))
        except OSError:  # it has just ended
            pass
    return count


def enter(folder: str, user: int | None, pipe: int) -> None:
    """Leaves this process a folder, the pipe for results, and few rights."""
    os.setsid()
    os.chdir(folder)
    os.environ |= {"HOME": folder, "TMPDIR": folder, "MPLCONFIGDIR": folder}
    nothing = os.open(os.devnull, os.O_RDWR)
    for file in (0, 1, 2):  # whatever is printed, it fills nothing
        os.dup2(nothing, file)
    os.dup2(pipe, 3)
    os.closerange(4, 4096)
    limits = {resource.RLIMIT_FSIZE: MOST_FILE, resource.RLIMIT_CORE: 0}
    if LINUX:  # elsewhere nobody says how much is used already
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limits[resource.RLIMIT_AS] = pages * resource.getpagesize() + MOST_MEMORY
        count = processes_of(os.getuid() if user is None else user)
        limits[resource.RLIMIT_NPROC] = count + MOST_PROCESSES
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))
    if user is not None:
        become(user)


def become(user: int) -> None:
    """Becomes a user that may change nothing but what is its own."""
    os.setgroups([])
    os.setgid(user)
    places = [Path(sys.base_prefix), *Path(sys.base_prefix).parents]
    if all(place.stat().st_mode & 0o001 for place in places):
        os.setuid(user)
        return
    # Python lies where only root can read, in /root say: keep the right to read.
    libc = ctypes.CDLL(None)
    libc.prctl(KEEP_RIGHTS, 1)
    os.setuid(user)
    rights = struct.pack("6I", *3 * [1 << MAY_READ], 0, 0, 0)
    libc.capset(struct.pack("Ii", RIGHTS_VERSION, 0), rights)
    libc.prctl(*LEND_RIGHT, MAY_READ, 0, 0)  # also to processes that it starts


def follow(pipe: int, token: str, count: int, timeout: float, limit: float):
    """Reads what the cells tell; returns it, and why there is no more, or ""."""
    told, rest, end = [], b"", time.monotonic() + limit
    cell_ends = min(end, time.monotonic() + timeout)
    while len(told) < count:
        seconds = max(0, cell_ends - time.monotonic())
        if not select.select([pipe], [], [], seconds)[0] or not seconds:
            return told, f"takes more than {timeout:g} s"
        content = os.read(pipe, 2**16)
        if not content:
            return told, "ended the whole run"
        *lines, rest = (rest + content)[-(2**20) :].split(b"\n")
        for line in lines:
            # What the learner's code has forked may go on with the cells, too.
            if line.startswith(f"{token} {len(told)} ".encode()):
                _, _, done, text = line.decode("unicode_escape").split(" ", 3)
                told.append([done == "1", text])
                cell_ends = min(end, time.monotonic() + timeout)
    return told, ""


def end_all(pid: int) -> int:
    """Ends a process and all that it has started; returns how many that were."""
    count, children = -1, Path(f"/proc/self/task/{os.getpid()}/children")
    while True:
        running = children.read_text().split() if LINUX else [pid] * (count < 0)
        for child in running:
            os.kill(int(child), signal.SIGKILL)  # a child of ours: it is still there
        try:
            os.waitpid(-1, 0)
            count += 1
        except ChildProcessError:
            return count


def main() -> None:
    checks = take_checks()
    torch.set_num_threads(1)
    config = Config({"HistoryManager": {"enabled": False}})
    shell = InteractiveShell.instance(config=config)
    shell.run_cell("pass")  # the first one takes long
    if LINUX:
        ctypes.CDLL(None).prctl(ADOPT, 1)
    print("ready", flush=True)
    for line in sys.stdin:
        task, token = json.loads(line), secrets.token_hex()
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                enter(task["folder"], task["user"], theirs)
                run(shell, task["cells"], checks, token)
            finally:
                _exit(0)
        os.close(theirs)
        limits = task["timeout"], task["limit"]
        told, why = follow(ours, token, len(task["cells"]), *limits)
        os.close(ours)
        left = end_all(pid)
        print(json.dumps({"told": told, "why": why, "left": left}), flush=True)


if __name__ == "__main__":
    main()
