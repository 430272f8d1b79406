"""Cells of older notebooks run with another import line and nothing else changed."""

import os
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
import torchvision
from torch import nn
from torchinfo import summary
from torchvision import transforms

from going_modular import data_setup, engine, utils
from going_modular.encoder import TransformerEncoderBlock
from going_modular.mlp import MLPBlock
from going_modular.multihead_attention import MultiheadSelfAttentionBlock
from going_modular.patch_embedding import PatchEmbedding
from going_modular.predictions import pred_and_plot_image
from going_modular.vit import ViT
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
        [transforms.Resize((IMG_SIZE, IMG_SIZE)), transforms.ToTensor()]
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


def test_cells_of_the_encoder_and_the_model():
    set_seeds()
    patch_and_position_embedding = torch.randn(1, 197, 768)
    multihead_self_attention_block = MultiheadSelfAttentionBlock(
        embedding_dim=768, num_heads=12
    )
    patched_image_through_msa_block = multihead_self_attention_block(
        patch_and_position_embedding
    )
    assert patched_image_through_msa_block.shape == (1, 197, 768)

    mlp_block = MLPBlock(embedding_dim=768, mlp_size=3072, dropout=0.1)
    patched_image_through_mlp_block = mlp_block(patched_image_through_msa_block)
    assert patched_image_through_mlp_block.shape == (1, 197, 768)

    transformer_encoder_block = TransformerEncoderBlock()
    columns = ["input_size", "output_size", "num_params", "trainable"]
    of_the_block = summary(
        model=transformer_encoder_block,
        input_size=(1, 197, 768),
        col_names=columns,
        col_width=20,
        row_settings=["var_names"],
        verbose=0,
    )
    assert of_the_block.total_params == 7_087_872
    TransformerEncoderBlock(
        embedding_dim=768, num_heads=12, mlp_size=3072, mlp_dropout=0.1, attn_dropout=0
    )

    class_names = ["pizza", "steak", "sushi"]
    random_image_tensor = torch.randn(1, 3, 224, 224)
    vit = ViT(num_classes=len(class_names))
    assert vit(random_image_tensor).shape == (1, 3)
    of_the_model = summary(
        model=vit,
        input_size=(1, 3, 224, 224),
        col_names=columns,
        col_width=20,
        row_settings=["var_names"],
        verbose=0,
    )
    assert of_the_model.total_params == 85_800_963
    assert "[1, 3, 224, 224]" in str(of_the_model) and "head" in str(of_the_model)


def test_the_usual_arguments_by_name():
    with torch.device("meta"):
        vit = ViT(
            img_size=224,
            in_channels=3,
            patch_size=16,
            num_transformer_layers=12,
            embedding_dim=768,
            mlp_size=3072,
            num_heads=12,
            attn_dropout=0,
            mlp_dropout=0.1,
            embedding_dropout=0.1,
            num_classes=1000,
        )
    assert sum(p.numel() for p in vit.parameters()) == 86_567_656


def test_training_with_the_test_loader_in_third_place():
    """Then it validates: the history has `val_loss` and `val_acc` instead."""
    torch.manual_seed(0)
    images = torch.utils.data.TensorDataset(torch.randn(8, 4), torch.arange(8) % 3)
    model, loader = nn.Linear(4, 3), torch.utils.data.DataLoader(images, 4)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    args = (model, loader, loader, optimizer, nn.CrossEntropyLoss(), 2, "cpu")
    results = engine.train(*args)
    assert list(results) == ["train_loss", "train_acc", "val_loss", "val_acc"]
    plot_loss_curves(results)


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


def test_cells_of_training_saving_and_predicting(tmp_path, monkeypatch, capsys):
    """A pre-trained model of torchvision with a new head, small here."""
    monkeypatch.chdir(tmp_path)
    set_seeds()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    pretrained_vit = torchvision.models.VisionTransformer(32, 8, 1, 2, 32, 32)
    for parameter in pretrained_vit.parameters():
        parameter.requires_grad = False
    class_names = ["pizza", "steak", "sushi"]
    pretrained_vit.heads = nn.Linear(in_features=32, out_features=len(class_names))
    image_path = get_foodvision_mini()
    small = transforms.Compose([transforms.Resize((32, 32)), transforms.ToTensor()])
    loaders = data_setup.create_dataloaders(
        train_dir=image_path / "train",
        test_dir=image_path / "test",
        transform=small,
        batch_size=32,
    )
    train_dataloader_pretrained, test_dataloader_pretrained, class_names = loaders
    capsys.readouterr()

    optimizer = torch.optim.Adam(params=pretrained_vit.parameters(), lr=1e-3)
    loss_fn = torch.nn.CrossEntropyLoss()
    set_seeds()
    pretrained_vit_results = engine.train(
        model=pretrained_vit,
        train_dataloader=train_dataloader_pretrained,
        test_dataloader=test_dataloader_pretrained,
        optimizer=optimizer,
        loss_fn=loss_fn,
        epochs=2,
        device=device,
    )
    plot_loss_curves(pretrained_vit_results)
    assert "Epoch: 2 | train_loss: " in capsys.readouterr().out

    utils.save_model(
        model=pretrained_vit,
        target_dir="models",
        model_name="08_pretrained_vit_feature_extractor_pizza_steak_sushi.pth",
    )
    pretrained_vit_model_size = Path(
        "models/08_pretrained_vit_feature_extractor_pizza_steak_sushi.pth"
    ).stat().st_size // (1024 * 1024)
    assert pretrained_vit_model_size == 0

    custom_image_path = next((image_path / "test" / "pizza").iterdir())
    pred_and_plot_image(
        model=pretrained_vit,
        image_path=custom_image_path,
        class_names=class_names,
        image_size=(32, 32),
    )
