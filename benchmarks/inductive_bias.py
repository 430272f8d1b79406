"""A small CNN and a ViT of equal size, on 30 to 1,000 training images.

Both also with the patches of every image in one fixed random order. Test images
are drawn for this purpose; the learning rates are chosen on validation images. With
--data, on photographs: ten classes, drawn with seed 0. Finished runs are kept in
`build/`: interrupted, it goes on where it was.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from ablation import BUILD, MIDDLE, ROOT, interval
from torch import nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset
from torchvision.transforms import v2

from going_modular.data_setup import create_transform, load_folder
from going_modular.engine import test_step, train
from going_modular.optimization import create_optimizer, warmup_schedule
from going_modular.pretrain import load_images
from going_modular.rendered_foods import draw_food_set
from going_modular.small_cnn import SmallCNN, equal_vit, shuffle_patches
from helper_functions import set_seeds

SIDE, PATCH, BATCH = 32, 4, 32
SIZES = (30, 100, 300, 1000)
RATES = (3e-4, 1e-3, 3e-3)
DRAWN_SEED, VAL, TEST = 31_030, 300, 600  # images in all
CLASSES = 10  # of photographs


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
    folder, each = BUILD / "inductive_bias", (max(SIZES) + VAL + TEST + 2) // 3
    if not folder.is_dir():
        print(f"drawing {3 * each} pictures")
        draw_food_set(folder, each, 0, seed=DRAWN_SEED)
    found = load_folder(folder / "train", create_transform(SIDE, MIDDLE, MIDDLE))
    images, labels = zip(*found, strict=True)
    return torch.stack(images), torch.tensor(labels)


def photographs(sources: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """Takes ten classes of photographs from folders or zips with CLASS/FILE."""
    images, labels, classes = load_images(sources, SIDE)
    order = torch.randperm(len(classes), generator=torch.Generator().manual_seed(0))
    chosen = sorted(order[:CLASSES].tolist())
    print("classes:", ", ".join(classes[i] for i in chosen))
    keep = torch.isin(labels, torch.tensor(chosen))
    labels = torch.tensor([chosen.index(label) for label in labels[keep].tolist()])
    return images[keep].float() / 127.5 - 1, labels


def parts(labels: torch.Tensor, seed: int) -> dict[str, list[int]]:
    """Balanced indices: test and validation are the same for each seed."""
    classes = int(labels.max()) + 1
    pools = []
    for label in range(classes):
        members = torch.nonzero(labels == label).flatten()
        fixed = torch.randperm(len(members), generator=torch.Generator().manual_seed(0))
        pools.append(members[fixed])
    val, test = VAL // classes, TEST // classes
    found = {"test": [pool[:test] for pool in pools]}
    found["val"] = [pool[test : test + val] for pool in pools]
    shuffled = []
    for pool in pools:
        rest = pool[test + val :]
        generator = torch.Generator().manual_seed(1 + seed)
        shuffled.append(rest[torch.randperm(len(rest), generator=generator)])
    for size in SIZES:  # each size holds the smaller ones
        counts = [size // classes + (i < size % classes) for i in range(classes)]
        found[size] = [s[:n] for s, n in zip(shuffled, counts, strict=True)]
    return {name: torch.cat(rows).tolist() for name, rows in found.items()}


def run(model, lr, train_set, test_set, steps, seed) -> float:
    """Trains for a number of steps and returns the accuracy on the other set."""
    set_seeds(seed)
    classes = int(train_set.tensors[1].max()) + 1
    model = SmallCNN(classes) if model == "CNN" else equal_vit(classes)
    model = model.to(memory_format=torch.channels_last)  # faster convolutions
    sampler = RandomSampler(train_set, replacement=False, num_samples=steps * BATCH)
    loader = DataLoader(train_set, BATCH, sampler=sampler)
    optimizer = create_optimizer(model, lr)
    scheduler = warmup_schedule(optimizer, steps // 10, steps)
    options = {"scheduler": scheduler, "clip_norm": 1.0, "verbose": False}
    loss_fn = nn.CrossEntropyLoss()
    train(model, loader, None, optimizer, loss_fn, 1, **options)
    return test_step(model, DataLoader(test_set, 200), loss_fn, "cpu")[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", nargs="+", help="folders or zips (default: rendered)")
    parser.add_argument(
        "--seeds", type=int, default=5, help="number of seeds, 2 or more (default: 5)"
    )
    parser.add_argument("--steps", type=int, default=300, help="default: 300")
    parser.add_argument("--json", type=Path, help="file for the results")
    args = parser.parse_args()
    kind = "photographs" if args.data else "rendered"
    images, labels = photographs(args.data) if args.data else rendered()
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    log = BUILD / f"inductive_bias_{kind}.jsonl"
    BUILD.mkdir(exist_ok=True)
    lines = log.read_text().splitlines() if log.is_file() else []
    done = {json.dumps(e["run"]): e["accuracy"] for e in map(json.loads, lines)}

    def measure(model, lr, size, shuffled, seed, on) -> float:
        name = [model, lr, size, shuffled, seed, on, args.steps]
        if json.dumps(name) not in done:
            start, index = time.perf_counter(), parts(labels, seed)
            this = order if shuffled else None
            fit = Images(images[index[size]], labels[index[size]], this, augment=True)
            other = Images(images[index[on]], labels[index[on]], this)
            accuracy = run(model, lr, fit, other, args.steps, seed)
            done[json.dumps(name)] = accuracy
            with log.open("a") as file:
                file.write(json.dumps({"run": name, "accuracy": accuracy}) + "\n")
            seconds = time.perf_counter() - start
            print(*name, f"{accuracy:.1%} {seconds:.0f} s", flush=True)
        return done[json.dumps(name)]

    rates, tried = {}, {}
    for model in ("CNN", "ViT"):
        found = {lr: measure(model, lr, 300, False, 0, "val") for lr in RATES}
        rates[model], tried[model] = max(found, key=found.get), list(found.values())
    rows = []
    for seed in range(args.seeds):
        for size in SIZES:
            for model in ("CNN", "ViT"):
                for shuffled in (False, True):
                    measure(model, rates[model], size, shuffled, seed, "test")
    for model in ("CNN", "ViT"):
        for shuffled in (False, True):
            for size in SIZES:
                values = [
                    100 * measure(model, rates[model], size, shuffled, seed, "test")
                    for seed in range(args.seeds)
                ]
                row = {"model": model, "shuffled": shuffled, "pictures": size}
                row["mean"] = round(statistics.mean(values), 2)
                row["interval"] = [round(v, 2) for v in interval(values)]
                row["accuracies"] = [round(v, 2) for v in values]
                rows.append(row)
                print(model, shuffled, size, row["mean"], row["interval"])
    stored = {"pictures": kind, "seeds": list(range(args.seeds)), "steps": args.steps}
    stored |= {"classes": int(labels.max()) + 1, "test_pictures": TEST}
    stored |= {"rates": rates, "rates_tried": RATES, "validation": tried, "rows": rows}
    path = args.json or ROOT / f"benchmarks/inductive_bias_{kind}.json"
    path.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
