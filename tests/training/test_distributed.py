"""Lesson 14b: several processes are one; what they share, save and refuse."""

import pytest
import torch
import two_processes
from commands import call_together
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

pytestmark = pytest.mark.usefixtures("one_thread")


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
    monkeypatch.setattr(distributed, "all_gather", lambda value: [value] * size)


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


def shard_by_seeds(by_rank):
    """Shards dataloaders that shuffle by a seed per process; returns what was said."""
    said = []
    with distributed.process_group("cpu"):
        rank, _ = distributed.rank_and_size()
        for seeds in by_rank:
            order = torch.Generator().manual_seed(seeds[rank])
            data = TensorDataset(torch.arange(5))
            loader = DataLoader(data, 2, shuffle=True, generator=order)
            try:
                said.append(len(shard_dataloader(loader)))
            except ValueError as error:
                said.append(str(error))
    return said


def test_different_seeds_are_refused_by_each_process():
    """Of two processes that only exchange their seeds."""
    error = "generators must be seeded equally, but have [3, 4]"
    for said, _ in call_together(shard_by_seeds, [(3, 3), (3, 4)], processes=2):
        assert said == [3, error]


def test_alone_nothing_is_exchanged():
    assert all_reduce_sum([1, 2.5]) == [1, 2.5]
    assert all_gather("mine") == ["mine"]
    with pytest.raises(ValueError, match="the dataloader holds no images"):
        DistributedMeter().compute()


def train_together(folder, processes, runs):
    """Does the runs in so many processes; returns what was saved of each, by name."""
    options = [{"path": folder / f"{name}.pt"} | runs[name] for name in runs]
    call_together(two_processes.main_together, options, processes=processes)
    return {n: torch.load(folder / f"{n}.pt", weights_only=True) for n in runs}


def assert_equal(found, expected, tolerance):
    assert found["weights"].keys() == expected["weights"].keys()
    for name, weight in expected["weights"].items():
        close = {"atol": tolerance, "rtol": 0}
        torch.testing.assert_close(found["weights"][name], weight, **close, msg=name)
    for key, values in expected["results"].items():
        assert found["results"][key] == pytest.approx(values, abs=tolerance), key


def train_alone(folder, **options):
    """The same in this process, without a process group."""
    two_processes.main(folder / "alone.pt", **options)
    return torch.load(folder / "alone.pt", weights_only=True)


def test_two_processes_are_one(tmp_path):
    """The last batch is one image, so that one of the processes gets none."""
    found = train_together(tmp_path, 2, {"two": {"images": 17}})["two"]
    assert_equal(found, train_alone(tmp_path, images=17), 1e-5)
    # At the end the model has the weights of its best epoch, in each process.
    results = found["results"]
    assert results["best"][1] == max(results["val_acc"])


CASES = [
    (2, "ddp", 24, 1),
    (2, "ddp", 21, 1),
    (3, "ddp", 21, 2),
    (2, "fsdp", 17, 1),
    (2, "fsdp", 21, 2),
]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """The results of CASES; each number of processes is started once."""
    results = {}
    for processes in (2, 3):
        cases = [case for case in CASES if case[0] == processes]
        runs = {
            str(case): dict(
                zip(("kind", "images", "accumulate"), case[1:], strict=True)
            )
            for case in cases
        }
        folder = tmp_path_factory.mktemp("together")
        results |= train_together(folder, processes, runs)
    return results


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids=str)
def test_several_processes_are_one(tmp_path, together, case):
    """Twelve steps of AdamW with clipping; metrics and the best epoch agree, too."""
    *_, images, accumulate = case
    alone = train_alone(tmp_path, images=images, accumulate=accumulate)
    assert_equal(together[str(case)], alone, 1e-5)


@pytest.mark.slow
def test_processes_stop_together_and_go_on(tmp_path):
    """With dropout, which each process draws for itself; to the last bit."""
    whole = {kind: {"kind": kind, "dropout": 0.2} for kind in ("ddp", "fsdp")}
    stopped = {f"stopped {kind}": how | {"stop_at": 5} for kind, how in whole.items()}
    first = train_together(tmp_path, 2, whole | stopped)
    for name in stopped:
        assert first[name]["results"] is None
        state = torch.load(tmp_path / f"{name}.run", weights_only=True)
        assert state["progress"]["batches_done"]
        stopped[name] |= {"stop_at": 0, "resume": True}
    found = train_together(tmp_path, 2, stopped)
    for kind in whole:
        assert_equal(found[f"stopped {kind}"], first[kind], 0)
