"""The two commands: options without sense, odd places, signals at any moment."""

import os
import random
import resource
import subprocess
import time
from contextlib import contextmanager
from signal import SIGINT, SIGKILL, SIGTERM

import pytest
import torch
from commands import begin, command, environment
from damage import IMAGES, TIMES, dataset
from safetensors import safe_open

from going_modular import predict, train
from going_modular.training.options import TrainOptions

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
DATA = ["--data", "data", "--init", "scratch", "--img-size", "16", "--batch-size", "4"]
SHORT = [*DATA, "--epochs", "1", "--output"]
LONG = [*DATA, "--epochs", "20", "--resume", "--output"]
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


def results(folder):
    state = torch.load(f"{folder}/run.pt", weights_only=True)
    weights = {name: t.numpy().tobytes() for name, t in state["model"].items()}
    with safe_open(f"{folder}/model.safetensors", "pt") as file:
        return weights, state["history"], file.metadata()["sha256"]


@contextmanager
def full_disk():
    """No file may grow over 100 kB."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def training(words, output):
    """Starts a run in a process of its own; returns it after its first epoch."""
    process = begin("-m", "going_modular.train", *words, output)
    next((line for line in process.stdout if line.startswith("epoch ")), "")
    return process


@pytest.mark.parametrize("seed", range(TIMES))
def test_signals_and_a_full_disk(attempt, tally, tmp_path, seed):
    """Resumed after each of them, a run comes to the end of an undisturbed one."""
    x, state = random.Random(seed), tmp_path / "run" / "run.pt"
    words = ["--data", tmp_path / "data", *LONG[2:]]
    for kind in [(SIGKILL,), (SIGTERM,), (SIGINT,), (SIGINT, SIGINT)]:
        process = training(words, tmp_path / "run")
        time.sleep(x.uniform(0, 0.05))
        for number in kind:
            process.send_signal(number)
        said, code = process.communicate()[1], process.returncode
        fine = code in (0, 130, -kind[0]) and "Traceback" not in said
        tally.add(f"{kind} {code} {said}", fine)
    before = state.read_bytes()
    with full_disk():
        attempt(train.main, [*words, "run"], "cannot be written")
    assert tally.refused == 1 and state.read_bytes() == before
    for folder in ("run", "whole"):
        attempt(train.main, [*words, folder])
    assert results("run") == results("whole")


def test_two_runs_at_once(attempt, tally, tmp_path):
    """The second waits a little for the first to end, and is refused by name."""
    words = ["--data", tmp_path / "data", *DATA[2:], "--epochs", "4000", "--output"]
    first = training(words, tmp_path / "run")
    attempt(train.main, [*LONG, "run"], "run/.lock")
    first.kill()
    first.communicate()
    assert tally.refused == 1
