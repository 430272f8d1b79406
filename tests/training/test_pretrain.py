"""Appendix A2: pictures read and split, and a run that ends in a checkpoint."""

import ast
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from going_modular import engine, pretrain
from going_modular.checkpoint import load_checkpoint
from going_modular.position_embedding import interpolate_position_embedding
from going_modular.pretrain import (
    create_loaders,
    list_images,
    load_images,
    main,
    top_k_accuracy,
)

ROOT = Path(__file__).resolve().parents[2]


pytestmark = pytest.mark.usefixtures("one_thread")


def noise(seed, size=8):
    numbers = np.random.default_rng(seed).integers(0, 256, (size, size, 3))
    return numbers.astype(np.uint8)


def save(array, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path, **options)
    return path


def pack(folder, archive, prefix=""):
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(folder.rglob("*")):
            file.write(path, prefix + path.relative_to(folder).as_posix())
    return archive


# Lists of pictures


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


MIXED = ["b/2.jpg", "b/10.PNG", "a/x.jpeg", "a/y.webp"]
IGNORED = ["a/notes.txt", "c/moving.gif", "top.jpg", "labels.csv"]
CLASSES_AND_NAMES = [
    ("a", "a/x.jpeg"),
    ("a", "a/y.webp"),
    ("b", "b/10.PNG"),
    ("b", "b/2.jpg"),
]


def test_pictures_of_a_folder_and_of_a_zip(tmp_path):
    folder = touch(tmp_path / "food", *MIXED, *IGNORED)
    assert list_images(folder) == CLASSES_AND_NAMES
    assert list_images(str(folder)) == CLASSES_AND_NAMES
    assert list_images(pack(folder, tmp_path / "food.zip")) == CLASSES_AND_NAMES


@pytest.mark.parametrize("prefix", ["images/", "food-101/images/"])
def test_the_last_folder_is_the_class(tmp_path, prefix):
    folder = touch(tmp_path / "food", *MIXED)
    expected = [(kind, prefix + name) for kind, name in CLASSES_AND_NAMES]
    assert list_images(pack(folder, tmp_path / "food.zip", prefix)) == expected
    nested = touch(tmp_path / "nested", *(prefix + name for name in MIXED))
    assert list_images(nested) == expected


def test_hidden_files_are_no_pictures(tmp_path):
    """macOS puts such files into zips, Jupyter into folders."""
    hidden = ["__MACOSX/a/._x.jpg", "a/._x.jpg", "b/.ipynb_checkpoints/2.jpg"]
    folder = touch(tmp_path / "food", *MIXED, *hidden)
    assert list_images(pack(folder, tmp_path / "food.zip")) == CLASSES_AND_NAMES
    assert list_images(folder) == CLASSES_AND_NAMES


def test_sources_without_pictures(tmp_path):
    (tmp_path / "empty").mkdir()
    sources = {
        "holds no images": [
            tmp_path / "empty",
            touch(tmp_path / "others", *IGNORED),
            pack(tmp_path / "empty", tmp_path / "empty.zip"),
        ],
        "neither a folder nor a zip": [
            tmp_path / "missing",
            touch(tmp_path, "text.zip") / "text.zip",
        ],
    }
    for message, paths in sources.items():
        for path in paths:
            with pytest.raises(ValueError, match=message) as caught:
                list_images(path)
            assert str(path) in str(caught.value)


# Pictures in memory


@pytest.fixture
def noisy(tmp_path):
    """Pictures of noise, two of each class; `noise(2 * class + number)`."""
    for k, kind in enumerate(("apple", "bread", "pizza", "soup")):
        for i in range(2):
            save(noise(2 * k + i), tmp_path / "food" / kind / f"{i}.png")
    return tmp_path / "food"


def stacked(*seeds):
    return torch.stack([torch.from_numpy(noise(i)).permute(2, 0, 1) for i in seeds])


