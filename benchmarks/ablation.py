"""What is each part of the recipe worth? One change at a time, several seeds.

Trains `vit_mini_8` from scratch on the 225 rendered training images and tests after
the last epoch on freshly drawn ones, which no other file of the course uses. The
recipe is lesson 11's. Finished runs are kept in `build/ablation.jsonl`: interrupted, it
goes on where it was.
"""

import argparse
import json
import math
import statistics
import time
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

from going_modular.data_setup import create_transform, load_folder
from going_modular.encoder import TransformerEncoder, TransformerEncoderBlock
from going_modular.engine import test_step, train
from going_modular.optimization import create_optimizer, warmup_schedule
from going_modular.rendered_foods import draw_food_set
from going_modular.vit import ViT, create_vit
from helper_functions import get_foodvision_mini, set_seeds

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / "build"
MIDDLE = (0.5, 0.5, 0.5)
TEST_SEED, TEST_PER_CLASS = 20_112, 200  # no other set of the course has this seed
BATCH = 32
RECIPE = {
    "optimizer": "AdamW",
    "lr": 5e-4,
    "weight_decay": 0.05,
    "warmup": 0.1,  # fraction of all steps
    "decay": "cosine",
    "clip_norm": 1.0,
    "augment": True,
    "post_norm": False,
    "model": {},  # arguments of create_vit
}
NAIVE = {"optimizer": "Adam", "lr": 3e-3, "weight_decay": 0.3, "warmup": 0.0}
NAIVE |= {"decay": "none", "clip_norm": None, "augment": False}
CHANGES = {
    "the recipe": {},
    "naive: Adam, 3e-3, decay 0.3": NAIVE,
    "naive, but AdamW": NAIVE | {"optimizer": "AdamW"},
    "naive, but a rate of 5e-4": NAIVE | {"lr": 5e-4},
    "a rate of 3e-3": {"lr": 3e-3},
    "Adam instead of AdamW": {"optimizer": "Adam"},
    "no warm-up": {"warmup": 0.0},
    "no clipping": {"clip_norm": None},
    "no augmentation": {"augment": False},
    "no positions": {"model": {"position": "none"}},
    "positions: sines, 1-D": {"model": {"position": "sinusoidal_1d"}},
    "positions: sines, 2-D": {"model": {"position": "sinusoidal_2d"}},
    "mean instead of class token": {"model": {"pool": "mean"}},
    "post-norm": {"post_norm": True},
    "DropPath 0.1": {"model": {"drop_path": 0.1}},
    "no dropout": {"model": {"mlp_dropout": 0.0, "embedding_dropout": 0.0}},
    "patches of 16 pixels": {"model": {"patch_size": 16}},
}


class PostNormBlock(TransformerEncoderBlock):
    """The arrangement of 2017: LayerNorm after each sum."""

    def forward(self, tokens, mask=None):
        msa, mlp = self.msa_block, self.mlp_block
        attended = msa.dropout(msa.attention(tokens, mask))
        tokens = msa.layer_norm(tokens + self.drop_path(attended))
        return mlp.layer_norm(tokens + self.drop_path(mlp.mlp(tokens)))


class Images(TensorDataset):
    """Decoded images (n, 3, 64, 64) and labels, each image with a transform."""

    def __init__(self, images, labels, transform=None) -> None:
        super().__init__(images, labels)
        self.transform = transform or nn.Identity()

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        image, label = super().__getitem__(i)
        return self.transform(image), label


