"""How fast, and with how much memory: our ViT beside four others, in one run.

All have the same sizes, no dropout, the same precision, batch and optimizer. The peers
take turns, so that whatever else the machine does hits all of them; what counts is the
ratio to torchvision within a round. Memory is measured in a process of its own.
"""

import argparse
import json
import os
import platform
import random
import re
import resource
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from going_modular.position_embedding import ViTEmbedding
from going_modular.variants import VARIANTS, ViTVariant
from going_modular.vit import create_vit

HERE = Path(__file__).resolve().parent
BATCH = {"cpu": {"vit_base_16": 4, "vit_mini_8": 64}}
BATCH["cuda"] = {"vit_base_16": 256, "vit_mini_8": 1024}
PEAK = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12, "T4": 65e12}
TOKENS = (16, 64, 256, 1024)  # patches per image


class BuiltIn(nn.Module):
    """A ViT on `nn.TransformerEncoder`, as many tutorials build it."""

    def __init__(self, sizes: ViTVariant) -> None:
        super().__init__()
        D = sizes.embedding_dim
        self.embedding = ViTEmbedding(sizes.img_size, 3, sizes.patch_size, D, 0.0)
        layer = nn.TransformerEncoderLayer(
            D,
            sizes.num_heads,
            sizes.mlp_size,
            dropout=0.0,
            activation="gelu",
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=True,
        )
        norm = nn.LayerNorm(D, eps=1e-6)
        self.encoder = nn.TransformerEncoder(
            layer, sizes.num_transformer_layers, norm, enable_nested_tensor=False
        )
        self.head = nn.Linear(D, 1000)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.encoder(self.embedding(images))[:, 0])


def build(peer: str, name: str) -> nn.Module:
    """Makes one of the five with the sizes of a variant and 1000 classes."""
    v = VARIANTS[name]
    torch.manual_seed(0)
    if peer == "ours":
        return create_vit(name, mlp_dropout=0.0, embedding_dropout=0.0)
    if peer == "torchvision":
        from torchvision.models import VisionTransformer

        sizes = (v.img_size, v.patch_size, v.num_transformer_layers, v.num_heads)
        return VisionTransformer(*sizes, v.embedding_dim, v.mlp_size)
    if peer == "timm":
        from timm.models.vision_transformer import VisionTransformer

        return VisionTransformer(
            v.img_size,
            v.patch_size,
            embed_dim=v.embedding_dim,
            depth=v.num_transformer_layers,
            num_heads=v.num_heads,
            mlp_ratio=v.mlp_size / v.embedding_dim,
        )
    if peer == "vit-pytorch":
        from vit_pytorch import ViT

        return ViT(
            image_size=v.img_size,
            patch_size=v.patch_size,
            num_classes=1000,
            dim=v.embedding_dim,
            depth=v.num_transformer_layers,
            heads=v.num_heads,
            mlp_dim=v.mlp_size,
            dim_head=v.embedding_dim // v.num_heads,
        )
    return BuiltIn(v)


PEERS = ("torchvision", "ours", "timm", "vit-pytorch", "nn.TransformerEncoder")


def make_step(
    model: nn.Module, images: torch.Tensor, mode: str, amp: bool
) -> Callable[[], float]:
    """Makes a function that does the work once and returns its seconds."""
    kind, training = images.device.type, mode == "training"
    model.train(training)
    optimizer = torch.optim.AdamW(model.parameters()) if training else None
    labels = torch.arange(len(images), device=images.device) % 1000

    def step() -> float:
        if kind == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        with nullcontext() if training else torch.inference_mode():
            with torch.autocast(kind, torch.bfloat16, enabled=amp):
                logits = model(images)
                loss = F.cross_entropy(logits, labels)
        if training:
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        loss.item()  # waits for a GPU
        return time.perf_counter() - start

    return step


def images_for(name: str, device: str) -> torch.Tensor:
    side = VARIANTS[name].img_size
    return torch.randn(BATCH[device][name], 3, side, side, device=device)


def measure(name: str, mode: str, device: str, repeats: int, compiled: bool) -> dict:
    """Times all peers in turns; also ours with bfloat16, and compiled."""
    images = images_for(name, device)
    entries = {peer: (peer, False) for peer in PEERS}
    entries |= {"ours, bfloat16": ("ours", True)}
    if device == "cuda":
        entries |= {"torchvision, bfloat16": ("torchvision", True)}
    if compiled:
        entries |= {"ours, torch.compile": ("ours", False)}
    steps = {}
    for entry, (peer, amp) in entries.items():
        model = build(peer, name).to(device)
        if "compile" in entry:
            model.compile()
        steps[entry] = make_step(model, images, mode, amp)
        steps[entry]()  # warm up
    seconds = {entry: [] for entry in entries}
    turns = random.Random(0)
    for _ in range(repeats):
        for entry in turns.sample(list(entries), len(entries)):
            seconds[entry].append(steps[entry]())
    base, found = seconds["torchvision"], {}
    for entry, values in seconds.items():
        ratios = sorted(v / b for v, b in zip(values, base, strict=True))
        found[entry] = {
            "images_per_s": len(images) / statistics.median(values),
            "ratio": statistics.median(ratios),
            "spread": [ratios[0], ratios[-1]],
        }
    return found


