"""Cells of older notebooks run with another import line and nothing else changed."""

import os
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from torchvision import transforms

from going_modular import data_setup
from going_modular.patch_embedding import PatchEmbedding
from helper_functions import (
    download_data,
    get_foodvision_mini,
    plot_loss_curves,
    set_seeds,
    walk_through_dir,
)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def url(tmp_path):
    with zipfile.ZipFile(tmp_path / "pizza_steak_sushi.zip", "w") as archive:
        root = get_foodvision_mini()
        for split in ("train", "test"):
            for name in ("pizza", "steak", "sushi"):
                for path in sorted((root / split / name).iterdir())[:12]:
                    archive.write(path, path.relative_to(root))
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/pizza_steak_sushi.zip"
    server.shutdown()
    server.server_close()


def test_cells_of_the_data_chapter(url, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    image_path = download_data(source=url, destination="pizza_steak_sushi")
    train_dir = image_path / "train"
    test_dir = image_path / "test"
    walk_through_dir(image_path)
    assert "There are 0 directories and 12 images in" in capsys.readouterr().out

    IMG_SIZE = 224
    manual_transforms = transforms.Compose(
        [
            transforms.Resize((IMG_SIZE, IMG_SIZE)),
            transforms.ToTensor(),
        ]
    )
    BATCH_SIZE = 32
    train_dataloader, test_dataloader, class_names = data_setup.create_dataloaders(
        train_dir=train_dir,
        test_dir=test_dir,
        transform=manual_transforms,
        batch_size=BATCH_SIZE,
    )
    image_batch, label_batch = next(iter(train_dataloader))
    image, label = image_batch[0], label_batch[0]
    assert image.shape == (3, 224, 224) and class_names[label] in class_names

    set_seeds()
    patch_size = 16
    patchify = PatchEmbedding(in_channels=3, patch_size=patch_size, embedding_dim=768)
    patch_embedded_image = patchify(image.unsqueeze(0))
    assert patch_embedded_image.shape == (1, 196, 768)

    # A string works where a Path does, and so does a number of workers.
    assert os.path.isdir(str(train_dir))
    data_setup.create_dataloaders(
        train_dir=str(train_dir),
        test_dir=str(test_dir),
        transform=manual_transforms,
        batch_size=BATCH_SIZE,
        num_workers=data_setup.NUM_WORKERS,
    )


def test_loss_curves_of_a_results_dictionary():
    results = {
        "train_loss": [1.1, 0.9],
        "train_acc": [0.3, 0.5],
        "test_loss": [1.1, 1.0],
        "test_acc": [0.3, 0.4],
    }
    plot_loss_curves(results)


def test_seeds_with_and_without_an_argument():
    set_seeds()
    first = torch.rand(3)
    set_seeds(seed=42)
    assert torch.equal(first, torch.rand(3))
    set_seeds(7)
    assert not torch.equal(first, torch.rand(3))


def test_the_folder_is_a_path():
    assert isinstance(get_foodvision_mini(), Path)
