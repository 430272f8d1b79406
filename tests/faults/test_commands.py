"""The two commands: options without sense, odd places, signals at any moment."""

import multiprocessing
import os
import random
import subprocess
import sys
from signal import SIGINT, SIGKILL, SIGTERM, default_int_handler, signal

import pytest
import torch
from commands import command, environment
from damage import IMAGES, TIMES, dataset
from safetensors import safe_open

from going_modular import predict, train
from going_modular.training.options import TrainOptions

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
DATA = ["--data", "data", "--init", "scratch", "--img-size", "16", "--batch-size", "4"]
SHORT = [*DATA, "--epochs", "1", "--output"]
LONG = [*DATA, "--epochs", "12", "--resume", "--output"]
NUMBERS = ["-1", "0", "nan", "inf", "-inf", "1" + 30 * "0", "1e300", "", "many", "0x10"]


@pytest.fixture
def attempt(tmp_path, monkeypatch, tally, capfd):
    """Runs a command in this process and adds what came of it."""
    monkeypatch.chdir(tmp_path)
    dataset(tmp_path / "data")
    (tmp_path / "a.png").write_bytes(IMAGES["png"])

    def attempt(main, words, name=""):
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:  # of argparse
            code = end.code
        except BaseException as error:
            code = f"Traceback: {error!r}"
        said = capfd.readouterr().err
        said = said if "Traceback" in said else said[said.rfind("error: ") :]
        tally.add(words, code == 0, f"{said} {code}" if code else "", name)

    return attempt


def test_options_without_sense(attempt):
    """Each is refused by its name, or a run of one epoch ends well."""
    for name, field in TrainOptions.__dataclass_fields__.items():
        for value in NUMBERS if field.type in (int, float) else ():
            option = f"--{name.replace('_', '-')}={value}"
            attempt(train.main, [*SHORT, f"run {option}", option])
    for option in ("--top", "--batch-size"):
        for value in NUMBERS:
            attempt(predict.main, ["a.png", f"{option}={value}"], option)
    for device in ("tpu", "cuda:99", "xpu", "meta", "", "cpu:x"):
        attempt(train.main, [*SHORT, f"run {device}", "--device", device])
        attempt(predict.main, ["a.png", "--device", device])


def test_odd_places(attempt, monkeypatch):
    for place in ("a.png", "a.png/run", "/proc/run", "x" * 300, "/dev/full"):
        name = place[:200]
        attempt(train.main, [*SHORT, place], name)
        attempt(train.main, [*SHORT, "x", "--data", place], name)
        attempt(train.main, [*SHORT, "x", "--init", place], name)
        attempt(predict.main, ["a.png", "--attention", f"{place}/a.png"], name)
        attempt(predict.main, ["a.png", "--checkpoint", place], name)
    for source in (
        "gone.png",
        "ftp://a/b.png",
        "http://",
        "https://[",
        "/dev/zero",
        "-",
    ):
        attempt(predict.main, ["--", source], source)
    monkeypatch.setenv("COLUMNS", "20")
    for main in (train.main, predict.main):
        attempt(main, ["--help"])


def test_a_terminal_of_the_last_century(tmp_path, tally):
    """LANG=C without Python's help, and no standard input: no image is lost."""
    for name in ("🍕", "naïve", "plain"):
        (tmp_path / f"{name}.png").write_bytes(IMAGES["png"])
    words = command("-m", "going_modular.predict", tmp_path)
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    how = {"env": environment() | plain, "preexec_fn": lambda: os.close(0)}
    done = subprocess.run(words, capture_output=True, **how)
    tally.add(
        "LANG=C", done.stdout.count(b"%") == 9, done.stderr.decode()[: done.returncode]
    )


def begin(words, log):
    """Starts a training run in a process of its own, forked to save the imports."""

    def child():
        signal(SIGINT, default_int_handler)  # ignored by what `&` has started
        sys.stdout = sys.stderr = open(log, "a", buffering=1)
        os._exit(train.main(words))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    return process


def results(folder):
    state = torch.load(f"{folder}/run.pt", weights_only=True)
    weights = {name: t.numpy().tobytes() for name, t in state["model"].items()}
    with safe_open(f"{folder}/model.safetensors", "pt") as file:
        return weights, state["history"], file.metadata()["sha256"]


ALONE = pytest.mark.skipif(
    TIMES == 1,
    reason="forks the tests' own process, which other tests of a worker disturb: "
    "FAULTS=2 .venv/bin/pytest tests/faults -n 0 runs it",
)


@ALONE
def test_signals_at_random_moments(attempt, tally):
    """Resumed after each of them, a run comes to the end of an undisturbed one."""
    attempt(train.main, [*LONG, "whole"])
    kinds = [(SIGKILL,), (SIGTERM,), (SIGKILL,), (SIGINT,), (SIGINT, SIGINT)]
    x, left, done = random.Random(0), 20 * TIMES, 0
    while left:
        process, kind = begin([*LONG, f"run {done}"], "log"), kinds[left % 5]
        process.join(x.uniform(0.1, 1.2))
        if process.is_alive():
            left -= 1
            for number in kind:
                os.kill(process.pid, number)
            process.join(60)
            fine = process.exitcode in (0, 130, *(-number for number in kind))
            with open("log") as file:
                fine &= "Traceback" not in file.read()
            tally.add(f"{kind} {process.exitcode}", fine)
        if process.exitcode == 0:  # it came to its end
            assert results(f"run {done}") == results("whole")
            done += 1
    attempt(train.main, [*LONG, f"run {done}"])
    assert results(f"run {done}") == results("whole")


@ALONE
def test_two_runs_at_once(attempt, tally, tmp_path):
    """The second waits a little for the first to end, and is refused by name."""
    first = begin([*DATA, "--epochs", "4000", "--output", "run"], "log")
    while not (tmp_path / "run" / "run.pt").exists():
        first.join(0.1)
        assert first.is_alive(), (tmp_path / "log").read_text()
    attempt(train.main, [*LONG, "run"], "run/.lock")
    first.kill()
    first.join()
    assert tally.refused == 1