def highest_memory() -> int:
    """Bytes of this process when it was largest."""
    status = Path("/proc/self/status")
    if status.is_file():  # ru_maxrss would begin with that of the parent process
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text()).group(1))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # in bytes on macOS


def peak_memory(peer: str, name: str, mode: str, device: str) -> float:
    """Runs two steps in this process and returns the megabytes they took."""
    images = images_for(name, device)
    with torch.device("meta"):
        build(peer, name)  # what is imported for it is not what it takes
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = highest_memory()
    step = make_step(build(peer, name).to(device), images, mode, amp=False)
    for _ in range(2):  # the optimizer's memory is there from the first on
        step()
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 1e6
    return (highest_memory() - before) / 1e6


def memory_apart(peer: str, name: str, mode: str, device: str) -> float:
    """`peak_memory` in a fresh process."""
    command = [sys.executable, __file__, "--device", device, "--memory"]
    done = subprocess.run(
        [*command, peer, name, mode], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def flops_of(name: str) -> float:
    """FLOPs of a forward pass for one image, two per multiply-add."""
    v = VARIANTS[name]
    N, D = v.num_patches + 1, v.embedding_dim
    block = N * (4 * D * D + 2 * D * v.mlp_size) + 2 * N * N * D
    patches = v.num_patches * 3 * v.patch_size**2 * D
    return 2 * (v.num_transformer_layers * block + patches)


def token_curve(device: str, repeats: int = 5) -> list[dict]:
    """Milliseconds of a forward pass against the number of patches."""
    rows, mini = [], VARIANTS["vit_mini_8"]
    D, M = mini.embedding_dim, mini.mlp_size
    for patches in TOKENS:
        side = round(patches**0.5) * mini.patch_size
        model = create_vit("vit_mini_8", img_size=side).to(device)
        batch = max(1, 2048 // patches)
        images = torch.randn(batch, 3, side, side, device=device)
        step = make_step(model, images, "forward", amp=False)
        step()
        seconds = statistics.median(step() for _ in range(repeats)) / batch
        work = patches * (4 * D * D + 2 * D * M) + 2 * patches**2 * D
        rows.append({"patches": patches, "ms": 1000 * seconds, "work": work})
    return rows


def name_of_cpu() -> str:
    """Returns what the system calls its processor."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line for line in info.read_text().splitlines() if "model name" in line]
        if names:
            return names[0].split(": ")[1]
    return platform.processor() or platform.machine()


def describe(device: str) -> dict:
    """Says on what all this was measured."""
    about = {
        "cpu": name_of_cpu(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if device == "cuda":
        about["gpu"] = torch.cuda.get_device_name()
    for package in ("torchvision", "timm", "vit-pytorch"):
        about[package] = version(package)
    return about


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--device", default="cpu", choices=("cpu", "cuda"), help="default: cpu"
    )
    parser.add_argument(
        "--repeats",
        type=int,
        default=9,
        help="timed training steps; forward passes are twice as many (default: 9)",
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=HERE / "speed.json",
        help="file for the results (default: benchmarks/speed.json)",
    )
    parser.add_argument("--no-compile", action="store_true", help="skip torch.compile")
    parser.add_argument("--memory", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory:
        print(peak_memory(*args.memory, args.device))
        return
    compiled = not args.no_compile and shutil.which("g++") is not None
    stored = {"about": describe(args.device), "batch": BATCH[args.device]}
    stored["cores"] = os.cpu_count()
    for name in ("vit_mini_8", "vit_base_16"):
        for mode in ("forward", "training"):
            # Compiling the large one takes longer than all the rest.
            this = compiled and (name == "vit_mini_8" or args.device == "cuda")
            repeats = args.repeats * (2 if mode == "forward" else 1)
            found = measure(name, mode, args.device, repeats, this)
            for peer in PEERS:
                found[peer]["megabytes"] = memory_apart(peer, name, mode, args.device)
            if args.device == "cuda":
                gpu = stored["about"]["gpu"]
                peak = next((v for k, v in PEAK.items() if k in gpu), None)
                per_image = flops_of(name) * (3 if mode == "training" else 1)
                for row in found.values():
                    row["mfu"] = peak and row["images_per_s"] * per_image / peak
            stored[f"{name} {mode}"] = found
            for entry, row in found.items():
                print(name, mode, entry, json.dumps(row), flush=True)
    stored["tokens"] = token_curve(args.device)
    stored["sizes"] = {name: asdict(VARIANTS[name]) for name in BATCH[args.device]}
    args.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
