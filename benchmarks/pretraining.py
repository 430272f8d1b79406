"""How the pre-training went: loss and accuracy against images seen, as JSON.

Reads the folders of runs of `python -m going_modular.pretrain`, finished or still going
on, each begun with the weights of the one before, and trains nothing.
"""

import argparse
import json
import math
from pathlib import Path

import torch

from going_modular import pretrain
from going_modular.checkpoint import load_checkpoint

ROOT = Path(__file__).resolve().parent.parent
STORED = ROOT / "benchmarks" / "pretraining.json"
FACTS = ("samples_seen", "val_pictures", "val_top1", "val_top5")


def command_of(arguments: dict[str, str], images: int) -> str:
    """The command that began a run: its options that differ from the defaults.

    FOOD98 stands for the data, as in the checkpoint's card, and runs/ for the folder of
    the runs. A rate that does not fall is the same for any number of images, so
    `--samples` is not recorded; the command is then the one that ends here.

    Args:
        arguments: as they stand in `arguments.json`.
        images: seen in this run.
    """
    arguments = {"samples": str(images)} | arguments
    if arguments.get("init", "None") != "None":
        arguments["init"] = "/".join(["runs", *Path(arguments["init"]).parts[-2:]])
    words = ["python -m going_modular.pretrain --data FOOD98"]
    for name, default in vars(pretrain._parse([])).items():
        if name != "data" and arguments.get(name, str(default)) != str(default):
            words.append(f"--{name.replace('_', '-')} {arguments[name]}")
    return " ".join(words)


def read(run: Path, before: int = 0) -> dict:
    """Reads the folder of a run.

    Args:
        run: what was its `--output`.
        before: images that its first weights had seen.

    Returns:
        `command`, `img_size`, `epochs`: a row per epoch with `images`, seen up to its
        end, and loss and accuracy in training and validation; and `facts` of the
        checkpoint, None while there is none.

    Raises:
        ValueError: no epoch is finished yet, the epochs have another size than
            `arguments.json` says, as when there are fewer images, or the checkpoint
            has seen another number of images than `before` and the epochs.
    """
    if not (run / "run.pt").is_file():
        raise ValueError(f"{run} holds no run.pt: no epoch is finished yet")
    state = torch.load(run / "run.pt", map_location="cpu", weights_only=True)
    arguments = json.loads((run / "arguments.json").read_text())
    # Runs begun before validation had its name in the history call it "test".
    history = {k.replace("test", "val"): v for k, v in state["history"].items()}
    size, batch = int(arguments["epoch_size"]), int(arguments["batch_size"])
    done, steps = len(history["train_loss"]), state["scheduler"]["last_epoch"]
    if steps != done * math.ceil(size / batch):
        raise ValueError(f"{steps} steps are not {done} epochs of {size} images")
    rows = [
        {"images": before + (i + 1) * size}
        | {k: round(v[i], 4) for k, v in history.items()}
        for i in range(done)
    ]
    facts = None
    if (run / "checkpoint.safetensors").is_file():
        found = load_checkpoint(run / "checkpoint.safetensors")[1]["facts"]
        facts = {name: found[name] for name in FACTS}
        if facts["samples_seen"] != rows[-1]["images"]:
            raise ValueError(
                f"the checkpoint in {run} has seen {facts['samples_seen']:,} images, "
                f"expected {before:,} before this run and {done * size:,} in it"
            )
    return {
        "command": command_of(arguments, done * size),
        "img_size": int(arguments["img_size"]),
        "epochs": rows,
        "facts": facts,
    }


def read_all(runs: list[Path]) -> dict:
    """Reads runs, each of which began with the weights of the one before."""
    stored: list[dict] = []
    for run in runs:
        before = stored[-1]["epochs"][-1]["images"] if stored else 0
        stored.append(read(run, before))
    return {"runs": stored}


def report(stored: dict) -> None:
    """Prints a line per epoch; intervals are over validation images."""
    for run in stored["runs"]:
        print(run["command"])
        for row in run["epochs"]:
            print(f"{row['images']:9,} images", end="")
            print(f"  training {row['train_loss']:.4f} {row['train_acc']:.1%}", end="")
            print(f"  validation {row['val_loss']:.4f} {row['val_acc']:.1%}")
        if facts := run["facts"]:
            n = facts["val_pictures"]
            for name in ("val_top1", "val_top5"):
                p = facts[name]
                half = 1.96 * math.sqrt(p * (1 - p) / n)
                print(f"{name} {p:.1%} ({p - half:.1%} … {p + half:.1%}), {n:,} images")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "runs", type=Path, nargs="*", help="folders, their --output, in order"
    )
    parser.add_argument("--json", type=Path, help="file to write; with --report: read")
    parser.add_argument(
        "--report", action="store_true", help="print the stored runs, and end"
    )
    args = parser.parse_args()
    if args.report:
        return report(json.loads((args.json or STORED).read_text()))
    if not args.runs:
        parser.error("name the folders of the runs, or --report")
    stored = read_all(args.runs)
    report(stored)
    if args.json:
        args.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
