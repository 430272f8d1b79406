"""The rendered pictures: the same from the same seed, complete, and not too easy."""

import io
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rendered_difficulty import colour_accuracy, histogram_accuracy, load

from going_modular.rendered_foods import (
    CLASS_NAMES,
    draw_food,
    draw_food_set,
    draw_two_foods,
    image_seed,
)
from going_modular.rendered_foods.light import soft_shadow

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = ROOT / "images" / "foodvision_mini"

FOODS = (*CLASS_NAMES, "other")


def files(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("food", FOODS)
def test_same_seed_same_pixels(food):
    picture = draw_food(food, seed=3, size=64)
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture, draw_food(food, seed=3, size=64))
    assert not np.array_equal(picture, draw_food(food, seed=4, size=64))


def test_order_and_global_random_state_do_not_matter():
    forwards = [draw_food(food, 5, 48) for food in FOODS]
    np.random.seed(0)  # what other code does to the global state
    backwards = [draw_food(food, 5, 48) for food in reversed(FOODS)]
    for first, second in zip(forwards, reversed(backwards), strict=True):
        assert np.array_equal(first, second)


def test_drawing_leaves_the_global_random_state_alone():
    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    draw_food("pizza", 1, 32)
    assert np.random.random() == expected


def test_a_lamp_straight_above_casts_no_shadow():
    height = np.zeros((32, 32), np.float32)
    height[8:16, 8:16] = 0.5  # a block on a table
    assert soft_shadow(height, 1 / 16, (-0.6, 0.0, 0.8)).max() > 0
    shadow = soft_shadow(height, 1 / 16, (0.0, 0.0, 1.0))
    assert shadow.shape == height.shape and shadow.dtype == height.dtype
    assert not shadow.any()


@pytest.mark.parametrize("size", [32, 45, 96, 300])
def test_other_sizes(size):
    assert draw_food("sushi", 8, size).shape == (size, size, 3)


def test_a_size_shows_the_same_scene():
    small = Image.fromarray(draw_food("pizza", 11, 112))
    large = Image.fromarray(draw_food("pizza", 11, 224))
    tiny = [
        np.asarray(picture.resize((16, 16), Image.Resampling.BOX), np.float32)
        for picture in (small, large)
    ]
    assert np.abs(tiny[0] - tiny[1]).mean() < 8


def test_pictures_are_neither_dark_nor_flat():
    for food, seed in product(FOODS, range(4)):
        picture = draw_food(food, seed, 64)
        assert 50 < picture.mean() < 210, (food, seed)
        assert picture.std() > 15, (food, seed)


def test_two_foods():
    picture = draw_two_foods("pizza", "sushi", seed=2, size=96)
    assert picture.shape == (96, 96, 3) and picture.dtype == np.uint8
    assert np.array_equal(picture, draw_two_foods("pizza", "sushi", 2, 96))
    assert not np.array_equal(picture, draw_two_foods("sushi", "pizza", 2, 96))


def test_seeds_of_a_set_are_all_different():
    keys = list(product((42, 43), ("train", "test"), CLASS_NAMES, range(75)))
    assert len({image_seed(*key) for key in keys}) == len(keys)


def test_more_pictures_keep_the_first(tmp_path):
    few = files(draw_food_set(tmp_path / "few", 1, 1, size=32))
    many = files(draw_food_set(tmp_path / "many", 3, 2, size=32))
    assert len(few) == 6 and len(many) == 15
    assert {name: many[name] for name in few} == few
    other = files(draw_food_set(tmp_path / "other", 1, 1, seed=7, size=32))
    assert all(other[name] != few[name] for name in few)


def test_the_set_has_the_layout_of_image_folders(tmp_path):
    folder = draw_food_set(str(tmp_path / "new" / "set"), 1, 0, size=32)
    assert folder == tmp_path / "new" / "set"
    for split, food in product(("train", "test"), CLASS_NAMES):
        assert (folder / split / food).is_dir()
    assert [path.name for path in folder.parent.iterdir()] == ["set"]
    assert sorted(files(folder)) == [f"train/{food}/000.jpg" for food in CLASS_NAMES]


def test_an_empty_folder_is_filled_and_a_full_one_is_refused(tmp_path):
    draw_food_set(tmp_path, 1, 0, size=32)
    before = files(tmp_path)
    with pytest.raises(ValueError, match="not empty"):
        draw_food_set(tmp_path, 1, 0, size=32)
    assert files(tmp_path) == before
    with pytest.raises(ValueError, match="not empty"):
        draw_food_set(tmp_path / "train" / "pizza" / "000.jpg", 1, 0, size=32)


def test_nothing_is_left_behind_when_drawing_fails(tmp_path, monkeypatch):
    drawn = []

    def fails(food, seed, size):
        drawn.append(food)
        if len(drawn) > 2:
            raise RuntimeError("the power is out")
        return np.zeros((size, size, 3), np.uint8)

    monkeypatch.setattr("going_modular.rendered_foods.draw_food", fails)
    with pytest.raises(RuntimeError, match="power"):
        draw_food_set(tmp_path / "set", 2, 1, size=32)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("burger", 0), "'burger'.*pizza, steak, sushi, other"),
        (("pizza", -1), "seed is -1"),
        (("pizza", 0, 31), "size is 31.*32"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_food(*arguments)


def test_bad_arguments_of_sets_and_pairs(tmp_path):
    with pytest.raises(ValueError, match="train_per_class is -1"):
        draw_food_set(tmp_path / "a", train_per_class=-1)
    with pytest.raises(ValueError, match="test_per_class is -3"):
        draw_food_set(tmp_path / "a", test_per_class=-3)
    with pytest.raises(ValueError, match="size is 8"):
        draw_food_set(tmp_path / "a", size=8)
    with pytest.raises(ValueError, match="'soup'"):
        draw_two_foods("pizza", "soup", 0)
    assert list(tmp_path.iterdir()) == []


def test_the_committed_set_is_complete():
    paths = sorted(COMMITTED.rglob("*.*"))
    expected = {
        COMMITTED / split / food / f"{number:03d}.jpg"
        for split, count in (("train", 75), ("test", 25))
        for food in CLASS_NAMES
        for number in range(count)
    }
    assert set(paths) == expected
    assert sum(path.stat().st_size for path in paths) < 4_000_000
    assert len({path.read_bytes() for path in paths}) == len(paths)
    for path in paths:
        with Image.open(path) as picture:
            assert picture.size == (224, 224) and picture.mode == "RGB"


@pytest.mark.parametrize("food", CLASS_NAMES)
def test_the_committed_set_is_what_the_code_draws(food):
    for split, number in (("train", 0), ("train", 74), ("test", 7)):
        fresh = draw_food(food, image_seed(42, split, food, number))
        encoded = io.BytesIO()
        Image.fromarray(fresh).save(encoded, "JPEG", quality=82)
        loss = np.abs(np.asarray(Image.open(encoded), np.float32) - fresh).mean()
        with Image.open(COMMITTED / split / food / f"{number:03d}.jpg") as stored:
            difference = np.abs(np.asarray(stored, np.float32) - fresh).mean()
        assert difference < loss + 0.5, (split, food, number)


def test_the_mean_colour_does_not_give_the_class_away():
    *train, names = load(COMMITTED / "train")
    *test, _ = load(COMMITTED / "test")
    assert tuple(names) == CLASS_NAMES
    assert colour_accuracy(train, test) < 0.6
    assert histogram_accuracy(train, test) < 0.8
