"""Trains for four epochs, as one process or several, and saves what came of it."""

from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from going_modular.engine import test_step, train
from going_modular.optimization import create_optimizer, warmup_schedule
from going_modular.training.distributed import (
    allow_empty,
    process_group,
    rank_and_size,
    shard_dataloader,
    wrap_model,
)
from going_modular.training.progress import DistributedRun, Interrupted
from going_modular.vit import create_vit

SIZES = {"embedding_dim": 24, "mlp_size": 48, "num_heads": 2, "num_classes": 3}
SIZES |= {"img_size": 8, "patch_size": 4, "num_transformer_layers": 2}


def main(
    path, images=21, accumulate=1, dropout=0.0, kind="ddp", stop_at=0, resume=False
) -> None:
    """Trains on so many images in batches of 8, as one process or as several.

    Saves weights and results in the file `path`, and the run beside it. Without results
    if it is stopped at step `stop_at`.
    """
    rank, _ = rank_and_size()
    torch.manual_seed(0)
    shares = {"mlp_dropout": dropout, "embedding_dropout": dropout}
    model = create_vit("vit_mini_8", **SIZES, **shares)
    generator = torch.Generator().manual_seed(1)
    pictures = torch.randn(images, 3, 8, 8, generator=generator)
    labels = torch.randint(3, (images,), generator=generator)
    data = TensorDataset(pictures, labels)
    order = torch.Generator().manual_seed(2)
    loader = shard_dataloader(DataLoader(data, 8, shuffle=True, generator=order))
    vals = shard_dataloader(DataLoader(data, 5))
    model = wrap_model(model, "cpu", fsdp=kind == "fsdp")
    torch.manual_seed(rank)
    optimizer = create_optimizer(model, lr=1e-3, eps=1e-6)
    scheduler = warmup_schedule(optimizer, 2, 40)
    file, count = Path(path).with_suffix(".run"), iter(range(1, 1000))
    run = DistributedRun(file, model, optimizer, scheduler, loader)

    def ask(*batch):
        run.progress.stop = next(count) == stop_at and rank == 0  # one is enough
        return batch

    results = None
    loss_fn = allow_empty(nn.CrossEntropyLoss())
    try:
        results = train(
            model,
            loader,
            vals,
            optimizer,
            loss_fn,
            4,
            "cpu",
            scheduler=scheduler,
            clip_norm=0.5,
            accumulate=accumulate,
            batch_transform=ask,
            checkpoint=run,
            resume=resume,
            verbose=False,
            meter=run.progress.meter,
            grouping=run.progress.grouping,
        )
        meter = run.progress.meter
        found = test_step(model, vals, loss_fn, "cpu", meter=meter)
        results["best"] = list(found)
    except Interrupted:
        run.save()
    state = run.parts["model"].state_dict()
    if rank == 0:
        torch.save({"weights": state, "results": results}, path)


def main_together(runs: list[dict]) -> None:
    """Does each run of `main` with the other processes of this one's group."""
    with process_group("cpu"):
        for options in runs:
            main(**options)
