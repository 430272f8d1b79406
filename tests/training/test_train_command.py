"""Lesson 14: `python -m going_modular.train`, alone and under torchrun; its faults."""

import csv
import json
import os
import re
import shutil
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from commands import begin, call_together, run, small_files
from pictures import TINY, draw_classes
from PIL import Image

from going_modular.checkpoint import load_checkpoint
from going_modular.train import main
from going_modular.training.options import TrainOptions, keep_arguments, parse
from going_modular.training.progress import StopRequest
from going_modular.training.setup import (
    CachedLoader,
    build_model,
    config_of,
    create_loaders,
    enable_gradient_checkpointing,
)
from going_modular.utils import save_model
from going_modular.vit import create_vit

SHORT = [*TINY, "--epochs", "3"]
LONG = [*TINY, "--epochs", "40"]  # so that it can be stopped on its way
MODULE = ("-m", "going_modular.train")
pytestmark = pytest.mark.usefixtures("one_thread")


def finish(*words, processes=1):
    """Runs to a good end, in this process or in several; returns what each printed."""
    words = [str(word) for word in words]
    if processes == 1:
        assert main(words) == 0
        return []
    ends, said = zip(*call_together(main, words, processes=processes), strict=True)
    assert set(ends) == {0}
    return said


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    return draw_classes(tmp_path_factory.mktemp("pictures"))


def weights(folder):
    state = torch.load(folder / "run.pt", weights_only=True)
    return state["model"], state["history"]


def assert_same(folder, other, tolerance=0.0):
    (found, history), (expected, other_history) = weights(folder), weights(other)
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        close = {"atol": tolerance, "rtol": 0}
        torch.testing.assert_close(found[name], weight, **close, msg=name)
    for key, values in other_history.items():
        assert history[key] == pytest.approx(values, abs=10 * tolerance), key


@pytest.fixture(scope="module")
def uninterrupted(pictures, tmp_path_factory):
    """A run that nothing stops: its folder, and what it said."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    done = run(*MODULE, *SHORT, "--data", pictures, "--output", folder)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture(scope="module")
def uninterrupted_of(pictures, tmp_path_factory):
    """The folder of a `LONG` run that nothing stops, by its number of processes."""
    folders = {}

    def folder_of(processes):
        if processes not in folders:
            folder = tmp_path_factory.mktemp("runs") / f"long_{processes}"
            words = [*LONG, "--data", pictures, "--output", folder]
            finish(*words, processes=processes)
            folders[processes] = folder
        return folders[processes]

    return folder_of


@pytest.mark.slow
def test_what_a_run_leaves_behind(uninterrupted):
    folder, said = uninterrupted
    names = {"arguments.json", "history.csv", "history.json"}
    names |= {"model.safetensors", "run.pt", ".lock"}
    assert {p.name for p in folder.iterdir()} == names
    history = json.loads((folder / "history.json").read_text())
    assert len(history) == 4 and {len(values) for values in history.values()} == {3}
    with (folder / "history.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for key, values in history.items():
        assert [float(row[key]) for row in rows] == values
    model, about = load_checkpoint(folder / "model.safetensors")
    assert about["class_names"] == ["dark", "light"]
    assert about["preprocessing"]["img_size"] == 16
    assert model.head.out_features == 2
    lines = said.splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("epoch")] == [
        f"epoch {i}/3" for i in (1, 2, 3)
    ]
    assert "\r" not in said  # no progress bar in a log
    assert lines[-1].startswith("test accuracy") and "constant predictor" in lines[-1]
    best = max(history["val_acc"])
    epoch = 3 - history["val_acc"][::-1].index(best)  # of equal ones the last
    assert f"(epoch {epoch}, the best on validation)" in lines[-1]


@pytest.mark.slow
def test_the_best_epoch_is_in_the_checkpoint(uninterrupted):
    folder, _ = uninterrupted
    state = torch.load(folder / "run.pt", weights_only=True)
    model, _ = load_checkpoint(folder / "model.safetensors")
    for name, weight in model.state_dict().items():
        assert torch.equal(weight, state["best"][name].half().float()), name


@pytest.mark.slow
@pytest.mark.parametrize("init", ["scratch", "checkpoint"])
@pytest.mark.parametrize("kind", ["--no-fsdp", "--fsdp"])
def test_two_processes_are_one(pictures, tmp_path, init, kind):
    """15 of 18 images in batches of 4: the last one gives a process one image.

    On weights, each process trains the same new head first.
    """
    same = [*SHORT, "--init", init, "--data", pictures, "--no-augment", "--lr", "1e-3"]
    finish(*same, "--output", tmp_path / "one")
    first, second = finish(*same, kind, "--output", tmp_path / "two", processes=2)
    assert len(re.findall("^epoch", first, re.MULTILINE)) == 3 and not second
    assert_same(tmp_path / "two", tmp_path / "one", 1e-5)


def stop_after_first_epoch(process, number):
    """Sends a signal after the first epoch; returns exit code and all that was said."""
    said = []
    for line in process.stdout:
        said.append(line)
        if line.startswith("epoch 1/"):
            process.send_signal(number)
    return process.wait(), "".join(said), process.stderr.read()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_stopped_and_resumed(pictures, tmp_path, processes, uninterrupted_of):
    """Ctrl-C: exit code 130, a message; resumed, it is the uninterrupted run."""
    stopped = [*LONG, "--data", pictures, "--output", tmp_path / "stopped"]
    code, said, errors = stop_after_first_epoch(
        begin(*MODULE, *stopped, processes=processes), signal.SIGINT
    )
    assert code == (130 if processes == 1 else 1), errors
    assert "--resume continues" in said
    done = len(
        json.loads((tmp_path / "stopped" / "history.json").read_text())["val_acc"]
    )
    assert 1 <= done < 40
    finish(*stopped, "--resume", processes=processes)
    assert_same(tmp_path / "stopped", uninterrupted_of(processes))


def workers_of(process):
    """Process ids of torchrun's workers."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