def test_pictures_are_read_pixel_for_pixel(noisy, tmp_path):
    archive = pack(noisy, tmp_path / "food.zip", "food-101/images/")
    for source in (noisy, str(noisy), archive):
        images, labels, classes = load_images([source], 8)
        assert classes == ["apple", "bread", "soup"], "pizza is for lesson 12"
        assert labels.tolist() == [0, 0, 1, 1, 2, 2] and labels.dtype == torch.int64
        assert images.dtype == torch.uint8
        assert torch.equal(images, stacked(0, 1, 2, 3, 6, 7))


def test_classes_that_are_left_out(noisy):
    images, labels, classes = load_images([noisy], 8, left_out=("apple", "soup"))
    assert classes == ["bread", "pizza"] and labels.tolist() == [0, 0, 1, 1]
    assert torch.equal(images, stacked(2, 3, 4, 5))
    assert load_images([noisy], 8, left_out=())[2] == sorted(os.listdir(noisy))
    with pytest.raises(ValueError, match=r"at least two classes, got \['soup'\]"):
        load_images([noisy], 8, left_out=("apple", "bread", "pizza"))


def test_several_sources_share_their_classes(noisy, tmp_path):
    more = tmp_path / "more"
    save(noise(20), more / "soup" / "0.png")
    save(noise(21), more / "waffles" / "0.png")
    archive = pack(more, tmp_path / "more.zip")
    images, labels, classes = load_images([archive, noisy], 8)
    assert classes == ["apple", "bread", "soup", "waffles"]
    assert labels.tolist() == [2, 3, 0, 0, 1, 1, 2, 2]
    assert torch.equal(images, stacked(20, 21, 0, 1, 2, 3, 6, 7))


def test_pictures_of_another_size_are_resized(tmp_path):
    for size, kind in ((8, "a"), (40, "b")):
        save(noise(1, size), tmp_path / kind / "0.png")
    images, _, _ = load_images([tmp_path], 16)
    assert images.shape == (2, 3, 16, 16)
    for image, size in zip(images, (8, 40), strict=True):
        x = torch.from_numpy(noise(1, size)).permute(2, 0, 1)[None].float()
        options = {"mode": "bilinear", "antialias": True}  # as `create_transform`
        expected = nn.functional.interpolate(x, (16, 16), **options)
        assert (image.float() - expected[0]).abs().max() <= 1


@pytest.mark.parametrize("size", [(30, 20), (20, 30), (29, 20), (20, 33)])
def test_the_middle_of_an_image_is_kept_with_its_proportions(tmp_path, size):
    """With strips on two sides it is the image that it would be without them."""
    width, height = size
    array, side = np.zeros((height, width, 3), np.uint8), min(size)
    top, left = round((height - side) / 2), round((width - side) / 2)
    array[top : top + side, left : left + side] = noise(4, side)
    save(array, tmp_path / "a" / "striped.png")
    save(noise(4, side), tmp_path / "b" / "plain.png")
    for img_size in (10, 20):
        striped, plain = load_images([tmp_path], img_size)[0]
        assert torch.equal(striped, plain)


def first_picture(folder):
    """Reads the only picture of the class "a", beside one of another class."""
    save(noise(0), folder / "b" / "0.png")
    images, labels, _ = load_images([folder], 8)
    assert labels.tolist() == [0, 1]
    return images[0].permute(1, 2, 0).numpy()


def test_a_picture_on_its_side_is_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    save(noise(5), tmp_path / "a" / "phone.png", exif=exif)
    np.testing.assert_array_equal(first_picture(tmp_path), np.rot90(noise(5), -1))


def test_grey_pictures(tmp_path):
    grey = noise(5)[..., 0]
    assert Image.open(save(grey, tmp_path / "a" / "0.png")).mode == "L"
    found = first_picture(tmp_path)
    for channel in range(3):
        np.testing.assert_array_equal(found[..., channel], grey)


