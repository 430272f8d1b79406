"""Which maps mark what the model needs? Deletion tests on 600 new images.

Lessons 13b and 13c build the maps; their 75 test images have been looked at too often
to decide. So 600 images, 200 per class, are drawn with a seed that no other set has.
The model is the lessons': the course's checkpoint, with a head trained on
FoodVision Mini. What is compared was written here before the first run.

The measure of an order of patches: the first 4, 8, 16, 32 and 48 of 64 are removed,
and the accuracy is averaged over these five counts: lower is better. MAIN WAY: their
tokens are left out of the sequence; for the prediction, masking them is the same. "At
random" and "middle first" (its ties) are means of five draws per image, "random model"
is a mean of three models with random weights; chance decides among equal values.

ONE FAMILY of 21 comparisons, all by the main way, paired by image (Student's t over
the 600 images), p-values corrected by Holm for all 21; "decided" is p below 0.05:

- each of six maps - "at random", and - "middle first" (12): rollout, the last layer's
  row, pixels' gradient (absolute, summed over a patch), signed gradient times pixel
  (summed over a patch; a pixel of 0 is grey), attention times gradient of the last
  layer alone, and relevance (of all layers);
- "middle first" - "at random"; rollout - last layer (2);
- relevance - rollout, - pixels' gradient, - gradient times pixel, - attention times
  gradient of the last layer (4);
- relevance - its controls: for the runner-up's class, of another image of the same
  class, of a random model (3).

The report's claim for Figure 6 is "rollout - middle first" of this family, whatever
it says. SENSITIVITY, with intervals that are not corrected and no verdict: the same 21
with the first 16 patches painted grey (lower is better), and with only the first 16
patches kept, the others left out (higher is better); one draw and one random model are
enough for these.

All of it is one trained model: no interval covers another training run.
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import torch
import torch.nn.functional as F
from ablation import ROOT, holm, interval
from scipy import stats
from torch import nn
from torch.utils.data import DataLoader

from going_modular.attention_maps import (
    attention_gradients,
    attention_relevance,
    attention_rollout,
    class_token_map,
)
from going_modular.checkpoint import load_checkpoint
from going_modular.data_setup import create_dataloaders, create_transform, load_folder
from going_modular.engine import train
from going_modular.multihead_attention import record_attention
from going_modular.optimization import create_optimizer
from going_modular.rendered_foods import draw_food_set
from going_modular.transfer import extract_features, freeze, replace_head
from going_modular.vit import create_vit
from helper_functions import get_foodvision_mini, set_seeds

SEED, PER_CLASS = 13_600, 200  # a seed of no other set of the course
GRID, PATCH = (8, 8), 8
PLACES = torch.cartesian_prod(torch.arange(8.0), torch.arange(8.0))  # (64, 2)
COUNTS = (4, 8, 16, 32, 48)  # of 64 patches
DRAWS, MODELS = 5, 3
WAYS = ("left out", "16 grey", "16 kept")  # the first one is the main way
RIVALS = ("at random", "middle first")
MAPS = (
    "rollout",
    "last layer",
    "pixels' gradient",
    "gradient times pixel",
    "last layer times gradient",
    "relevance",
)
CONTROLS = ("runner-up", "another image", "random model")
FAMILY = [(name, rival) for name in MAPS for rival in RIVALS]
FAMILY += [("middle first", "at random"), ("rollout", "last layer")]
FAMILY += [
    ("relevance", name) for name in MAPS if name not in ("last layer", "relevance")
]
FAMILY += [("relevance", name) for name in CONTROLS]


def trained_model() -> nn.Module:
    """The checkpoint with a new head for the three classes, as in lessons 13 to 13c."""
    model, _ = load_checkpoint()
    data = get_foodvision_mini()
    train_loader, _, classes = create_dataloaders(
        data / "train", data / "test", create_transform(**model.preprocessing), 32
    )
    replace_head(model, len(classes))
    freeze(model)
    set_seeds()
    features = extract_features(model, train_loader)
    set_seeds()
    optimizer = create_optimizer(model.head, lr=1e-3, weight_decay=1.0)
    batches = DataLoader(features, batch_size=32, shuffle=True)
    train(model.head, batches, None, optimizer, F.cross_entropy, 40, verbose=False)
    return model.eval()


def new_images(model: nn.Module) -> tuple[torch.Tensor, torch.Tensor]:
    """The drawn images, (600, 3, 64, 64), and their labels."""
    with tempfile.TemporaryDirectory() as folder:
        path = draw_food_set(Path(folder) / "new", 0, PER_CLASS, seed=SEED)
        dataset = load_folder(path / "test", create_transform(**model.preprocessing))
        pairs = list(DataLoader(dataset, batch_size=100))
    images, labels = map(torch.cat, zip(*pairs, strict=True))
    return images, labels


def in_batches(function, *tensors: torch.Tensor) -> torch.Tensor:
    """A function of tensors, 100 images at a time."""
    parts = zip(*(tensor.split(100) for tensor in tensors), strict=True)
    return torch.cat([function(*part) for part in parts])


def of_patches(tokens: torch.Tensor) -> torch.Tensor:
    """Row 0 of (n, 1, 65, 65), without the class token: (n, 64)."""
    return class_token_map(tokens, GRID)[:, 0].flatten(1)


def ranks(score: torch.Tensor) -> torch.Tensor:
    """0 for the largest of each row, and so on; chance decides among equals."""
    shuffled = torch.rand(score.shape).argsort(dim=1)  # (n, 64)
    order = score.gather(1, shuffled).argsort(dim=1, descending=True, stable=True)
    return shuffled.gather(1, order).argsort(dim=1)


def relevance(model, images, classes, last: bool = False) -> torch.Tensor:
    """Relevance of each patch (n, 64), by all layers or by the last one alone."""

    def values(x, chosen):
        weights, gradients = attention_gradients(model, x, chosen)
        start = -1 if last else 0
        return of_patches(attention_relevance(weights[start:], gradients[start:]))

    return in_batches(values, images, classes)


def scores(model, images, labels) -> tuple[dict[str, list], torch.Tensor]:
    """For each order the ranks of its draws, (n, 64) each, 0 first; predictions."""

    def without_gradient(x):
        with torch.no_grad(), record_attention(model) as maps:
            logits = model(x)  # (100, 3)
        last = maps[-1].mean(dim=1, keepdim=True)  # (100, 1, 65, 65)
        rollout = of_patches(attention_rollout(maps))  # (100, 64)
        return torch.cat([logits, rollout, of_patches(last)], dim=1)  # (100, 131)

    def pixels(x):
        x = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).max(dim=1).values.sum(), x)
        both = torch.stack([slope.abs(), slope * x.detach()], dim=1).sum(dim=2)
        return F.avg_pool2d(both, PATCH).flatten(2)  # (100, 2, 64)

    found = in_batches(without_gradient, images)
    logits, rollout, last = found.split([3, 64, 64], dim=1)
    predictions, runner_up = logits.argsort(dim=1, descending=True).T[:2]
    by_pixel = in_batches(pixels, images)  # (n, 2, 64)
    ours = relevance(model, images, predictions)  # (n, 64)
    neighbour = torch.arange(len(images))  # another image of the same class
    for label in labels.unique():
        same = (labels == label).nonzero().flatten()
        neighbour[same] = same.roll(1)
    set_seeds()
    random = [torch.rand(len(images), 64) for _ in range(DRAWS)]
    ties = [0.01 * torch.rand(len(images), 64) for _ in range(DRAWS)]
    models = []
    for seed in range(MODELS):
        set_seeds(seed)
        untrained = create_vit("vit_mini_8").eval()  # random weights, trained head
        untrained.head = model.head
        models.append(relevance(untrained, images, predictions))
    found = {
        "at random": random,
        "middle first": [tie - (PLACES - 3.5).norm(dim=1) for tie in ties],
        "rollout": [rollout],
        "last layer": [last],
        "pixels' gradient": [by_pixel[:, 0]],
        "gradient times pixel": [by_pixel[:, 1]],
        "last layer times gradient": [relevance(model, images, predictions, True)],
        "relevance": [ours],
        "runner-up": [relevance(model, images, runner_up)],
        "another image": [ours[neighbour]],
        "random model": models,
    }
    return {name: list(map(ranks, draws)) for name, draws in found.items()}, predictions


@torch.no_grad()
def right(model, images, labels, keep: torch.Tensor, way: str) -> torch.Tensor:
    """100 where the prediction is right with the patches `keep` (n, 64), else 0."""

    def predict(x, kept):
        if way == "16 grey":
            pixels = F.interpolate(kept.float().unflatten(1, (1, *GRID)), size=64)
            return model(x * pixels).argmax(dim=1)
        z = model.embedding(x)  # (100, 65, 192)
        patches = z[:, 1:][kept].unflatten(0, (len(x), -1))  # (100, few, 192)
        z = model.encoder(torch.cat([z[:, :1], patches], dim=1))
        return model.head(model.layer_norm(z[:, 0])).argmax(dim=1)

    return 100.0 * (in_batches(predict, images, keep) == labels)


def curve(model, images, labels, rank: torch.Tensor, way: str) -> torch.Tensor:
    """Percent right per image, over the counts: (5, n), or (1, n) of 16 patches."""
    if way == "16 kept":
        kept = [rank < 16]
    else:
        kept = [rank >= count for count in (COUNTS if way == WAYS[0] else (16,))]
    return torch.stack([right(model, images, labels, keep, way) for keep in kept])


def compare(first: torch.Tensor, second: torch.Tensor) -> dict:
    """The mean of first - second over images, with its interval."""
    values = (first - second).mean(dim=0).tolist()  # n
    test = stats.ttest_1samp(values, 0)
    p = float(test.pvalue)  # pyright: ignore[reportAttributeAccessIssue]
    return {"difference": statistics.mean(values), "interval": interval(values), "p": p}


def wilson(hits: int, n: int) -> list[float]:
    """The 95 % interval of a fraction, in percent."""
    found = stats.binomtest(hits, n).proportion_ci(method="wilson")
    return [100 * found.low, 100 * found.high]


def measure() -> dict:
    """Draws the images and tests all orders: the content of the stored file."""
    model = trained_model()
    images, labels = new_images(model)
    of = f"{len(images)} new images, one model"
    orders, predictions = scores(model, images, labels)
    hits = int((predictions == labels).sum())
    accuracy = {"hits": hits, "images": len(images), "mean": 100 * hits / len(images)}
    accuracy["interval"] = wilson(hits, len(images))
    # From here on products in bfloat16, where the processor has them: three times as
    # fast on ours, and the same for every order.
    torch.set_float32_matmul_precision("medium")
    curves, rows = {}, []
    for way in WAYS:
        found = {}  # per order: (5, n) or (1, n), a mean over its draws
        for name, draws in orders.items():
            draws = draws if way == WAYS[0] else draws[:1]
            each = [curve(model, images, labels, rank, way) for rank in draws]
            found[name] = torch.stack(each).mean(dim=0)
        curves[way] = {n: c.mean(dim=1).tolist() for n, c in found.items()}
        for first, second in FAMILY:
            row = {"first": first, "second": second, "way": way}
            rows.append(row | compare(found[first], found[second]) | {"of": of})
    main = [row for row in rows if row["way"] == WAYS[0]]
    adjusted = holm([row["p"] for row in main])
    for row, p in zip(main, adjusted, strict=True):
        row["p_holm"] = p
    stored = {"seed": SEED, "accuracy": accuracy, "counts": COUNTS}
    return stored | {"curves": curves, "rows": rows}


def rounded(value, digits: int = 2):
    """Numbers of nested lists and tables, short; p-values to two figures."""
    if isinstance(value, dict):
        return {
            k: float(f"{v:.2g}") if k in ("p", "p_holm") else rounded(v)
            for k, v in value.items()
        }
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    return round(value, digits) if isinstance(value, float) else value


def show(stored: dict) -> None:
    """Prints the stored comparisons."""
    accuracy = stored["accuracy"]
    low, high = accuracy["interval"]
    print(f"accuracy {accuracy['mean']:.1f} % ({low:.1f} … {high:.1f})", end=" ")
    print(f"of {accuracy['images']} new images")
    for row in stored["rows"]:
        low, high = row["interval"]
        line = f"{row['way']:8} {row['first']} - {row['second']}".ljust(56)
        line += f"{row['difference']:+6.2f} ({low:+.2f} … {high:+.2f})"
        if "p_holm" in row:
            verdict = "decided" if row["p_holm"] < 0.05 else "undecided"
            line += f"  Holm p {row['p_holm']:.2g}, {verdict}"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    path = ROOT / "benchmarks" / "maps_on_new_images.json"
    parser.add_argument("--json", type=Path, default=path, help="file for the results")
    parser.add_argument("--report", action="store_true", help="print the stored run")
    args = parser.parse_args()
    if not args.report:
        args.json.write_text(json.dumps(rounded(measure()), indent=1) + "\n")
    show(json.loads(args.json.read_text()))


if __name__ == "__main__":
    main()
