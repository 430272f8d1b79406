"""Damaged, hostile and oddly named images; folders as people have them."""

import json
import os
import subprocess

import numpy as np
import pytest
from damage import IMAGES, SMOOTH, TIMES, bombs, damaged, dataset, encoded
from PIL import Image

from going_modular import predict
from going_modular.data_setup import create_dataloaders, create_transform, load_image
from going_modular.train import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("one_thread"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # of Pillow
]
NAMES = "with space,line\nbreak,🍕,-dash,naïve,a'b\"c,bad\udcffbyte,\x1b[2J".split(",")


def is_whole(image):
    return image.mode == "RGB" and image.size in ((48, 40), (40, 48))


def test_damaged_images(tmp_path, tally, capfd):
    """Each gets one line of the command, which agrees with what training reads."""
    data, count = dataset(tmp_path), 1000 * TIMES
    folder = data / "train" / "apple"
    for i, name, content in damaged(IMAGES, count):
        path = folder / f"{i} {NAMES[i % 7]}.{name}"
        path.write_bytes(content)
    assert predict.main([str(folder), "--json"]) == 1
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    lines = {line.pop("source"): line for line in lines}
    loaders = create_dataloaders(data / "train", data / "test", create_transform(64), 4)
    images = loaders[0].dataset
    numbers = {path: i for i, (path, _) in enumerate(images.samples)}
    numbers |= {path: None for path in lines if path.endswith(".gif")}  # not read there
    for path, i in numbers.items():
        call = (load_image, path) if i is None else (images.__getitem__, i)
        if path in lines:
            kind = "error" if tally.judge(path, path, *call) is None else "classes"
            assert kind in lines[path] and path in lines[path].get("error", path)
    assert tally.tried == len(lines) == count + 9


def test_odd_names(tmp_path, tally, capfd):
    """One line for each image, whatever it is called."""
    for name, content in IMAGES.items():
        for stem in NAMES:
            (tmp_path / f"{stem}.{name}").write_bytes(content)
    assert predict.main([str(tmp_path)]) == 0
    lines = capfd.readouterr().out.splitlines()
    for path in tmp_path.iterdir():
        tally.judge(path, path, load_image, path, fits=is_whole)
    assert len(lines) == tally.right and all(line.count("%") == 3 for line in lines)


def test_each_orientation(tmp_path, tally):
    """By value: an upright image as a camera stores it, turned by its number."""
    T, expected = Image.Transpose, np.asarray(SMOOTH, int)
    turns = [T.FLIP_LEFT_RIGHT, T.ROTATE_180, T.FLIP_TOP_BOTTOM, T.TRANSPOSE]
    turns = dict(enumerate([*turns, T.ROTATE_90, T.TRANSVERSE, T.ROTATE_270], 2))
    for kind in ("jpeg", "png", "webp", "tiff"):
        for number in (*range(10), 65535):
            image = SMOOTH.transpose(turns[number]) if number in turns else SMOOTH
            (path := tmp_path / "image").write_bytes(encoded(image, kind, number))
            found = np.asarray(load_image(path), int)
            same = found.shape == expected.shape and abs(found - expected).max() < 40
            tally.add(f"{kind} {number}", same)


def test_traps(tmp_path, tally):
    """Bombs, pipes, devices, folders and links: refused at once, and by name."""
    for name, content in bombs().items():
        (tmp_path / f"bomb.{name}").write_bytes(content)
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for i, target in enumerate(("nowhere", "3.jpg", "/dev/zero", "3.jpg")):
        (tmp_path / f"{i}.jpg").symlink_to(target)
    for path in tmp_path.iterdir():
        tally.judge(path, path, load_image, path, fits=lambda image: False)


BOTH = "for p in train test; do cd $p; {}; cd ..; done"
FINE = {  # what is done to the folder
    "macOS": "touch train/.DS_Store train/pear/._0.png; mkdir -p __MACOSX/train/pear",
    "Windows": "touch train/pear/Thumbs.db train/desktop.ini train/pear/desktop.ini",
    "Jupyter": BOTH.format(
        "mkdir .ipynb_checkpoints; cp pear/0.png .ipynb_checkpoints"
    ),
    "nested": "mkdir -p train/pear/a/b; mv train/pear/[1-5].png train/pear/a/b",
    "one folder down": "mkdir inner; mv t* inner",
    "capital endings": "mv train/pear/1.png train/pear/1.PNG",
    "one class": "rm -r */pear",
    "differ in case": BOTH.format("mv apple Pear"),
    "links": "mv train/pear p; ln -s ../p train/pear; mv p/1.png .; ln -s ../1.png p",
    "other letters": BOTH.format("mv pear 'crème 梨'"),
    "read-only": "chmod -R a-w .",
    "a class like a file": BOTH.format("mv pear p.png"),
}
UNFIT = {  # and what the error names
    "valid for test": ("mv test valid", "train and test"),
    "val for test": ("mv test val", "train and test"),
    "an empty class": ("mkdir train/fig test/fig", "fig"),
    "a class of texts": (BOTH.format("mkdir fig; touch fig/a.txt"), "fig"),
    "one image": ("rm train/pear/[1-8].png", "'pear'"),
    "other classes": ("mv test/pear test/plum", "the same class folders"),
    "other case": ("mv test/pear test/Pear", "the same class folders"),
    "no class": ("rm -r t*/*/", "the same class folders"),
    "a damaged image": ("echo > train/pear/1.png", "train/pear/1.png"),
    "a damaged test image": ("echo > test/pear/1.png", "test/pear/1.png"),
    "a pipe": ("mkfifo train/pear/x.png", "train/pear/x.png"),
    "a link to nothing": ("ln -s nowhere train/pear/x.png", "train/pear/x.png"),
    "a link in a circle": ("ln -s .. train/pear/up", "train/pear/up"),
    "unreadable": ("ln -s /proc/self/mem train/pear/x.png", "train/pear/x.png"),
}


def train_in(folder, change, capfd, *options):
    """Trains on what a change leaves of a dataset; returns the error, and the rest."""
    data = dataset(folder / "my données")
    subprocess.run(change, shell=True, cwd=data, check=True)
    words = ["--data", data, "--output", folder / "run", "--init", "scratch", *options]
    words += ["--img-size", "16", "--epochs", "1", "--batch-size", "9"]
    code, said = main(list(map(str, words))), capfd.readouterr()
    assert code == bool(said.err)
    return said.err, said.out


def test_folders_that_are_fine(tmp_path, capfd, tally):
    for kind, change in FINE.items():
        error, said = train_in(tmp_path / kind, change, capfd)
        count = 7 if kind == "one class" else 14
        tally.add(kind, f"\n{count} images to train" in said, error)


def test_folders_that_are_not(tmp_path, capfd, tally):
    """The same with and without worker processes that read the images."""
    for kind, (change, name) in UNFIT.items():
        for workers in range(1 + name.endswith(".png")):
            folder = tmp_path / f"{kind} {workers}"
            error, _ = train_in(folder, change, capfd, "--workers", workers)
            tally.add(kind, False, error, name)
