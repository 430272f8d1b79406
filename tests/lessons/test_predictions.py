"""Predictions equal the steps by hand, for any picture, from a file or a server."""

import math
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torchvision.models import VisionTransformer
from torchvision.transforms import v2

import helper_functions
from going_modular import predictions
from going_modular.checkpoint import load_checkpoint
from going_modular.data_setup import IMAGENET_MEAN, IMAGENET_STD, create_transform
from going_modular.predictions import (
    pred_and_plot_image,
    pred_and_plot_images,
    predict,
    read_image,
    top_k,
    transform_of,
)
from going_modular.transfer import replace_head
from going_modular.vit import create_vit

NAMES = ["pizza", "steak", "sushi"]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def photo():
    """A smooth picture, 40 x 30, with a bright corner."""
    rows, columns = np.mgrid[0:30, 0:40]
    channels = [4 * columns, 8 * rows, 100 + 2 * columns + rows]
    return Image.fromarray(np.stack(channels, axis=2).astype(np.uint8))


@pytest.fixture
def model():
    torch.manual_seed(0)
    vit = create_vit("vit_mini_8", img_size=32, num_classes=3, mlp_dropout=0.5)
    nn.init.normal_(vit.head.weight, std=0.5)
    return vit


def by_hand(model, image, size=32):
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BILINEAR))
    x = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        logits = model.eval()(x)[0].double()
    shares = [math.exp(logit) for logit in logits.tolist()]
    return torch.tensor([share / sum(shares) for share in shares])


def test_shares_by_hand(tmp_path, photo, model):
    photo.save(tmp_path / "a.png")
    photo.rotate(90).save(tmp_path / "b.png")
    paths = [tmp_path / "a.png", str(tmp_path / "b.png")]
    model.train()  # must not matter
    found = predict(model, paths, image_size=(32, 32))
    assert found.shape == (2, 3) and not found.requires_grad
    for row, image in zip(found, (photo, photo.rotate(90)), strict=True):
        assert (row - by_hand(model, image)).abs().max() < 1e-6


@pytest.mark.parametrize("batch_size", [1, 2, 5, 100])
def test_any_batch_size_keeps_the_order(tmp_path, photo, model, batch_size):
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        photo.rotate(70 * i).save(path)
    found = predict(model, paths, (32, 32), batch_size=batch_size)
    each = torch.cat([predict(model, [path], (32, 32)) for path in paths])
    assert (found - each).abs().max() < 1e-6
    assert len({tuple(row) for row in each.tolist()}) == 5


def stored(folder, photo, kind):
    """The picture stored in another way, and the RGB picture that it stands for."""
    grey = photo.convert("L")
    path = folder / f"{kind}.png"
    if kind == "grey":
        grey.save(path)
        return path, grey.convert("RGB")
    if kind == "16-bit":
        Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(path)
        return path, grey.convert("RGB")
    if kind == "palette":
        few = photo.quantize(16)
        few.save(path)
        return path, few.convert("RGB")
    if kind == "CMYK":
        path = path.with_suffix(".tif")
        photo.convert("CMYK").save(path)
        return path, photo.convert("CMYK").convert("RGB")
    if kind == "transparent":
        pixels = np.dstack([np.asarray(photo), np.full((30, 40), 255, np.uint8)])
        pixels[:10, :, 3] = 0
        Image.fromarray(pixels, "RGBA").save(path)
        pixels[:10, :, :3] = 255
        return path, Image.fromarray(pixels[:, :, :3].copy())
    if kind == "rotated":
        turned = photo.transpose(Image.Transpose.ROTATE_90)
        exif = turned.getexif()
        exif[0x0112] = 6
        turned.save(path, exif=exif)
        return path, photo
    if kind == "1 x 1":
        dot = Image.new("RGB", (1, 1), (200, 30, 60))
        dot.save(path)
        return path, dot
    large = photo.resize((4000, 3000))
    large.save(path.with_suffix(".jpg"), quality=95)
    return path.with_suffix(".jpg"), Image.open(path.with_suffix(".jpg"))


KINDS = ["grey", "16-bit", "palette", "CMYK", "transparent", "rotated", "1 x 1", "12 M"]


@pytest.mark.parametrize("kind", KINDS)
def test_any_picture(tmp_path, photo, model, kind):
    path, expected = stored(tmp_path, photo, kind)
    assert np.array_equal(np.asarray(read_image(path)), np.asarray(expected))
    expected.save(tmp_path / "plain.png")
    found = predict(model, [path, tmp_path / "plain.png"], (32, 32))
    assert torch.equal(found[0], found[1])