def decode(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = zip(
        *load_folder(folder, create_transform(64, MIDDLE, MIDDLE)), strict=True
    )
    return torch.stack(images), torch.tensor(labels)


def build(settings: dict) -> ViT:
    model = create_vit("vit_mini_8", num_classes=3, **settings["model"])
    if settings["post_norm"]:
        blocks = [PostNormBlock(192, 3, 768) for _ in model.encoder]
        model.encoder = TransformerEncoder(*blocks)
    return model


def run(seed: int, change: dict, train_set, test_set, epochs: int) -> float:
    """Trains once and returns the test accuracy."""
    settings = RECIPE | change
    set_seeds(seed)
    model = build(settings)
    augment = None
    if settings["augment"]:
        crop = v2.RandomResizedCrop(64, (0.5, 1.0), antialias=True)
        augment = v2.Compose([crop, v2.RandomHorizontalFlip()])
    loader = DataLoader(Images(*train_set, augment), BATCH, shuffle=True)
    lr, decay = settings["lr"], settings["weight_decay"]
    if settings["optimizer"] == "Adam":  # coupled, on all parameters, as many do
        optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=decay)
    else:
        optimizer = create_optimizer(model, lr, decay)
    steps = epochs * len(loader)
    warmup = round(settings["warmup"] * steps)
    scheduler = warmup_schedule(optimizer, warmup, steps, settings["decay"])
    one = DataLoader(Images(*(t[:1] for t in test_set)))  # its accuracy is not used
    train(
        model,
        loader,
        one,
        optimizer,
        nn.CrossEntropyLoss(),
        epochs,
        scheduler=scheduler,
        clip_norm=settings["clip_norm"],
        verbose=False,
    )
    tests = DataLoader(Images(*test_set), 200)
    return test_step(model, tests, nn.CrossEntropyLoss(), "cpu")[1]


def interval(values: list[float]) -> list[float]:
    """95 % interval of the mean (Student's t)."""
    t = {
        1: 12.706,
        2: 4.303,
        3: 3.182,
        4: 2.776,
        5: 2.571,
        6: 2.447,
        7: 2.365,
        8: 2.306,
    }
    mean, n = statistics.mean(values), len(values)
    half = t.get(n - 1, 2.26) * statistics.stdev(values) / math.sqrt(n)
    return [mean - half, mean + half]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--seeds", type=int, default=5, help="number of seeds, 2 or more (default: 5)"
    )
    parser.add_argument("--epochs", type=int, default=16, help="default: 16")
    parser.add_argument(
        "--only", nargs="+", choices=CHANGES, help="changes to run (default: all)"
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=ROOT / "benchmarks/ablation.json",
        help="file for the results (default: benchmarks/ablation.json)",
    )
    args = parser.parse_args()
    names = ["the recipe", *(n for n in args.only or CHANGES if n != "the recipe")]
    drawn = BUILD / "ablation_test"
    if not drawn.is_dir():
        print(f"drawing {3 * TEST_PER_CLASS} test pictures")
        draw_food_set(drawn, 0, TEST_PER_CLASS, seed=TEST_SEED)
    train_set = decode(get_foodvision_mini() / "train")
    test_set = decode(drawn / "test")
    log = BUILD / "ablation.jsonl"
    done = {}
    if log.is_file():
        for line in log.read_text().splitlines():
            entry = json.loads(line)
            done[entry["name"], entry["seed"], entry["epochs"]] = entry["accuracy"]
    for seed in range(args.seeds):
        for name in names:
            if (name, seed, args.epochs) in done:
                continue
            start = time.perf_counter()
            accuracy = run(seed, CHANGES[name], train_set, test_set, args.epochs)
            done[name, seed, args.epochs] = accuracy
            entry = {"name": name, "seed": seed, "epochs": args.epochs}
            with log.open("a") as file:
                file.write(json.dumps(entry | {"accuracy": accuracy}) + "\n")
            spent = time.perf_counter() - start
            print(f"seed {seed} {name:30} {accuracy:.1%} {spent:.0f} s", flush=True)
    rows = []
    for name in names:
        values = [100 * done[name, s, args.epochs] for s in range(args.seeds)]
        base = [100 * done["the recipe", s, args.epochs] for s in range(args.seeds)]
        changes = [v - b for v, b in zip(values, base, strict=True)]  # seed by seed
        row = {"name": name, "mean": round(statistics.mean(values), 2)}
        row["difference"] = round(statistics.mean(changes), 2)
        row["interval"] = [round(v, 2) for v in interval(changes)]
        row["accuracies"] = [round(v, 2) for v in values]
        rows.append(row)
        low, high = row["interval"]
        print(f"{name:30} {row['mean']:5.1f} %  {row['difference']:+5.1f}", end="  ")
        print(f"({low:+5.1f} … {high:+5.1f})")
    stored = {"seeds": list(range(args.seeds)), "epochs": args.epochs}
    stored |= {"train_pictures": len(train_set[1]), "test_pictures": len(test_set[1])}
    args.json.write_text(json.dumps(stored | {"rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
