"""Checks of the exercises of lesson 01: images, statistics, seeds and loaders."""

import random
import statistics
import time
from collections.abc import Callable
from itertools import accumulate

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, TensorDataset, get_worker_info

from vit_course.checks.hints import (
    NO_RETURN,
    SHOWN_ONLY,
    Hint,
    compare,
    hint,
    learners_code,
    passed,
)


def check_pad_to_square(answer: Callable) -> None:
    """Checks an image that is padded to a black square.

    Raises:
        Hint: it is not right yet.
    """
    generator = np.random.default_rng(1)
    sizes = [(9, 4), (4, 10), (8, 3), (5, 5), (1, 6), (12, 7)]  # (width, height)
    for number, (width, height) in enumerate(sizes):
        pixels = generator.integers(1, 256, (height, width, 3), dtype=np.uint8)
        given = Image.fromarray(pixels.copy())
        with learners_code(was_right=number):
            found = answer(given)
        hint(
            np.array_equal(np.asarray(given), pixels),
            "your code changes the image that it was given. Paste it on a new one.",
        )
        _check_padded(found, pixels, number)
    passed("squares with the whole image in the middle")


def _check_padded(found, pixels: np.ndarray, was_right: int) -> None:
    height, width, _ = pixels.shape
    side = max(width, height)
    shown = f"an image {width} wide and {height} high"
    hint(
        found is not None,
        f"{NO_RETURN} (`paste` changes the square, and gives back None itself.)",
    )
    hint(
        isinstance(found, Image.Image),
        f"it gives a {type(found).__name__}, expected a PIL image",
    )
    hint(
        found.mode == "RGB",
        f"the square has the mode {found.mode!r}, expected 'RGB', as the image",
    )
    again = found.size == (side, side) or not was_right
    hint(found.size != (width, height) or width == height, f"{shown} stays as it is")
    wide_only = was_right and width < height and found.size == (width, width)
    hint(
        not wide_only,
        "the side is always the width. An image can be higher than wide as well.",
    )
    hint(
        found.size != (min(width, height),) * 2 or width == height,
        "the shorter side was taken, so the image is cropped. The square needs the "
        "longer one.",
    )
    hint(again, SHOWN_ONLY)
    hint(
        abs(width - height) % 2 == 0 or sorted(found.size) != [side - 1, side],
        f"for {shown} the result has the size {found.size}: the padding is an odd "
        "number of pixels, so one side needs a pixel more than the other.",
    )
    hint(
        found.size == (side, side),
        f"for {shown} the result has the size {found.size}, expected ({side}, {side}). "
        "To resize is the job of the transform that comes later.",
    )
    _check_place(np.asarray(found), pixels)


