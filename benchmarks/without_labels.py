"""What are features worth that were learned without labels? (Appendix A4)

`train` pre-trains a ViT on images whose labels it never reads, and goes on where it
was stopped. `measure` compares its frozen features with those of random weights and of
the course's checkpoint, which was trained with labels. `report` prints what is stored.

A seed draws 60 of the training images of each class, the same for all weights, and is
the seed of the random weights; the pre-trained ones are one run each. All settings are
chosen by cross-validation on the images drawn. Intervals are over test images and seeds
(a bootstrap); p-values are McNemar's, with Holm's correction for all comparisons.
"""

import argparse
import json
import math
import os
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from ablation import holm
from torch.utils.data import RandomSampler
from transfer import bootstrap, decode, difference, folds

from going_modular.checkpoint import load_checkpoint, save_checkpoint
from going_modular.engine import AverageMeter, train
from going_modular.masked_patches import MaskedAutoencoder, MaskedPatchPrediction
from going_modular.optimization import create_optimizer, warmup_schedule
from going_modular.pretrain import LEFT_OUT, LastEpoch, create_loaders, load_images
from going_modular.run_state import RandomState
from going_modular.training.options import DEVICE, DEVICES, keep_arguments
from going_modular.training.setup import MIDDLE
from going_modular.transfer import HEAD, load_weights
from going_modular.vit import ViT, create_vit
from helper_functions import get_foodvision_mini, set_seeds

ROOT = Path(__file__).resolve().parent.parent
STORED = ROOT / "benchmarks" / "without_labels.json"
TASKS = {"mae": MaskedAutoencoder, "colors": MaskedPatchPrediction}
NO_DROPOUT = {"mlp_dropout": 0.0, "embedding_dropout": 0.0}
PER_CLASS = 60  # training photographs of each class that a seed draws
SIZES = (48, 64)  # image side in pixels
CROP = 0.8  # fraction of a side that is kept, as for the checkpoint
SETTINGS = {
    "k-NN": (1, 3, 5, 10, 20),  # neighbours
    "linear probe": (1e-3, 1e-2, 1e-1, 1.0, 10.0),  # weight of the squared weights
}


class LossMeter(AverageMeter):
    """Averages the loss; without labels there is no accuracy."""

    def update(self, loss: torch.Tensor, logits: object, labels: torch.Tensor) -> None:
        self.loss_sum += loss.item() * len(labels)
        self.count += len(labels)


def preprocessing(img_size: int) -> dict:
    """Arguments of the transform: values in -1 … 1, as in pre-training."""
    return {"img_size": img_size, "mean": MIDDLE, "std": MIDDLE, "crop_pct": CROP}


