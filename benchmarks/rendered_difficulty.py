"""How hard is an image dataset? Accuracy of colours alone and of a small transformer.

Mean colour and a colour histogram know nothing of places and shapes: what they get
right needs none. If no model learns a dataset, it is too hard.
Runs on any folder in ImageFolder layout: train/CLASS/*.jpg and test/CLASS/*.jpg.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parent.parent
SIDE, PATCH = 64, 8  # images and patches in pixels
EPOCHS, BATCH = 30, 32


def load(folder: Path) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Images (n, 3, 64, 64) in 0..1, labels (n,) and the names of the classes."""
    names = sorted(path.name for path in folder.iterdir() if path.is_dir())
    images, labels = [], []
    for label, name in enumerate(names):
        for path in sorted((folder / name).glob("*.jp*g")):
            with Image.open(path) as image:
                small = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
            images.append(np.asarray(small, np.float32) / 255)
            labels.append(label)
    if not images:
        raise ValueError(f"no JPEG images in {folder}, expected {folder}/CLASS/*.jpg")
    stack = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return stack, torch.tensor(labels), names


def colour_accuracy(train, test) -> float:
    """Test accuracy of logistic regression on an image's mean colour (3,)."""
    x, y = train[0].mean((2, 3)), train[1]
    mean, std = x.mean(0), x.std(0)
    model = nn.Linear(3, int(y.max()) + 1)
    nn.init.zeros_(model.weight)
    nn.init.zeros_(model.bias)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=200)

    def closure():
        optimizer.zero_grad()
        loss = F.cross_entropy(model((x - mean) / std), y)
        loss.backward()
        return loss

    optimizer.step(closure)
    with torch.no_grad():
        predicted = model((test[0].mean((2, 3)) - mean) / std).argmax(1)
    return (predicted == test[1]).float().mean().item()


def colour_histogram(images: torch.Tensor, bins: int = 5) -> torch.Tensor:
    """Square roots of the fractions of pixels in each of bins**3 colours (n, bins**3).

    The square roots keep a few frequent colours from drowning the others.
    """
    red, green, blue = (bins * images).long().clamp(max=bins - 1).flatten(2).unbind(1)
    colours = (red * bins + green) * bins + blue  # (n, pixels)
    counts = F.one_hot(colours, bins**3).sum(1)  # (n, bins**3)
    return (counts / colours.shape[1]).sqrt()


def ridge(x: torch.Tensor, y: torch.Tensor, strength: float, new: torch.Tensor):
    """Classes (m,) of `new` (m, d) by ridge regression on one-hot labels."""
    targets = F.one_hot(y).double()
    x, new, mean = x.double(), new.double(), x.double().mean(0)
    covariance = (x - mean).T @ (x - mean) + strength * torch.eye(x.shape[1])
    weights = torch.linalg.solve(covariance, (x - mean).T @ (targets - targets.mean(0)))
    return ((new - mean) @ weights + targets.mean(0)).argmax(1)


def histogram_accuracy(train, test) -> float:
    """Test accuracy of ridge regression on colour histograms.

    Its strength is chosen by cross-validation on the training images, in five folds.
    """
    (x, y), (x_test, y_test) = train, test
    x, x_test = colour_histogram(x), colour_histogram(x_test)
    fold = torch.randperm(len(y), generator=torch.Generator().manual_seed(0)) % 5

    def right(strength: float) -> int:
        parts = [(fold != k, fold == k) for k in range(5)]
        return sum(
            (ridge(x[fit], y[fit], strength, x[out]) == y[out]).sum().item()
            for fit, out in parts
        )

    best = max((10.0**k for k in range(-4, 3)), key=right)
    return (ridge(x, y, best, x_test) == y_test).float().mean().item()


class SmallTransformer(nn.Module):
    """A ViT of PyTorch's own layers: 64 patches, 4 layers, mean over the patches."""

    def __init__(self, classes: int, width: int = 128, layers: int = 4):
        super().__init__()
        self.patches = nn.Conv2d(3, width, PATCH, PATCH)
        self.positions = nn.Parameter(0.02 * torch.randn((SIDE // PATCH) ** 2, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.head(self.encoder(x).mean(1))


def augment(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Flips each image at random and shifts it by up to six pixels."""
    flips = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    x = F.pad(torch.where(flips, x.flip(3), x), (6, 6, 6, 6), mode="reflect")
    shifts = torch.randint(0, 13, (len(x), 2), generator=generator).tolist()
    return torch.stack(
        [x[i, :, r : r + SIDE, c : c + SIDE] for i, (r, c) in enumerate(shifts)]
    )


def transformer_accuracy(train, test, seed: int) -> float:
    """Test accuracy of the small transformer after its last epoch, from scratch."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    (x, y), (x_test, y_test) = train, test
    mean, std = x.mean((0, 2, 3), keepdim=True), x.std((0, 2, 3), keepdim=True)
    x, x_test = (x - mean) / std, (x_test - mean) / std
    model = SmallTransformer(int(y.max()) + 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
    per_epoch = -(-len(x) // BATCH)
    total, warm = EPOCHS * per_epoch, 5 * per_epoch

    def rate(step: int) -> float:
        if step < warm:
            return (step + 1) / warm
        return 0.5 + 0.5 * np.cos(np.pi * (step - warm) / (total - warm))

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(x), generator=generator).split(BATCH):
            loss = F.cross_entropy(model(augment(x[batch], generator)), y[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
    model.eval()
    with torch.no_grad():
        hits = (
            torch.cat([model(part).argmax(1) for part in x_test.split(256)]) == y_test
        )
    return hits.float().mean().item()


def measure(data: Path, seeds: int = 5) -> dict:
    """The accuracies on one folder, with the baseline and the counts, as a dict."""
    start = time.perf_counter()
    *train, names = load(data / "train")
    *test, test_names = load(data / "test")
    if names != test_names:
        raise ValueError(f"classes differ: train has {names}, test has {test_names}")
    runs = [transformer_accuracy(train, test, seed) for seed in range(seeds)]
    return {
        "classes": names,
        "train_pictures": len(train[1]),
        "test_pictures": len(test[1]),
        "baseline": round(test[1].bincount().max().item() / len(test[1]), 4),
        "mean_colour": round(colour_accuracy(train, test), 4),
        "colour_histogram": round(histogram_accuracy(train, test), 4),
        "transformer": [round(run, 4) for run in runs],
        "transformer_mean": round(float(np.mean(runs)), 4),
        "seconds": round(time.perf_counter() - start),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data",
        type=Path,
        default=ROOT / "images/foodvision_mini",
        help="dataset folder (default: images/foodvision_mini)",
    )
    parser.add_argument(
        "--seeds", type=int, default=5, help="number of seeds (default: 5)"
    )
    parser.add_argument("--json", type=Path, help="write the result to this file")
    options = parser.parse_args()
    torch.set_num_threads(2)
    result = measure(options.data, options.seeds)
    rows = [
        ("one class for all", result["baseline"]),
        ("mean colour, logistic regression", result["mean_colour"]),
        ("colour histogram, ridge regression", result["colour_histogram"]),
        *(
            (f"transformer from scratch, seed {seed}", accuracy)
            for seed, accuracy in enumerate(result["transformer"])
        ),
        ("transformer from scratch, mean", result["transformer_mean"]),
    ]
    print(f"accuracy on {result['test_pictures']} test images")
    print(f"({result['train_pictures']} to train on, {result['seconds']} s)")
    for name, accuracy in rows:
        print(f"{name:35} {100 * accuracy:5.1f} %")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
