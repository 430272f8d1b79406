"""Figures 6, 7 and 14 in numbers: the course's checkpoint, with intervals.

Lesson 13b draws these figures. Here three things that the paper says of its own are
differences with a 95 % interval:

- near positions are alike (section 4.5): neighbours against all other pairs, in the
  checkpoint's table and in random tables, which are enlarged as that one was. The
  interval is over the random tables;
- attention reaches further in later layers (section 4.5): pixels per layer, over
  images. The last layer is left out, as nothing reads the rows of its patches;
- rollout marks what matters for the class (Figure 6): accuracy when patches are removed
  in its order, against the middle of the image first, and at random, over images.
  Removed patches are masked, or painted grey.

All of it is one checkpoint: no interval covers another training run. P-values are
corrected by Holm for these rows.

That positions of one row or column are alike (section 4.5) is not among them. Training
images were flipped, so the left half of the table mirrors the right one; with that,
the border and the distance, rows and columns cannot be told apart on 64 places.
"""

import argparse
import json
import statistics
from pathlib import Path

import torch
import torch.nn.functional as F
from ablation import ROOT, holm, interval
from scipy import stats
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
from going_modular.vit import create_vit
from helper_functions import get_foodvision_mini, set_seeds

GRID, PATCH = (8, 8), 8
PLACES = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0))  # (64, 2)
RANDOM_TABLES = 1000
UNTRAINED = 5  # models
ORDERS = 5  # of patches, drawn for each image
COUNTS = (4, 8, 16, 32, 48)  # patches that are removed, of 64


def near(weight: torch.Tensor) -> float:
    """How much more alike neighbours are than all other pairs of positions."""
    similarity = position_similarity(weight, GRID).flatten(2).flatten(0, 1)  # (64, 64)
    squared = (PLACES[:, None] - PLACES).square().sum(dim=2)  # (64, 64)
    return (similarity[squared == 1].mean() - similarity[squared > 1].mean()).item()


def positions(trained: torch.Tensor) -> dict:
    """The checkpoint's table against random ones."""
    set_seeds()
    differences = []
    for _ in range(RANDOM_TABLES):
        coarse = torch.randn(1, 37, 192)
        enlarged = interpolate_position_embedding(coarse, (6, 6), GRID)
        differences.append(near(trained) - near(enlarged))
    values = torch.tensor(differences)
    low, high = values.quantile(torch.tensor([0.025, 0.975])).tolist()
    beyond = min((values <= 0).sum().item(), (values >= 0).sum().item())
    found = {"name": "neighbours - all other pairs, trained - random"}
    found |= {"difference": values.mean().item(), "interval": [low, high]}
    found["p"] = 2 * (1 + beyond) / (1 + RANDOM_TABLES)
    return found | {"of": f"{RANDOM_TABLES:,} random tables, one model"}


def over_images(name: str, values: list[float]) -> dict:
    """The mean of one value per image, with its interval."""
    found: dict = {"name": name, "difference": statistics.mean(values)}
    found["interval"] = interval(values)
    test = stats.ttest_1samp(values, 0)
    found["p"] = float(test.pvalue)  # pyright: ignore[reportAttributeAccessIssue]
    return found | {"of": f"{len(values)} test images, one model"}


def accuracy_without(model, images, labels, order) -> dict[str, torch.Tensor]:
    """Percent right for each image (n,), over counts, for two ways to remove."""
    found = {way: torch.zeros(len(images)) for way in ("masked", "painted grey")}
    for count in COUNTS:
        keep = torch.ones_like(order, dtype=torch.bool)
        keep = keep.scatter(1, order[:, :count], False)  # (n, 64)
        class_token = torch.ones(len(keep), 1, dtype=torch.bool)
        mask = torch.cat([class_token, keep], dim=1)[:, None, None]  # (n, 1, 1, 65)
        grey = F.interpolate(keep.float().unflatten(1, (1, *GRID)), scale_factor=PATCH)
        logits = {"masked": model(images, mask), "painted grey": model(images * grey)}
        for way in found:
            right = logits[way].argmax(dim=1) == labels
            found[way] += 100 * right / len(COUNTS)
    return found


def reach(maps: list[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean distance in pixels of each layer (5, n), and its slope over layers (n,)."""
    distances = torch.tensor(
        [
            [attention_distance(m[[i]], GRID, PATCH).mean() for i in range(len(m))]
            for m in maps[:-1]
        ]
    )
    layers = torch.arange(len(distances)) - (len(distances) - 1) / 2
    return distances, layers @ distances / layers.square().sum()


@torch.no_grad()
def attention(model: nn.Module, images: torch.Tensor, labels) -> list[dict]:
    """How far heads attend, and what rollout is worth, for each test image."""
    with record_attention(model) as maps:
        model(images)
    distances, slopes = reach(maps)
    rows = [over_images("attention distance, pixels per layer", slopes.tolist())]
    # One step between two layers can make a slope; untrained models are the control.
    rows[0]["layers"] = [round(mean, 2) for mean in distances.mean(dim=1).tolist()]
    rows[0]["untrained"] = []
    for seed in range(UNTRAINED):
        set_seeds(seed)
        untrained = create_vit("vit_mini_8").eval()
        with record_attention(untrained) as random_maps:
            untrained(images)
        slope = reach(random_maps)[1].mean().item()
        rows[0]["untrained"].append(round(slope, 3))
    rollout = class_token_map(attention_rollout(maps), GRID)[:, 0].flatten(1)
    order = rollout.argsort(dim=1, descending=True)  # (n, 64)
    by_rollout = accuracy_without(model, images, labels, order)
    set_seeds()
    for rival in ("middle first", "at random"):
        difference = {way: values.clone() for way, values in by_rollout.items()}
        for _ in range(ORDERS):
            drawn = torch.rand(order.shape)
            if rival == "middle first":  # chance decides among the equally far
                drawn = (PLACES - 3.5).norm(dim=1) + 0.01 * drawn
            found = accuracy_without(model, images, labels, drawn.argsort(dim=1))
            for way in difference:
                difference[way] -= found[way] / ORDERS
        for way, values in difference.items():
            rows.append(over_images(f"rollout - {rival}, {way}", values.tolist()))
    return rows


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
    rows = [positions(model.embedding.position_embedding.weight.detach())]
    rows += attention(model, images, labels)
    adjusted = holm([row["p"] for row in rows])
    for row, p in zip(rows, adjusted, strict=True):
        row["difference"] = round(row["difference"], 3)
        row["interval"] = [round(value, 3) for value in row["interval"]]
        row |= {"p": float(f"{row['p']:.2g}"), "p_holm": float(f"{p:.2g}")}
        low, high = row["interval"]
        print(f"{row['name']}: {row['difference']:+.3f} ({low:+.3f} … {high:+.3f})")
        print(f"  Holm p {row['p_holm']:.2g}, {row['of']}")
    kinds = {"foodvision_mini": "rendered", "pizza_steak_sushi": "photographs"}
    stored = {"images": kinds.get(data.name, data.name), "rows": rows}
    args.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
