"""What is pre-training worth? From scratch, frozen, fine-tuned, on one dataset.

Runs on any folder or zip with train/CLASS/*.jpg and test/CLASS/*.jpg. The learning rate
of each method is chosen by cross-validation on the training images, from as many rates,
and from more if the best is the smallest or the largest. The test images are used once,
after the last epoch. Each run is a line of `transfer_runs.jsonl`: interrupted, it goes
on where it was; when every run is there it trains nothing and prints the table.

All seeds have the same training and test images, and most images get the same answer
from all of them. So intervals are over test images and seeds (a bootstrap): over seeds
alone, nearly the same model would be counted five times. The training images are one
draw, which no interval covers.
"""

import argparse
import copy
import json
import os
import statistics
import time
from pathlib import Path

import torch
from ablation import predict
from scipy import stats
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from going_modular.checkpoint import load_checkpoint
from going_modular.data_setup import create_transform, load_folder
from going_modular.engine import train
from going_modular.optimization import create_optimizer, warmup_schedule
from going_modular.transfer import extract_features, freeze, replace_head
from going_modular.vit import ViT, create_vit
from helper_functions import get_foodvision_mini, set_seeds

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "benchmarks" / "transfer_runs.jsonl"
TABLE = ROOT / "benchmarks" / "transfer.json"
BATCH = 32
FOLDS = 5
# Epochs and weight decay are fixed; the rates are those to begin with, a factor of 3
# apart.
METHODS = {
    "scratch": {"epochs": 100, "weight_decay": 0.05, "rates": [1.5e-4, 5e-4, 1.5e-3]},
    "frozen": {"epochs": 60, "weight_decay": 1.0, "rates": [3e-4, 1e-3, 3e-3]},
    "fine_tuned": {"epochs": 20, "weight_decay": 0.05, "rates": [1e-5, 3e-5, 1e-4]},
}