@pytest.mark.parametrize("mode, channels", [("LA", [0, 0, 0]), ("RGBA", [0, 1, 2])])
def test_what_is_see_through_becomes_white(tmp_path, mode, channels):
    colour = noise(5)[..., : len(mode) - 1]
    see_through = (np.indices((8, 8)).sum(0) % 3 == 0)[..., None]
    alpha = np.where(see_through, 0, 255).astype(np.uint8)
    array = np.concatenate([colour, alpha], axis=2)
    assert Image.open(save(array, tmp_path / "a" / "0.png")).mode == mode
    expected = np.where(see_through, 255, colour[..., channels])
    np.testing.assert_array_equal(first_picture(tmp_path), expected)


def test_a_picture_with_a_palette(tmp_path):
    colours = noise(6).reshape(-1, 3)
    indices = np.random.default_rng(7).integers(0, 64, (8, 8)).astype(np.uint8)
    picture = Image.fromarray(indices).convert("P")
    picture.putpalette(colours.tobytes())
    (tmp_path / "a").mkdir()
    picture.save(tmp_path / "a" / "0.png")
    assert Image.open(tmp_path / "a" / "0.png").mode == "P"
    np.testing.assert_array_equal(first_picture(tmp_path), colours[indices])


def test_a_picture_for_printers(tmp_path):
    (tmp_path / "a").mkdir()
    ink = Image.new("CMYK", (8, 8), (0, 255, 255, 0))  # yellow and magenta: red
    ink.save(tmp_path / "a" / "0.jpg", quality=100)
    assert Image.open(tmp_path / "a" / "0.jpg").mode == "CMYK"
    difference = first_picture(tmp_path).astype(int) - [255, 0, 0]
    assert np.abs(difference).max() < 4


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("content", [b"", b"not a picture", "half"])
def test_a_broken_picture_is_named(noisy, tmp_path, packed, content):
    path = noisy / "bread" / "1.png"
    path.write_bytes(path.read_bytes()[:60] if content == "half" else content)
    source = pack(noisy, tmp_path / "food.zip", "deep/") if packed else noisy
    with pytest.raises(ValueError, match=r"bread/1\.png cannot be read") as caught:
        load_images([source], 8)
    assert str(source) in str(caught.value)


# Loaders


def plain_pictures(number=40, size=8):
    """Pictures of one colour each, which no crop or flip changes."""
    values = torch.arange(number, dtype=torch.uint8)
    images = values[:, None, None, None].expand(-1, 3, size, size).contiguous()
    return images, torch.arange(number) % 7


def shown(loader):
    """Which of the plain pictures a loader gives; checks that labels go with them."""
    found = []
    for x, labels in loader:
        values = (x.amin((1, 2, 3)) + 1) / 2 * 255  # pixels in -1 … 1
        numbers = values.round().long()
        torch.testing.assert_close(values, numbers.float(), atol=1e-3, rtol=0)
        assert torch.equal(labels, numbers % 7)
        found += numbers.tolist()
    return found


def test_the_split_keeps_training_and_validation_apart():
    train, val = create_loaders(*plain_pictures(), 8, 16, 1000, val_fraction=0.2)
    first, held_out = shown(train), shown(val)
    assert len(first) == 32 and len(held_out) == 8
    assert sorted(first + held_out) == list(range(40))
    assert held_out != sorted(held_out), "drawn at random"
    assert shown(val) == held_out
    second = shown(train)
    assert second != first and sorted(second) == sorted(first)
    assert [len(x) for x, _ in train] == [16, 16]


def test_a_twentieth_is_held_out():
    train, val = create_loaders(*plain_pictures(100), 8, 16, 1000)
    assert len(train.dataset) == 95 and len(val.dataset) == 5


def test_a_seed_gives_the_same_loaders():
    def both(seed):
        loaders = create_loaders(*plain_pictures(), 8, 16, 1000, seed)
        return [shown(loader) for loader in loaders]

    assert both(1) == both(1)
    assert both(1)[1] != both(2)[1], "another split"
    torch.manual_seed(0)
    first = both(1)
    torch.manual_seed(1)
    assert both(1) == first, "whatever the global seed is"