def own_loss(loss: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The loss that the model returns; the labels of the loader are not used."""
    return loss


def pretrain(args: argparse.Namespace) -> Path:
    """Trains as the command line says; returns the path of the ViT's checkpoint."""
    torch.manual_seed(args.seed)
    side = max(64, args.img_size)
    images, labels, _ = load_images(args.data, side, tuple(args.leave_out))
    loader, val_loader = create_loaders(
        images, labels, args.img_size, args.batch_size, args.epoch_size, args.seed
    )
    config: dict = {"name": args.model, "img_size": args.img_size, "num_classes": 1}
    vit = create_vit(**config, **NO_DROPOUT)
    model = TASKS[args.task](vit)
    optimizer = create_optimizer(model, args.lr, args.weight_decay, betas=(0.9, 0.95))
    epoch_size = len(cast(RandomSampler, loader.sampler))
    epochs = math.ceil(args.samples / epoch_size)
    steps = epochs * len(loader)
    scheduler = warmup_schedule(optimizer, min(args.warmup, steps - 1), steps, "none")
    keep_arguments(vars(args), args.output, True, {"device", "output", "samples"})
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    run = LastEpoch(args.output / "run.pt", **parts, random=RandomState(loader))
    history = train(
        model,
        loader,
        val_loader,
        optimizer,
        own_loss,
        epochs,
        args.device,
        scheduler=scheduler,
        clip_norm=1.0,
        meter=LossMeter,
        checkpoint=run,
        resume=True,
    )
    facts = {"task": args.task, "samples_seen": epoch_size * len(history["val_loss"])}
    facts |= {name: history[name] for name in ("train_loss", "val_loss")}
    path = args.output / "checkpoint.safetensors"
    names = ["the head is untrained"]
    own = preprocessing(args.img_size)
    return save_checkpoint(vit, path, config | NO_DROPOUT, names, own, **facts)


@torch.inference_mode()
def features(model: ViT, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Two ways to read frozen features, (n, D) each."""
    model.eval()
    z = [model.encoder(model.embedding(batch)) for batch in images.split(100)]
    z = model.layer_norm(torch.cat(z))  # (n, N + 1, D)
    return {"class token": z[:, 0], "mean of the patches": z[:, 1:].mean(dim=1)}


def nearest(x: torch.Tensor, y: torch.Tensor, k: int, new: torch.Tensor):
    """Classes (m,) of `new` by the votes of the k most similar of x (lesson 12)."""
    similarity = F.normalize(new, dim=1) @ F.normalize(x, dim=1).T  # (m, n)
    votes = F.one_hot(y[similarity.topk(k).indices], int(y.max()) + 1)  # (m, k, K)
    return votes.sum(dim=1).argmax(dim=1)


def probe(x: torch.Tensor, y: torch.Tensor, strength: float, new: torch.Tensor):
    """Classes (m,) of `new` by logistic regression on standardised features."""
    mean, std = x.mean(dim=0), x.std(dim=0) + 1e-6
    x, new = (x - mean) / std, (new - mean) / std
    weight = torch.zeros(x.shape[1], int(y.max()) + 1, requires_grad=True)
    bias = torch.zeros(weight.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [weight, bias], max_iter=100, line_search_fn="strong_wolfe"
    )

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(x @ weight + bias, y) + strength * weight.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    return (new @ weight.detach() + bias.detach()).argmax(dim=1)


METHODS = {"k-NN": nearest, "linear probe": probe}


def choose(method: str, x: dict, y: torch.Tensor) -> tuple[tuple, float]:
    """The features and the setting that are best in cross-validation, and how good.

    Args:
        x: by name, features (n, D) of the training photographs.
    """
    found = {}
    for name, values in x.items():
        for setting in SETTINGS[method]:
            hits = 0
            for train_on, held_out in folds(y):
                args = values[train_on], y[train_on], setting, values[held_out]
                hits += (METHODS[method](*args) == y[held_out]).sum().item()
            found[name, setting] = 100 * hits / len(y)
    best = max(found, key=found.__getitem__)
    return best, found[best]


def draw(labels: torch.Tensor, seed: int) -> torch.Tensor:
    """Indices of `PER_CLASS` images of each class, another draw for each seed."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    classes = range(int(labels.max()) + 1)
    return torch.cat([order[labels[order] == k][:PER_CLASS] for k in classes])


def read(state: dict, folder: Path) -> tuple[dict, torch.Tensor]:
    """All features of a folder's images, by size and pooling; and the labels.

    Positions are interpolated to the other size, as in lesson 12.
    """
    found = {}
    for size in SIZES:
        model = create_vit("vit_mini_8", img_size=size, num_classes=1, **NO_DROPOUT)
        load_weights(model, state)
        data, _ = decode(folder, preprocessing(size))
        images, labels = data.tensors
        for pooling, values in features(model, images).items():
            found[f"{size} pixels, {pooling}"] = values
    return found, labels


def runs_of(name: str, model: ViT, folder: Path, seeds: Iterable[int]) -> list[dict]:
    """One run per seed and method, as `measure` stores them."""
    state = {n: t for n, t in model.state_dict().items() if n not in HEAD}
    x, y = read(state, folder / "train")
    new, labels = read(state, folder / "test")
    runs = []
    for seed in seeds:
        drawn = draw(y, seed)
        some = {key: values[drawn] for key, values in x.items()}
        for method, predict in METHODS.items():
            (key, setting), validated = choose(method, some, y[drawn])
            predicted = predict(some[key], y[drawn], setting, new[key])
            right = (predicted == labels).int().tolist()
            run = {"weights": name, "method": method, "seed": seed, "features": key}
            run |= {"setting": setting, "validated": round(validated, 2)}
            runs.append(run | {"correct": "".join(map(str, right))})
            print(name, method, seed, key, setting, f"{100 * sum(right) / len(right)}")
    return runs


def measure(args: argparse.Namespace) -> None:
    """Measures and stores all weights, then reports."""
    if args.data:
        os.environ["VIT_COURSE_DATA"] = args.data
    folder, seeds = get_foodvision_mini(), range(args.seeds)
    pre_trained = {"with labels": load_checkpoint()}
    for path in args.checkpoints:
        loaded = load_checkpoint(path)
        task = loaded[1]["facts"]["task"]
        pre_trained[{"mae": "MAE", "colors": "colours"}[task]] = loaded
    runs, facts = [], {}
    for name, (model, metadata) in pre_trained.items():
        runs += runs_of(name, model, folder, seeds)
        facts[name] = metadata["facts"] | {"img_size": model.embedding.img_size[0]}
    for seed in seeds:
        set_seeds(seed)
        model = create_vit("vit_mini_8", num_classes=1, **NO_DROPOUT)
        runs += runs_of("random", model, folder, [seed])
    labels = decode(folder / "test", preprocessing(SIZES[0]))[0].tensors[1]
    stored = {"facts": facts, "seeds": list(seeds), "test_images": len(labels)}
    stored["baseline"] = labels.bincount().max().item() / len(labels)
    stored["runs"] = runs
    stored["rows"], stored["differences"] = table(stored)
    args.json.write_text(json.dumps(stored, indent=1) + "\n")
    report(stored)


def right(stored: dict, weights: str, method: str) -> torch.Tensor:
    """Which test images each seed got right, (seeds, images) of 0 and 1."""
    rows = {
        run["seed"]: [float(digit) for digit in run["correct"]]
        for run in stored["runs"]
        if (run["weights"], run["method"]) == (weights, method)
    }
    return torch.tensor([rows[seed] for seed in stored["seeds"]])


def table(stored: dict) -> tuple[list[dict], list[dict]]:
    """Accuracies of all weights and methods; differences between neighbours."""
    found = {run["weights"] for run in stored["runs"]}
    names = [n for n in ("random", "colours", "MAE", "with labels") if n in found]
    rows, differences = [], []
    for method in METHODS:
        hits = {name: right(stored, name, method) for name in names}
        for name, values in hits.items():
            accuracies = [round(100 * v, 2) for v in values.mean(dim=1).tolist()]
            row = {"name": name, "method": method, "accuracies": accuracies}
            row["mean"] = round(statistics.mean(accuracies), 2)
            rows.append(row | {"interval": bootstrap(values)})
        for b, a in zip(names, names[1:], strict=False):
            pair = {"method": method, "of": a, "over": b}
            differences.append(pair | difference(hits[a], hits[b]))
    adjusted = holm([pair["p"] for pair in differences])
    for pair, p in zip(differences, adjusted, strict=True):
        pair["p_holm"] = float(f"{p:.2g}")
    return rows, differences


def report(stored: dict) -> None:
    """Prints what is stored."""
    print(f"{stored['test_images']} test images, one class for all", end=" ")
    print(f"{stored['baseline']:.1%}; {len(stored['seeds'])} seeds")
    for row in stored["rows"]:
        low, high = row["interval"]
        print(f"{row['method']:13} {row['name']:12} {row['mean']:.1f} %", end=" ")
        print(f"({low:.1f} … {high:.1f})")
    for pair in stored["differences"]:
        low, high = pair["interval"]
        print(f"{pair['method']:13} {pair['of']} - {pair['over']}:", end=" ")
        print(f"{pair['mean']:+.1f} ({low:+.1f} … {high:+.1f}),", end=" ")
        print(f"{pair['won']} images won, {pair['lost']} lost, Holm p", end=" ")
        print(f"{pair['p_holm']:.2g}")


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    how: dict = {"formatter_class": argparse.ArgumentDefaultsHelpFormatter}
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("train", **how).add_argument
    add("--data", nargs="+", required=True, help="folders or zips with CLASS/FILE")
    add("--leave-out", nargs="*", default=LEFT_OUT, help="classes that are skipped")
    add("--output", type=Path, default=Path("runs/mae"), help="folder of the run")
    add("--task", choices=TASKS, default="mae", help="what is predicted")
    add("--model", default="vit_mini_8", help="a name of going_modular.variants")
    add("--img-size", type=int, default=64, help="image side in pixels")
    add("--samples", type=int, default=1_000_000, help="images seen in all")
    add("--epoch-size", type=int, default=25_000, help="images between two saves")
    add("--batch-size", type=int, default=128, help="images")
    add("--lr", type=float, default=1e-3, help="learning rate after the warm-up")
    add("--weight-decay", type=float, default=0.05, help="of AdamW")
    add("--warmup", type=int, default=1000, help="steps")
    add("--device", choices=DEVICES, default=DEVICE, help="cpu, cuda or mps")
    add("--seed", type=int, default=0, help="of weights, order, crops and masks")
    add = commands.add_parser("measure", **how).add_argument
    add("checkpoints", nargs="*", type=Path, help="files that `train` wrote")
    add("--data", help="folder or zip; None: FoodVision Mini")
    add("--seeds", type=int, default=5, help="number of seeds, 2 or more")
    add("--json", type=Path, default=STORED, help="file for the runs")
    commands.add_parser("report").add_argument("--json", type=Path, default=STORED)
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> None:
    args = parse(arguments)
    command = vars(args).pop("command")
    if command == "train":
        print(pretrain(args))
    elif command == "measure":
        measure(args)
    else:
        report(json.loads(args.json.read_text()))


if __name__ == "__main__":
    main()
