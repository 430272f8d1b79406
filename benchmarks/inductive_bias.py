"""A CNN and a ViT on 30 to 1,000 training images, plain and with shuffled patches.

The ViT is compared with a CNN of as many parameters and with one of as many
floating-point operations; the larger CNN is also trained on images whose patches stand
in one fixed random order. For the ViT that order changes nothing (lesson A3 proves
it), so it has no runs of its own. Rates are chosen on validation images, for each
model and condition, from a grid that grows until the best is not at its edge. Each size
has its own number of steps; for the largest, the ViT and its equal CNN are trained
twice as long, too. Each run is a line of `inductive_bias_runs.jsonl`: interrupted, it
goes on where it was. `--report` prints stored runs; it draws, trains and writes
nothing.

Each seed has training images of its own, as far as there are enough. Of the drawn ones,
two seeds share 6 % of their 30, 10 % of their 100 and 31 % of their 300. In the stored
runs with 1,000 drawn images all five seeds share 992 of them: those intervals are over
seeds alone. New runs take 300 of the 1,000 from the common images, and draw 700 more
for each seed; they have "own_images" in their line.
"""

import argparse
import itertools
import json
import statistics
import time
from pathlib import Path

import torch
from ablation import BUILD, MIDDLE, ROOT, holm, interval, predict
from scipy import stats
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader, RandomSampler, TensorDataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision.transforms import v2

from going_modular.data_setup import create_transform, load_folder
from going_modular.engine import train
from going_modular.optimization import create_optimizer, warmup_schedule
from going_modular.pretrain import load_images
from going_modular.rendered_foods import draw_food_set
from going_modular.small_cnn import SmallCNN, equal_vit, shuffle_patches
from helper_functions import set_seeds

RUNS = ROOT / "benchmarks" / "inductive_bias_runs.jsonl"
SIDE, PATCH, BATCH = 32, 4, 32
STEPS = {30: 300, 100: 600, 300: 1000, 1000: 1500}  # by number of training images
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
FIRST_RATES = (2, 3)  # indices; more are tried while the best is at an edge
TUNED_SIZE = 300
TUNING_SEEDS = (100, 101)
DRAWN_SEED, VAL, TEST = 31_030, 300, 600  # images in all
OWN_SEED = 32_000  # plus the seed of a run: 700 of its 1,000 drawn images
CLASSES = 10  # of photographs
MODELS = {
    "ViT": equal_vit,
    "CNN": SmallCNN,
    "CNN, shuffled": SmallCNN,
    "CNN of equal FLOPs": lambda classes: SmallCNN(classes, width=21),
}
LONGER = ("ViT", "CNN")
COMPARED = [
    ("CNN", "ViT"),
    ("CNN of equal FLOPs", "ViT"),
    ("CNN", "CNN, shuffled"),
    ("CNN, shuffled", "ViT"),
]


class Images(TensorDataset):
    """Images (n, 3, 32, 32) in -1 … 1, cropped and mirrored, then shuffled."""

    def __init__(self, images, labels, order=None, augment=False) -> None:
        super().__init__(images, labels)
        crop = v2.RandomResizedCrop(SIDE, (0.5, 1.0), antialias=True)
        changing = v2.Compose([crop, v2.RandomHorizontalFlip()])
        self.augment = changing if augment else nn.Identity()
        self.order = order

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = super().__getitem__(i)
        image = self.augment(image)
        if self.order is not None:
            image = shuffle_patches(image[None], PATCH, self.order)[0]
        return image, label


def rendered() -> tuple[torch.Tensor, torch.Tensor]:
    """Draws three classes; returns images (n, 3, 32, 32) and labels."""
    folder, each = BUILD / "inductive_bias", (max(STEPS) + VAL + TEST + 2) // 3
    if not folder.is_dir():
        print(f"drawing {3 * each} images")
        draw_food_set(folder, each, 0, seed=DRAWN_SEED)
    found = load_folder(folder / "train", create_transform(SIDE, MIDDLE, MIDDLE))
    images, labels = zip(*found, strict=True)
    return torch.stack(images), torch.tensor(labels)


