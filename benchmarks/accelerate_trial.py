"""Compares two processes with one, through Hugging Face Accelerate and through ours.

    pip install accelerate
    torchrun --nproc-per-node=2 benchmarks/accelerate_trial.py

The batches have 8 images; of 21 or 17 images, the last batch cannot be divided
evenly. For each number of images a small ViT takes the same steps of AdamW in one
process by the plain loop, and in two. Printed, and stored in accelerate_trial.json, is
the largest difference of a weight, for ours also in double precision, where rounding
all but vanishes. For a scale: `moved` is how far the plain loop moves a weight at most.
"""

import json
from pathlib import Path

import accelerate
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from going_modular.engine import train_step
from going_modular.training.distributed import (
    FullStateDict,
    allow_empty,
    rank_and_size,
    shard_dataloader,
    wrap_model,
)
from going_modular.training.progress import EpochProgress
from going_modular.vit import create_vit

EPOCHS = 4
OUTPUT = Path(__file__).with_suffix(".json")
SIZES = {"embedding_dim": 24, "mlp_size": 48, "num_heads": 2, "num_classes": 3}
SIZES |= {"img_size": 8, "patch_size": 4, "num_transformer_layers": 2}
SIZES |= {"mlp_dropout": 0.0, "embedding_dropout": 0.0}
loss_fn = nn.CrossEntropyLoss()


def start(count: int) -> tuple[nn.Module, DataLoader]:
    """Returns the same model and the same batches of 8 each time."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, 8, 8, generator=generator)
    labels = torch.randint(3, (count,), generator=generator)
    torch.manual_seed(0)
    order = torch.Generator().manual_seed(2)
    data = TensorDataset(images, labels)
    return create_vit("vit_mini_8", **SIZES), DataLoader(
        data, 8, shuffle=True, generator=order
    )


def adamw(model: nn.Module) -> torch.optim.AdamW:
    return torch.optim.AdamW(model.parameters(), lr=1e-3, eps=1e-6)


def plain(count: int) -> dict:
    """The loop of the tutorials, in one process."""
    model, loader = start(count)
    optimizer = adamw(model)
    for _ in range(EPOCHS):
        for images, labels in loader:
            loss_fn(model(images), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.state_dict()


def by_accelerate(count: int, accelerator: accelerate.Accelerator) -> dict:
    """The same loop as Accelerate's documentation shows it."""
    model, loader = start(count)
    model, optimizer, loader = accelerator.prepare(model, adamw(model), loader)
    for _ in range(EPOCHS):
        for images, labels in loader:
            accelerator.backward(loss_fn(model(images), labels))
            optimizer.step()
            optimizer.zero_grad()
    return accelerator.get_state_dict(model)


def by_ours(count: int) -> dict:
    model, loader = start(count)
    model, loader = wrap_model(model, "cpu"), shard_dataloader(loader)
    progress, optimizer = EpochProgress(model, loader), adamw(model)
    options = {"grouping": progress.grouping, "meter": progress.meter}
    for _ in range(EPOCHS):
        loss = allow_empty(loss_fn)
        train_step(model, loader, loss, optimizer, "cpu", **options)
    return FullStateDict(model).state_dict()


def difference(weights: dict, others: dict) -> float:
    """Returns the largest difference of a weight."""
    return float(max((others[k] - value).abs().max() for k, value in weights.items()))


def main() -> None:
    split = accelerate.utils.DataLoaderConfiguration(split_batches=True)
    accelerator = accelerate.Accelerator(cpu=True, dataloader_config=split)
    rows = []
    for count in (24, 21, 17):
        expected, row = plain(count), {"images": count}
        found = {
            "accelerate": by_accelerate(count, accelerator),
            "ours": by_ours(count),
        }
        found["moved"] = start(count)[0].state_dict()
        for name, weights in found.items():
            row[name] = difference(expected, weights)
        torch.set_default_dtype(torch.float64)
        row["ours_float64"] = difference(plain(count), by_ours(count))
        torch.set_default_dtype(torch.float32)
        rows.append(row)
    if rank_and_size()[0] == 0:
        stored = {"processes": rank_and_size()[1], "accelerate": accelerate.__version__}
        OUTPUT.write_text(json.dumps(stored | {"rows": rows}, indent=1) + "\n")
        print(OUTPUT.read_text(), end="")
    accelerator.end_training()


if __name__ == "__main__":
    main()
