"""The two commands: options without sense, odd places, signals at any moment."""

import os
import random
import signal
import subprocess
import time

import pytest
import torch
from commands import begin, command, environment, small_files
from damage import IMAGES, TIMES
from pictures import TINY, draw_classes
from safetensors import safe_open

from going_modular import predict, train
from going_modular.training.options import TrainOptions

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]
SHORT = ["--data", "data", *TINY, "--epochs", "1", "--output"]
NUMBERS = ["-1", "0", "nan", "inf", "-inf", "1" + 30 * "0", "1e300", "", "many", "0x10"]


@pytest.fixture
def attempt(tmp_path, monkeypatch, tally, capfd):
    """Runs a command in this process and adds what came of it."""
    monkeypatch.chdir(tmp_path)
    draw_classes(tmp_path / "data")
    (tmp_path / "a.png").write_bytes(IMAGES["png"])

    def attempt(main, words, name=""):
        try:
            code = main([str(word) for word in words])
        except SystemExit as end:  # of argparse
            code = end.code
        said = capfd.readouterr().err
        if "Traceback" not in said:
            said = said[said.rfind("error: ") :]
        tally.add(words, code == 0, f"{said} {code}" if code else "", name)

    return attempt


def test_options_without_sense(attempt):
    """Each is refused by its name, or a run of one epoch ends well."""
    for name, field in TrainOptions.__dataclass_fields__.items():
        option = f"--{name.replace('_', '-')}"
        for value in NUMBERS if field.type in (int, float) else ():
            words = [*SHORT, f"run {option} {value}", f"{option}={value}"]
            attempt(train.main, words, option)
    for option in ("--top", "--batch-size"):
        for value in NUMBERS:
            attempt(predict.main, ["a.png", f"{option}={value}"], option)
    for device in ("tpu", "cuda:99", "xpu", "meta", "", "cpu:x"):
        attempt(train.main, [*SHORT, f"run {device}", "--device", device], "--device")
        attempt(predict.main, ["a.png", "--device", device], "--device")


def test_odd_places(attempt, monkeypatch):
    for place in ("a.png", "a.png/run", "/proc/run", "x" * 300, "/dev/full"):
        name = place[:200]
        attempt(train.main, [*SHORT, place], name)
        attempt(train.main, [*SHORT, "x", "--data", place], name)
        attempt(train.main, [*SHORT, "x", "--init", place], name)
        attempt(predict.main, ["a.png", "--attention", f"{place}/a.png"], name)
        attempt(predict.main, ["a.png", "--checkpoint", place], name)
    for source in "gone.png ftp://a/b.png http:// https://[ /dev/zero -".split():
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
    tally.add(done.stderr, done.returncode == 0 and done.stdout.count(b"%") == 9)


def training(data, output, epochs):
    """Starts a run in a process of its own; returns it after its first epoch."""
    words = ["--data", data, *TINY, "--epochs", epochs, "--resume", "--output", output]
    process = begin("-m", "going_modular.train", *words)
    next((line for line in process.stdout if line.startswith("epoch ")), "")
    return process, words


def result(folder):
    state = torch.load(folder / "run.pt", weights_only=True)
    weights = {name: t.numpy().tobytes() for name, t in state["model"].items()}
    with safe_open(folder / "model.safetensors", "pt") as file:
        return weights, state["history"], file.metadata()["sha256"]


@pytest.mark.parametrize("seed", range(TIMES))
def test_signals_and_a_full_disk(attempt, tally, tmp_path, seed):
    """Resumed after each of them, a run comes to the end of an undisturbed one."""
    x, state = random.Random(seed), tmp_path / "run" / "run.pt"
    for name in ("SIGKILL", "SIGTERM", "SIGINT", "SIGINT twice"):
        number, times = signal.Signals[name.split()[0]], len(name.split())
        process, words = training(tmp_path / "data", tmp_path / "run", 20)
        time.sleep(x.uniform(0, 0.05))
        for _ in range(times):
            process.send_signal(number)
        said, code = process.communicate()[1], process.returncode
        fine = code in (0, 130, -number) and "Traceback" not in said
        tally.add(f"{name} {code} {said}", fine)
    before = state.read_bytes()
    with small_files(100_000):
        attempt(train.main, words, "run.pt cannot be written")
    assert tally.refused == 1 and state.read_bytes() == before
    for folder in (tmp_path / "run", tmp_path / "whole"):
        attempt(train.main, [*words, "--output", folder])
    assert result(tmp_path / "run") == result(tmp_path / "whole")


def test_two_runs_at_once(attempt, tally, tmp_path):
    """The second waits a little for the first to end, and is refused by name."""
    first, words = training(tmp_path / "data", tmp_path / "run", 4000)
    attempt(train.main, words, "run/.lock")
    first.kill()
    first.communicate()
    assert tally.refused == 1