def test_an_epoch_may_be_shorter():
    train, val = create_loaders(*plain_pictures(), 8, 16, 20, val_fraction=0.1)
    assert [len(x) for x, _ in train] == [16, 4] and len(train) == 2
    epochs = [shown(train) for _ in range(8)]
    assert all(len(set(epoch)) == 20 for epoch in epochs), "without repetition"
    seen = {number for epoch in epochs for number in epoch}
    assert len(seen) == 36, "in time, all"
    assert not seen & set(shown(val))


def test_validation_pictures_are_only_resized_and_normalised():
    images = torch.stack([torch.from_numpy(noise(i)) for i in range(20)])
    images = images.permute(0, 3, 1, 2).contiguous()
    labels = torch.arange(20)
    for size in (8, 4):
        _, val = create_loaders(images, labels, size, 4, 100, val_fraction=0.5)
        ((x, numbers),) = val
        assert x.shape == (10, 3, size, size) and x.dtype == torch.float32
        expected = images[numbers].float()
        expected = nn.functional.interpolate(
            expected, (size, size), mode="bilinear", antialias=True
        )
        atol = 1e-6 if size == 8 else 1 / 127.5  # resized bytes are rounded
        torch.testing.assert_close(x, expected / 127.5 - 1, atol=atol, rtol=0)


def test_validation_keeps_the_centre():
    """Ten rows and columns with their own brightness: 0.8 of them are the middle 8."""
    images = torch.arange(10, dtype=torch.uint8).repeat(20, 3, 10, 1)
    labels = torch.zeros(20, dtype=torch.int64)
    train, val = create_loaders(images, labels, 8, 4, 100, crop_pct=0.8)
    x, _ = next(iter(val))
    found = (x[0, 0, 0] + 1) * 127.5
    torch.testing.assert_close(found, torch.arange(1.0, 9.0), atol=1e-3, rtol=0)


@pytest.mark.parametrize("share", [0, -1, 1.5])
def test_a_crop_that_is_none(share):
    with pytest.raises(ValueError, match="crop_pct must be in"):
        create_loaders(*plain_pictures(20), 8, 4, 100, crop_pct=share)


