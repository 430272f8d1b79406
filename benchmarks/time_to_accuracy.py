"""Seconds to a given test accuracy: the naive recipe, ours, and transfer.

The clock runs for training alone; tests after each epoch (of cached features, after
every tenth) are not counted. Nothing is decided by them. Without --data on FoodVision
Mini.
"""

import argparse
import copy
import json
import time
from pathlib import Path

import torch
from ablation import NAIVE, RECIPE, Images
from torch import nn
from torch.utils.data import DataLoader
from torchvision.transforms import v2
from transfer import METHODS, decode

from going_modular.checkpoint import load_checkpoint
from going_modular.engine import test_step, train_step
from going_modular.optimization import create_optimizer, warmup_schedule
from going_modular.transfer import extract_features, replace_head
from going_modular.vit import create_vit
from helper_functions import find_pictures, get_foodvision_mini, set_seeds

HERE = Path(__file__).resolve().parent
BATCH = 32
TARGETS = (0.5, 0.6, 0.8)


def curve(model, loader, tests, settings, epochs, limit, every=1) -> list:
    """Trains up to a number of seconds; returns (seconds, test accuracy) pairs."""
    lr, decay = settings["lr"], settings["weight_decay"]
    if settings["optimizer"] == "Adam":
        optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=decay)
    else:
        optimizer = create_optimizer(model, lr, decay)
    steps = epochs * len(loader)
    warmup = round(settings["warmup"] * steps)
    schedule = warmup_schedule(optimizer, warmup, steps, settings["decay"])
    options = {"scheduler": schedule, "clip_norm": settings["clip_norm"]}
    loss_fn, spent, points = nn.CrossEntropyLoss(), 0.0, []
    for epoch in range(1, epochs + 1):
        start = time.perf_counter()
        train_step(model, loader, loss_fn, optimizer, "cpu", **options)
        spent += time.perf_counter() - start
        if epoch % every == 0:
            _, accuracy = test_step(model, tests, loss_fn, "cpu")
            points.append((round(spent, 2), accuracy))
        if spent > limit:
            break
    return points


def reached(points: list, target: float) -> float | None:
    """Seconds to the first test at or above the target."""
    return next((seconds for seconds, accuracy in points if accuracy >= target), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder or zip (default: FoodVision Mini)")
    parser.add_argument(
        "--limit", type=float, default=60, help="seconds per method (default: 60)"
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=HERE / "time_to_accuracy.json",
        help="file for the results (default: benchmarks/time_to_accuracy.json)",
    )
    args = parser.parse_args()
    folder = find_pictures(args.data) if args.data else get_foodvision_mini()
    start, metadata = load_checkpoint()
    own = metadata["preprocessing"]
    whole = own | {"crop_pct": None}
    plain, classes = decode(folder / "train", whole)
    cut, _ = decode(folder / "train", own)
    tests_whole, _ = decode(folder / "test", whole)
    tests_cut, _ = decode(folder / "test", own)
    crop = v2.RandomResizedCrop(own["img_size"], (0.5, 1.0), antialias=True)
    augment = v2.Compose([crop, v2.RandomHorizontalFlip()])
    points = {}
    for name, settings in (("naive", RECIPE | NAIVE), ("ours, from scratch", RECIPE)):
        set_seeds(0)
        changed = augment if settings["augment"] else None
        loader = DataLoader(Images(*plain.tensors, changed), BATCH, shuffle=True)
        model = create_vit("vit_mini_8", num_classes=len(classes))
        tests = DataLoader(tests_whole, 256)
        points[name] = curve(model, loader, tests, settings, 100, args.limit)
    set_seeds(0)
    began = time.perf_counter()
    model = copy.deepcopy(start)
    replace_head(model, len(classes))
    features = extract_features(model, DataLoader(cut, 256))
    extracting = time.perf_counter() - began
    cached = extract_features(model, DataLoader(tests_cut, 256))
    head = METHODS["frozen"]
    settings = RECIPE | {"lr": head["rates"][1], "weight_decay": head["weight_decay"]}
    loader, tests = DataLoader(features, BATCH, shuffle=True), DataLoader(cached, 256)
    found = curve(model.head, loader, tests, settings, head["epochs"], args.limit)
    points["transfer, cached features"] = [
        (round(extracting + seconds, 2), accuracy) for seconds, accuracy in found
    ]
    baseline = tests_whole.tensors[1].bincount().max().item() / len(tests_whole)
    stored = {"train_pictures": len(plain), "test_pictures": len(tests_whole)}
    stored |= {"baseline": baseline, "limit": args.limit, "targets": TARGETS}
    stored["methods"] = {}
    for name, found in points.items():
        times = {str(target): reached(found, target) for target in TARGETS}
        last = {"seconds": found[-1][0], "accuracy": found[-1][1]}
        stored["methods"][name] = {"reached": times, "end": last, "curve": found}
        print(name, times, f"end {last['accuracy']:.1%} in {last['seconds']:.0f} s")
    args.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
