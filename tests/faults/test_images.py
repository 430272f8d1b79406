"""Damaged, hostile and oddly named images; folders as people have them."""

import json
import os
import subprocess

import numpy as np
import pytest
from damage import IMAGES, SMOOTH, TIMES, bombs, damaged, encoded
from pictures import TINY, draw_classes
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


def test_damaged_images(tmp_path, tally, capfd):
    """Each gets one line of the command, which agrees with what training reads."""
    data, count = draw_classes(tmp_path), 1000 * TIMES
    folder = data / "train" / "dark"
    for i, (name, content) in enumerate(damaged(IMAGES, count)):
        (folder / f"{i} {NAMES[i % 7]}.{name}").write_bytes(content)
    assert predict.main([str(folder), "--json"]) == 1
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    lines = {line.pop("source"): line for line in lines}
    loaders = create_dataloaders(data / "train", data / "test", create_transform(64), 4)
    images = loaders[0].dataset
    reads = {
        path: (images.__getitem__, i) for i, (path, _) in enumerate(images.samples)
    }
    for path, line in lines.items():  # training reads no .gif
        read = reads.get(path, (load_image, path))
        kind = "error" if tally.judge(path, *read) is None else "classes"
        assert kind in line and path in line.get("error", path)
    assert tally.row()[0] == len(lines) == count + 9
    assert {path.rpartition(".")[2] for path in lines.keys() - reads} == {"gif"}


def test_odd_names(tmp_path, tally, capfd):
    """One line for each image, whatever it is called."""
    for name, content in IMAGES.items():
        for stem in NAMES:
            (tmp_path / f"{stem}.{name}").write_bytes(content)
    assert predict.main([str(tmp_path)]) == 0
    lines = capfd.readouterr().out.splitlines()
    for path in tmp_path.iterdir():
        tally.judge(path, load_image, path, fits=lambda image: 48 in image.size)
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
        tally.judge(path, load_image, path, fits=lambda image: False)


FINE = {  # what is done to the folder
    "macOS": "touch train/.DS_Store train/dark/._0.png; mkdir __MACOSX train/__MACOSX",
    "Windows": "touch train/desktop.ini train/light/desktop.ini train/dark/Thumbs.db",
    "Jupyter": "for p in t* t*/dark; do cp -r test/light $p/.ipynb_checkpoints; done",
    "nested": "mkdir -p train/dark/a/b; mv train/dark/[1-5].png train/dark/a/b",
    "one folder down": "mkdir inner; mv t* inner",
    "capital endings": "mv train/dark/1.png train/dark/1.PNG",
    "one class": "rm -r */dark",
    "differ in case": "for p in t*; do mv $p/dark $p/Light; done",
    "links": "mv train/dark d; ln -s ../d train/dark; mv d/1.png .; ln -s ../1.png d",
    "other letters": "for p in t*; do mv $p/dark $p/'crème 梨'; done",
    "read-only": "chmod -R a-w .",
    "a class like a file": "for p in t*; do mv $p/dark $p/d.png; done",
}
UNFIT = {  # and what the error names
    "valid for test": ("mv test valid", "train and test"),
    "val for test": ("mv test val", "train and test"),
    "an empty class": ("mkdir train/fig test/fig", "fig"),
    "a class of texts": ("mkdir train/fig test/fig; touch train/fig/a.txt", "fig"),
    "one image": ("rm train/dark/[1-8].png", "'dark'"),
    "other classes": ("mv test/dark test/plum", "the same class folders"),
    "other case": ("mv test/dark test/Dark", "the same class folders"),
    "no class": ("rm -r t*/*/", "the same class folders"),
    "a damaged image": ("echo > train/dark/1.png", "train/dark/1.png"),
    "a damaged test image": ("echo > test/dark/1.png", "test/dark/1.png"),
    "a pipe": ("mkfifo train/dark/x.png", "train/dark/x.png"),
    "a link to nothing": ("ln -s nowhere train/dark/x.png", "train/dark/x.png"),
    "a link in a circle": ("ln -s .. train/dark/up", "train/dark/up"),
    "unreadable": ("ln -s /proc/self/mem train/dark/x.png", "train/dark/x.png"),
}
FOLDERS = {kind: (change, "") for kind, change in FINE.items()} | UNFIT


def test_folders_as_people_have_them(tmp_path, capfd, tally):
    """Images that cannot be read are named by worker processes, too."""
    for kind, (change, name) in FOLDERS.items():
        for workers in range(1 + name.endswith(".png")):
            data = draw_classes(tmp_path / f"{kind} {workers}" / "my données")
            subprocess.run(change, shell=True, cwd=data, check=True)
            words = [*TINY, "--epochs", 1, "--data", data, "--workers", workers]
            code = main([*map(str, words), "--output", str(data.parent / "run")])
            said, images = capfd.readouterr(), 7 if kind == "one class" else 14
            fits = not name and f"\n{images} images to train" in said.out
            tally.add(kind, fits, said.err, name)
            assert code == bool(said.err)