def halves(number=200, size=32):
    """Black on the left, white on the right."""
    images = torch.zeros(number, 3, size, size, dtype=torch.uint8)
    images[..., size // 2 :] = 255
    return images, torch.zeros(number, dtype=torch.int64)


def test_training_pictures_are_flipped_and_cropped():
    torch.manual_seed(0)
    train, val = create_loaders(*halves(), 32, 200, 1000)
    ((x, _),) = train
    assert x.shape == (190, 3, 32, 32)
    assert -1 <= x.min() and x.max() <= 1
    white = (x.mean(1) > 0).float().mean((1, 2))
    assert 0.05 < white.std() < 0.3, "the crops differ"
    right = x[..., -1].mean((1, 2)) > 0
    left = x[..., 0].mean((1, 2)) > 0
    only_one = left ^ right  # where the crop shows both halves
    assert only_one.sum() > 100
    assert 0.35 < left[only_one].float().mean() < 0.65, "half of them flipped"
    ((x, _),) = val
    assert (x[..., :16] == -1).all() and (x[..., 16:] == 1).all()


def test_randaugment_only_when_asked_for():
    images, labels = plain_pictures(100, 16)
    images += 100
    colours = {}
    for magnitude in (0, 9):
        torch.manual_seed(0)
        train, _ = create_loaders(images, labels, 16, 100, 1000, rand_augment=magnitude)
        ((x, numbers),) = train
        colours[magnitude] = x.flatten(1)
    assert torch.equal(colours[0].amin(1), colours[0].amax(1))
    assert (colours[9].amin(1) != colours[9].amax(1)).float().mean() > 0.2


@pytest.mark.parametrize("number, fraction", [(1, 0.05), (1, 0.5), (10, 0), (10, 1)])
def test_too_few_pictures_for_a_split(number, fraction):
    with pytest.raises(ValueError, match=f"{number} images cannot be split"):
        create_loaders(*plain_pictures(number), 8, 4, 100, val_fraction=fraction)


def test_a_few_pictures_leave_one_for_validation():
    train, val = create_loaders(*plain_pictures(6), 8, 4, 100)
    assert len(train.dataset) == 5 and len(val.dataset) == 1


# Accuracy


def test_top_k_accuracy_by_hand():
    logits = torch.tensor(
        [[5.0, 1, 2, 3], [0, 9, 8, 7], [4, 3, 2, 1], [1, 2, 3, 4], [6, 7, 8, 5]]
    )
    labels = torch.tensor([0, 3, 1, 0, 2])  # 1st, 3rd, 2nd, 4th and 1st largest
    loader = [(logits[:4], labels[:4]), (logits[4:], labels[4:])]
    expected = {1: 2 / 5, 2: 3 / 5, 3: 4 / 5, 4: 1}
    for k, share in expected.items():
        assert top_k_accuracy(nn.Identity(), loader, k) == pytest.approx(share)


def test_accuracy_is_measured_without_dropout():
    model = nn.Dropout(0.9).train()
    logits = torch.eye(50) + 1
    assert top_k_accuracy(model, [(logits, torch.arange(50))], 1) == 1
    assert not model.training


# A whole run

COLOURS = {
    "apples": (220, 40, 30),
    "bread": (200, 150, 80),
    "curry": (230, 200, 20),
    "dumplings": (240, 240, 235),
    "eggplant": (70, 20, 90),
    "figs": (20, 90, 40),
}


def draw(folder, kinds, number=20):
    """Pictures of a colour for each class, with some noise."""
    random = np.random.default_rng(0)
    for kind in kinds:
        for i in range(number):
            array = random.normal(COLOURS[kind], 12, (16, 16, 3))
            path = folder / kind / f"{i:02}.png"
            save(array.clip(0, 255).astype(np.uint8), path)
    return folder


@pytest.fixture(scope="module")
def food(tmp_path_factory):
    return draw(tmp_path_factory.mktemp("data") / "food", COLOURS)


def arguments(data, output, **options):
    """A run of 114 pictures an epoch; six of 120 are held out."""
    options = {
        "data": data,
        "output": output,
        "img_size": 16,
        "samples": 342,
        "batch_size": 32,
        "warmup": 2,
        "device": "cpu",
    } | options
    words = []
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", str(value)]
    return words


@pytest.fixture(scope="module")
def finished(food, tmp_path_factory):
    """A run of three epochs and the folder that it wrote."""
    output = tmp_path_factory.mktemp("run") / "a" / "b"
    assert main(arguments(food, output)) == output / "checkpoint.safetensors"
    return output


def test_a_run_learns_and_writes_its_files(finished):
    assert sorted(os.listdir(finished)) == [
        "arguments.json",
        "checkpoint.safetensors",
        "history.json",
        "run.pt",
    ]
    history = json.loads((finished / "history.json").read_text())
    names = ["train_loss", "train_acc", "val_loss", "val_acc"]
    assert list(history) == names and {len(v) for v in history.values()} == {3}
    assert history["train_loss"][2] < 0.8 * history["train_loss"][0]
    assert history["train_acc"][2] > 2 / 6


def test_the_checkpoint_says_how_it_was_made(finished):
    model, metadata = load_checkpoint(finished / "checkpoint.safetensors")
    assert metadata["class_names"] == list(COLOURS)
    assert metadata["config"]["name"] == "vit_mini_8"
    assert (
        metadata["config"]["img_size"] == 16 and metadata["config"]["num_classes"] == 6
    )
    half = [0.5, 0.5, 0.5]
    own = {"img_size": 16, "mean": half, "std": half, "crop_pct": 0.8}
    assert model.preprocessing == own
    assert metadata["facts"]["samples_seen"] == 3 * 114
    assert metadata["facts"]["val_pictures"] == 6


def hits(model, loader, k):
    """How many right classes are among the k best, counted one by one."""
    found = 0
    for x, labels in loader:
        with torch.no_grad():
            for scores, label in zip(model(x).tolist(), labels.tolist(), strict=True):
                found += sum(score > scores[label] for score in scores) < k
    return found


def test_the_checkpoint_has_the_accuracy_that_was_printed(tmp_path, capsys):
    """On pictures of noise nothing is right for all, nor wrong for all."""
    food = tmp_path / "noise"
    for i in range(360):
        save(noise(i), food / str(i % 6) / f"{i}.png")
    path = main(arguments(food, tmp_path / "run", samples=200, epoch_size=100, seed=3))
    printed = ast.literal_eval(capsys.readouterr().out.splitlines()[-1])
    model, metadata = load_checkpoint(path)
    assert printed == metadata["facts"]
    images, labels, _ = load_images([food], 64)
    _, val = create_loaders(images, labels, 16, 32, 1000, seed=3, crop_pct=0.8)
    for k, name in ((1, "val_top1"), (5, "val_top5")):
        assert printed[name] == pytest.approx(hits(model, val, k) / 18), name
    assert printed["val_top1"] < printed["val_top5"]
    history = json.loads((path.parent / "history.json").read_text())
    assert history["val_acc"][-1] == pytest.approx(printed["val_top1"])


ALL_RANDOMNESS = {"mixup": 0.2, "rand_augment": 5, "dropout": 0.1, "epoch_size": 70}


def test_an_interrupted_run_ends_with_the_same_weights(food, tmp_path, monkeypatch):
    options = ALL_RANDOMNESS | {"samples": 210}
    whole = main(arguments(food, tmp_path / "whole", **options))
    save, saved = engine.Run.save, []

    def save_twice(run):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(save(run))

    words = arguments(food, tmp_path / "parts", **options)
    with monkeypatch.context() as patch:
        patch.setattr(engine.Run, "save", save_twice)
        with pytest.raises(KeyboardInterrupt):
            main(words)
    assert sorted(os.listdir(tmp_path / "parts")) == ["arguments.json", "run.pt"]
    parts = main(words)
    histories = [path.with_name("history.json").read_text() for path in (whole, parts)]
    assert histories[0] == histories[1]
    assert same_weights(whole, parts)


def same_weights(path, other):
    first, second = load_file(path), load_file(other)
    assert set(first) == set(second)
    return all(torch.equal(first[name], second[name]) for name in first)


def test_a_finished_run_is_not_trained_again(food, finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    again = main(arguments(food, tmp_path / "run"))
    assert same_weights(again, finished / "checkpoint.safetensors")
    assert "Epoch" not in capsys.readouterr().out


def test_going_on_at_another_image_size(food, finished, tmp_path):
    start = finished / "checkpoint.safetensors"
    # With a learning rate of 0 the weights stay as they are loaded.
    path = main(arguments(food, tmp_path, img_size=32, init=start, samples=1, lr=0))
    old, new = load_file(start), load_file(path)
    positions = "embedding.position_embedding.weight"
    grids = ((2, 2), (4, 4))
    expected = interpolate_position_embedding(old[positions].float(), *grids).half()
    assert set(new) == set(old)
    for name, tensor in new.items():
        assert torch.equal(tensor, expected if name == positions else old[name]), name
    model, metadata = load_checkpoint(path)
    assert model(torch.rand(1, 3, 32, 32)).shape == (1, 6)
    assert metadata["preprocessing"]["img_size"] == metadata["config"]["img_size"] == 32
    assert metadata["facts"]["samples_seen"] == (3 + 1) * 114


def test_without_init_training_begins_anew(food, finished, tmp_path):
    path = main(arguments(food, tmp_path, samples=1, lr=0))
    old, new = load_file(finished / "checkpoint.safetensors"), load_file(path)
    assert not torch.equal(new["head.weight"], old["head.weight"])
    assert not torch.equal(
        new["encoder.0.mlp_block.mlp.0.weight"], old["encoder.0.mlp_block.mlp.0.weight"]
    )
    assert load_checkpoint(path)[1]["facts"]["samples_seen"] == 114


def test_validation_chooses_no_epoch(food, tmp_path, monkeypatch):
    """The weights are those of the last epoch, though an earlier one was better."""
    accuracies, last = iter([0.9, 0.5, 0.1]), {}

    def measure(model, *args, **options):
        last.update({name: t.clone() for name, t in model.state_dict().items()})
        return 1.0, next(accuracies)

    monkeypatch.setattr(engine, "test_step", measure)
    path = main(arguments(food, tmp_path / "run"))
    history = json.loads(path.with_name("history.json").read_text())
    assert history["val_acc"] == [0.9, 0.5, 0.1]
    for name, tensor in load_file(path).items():
        assert torch.equal(tensor, last[name].half()), name
    assert torch.load(path.with_name("run.pt"), weights_only=True)["best"] is None


def test_a_run_begun_before_validation_had_its_name_goes_on(
    food, finished, tmp_path, monkeypatch
):
    """Its history says "test": the run of the course's checkpoint is such a one."""
    save, saved = engine.Run.save, []

    def save_once(run):
        if saved:
            raise KeyboardInterrupt
        saved.append(save(run))

    words = arguments(food, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(engine.Run, "save", save_once)
        with pytest.raises(KeyboardInterrupt):
            main(words)
    file = tmp_path / "run" / "run.pt"
    state = torch.load(file, weights_only=True)
    state["history"] = {
        name.replace("val", "test"): values for name, values in state["history"].items()
    }
    torch.save(state, file)
    assert same_weights(main(words), finished / "checkpoint.safetensors")
    histories = [(f / "history.json").read_text() for f in (file.parent, finished)]
    assert histories[0] == histories[1]


def test_a_file_that_is_no_run_is_named(food, tmp_path):
    words = arguments(food, tmp_path / "run")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.pt").write_bytes(b"no run")
    with pytest.raises(ValueError, match=r"run\.pt cannot be resumed here"):
        main(words)


def test_options_reach_the_run(food, tmp_path, monkeypatch):
    """Zips as well as folders, classes left out, bf16, a rate that falls in a line."""
    archive = pack(draw(tmp_path / "more", ["figs"]), tmp_path / "more.zip")
    words = arguments(food, tmp_path / "run", amp="bf16", decay="linear", dropout=0.1)
    words.insert(words.index("--output"), str(archive))
    words += ["--leave-out", "apples", "--epoch-size", "50", "--samples", "150"]
    seen = {}
    train = engine.train

    def watch(model, loader, val, optimizer, loss_fn, epochs, device, **options):
        seen.update(options, loss=loss_fn, optimizer=optimizer, epochs=epochs)
        seen["pictures"] = len(loader.dataset) + len(val.dataset)
        return train(model, loader, val, optimizer, loss_fn, epochs, device, **options)

    monkeypatch.setattr("going_modular.pretrain.train", watch)
    metadata = load_checkpoint(main(words))[1]
    assert metadata["class_names"] == list(COLOURS)[1:]
    assert (
        metadata["config"]["mlp_dropout"]
        == metadata["config"]["embedding_dropout"]
        == 0.1
    )
    assert seen["pictures"] == 5 * 20 + 20 and metadata["facts"]["samples_seen"] == 150
    assert seen["amp_dtype"] == torch.bfloat16 and seen["clip_norm"] == 1
    assert seen["loss"].label_smoothing == 0.1 and seen["epochs"] == 3
    assert isinstance(seen["optimizer"], torch.optim.AdamW)
    assert seen["optimizer"].param_groups[0]["weight_decay"] == 0.05
    factor = seen["scheduler"].lr_lambdas[0]
    assert [factor(step) for step in range(7)] == [0.5, 1, 1, 0.75, 0.5, 0.25, 0]


@pytest.fixture(scope="module")
def first_loss(food, tmp_path_factory):
    """The loss of an epoch in which, with a learning rate of 0, nothing is learned."""

    def measure(**options):
        output = tmp_path_factory.mktemp("options")
        options |= {"samples": 1, "epoch_size": 64, "lr": 0, "warmup": 1}
        main(arguments(food, output, **options))
        return json.loads((output / "history.json").read_text())["train_loss"]

    return measure


@pytest.fixture(scope="module")
def loss_without_options(first_loss):
    return first_loss()


@pytest.mark.parametrize(
    "options",
    [
        {"mixup": 0.5},
        {"rand_augment": 9},
        {"dropout": 0.2},
        {"label_smoothing": 0},
        {"amp": "bf16"},
        {"seed": 1},
        {"model": "vit_tiny_16"},
        {},
    ],
)
def test_each_option_changes_the_run(first_loss, loss_without_options, options):
    changed = first_loss(**options) != loss_without_options
    assert changed == bool(options), "without options it is the same run"


def test_three_classes_are_enough(tmp_path):
    """Fewer classes than five: the five best are all of them."""
    data = draw(tmp_path / "food", list(COLOURS)[:3])
    path = main(arguments(data, tmp_path / "run", warmup=0, samples=57))
    facts = load_checkpoint(path)[1]["facts"]
    assert facts["val_top5"] == 1 and facts["val_top1"] <= 1


def test_data_that_cannot_be_used(tmp_path):
    (tmp_path / "empty").mkdir()
    broken = draw(tmp_path / "broken", COLOURS, 2)
    (broken / "figs" / "01.png").write_bytes(b"not a picture")
    messages = {
        tmp_path / "missing": "missing is neither a folder nor a zip",
        tmp_path / "empty": "empty holds no images CLASS/FILE",
        draw(tmp_path / "one", ["figs"]): r"at least two classes, got \['figs'\]",
        broken: r"broken: figs/01\.png cannot be read",
    }
    for data, message in messages.items():
        with pytest.raises(ValueError, match=message):
            main(arguments(data, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"model": "vit_mimi_8"}, "perhaps 'vit_mini_8'"),
        ({"warmup": 1000}, "below total_steps, got 1000 and 12"),
        ({"init": "nothing.safetensors"}, "nothing.safetensors is not a file"),
        ({"img_size": 20}, "20"),
    ],
)
def test_arguments_that_cannot_be_used(food, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        main(arguments(food, tmp_path / "run", **options))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("words", [["--amp", "fp16"], ["--decay", "x"], ["--epochs"]])
def test_words_that_are_no_arguments(capsys, words):
    with pytest.raises(SystemExit) as caught:
        main(words)
    assert caught.value.code == 2
    assert "python -m going_modular.pretrain: error:" in capsys.readouterr().err


def test_without_data_food_101_is_asked_for(food, tmp_path, monkeypatch):
    """torchvision downloads it; here it finds pictures that are there already."""
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "data" / "food-101" / "images", COLOURS)
    asked = []

    class Downloaded:
        def __init__(self, root, download=False):
            self.root = root
            asked.append((root, download))

    monkeypatch.setattr("going_modular.pretrain.Food101", Downloaded)
    words = arguments(food, tmp_path / "run", samples=1)
    path = main(words[2:])  # without --data
    assert asked == [("data", True)]
    assert load_checkpoint(path)[1]["class_names"] == list(COLOURS)


def test_the_command_line_explains_itself():
    result = subprocess.run(
        [sys.executable, "-m", "going_modular.pretrain", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    for word in ("--data", "--init", "--img-size", "default: runs/pretrain"):
        assert word in result.stdout
    assert result.stderr == ""
    assert pretrain.LEFT_OUT == ("pizza", "steak", "sushi")


def test_a_run_goes_on_only_as_it_was_begun(food, tmp_path):
    output = tmp_path / "run"
    main(arguments(food, output))
    before = (output / "run.pt").read_bytes()
    for changed in ({"lr": 2e-3}, {"seed": 7}, {"samples": 500}):
        with pytest.raises(ValueError, match=f"another {next(iter(changed))}"):
            main(arguments(food, output, **changed))
    assert (output / "run.pt").read_bytes() == before


def test_a_class_to_leave_out_must_be_there(food, tmp_path):
    words = [*arguments(food, tmp_path / "run"), "--leave-out", "Pizzza"]
    with pytest.raises(ValueError, match="no source has the classes .'Pizzza'"):
        main(words)
