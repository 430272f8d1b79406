"""Figures 6, 7 and 14 in numbers: the course's checkpoint, with intervals.

Lesson 13b draws these figures. Here each is a difference with a 95 % interval, to be
compared with what the paper says of its own: near positions and those of one row or
column are alike (section 4.5), attention reaches further in later layers (section 4.5),
and rollout marks what matters for the class (Figure 6). A table of random rows,
enlarged as the checkpoint's was, is the control for positions.
"""

import argparse
import itertools
import json
from pathlib import Path

import torch
from ablation import ROOT, interval
from torch import nn
from torch.utils.data import DataLoader

from going_modular.attention_maps import (
    attention_distance,
    attention_rollout,
    class_token_map,
    position_similarity,
)
from going_modular.checkpoint import load_checkpoint
from going_modular.data_setup import create_dataloaders, create_transform
from going_modular.engine import train
from going_modular.multihead_attention import record_attention
from going_modular.optimization import create_optimizer
from going_modular.position_embedding import interpolate_position_embedding
from going_modular.transfer import extract_features, freeze, replace_head
from helper_functions import get_foodvision_mini, set_seeds

GRID = (8, 8)
RANDOM_ORDERS = 5
COUNTS = (4, 8, 16, 32, 48)  # patches that are removed, of 64


def row(name: str, values: list[float], unit: str) -> dict:
    """Mean of some differences, with its interval."""
    low, high = interval(values)
    mean = sum(values) / len(values)
    print(f"{name}: {mean:+.3f} ({low:+.3f} … {high:+.3f}), {len(values)} {unit}")
    found = {"name": name, "difference": round(mean, 4), "of": f"{len(values)} {unit}"}
    return found | {"interval": [round(low, 4), round(high, 4)]}


def alike(weight: torch.Tensor, steps: list[tuple[int, int]]) -> torch.Tensor:
    """Mean similarity of each position to those so many steps away, (64,)."""
    similarity = position_similarity(weight, GRID)  # (8, 8, 8, 8)
    means = []
    for r, c in itertools.product(range(8), range(8)):
        places = [(r + down, c + across) for down, across in steps]
        inside = [(i, j) for i, j in places if 0 <= i < 8 and 0 <= j < 8]
        values = [similarity[r, c, i, j] for i, j in inside]
        means.append(torch.stack(values).mean())
    return torch.stack(means)


def positions(trained: torch.Tensor) -> list[dict]:
    """Near positions, and those of one row or column, against the control."""
    set_seeds()
    enlarged = interpolate_position_embedding(torch.randn(1, 37, 192), (6, 6), GRID)
    beside = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    line = [(0, 4), (4, 0), (0, -4), (-4, 0)]  # 4 steps away
    slanted = [(3, 3), (3, -3), (-3, 3), (-3, -3)]  # 4.2 steps away
    near = [alike(table, beside) for table in (trained, enlarged)]
    lines = [
        alike(table, line) - alike(table, slanted) for table in (trained, enlarged)
    ]
    name = "similarity of neighbours, trained - random"
    found = [row(name, (near[0] - near[1]).tolist(), "positions")]
    name = "same row or column - neither, trained - random"
    return [*found, row(name, (lines[0] - lines[1]).tolist(), "positions")]


def accuracy_without(model, images, labels, order, count) -> torch.Tensor:
    """Whether each image is right (n,) without the first patches of its order."""
    keep = torch.ones(order.shape, dtype=torch.bool).scatter(1, order[:, :count], False)
    class_token = torch.ones(len(keep), 1, dtype=torch.bool)
    mask = torch.cat([class_token, keep], dim=1)[:, None, None]  # (n, 1, 1, 65)
    return (model(images, mask).argmax(dim=1) == labels).float()


@torch.no_grad()
def attention(model: nn.Module, images: torch.Tensor, labels) -> list[dict]:
    """How far heads attend, and what rollout is worth, for each test image."""
    with record_attention(model) as maps:
        model(images)
    distances = [
        torch.stack([attention_distance(m[i : i + 1], GRID, 8).mean() for m in maps])
        for i in range(len(images))
    ]
    further = [(d[-1] - d[0]).item() for d in distances]
    found = [row("pixels attended over, last layer - first", further, "images")]
    rollout = class_token_map(attention_rollout(maps), GRID)[:, 0].flatten(1)
    by_rollout = rollout.argsort(dim=1, descending=True)
    set_seeds()
    by_chance = [torch.rand(rollout.shape).argsort(1) for _ in range(RANDOM_ORDERS)]
    differences = torch.zeros(len(images))
    for count in COUNTS:
        chance = [accuracy_without(model, images, labels, o, count) for o in by_chance]
        rolled = accuracy_without(model, images, labels, by_rollout, count)
        differences += (rolled - torch.stack(chance).mean(dim=0)) / len(COUNTS)
    name = "accuracy without patches by rollout - by chance"
    return [*found, row(name, differences.tolist(), "images")]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    path = ROOT / "benchmarks" / "looking_inside.json"
    parser.add_argument("--json", type=Path, default=path, help="file for the results")
    args = parser.parse_args()
    model, _ = load_checkpoint()
    transform = create_transform(**model.preprocessing)
    data = get_foodvision_mini()
    train_loader, test_loader, classes = create_dataloaders(
        data / "train", data / "test", transform, batch_size=32
    )
    replace_head(model, len(classes))
    freeze(model)
    features = extract_features(model, train_loader)
    set_seeds()
    optimizer = create_optimizer(model.head, lr=1e-3, weight_decay=1.0)
    batches = DataLoader(features, batch_size=32, shuffle=True)
    train(model.head, batches, None, optimizer, epochs=40, verbose=False)
    model.eval()
    images, labels = map(torch.cat, zip(*test_loader, strict=True))
    rows = positions(model.embedding.position_embedding.weight.detach())
    rows += attention(model, images, labels)
    args.json.write_text(json.dumps({"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
