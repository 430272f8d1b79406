"""Datasets of tiny images, for tests that train on them."""

import numpy as np
from PIL import Image

# Options of the training command, with which a run takes seconds.
TINY = ["--init", "scratch", "--img-size", "16", "--batch-size", "4"]


def draw_classes(folder):
    """Draws two classes of noise, dark and light: 9 images each to train, 3 to test.

    Returns:
        the folder, in ImageFolder layout.
    """
    numbers = np.random.default_rng(0)
    for part, count in (("train", 9), ("test", 3)):
        for label, kind in enumerate(("dark", "light")):
            place = folder / part / kind
            place.mkdir(parents=True)
            for i in range(count):
                pixels = numbers.integers(128 * label, 128 * label + 128, (20, 20, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(place / f"{i}.png")
    return folder