class Augmented(TensorDataset):
    """Decoded images with a random crop and flip each time."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, crop: float) -> None:
        super().__init__(images, labels)
        size = images.shape[2:]
        self.augment = v2.Compose(
            [
                v2.RandomResizedCrop(size, (crop, 1.0), (0.8, 1.25)),
                v2.RandomHorizontalFlip(),
            ]
        )

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = super().__getitem__(i)
        return self.augment(image), label


def decode(folder: Path, preprocessing: dict) -> tuple[TensorDataset, list[str]]:
    """Reads all images of a folder once: images (n, 3, H, W) and labels (n,)."""
    found = load_folder(folder, create_transform(**preprocessing))
    images, labels = zip(*found, strict=True)
    return TensorDataset(torch.stack(images), torch.tensor(labels)), found.classes


def fit(model: nn.Module, data: TensorDataset, method: str, lr: float) -> None:
    """Trains with AdamW, warm-up, cosine and clipping."""
    epochs, decay = METHODS[method]["epochs"], METHODS[method]["weight_decay"]
    loader = DataLoader(data, BATCH, shuffle=True)
    optimizer = create_optimizer(model, lr, decay)
    steps = epochs * len(loader)
    train(
        model,
        loader,
        None,
        optimizer,
        nn.CrossEntropyLoss(),
        epochs,
        scheduler=warmup_schedule(optimizer, steps // 10, steps),
        clip_norm=1.0,
        verbose=False,
    )


def from_scratch(data: TensorDataset, classes: int, size: int, lr: float) -> ViT:
    model = create_vit("vit_mini_8", img_size=size, num_classes=classes)
    fit(model, Augmented(*data.tensors, crop=0.5), "scratch", lr)
    return model


def frozen(start: ViT, data: TensorDataset, classes: int, lr: float) -> ViT:
    """A linear head on features of the images and of their horizontal flips."""
    model = copy.deepcopy(start)
    replace_head(model, classes)
    images, labels = data.tensors
    both = TensorDataset(torch.cat([images, images.flip(3)]), labels.repeat(2))
    fit(model.head, extract_features(model, DataLoader(both, 256)), "frozen", lr)
    freeze(model)
    return model


def fine_tuned(head: ViT, data: TensorDataset, lr: float) -> ViT:
    """All weights, beginning with the head that the frozen features trained."""
    model = copy.deepcopy(head)
    model.requires_grad_(True)
    fit(model, Augmented(*data.tensors, crop=0.5), "fine_tuned", lr)
    return model


def correct(model: nn.Module, data: TensorDataset) -> str:
    """One digit an image: 1 where the prediction is the label."""
    images, labels = data.tensors
    return "".join(map(str, (predict(model, images) == labels).int().tolist()))


def accuracy(run: dict) -> float:
    """Percent of the images of a stored run that got their label."""
    return 100 * run["correct"].count("1") / len(run["correct"])


def bootstrap(
    a: torch.Tensor, b: torch.Tensor | None = None, times: int = 4000
) -> list[float]:
    """95 % interval of the mean of a, minus that of b, in percentage points.

    Test images and seeds are drawn again, with repetition; a and b have the same
    images and seeds of their own.

    Args:
        a: (seeds, images), 1 where a run got an image right.
        b: the same of another method, or None.
    """
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(a.shape[1], (times, 1, a.shape[1]), generator=draw)
    means = torch.zeros(times)
    for sign, hits in ((100, a), (-100, b)):
        if hits is not None:
            seeds = torch.randint(len(hits), (times, len(hits), 1), generator=draw)
            means += sign * hits[seeds, images].mean(dim=(1, 2))
    low, high = means.quantile(torch.tensor([0.025, 0.975])).tolist()
    return [round(low, 2), round(high, 2)]


def difference(a: torch.Tensor, b: torch.Tensor) -> dict:
    """The gain of a over b, and on how many images most seeds of one alone are right.

    These two numbers have a p-value by McNemar's exact test.
    """
    mean, interval = 100 * (a.mean() - b.mean()).item(), bootstrap(a, b)
    most_a, most_b = a.mean(dim=0) > 0.5, b.mean(dim=0) > 0.5  # (images,)
    won, lost = (most_a & ~most_b).sum().item(), (most_b & ~most_a).sum().item()
    p = stats.binomtest(int(won), int(won + lost)).pvalue if won + lost else 1.0
    found = {"mean": round(mean, 2), "interval": interval, "won": won, "lost": lost}
    return found | {"p": float(f"{p:.2g}")}


def folds(labels: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Indices to train and to measure with; each class spread evenly over the folds."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    order = order[labels[order].argsort(stable=True)]  # class by class
    fold = torch.arange(len(labels)) % FOLDS
    return [(order[fold != k], order[fold == k]) for k in range(FOLDS)]


def part(data: TensorDataset, indices: torch.Tensor) -> TensorDataset:
    return TensorDataset(*(tensor[indices] for tensor in data.tensors))


class Experiment:
    """Runs what no line of the file holds yet.

    Args:
        start: pre-trained model.
        whole: training images, to be cropped at random.
        plain: the same with the checkpoint's own transform.
        test: test images, with the latter.
        path: file with a line a run.
    """

    def __init__(self, start, whole, plain, test, classes: int, path: Path) -> None:
        self.start, self.whole, self.plain, self.test = start, whole, plain, test
        self.classes, self.path = classes, path
        lines = path.read_text().splitlines() if path.is_file() else []
        self.runs = [json.loads(line) for line in lines]
        self.heads: dict = {}  # fine-tuning begins with a head trained before

    def model(self, method: str, lr: float, train_on, seed: int, head_lr) -> ViT:
        whole, plain = part(self.whole, train_on), part(self.plain, train_on)
        if method == "fine_tuned":
            key = (seed, head_lr, len(plain))
            if key not in self.heads:
                self.heads[key] = self.model("frozen", head_lr, train_on, seed, None)
        set_seeds(seed)
        if method == "scratch":
            size = self.start.preprocessing["img_size"]
            return from_scratch(whole, self.classes, size, lr)
        if method == "frozen":
            return frozen(self.start, plain, self.classes, lr)
        return fine_tuned(self.heads[key], whole, lr)

    def once(self, split, method, lr, seed, train_on, measured, head_lr) -> dict:
        """A stored run, or a new one, with "correct" and "seconds"."""
        entry = {"split": split, "method": method, "lr": lr, "seed": seed}
        for run in self.runs:
            if all(run[key] == value for key, value in entry.items()):
                return run
        start = time.perf_counter()
        model = self.model(method, lr, train_on, seed, head_lr)
        entry["seconds"] = round(time.perf_counter() - start, 1)
        entry["correct"] = correct(model, measured)
        with self.path.open("a") as file:
            file.write(json.dumps(entry) + "\n")
        self.runs.append(entry)
        print(f"{split} {method:11} {lr:g} seed {seed}", end=" ")
        print(f"{accuracy(entry):.1f} % {entry['seconds']:.0f} s", flush=True)
        return entry

    def cross_validate(self, method: str, lr: float, head_lr: float | None) -> float:
        """Mean accuracy over the folds; the seed of each is its number."""
        found = []
        for k, (train_on, held_out) in enumerate(folds(self.plain.tensors[1])):
            measured = part(self.plain, held_out)
            args = ("fold", method, lr, 100 + k, train_on, measured, head_lr)
            found.append(accuracy(self.once(*args)))
        return statistics.mean(found)

    def choose_rate(self, method: str, head_lr: float | None) -> dict[float, float]:
        """Accuracy of each rate, until the best has a neighbour on either side."""
        found = {
            lr: self.cross_validate(method, lr, head_lr)
            for lr in METHODS[method]["rates"]
        }
        while True:
            rates = sorted(found)
            best = max(rates, key=found.__getitem__)
            if rates[0] < best < rates[-1] or len(rates) > 6:
                return dict(sorted(found.items()))
            lr = float(f"{best / 3 if best == rates[0] else best * 3:.2g}")
            found[lr] = self.cross_validate(method, lr, head_lr)


def report(stored: dict) -> None:
    """Prints a table; all intervals are over test images and seeds."""
    print(f"over {stored['test_images']} test images and {len(stored['seeds'])} seeds:")
    for name, row in stored["methods"].items():
        low, high = row["interval"]
        print(f"{name:11} {row['lr']:g} {row['mean']:.1f} % ({low:.1f} … {high:.1f})")
    for name, row in stored["methods"].items():
        for key, gain in row.items():
            if key.startswith("over_"):
                low, high = gain["interval"]
                print(f"{name} - {key[5:]}: {gain['mean']:+.1f}", end=" ")
                print(f"({low:+.1f} … {high:+.1f});", end=" ")
                print(f"by most seeds {gain['won']} images won, {gain['lost']} lost,")
                print(f"  McNemar p {gain['p']:.2g}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder or zip (default: FoodVision Mini)")
    parser.add_argument(
        "--seeds", type=int, default=5, help="number of seeds, 2 or more (default: 5)"
    )
    parser.add_argument("--json", type=Path, help="file for the table")
    parser.add_argument(
        "--runs", type=Path, default=RUNS, help=f"a line a run (default: {RUNS.name})"
    )
    parser.add_argument("--checkpoint", help="default: the course's checkpoint")
    parser.add_argument(
        "--report", action="store_true", help="print the stored table, and end"
    )
    args = parser.parse_args()
    if args.report:
        return report(json.loads((args.json or TABLE).read_text()))
    if args.data:
        os.environ["VIT_COURSE_DATA"] = args.data
    folder = get_foodvision_mini()
    start, metadata = load_checkpoint(args.checkpoint)
    own = metadata["preprocessing"]
    plain, classes = decode(folder / "train", own)
    whole, _ = decode(folder / "train", own | {"crop_pct": None})
    test, _ = decode(folder / "test", own)
    baseline = test.tensors[1].bincount().max().item() / len(test)
    print(f"{len(plain)} training, {len(test)} test images, baseline {baseline:.1%}")
    experiment = Experiment(start, whole, plain, test, len(classes), args.runs)
    stored = {"train_images": len(plain), "test_images": len(test)}
    stored |= {"baseline": baseline, "seeds": list(range(args.seeds)), "methods": {}}
    everything, head_lr, hits = torch.arange(len(plain)), None, {}
    for method in METHODS:
        rates = experiment.choose_rate(method, head_lr)
        lr = max(rates, key=rates.__getitem__)
        if method == "frozen":
            head_lr = lr
        runs = [
            experiment.once("test", method, lr, seed, everything, test, head_lr)
            for seed in range(args.seeds)
        ]
        hits[method] = torch.tensor([list(map(float, run["correct"])) for run in runs])
        stored["methods"][method] = {
            "lr": lr,
            "cross_validation": {f"{r:g}": round(a, 2) for r, a in rates.items()},
            "mean": round(100 * hits[method].mean().item(), 2),
            "interval": bootstrap(hits[method]),
            "accuracies": [round(accuracy(run), 2) for run in runs],
            "seconds": [run["seconds"] for run in runs],
        }
    of = f"{len(test)} test images and {args.seeds} seeds"
    for name, before in (("frozen", "scratch"), ("fine_tuned", "frozen")):
        gain = difference(hits[name], hits[before]) | {"of": of}
        stored["methods"][name][f"over_{before}"] = gain
    report(stored)
    if args.json:
        args.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
