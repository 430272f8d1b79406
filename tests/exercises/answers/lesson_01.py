"""Answers to the exercises of lesson 01."""

import random
import statistics
import time

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from answers import right, wrong
from helper_functions import set_seeds

PAD = "check_pad_to_square"
STATISTICS = "check_channel_statistics"
SEEDS = "check_seed_all"
LOADING = "check_measure_loading"


def on_square(image, x, y, side=None, colour="black"):
    side = side or max(image.size)
    square = Image.new("RGB", (side, side), colour)
    square.paste(image, (x, y))
    return square


def half(image):
    side = max(image.size)
    return (side - image.width) // 2, (side - image.height) // 2


@wrong(PAD, "the shorter side")
def cropped(image):
    return v2.CenterCrop(min(image.size))(image)


@wrong(PAD, "is not image is black")
def continued(image):
    x, y = half(image)
    others = max(image.size) - image.width - x, max(image.size) - image.height - y
    edges = ((y, others[1]), (x, others[0]), (0, 0))
    return Image.fromarray(np.pad(np.asarray(image), edges, mode="edge"))


@wrong(PAD, "the shorter side")
def wide_only(image):
    return on_square(image, 0, (image.width - image.height) // 2, image.width)


@wrong(PAD, "the padding is an odd number")
def equal_borders(image):
    return ImageOps.expand(image, half(image))


@wrong(PAD, "stays as it is")
def unchanged(image):
    return image


@wrong(PAD, "expected (10, 10)")
def nine(image):
    return on_square(image, (9 - image.width) // 2, (9 - image.height) // 2, 9)


@wrong(PAD, "the transform that comes later")
def for_the_model(image):
    return ImageOps.pad(image, (224, 224))


@wrong(PAD, "expected a PIL image")
def as_tensor(image):
    return v2.functional.to_image(on_square(image, *half(image)))


@wrong(PAD, "mode 'L'")
def grey(image):
    return on_square(image, *half(image)).convert("L")


@wrong(PAD, "pixel by pixel")
def mirrored(image):
    return on_square(ImageOps.mirror(image), *half(image))


@wrong(PAD, "changes the image")
def wiped(image):
    square = on_square(image, *half(image))
    image.paste(0, (0, 0, *image.size))
    return square


@wrong(PAD, "gives back None itself")
def what_paste_returns(image):
    side = max(image.size)
    return Image.new("RGB", (side, side)).paste(image, half(image))


@right(PAD)
def by_image_ops(image):
    return ImageOps.pad(image, (max(image.size),) * 2)


@right(PAD)
def by_centre_crop(image):
    return v2.CenterCrop(max(image.size))(image)


@right(PAD)
def by_numpy(image):
    pixels = np.asarray(image)
    height, width, _ = pixels.shape
    side = max(height, width)
    top, left = -(-(side - height) // 2), -(-(side - width) // 2)
    square = np.zeros((side, side, 3), np.uint8)
    square[top : top + height, left : left + width] = pixels
    return Image.fromarray(square)


def every(loader):
    return torch.cat([images for images, _ in loader])


def true_mean(loader):
    return every(loader).mean(dim=(0, 2, 3))


def true_std(loader):
    return every(loader).std(dim=(0, 2, 3))


@wrong(STATISTICS, "belongs to the example")
def fixed_size(loader):
    total = sum(images.sum(dim=(0, 2, 3)) for images, _ in loader)
    return total / (10 * 24 * 36), true_std(loader)


@wrong(STATISTICS, "two tensors")
def one_tensor(loader):
    return torch.stack([true_mean(loader), true_std(loader)])


@wrong(STATISTICS, "expected a tensor")
def as_lists(loader):
    return true_mean(loader).tolist(), true_std(loader).tolist()


@right(STATISTICS)
def all_at_once(loader):
    return true_mean(loader), every(loader).std(dim=(0, 2, 3), correction=0)


@right(STATISTICS)
def in_two_passes(loader):
    count = sum(x.numel() for x, _ in loader) // 3
    mean = sum(x.sum(dim=(0, 2, 3)) for x, _ in loader) / count
    gaps = sum(((x - mean.view(3, 1, 1)) ** 2).sum(dim=(0, 2, 3)) for x, _ in loader)
    return [mean, (gaps / (count - 1)).sqrt()]


@right(STATISTICS)
def channel_by_channel(loader):
    pixels = [every(loader)[:, channel].double() for channel in range(3)]
    means = torch.stack([x.mean() for x in pixels])
    return means, torch.stack([x.std() for x in pixels])


@wrong(SEEDS, "the random numbers of `random`, `np.random` differ")
def torch_only(seed):
    torch.manual_seed(seed)


@wrong(SEEDS, "the random numbers of `torch` differ")
def all_but_torch(seed):
    random.seed(seed)
    np.random.seed(seed)


@wrong(SEEDS, "the random numbers of `np.random` differ")
def new_numpy_generator(seed):
    random.seed(seed)
    np.random.default_rng(seed)
    torch.manual_seed(seed)


@wrong(SEEDS, "the random numbers of `random` differ")
def from_the_clock(seed):
    random.seed()
    np.random.seed(seed)
    torch.manual_seed(seed)


@wrong(SEEDS, "leaves it as it was")
def new_generators(seed):
    random.Random(seed)
    np.random.RandomState(seed)
    torch.Generator().manual_seed(seed)


@wrong(SEEDS, "for seeds that differ")
def constant_seed(seed):
    random.seed(seed)
    np.random.seed(42)
    torch.manual_seed(seed)


@wrong(SEEDS, "for seeds that differ")
def small_seeds(seed):
    random.seed(seed)
    np.random.seed(seed % 8)
    torch.manual_seed(seed)


@wrong(SEEDS, "for seeds that differ")
def default_for_zero(seed):
    set_seeds(seed or 42)


@wrong(SEEDS, "for seeds that differ")
def cut_to_three_digits(seed):
    set_seeds(seed % 1000)


@wrong(SEEDS, "returns nothing")
def gives_the_generator(seed):
    random.seed(seed)
    np.random.seed(seed)
    return torch.manual_seed(seed)


@wrong(SEEDS, "after the same seed, 0")
def zero_is_no_seed(seed):
    if seed:
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)


@right(SEEDS)
def by_states(seed):
    random.setstate(random.Random(seed).getstate())
    np.random.set_state(np.random.RandomState(seed).get_state())
    torch.set_rng_state(torch.Generator().manual_seed(seed).get_state())


@right(SEEDS)
def one_draws_for_the_others(seed):
    random.seed(seed)
    np.random.seed(random.randrange(2**32))
    torch.manual_seed(random.randrange(2**32))


@right(SEEDS)
def by_the_course(seed):
    set_seeds(seed)


def passes(dataset, workers, repeats, batch_size=8, clock=time.perf_counter):
    """Seconds of some passes."""
    loader = DataLoader(dataset, batch_size=batch_size, num_workers=workers)
    seconds = []
    for _ in range(repeats):
        start = clock()
        for _batch in loader:
            pass
        seconds.append(clock() - start)
    return seconds


median = statistics.median
MEASURES = {  # words of the hint -> seconds, for a number of workers
    "the mean of the passes": lambda *given: statistics.mean(passes(*given)),
    "the sum of the passes": lambda *given: sum(passes(*given)),
    "the longest pass, number 1 of 5": lambda *given: passes(*given)[0],
    "the shortest pass, number 3 of 5": lambda *given: passes(*given)[given[2] // 2],
    "milliseconds": lambda *given: 1000 * median(passes(*given)),
    "one float": passes,
    "process_time": lambda *given: median(passes(*given, clock=time.process_time)),
    "asks for batches of 8": lambda *given: median(passes(*given, batch_size=1)),
    "pass the number on": lambda data, n, repeats: median(passes(data, 0, repeats)),
    "0 were asked for": lambda data, n, repeats: median(passes(data, 2, repeats)),
    "another number of": lambda data, n, r: median(passes(data, min(n, 1), r)),
    "where `repeats` is 1": lambda data, n, repeats: median(passes(data, n, 5)),
    "where `repeats` is 5": lambda data, n, repeats: passes(data, n, 1)[0],
    "a single pass took": lambda *given: [0.06, median(passes(*given))][given[2] == 5],
}


def measured_by(measure):
    return lambda data, counts, repeats: {n: measure(data, n, repeats) for n in counts}


for hint, measure in MEASURES.items():
    wrong(LOADING, hint)(measured_by(measure))


@wrong(LOADING, "To make a DataLoader")
def only_made(dataset, worker_counts, repeats):
    found = {}
    for workers in worker_counts:
        start = time.perf_counter()
        DataLoader(dataset, batch_size=8, num_workers=workers)
        found[workers] = time.perf_counter() - start
    return found


@wrong(LOADING, "the last one is left out")
def without_the_last(dataset, worker_counts, repeats):
    found = {}
    for workers in worker_counts:
        loader = DataLoader(dataset, 8, num_workers=workers, drop_last=True)
        start = time.perf_counter()
        for _ in range(repeats):
            list(loader)
        found[workers] = (time.perf_counter() - start) / repeats
    return found


@wrong(LOADING, "start the clock again")
def clock_starts_once(dataset, worker_counts, repeats):
    found = {}
    for workers in worker_counts:
        loader = DataLoader(dataset, batch_size=8, num_workers=workers)
        seconds, start = [], time.perf_counter()
        for _ in range(repeats):
            list(loader)
            seconds.append(time.perf_counter() - start)
        found[workers] = median(seconds)
    return found


@wrong(LOADING, "the last one taken for all")
def last_number_for_all(dataset, worker_counts, repeats):
    for workers in worker_counts:
        seconds = passes(dataset, workers, repeats)
    return {workers: median(seconds) for workers in worker_counts}


@wrong(LOADING, "does the clock start late")
def stops_in_the_loop(dataset, worker_counts, repeats):
    found = {}
    for workers in worker_counts:
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            for i, _batch in enumerate(DataLoader(dataset, 8, num_workers=workers)):
                if i == 0:
                    seconds.append(time.perf_counter() - start)
        found[workers] = median(seconds)
    return found


@wrong(LOADING, "start the clock before it")
def workers_before_the_clock(dataset, worker_counts, repeats):
    found = {}
    for workers in worker_counts:
        seconds = []
        for _ in range(repeats):
            batches = iter(DataLoader(dataset, 8, num_workers=workers))
            start = time.perf_counter()
            list(batches)
            seconds.append(time.perf_counter() - start)
        found[workers] = median(seconds)
    return found


@wrong(LOADING, "belongs to each pass")
def workers_that_stay(dataset, worker_counts, repeats):
    found = {}
    for workers in worker_counts:
        stay = {"persistent_workers": workers > 0}
        loader = DataLoader(dataset, 8, num_workers=workers, **stay)
        seconds = []
        for _ in range(repeats):
            start = time.perf_counter()
            list(loader)
            seconds.append(time.perf_counter() - start)
        found[workers] = median(seconds)
    return found


@wrong(LOADING, "the dataset itself")
def without_a_loader(dataset, worker_counts, repeats):
    start = time.perf_counter()
    for _ in range(repeats):
        for _picture in dataset:
            pass
    return dict.fromkeys(worker_counts, (time.perf_counter() - start) / repeats)


@wrong(LOADING, "whose keys are the numbers of workers")
def in_a_list(dataset, worker_counts, repeats):
    return [median(passes(dataset, n, repeats)) for n in worker_counts]


@right(LOADING)
def sorted_seconds(dataset, worker_counts, repeats):
    return {n: sorted(passes(dataset, n, repeats))[repeats // 2] for n in worker_counts}


@right(LOADING)
def shuffled_by_torch(dataset, worker_counts, repeats):
    found = {}
    for workers in worker_counts:
        seconds = torch.zeros(repeats, dtype=torch.float64)
        for i in range(repeats):
            start = time.time()
            batches = iter(DataLoader(dataset, 8, shuffle=True, num_workers=workers))
            while next(batches, None) is not None:
                pass
            seconds[i] = time.time() - start
        found[workers] = seconds.median().item()
    return found
