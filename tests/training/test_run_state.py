"""A resumed run is the uninterrupted one; no other file is taken for it.

Lesson 11 stops after an epoch, lesson 14b after any step.
"""

import errno
import itertools
import os
import pickle
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from going_modular import engine, run_state
from going_modular.optimization import create_optimizer, warmup_schedule
from going_modular.run_state import RandomState
from going_modular.training.progress import DistributedRun, Interrupted
from going_modular.vit import create_vit

ROOT = Path(__file__).resolve().parents[2]
EPOCHS = 4
BATCHES = 3
SIZES = {"embedding_dim": 8, "mlp_size": 16, "num_heads": 2, "num_classes": 3}
SIZES |= {"img_size": 4, "patch_size": 2, "num_transformer_layers": 1}
SIZES |= {"mlp_dropout": 0.2, "attn_dropout": 0.2, "drop_path": 0.1}


pytestmark = pytest.mark.usefixtures("one_thread")


class Augmented(Dataset):
    """Ten images; each visit adds noise from torch, `random` and numpy."""

    def __init__(self, labels=(0, 1, 2, 2, 1, 0, 1, 1, 0, 2), before=None):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(10, 3, 4, 4, generator=generator)
        self.labels, self.before, self.visits = labels, before, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.visits += 1
        if self.before is not None:
            self.before(self.visits)
        noise = torch.randn(3, 4, 4) + random.gauss(0, 1) + np.random.normal()
        return self.images[i] + 0.5 * noise, self.labels[i]


class Run:
    """New objects for everything; another seed draws other numbers everywhere."""

    def __init__(self, seed=0, before=None, workers=0, **changed):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        self.model = create_vit("vit_mini_8", **SIZES | changed)
        self.optimizer = create_optimizer(self.model, lr=0.02)
        self.schedule = warmup_schedule(self.optimizer, 2, EPOCHS * BATCHES)
        self.loader = DataLoader(
            Augmented(before=before),
            batch_size=4,
            shuffle=True,
            num_workers=workers,
            generator=torch.Generator().manual_seed(seed),
        )
        # Labels that nothing was trained for: the best epoch is any of them.
        self.val_loader = DataLoader(Augmented((2, 2, 0, 1, 1, 0, 2, 0, 1, 0)), 5)

    def train(self, path=None, resume=False, validate=True, **options):
        self.results = engine.train(
            self.model,
            self.loader,
            self.val_loader if validate else None,
            self.optimizer,
            nn.CrossEntropyLoss(),
            EPOCHS,
            scheduler=self.schedule,
            checkpoint=path,
            resume=resume,
            verbose=False,
            **options,
        )
        return self

    def train_by_steps(self, path=None, stop_at=None, **options):
        """As lesson 14b does: asked to stop while it trains on a batch, it saves."""
        objects = (self.model, self.optimizer, self.schedule, self.loader)
        run, count = DistributedRun(path, *objects), iter(range(99))

        def ask(*images_and_labels):
            run.progress.stop |= next(count) + 1 == stop_at
            return images_and_labels

        options |= {"grouping": run.progress.grouping, "meter": run.progress.meter}
        try:
            return self.train(run, resume=True, batch_transform=ask, **options)
        except Interrupted:
            run.save()
            raise


def bits(run):
    """What two equal runs share: history, weights, averages of AdamW, next rate."""
    state = run.optimizer.state_dict()["state"]
    averages = [state[i][key].tolist() for i in state for key in sorted(state[i])]
    weights = {name: p.tolist() for name, p in run.model.state_dict().items()}
    return run.results, weights, averages, run.schedule.state_dict()


@pytest.fixture(scope="module")
def uninterrupted(one_thread):
    """Whether validated or not -> bits of a run that nothing stopped."""
    return {
        validate: bits(Run().train(validate=validate)) for validate in (True, False)
    }


class Killed(Exception):
    pass


def kill_at(moment):
    def kill(count, *_):
        if count == moment:
            raise Killed

    return kill


def test_another_seed_is_another_run(uninterrupted):
    """What the tests below rely on: without the saved states nothing agrees."""
    results, weights, *_ = bits(Run(seed=5).train())
    assert results["train_loss"] != uninterrupted[True][0]["train_loss"]
    assert weights != uninterrupted[True][1]


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("epoch", range(EPOCHS))
def test_killed_after_any_epoch(tmp_path, uninterrupted, epoch, validate):
    path = tmp_path / "new folder" / "run.pt"
    with pytest.raises(Killed):
        Run().train(path, validate=validate, callback=kill_at(epoch))
    resumed = Run(seed=5).train(path, resume=True, validate=validate)
    assert bits(resumed) == uninterrupted[validate]


