"""Lesson 01: loaders against files counted and read by hand; folders that are wrong."""

import os
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.models import ViT_B_16_Weights
from torchvision.transforms import v2

from going_modular.data_setup import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    create_dataloaders,
    create_train_val_test_dataloaders,
    create_transform,
    load_folder,
    load_image,
)

CLASSES = ("pizza", "steak", "sushi")


@pytest.fixture
def data(tmp_path):
    """Ten training and three test pictures of each class; each has its own colour."""
    for split, number in (("train", 10), ("test", 3)):
        for label, name in enumerate(CLASSES):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                colour = (60 * label + i, 20 * i, 200 if split == "train" else 100)
                Image.new("RGB", (12, 10), colour).save(folder / f"{i:02}.png")
    return tmp_path


def loaders(data, **options):
    options = {"transform": create_transform(8), "batch_size": 4} | options
    return create_dataloaders(data / "train", data / "test", **options)


def test_counts_shapes_and_balance(data):
    train, test, names = loaders(data)
    assert names == list(CLASSES)
    for loader, number in ((train, 10), (test, 3)):
        batches = list(loader)
        assert (
            batches[0][0].shape == (4, 3, 8, 8) and batches[0][0].dtype == torch.float32
        )
        labels = torch.cat([labels for _, labels in batches])
        assert torch.bincount(labels).tolist() == [number] * 3
    assert len(list(train)[-1][1]) == 2, "the last batch holds what is left over"


def test_values_are_those_of_the_files(data):
    _, test, _ = loaders(data)
    images = torch.cat([images for images, _ in test])
    for (path, _), image in zip(test.dataset.samples, images, strict=True):
        pixel = torch.tensor(Image.open(path).getpixel((0, 0))) / 255
        torch.testing.assert_close(image[:, 4, 4], pixel)


def test_order(data):
    def labels(loader):
        return torch.cat([labels for _, labels in loader]).tolist()

    assert labels(loaders(data)[1]) == sorted(labels(loaders(data)[1])), (
        "test is in order"
    )
    first, second = loaders(data, seed=1)[0], loaders(data, seed=1)[0]
    assert labels(first) == labels(second)
    assert labels(first) == labels(second), "the second epoch agrees as well"
    assert labels(first) != labels(loaders(data, seed=1)[0]), "each epoch has its order"
    assert labels(loaders(data, seed=1)[0]) != labels(loaders(data, seed=2)[0])
    torch.manual_seed(5)
    once = labels(loaders(data)[0])
    torch.manual_seed(5)
    assert once == labels(loaders(data)[0]), "without a seed the global one decides"


def test_workers_give_the_same_pictures(data):
    alone, helped = loaders(data, seed=3)[0], loaders(data, seed=3, num_workers=2)[0]
    for (a, _), (b, _) in zip(alone, helped, strict=True):
        assert torch.equal(a, b)


def test_validation_is_split_off_by_class(data):
    options = {"transform": create_transform(8), "batch_size": 4, "val_fraction": 0.3}
    folders = (data / "train", data / "test")
    train, val, test, names = create_train_val_test_dataloaders(*folders, **options)
    assert names == list(CLASSES) and len(test.dataset) == 9
    parts = [set(part.dataset.indices) for part in (train, val)]
    assert not parts[0] & parts[1] and len(parts[0] | parts[1]) == 30
    assert torch.bincount(torch.cat([y for _, y in val])).tolist() == [3, 3, 3]
    again = create_train_val_test_dataloaders(*folders, **options)[1]
    other = create_train_val_test_dataloaders(*folders, **options, seed=1)[1]
    assert val.dataset.indices == again.dataset.indices != other.dataset.indices


def test_a_test_transform_without_steps_is_used(data):
    empty = torch.nn.Sequential()  # its length, 0, makes it false
    _, test, _ = loaders(data, test_transform=empty)
    assert test.dataset.transform is empty
    folders = (data / "train", data / "test")
    parts = create_train_val_test_dataloaders(
        *folders, create_transform(8), 4, test_transform=empty
    )
    assert parts[1].dataset.dataset.transform is empty