def _check_place(square: np.ndarray, pixels: np.ndarray) -> None:
    height, width, _ = pixels.shape
    rows, columns = square.shape[0] - height, square.shape[0] - width
    places = []  # where the whole image stands in the square
    for y in range(rows + 1):
        for x in range(columns + 1):
            if np.array_equal(square[y : y + height, x : x + width], pixels):
                places.append((x, y))
    if not places:
        for text, wrong in _pad_mistakes(Image.fromarray(pixels)):
            hint(not np.array_equal(square, np.asarray(wrong)), text)
        raise Hint(
            "the square does not hold the whole image, pixel by pixel. Nothing may be "
            "resized, cropped, rotated or recoloured."
        )
    x, y = places[0]
    hint(
        x in (columns // 2, columns - columns // 2)
        and y in (rows // 2, rows - rows // 2),
        f"the image stands at column {x}, row {y} of the square, not in the middle: "
        "half of the padding goes before it.",
    )
    outside = square.copy()
    outside[y : y + height, x : x + width] = 0
    hint(not outside.any(), "the padding is not black: its pixels should all be 0.")


def _pad_mistakes(image: Image.Image) -> list[tuple[str, Image.Image]]:
    """Squares that known mistakes make of an image, each with its hint."""
    width, height = image.size
    side = max(image.size)

    def pasted(x: int, y: int) -> Image.Image:
        square = Image.new("RGB", (side, side))
        square.paste(image, (x, y))
        return square

    found = [
        (
            "column and row are swapped, so the image is cropped: `paste` wants (x, "
            "y), and x comes of the width.",
            pasted((side - height) // 2, (side - width) // 2),
        ),
        (
            "the corner of the image is in the middle, not the image: the corner goes "
            "where half of the padding ends.",
            pasted(side // 2, side // 2),
        ),
        ("the square is empty: was the image pasted on it?", pasted(side, side)),
    ]
    for way in Image.Resampling:
        squeezed = "the image was resized to a square, and so squeezed."
        found.append((squeezed, image.resize((side, side), way)))
    return found


class _Loader(DataLoader):
    """A loader whose repr names its images, for the hints."""

    dataset: TensorDataset

    def __repr__(self) -> str:
        images = self.dataset.tensors[0]
        count, _, height, width = images.shape
        return f"a loader of {count} images of {height} x {width}"


def _loaders() -> list[_Loader]:
    """Loaders of images that differ in brightness, contrast and colour."""
    generator = torch.Generator().manual_seed(1)
    found = []
    # The last batch is smaller, then of the same size as the others, then the only one.
    for count, size, batch in [(10, (24, 36), 4), (3, (40, 16), 1), (4, (20, 31), 9)]:
        levels = torch.rand(count, 3, 1, 1, generator=generator)  # of each image
        scale = torch.rand(count, 3, 1, 1, generator=generator) * 0.5
        levels[-2:] += torch.tensor([0.9, 0.3, -0.6]).view(3, 1, 1)
        noise = torch.rand(count, 3, *size, generator=generator) - 0.5
        images = levels + scale * noise  # (count, 3, H, W)
        labels = torch.arange(count)
        found.append(_Loader(TensorDataset(images, labels), batch_size=batch))
    return found


def _all_images(loader) -> torch.Tensor:
    return torch.cat([images for images, _ in loader])


def _rows(images: torch.Tensor) -> torch.Tensor:
    """Puts the pixels of each channel in one row, (3, pixels)."""
    return images.transpose(0, 1).flatten(1)


def _cut(images: torch.Tensor) -> torch.Tensor:
    """Cuts memory in three, which mixes the channels."""
    return images.reshape(3, -1)


def _mean(loader) -> torch.Tensor:
    return _rows(_all_images(loader)).mean(dim=1)


def _std(loader) -> torch.Tensor:
    return _rows(_all_images(loader)).std(dim=1)


def _over_batches(function: Callable) -> Callable:
    """Makes the plain average over the batches of a function of their images."""
    return lambda loader: torch.stack([function(x) for x, _ in loader]).mean(dim=0)


def _of_batch(number: int, function: Callable) -> Callable:
    return lambda loader: function(list(loader)[number][0])


def _batch_mean(images: torch.Tensor) -> torch.Tensor:
    return images.mean(dim=(0, 2, 3))


def _batch_std(images: torch.Tensor) -> torch.Tensor:
    return images.std(dim=(0, 2, 3))


def _batch_var(images: torch.Tensor) -> torch.Tensor:
    return images.var(dim=(0, 2, 3))


def _imagenet() -> tuple[torch.Tensor, torch.Tensor]:
    """Its mean and standard deviation."""
    from going_modular.data_setup import IMAGENET_MEAN, IMAGENET_STD  # torchvision: 2 s

    return torch.tensor(IMAGENET_MEAN), torch.tensor(IMAGENET_STD)


ONE_BATCH = (
    "these are the values of a single batch. Is something overwritten in the loop, or "
    "does a `return` stand inside it?"
)
CONSTANTS = (
    "these are ImageNet's constants. Compute them from the images of the loader."
)
BETWEEN = (
    "the standard deviation is averaged over images or batches. That leaves out how "
    "much these differ from each other: a dark and a bright image, each of one colour, "
    "would have a standard deviation of 0. Add up x and x² over all pixels first."
)
MIXED = (
    "the channels are mixed. `view(3, -1)` cuts memory, where the three channels of an "
    "image follow one another. Bring the channel axis to the front first "
    "(`transpose(0, 1)`), or name the axes: `dim=(0, 2, 3)`."
)
ALL_CHANNELS = (
    "all channels together give one value. Keep axis 1: red, green and blue have a "
    "mean and a standard deviation each."
)
MEAN_MISTAKES = {
    "batches are averaged, so that each image of the smaller last batch counts for "
    "more than the others. Add up over pixels, and divide once.": (
        _over_batches(_batch_mean)
    ),
    ONE_BATCH: _of_batch(0, _batch_mean),
    f"{ONE_BATCH} It is the last one.": _of_batch(-1, _batch_mean),
    "the two are swapped: the mean comes first.": _std,
    CONSTANTS: lambda loader: _imagenet()[0],
    ALL_CHANNELS: lambda loader: _all_images(loader).mean(),
    MIXED: lambda loader: _cut(_all_images(loader)).mean(dim=1),
    f"{MIXED} In each batch, too.": lambda loader: (
        sum(_cut(x).sum(dim=1) for x, _ in loader) / _rows(_all_images(loader)).shape[1]
    ),
    "this is a sum. Divide by the number of pixels, in each image H · W.": (
        lambda loader: _rows(_all_images(loader)).sum(dim=1)
    ),
    "the sum is divided by the number of images. Each has H · W pixels.": (
        lambda loader: _all_images(loader).sum(dim=(2, 3)).mean(dim=0)
    ),
    "the sum is divided by the number of all values. A channel has a third of them.": (
        lambda loader: _mean(loader) / 3
    ),
    "the sum is divided by the number of batches.": (
        lambda loader: _rows(_all_images(loader)).sum(dim=1) / len(loader)
    ),
    "this is a mean for each place in the image, not for each channel: average over "
    "images, rows and columns, axes 0, 2 and 3.": (
        lambda loader: _all_images(loader).mean(dim=0)
    ),
}
STD_MISTAKES = {
    f"{BETWEEN} (Yours is the mean of the images' standard deviations.)": (
        lambda loader: _all_images(loader).std(dim=(2, 3)).mean(dim=0)
    ),
    f"{BETWEEN} (Yours is the mean of the batches' standard deviations.)": (
        _over_batches(_batch_std)
    ),
    f"{BETWEEN} (Yours is the square root of the batches' mean variance.)": (
        lambda loader: _over_batches(_batch_var)(loader).sqrt()
    ),
    f"{BETWEEN} (Yours is the square root of the images' mean variance.)": (
        lambda loader: _all_images(loader).var(dim=(2, 3)).mean(dim=0).sqrt()
    ),
    "this is the standard deviation of the images' means. It leaves out the variance "
    "within each image: take all pixels.": (
        lambda loader: _all_images(loader).mean(dim=(2, 3)).std(dim=0)
    ),
    "this is the variance. The standard deviation is its square root.": (
        lambda loader: _std(loader).square()
    ),
    "the mean is not subtracted: this is the square root of the mean of x². Subtract "
    "µ² before you take the square "
    "root.": lambda loader: _rows(_all_images(loader)).square().mean(dim=1).sqrt(),
    "µ² is subtracted, where µ is the mean of the batches' means. The mean of all "
    "pixels belongs there.": lambda loader: (
        _rows(_all_images(loader)).square().mean(dim=1)
        - _over_batches(_batch_mean)(loader).square()
    ).sqrt(),
    ONE_BATCH: _of_batch(0, _batch_std),
    f"{ONE_BATCH} It is the last one.": _of_batch(-1, _batch_std),
    CONSTANTS: lambda loader: _imagenet()[1],
    ALL_CHANNELS: lambda loader: _all_images(loader).std(),
    MIXED: lambda loader: _cut(_all_images(loader)).std(dim=1),
}


def check_channel_statistics(answer: Callable) -> None:
    """Checks mean and standard deviation of each channel over all pixels.

    Raises:
        Hint: it is not right yet.
    """

    def part(index: int) -> Callable:
        def call(loader):
            found = answer(loader)
            hint(found is not None, NO_RETURN)
            hint(
                isinstance(found, tuple | list) and len(found) == 2,
                "give back two tensors: the mean and the standard deviation",
            )
            return found[index]

        return call

    inputs = [(loader,) for loader in _loaders()]
    # Dividing by n or n - 1 differs by less than the tolerance for so many pixels.
    options = {"gradient": False, "tolerance": 5e-4}
    compare(part(0), _mean, inputs, MEAN_MISTAKES, **options)
    compare(part(1), _std, inputs, STD_MISTAKES, **options)
    passed("mean and standard deviation over all pixels")


def _random_numbers() -> dict[str, list[float]]:
    """Draws from each of the three sources."""
    return {
        "random": [random.random() for _ in range(3)],
        "np.random": np.random.random(3).tolist(),
        "torch": torch.rand(3).tolist(),
    }


def check_seed_all(answer: Callable) -> None:
    """Checks that a seed fixes the random numbers of torch, numpy and Python.

    Raises:
        Hint: it is not right yet.
    """
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        _check_seeds(answer)
    finally:  # a check leaves the random state as it was
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])
    passed("mended: one seed for all three")


def _check_seeds(answer: Callable) -> None:
    drawn = {}
    for seed in (7, 7, 0, 2**32 - 1, 0, 7, 2**31, 8):  # 0 after two other seeds
        with learners_code(was_right=len(drawn)):
            answer(seed)
        numbers = _random_numbers()
        first = drawn.setdefault(seed, numbers)
        changed = [name for name in numbers if numbers[name] != first[name]]
        names = ", ".join(f"`{name}`" for name in changed)
        hint(
            not changed,
            f"after the same seed, {seed}, the random numbers of {names} differ from "
            "those before. Each of the three has a global generator: that one needs "
            "the seed. A new one (`default_rng`, `random.Random`, `torch.Generator`) "
            "leaves it as it was.",
        )
    for name in ("random", "np.random", "torch"):
        different = {tuple(numbers[name]) for numbers in drawn.values()}
        hint(
            len(different) > 1,
            f"`{name}` gives the same numbers for every seed. Is a number written "
            "where `seed` belongs?",
        )
        hint(
            len(different) == len(drawn),
            f"`{name}` gives the same numbers for some seeds that differ: hand `seed` "
            "over as it is.",
        )


class _SlowImages(Dataset):
    """Ten images that load slowly, and record which process read them, and when.

    Args:
        waits: seconds for the first pass, the second, and so on, in the main process.
    """

    def __init__(self, *waits: float) -> None:
        self.waits = waits
        self.reads = torch.zeros(5, dtype=torch.int64).share_memory_()  # main, workers
        self.batch = torch.zeros(1, dtype=torch.int64).share_memory_()  # largest
        self.began, self.seconds = 0.0, []  # of each pass in the main process

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        worker = get_worker_info()
        done = int(self.reads[0])
        if worker is None and done % len(self) == 0:
            self.began = time.perf_counter()
        # The last two images, a batch of their own, take as long as the other eight.
        seconds = 1 / 60 if worker else 1 / 4 if done % len(self) >= 8 else 1 / 16
        time.sleep(seconds * self.waits[min(done // len(self), len(self.waits) - 1)])
        if worker is None and done % len(self) == len(self) - 1:
            self.seconds.append(time.perf_counter() - self.began)
        self.reads[0 if worker is None else 1 + worker.id % 4] += 1
        return torch.zeros(3, 2, 2), index

    def __getitems__(self, indices: list[int]) -> list[tuple[torch.Tensor, int]]:
        """What a DataLoader calls for a batch."""
        self.batch[0] = max(int(self.batch), len(indices))
        return [self[index] for index in indices]


def check_measure_loading(answer: Callable) -> None:
    """Checks the median seconds of a pass, for numbers of workers.

    Raises:
        Hint: it is not right yet.
    """
    # Far apart, for a busy machine makes short passes longer. The one in the middle of
    # the sorted five is neither the first nor the third nor the last.
    slow = _SlowImages(0.8, 0.15, 0.01, 0.5, 0.05)
    with learners_code():
        found = answer(slow, (0,), 5)
    _check_keys(found, (0,))
    _check_passes(slow, 5)
    _check_seconds(found[0], slow.seconds)
    both = _SlowImages(1.0)  # a worker takes 17 ms for an image
    with learners_code(was_right=1):
        found = answer(both, (2, 0), 1)
    _check_keys(found, (0, 2))
    _check_workers(both)
    hint(
        found[0] > 0.9 * both.seconds[0],
        f"without workers a single pass took {both.seconds[0]:.3f} s, and it gives "
        f"{found[0]:.3f} s. Does each number of workers have seconds of its own?",
    )
    hint(
        found[0] != found[2],
        f"both numbers of workers have the same seconds, {found[0]:.3f}: is one list "
        "shared, or the last one taken for all?",
    )
    hint(
        found[2] > 0.1,  # one of the workers waits 8 times 17 ms
        f"with 2 workers a pass takes {found[2]:.3f} s, less than the worker with most "
        "images needs: does the clock stop too soon?",
    )
    passed("seconds of whole passes, with and without workers")


def _check_keys(found, counts: tuple[int, ...]) -> None:
    hint(found is not None, NO_RETURN)
    hint(
        isinstance(found, dict) and set(found) == set(counts),
        "give back a dict whose keys are the numbers of workers, such as "
        f"{{{', '.join(f'{n}: …' for n in counts)}}}; yours is {found!r}",
    )
    for value in found.values():
        hint(
            isinstance(value, float),
            f"{value!r} is a {type(value).__name__}, expected the median, one float",
        )


def _check_passes(slow: _SlowImages, repeats: int) -> None:
    reads = int(slow.reads[0])
    hint(
        not slow.reads[1:].any(),
        "workers have read where 0 were asked for: pass the number on, as "
        "`num_workers`.",
    )
    hint(
        reads,
        "no image was read. To make a DataLoader reads nothing; a loop over it does.",
    )
    batch = int(slow.batch)
    hint(batch, "the loop runs over the dataset itself: it should run over a loader.")
    hint(
        batch == 8,
        f"the loader makes batches of {batch}; the task asks for batches of 8.",
    )
    hint(
        reads != 8 * repeats,
        "only the first batch of each pass is read, or the last one is left out. A "
        "pass is all batches, and the last is smaller.",
    )
    hint(
        reads == 10 * repeats,
        f"{reads / 10:g} passes are made where `repeats` is {repeats}.",
    )


def _check_seconds(found: float, passes: list[float]) -> None:
    """Finds which statistic of the passes was given back; all may be slow."""
    low, middle, high = min(passes), statistics.median(passes), max(passes)
    number = {seconds: f"number {i} of 5" for i, seconds in enumerate(passes, 1)}
    hint(
        found < 100 * low + high,
        "these are milliseconds, or more; give seconds.",
    )
    hint(
        found > 0.9 * low,
        f"it gives {found:.4f} s, less than the quickest pass took. Does the clock "
        "stop before the last batch? (`time.process_time` counts computing and not "
        "waiting.)",
    )
    candidates = {
        f"the longest pass, {number[high]}": high,
        f"the shortest pass, {number[low]}": low,
        "the sum of the passes": sum(passes),
        "counted from the start of the first pass (start the clock again for each)": (
            statistics.median(accumulate(passes))
        ),
        "the mean of the passes, which one slow pass moves": statistics.mean(passes),
        "": middle,
    }
    nearest = min(candidates, key=lambda name: abs(np.log(candidates[name] / found)))
    hint(
        not nearest,
        f"this is {nearest}. Give the median, the one in the middle once they are "
        "sorted.",
    )
    hint(
        found > 0.8 * middle,
        f"it gives {found:.3f} s where the pass in the middle took {middle:.3f} s: "
        "does the clock start late, or stop before the last batch?",
    )


def _check_workers(both: _SlowImages) -> None:
    main, workers = int(both.reads[0]), int(both.reads[1:].sum())
    hint(
        main + workers == 20,
        f"{(main + workers) / 20:g} passes are made for each number of workers where "
        "`repeats` is 1.",
    )
    hint(
        workers,
        "only the main process has read: pass the number on, as `num_workers`.",
    )
    hint(
        (main, workers) == (10, 10),
        f"with 0 and then 2 workers the main process has read {main} images and "
        f"workers {workers}, expected 10 and 10.",
    )
    hint(
        bool(both.reads[1]) and bool(both.reads[2]) and not both.reads[3:].any(),
        "another number of workers than asked for was started.",
    )
