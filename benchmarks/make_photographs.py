"""Makes the 64-pixel photographs on which the course measured its transfer table.

`photographs.json` lists their file numbers in Food-101: the 225 training images of
FoodVision Mini and 300 others for the test. With a network, torchvision downloads
Food-101 (5 GB); another scaler than ours may change single pixel values.
"""

import argparse
import json
from pathlib import Path

from PIL import Image
from torchvision.datasets import Food101

from going_modular.data_setup import load_image

LIST = Path(__file__).with_name("photographs.json")
SIDE = 64


def make_photographs(food101: Path, target: Path, listed: dict) -> int:
    """Scales the listed images of an unpacked Food-101 into `target`; counts them.

    Args:
        food101: folder with `images/CLASS/NUMBER.jpg`.
        target: gets `train/CLASS/NUMBER.jpg` and `test/CLASS/NUMBER.jpg`.
        listed: {"train": {CLASS: [NUMBER, …]}, "test": …}.

    Raises:
        ValueError: an image is missing or damaged; the message names it.
    """
    count = 0
    for split, classes in listed.items():
        for name, numbers in classes.items():
            folder = target / split / name
            folder.mkdir(parents=True, exist_ok=True)
            for number in numbers:
                image = load_image(food101 / "images" / name / f"{number}.jpg")
                small = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
                small.save(folder / f"{number}.jpg", quality=90)
                count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--food101", type=Path, help="unpacked folder (default: download)"
    )
    parser.add_argument(
        "--target",
        type=Path,
        default=Path("data/photographs_64px"),
        help="output folder (default: data/photographs_64px)",
    )
    args = parser.parse_args()
    source = args.food101
    if source is None:
        source = Path(Food101("data", download=True).root) / "food-101"
    count = make_photographs(source, args.target, json.loads(LIST.read_text()))
    print(f"{count} images in {args.target}")


if __name__ == "__main__":
    main()