def test_test_transform_serves_test_and_validation(data):
    dark = transforms.Compose([create_transform(8), transforms.Lambda(lambda x: x * 0)])
    train, test, _ = loaders(data, test_transform=dark)
    assert next(iter(train))[0].max() > 0 and next(iter(test))[0].max() == 0
    parts = create_train_val_test_dataloaders(
        data / "train", data / "test", create_transform(8), 4, test_transform=dark
    )
    assert [next(iter(part))[0].max().item() > 0 for part in parts[:3]] == [
        True,
        False,
        False,
    ]


def test_transform():
    picture = Image.new("RGB", (30, 20), (255, 0, 51))
    assert create_transform((4, 6))(picture).shape == (3, 4, 6)
    values = create_transform(2)(picture)[:, 0, 0]
    torch.testing.assert_close(values, torch.tensor([1.0, 0.0, 0.2]))
    normalised = create_transform(2, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))(picture)[:, 0, 0]
    torch.testing.assert_close(normalised, torch.tensor([1.0, -1.0, -0.6]))


def test_crop_keeps_the_centre():
    """Ten columns, their number as brightness; 0.8 of them are kept, whole."""
    columns = np.tile(np.arange(10, dtype=np.uint8), (10, 1))
    picture = Image.fromarray(np.stack([columns] * 3, axis=2))
    kept = create_transform(8, crop_pct=0.8)(picture) * 255
    torch.testing.assert_close(kept[0, 0], torch.arange(1.0, 9.0))
    assert kept.shape == (3, 8, 8)
    assert create_transform((8, 4), crop_pct=0.5)(picture).shape == (3, 8, 4)


def noise(width, height):
    pixels = np.random.default_rng(1).integers(0, 256, (height // 8, width // 8, 3))
    return Image.fromarray(pixels.astype(np.uint8)).resize((width, height))


@pytest.mark.parametrize("size", [(640, 400), (256, 360), (300, 300), (97, 501)])
def test_crop_equals_torchvisions_transform(size):
    image = noise(*size)
    theirs = ViT_B_16_Weights.IMAGENET1K_V1.transforms()(image)
    ours = create_transform(224, IMAGENET_MEAN, IMAGENET_STD, crop_pct=224 / 256)(image)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    weights = ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1  # resized to 384, none cut off
    theirs = weights.transforms(interpolation=v2.InterpolationMode.BILINEAR)(image)
    ours = create_transform(384, IMAGENET_MEAN, IMAGENET_STD, crop_pct=1)(image)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)


@pytest.mark.parametrize("crop_pct", [0.3, 0.875, 1])
@pytest.mark.parametrize("size", [(400, 200), (200, 400)])
def test_crop_keeps_proportions(size, crop_pct):
    """A square in the middle of a long image stays as high as it is wide."""
    image = Image.new("L", size)
    image.paste(
        255,
        (size[0] // 2 - 20, size[1] // 2 - 20, size[0] // 2 + 20, size[1] // 2 + 20),
    )
    white = create_transform(100, crop_pct=crop_pct)(image)[0] > 0.5
    side = round(40 * 100 / (200 * crop_pct))
    for axis in (0, 1):
        assert abs(white.any(dim=axis).sum().item() - side) <= 1


def test_without_a_crop_the_whole_image_is_squeezed():
    image = noise(40, 16)
    squeezed = v2.Compose([v2.Resize((8, 8)), *create_transform(8).transforms[1:]])
    assert torch.equal(create_transform(8)(image), squeezed(image))
    assert torch.equal(create_transform(8, crop_pct=None)(image), squeezed(image))


def test_a_square_image_is_prepared_as_by_earlier_versions():
    """The course's checkpoint was measured on these, resized to 80 x 80 and cropped."""
    image, half = noise(64, 64), (0.5, 0.5, 0.5)
    earlier = [v2.Resize([80, 80]), v2.CenterCrop((64, 64))]
    earlier += create_transform(64, half, half).transforms[1:]
    found = create_transform(64, half, half, crop_pct=0.8)(image)
    assert torch.equal(found, v2.Compose(earlier)(image))


@pytest.mark.parametrize("share", [0, -0.5, 1.01, float("nan")])
def test_bad_crop(share):
    with pytest.raises(ValueError, match="crop_pct must be in"):
        create_transform(8, crop_pct=share)


@pytest.mark.parametrize("size", [0, -8, (8, 0), (8, 8, 3)])
def test_bad_size(size):
    with pytest.raises(ValueError, match="img_size must be"):
        create_transform(size)


def test_mean_without_std():
    with pytest.raises(ValueError, match="both mean and std"):
        create_transform(8, mean=(0.5, 0.5, 0.5))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1", "LA"])
def test_any_mode_becomes_rgb(tmp_path, mode):
    path = tmp_path / ("picture.tif" if mode == "CMYK" else "picture.png")
    array = np.zeros((4, 6), np.uint16) if mode == "I;16" else None
    image = Image.fromarray(array) if array is not None else Image.new(mode, (6, 4))
    image.save(path)
    assert load_image(path).mode == "RGB" and load_image(path).size == (6, 4)


def test_sixteen_bits_become_eight(tmp_path):
    grey = np.array([[0, 257, 32896], [65535, 514, 25700]], np.uint16)
    Image.fromarray(grey).save(tmp_path / "scan.png")
    expected = np.array([[0, 1, 128], [255, 2, 100]])
    for channel in np.moveaxis(np.asarray(load_image(tmp_path / "scan.png")), 2, 0):
        assert (channel == expected).all()


def test_what_is_see_through_becomes_white(tmp_path):
    pixels = np.array([[[9, 8, 7, 0], [9, 8, 7, 255]]], np.uint8)
    Image.fromarray(pixels, "RGBA").save(tmp_path / "logo.png")
    expected = [[[255, 255, 255], [9, 8, 7]]]
    assert np.asarray(load_image(tmp_path / "logo.png")).tolist() == expected
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 8, 7, 200, 100, 50])
    palette.putpixel((1, 0), 1)
    palette.save(tmp_path / "logo.gif", transparency=1)
    pixels = np.asarray(load_image(tmp_path / "logo.gif")).tolist()
    assert pixels == [[[9, 8, 7], [255, 255, 255]]]


