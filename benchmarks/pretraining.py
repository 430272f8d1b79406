"""How a pre-training run went: loss and accuracy against images seen, as JSON.

Reads `run.pt` and `arguments.json` of a run of `python -m going_modular.pretrain`,
finished or still going on, and trains nothing.
"""

import argparse
import json
import math
from pathlib import Path

import torch

from going_modular import pretrain

ROOT = Path(__file__).resolve().parent.parent
PLANNED = 1_050_000  # images of the checkpoint's first part, which is repeated


def command_of(arguments: dict[str, str]) -> str:
    """The command that began a run: its options that differ from the defaults.

    FOOD98 stands for the data, as in the checkpoint's card.
    """
    words = ["python -m going_modular.pretrain --data FOOD98"]
    for name, default in vars(pretrain._parse([])).items():
        if name != "data" and arguments.get(name, str(default)) != str(default):
            words.append(f"--{name.replace('_', '-')} {arguments[name]}")
    return " ".join(words)


def read(run: Path, planned: int) -> dict:
    """Reads the folder of a run.

    Returns:
        `command`, `images_planned` and `epochs`: a row per epoch with `images`, seen up
        to its end, and loss and accuracy in training and validation.

    Raises:
        ValueError: no epoch is finished yet, or the epochs have another size than
            `arguments.json` says, as when there are fewer images.
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
        {"images": (i + 1) * size} | {k: round(v[i], 4) for k, v in history.items()}
        for i in range(done)
    ]
    command = f"{command_of(arguments)} --samples {planned}"
    return {"command": command, "images_planned": planned, "epochs": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="folder of the run, its --output")
    parser.add_argument(
        "--samples",
        type=int,
        default=PLANNED,
        help=f"images that the run is to see in all (default: {PLANNED})",
    )
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args()
    stored = read(args.run, args.samples)
    for row in stored["epochs"]:
        print(f"{row['images']:9,} images", end="")
        print(f"  training {row['train_loss']:.4f} {row['train_acc']:.1%}", end="")
        print(f"  validation {row['val_loss']:.4f} {row['val_acc']:.1%}")
    if args.json:
        args.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
