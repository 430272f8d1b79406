"""Tasks of the exercises of lesson 02: patches."""

import operator

import torch

from vit_course.checks.hints import hint
from vit_course.checks.task import Case, Task, equal


def _steps(side: int, patch_size: int, step: int) -> int:
    return (side - patch_size) // step


def _count(height: int, width: int, patch_size: int, step: int) -> int:
    return (_steps(height, patch_size, step) + 1) * (
        _steps(width, patch_size, step) + 1
    )


TOO_MANY = (
    "along each side there is one patch too many: one that does not fit wholly, if you "
    "round up. Round down."
)
COUNTS = {
    lambda h, w, p, s: len(range(0, h - p, s)) * len(range(0, w - p, s)): (
        "a patch that ends at the last pixel fits, too, and is left out. (`range` "
        "stops before its end.)"
    ),
    lambda h, w, p, s: _steps(h, p, s) * _steps(w, p, s): (
        "these are the steps from one patch to the next. Along a side there is one "
        "patch more than steps: the first stands at pixel 0."
    ),
    lambda h, w, p, s: _steps(h, p, s) * _steps(w, p, s) + 1: (
        "one patch more than steps, yes, but along *each* side: add before you "
        "multiply."
    ),
    lambda h, w, p, s: (h // s) * (w // s): (
        "the whole side is divided by the step, so the last patches stick out of the "
        "image. A patch can start only where P pixels are left."
    ),
    lambda h, w, p, s: (h // p) * (w // p): (
        "`step` plays no part: this is the lesson's N, where no patches overlap."
    ),
    lambda h, w, p, s: _steps(h, p, s) + _steps(w, p, s) + 2: (
        "the counts of both sides are added. Patches stand in a grid: each row has as "
        "many as there are columns."
    ),
    lambda h, w, p, s: _count(h, w, s, p): "patch size and step are swapped.",
    lambda h, w, p, s: (-(-(h - p) // s) + 1) * (-(-(w - p) // s) + 1): TOO_MANY,
    lambda h, w, p, s: (_steps(h, p, s) + 2) * (_steps(w, p, s) + 2): TOO_MANY,
    lambda h, w, p, s: int(((h - p) / s + 1) * ((w - p) / s + 1)): (
        "round down along each side, before you multiply."
    ),
    lambda h, w, p, s: _count(h, h, p, s): (
        "the height stands for both sides. Not every image is a square."
    ),
    lambda h, w, p, s: _count(w, w, p, s): (
        "the width stands for both sides. Not every image is a square."
    ),
    lambda h, w, p, s: _steps(h, p, s) + 1: (
        "these are the patches down one column. How many columns are there?"
    ),
    lambda h, w, p, s: _steps(w, p, s) + 1: (
        "these are the patches across one row. How many rows are there?"
    ),
    lambda h, w, p, s: (h - p // s + 1) * (w - p // s + 1): (
        "`//` binds stronger than `-`: only the patch size was divided by the step. "
        "Put `side - patch_size` in brackets."
    ),
}


def _whole_number(answer, *sizes):
    found = answer(*sizes)
    hint(
        not isinstance(found, float),
        f"for {sizes} it gives {found}, and a number of patches is an int. `/` keeps "
        "the fraction; `//` leaves out what does not fill a patch.",
    )
    try:
        return operator.index(found)
    except TypeError:
        return found  # the case says what is wrong with it


check_num_patches = Task(
    "num_patches",
    "patches that overlap, counted along both sides",
    Case(
        inputs=[
            (31, 53, 8, 6),
            (224, 224, 16, 8),
            (224, 224, 16, 16),
            (4, 6, 2, 1),
            (16, 65, 16, 16),
            (40, 57, 4, 10),  # a step longer than a patch leaves gaps
            (7, 7, 7, 3),
            (33, 20, 5, 3),
        ],
        call=_whole_number,
        right=_count,
        mistakes=COUNTS,
        advice="Count by hand along one side of 7 pixels with P = 3 and a step of 2.",
    ),
)


def _windows(images: torch.Tensor, patch_size: int, step: int) -> torch.Tensor:
    """All sliding windows on their grid: (B, C, rows, columns, P, P)."""
    return images.unfold(2, patch_size, step).unfold(3, patch_size, step)


def _flat(windows: torch.Tensor, *order: int) -> torch.Tensor:
    """Windows as flat patches; `order` is that of the six axes."""
    x = windows.permute(order or (0, 2, 3, 1, 4, 5))
    return x.flatten(3).flatten(1, 2)


def _cut(images: torch.Tensor, patch_size: int, step: int, *order: int):
    return _flat(_windows(images, patch_size, step), *order)


def _without_permute(images, patch_size, step):
    right = _cut(images, patch_size, step)
    return _windows(images, patch_size, step).reshape(right.shape)


def _viewed(images, patch_size, step):
    x = _windows(images, patch_size, step).permute(0, 2, 3, 1, 4, 5)
    return x.view(_cut(images, patch_size, step).shape)


OVERLAPS = {
    _without_permute: (
        "the axes were not put in order before they were flattened. After both unfolds "
        "they are (B, C, rows, columns, P, P): the two axes of the grid must come "
        "together after the batch, and C must join the pixels."
    ),
    lambda x, p, s: _cut(x, p, s, 0, 3, 2, 1, 4, 5): (
        "your patches run down the columns first. Reading order goes across a row of "
        "patches, then to the next row."
    ),
    lambda x, p, s: _cut(x, p, s, 0, 2, 3, 1, 5, 4): (
        "each patch is mirrored: its rows of pixels are where its columns should be. "
        "Which of the two last axes came from the height?"
    ),
    lambda x, p, s: _cut(x, p, s, 0, 2, 3, 4, 5, 1): (
        "in your patches the channel varies fastest (row, column, channel). `patchify` "
        "keeps channel, row, column."
    ),
    lambda x, p, s: _cut(x, p, s).transpose(1, 2): (
        "these are (B, C·P², N): each patch is a column. The Transformer reads one "
        "patch per row: (B, N, C·P²)."
    ),
    lambda x, p, s: _cut(x, p, p): (
        "the patches do not overlap: `step` plays no part in your code."
    ),
    lambda x, p, s: _cut(x, s, p): (
        "patch size and step are swapped. `unfold(axis, size, step)` takes the size "
        "first."
    ),
    lambda x, p, s: _flat(x.unfold(2, p, p).unfold(3, p, s)): (
        "the step is used across only, not down."
    ),
    lambda x, p, s: _flat(x.unfold(2, p, s).unfold(3, p, p)): (
        "the step is used down only, not across."
    ),
    lambda x, p, s: _cut(x, p, s).flatten(0, 1): (
        "all images stand in one long list: the batch needs an axis of its own."
    ),
    lambda x, p, s: _windows(x, p, s).permute(0, 2, 3, 1, 4, 5).flatten(1, 2): (
        "the values of a patch are not flat yet: channel, row and column must become "
        "one axis of C·P² values."
    ),
    lambda x, p, s: _windows(x, p, s).permute(0, 2, 3, 1, 4, 5): (
        "the patches are still on their grid, and not flat: (B, N, C·P²) has three "
        "axes."
    ),
    _viewed: (
        "`view` cannot do this: the values of one patch are not contiguous in memory, "
        "so they must be copied. `reshape` and `flatten` do that."
    ),
}


INTEGERS = (
    "`F.unfold` does not take integers, and the images may be of any dtype. Use the "
    "method of the tensor, `images.unfold(axis, size, step)`."
)


def _no_integers(error: Exception) -> str:
    return INTEGERS if "im2col" in str(error) else ""


def _random_images(sizes: list[tuple]) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return [torch.rand(size, generator=generator) for size in sizes]


def _same_dtype(answer, images, patch_size, step):
    patches = answer(images, patch_size, step)
    if isinstance(patches, torch.Tensor):
        hint(
            patches.dtype == images.dtype,
            f"the images are {images.dtype}, the patches {patches.dtype}. Cutting "
            "does not change a value: leave the dtype as it is.",
        )
        right = _cut(images, patch_size, step)
        hint(
            torch.equal(patches, right)
            or not images.is_floating_point()
            or not equal(patches, right, 1e-2),
            f"the patches are {images.dtype} again, and their last digits are lost: "
            "which dtype do they have on the way?",
        )
    return patches


def _images_to_overlap() -> list[tuple]:
    small, gaps, apart = _random_images([(1, 2, 9, 7), (3, 1, 7, 12), (2, 3, 8, 12)])
    numbered = torch.arange(144).view(2, 3, 4, 6)
    return [
        (numbered, 2, 1),
        (small, 3, 2),
        (gaps, 2, 5),  # a step longer than a patch leaves gaps
        (apart, 4, 4),  # no overlap, as in the lesson
        (numbered.to(torch.uint8).view(1, 2, 8, 9), 4, 2),
        (small.double() / 3, 5, 1),  # more digits than another dtype keeps
    ]


check_overlapping_patches = Task(
    "overlapping_patches",
    "overlapping patches, each in the order of `patchify`",
    Case(
        inputs=_images_to_overlap(),
        call=_same_dtype,
        right=_cut,
        mistakes=OVERLAPS,
        explain=_no_integers,
        gradient=False,
        advice=(
            "Write down the shape after each step: which axes are flattened together?"
        ),
    ),
)


def _memory_cut(images: torch.Tensor, patch_size: int) -> torch.Tensor:
    return images.reshape(_windows(images, patch_size, patch_size).shape)


def _every_nth_pixel(images: torch.Tensor, patch_size: int) -> torch.Tensor:
    b, c, height, width = images.shape
    p, rows, columns = patch_size, height // patch_size, width // patch_size
    return images.reshape(b, c, p, rows, p, columns).permute(0, 1, 3, 5, 2, 4)


def _flat_grid(images: torch.Tensor, patch_size: int) -> torch.Tensor:
    return _cut(images, patch_size, patch_size)


MEMORY = (
    "your patches hold pixels of the wrong rows: `reshape` and `view` cut memory, not "
    "the image. Memory holds a row of the whole image, then the next. Give rows of "
    "patches, pixel rows, columns of patches and pixel columns an axis each, in the "
    "order in which they lie in memory, and only then change the order of the axes."
)
GRIDS = {
    _memory_cut: MEMORY,
    lambda x, p: _windows(x, p, p).transpose(4, 5): (
        "each patch is mirrored: rows and columns of its pixels are swapped."
    ),
    lambda x, p: _windows(x, p, p).transpose(2, 3): (
        "the grid is mirrored: `grid[b, c, i, j]` is the patch in row i and column j."
    ),
    _every_nth_pixel: (
        "each side is split as (P, rows), so a patch takes every n-th pixel of the "
        "whole image. Neighbouring pixels must stay together: (rows, P)."
    ),
    lambda x, p: _windows(x, p, p).permute(0, 2, 3, 1, 4, 5): (
        "the channel axis comes after the grid. Asked for is (B, C, rows, columns, P, "
        "P)."
    ),
    _flat_grid: (
        "the values are the right ones, but flat. Asked for is the grid, with six "
        "axes: (B, C, rows, columns, P, P)."
    ),
    lambda x, p: _flat_grid(x, p).reshape(_windows(x, p, p).shape): (
        "right for images of one channel only. `patchify` has the patches before the "
        "channels: (B, N, C·P²). Split these axes in this order, and then move C."
    ),
    lambda x, p: _windows(x, p, p).transpose(3, 4): (
        "the four axes of the image are split, and still in the order of memory: "
        "(rows, P, columns, P). One swap is missing."
    ),
}


def _images_for_a_grid() -> list[tuple]:
    sizes = [(2, 3, 8, 12), (1, 2, 6, 15), (3, 1, 10, 4), (2, 3, 9, 9)]
    rows = torch.arange(8).view(1, 1, 8, 1).expand(1, 1, 8, 12)  # the one shown
    return [*zip(_random_images(sizes), (4, 3, 2, 3), strict=True), (rows, 4)]


check_mended_grid = Task(
    "mended_grid",
    "mended: each patch is a square of the image",
    Case(
        inputs=_images_for_a_grid(),
        right=lambda x, p: _windows(x, p, p),
        mistakes=GRIDS,
        explain=_no_integers,
        gradient=False,
        advice=(
            "Try the images of row numbers and column numbers: which rows and columns "
            "does your first patch hold?"
        ),
    ),
)


def _squares(image: torch.Tensor, patch_size: int) -> torch.Tensor:
    """The patches of one grey image: (N, P²)."""
    return _cut(image[None, None], patch_size, patch_size)[0]


def _fractions(
    patches: torch.Tensor, correction: int = 0, axis: int = 1, power: float = 1.0
) -> tuple[float, float]:
    """Between and within, from patches (N, P²); the arguments make mistakes."""
    between = patches.mean(axis).var(correction=correction)
    within = (patches.var(axis, correction=correction) ** power).mean()
    total = patches.var(correction=correction)
    return (between / total).item() ** power, (within / total**power).item()


def _not_divided(image, patch_size):
    patches = _squares(image, patch_size)
    between = patches.mean(1).var(correction=0)
    return between.item(), patches.var(1, correction=0).mean().item()


def _summed(image, patch_size, rest: bool = False):
    between, within = _fractions(_squares(image, patch_size))
    within *= len(_squares(image, patch_size))
    return 1 - within if rest else between, within


FRACTIONS = {
    lambda x, p: _fractions(_squares(x, p), 1): (
        "the two do not add up to 1: `var` divides by the number of values *minus 1*, "
        "unless you say `correction=0`."
    ),
    lambda x, p: _fractions(_squares(x, p))[::-1]: (
        "the two are swapped: first the fraction between the patches, then within."
    ),
    _not_divided: (
        "these are variances, not fractions: divide both by the variance of all pixels."
    ),
    lambda x, p: _fractions(_squares(x, p), power=0.5): (
        "these are fractions of the standard deviation. Only variances add up."
    ),
    lambda x, p: _fractions(x.detach().reshape(-1, p * p)): (
        "your patches are strips: `view` and `reshape` cut memory, which holds the "
        "image row by row. `patchify` cuts squares."
    ),
    lambda x, p: _fractions(_squares(x, p), axis=0): (
        "the mean runs over the patches: that is the mean patch. N patch means are "
        "asked for, so take the mean over the pixels of each."
    ),
    (_summed, lambda x, p: _summed(x, p, rest=True)): (
        "the variances of the patches are added up. Within is their *mean*."
    ),
    lambda x, p: _fractions(_squares(x, p).T)[::-1]: (
        "means and variances run over the patches (axis 0 of (N, P²)), for each place "
        "in a patch. They belong to the pixels of each patch, axis 1."
    ),
    lambda x, p: tuple(100 * fraction for fraction in _fractions(_squares(x, p))): (
        "these are per cent. Give back fractions, which add up to 1."
    ),
}


def _sloping_images() -> list[tuple]:
    """A slope from left to right and a random part, so that both fractions count."""
    images = _random_images([(32, 48), (8, 12), (6, 10), (9, 15), (4, 6)])
    sloping = [image + torch.linspace(0, 1, image.shape[1]) for image in images]
    return list(zip(sloping, (16, 4, 2, 3, 2), strict=True))


check_variance_fractions = Task(
    "variance_fractions",
    "the variance between and within the patches, measured",
    Case(
        inputs=_sloping_images(),
        right=lambda x, p: _fractions(_squares(x, p)),
        mistakes=FRACTIONS,
        tolerance=1e-4,
        gradient=False,
        advice=(
            "Each patch, a row of (N, P²), has a mean and a variance: take the "
            "variance of the means, and the mean of the variances."
        ),
    ),
)