@pytest.mark.slow
@pytest.mark.parametrize("restarts", [0, 1])
def test_a_killed_worker(pictures, tmp_path, restarts, uninterrupted_of):
    """Without restarts the run ends and says why; with one it goes on by itself."""
    killed = [*LONG, "--data", pictures, "--output", tmp_path / "killed"]
    process = begin(*MODULE, *killed, processes=2, restarts=restarts)
    hit = False
    for line in process.stdout:
        if line.startswith("epoch 1/") and not hit:
            hit = True
            os.kill(workers_of(process)[-1], signal.SIGKILL)
    code, errors = process.wait(), process.stderr.read()
    assert hit
    if restarts:
        assert code == 0, errors
    else:
        assert code != 0
        assert "SIGKILL" in errors
        torch.load(tmp_path / "killed" / "run.pt", weights_only=True)
        finish(*killed, "--resume", processes=2)
    assert_same(tmp_path / "killed", uninterrupted_of(2))


def end_of(pids, seconds):
    """Waits until none of the processes is left; kills what is, and fails."""
    limit = time.monotonic() + seconds
    alive = [Path(f"/proc/{pid}/stat") for pid in pids]
    while any(p.exists() and ") Z " not in p.read_text() for p in alive):
        if time.monotonic() > limit:
            for pid in pids:
                os.kill(pid, signal.SIGKILL)
            pytest.fail(f"still there after {seconds} seconds")
        time.sleep(0.2)


@pytest.mark.slow
def test_workers_end_when_torchrun_is_gone(pictures, tmp_path, uninterrupted_of):
    """SIGKILL leaves it no time to end them; they save, and resume as if unharmed."""
    orphaned = [*LONG, "--data", pictures, "--output", tmp_path / "orphaned"]
    process = begin(*MODULE, *orphaned, processes=2)
    workers = []
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            workers = workers_of(process)
            process.kill()
            break
    assert len(workers) == 2
    end_of(workers, 60)
    assert "torchrun is gone" in process.stderr.read()
    finish(*orphaned, "--resume", processes=2)
    assert_same(tmp_path / "orphaned", uninterrupted_of(2))


@pytest.mark.slow
def test_a_worker_whose_other_is_stuck_ends_too(pictures, tmp_path):
    """One is stopped (SIGSTOP), so the other waits for it; then torchrun is killed."""
    words = [*MODULE, *SHORT, "--data", pictures, "--epochs", "5000"]
    process = begin(*words, "--output", tmp_path / "run", processes=2)
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    stuck, waiting = workers_of(process)
    os.kill(stuck, signal.SIGSTOP)
    process.kill()
    try:
        end_of([waiting], 60)
    finally:
        os.kill(stuck, signal.SIGKILL)
    assert "the other processes do not answer" in process.stderr.read()
    torch.load(tmp_path / "run" / "run.pt", weights_only=True)