@pytest.mark.parametrize("content", [b"", b"Flour, water, salt", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_is_named(tmp_path, photo, model, content):
    photo.save(tmp_path / "good.png")
    (tmp_path / "bad.jpg").write_bytes(content)
    with pytest.raises(ValueError, match="bad.jpg cannot be read"):
        predict(model, [tmp_path / "good.png", tmp_path / "bad.jpg"], (32, 32))
    with pytest.raises(ValueError, match="missing.jpg cannot be read"):
        predict(model, [tmp_path / "missing.jpg"], (32, 32))


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path):
    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path))
    Thread(target=served.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def test_a_picture_from_a_server(tmp_path, photo, model, server, monkeypatch):
    photo.save(tmp_path / "dinner.png")
    (tmp_path / "page.html").write_text("<p>no picture</p>")
    found = predict(model, [f"{server}/dinner.png"], (32, 32))
    assert torch.equal(found, predict(model, [tmp_path / "dinner.png"], (32, 32)))
    with pytest.raises(ValueError, match="page.html holds no readable image"):
        read_image(f"{server}/page.html")
    with pytest.raises(ValueError, match="nothing.png cannot be fetched: 404"):
        read_image(f"{server}/nothing.png")
    monkeypatch.setattr(predictions, "TIMEOUT", 0.5)
    with pytest.raises(ValueError, match="127.0.0.1:9/x.png cannot be fetched"):
        read_image("http://127.0.0.1:9/x.png")


def test_which_transform_is_chosen(photo):
    vit = create_vit("vit_mini_8", num_classes=3)
    with pytest.warns(UserWarning, match="this ViT is not known.* guess"):
        plain, _ = transform_of(vit, (64, 64)), vit.requires_grad_(False)
    assert torch.equal(plain(photo), create_transform(64)(photo))
    vit.preprocessing = {"img_size": 32, "mean": [0.5] * 3, "std": [0.25] * 3}
    own = create_transform(32, (0.5,) * 3, (0.25,) * 3)
    theirs = VisionTransformer(32, 8, 1, 1, 16, 16, num_classes=3)
    imagenet = create_transform(32, IMAGENET_MEAN, IMAGENET_STD)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is known needs no warning
        assert torch.equal(transform_of(vit, (64, 64))(photo), own(photo))
        assert torch.equal(transform_of(theirs, (32, 32))(photo), imagenet(photo))


def test_a_model_of_torchvision_and_a_transform_of_ones_own(tmp_path, photo):
    torch.manual_seed(0)
    theirs = VisionTransformer(32, 8, 1, 1, 16, 16, num_classes=3)
    nn.init.normal_(theirs.heads.head.weight)
    photo.save(tmp_path / "a.png")
    found = predict(theirs, [tmp_path / "a.png"], (32, 32))
    x = create_transform(32, IMAGENET_MEAN, IMAGENET_STD)(photo)
    with torch.no_grad():
        assert torch.allclose(found, theirs.eval()(x[None]).softmax(dim=1))
    crop = v2.Compose([v2.CenterCrop(32), *create_transform(32).transforms[1:]])
    found = predict(theirs, [tmp_path / "a.png"], transform=crop)
    with torch.no_grad():
        assert torch.allclose(found, theirs(crop(photo)[None]).softmax(dim=1))


def test_the_checkpoint_brings_its_transform(tmp_path, photo):
    vit, metadata = load_checkpoint()
    replace_head(vit, 3)
    nn.init.normal_(vit.head.weight, std=0.5)
    photo.save(tmp_path / "a.png")
    x = create_transform(**metadata["preprocessing"])(photo)
    with torch.no_grad():
        expected = vit(x[None]).softmax(dim=1)
    assert torch.allclose(predict(vit, [tmp_path / "a.png"]), expected)


def test_top_k():
    probabilities = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3]])
    best = top_k(probabilities, NAMES, 2)
    assert [[name for name, _ in row] for row in best] == [
        ["steak", "sushi"],
        ["pizza", "sushi"],
    ]
    assert best[0][0][1] == pytest.approx(0.5)
    with pytest.raises(ValueError, match="3 classes, got 2 names"):
        top_k(probabilities, NAMES[:2])
    for k in (0, 4):
        with pytest.raises(ValueError, match=f"k must be between 1 and 3, got {k}"):
            top_k(probabilities, NAMES, k)


def test_no_pictures_and_no_batch(tmp_path, photo, model):
    photo.save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="at least one image"):
        predict(model, [])
    with pytest.raises(ValueError, match="batch_size"):
        predict(model, [tmp_path / "a.png"], (32, 32), batch_size=0)


def test_titles_of_the_plots(tmp_path, photo, model, monkeypatch):
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    photo.save(paths[0])
    photo.rotate(90).save(paths[1])
    seen = []
    monkeypatch.setattr(predictions, "show_images", lambda *a, **k: seen.append(a))
    pred_and_plot_images(model, NAMES, paths, (32, 32))
    pred_and_plot_image(model, NAMES, paths[1], (32, 32))
    probabilities = predict(model, paths, (32, 32))
    expected = [
        f"Pred: {NAMES[row.argmax()]} | Prob: {row.max():.3f}" for row in probabilities
    ]
    (pictures, titles), (_, title) = seen
    assert titles == expected and title == expected[1:]
    assert np.array_equal(np.asarray(pictures[0]), np.asarray(photo))
    with pytest.raises(ValueError, match="3 classes, got 2 names"):
        pred_and_plot_image(model, NAMES[:2], paths[0], (32, 32))


def test_it_draws(tmp_path, photo, model, monkeypatch):
    shown = []
    monkeypatch.setattr(helper_functions, "show", lambda fig, alt: shown.append(alt))
    photo.save(tmp_path / "a.png")
    pred_and_plot_image(model, NAMES, tmp_path / "a.png", (32, 32))
    assert "Pred: " in shown[0]
