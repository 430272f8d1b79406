"""Answers to the exercises of lesson 02."""

import numpy as np
import torch
import torch.nn.functional as F

from answers import right, wrong
from going_modular.patches import patchify

COUNT = "check_num_patches"
OVERLAP = "check_overlapping_patches"
GRID = "check_mended_grid"
SHARES = "check_variance_fractions"


@wrong(COUNT, "keeps the fraction")
def fractions(height, width, patch_size, step):
    return ((height - patch_size) / step + 1) * ((width - patch_size) / step + 1)


@wrong(COUNT, "keeps the fraction")
def floored_product(height, width, patch_size, step):
    product = ((height - patch_size) / step + 1) * ((width - patch_size) / step + 1)
    return product // 1


@wrong(COUNT, "by hand along one side")
def from_the_area(height, width, patch_size, step):
    return (height - patch_size) * (width - patch_size) // step**2 + 1


@wrong(COUNT, "belongs to the example")
def the_example(height, width, patch_size, step):
    return 32


@wrong(COUNT, "expected a number")
def both_sides(height, width, patch_size, step):
    return (height - patch_size) // step + 1, (width - patch_size) // step + 1


@wrong(COUNT, "Is a `return` missing")
def printed(height, width, patch_size, step):
    print((height - patch_size) // step + 1)


@wrong(COUNT, "not written yet")
def blank_count(height, width, patch_size, step):
    raise NotImplementedError("your lines go here")


@right(COUNT)
def by_ranges(height, width, patch_size, step):
    tops = range(0, height - patch_size + 1, step)
    lefts = range(0, width - patch_size + 1, step)
    return len(tops) * len(lefts)


@right(COUNT)
def by_cutting(height, width, patch_size, step):
    picture = torch.empty(height, width)
    windows = picture.unfold(0, patch_size, step).unfold(1, patch_size, step)
    return windows.shape[0] * windows.shape[1]


@right(COUNT)
def by_flooring(height, width, patch_size, step):
    sides = np.array([height, width])
    return np.prod(np.floor((sides - patch_size) / step).astype(int) + 1)


def both_unfolds(images, patch_size, step):
    return images.unfold(2, patch_size, step).unfold(3, patch_size, step)


def ordered(images, patch_size, step, *axes):
    x = both_unfolds(images, patch_size, step).permute(0, *axes)
    return x.flatten(3).flatten(1, 2)


@wrong(OVERLAP, "`F.unfold` does not take integers")
def by_f_unfold(images, patch_size, step):
    return F.unfold(images, patch_size, stride=step).transpose(1, 2)


@wrong(OVERLAP, "leave the dtype")
def as_floats(images, patch_size, step):
    return F.unfold(images.float(), patch_size, stride=step).transpose(1, 2)


@wrong(OVERLAP, "last digits are lost")
def through_float(images, patch_size, step):
    cut = F.unfold(images.float(), patch_size, stride=step).transpose(1, 2)
    return cut.to(images.dtype)


@wrong(OVERLAP, "last digits are lost")
def through_bfloat16(images, patch_size, step):
    return ordered(images.bfloat16(), patch_size, step, 2, 3, 1, 4, 5).to(images.dtype)


@right(OVERLAP)
def by_numpy(images, patch_size, step):
    windows = np.lib.stride_tricks.sliding_window_view(
        images.numpy(), (patch_size, patch_size), axis=(2, 3)
    )[:, :, ::step, ::step]
    x = torch.tensor(windows).permute(0, 2, 3, 1, 4, 5)
    return x.flatten(3).flatten(1, 2)


@wrong(OVERLAP, "changes the tensor")
def erasing(images, patch_size, step):
    cut = ordered(images, patch_size, step, 2, 3, 1, 4, 5).clone()
    images.data.zero_()
    return cut


@wrong(OVERLAP, "expected (1, 12, 18)")
def three_channels(images, patch_size, step):
    x = both_unfolds(images, patch_size, step).permute(0, 2, 3, 1, 4, 5)
    return x.reshape(len(images), -1, 3 * patch_size**2)


@wrong(OVERLAP, "not written yet")
def blank_overlap(images, patch_size, step):
    raise NotImplementedError("your lines go here")


@right(OVERLAP)
def by_slices(images, patch_size, step):
    height, width = images.shape[2:]
    cut = [
        images[:, :, top : top + patch_size, left : left + patch_size].flatten(1)
        for top in range(0, height - patch_size + 1, step)
        for left in range(0, width - patch_size + 1, step)
    ]
    return torch.stack(cut, dim=1)


@right(OVERLAP)
def by_f_unfold_and_back(images, patch_size, step):
    cut = F.unfold(images.double(), patch_size, stride=step).transpose(1, 2)
    return cut.to(images.dtype)


@right(OVERLAP)
def by_indices(images, patch_size, step):
    height, width = images.shape[2:]
    inside = torch.arange(patch_size)
    down = torch.arange(0, height - patch_size + 1, step)[:, None] + inside
    across = torch.arange(0, width - patch_size + 1, step)[:, None] + inside
    x = images[:, :, down[:, None, :, None], across[None, :, None, :]]
    return x.movedim(1, 3).reshape(len(images), len(down) * len(across), -1)


def sizes(images, patch_size):
    b, c, height, width = images.shape
    return b, c, height // patch_size, width // patch_size


@wrong(GRID, "which rows and columns")
def permuted_to_no_end(images, patch_size):
    b, c, rows, columns = sizes(images, patch_size)
    x = images.reshape(b, c, rows, columns, patch_size, patch_size)
    return x.transpose(2, 3).reshape(b, c, rows, columns, patch_size, patch_size)


@wrong(GRID, "expected (1, 2, 2, 5, 3, 3)")
def always_four(images, patch_size):
    return images.unfold(2, 4, 4).unfold(3, 4, 4)


@wrong(GRID, "`F.unfold` does not take integers")
def grid_by_f_unfold(images, patch_size):
    b, c, rows, columns = sizes(images, patch_size)
    x = F.unfold(images, patch_size, stride=patch_size)
    x = x.reshape(b, c, patch_size, patch_size, rows, columns)
    return x.permute(0, 1, 4, 5, 2, 3)


@right(GRID)
def grid_by_numpy(images, patch_size):
    b, c, rows, columns = sizes(images, patch_size)
    x = images.numpy().reshape(b, c, rows, patch_size, columns, patch_size)
    return torch.from_numpy(x.swapaxes(3, 4).copy())


@wrong(GRID, "not written yet")
def blank_grid(images, patch_size):
    raise NotImplementedError("your lines go here")


@right(GRID)
def by_two_unfolds(images, patch_size):
    return both_unfolds(images, patch_size, patch_size)


@right(GRID)
def from_patchify(images, patch_size):
    b, c, rows, columns = sizes(images, patch_size)
    patches = patchify(images, patch_size)
    return patches.view(b, rows, columns, c, patch_size, patch_size).movedim(3, 1)


@right(GRID)
def by_splitting(images, patch_size):
    strips = images.split(patch_size, dim=2)
    rows = [torch.stack(strip.split(patch_size, dim=3), dim=2) for strip in strips]
    return torch.stack(rows, dim=2)


def squares(picture, patch_size):
    return patchify(picture[None, None], patch_size)[0]


@wrong(SHARES, "your patches are strips")
def strips(picture, patch_size):
    x, total = picture.view(-1, patch_size**2), picture.var(correction=0)
    between = x.mean(1).var(correction=0) / total
    return between, 1 - between


@wrong(SHARES, "the mean of the variances")
def each_patch_by_its_own(picture, patch_size):
    x = squares(picture, patch_size)
    return x.mean(1).var(correction=0) / x.var(1, correction=0).mean(), 1.0


@wrong(SHARES, "belongs to the example")
def patches_of_sixteen(picture, patch_size):
    x, total = squares(picture, 16), picture.var(correction=0)
    between = x.mean(1).var(correction=0) / total
    return between, 1 - between


@wrong(SHARES, "expected 2 values")
def one_number(picture, patch_size):
    x, total = squares(picture, patch_size), picture.var(correction=0)
    return x.mean(1).var(correction=0) / total


@wrong(SHARES, "expected a number")
def one_for_each_patch(picture, patch_size):
    x, total = squares(picture, patch_size), picture.var(correction=0)
    return x.mean(1), x.var(1, correction=0) / total


@wrong(SHARES, "expected a number")
def as_texts(picture, patch_size):
    x, total = squares(picture, patch_size), picture.var(correction=0)
    between = x.mean(1).var(correction=0) / total
    return f"{between:.6f}", f"{1 - between:.6f}"


@wrong(SHARES, "changes the tensor")
def centred_in_place(picture, patch_size):
    picture -= picture.mean()
    x, total = squares(picture, patch_size), picture.square().mean()
    between = x.mean(1).square().mean() / total
    return between, 1 - between


@wrong(SHARES, "not written yet")
def blank_shares(picture, patch_size):
    raise NotImplementedError("your lines go here")


@right(SHARES)
def one_minus(picture, patch_size):
    x = squares(picture, patch_size)
    between = x.mean(1).var(unbiased=False) / picture.var(unbiased=False)
    return between.item(), 1 - between.item()


@right(SHARES)
def with_numpy(picture, patch_size):
    height, width = picture.shape
    x = picture.numpy().reshape(
        height // patch_size, patch_size, width // patch_size, patch_size
    )
    return x.mean((1, 3)).var() / x.var(), x.var((1, 3)).mean() / x.var()


@right(SHARES)
def as_an_array(picture, patch_size):
    x = squares(picture, patch_size).numpy()
    return np.array([x.mean(1).var(), x.var(1).mean()]) / x.var()


@right(SHARES)
def loop_over_patches(picture, patch_size):
    height, width = picture.shape
    mean, between, within = picture.mean(), 0.0, 0.0
    for top in range(0, height, patch_size):
        for left in range(0, width, patch_size):
            patch = picture[top : top + patch_size, left : left + patch_size]
            between += patch.numel() * (patch.mean() - mean) ** 2
            within += ((patch - patch.mean()) ** 2).sum()
    total = ((picture - mean) ** 2).sum()
    return [between / total, within / total]