@pytest.mark.slow
def test_a_second_sigterm_ends_a_worker_that_waits(pictures, tmp_path):
    """It waits in a collective operation, where Python runs no signal handler."""
    words = [*MODULE, *SHORT, "--data", pictures, "--epochs", "5000"]
    process = begin(*words, "--output", tmp_path / "run", processes=2)
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    stuck, waiting = workers_of(process)
    os.kill(stuck, signal.SIGSTOP)
    os.kill(waiting, signal.SIGTERM)
    time.sleep(StopRequest.REPEATED + 1.5)  # a second one, not the same passed on
    assert Path(f"/proc/{waiting}").exists()
    os.kill(waiting, signal.SIGTERM)
    end_of([waiting], 10)
    os.kill(stuck, signal.SIGKILL)
    process.stdout.close()
    process.wait()


@pytest.mark.slow
def test_a_full_disk(pictures, tmp_path, uninterrupted, capsys):
    """No file may be larger than 100 kB: the run ends and names the file."""
    words = [*SHORT, "--data", pictures, "--output", tmp_path / "run"]
    with small_files(100_000):
        assert main([str(word) for word in words]) == 1
    said = capsys.readouterr().err
    assert f"error: {tmp_path / 'run' / 'run.pt'} cannot be written" in said
    left = {p.name for p in (tmp_path / "run").iterdir()}
    assert left == {"arguments.json", ".lock"}
    finish(*words, "--resume")
    assert_same(tmp_path / "run", uninterrupted[0])


@pytest.mark.slow
@pytest.mark.parametrize("workers", ["0", "1"])
def test_an_unreadable_picture(pictures, tmp_path, workers, uninterrupted_of):
    """It is named; once it is mended, the run goes on as if nothing had happened."""
    data = tmp_path / "pictures"
    shutil.copytree(pictures, data)
    # Each epoch starts its worker processes, so a few of them take long enough.
    long = LONG if workers == "0" else [*TINY, "--epochs", "12"]
    same = [*long, "--data", data, "--workers", workers, "--cache", "0"]
    broken = [*same, "--output", tmp_path / "broken"]
    process = begin(*MODULE, *broken)
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            for path in (data / "train" / "dark").iterdir():
                path.write_bytes(path.read_bytes()[:60])
    assert process.wait() == 1
    errors = process.stderr.read()
    assert "error: " in errors and str(data / "train" / "dark") in errors
    shutil.rmtree(data)
    shutil.copytree(pictures, data)
    if workers == "0":  # kept or read again, images are the same
        finish(*broken, "--resume")
        assert_same(tmp_path / "broken", uninterrupted_of(1))
    else:  # a worker has random numbers of its own
        whole = [*same, "--output", tmp_path / "whole"]
        for words in ([*broken, "--resume"], whole):
            done = run(*MODULE, *words)
            assert done.returncode == 0, done.stderr
        assert_same(tmp_path / "broken", tmp_path / "whole")


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(pictures, tmp_path):
    words = [*MODULE, *SHORT, "--data", pictures, "--epochs", "5000"]
    process = begin(*words, "--output", tmp_path / "run")
    for line in process.stdout:
        if line.startswith("epoch 1/"):
            break
    process.send_signal(signal.SIGSTOP)  # both arrive while it cannot finish a step
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    assert process.wait(60) in (130, -signal.SIGTERM)