@pytest.mark.parametrize("image", [1, 17, 10 * EPOCHS])
def test_killed_within_an_epoch(tmp_path, uninterrupted, image):
    """Also before the first file exists: then the run starts anew."""
    path = tmp_path / "run.pt"
    with pytest.raises(Killed):
        Run(before=kill_at(image)).train(path)
    assert path.exists() == (image > 10)
    resumed = Run(seed=5 if image > 10 else 0).train(path, resume=True)
    assert bits(resumed) == uninterrupted[True]


def test_killed_again_and_again(tmp_path, uninterrupted):
    path = tmp_path / "run.pt"
    for epoch in range(EPOCHS - 1):
        with pytest.raises(Killed):
            Run(seed=epoch).train(path, resume=True, callback=kill_at(epoch))
    assert bits(Run(seed=5).train(path, resume=True)) == uninterrupted[True]


@pytest.mark.parametrize(
    "batch, workers",
    [(batch, 0) for batch in range(1, EPOCHS * BATCHES + 1)] + [(2, 2), (3, 2), (7, 2)],
)
def test_stopped_after_any_step(tmp_path, uninterrupted, batch, workers):
    """Within an epoch, at its end and at that of the run; with workers too."""
    path = tmp_path / "run.pt"
    expected = uninterrupted[True]
    if workers:
        expected = bits(Run(workers=workers).train())
    with pytest.raises(Interrupted):
        Run(workers=workers).train_by_steps(path, batch)
    done = torch.load(path, weights_only=True)["progress"]["batches_done"]
    assert done == (batch - 1) % BATCHES + 1
    resumed = Run(seed=5, workers=workers).train_by_steps(path)
    assert bits(resumed) == expected


def test_by_steps_is_lesson_11_to_the_last_bit(uninterrupted):
    assert bits(Run().train_by_steps()) == uninterrupted[True]


def test_stopped_after_each_step(tmp_path, uninterrupted):
    path = tmp_path / "run.pt"
    for _ in range(EPOCHS * BATCHES):
        with pytest.raises(Interrupted):
            Run(seed=5 if path.exists() else 0).train_by_steps(path, 1)
    assert bits(Run(seed=5).train_by_steps(path)) == uninterrupted[True]


def test_a_step_of_two_batches_is_finished(tmp_path):
    """Batches 1 and 2 are one step, the third, at the end of the epoch, another."""
    path = tmp_path / "run.pt"
    expected = bits(Run().train(accumulate=2))
    with pytest.raises(Interrupted):
        Run().train_by_steps(path, 4, accumulate=2)
    assert torch.load(path, weights_only=True)["progress"]["batches_done"] == 2
    resumed = Run(seed=5).train_by_steps(path, accumulate=2)
    assert bits(resumed) == expected


@pytest.mark.parametrize("epoch", range(EPOCHS))
def test_by_steps_killed_after_any_epoch(tmp_path, uninterrupted, epoch):
    path = tmp_path / "run.pt"
    with pytest.raises(Killed):
        Run().train_by_steps(path, callback=kill_at(epoch))
    assert bits(Run(seed=5).train_by_steps(path)) == uninterrupted[True]


def test_stopped_with_more_processes(tmp_path):
    """A part of an epoch belongs to as many processes as began it."""
    path = tmp_path / "run.pt"
    with pytest.raises(Interrupted):
        Run().train_by_steps(path, 2)
    state = torch.load(path, weights_only=True)
    state["progress"]["processes"] *= 2
    torch.save(state, path)
    with pytest.raises(ValueError, match="within an epoch of 2 processes; with 1 it c"):
        Run().train_by_steps(path)


@pytest.mark.parametrize("part", ["progress", "batches_done", "processes"])
def test_progress_that_lacks_something(tmp_path, part):
    path, run = tmp_path / "run.pt", Run(seed=5)
    with pytest.raises(Interrupted):
        Run().train_by_steps(path, 2)
    state = torch.load(path, weights_only=True)
    del (state if part == "progress" else state["progress"])[part]
    torch.save(state, path)
    before = state_of(run)
    with pytest.raises(ValueError, match=re.escape(str(path))):
        run.train_by_steps(path)
    assert state_of(run)[1] == before[1]
    for found, weight in zip(
        run.model.parameters(), Run(5).model.parameters(), strict=True
    ):
        assert torch.equal(found, weight)


