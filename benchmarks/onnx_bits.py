"""What a smaller ONNX file costs: accuracy and size with weights of 32, 16 and 8 bits.

A new head for the classes of the dataset is trained on the checkpoint's frozen
features, as in lesson 12. The whole model is then stored three times (appendix A5) and
run on the test images by ONNX Runtime.
"""

import argparse
import json
import logging
import os
import tempfile
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from torch.utils.data import DataLoader

from going_modular.checkpoint import load_checkpoint
from going_modular.data_setup import create_transform, load_folder
from going_modular.export import export_vit
from going_modular.training.setup import train_head
from going_modular.transfer import replace_head
from going_modular.vit import ViT
from helper_functions import get_foodvision_mini, set_seeds

EPOCHS = 40  # of the head, as in appendix A5


def write_files(vit: ViT, folder: Path) -> dict[str, Path]:
    """Stores the model with weights of 32, 16 and 8 bits."""
    files = {"32 bits": export_vit(vit, folder / "32.onnx")}
    files["16 bits"] = export_vit(vit, folder / "16.onnx", half=True)
    files["8 bits"] = folder / "8.onnx"
    quantize_dynamic(files["32 bits"], files["8 bits"], weight_type=QuantType.QUInt8)
    return files


def measure(files: dict[str, Path], wanted: np.ndarray, x, y) -> list[dict]:
    """Compares each file with PyTorch's logits `wanted` on images x of classes y."""
    rows = []
    for name, path in files.items():
        session = onnxruntime.InferenceSession(path)
        (logits,) = session.run(["logits"], {"images": x})
        predicted = logits.argmax(axis=1)
        row: dict = {"weights": name, "bytes": path.stat().st_size}
        row["right"] = int((predicted == y).sum())
        row["changed"] = int((predicted != wanted.argmax(axis=1)).sum())
        row["largest_difference"] = float(f"{np.abs(logits - wanted).max():.1e}")
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", help="folder or zip (default: FoodVision Mini)")
    parser.add_argument("--json", type=Path, help="file for the table")
    args = parser.parse_args()
    logging.getLogger().setLevel("ERROR")  # the quantizer's advice
    if args.data:
        os.environ["VIT_COURSE_DATA"] = args.data
    folder = get_foodvision_mini()
    set_seeds()
    vit, metadata = load_checkpoint()
    transform = create_transform(**metadata["preprocessing"])
    train_images = load_folder(folder / "train", transform)
    replace_head(vit, len(train_images.classes))
    train_head(vit, DataLoader(train_images, 32), EPOCHS, device="cpu")
    vit.eval()
    images, labels = zip(*load_folder(folder / "test", transform), strict=True)
    x, y = torch.stack(images), torch.tensor(labels)  # (images, 3, 64, 64), (images,)
    with torch.no_grad():
        wanted = vit(x)  # (images, classes)
    stored = {"train_images": len(train_images), "test_images": len(y)}
    stored["one_class_for_all"] = y.bincount().max().item()
    stored["pytorch_right"] = (wanted.argmax(dim=1) == y).sum().item()
    with tempfile.TemporaryDirectory() as work:
        files = write_files(vit, Path(work))
        stored["files"] = measure(files, wanted.numpy(), x.numpy(), y.numpy())
    print(f"one class for all: {stored['one_class_for_all']} of {len(y)} right")
    print(f"PyTorch: {stored['pytorch_right']} of {len(y)} right")
    for row in stored["files"]:
        print(f"{row['weights']:8} {row['bytes'] / 1e6:5.1f} MB", end="  ")
        print(f"{row['right']} of {len(y)} right, {row['changed']} changed")
    if args.json:
        args.json.write_text(json.dumps(stored, indent=1) + "\n")


if __name__ == "__main__":
    main()