def test_the_end_of_a_worker_process_is_no_request_to_stop():
    """A DataLoader has a handler for SIGCHLD, and Python reports that signal too."""
    before = signal.signal(signal.SIGCHLD, lambda *_: None)
    progress = SimpleNamespace(stop=False)
    try:
        with StopRequest(progress):
            os.kill(os.getpid(), signal.SIGCHLD)
            time.sleep(0.3)
            assert not progress.stop
            os.kill(os.getpid(), signal.SIGTERM)
            while not progress.stop:  # until the test's time-limit
                time.sleep(0.01)
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_new_head_is_trained_first_and_once(pictures, tmp_path, monkeypatch):
    """At a learning rate of 0 nothing but the head differs from a run without."""
    words = ["--data", str(pictures), "--epochs", "1", "--lr", "0", "--output"]
    head, zeros = tmp_path / "head", tmp_path / "zeros"
    assert main([*words, str(head)]) == 0
    assert main([*words, str(zeros), "--head-epochs", "0"]) == 0
    (found, _), (start, _) = weights(head), weights(zeros)
    changed = {name for name in found if not torch.equal(found[name], start[name])}
    assert changed == {"head.weight", "head.bias"}
    assert not start["head.weight"].any() and not start["head.bias"].any()
    before = (head / "run.pt").read_bytes()
    monkeypatch.setattr("going_modular.train.train_head", None)  # a call would fail
    assert main([*words, str(head), "--resume"]) == 0
    assert (head / "run.pt").read_bytes() == before


def test_the_default_s_probabilities_tell_the_classes_apart(pictures, tmp_path):
    words = ["--data", str(pictures), "--epochs", "2", "--output", str(tmp_path)]
    assert main(words) == 0
    model, about = load_checkpoint(tmp_path / "model.safetensors")
    _, _, test, _ = create_loaders(pictures, about["preprocessing"], TrainOptions())
    ((images, labels),) = test
    with torch.no_grad():
        probabilities = model.eval()(images).softmax(dim=1)  # (6, 2)
    assert probabilities[range(6), labels].min() > 0.6


def test_an_older_run_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "run.pt").write_bytes(b"a run")
    assert main(["--output", str(tmp_path)]) == 1
    assert "holds a run: --resume, or another --output" in capsys.readouterr().err
    assert (tmp_path / "run.pt").read_bytes() == b"a run"


def test_other_arguments_are_refused(tmp_path, capsys):
    (tmp_path / "arguments.json").write_text('{"lr": "0.5", "epochs": "20"}')
    (tmp_path / "run.pt").write_bytes(b"a run")
    assert main(["--output", str(tmp_path), "--resume"]) == 1
    assert "holds a run with another lr" in capsys.readouterr().err


@pytest.mark.parametrize("augment", ["--augment", "--no-augment"])
def test_workers_may_change_where_the_weights_do_not_depend_on_them(
    pictures, tmp_path, capsys, augment
):
    """Crops are drawn by the worker processes, each with random numbers of its own."""
    words = [*SHORT, "--epochs", "1", "--data", str(pictures), augment]
    here, there = tmp_path / "no workers", tmp_path / "one worker"
    assert main([*words, "--output", str(here)]) == 0
    assert main([*words, "--output", str(there), "--workers", "1"]) == 0
    (found, _), (expected, _) = weights(there), weights(here)
    same = all(torch.equal(found[name], expected[name]) for name in expected)
    assert same == (augment == "--no-augment")
    capsys.readouterr()
    code = main([*words, "--output", str(here), "--workers", "1", "--resume"])
    refused = "holds a run with another workers" in capsys.readouterr().err
    assert (code, refused) == ((0, False) if same else (1, True))


def test_arguments_can_be_read_while_they_are_written(tmp_path, monkeypatch):
    """Restarted by torchrun, one process writes them again and the others read."""
    keep_arguments({"lr": 0.5}, tmp_path, False, set())
    file, replace, seen = tmp_path / "arguments.json", os.replace, []

    def look(new, old):
        seen.append(json.loads(file.read_text()))
        replace(new, old)

    monkeypatch.setattr(os, "replace", look)
    keep_arguments({"lr": 0.5}, tmp_path, True, set())
    assert seen == [{"lr": "0.5"}] == [json.loads(file.read_text())]


@pytest.mark.parametrize(
    "options, message",
    [
        (["--data", "nowhere"], "nowhere: .*expected a folder or zip with train"),
        (["--init", "nowhere.pth"], "nowhere.pth is neither a file nor one of"),
        (["--init", "scratch", "--model", "vit_minni_8"], "perhaps 'vit_mini_8'"),
        (["--init", "scratch", "--img-size", "65"], "65"),
    ],
)
def test_refused(pictures, tmp_path, capsys, options, message):
    words = ["--data", str(pictures), "--output", str(tmp_path / "run"), *options]
    assert main(words) == 1
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert re.search(message, captured.err), captured.err
    assert not (tmp_path / "run" / "run.pt").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        (["--ammp", "bf16"], "unrecognized arguments: --ammp"),
        (["--amp", "fp16"], "invalid choice: 'fp16'"),
        (["--batch-size", "0"], "--batch-size: must be at least 1, got 0"),
        (["--epochs", "0"], "--epochs: must be at least 1, got 0"),
        (["--accumulate", "-1"], "--accumulate: must be at least 1, got -1"),
        (["--warmup", "1.5"], "--warmup: must be 0 to 0.9, got 1.5"),
        (["--lr", "fast"], "--lr: invalid"),
    ],
)
def test_wrong_options_end_with_2(capsys, options, message):
    with pytest.raises(SystemExit) as error:
        parse(options)
    assert error.value.code == 2
    assert message in capsys.readouterr().err