def test_a_picture_on_its_side_is_turned(tmp_path):
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6  # turn by 90 degrees
    image.save(tmp_path / "phone.jpg", exif=exif)
    assert load_image(tmp_path / "phone.jpg").size == (4, 6)


def test_broken_pictures_are_named(data):
    good = (data / "train" / "pizza" / "00.png").read_bytes()
    for name, content in {
        "cut": good[:44],
        "empty": b"",
        "text": b"not a picture",
    }.items():
        path = data / "train" / "pizza" / f"{name}.png"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.png cannot be read"):
            load_image(path)
    with pytest.raises(ValueError, match="missing.png cannot be read"):
        load_image(data / "missing.png")
    with pytest.raises(ValueError, match=r"(cut|empty|text)\.png cannot be read"):
        list(loaders(data)[0])
    with pytest.raises(ValueError, match=r"(cut|empty|text)\.png cannot be read"):
        list(loaders(data, num_workers=1)[0])


def test_hidden_folders_are_no_classes(data):
    """And images in them are not of the class that they are in."""
    pizza = data / "train" / "pizza"
    for folder in (pizza.parent / ".ipynb_checkpoints", pizza.parent / "__MACOSX"):
        folder.mkdir()
    shutil.copytree(pizza, pizza / ".ipynb_checkpoints")
    train, _, names = loaders(data)
    assert names == list(CLASSES) and len(train.dataset) == 30


def test_missing_and_empty_folders(data, tmp_path):
    with pytest.raises(ValueError, match="nowhere is not a folder"):
        load_folder(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="no class folders"):
        load_folder(data / "train" / "pizza")
    (data / "train" / "tacos").mkdir()
    with pytest.raises(ValueError, match="tacos"):
        loaders(data)
    os.rmdir(data / "train" / "tacos")
    (data / "test" / "sushi").rename(data / "test" / "soup")
    with pytest.raises(ValueError, match="'sushi'.*'soup'"):
        loaders(data)


@pytest.mark.parametrize(
    "options, message",
    [({"batch_size": 0}, "got 0 and 0"), ({"num_workers": -1}, "got 4 and -1")],
)
def test_bad_numbers(data, options, message):
    with pytest.raises(ValueError, match=message):
        loaders(data, **options)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5])
def test_bad_fraction(data, fraction):
    with pytest.raises(ValueError, match=f"between 0 and 1, got {fraction}"):
        create_train_val_test_dataloaders(
            data / "train", data / "test", create_transform(8), 4, val_fraction=fraction
        )