def own_images(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Draws what a seed has beyond the common images: (700, 3, 32, 32) and labels."""
    *_, before, largest = STEPS
    count, folder = largest - before, BUILD / f"inductive_bias_{seed}"
    if not folder.is_dir():
        print(f"drawing {count} images for seed {seed}")
        draw_food_set(folder, -(-count // 3), 0, seed=OWN_SEED + seed)
    found = load_folder(folder / "train", create_transform(SIDE, MIDDLE, MIDDLE))
    images, labels = zip(*found, strict=True)  # class by class
    mixed = torch.arange(len(labels)).view(3, -1).T.flatten()[:count]
    return torch.stack(images)[mixed], torch.tensor(labels)[mixed]


def photographs(sources: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Takes ten classes of photographs from folders or zips with CLASS/FILE."""
    images, labels, classes = load_images(sources, SIDE)
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(0))
    chosen = sorted(order[:CLASSES].tolist())
    print("classes:", ", ".join(classes[i] for i in chosen))
    keep = torch.isin(labels, torch.tensor(chosen))
    labels = torch.tensor([chosen.index(label) for label in labels[keep].tolist()])
    return images[keep].float() / 127.5 - 1, labels


def parts(labels: torch.Tensor, seed: int) -> dict:
    """Balanced indices: test and validation are the same for each seed."""
    classes = int(labels.max()) + 1
    pools = []
    for label in range(classes):
        members = torch.nonzero(labels == label).flatten()
        fixed = torch.randperm(len(members), generator=torch.Generator().manual_seed(0))
        pools.append(members[fixed])
    val, test = VAL // classes, TEST // classes
    found: dict = {"test": [pool[:test] for pool in pools]}
    found["validation"] = [pool[test : test + val] for pool in pools]
    shuffled = []
    for pool in pools:
        rest = pool[test + val :]
        generator = torch.Generator().manual_seed(1 + seed)
        shuffled.append(rest[torch.randperm(len(rest), generator=generator)])
    for size in STEPS:  # each size holds the smaller ones
        counts = [size // classes + (i < size % classes) for i in range(classes)]
        found[size] = [s[:n] for s, n in zip(shuffled, counts, strict=True)]
    return {name: torch.cat(rows).tolist() for name, rows in found.items()}


def run(name: str, lr: float, train_set: Images, measured: Images, steps: int) -> float:
    """Trains for a number of steps; percent of the measured images that are right."""
    classes = int(train_set.tensors[1].max()) + 1
    model = MODELS[name](classes)
    model = model.to(memory_format=torch.channels_last)  # faster convolutions
    sampler = RandomSampler(train_set, num_samples=steps * BATCH)
    loader = DataLoader(train_set, BATCH, sampler=sampler)
    optimizer = create_optimizer(model, lr)
    scheduler = warmup_schedule(optimizer, steps // 10, steps)
    train(
        model,
        loader,
        None,
        optimizer,
        nn.CrossEntropyLoss(),
        scheduler=scheduler,
        clip_norm=1.0,
        verbose=False,
    )
    images = torch.stack([image for image, _ in measured])
    return 100 * (predict(model, images) == measured.tensors[1]).float().mean().item()


def describe(names: list[str], classes: int) -> dict:
    """Parameters and operations (one image, forward) of each model."""
    found = {}
    for name in names:
        model = MODELS[name](classes)
        # The counter does not know the fused attention of a CPU.
        with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(torch.zeros(1, 3, SIDE, SIDE))
        found[name] = {
            "parameters": sum(p.numel() for p in model.parameters()),
            "mega_flops": round(counter.get_total_flops() / 1e6, 1),
        }
    return found


class Experiment:
    """The runs of one kind of images: those that are stored, and new ones.

    Without images there are only the stored ones.
    """

    def __init__(self, kind: str, images, labels, path: Path) -> None:
        self.kind, self.images, self.labels, self.path = kind, images, labels, path
        self.order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
        lines = path.read_text().splitlines() if path.is_file() else []
        entries = [json.loads(line) for line in lines]
        self.done = {}
        for entry in entries:
            accuracy = entry.pop("accuracy")
            self.done[json.dumps(entry)] = accuracy
        of_kind = [entry for entry in entries if entry["kind"] == kind]
        # Are the images of 1,000 the seed's own? Not in the stored runs.
        self.own = kind == "rendered" and (
            images is not None or any("own_images" in entry for entry in of_kind)
        )
        # Without images: the sizes and models that were run.
        tests = [entry for entry in of_kind if entry["split"] == "test"]
        tested = {entry["images"] for entry in tests}
        self.steps = {n: STEPS[n] for n in STEPS if images is not None or n in tested}
        tested = {entry["model"] for entry in tests}
        self.models = [n for n in MODELS if images is not None or n in tested]

    def training_set(self, size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Images (size, 3, 32, 32) and labels of a seed."""
        index = parts(self.labels, seed)
        if not (self.own and size == max(STEPS)):
            return self.images[index[size]], self.labels[index[size]]
        *_, before, _ = STEPS
        both = zip(self.training_set(before, seed), own_images(seed), strict=True)
        images, labels = map(torch.cat, both)
        return images, labels

    def measure(self, name, lr, size, seed, split, steps: int = 0) -> float:
        """Percent of the images of a split; trains unless that run is stored."""
        steps = steps or STEPS[size]
        entry = {"kind": self.kind, "model": name, "lr": lr, "images": size}
        entry |= {"steps": steps, "seed": seed, "split": split}
        if self.own and size == max(STEPS):
            entry["own_images"] = True
        key = json.dumps(entry)
        if key not in self.done and self.images is None:
            raise SystemExit(f"no run is stored yet of {key}")
        if key not in self.done:
            start = time.perf_counter()
            order = self.order if name.endswith("shuffled") else None
            fitted = Images(*self.training_set(size, seed), order, True)
            chosen = parts(self.labels, seed)[split]
            measured = Images(self.images[chosen], self.labels[chosen], order)
            set_seeds(seed)
            accuracy = round(run(name, lr, fitted, measured, steps), 3)
            with self.path.open("a") as file:
                file.write(json.dumps(entry | {"accuracy": accuracy}) + "\n")
            self.done[key] = accuracy
            spent = time.perf_counter() - start
            print(*entry.values(), f"{accuracy:.1f} % {spent:.0f} s", flush=True)
        return self.done[key]

    def choose_rate(self, name: str) -> tuple[float, dict[float, float]]:
        """The rate with the best mean validation accuracy, between two others."""
        means: dict[float, float] = {}
        low, high = FIRST_RATES
        while True:
            for rate in RATES[low : high + 1]:
                means[rate] = statistics.mean(
                    self.measure(name, rate, TUNED_SIZE, seed, "validation")
                    for seed in TUNING_SEEDS
                )
            best = max(means, key=means.__getitem__)
            if RATES[low] < best < RATES[high]:
                return best, {rate: round(means[rate], 2) for rate in sorted(means)}
            low -= best == RATES[low]
            high += best == RATES[high]
            if low < 0 or high == len(RATES):
                raise RuntimeError(f"{name} is best at an end of RATES: add one there")


def table(accuracies: dict, seeds: list[int]) -> tuple[list[dict], list[dict]]:
    """Rows of means, and paired differences with 95 % intervals and Holm's p-values."""
    rows, pairs, p_values = [], [], []
    sizes = sorted({size for _, size, _ in accuracies})
    names = [n for n in MODELS if any(n == name for name, _, _ in accuracies)]
    compared = [pair for pair in COMPARED if set(pair) <= set(names)]
    for name, size in itertools.product(names, sizes):
        values = [accuracies[name, size, seed] for seed in seeds]
        low, high = interval(values)
        row = {"model": name, "images": size, "mean": round(statistics.mean(values), 2)}
        row |= {"interval": [round(low, 2), round(high, 2)], "accuracies": values}
        rows.append(row)
    for (first, second), size in itertools.product(compared, sizes):
        # One seed draws the same training images for both.
        values = [
            accuracies[first, size, seed] - accuracies[second, size, seed]
            for seed in seeds
        ]
        low, high = interval(values)
        pair = {"first": first, "second": second, "images": size}
        pair |= {"difference": round(statistics.mean(values), 2)}
        pairs.append(pair | {"interval": [round(low, 2), round(high, 2)]})
        test = stats.ttest_1samp(values, 0)
        p_values.append(float(test.pvalue))  # pyright: ignore[reportAttributeAccessIssue]
    for pair, p in zip(pairs, holm(p_values), strict=True):
        pair["p_holm"] = float(f"{p:.2g}")
    return rows, pairs


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--data", nargs="+", help="folders or zips (default: rendered)")
    parser.add_argument(
        "--seeds", type=int, default=5, help="number of seeds, 2 or more (default: 5)"
    )
    parser.add_argument(
        "--runs", type=Path, default=RUNS, help=f"a line a run (default: {RUNS.name})"
    )
    parser.add_argument("--json", type=Path, help="file for the table")
    parser.add_argument(
        "--sizes",
        nargs="+",
        type=int,
        choices=STEPS,
        help="numbers of training images (default: all)",
    )
    parser.add_argument(
        "--models", nargs="+", choices=MODELS, help="their names (default: all)"
    )
    parser.add_argument(
        "--report",
        nargs="?",
        const="rendered",
        choices=("rendered", "photographs"),
        help="print the stored runs, of drawn images if none are named, and end",
    )
    args = parser.parse_args()
    if args.report:
        kind, images, labels = args.report, None, None
        classes = 3 if kind == "rendered" else CLASSES
    else:
        kind = "photographs" if args.data else "rendered"
        images, labels = photographs(args.data) if args.data else rendered()
        classes = int(labels.max()) + 1
    experiment = Experiment(kind, images, labels, args.runs)
    if args.sizes:
        experiment.steps = {size: STEPS[size] for size in sorted(args.sizes)}
    if args.models:
        experiment.models = args.models
    rates, validation = {}, {}
    for name in experiment.models:
        rates[name], validation[name] = experiment.choose_rate(name)
    seeds = list(range(args.seeds))
    accuracies = {
        (name, size, seed): experiment.measure(name, rates[name], size, seed, "test")
        for seed, size, name in itertools.product(
            seeds, experiment.steps, experiment.models
        )
    }
    longer = []  # has training come to an end? Fewest epochs, validation images
    size, seed = max(experiment.steps), TUNING_SEEDS[0]
    for name in [n for n in LONGER if n in experiment.models]:
        once, twice = (
            experiment.measure(name, rates[name], size, seed, "validation", steps)
            for steps in (STEPS[size], 2 * STEPS[size])
        )
        longer.append({"model": name, "images": size, "once": once, "twice": twice})
    rows, pairs = table(accuracies, seeds)
    for row in rows:
        low, high = row["interval"]
        print(f"{row['model']:18} {row['images']:4} images", end="  ")
        print(f"{row['mean']:5.1f} % ({low:.1f} … {high:.1f})")
    for pair in pairs:
        low, high = pair["interval"]
        print(f"{pair['first']} - {pair['second']}, {pair['images']} images:", end=" ")
        print(f"{pair['difference']:+.1f} ({low:+.1f} … {high:+.1f})", end=" ")
        print(f"Holm p {pair['p_holm']:.2g}")
    if kind == "rendered" and not experiment.own:
        print(
            "With 1,000 images the seeds share 992: those intervals are over seeds",
            end=" ",
        )
        print("alone. The others are over training images, too.")
    if args.report and not args.json:
        return
    stored = {"images": kind, "classes": classes, "seeds": seeds}
    stored |= {
        "train_steps": experiment.steps,
        "batch": BATCH,
        "models": describe(experiment.models, classes),
    }
    stored |= {"validation_images": VAL, "test_images": TEST, "rates": rates}
    stored |= {"validation": validation, "twice_the_steps": longer}
    stored |= {"rows": rows, "comparisons": pairs}
    path = args.json or ROOT / f"benchmarks/inductive_bias_{kind}.json"
    path.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
