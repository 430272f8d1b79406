"""Tasks of the exercises of lesson 01: images, statistics, seeds and loaders."""

import random
import statistics
import time
from collections.abc import Callable
from itertools import accumulate, product
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset, get_worker_info

from vit_course.checks.hints import NO_RETURN, hint
from vit_course.checks.task import Case, Task

# 1. Neither cropped nor squeezed


def _images() -> list[tuple[Image.Image]]:
    rng = np.random.default_rng(1)
    sizes = (4, 9), (10, 4), (3, 8), (5, 5), (6, 1), (7, 12)  # (height, width)
    return [
        (Image.fromarray(rng.integers(1, 256, (*size, 3), dtype=np.uint8)),)
        for size in sizes
    ]


def _pixels(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image))


def _pasted(place: Callable, colour: str = "black") -> Callable:
    """The pixels of a square, the image at `place(columns, rows)` of padding."""

    def padded(image: Image.Image) -> Tensor:
        side = max(image.size)
        square = Image.new("RGB", (side, side), colour)
        square.paste(image, place(side - image.width, side - image.height))
        return _pixels(square)

    return padded


def _resized(way: Image.Resampling) -> Callable:
    return lambda image: _pixels(image.resize(2 * [max(image.size)], way))


_centred = _pasted(lambda columns, rows: (columns // 2, rows // 2))
SQUARES = {
    _pasted(lambda columns, rows: (rows // 2, columns // 2)): (
        "column and row are swapped, so the image is cropped: `paste` wants (x, y), "
        "and x comes of the width."
    ),
    lambda image: _pasted(lambda *_: 2 * (max(image.size) // 2,))(image): (
        "the corner of the image is in the middle, not the image: the corner goes "
        "where half of the padding ends."
    ),
    (
        _pasted(lambda columns, rows: (0, 0)),
        _pasted(lambda columns, rows: (columns, rows)),
    ): (
        "the image stands at one end of the square, not in the middle: half of the "
        "padding goes before it."
    ),
    lambda image: torch.zeros_like(_centred(image)): (
        "the square is empty: was the image pasted on it?"
    ),
    tuple(map(_resized, Image.Resampling)): (
        "the image was resized to a square, and so squeezed."
    ),
    _pasted(lambda columns, rows: (columns // 2, rows // 2), "white"): (
        "the padding is not black: its pixels should all be 0."
    ),
}


def _call_pad(answer, image: Image.Image):
    """The pixels of the square, in which the odd pixel is on the right or below."""
    before, (width, height), side = _pixels(image), image.size, max(image.size)
    found = answer(image)
    hint(
        found is not None,
        f"{NO_RETURN} (`paste` changes the square, and gives back None itself.)",
    )
    hint(
        isinstance(found, Image.Image),
        f"it gives a {type(found).__name__}, expected a PIL image",
    )
    hint(
        torch.equal(_pixels(image), before),
        "your code changes the image that it was given. Paste it on a new one.",
    )
    hint(
        found.mode == "RGB",
        f"the square has the mode {found.mode!r}, expected 'RGB', as the image",
    )
    says = f"for an image {width} wide and {height} high the square is {found.size}"
    if found.size != (side, side):
        hint(found.size != image.size, f"{says}: it stays as it is.")
        hint(
            found.size != (width, width) and found.size != (height, height),
            f"{says}: that is the shorter side, so the image is cropped. The square "
            "needs the longer one, and an image can be higher than wide.",
        )
        hint(
            sorted(found.size) != [side - 1, side],
            f"{says}: the padding is an odd number of pixels, so one side needs a "
            "pixel more than the other.",
        )
        text = "To resize is the job of the transform that comes later."
        hint(False, f"{says}, expected ({side}, {side}). {text}")
    places = product((0, 1), repeat=2)
    good = (
        _pasted(lambda columns, rows, x=x, y=y: ((columns + x) // 2, (rows + y) // 2))
        for x, y in places
    )
    pixels = _pixels(found)
    same = any(torch.equal(pixels, square(image)) for square in good)
    return _centred(image) if same else pixels


check_pad_to_square = Task(
    "pad_to_square",
    "squares with the whole image in the middle",
    Case(
        inputs=_images,
        call=_call_pad,
        right=_centred,
        mistakes=SQUARES,
        gradient=False,
        advice=(
            "The square holds the whole image, pixel by pixel; what is not image is "
            "black."
        ),
    ),
)

# 2. Mean and standard deviation of each channel


def _loader(seed: int, count: int, size: tuple[int, int], batch: int) -> DataLoader:
    """A loader of images that differ in brightness, contrast and colour."""
    g = torch.Generator().manual_seed(seed)
    levels = torch.rand(count, 3, 1, 1, generator=g)  # of each image
    scale = torch.rand(count, 3, 1, 1, generator=g) * 0.5
    levels[-2:] += torch.tensor([0.9, 0.3, -0.6]).view(3, 1, 1)
    images = levels + scale * (torch.rand(count, 3, *size, generator=g) - 0.5)
    return DataLoader(TensorDataset(images, torch.arange(count)), batch_size=batch)


# The last batch is smaller, then of the same size as the others, then the only one.
LOADERS = {
    "10 images of 24 x 36": _loader(1, 10, (24, 36), 4),
    "3 images of 40 x 16": _loader(2, 3, (40, 16), 1),
    "4 images of 20 x 31": _loader(3, 4, (20, 31), 9),
}


def _of_all(function: Callable) -> Callable:
    """A function of all images at once, (n, 3, H, W)."""
    return lambda kind: function(torch.cat([x for x, _ in LOADERS[kind]]))


def _of_batches(function: Callable, number: int | None = None) -> Callable:
    """The mean over the batches of a function of their images, or its value for one."""

    def call(kind: str) -> Tensor:
        found = torch.stack([function(x) for x, _ in LOADERS[kind]])
        return found.mean(dim=0) if number is None else found[number]

    return call


def _weighted(function: Callable) -> Callable:
    """The mean over the batches, weighted by their images."""

    def call(kind: str) -> Tensor:
        found = [len(x) * function(x) for x, _ in LOADERS[kind]]
        return torch.stack(found).sum(dim=0) / sum(len(x) for x, _ in LOADERS[kind])

    return call


def _mean(x: Tensor) -> Tensor:
    return x.mean(dim=(0, 2, 3))


def _std(x: Tensor) -> Tensor:
    return x.std(dim=(0, 2, 3))


def _square(x: Tensor) -> Tensor:
    return x.square().mean(dim=(0, 2, 3))


def _cut(x: Tensor) -> Tensor:
    """Cuts memory in three, which mixes the channels."""
    return x.reshape(3, -1)


def _imagenet(name: str) -> Callable:
    def call(kind: str) -> Tensor:
        from going_modular import data_setup  # imports torchvision, which takes 2 s

        return torch.tensor(getattr(data_setup, name))

    return call


def _mixed_in_batches(kind: str) -> Tensor:
    sums = [_cut(x).sum(dim=1) for x, _ in LOADERS[kind]]
    return torch.stack(sums).sum(0) / _of_all(lambda x: x.numel() // 3)(kind)


def _batch_mean_inside(kind: str) -> Tensor:
    return (_of_all(_square)(kind) - _of_batches(_mean)(kind).square()).sqrt()


ONE_BATCH = (
    "these are the values of a single batch. Is something overwritten in the loop, or "
    "does a `return` stand inside it?"
)
CONSTANTS = (
    "these are ImageNet's constants. Compute them from the images of the loader."
)
MIXED = (
    "the channels are mixed: `view(3, -1)` cuts memory, where the three channels of an "
    "image follow one another. Bring the channel axis to the front first "
    "(`transpose(0, 1)`), or name the axes: `dim=(0, 2, 3)`."
)
ALL_CHANNELS = (
    "all channels together give one value. Keep axis 1: red, green and blue have a "
    "mean and a standard deviation each."
)
MEANS = {
    _of_batches(_mean): (
        "batches are averaged, so that each image of the smaller last batch counts for "
        "more than the others. Add up over pixels, and divide once."
    ),
    (_of_batches(_mean, 0), _of_batches(_mean, -1)): ONE_BATCH,
    _of_all(_std): "the two are swapped: the mean comes first.",
    _imagenet("IMAGENET_MEAN"): CONSTANTS,
    _of_all(torch.mean): ALL_CHANNELS,
    (_of_all(lambda x: _cut(x).mean(dim=1)), _mixed_in_batches): MIXED,
    _of_all(lambda x: x.sum(dim=(0, 2, 3))): (
        "this is a sum. Divide by the number of pixels, in each image H · W."
    ),
    _of_all(lambda x: x.sum(dim=(2, 3)).mean(dim=0)): (
        "the sum is divided by the number of images. Each has H · W pixels."
    ),
    _of_all(lambda x: _mean(x) / 3): (
        "the sum is divided by the number of all values. A channel has a third of them."
    ),
    lambda kind: _of_all(lambda x: x.sum(dim=(0, 2, 3)))(kind) / len(LOADERS[kind]): (
        "the sum is divided by the number of batches."
    ),
    _of_all(lambda x: x.mean(dim=0)): (
        "this is a mean for each place in the image, not for each channel: average "
        "over images, rows and columns, axes 0, 2 and 3."
    ),
}
STDS = {
    (
        _of_all(lambda x: x.std(dim=(2, 3)).mean(dim=0)),
        _of_all(lambda x: x.var(dim=(2, 3)).mean(dim=0).sqrt()),
        _of_batches(_std),
        lambda kind: _of_batches(lambda x: _std(x).square())(kind).sqrt(),
        _weighted(_std),
        lambda kind: _weighted(lambda x: _std(x).square())(kind).sqrt(),
    ): (
        "the standard deviation is averaged over images or batches, which leaves out "
        "how much these differ from each other. Add up x and x² over all pixels first."
    ),
    _of_all(lambda x: x.mean(dim=(2, 3)).std(dim=0)): (
        "this is the standard deviation of the images' means. It leaves out the "
        "variance within each image: take all pixels."
    ),
    _of_all(lambda x: _std(x).square()): (
        "this is the variance. The standard deviation is its square root."
    ),
    _of_all(lambda x: _square(x).sqrt()): (
        "the mean is not subtracted: this is the square root of the mean of x². "
        "Subtract µ² before you take the square root."
    ),
    _of_all(lambda x: _square(x).sqrt() - _mean(x).square()): (
        "the square root is taken too soon: it is that of the whole difference, mean "
        "of x² minus µ²."
    ),
    _batch_mean_inside: (
        "µ² is subtracted, where µ is the mean of the batches' means. The mean of all "
        "pixels belongs there."
    ),
    (_of_batches(_std, 0), _of_batches(_std, -1)): ONE_BATCH,
    _imagenet("IMAGENET_STD"): CONSTANTS,
    _of_all(torch.std): ALL_CHANNELS,
    _of_all(lambda x: _cut(x).std(dim=1)): MIXED,
}


def _part(index: int) -> Callable:
    def call(answer, kind: str):
        found = answer(LOADERS[kind])
        hint(found is not None, NO_RETURN)
        both = isinstance(found, tuple | list) and len(found) == 2
        hint(both, "give back two tensors: the mean and the standard deviation")
        return found[index]

    return call


check_channel_statistics = Task(
    "channel_statistics",
    "mean and standard deviation over all pixels",
    # Dividing by n or n - 1 differs by less than the tolerance for so many pixels.
    *(
        Case(
            inputs=[(kind,) for kind in LOADERS],
            call=_part(index),
            right=_of_all(right),
            mistakes=mistakes,
            gradient=False,
            tolerance=5e-4,
        )
        for index, right, mistakes in ((0, _mean, MEANS), (1, _std, STDS))
    ),
)

# 3. Find the bug: seeds

SOURCES: dict[str, Callable] = {
    "random": lambda: [random.random() for _ in range(3)],
    "np.random": lambda: np.random.random(3).tolist(),
    "torch": lambda: torch.rand(3).tolist(),
}


def _check_seeds(answer) -> None:
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        drawn = {}
        # 0 after two other seeds; 42 may stand for it, and 1007 be cut to 7
        for seed in (7, 7, 0, 2**32 - 1, 0, 7, 2**31, 8, 42, 1007):
            found = answer(seed)
            hint(
                found is None,
                f"it gives back a {type(found).__name__}. The task asks for a function "
                "that returns nothing.",
            )
            numbers = {name: draw() for name, draw in SOURCES.items()}
            first = drawn.setdefault(seed, numbers)
            changed = [f"`{name}`" for name in SOURCES if numbers[name] != first[name]]
            hint(
                not changed,
                f"after the same seed, {seed}, the random numbers of "
                f"{', '.join(changed)} differ from those before. Each of the three has "
                "a global generator that needs the seed: a new one (`default_rng`, "
                "`random.Random`, `torch.Generator`) leaves it as it was.",
            )
        for name in SOURCES:
            hint(
                len({tuple(numbers[name]) for numbers in drawn.values()}) == len(drawn),
                f"`{name}` gives the same numbers for seeds that differ. Hand `seed` "
                "over as it is, and no number in its place.",
            )
    finally:  # a check leaves the random state as it was
        random.setstate(before[0])
        np.random.set_state(before[1])
        torch.set_rng_state(before[2])


check_seed_all = Task("seed_all", "mended: one seed for all three", also=[_check_seeds])

# 4. Loaders with workers


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


def _check_loading(answer) -> None:
    # Far apart, for a busy machine makes short passes longer. The one in the middle of
    # the sorted five is neither the first nor the third nor the last.
    slow = _SlowImages(0.8, 0.15, 0.01, 0.5, 0.05)
    found = _seconds_of(answer, slow, (0,), 5)
    _check_passes(slow, 5)
    _check_median(found[0], slow.seconds)
    both = _SlowImages(1.0)  # a worker takes 17 ms for an image
    persistent, start = [], DataLoader.__iter__

    def slow_start(loader: DataLoader):
        persistent.append(loader.persistent_workers)
        time.sleep(0.3 * bool(loader.num_workers))
        return start(loader)

    with patch.object(DataLoader, "__iter__", slow_start):
        found = _seconds_of(answer, both, (2, 0), 1)
    _check_workers(both)
    hint(
        not any(persistent),
        "with `persistent_workers` the workers are started in the first pass only. "
        "Their start belongs to each pass.",
    )
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
        not 0.1 < found[2] < 0.4,
        f"with 2 workers it gives {found[2]:.3f} s, without their start, which takes "
        "0.3 s in this check. `iter(loader)` starts them: start the clock before it.",
    )
    hint(
        found[2] > 0.1,  # one of the workers waits 8 times 17 ms
        f"with 2 workers a pass takes {found[2]:.3f} s, less than the worker with most "
        "images needs: does the clock stop too soon?",
    )


def _seconds_of(answer, dataset: Dataset, counts: tuple[int, ...], repeats: int):
    found = answer(dataset, counts, repeats)
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
    return found


def _check_passes(slow: _SlowImages, repeats: int) -> None:
    reads, batch = int(slow.reads[0]), int(slow.batch)
    hint(
        not slow.reads[1:].any(),
        "workers have read where 0 were asked for: pass the number on, as "
        "`num_workers`.",
    )
    hint(
        reads,
        "no image was read. To make a DataLoader reads nothing; a loop over it does.",
    )
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


def _check_median(found: float, passes: list[float]) -> None:
    """Finds which statistic of the passes was given back; all may be slow."""
    low, middle, high = min(passes), statistics.median(passes), max(passes)
    number = {seconds: f"number {i} of 5" for i, seconds in enumerate(passes, 1)}
    hint(found < 100 * low + high, "these are milliseconds, or more; give seconds.")
    hint(
        found > 0.9 * low,
        f"it gives {found:.4f} s, less than the quickest pass took. Does the clock "
        "stop before the last batch? (`time.process_time` counts no waiting.)",
    )
    known = {
        f"the longest pass, {number[high]}": high,
        f"the shortest pass, {number[low]}": low,
        "the sum of the passes": sum(passes),
        "counted from the start of the first pass (start the clock again for each)": (
            statistics.median(accumulate(passes))
        ),
        "the mean of the passes, which one slow pass moves": statistics.mean(passes),
        "": middle,
    }
    nearest = min(known, key=lambda name: abs(np.log(known[name] / found)))
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
        (main, workers) == (10, 10),
        f"with 0 and then 2 workers the main process has read {main} images and "
        f"workers {workers}, expected 10 and 10: pass the number on, as `num_workers`.",
    )
    hint(
        bool(both.reads[1]) and bool(both.reads[2]) and not both.reads[3:].any(),
        "another number of workers than asked for was started.",
    )


check_measure_loading = Task(
    "measure_loading",
    "seconds of whole passes, with and without workers",
    also=[_check_loading],
)
