"""The peak of a process in a training step: lesson 14d counts it, this measures it.

`vit_mini_8` on images of 64 pixels, forward and backward, on the CPU. Each value is
the largest resident size of a process of its own (VmHWM, Linux). The difference
between 144 and 16 images, divided by 128, is what one image costs; what does not grow
with the batch cancels. glibc gives freed memory back from 64 KiB on
(MALLOC_MMAP_THRESHOLD_), else the peak would hold holes.

Last, one step of 4096 images in batches of 64, by accumulation: the whole peak of its
process, with Python, torch, weights and optimizer.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from going_modular.engine import train_step
from going_modular.optimization import create_optimizer
from going_modular.training.setup import build_model, enable_gradient_checkpointing

OUTPUT = Path(__file__).with_suffix(".json")
MODES = ("kept", "autocast", "recomputed")
SIZES = (16, 144)
LARGE, SMALL = 4096, 64  # images of one step, and of a batch


def peak() -> int:
    """Returns the largest resident size of this process so far, in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


def one_step(mode: str, batch_size: int) -> int:
    """Returns the peak of this process after one backward pass, in KiB."""
    torch.manual_seed(0)
    model = build_model("scratch", "vit_mini_8", 3)
    if mode == "recomputed":
        enable_gradient_checkpointing(model)
    images = torch.zeros(batch_size, 3, 64, 64)
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        loss = F.cross_entropy(model(images), torch.arange(batch_size) % 3)
    loss.backward()
    return peak()


def accumulated(images: int, batch_size: int) -> int:
    """Returns the peak of this process after one accumulated step, in KiB."""
    torch.manual_seed(0)
    model = build_model("scratch", "vit_mini_8", 3)
    black = torch.zeros(1, 3, 64, 64).expand(images, -1, -1, -1)  # one in memory
    loader = DataLoader(TensorDataset(black, torch.arange(images) % 3), batch_size)
    optimizer = create_optimizer(model, lr=1e-3)
    loss_fn, count = nn.CrossEntropyLoss(), images // batch_size
    train_step(model, loader, loss_fn, optimizer, "cpu", accumulate=count)
    return peak()


def of_process(*words: str) -> int:
    """Runs this file once more, in a process of its own, and returns its peak."""
    alone = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, env=alone, check=True, capture_output=True)
    return int(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    help_text = "a mode and a number of images, or `accumulated` and two: only it"
    parser.add_argument("one", nargs="*", help=help_text)
    args = parser.parse_args()
    if args.one:
        mode, *sizes = args.one
        numbers = [int(size) for size in sizes]
        if mode == "accumulated":
            print(accumulated(*numbers))
        else:
            print(one_step(mode, *numbers))
        return
    peaks = {}
    for mode in MODES:
        small, large = (of_process(mode, str(size)) for size in SIZES)
        megabytes = (large - small) * 1024 / 1e6 / (SIZES[1] - SIZES[0])
        peaks[mode] = round(megabytes, 3)
        print(f"{mode:10} {megabytes:.2f} MB per image")
    step = of_process("accumulated", str(LARGE), str(SMALL)) * 1024 / 1e9
    print(
        f"one step of {LARGE} in batches of {SMALL}: {step:.2f} GB, the whole process"
    )
    stored = {"torch": torch.__version__, "megabytes_per_image": peaks}
    stored["one_step"] = {"images": LARGE, "batch": SMALL, "gigabytes": round(step, 3)}
    OUTPUT.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