def test_the_best_epoch_came_before_the_kill(tmp_path, uninterrupted):
    """Its weights come from the file: the resumed process has never seen them."""
    accuracies = uninterrupted[True][0]["val_acc"]
    best = max(range(EPOCHS), key=lambda epoch: (accuracies[epoch], epoch))
    assert best < EPOCHS - 2
    weights = []

    def note(epoch, results, model):
        weights.append({name: p.tolist() for name, p in model.state_dict().items()})

    Run().train(callback=note)
    path = tmp_path / "run.pt"
    with pytest.raises(Killed):
        Run().train(path, callback=kill_at(EPOCHS - 2))
    resumed = Run(seed=5).train(path, resume=True)
    assert bits(resumed)[1] == weights[best] != weights[-1]


def kill_for_real(*_):
    os.kill(os.getpid(), signal.SIGKILL)


def train_until_killed(path, moment):
    """For a process of its own: its third epoch is not completed."""
    torch.set_num_threads(1)
    if moment == "within an epoch":
        Run(before=lambda visits: visits == 26 and kill_for_real()).train(path)
    save, count = torch.save, itertools.count(1)

    def half(state, file):
        save(state, file)
        if next(count) == 3:
            os.truncate(file, os.path.getsize(file) // 2)
            kill_for_real()

    torch.save = half
    Run().train(path)


@pytest.mark.parametrize("moment", ["within an epoch", "while it writes"])
def test_the_system_kills_the_process(tmp_path, uninterrupted, moment):
    """SIGKILL: no `finally`, no clean-up."""
    path = tmp_path / "run.pt"
    code = "import sys, test_run_state as t; from pathlib import Path; "
    code += "t.train_until_killed(Path(sys.argv[1]), sys.argv[2])"
    folders = os.pathsep.join([str(ROOT), str(Path(__file__).parent)])
    result = subprocess.run(
        [sys.executable, "-c", code, path, moment],
        env=os.environ | {"PYTHONPATH": folders},
    )
    assert result.returncode == -signal.SIGKILL
    half = tmp_path / "run.pt.part"
    assert half.exists() == (moment == "while it writes")
    saved = torch.load(path, weights_only=True)["history"]
    assert saved == {key: values[:2] for key, values in uninterrupted[True][0].items()}
    assert bits(Run(seed=5).train(path, resume=True)) == uninterrupted[True]
    assert not half.exists()


def test_without_resume_a_run_starts_anew(tmp_path, uninterrupted):
    path = tmp_path / "run.pt"
    Run(seed=5).train(path)
    assert bits(Run().train(path)) == uninterrupted[True]
    assert torch.load(path, weights_only=True)["history"] == uninterrupted[True][0]


DRAWS = {
    "torch": lambda loader: torch.rand(2).tolist(),
    "python": lambda loader: [random.random(), random.gauss(0, 1)],
    "numpy": lambda loader: [np.random.rand(), np.random.normal()],
    "loader": lambda loader: torch.rand(2, generator=loader.generator).tolist(),
}


def saved_with(path, loader, results):
    """A file of nothing but random states, and what reads it again."""
    run = run_state.Run(path, random=RandomState(loader))
    run.history = results
    return run


@pytest.mark.parametrize("name", DRAWS)
def test_each_generator_continues(tmp_path, name):
    """After one normal number numpy and `random` keep a second one for later."""
    run = Run()
    random.gauss(0, 1)
    np.random.normal()
    saved_with(tmp_path / "run.pt", run.loader, {}).save()
    expected = DRAWS[name](run.loader)
    other = Run(seed=5)
    saved_with(tmp_path / "run.pt", other.loader, {}).load()
    assert DRAWS[name](other.loader) == expected


def test_a_loader_without_a_generator(tmp_path):
    path, loader = tmp_path / "run.pt", DataLoader(Augmented(), 4, shuffle=True)
    saved_with(path, loader, {"a": [1.0]}).save()
    expected = torch.cat([labels for _, labels in loader]).tolist()
    torch.manual_seed(5)
    other = saved_with(path, Run().loader, {"a": []})
    other.load()
    assert (other.history, other.best) == ({"a": [1.0]}, None)
    saved_with(path, loader, {"a": []}).load()
    assert torch.cat([labels for _, labels in loader]).tolist() == expected


@pytest.fixture(scope="module")
def saved(tmp_path_factory, one_thread):
    """A file of a run that was stopped after its second epoch."""
    path = tmp_path_factory.mktemp("saved") / "run.pt"
    with pytest.raises(Killed):
        Run().train(path, callback=kill_at(1))
    return path.read_bytes()


def test_a_half_written_file_is_not_taken_for_a_whole_one(tmp_path, saved):
    """As after a kill while the first file was written: nothing to go on from."""
    (tmp_path / "run.pt.part").write_bytes(saved)
    results = Run(seed=5).train(tmp_path / "run.pt", resume=True).results
    assert results == Run(seed=5).train().results


def test_a_half_written_file_beside_a_whole_one(tmp_path, saved, uninterrupted):
    (tmp_path / "run.pt").write_bytes(saved)
    (tmp_path / "run.pt.part").write_bytes(saved[: len(saved) // 2])
    resumed = Run(seed=5).train(tmp_path / "run.pt", resume=True)
    assert bits(resumed) == uninterrupted[True]
    assert os.listdir(tmp_path) == ["run.pt"]


@pytest.mark.parametrize("where", ["save", "replace"])
def test_a_full_disk_leaves_the_old_file(tmp_path, saved, monkeypatch, where):
    path, save = tmp_path / "run.pt", torch.save
    path.write_bytes(saved)

    def half(state, file):
        save(state, file)
        content = Path(file).read_bytes()
        Path(file).write_bytes(content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "save":
        monkeypatch.setattr(torch, "save", half)
    else:
        monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="No space left"):
        Run().train(path, resume=True)
    assert path.read_bytes() == saved
    assert os.listdir(tmp_path) == ["run.pt"]


class Trap:
    """Unpickled by a careless reader, it makes a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


@pytest.mark.parametrize("form", ["by torch", "plain pickle", "within a run"])
def test_code_in_a_file_is_not_run(tmp_path, saved, form):
    path, trap = tmp_path / "run.pt", tmp_path / "trap"
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(Trap(trap), protocol=2))
    elif form == "by torch":
        torch.save(Trap(trap), path)
    else:
        path.write_bytes(saved)
        state = torch.load(path, weights_only=True)
        torch.save(state | {"history": Trap(trap)}, path)
    with pytest.raises(
        ValueError, match=f"{re.escape(str(path))} .*contains more than"
    ):
        Run().train(path, resume=True)
    assert not trap.exists()
    if form == "plain pickle":  # the trap itself works
        pickle.loads(path.read_bytes())
    else:
        torch.load(path, weights_only=False)
    assert trap.is_dir()


def refused(path, run=None, match="", **options):
    """Asserts that a run does not go on from this file, and that it is named."""
    with pytest.raises(ValueError, match=re.escape(str(path)) + ".*" + match):
        (run or Run()).train(path, resume=True, **options)


CUTS = {
    "empty": lambda whole: b"",
    "one byte": lambda whole: whole[:1],
    "half": lambda whole: whole[: len(whole) // 2],
    "all but the end": lambda whole: whole[:-20],
    "the end alone": lambda whole: whole[len(whole) // 2 :],
    "text": lambda whole: b"not found\n",
    "zeros": lambda whole: bytes(len(whole)),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_damaged_file(tmp_path, saved, cut):
    path = tmp_path / "run.pt"
    path.write_bytes(CUTS[cut](saved))
    refused(path)


def test_a_folder_instead_of_a_file(tmp_path):
    refused(tmp_path)


PARTS = ["model", "optimizer", "scheduler", "random", "best"]


@pytest.mark.parametrize("part", PARTS)
def test_a_file_that_lacks_something(tmp_path, saved, part):
    path = tmp_path / "run.pt"
    path.write_bytes(saved)
    state = torch.load(path, weights_only=True)
    del state[part]
    torch.save(state, path)
    refused(path)


@pytest.mark.parametrize(
    "content",
    [nn.Linear(2, 3).state_dict(), [1, 2], 3, None, {}, {"model": 3}],
    ids=["weights alone", "list", "number", "None", "empty dict", "no weights"],
)
def test_a_file_of_something_else(tmp_path, content):
    path = tmp_path / "run.pt"
    torch.save(content, path)
    refused(path)


@pytest.mark.parametrize(
    "changed", [{"mlp_size": 20}, {"num_transformer_layers": 2}, {"num_classes": 4}]
)
def test_a_file_of_another_model(tmp_path, saved, changed):
    path = tmp_path / "run.pt"
    path.write_bytes(saved)
    refused(path, Run(**changed))


def test_a_file_that_lacks_a_frozen_block(tmp_path, saved):
    """Its optimizer fits; only the names of the weights tell."""
    path, run = tmp_path / "run.pt", Run(num_transformer_layers=2)
    path.write_bytes(saved)
    run.model.encoder[1].requires_grad_(False)
    run.optimizer = create_optimizer(run.model)
    run.schedule = warmup_schedule(run.optimizer, 2, EPOCHS * BATCHES)
    refused(path, run)


def test_a_file_of_an_optimizer_with_other_groups(tmp_path, saved):
    path, run = tmp_path / "run.pt", Run()
    path.write_bytes(saved)
    run.optimizer = torch.optim.AdamW(run.model.parameters())  # one group, not two
    run.schedule = warmup_schedule(run.optimizer, 2, EPOCHS * BATCHES)
    refused(path, run)


def test_a_file_without_the_schedule(tmp_path):
    path, run = tmp_path / "run.pt", Run()
    run.schedule = None
    run.train(path)
    refused(path)


def state_of(run):
    """Copies of everything that a failed attempt to resume must leave as it was."""
    parts = (run.model, run.optimizer, run.schedule)
    numbers = [torch.get_rng_state().tolist(), random.getstate()]
    return repr([part.state_dict() for part in parts]), numbers


@pytest.mark.parametrize("broken", ["optimizer", "scheduler", "random", "best"])
def test_a_refused_file_changes_nothing(tmp_path, saved, broken):
    path, run = tmp_path / "run.pt", Run(seed=5)
    path.write_bytes(saved)
    state = torch.load(path, weights_only=True)
    del state[broken]
    torch.save(state, path)
    before = state_of(run)
    refused(path, run)
    assert state_of(run) == before


def test_a_file_of_another_model_changes_nothing(tmp_path, saved):
    path, run = tmp_path / "run.pt", Run(seed=5, num_classes=4)
    path.write_bytes(saved)
    before = state_of(run)
    refused(path, run)
    assert state_of(run) == before


def test_a_file_of_another_kind_of_optimizer(tmp_path, saved):
    path, run = tmp_path / "run.pt", Run()
    path.write_bytes(saved)
    groups = [{"params": group["params"]} for group in run.optimizer.param_groups]
    run.optimizer = torch.optim.SGD(groups, lr=0.1)
    run.schedule = warmup_schedule(run.optimizer, 2, EPOCHS * BATCHES)
    refused(path, run)


def test_a_file_with_a_schedule_for_a_run_without(tmp_path, saved):
    path, run = tmp_path / "run.pt", Run()
    path.write_bytes(saved)
    run.schedule = None
    refused(path, run)


@pytest.mark.parametrize("before", [True, False])
def test_validation_comes_or_goes(tmp_path, before):
    path = tmp_path / "run.pt"
    with pytest.raises(Killed):
        Run().train(path, validate=before, callback=kill_at(1))
    refused(path, validate=not before)


@pytest.mark.parametrize(
    "change",
    [
        lambda state: torch.zeros(3),
        lambda state: state | {"optimizer": None},
        lambda state: state | {"scheduler": None},
        lambda state: state | {"history": None},
        lambda state: state | {"history": {}},
        lambda state: state | {"best": {}},
    ],
    ids=["tensor", "optimizer", "scheduler", "history", "no history", "best"],
)
def test_a_file_with_odd_parts(tmp_path, saved, change):
    path = tmp_path / "run.pt"
    path.write_bytes(saved)
    torch.save(change(torch.load(path, weights_only=True)), path)
    refused(path)


def test_a_rate_from_numpy(tmp_path):
    """As in a sweep over `np.logspace(-4, -2, 5)`."""
    path = tmp_path / "run.pt"
    for resume in (False, True):
        run = Run()
        run.optimizer = create_optimizer(run.model, lr=np.float64(0.01))
        run.schedule = warmup_schedule(run.optimizer, 2, EPOCHS * BATCHES)
        run.train(path, resume=resume)