def test_help_names_every_default(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as error:
        parse(["--help"])
    assert error.value.code == 0
    said = capsys.readouterr().out
    assert said.count("(default: ") == len(vars(parse([])))


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_model_from_a_file(tmp_path, ending):
    """Weights of `save_model`, with other classes and another size of picture."""
    torch.manual_seed(0)
    start = create_vit("vit_mini_8", img_size=32, num_classes=5)
    path = save_model(start, tmp_path, f"start{ending}")
    model = build_model(str(path), "not used", 3, img_size=48)
    assert model.embedding.position_embedding.grid == (6, 6)
    assert not model.head.weight.any() and model.head.out_features == 3
    expected = start.encoder.state_dict()
    for name, weight in model.encoder.state_dict().items():
        assert torch.equal(weight, expected[name])
    assert model.preprocessing["img_size"] == 48


def test_the_course_s_checkpoint_keeps_its_transform():
    model = build_model("checkpoint", "not used", 3, dropout=0.2)
    _, about = load_checkpoint()
    assert model.preprocessing == about["preprocessing"]
    config = config_of(model)
    assert config["name"] == "vit_mini_8" and config["num_classes"] == 3
    again = create_vit(**config)
    again.load_state_dict(model.state_dict())
    assert model.embedding.dropout.p == 0.2


def test_recomputed_activations_change_nothing():
    torch.manual_seed(0)
    model = create_vit("vit_mini_8", img_size=16, num_classes=3, mlp_dropout=0.2)
    images = torch.randn(2, 3, 16, 16)
    found = []
    for recompute in (False, True):
        if recompute:
            enable_gradient_checkpointing(model)
        torch.manual_seed(1)
        model.zero_grad()
        logits = model(images)
        logits.square().sum().backward()
        found.append([logits.detach()] + [p.grad.clone() for p in model.parameters()])
    for kept, recomputed in zip(*found, strict=True):
        torch.testing.assert_close(recomputed, kept)


def test_pictures_are_kept_as_long_as_there_is_room(tmp_path):
    asked = []

    def read(path):
        asked.append(path)
        return Image.new("RGB", (10, 10 if path == "a" else 20))

    cached = CachedLoader(
        read, 0.0008
    )  # 800 bytes: one of 600, and one of 300 too much
    for path in ("b", "a", "b", "a", "b"):
        assert cached(path).height == (10 if path == "a" else 20)
    assert asked == ["b", "a", "a"]


def test_kept_pictures_are_the_same_pictures(pictures):
    preprocessing = {"img_size": 16, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    found = []
    for cache in (0, 100):
        torch.manual_seed(0)
        options = TrainOptions(batch_size=4, seed=0, cache=cache)
        train, *_ = create_loaders(pictures, preprocessing, options)
        batches = [batch for _ in range(2) for batch, _ in train]
        found.append(torch.cat(batches))
    assert torch.equal(*found)


def test_augmentation_is_for_training_pictures_alone(pictures):
    preprocessing = {"img_size": 16, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    options = TrainOptions(batch_size=4)
    train, val, test, names = create_loaders(pictures, preprocessing, options)
    assert names == ["dark", "light"]
    torch.manual_seed(0)
    first, second = train.dataset[0][0], train.dataset[0][0]
    assert first.shape == (3, 16, 16) and not torch.equal(first, second)
    for loader in (val, test):
        assert torch.equal(loader.dataset[0][0], loader.dataset[0][0])
    options.augment = False
    plain, *_ = create_loaders(pictures, preprocessing, options)
    assert torch.equal(plain.dataset[0][0], plain.dataset[0][0])
