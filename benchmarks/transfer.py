"""What is pre-training worth? From scratch, frozen, fine-tuned, on one dataset.

Runs on any folder or zip with train/CLASS/*.jpg and test/CLASS/*.jpg. The rates of
both transfers were chosen by cross-validation on the training images; from scratch is
lesson 11's recipe, for longer. The test images are used once, after the last epoch.
"""

import argparse
import copy
import json
import os
import statistics
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from going_modular.checkpoint import load_checkpoint
from going_modular.data_setup import create_transform, load_folder
from going_modular.engine import test_step, train
from going_modular.optimization import create_optimizer, warmup_schedule
from going_modular.transfer import extract_features, freeze, replace_head
from going_modular.vit import ViT, create_vit
from helper_functions import get_foodvision_mini, set_seeds

BATCH = 32
SCRATCH = {"epochs": 100, "lr": 5e-4, "weight_decay": 0.05}
FROZEN = {"epochs": 60, "lr": 1e-3, "weight_decay": 1.0}
FINE_TUNED = {"epochs": 20, "lr": 3e-5, "weight_decay": 0.05}
METHODS = ("scratch", "frozen", "fine_tuned")


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


def fit(model: nn.Module, data, test, epochs, lr, weight_decay, smoothing=0.0) -> None:
    """Trains with AdamW, warm-up, cosine and clipping."""
    loader = DataLoader(data, BATCH, shuffle=True)
    optimizer = create_optimizer(model, lr, weight_decay)
    steps = epochs * len(loader)
    train(
        model,
        loader,
        test,
        optimizer,
        nn.CrossEntropyLoss(label_smoothing=smoothing),
        epochs,
        scheduler=warmup_schedule(optimizer, steps // 10, steps),
        clip_norm=1.0,
        verbose=False,
    )


def from_scratch(data: TensorDataset, test: DataLoader, classes: int, size: int) -> ViT:
    model = create_vit("vit_mini_8", img_size=size, num_classes=classes)
    fit(model, Augmented(*data.tensors, crop=0.5), test, **SCRATCH)
    return model


def frozen(start: ViT, data: TensorDataset, classes: int) -> ViT:
    """A linear head on features of the images and of their horizontal flips."""
    model = copy.deepcopy(start)
    replace_head(model, classes)
    images, labels = data.tensors
    both = TensorDataset(torch.cat([images, images.flip(3)]), labels.repeat(2))
    features = extract_features(model, DataLoader(both, 256))
    fit(model.head, features, DataLoader(features, 256), **FROZEN)
    freeze(model)
    return model


def fine_tuned(head: ViT, data: TensorDataset, test: DataLoader) -> ViT:
    """All weights, beginning with the head that the frozen features trained."""
    model = copy.deepcopy(head)
    model.requires_grad_(True)
    fit(model, Augmented(*data.tensors, crop=0.5), test, **FINE_TUNED)
    return model


def run(
    seed: int, start: ViT, data: dict[str, TensorDataset], classes: int
) -> dict[str, tuple[float, float]]:
    """Returns test accuracy and seconds of each method.

    `data` has the training images twice, "whole" to be cropped at random and "plain"
    with the checkpoint's own transform, and the "test" images with the latter.
    """
    results, loader = {}, DataLoader(data["test"], 256)
    size = start.preprocessing["img_size"]
    one = DataLoader(TensorDataset(*data["plain"][:1]), 1)  # not looked at
    head = None
    for method in METHODS:
        set_seeds(seed)
        began = time.perf_counter()
        if method == "scratch":
            model = from_scratch(data["whole"], one, classes, size)
        elif method == "frozen":
            model = head = frozen(start, data["plain"], classes)
        else:
            model = fine_tuned(head, data["whole"], one)
        seconds = time.perf_counter() - began
        _, accuracy = test_step(model, loader, nn.CrossEntropyLoss(), "cpu")
        results[method] = (accuracy, seconds)
        print(f"seed {seed} {method:11} {accuracy:.1%}  {seconds:.0f} s", flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder or zip (default: FoodVision Mini)")
    parser.add_argument("--seeds", type=int, default=5, help="default: 5")
    parser.add_argument("--json", type=Path, help="file for the results")
    parser.add_argument("--checkpoint", help="default: the course's checkpoint")
    args = parser.parse_args()
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
    data = {"whole": whole, "plain": plain, "test": test}
    runs = [run(seed, start, data, len(classes)) for seed in range(args.seeds)]
    stored = {"train_pictures": len(plain), "test_pictures": len(test)}
    stored |= {"baseline": baseline, "seeds": list(range(args.seeds))}
    for method in METHODS:
        accuracies = [r[method][0] for r in runs]
        stored[method] = accuracies
        stored[f"{method}_seconds"] = [round(r[method][1], 1) for r in runs]
        spread = statistics.stdev(accuracies) if len(runs) > 1 else 0.0
        print(f"{method:11} {statistics.mean(accuracies):.1%} ± {spread:.1%} (sd)")
    if args.json:
        args.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
