"""Writes `RESULTS.md` and its plots from the files of the other two scripts."""

import argparse
import json
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from helper_functions import PALETTE

HERE = Path(__file__).resolve().parent
MODES = ("forward", "training")
NO_VERSION = ("cpu", "gpu", "threads")


def row(*cells) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def speed_table(found: dict) -> list[str]:
    """One line for each library; ratios of time, so that below 1 is faster."""
    with_mfu = any(line.get("mfu") for line in found.values())
    heads = ["", "images/s", "time, torchvision = 1", "spread", "peak memory, MB"]
    heads += ["fraction of peak FLOP/s"] if with_mfu else []
    lines = [row(*heads), row(*["---", *["---:"] * (len(heads) - 1)])]
    for name, line in found.items():
        low, high = line["spread"]
        memory = f"{line['megabytes']:,.0f}" if "megabytes" in line else ""
        cells = [name, f"{line['images_per_s']:,.1f}", f"{line['ratio']:.2f}"]
        cells += [f"{low:.2f} … {high:.2f}", memory]
        cells += [f"{line['mfu']:.0%}"] if with_mfu and line["mfu"] else []
        lines.append(row(*cells))
    return lines


def plot_speed(stored: dict, path: Path) -> None:
    """Bars of time relative to torchvision."""
    fig, axes = plt.subplots(2, 2, figsize=(10, 6), sharex=True)
    for line, name in zip(axes, ("vit_mini_8", "vit_base_16"), strict=True):
        for axis, mode in zip(line, MODES, strict=True):
            found = stored[f"{name} {mode}"]
            names = list(found)[::-1]
            ratios = [found[n]["ratio"] for n in names]
            ours = [n.startswith("ours") for n in names]
            colours = [PALETTE["patch embedding" if o else "layer norm"] for o in ours]
            axis.barh(names, ratios, color=colours)
            axis.axvline(1, color="black", linewidth=0.8)
            axis.set(title=f"{name}, {mode}", xlabel="time, torchvision = 1")
    fig.tight_layout()
    fig.savefig(path, dpi=90)
    plt.close(fig)


def plot_tokens(rows: list[dict], path: Path) -> None:
    """Milliseconds against patches, beside N * D**2 + N**2 * D."""
    fig, axis = plt.subplots(figsize=(5.5, 3.6))
    x, ms = [r["patches"] for r in rows], [r["ms"] for r in rows]
    work = [r["work"] for r in rows]
    scale = ms[1] / work[1]
    axis.loglog(x, ms, marker="o", color=PALETTE["attention"], label="measured")
    counted = [scale * w for w in work]
    axis.loglog(x, counted, "--", color=PALETTE["layer norm"], label="counted")
    axis.set(xlabel="patches", ylabel="ms per image")
    axis.legend()
    fig.tight_layout()
    fig.savefig(path, dpi=90)
    plt.close(fig)


def plot_time(methods: dict, baseline: float, path: Path) -> None:
    """Test accuracy against seconds of training."""
    fig, axis = plt.subplots(figsize=(6.5, 3.6))
    colours = [PALETTE[k] for k in ("layer norm", "patch embedding", "class token")]
    for (name, method), colour in zip(methods.items(), colours, strict=False):
        seconds, accuracy = zip(*method["curve"], strict=True)
        axis.semilogx(seconds, accuracy, color=colour, label=name)
    axis.axhline(baseline, color="black", linewidth=0.8)
    axis.set(xlabel="seconds of training", ylabel="test accuracy")
    axis.legend()
    fig.tight_layout()
    fig.savefig(path, dpi=90)
    plt.close(fig)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--speed", type=Path, default=HERE / "speed.json", help="results of speed.py"
    )
    parser.add_argument(
        "--time",
        type=Path,
        default=HERE / "time_to_accuracy.json",
        help="results of time_to_accuracy.py",
    )
    parser.add_argument(
        "--output", type=Path, default=HERE / "RESULTS.md", help="page to write"
    )
    args = parser.parse_args()
    stored, taken = (json.loads(p.read_text()) for p in (args.speed, args.time))
    about, plots = stored["about"], args.output.parent / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    machine = about.get("gpu") or f"{about['cpu']}, {about['threads']} threads"
    versions = ", ".join(f"{k} {v}" for k, v in about.items() if k not in NO_VERSION)
    lines = ["# Results of `make bench`", ""]
    lines += [f"One run on {machine}; {versions}.", ""]
    lines += [
        "Times are ratios to torchvision within each round, as medians; spread is the "
        "smallest and the largest. No dropout; fp32, but where it says bfloat16.",
        "",
        "![Time relative to torchvision, for each library.](plots/speed.png)",
        "",
    ]
    for name in ("vit_base_16", "vit_mini_8"):
        side = stored["sizes"][name]["img_size"]
        for mode in MODES:
            batch = stored["batch"][name]
            lines += [f"## {name}, {side} px, {mode}, batch {batch}", ""]
            lines += [*speed_table(stored[f"{name} {mode}"]), ""]
    lines += ["## Time against the number of patches", ""]
    lines += [
        "A forward pass of `vit_mini_8` on larger and larger images. Counted: "
        "N (4 D² + 2 D M) + 2 N² D multiplications in a block, fitted at 64 patches.",
        "",
        "![Milliseconds against patches, measured and counted.](plots/tokens.png)",
        "",
        row("patches", "ms per image", "counted"),
        row("---:", "---:", "---:"),
    ]
    second = stored["tokens"][1]
    for line in stored["tokens"]:
        counted = second["ms"] * line["work"] / second["work"]
        lines.append(row(line["patches"], f"{line['ms']:.2f}", f"{counted:.2f}"))
    images = f"{taken['train_pictures']} training, {taken['test_pictures']} test"
    lines += [
        "",
        "## Seconds to an accuracy",
        "",
        f"`vit_mini_8` on {images} images; one class for all: "
        f"{taken['baseline']:.1%}. One seed, on the CPU; accuracies jump from epoch to "
        "epoch, so the first time at or above a mark flatters. From scratch, the "
        "schedule is one of 100 epochs: when the time was over, its rate had hardly "
        "fallen, so this is no final accuracy. The clock of the transfer leaves out "
        "the three hours of pre-training, which happen once for many tasks.",
        "",
        "![Test accuracy against seconds of training.](plots/time.png)",
        "",
        row("", *(f"to {float(t):.0%}" for t in taken["targets"]), "at the end"),
        row("---", *["---:"] * (len(taken["targets"]) + 1)),
    ]
    for name, method in taken["methods"].items():
        end = method["end"]
        never = f"not in {end['seconds']:.0f} s"
        marks = [
            never if seconds is None else f"{seconds:.1f} s"
            for seconds in method["reached"].values()
        ]
        last = f"{end['accuracy']:.1%} after {end['seconds']:.0f} s"
        lines.append(row(name, *marks, last))
    plot_speed(stored, plots / "speed.png")
    plot_tokens(stored["tokens"], plots / "tokens.png")
    plot_time(taken["methods"], taken["baseline"], plots / "time.png")
    args.output.write_text("\n".join(lines) + "\n")
    print(f"wrote {args.output.name} and three plots")


if __name__ == "__main__":
    main()
