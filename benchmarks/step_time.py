"""A training step in several ways: lesson 14d times three of them, this all of them.

`vit_mini_8` on images of 64 pixels, in batches of 32, on the CPU: plain, under autocast
with bfloat16, recomputed, and compiled. They take turns, so that whatever else the
machine does hits all of them. Then the first two once more, in a process in which
oneDNN, which multiplies the matrices of bfloat16, may not use the processor's units for
it (ONEDNN_MAX_CPU_ISA).

Stored are the seconds of each round, of the forward pass and of the whole step. There
is one thread, and its seconds are the processor's: while others have the core, they
stand still. The first round warms up. `compiling` is what the first compiled step took,
with the compilers that it started.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from speed import name_of_cpu

from going_modular.training.setup import build_model, enable_gradient_checkpointing

OUTPUT = Path(__file__).with_suffix(".json")
WAYS = ("plain", "autocast", "recomputed", "torch.compile")
UNITS = ("avx512_bf16", "amx_bf16")  # for bfloat16, in /proc/cpuinfo
ROUNDS = 10
IMAGES = 32


def make_step(way: str) -> Callable[[], tuple[float, float]]:
    """Returns a function: one step, its seconds of the forward pass and in all."""
    torch.manual_seed(0)
    images, labels = torch.randn(IMAGES, 3, 64, 64), torch.arange(IMAGES) % 3
    model = build_model("scratch", "vit_mini_8", 3)
    if way == "recomputed":
        enable_gradient_checkpointing(model)
    if way == "torch.compile":
        model.compile()
    optimizer = torch.optim.AdamW(model.parameters())

    def step() -> tuple[float, float]:
        start = time.process_time()
        with torch.autocast("cpu", torch.bfloat16, enabled=way == "autocast"):
            loss = F.cross_entropy(model(images), labels)
        forward = time.process_time() - start
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return forward, time.process_time() - start

    return step


def processor_seconds() -> float:
    """Returns those of this process and of the compilers that it started."""
    return sum(os.times()[:4])


def measure(ways: Sequence[str]) -> dict:
    """Times each way once per round, in turns; first of all it compiles."""
    torch.set_num_threads(1)
    steps = {way: make_step(way) for way in ways}
    start = processor_seconds()
    if "torch.compile" in ways:
        steps["torch.compile"]()
    compiling = processor_seconds() - start
    seconds = {way: [] for way in ways}
    for _ in range(ROUNDS):
        for way, step in steps.items():
            seconds[way].append(step())
    return {"compiling": compiling, "seconds": seconds}


def measure_apart(ways: Sequence[str], **settings: str) -> dict:
    """`measure` in a process of its own, with these environment variables."""
    command = [sys.executable, __file__, *ways]
    with TemporaryDirectory() as empty:
        alone = os.environ | settings
        alone |= {
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "TORCHINDUCTOR_CACHE_DIR": empty,
        }
        done = subprocess.run(command, env=alone, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def describe() -> dict:
    """Says on what this is measured."""
    info = Path("/proc/cpuinfo")
    text = info.read_text() if info.is_file() else ""
    about = {"cpu": name_of_cpu(), "torch": torch.__version__}
    about |= {"units": [unit for unit in UNITS if unit in text]}
    return about | {"threads": 1, "images": IMAGES}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    help_text = "ways to measure in this process; printed, not stored"
    parser.add_argument("ways", nargs="*", metavar="way", help=help_text)
    ways = parser.parse_args().ways
    if ways:
        print(json.dumps(measure(ways)))
        return
    stored = {"about": describe()} | measure_apart(WAYS)
    without = measure_apart(WAYS[:2], ONEDNN_MAX_CPU_ISA="AVX512_CORE")
    stored["seconds_without_units"] = without["seconds"]
    OUTPUT.write_text(json.dumps(stored) + "\n")
    print(OUTPUT.read_text())


if __name__ == "__main__":
    main()
