"""Lesson 14b: several processes are one; what they share, save and refuse."""

import functools
from pathlib import Path

import pytest
import torch
from commands import run
from torch.utils.data import BatchSampler, DataLoader, TensorDataset

from going_modular.training import distributed
from going_modular.training.distributed import (
    DistributedBatchSampler,
    all_gather,
    all_reduce_sum,
    collate_shard,
    shard_dataloader,
)
from going_modular.training.progress import DistributedMeter

HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize("images", [1, 7, 8, 9, 30])
def test_shards_are_the_batches(images, size):
    """Each image once, in its batch; shards of a batch differ by one at most."""
    batches = BatchSampler(range(images), 8, drop_last=False)
    shards = [
        list(DistributedBatchSampler(batches, rank, size)) for rank in range(size)
    ]
    for i, batch in enumerate(batches):
        parts = [shard[i] for shard in shards]
        assert sorted(sum(parts, [])) == batch
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert {
        len(DistributedBatchSampler(batches, rank, size)) for rank in range(size)
    } == {len(batches)}


def test_no_image_has_the_shapes_of_images():
    data = TensorDataset(torch.ones(3, 3, 8, 6), torch.tensor([1, 2, 0]))
    images, labels = collate_shard(data, [])
    assert images.shape == (0, 3, 8, 6) and labels.shape == (0,)
    assert labels.dtype == torch.int64
    images, labels = collate_shard(data, [data[0], data[2]])
    assert images.shape == (2, 3, 8, 6) and labels.tolist() == [1, 0]


def pretend(monkeypatch, rank, size):
    monkeypatch.setattr(distributed, "rank_and_size", lambda: (rank, size))


def test_alone_a_loader_stays_as_it_is():
    loader = DataLoader(TensorDataset(torch.arange(5)), 2, shuffle=True)
    assert shard_dataloader(loader) is loader


def test_shared_loaders_draw_one_order(monkeypatch):
    seen = []
    for rank in range(2):
        pretend(monkeypatch, rank, 2)
        order = torch.Generator().manual_seed(3)
        data = TensorDataset(torch.arange(11))
        loader = shard_dataloader(DataLoader(data, 4, shuffle=True, generator=order))
        seen.append([batch.tolist() for (batch,) in loader])
    order = torch.Generator().manual_seed(3)
    alone = DataLoader(data, 4, shuffle=True, generator=order)
    for (whole,), first, second in zip(alone, *seen, strict=True):
        assert [first, second] == [whole.tolist()[rank::2] for rank in range(2)]


def test_an_order_of_its_own_for_each_process_is_refused(monkeypatch):
    pretend(monkeypatch, 0, 2)
    data = TensorDataset(torch.arange(5))
    with pytest.raises(ValueError, match="needs a generator"):
        shard_dataloader(DataLoader(data, 2, shuffle=True))
    shard_dataloader(DataLoader(data, 2))  # in order: nothing is drawn


def test_alone_nothing_is_exchanged():
    assert all_reduce_sum([1, 2.5]) == [1, 2.5]
    assert all_gather("mine") == ["mine"]
    with pytest.raises(ValueError, match="the dataloader holds no images"):
        DistributedMeter().compute()


def train(path, processes, *, images=21, accumulate=1, dropout=0.0, kind="ddp", **how):
    """Runs `two_processes.py` and returns what it saved."""
    options = [path, images, accumulate, dropout, kind]
    options += [how.get("stop_at", 0), how.get("resume", "anew")]
    done = run(HERE / "two_processes.py", *options, processes=processes)
    assert done.returncode == 0, done.stderr
    assert ("stopped" in done.stdout) == ("stop_at" in how)
    return torch.load(path, weights_only=True)


def assert_equal(found, expected, tolerance):
    assert found["weights"].keys() == expected["weights"].keys()
    for name, weight in expected["weights"].items():
        close = {"atol": tolerance, "rtol": 0}
        torch.testing.assert_close(found["weights"][name], weight, **close, msg=name)
    for key, values in expected["results"].items():
        assert found["results"][key] == pytest.approx(values, abs=tolerance), key


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What a single process saves, once for each number of images and of batches."""
    folder = tmp_path_factory.mktemp("alone")

    @functools.cache
    def run_alone(images, accumulate):
        path = folder / f"{images}_{accumulate}.pt"
        return train(path, 1, images=images, accumulate=accumulate)

    return run_alone


def test_two_processes_are_one(tmp_path, alone):
    """The last batch is one image, so that one of the processes gets none."""
    found = train(tmp_path / "two.pt", 2, images=17)
    assert_equal(found, alone(17, 1), 1e-5)
    # At the end the model has the weights of its best epoch, in each process.
    results = found["results"]
    assert results["best"][1] == max(results["val_acc"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "processes, kind, images, accumulate",
    [
        (2, "ddp", 24, 1),
        (2, "ddp", 21, 1),
        (3, "ddp", 21, 2),
        (2, "fsdp", 17, 1),
        (2, "fsdp", 21, 2),
    ],
)
def test_several_processes_are_one(
    tmp_path, alone, processes, kind, images, accumulate
):
    """Twelve steps of AdamW with clipping; metrics and the best epoch agree, too."""
    same = {"images": images, "accumulate": accumulate}
    found = train(tmp_path / "more.pt", processes, kind=kind, **same)
    assert_equal(found, alone(images, accumulate), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_processes_stop_together_and_go_on(tmp_path, kind):
    """With dropout, which each process draws for itself; to the last bit."""
    same = {"dropout": 0.2, "kind": kind}
    expected = train(tmp_path / "expected.pt", 2, **same)
    path = tmp_path / "stopped.pt"
    train(path, 2, stop_at=5, **same)
    assert torch.load(path.with_suffix(".run"), weights_only=True)["progress"][
        "batches_done"
    ]
    found = train(path, 2, resume="resume", **same)
    assert_equal(found, expected, 0)
