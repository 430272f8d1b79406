"""The peak of a process in a training step: lesson 14d counts it, this measures it.

`vit_mini_8` on images of 64 pixels, forward and backward, on the CPU. Each value is
the largest resident size of a process of its own (VmHWM, Linux). The difference
between 144 and 16 images, divided by 128, is what one image costs; what does not grow
with the batch cancels. glibc gives freed memory back from 64 KiB on
(MALLOC_MMAP_THRESHOLD_), else the peak would hold holes.
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

from going_modular.training.setup import build_model, enable_gradient_checkpointing

OUTPUT = Path(__file__).with_suffix(".json")
MODES = ("kept", "autocast", "recomputed")
SIZES = (16, 144)


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
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("one", nargs="*", help="a mode and a number of images: only it")
    args = parser.parse_args()
    if args.one:
        print(one_step(args.one[0], int(args.one[1])))
        return
    alone = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    peaks = {}
    for mode in MODES:
        small, large = (
            int(
                subprocess.run(
                    [sys.executable, __file__, mode, str(size)],
                    env=alone,
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout
            )
            for size in SIZES
        )
        megabytes = (large - small) * 1024 / 1e6 / (SIZES[1] - SIZES[0])
        peaks[mode] = round(megabytes, 3)
        print(f"{mode:10} {megabytes:.2f} MB per image")
    stored = {"torch": torch.__version__, "megabytes_per_image": peaks}
    OUTPUT.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
