"""Answers to the exercises of lesson 03."""

import statistics
import time
import timeit
from time import perf_counter_ns

import torch
import torch.nn.functional as F
from torch import nn

from answers import right, wrong
from going_modular.patches import grid_size, patchify

COLOURS = "check_mean_colours"
LINEAR = "check_linear_patch_embedding"
MENDED = "check_mended_patch_embedding"
RATIO = "check_time_ratio"
patch_size = 16  # as in the notebook, where the bug reads it


@wrong(COLOURS, "What else is added")
@torch.no_grad()
def bias_left(layer):
    layer.patcher.weight[:3] = 0
    for i in range(3):
        layer.patcher.weight[i, i] = 1 / layer.patch_size**2


@wrong(COLOURS, "sums over the patch")
@torch.no_grad()
def sums(layer):
    layer.patcher.bias[:3] = 0
    layer.patcher.weight[:3] = torch.eye(3)[:, :, None, None]


@wrong(COLOURS, "And a bias is added")
@torch.no_grad()
def sums_with_bias(layer):
    layer.patcher.weight[:3] = torch.eye(3)[:, :, None, None]


@wrong(COLOURS, "divided by P only")
@torch.no_grad()
def by_the_side(layer):
    layer.patcher.bias[:3] = 0
    layer.patcher.weight[:3] = torch.eye(3)[:, :, None, None] / layer.patch_size


@wrong(COLOURS, "has P² terms")
@torch.no_grad()
def by_all_numbers(layer):
    layer.patcher.bias[:3] = 0
    area = 3 * layer.patch_size**2
    layer.patcher.weight[:3] = torch.eye(3)[:, :, None, None] / area


@wrong(COLOURS, "every kernel adds up all three")
@torch.no_grad()
def grey(layer):
    layer.patcher.bias[:3] = 0
    layer.patcher.weight[:3] = 1 / (3 * layer.patch_size**2)


@wrong(COLOURS, "means of all three")
@torch.no_grad()
def grey_sum(layer):
    layer.patcher.bias[:3] = 0
    layer.patcher.weight[:3] = 1 / layer.patch_size**2


@wrong(COLOURS, "still has its old weights")
@torch.no_grad()
def old_weights(layer):
    layer.patcher.bias[:3] = 0
    for i in range(3):
        layer.patcher.weight[i, i] = 1 / layer.patch_size**2


@wrong(COLOURS, "blue, green, red")
@torch.no_grad()
def backwards(layer):
    layer.patcher.bias[:3] = 0
    windows = torch.eye(3).flip(0)[:, :, None, None] / layer.patch_size**2
    layer.patcher.weight[:3] = windows


@wrong(COLOURS, "other kernels have changed")
@torch.no_grad()
def all_erased(layer):
    nn.init.zeros_(layer.patcher.weight)
    nn.init.zeros_(layer.patcher.bias)
    for i in range(3):
        layer.patcher.weight[i, i] = 1 / layer.patch_size**2


@wrong(COLOURS, "only the first three biases")
@torch.no_grad()
def all_biases(layer):
    layer.patcher.bias.zero_()
    layer.patcher.weight[:3] = torch.eye(3)[:, :, None, None] / layer.patch_size**2


@wrong(COLOURS, "no_grad")
def recorded(layer):
    for i in range(3):
        layer.patcher.weight[i] = 0


@wrong(COLOURS, "cannot be replaced by a plain tensor")
def assigned(layer):
    weight = layer.patcher.weight.detach().clone()
    weight[:3] = torch.eye(3)[:, :, None, None] / layer.patch_size**2
    layer.patcher.weight = weight


@wrong(COLOURS, "can no longer be trained")
@torch.no_grad()
def frozen(layer):
    layer.patcher.requires_grad_(False)
    layer.patcher.bias[:3] = 0
    layer.patcher.weight[:3] = torch.eye(3)[:, :, None, None] / layer.patch_size**2


@wrong(COLOURS, "belongs to the example")
@torch.no_grad()
def always_sixteen(layer):
    layer.patcher.bias[:3] = 0
    layer.patcher.weight[:3] = torch.eye(3)[:, :, None, None] / 16**2


@wrong(COLOURS, "one weight for all pixels")
@torch.no_grad()
def one_pixel(layer):
    layer.patcher.bias[:3] = 0
    layer.patcher.weight[:3] = 0
    for i in range(3):
        layer.patcher.weight[i, i, 0, 0] = 1


@wrong(COLOURS, "not written yet")
def blank_colours(layer):
    raise NotImplementedError("your lines go here")


@right(COLOURS)
def through_data(layer):
    weight, bias = layer.patcher.weight.data, layer.patcher.bias.data
    weight[:3] = torch.eye(3)[:, :, None, None] / weight[0, 0].numel()
    bias[:3] = 0


@wrong(COLOURS, "is a new parameter")
def with_new_parameters(layer):
    weight = layer.patcher.weight.detach().clone()
    bias = layer.patcher.bias.detach().clone()
    weight[:3], bias[:3] = 0, 0
    for i in range(3):
        weight[i, i] = 1 / (weight.shape[2] * weight.shape[3])
    layer.patcher.weight, layer.patcher.bias = nn.Parameter(weight), nn.Parameter(bias)


@right(COLOURS)
def from_a_state_dict(layer):
    state = {name: value.clone() for name, value in layer.state_dict().items()}
    state["patcher.bias"][:3] = 0
    windows = torch.eye(3).view(3, 3, 1, 1) / layer.patch_size**2
    state["patcher.weight"][:3] = windows
    layer.load_state_dict(state)
    return layer


class Linear(nn.Module):
    """What the answers to the second task share."""

    def __init__(self, in_channels, patch_size, embedding_dim):
        super().__init__()
        self.patch_size = patch_size
        self.linear = nn.Linear(in_channels * patch_size**2, embedding_dim)

    def forward(self, images):
        return self.linear(patchify(images, self.patch_size))

    @torch.no_grad()
    def copy_from(self, patcher):
        self.linear.weight.copy_(self.rows(patcher.weight))
        self.linear.bias.copy_(patcher.bias)

    def rows(self, weight):
        return weight.flatten(1)


@wrong(LINEAR, "your patches hold row, column, channel")
class PatchesChannelLast(Linear):
    def forward(self, images):
        p = self.patch_size
        x = images.unfold(2, p, p).unfold(3, p, p).permute(0, 2, 3, 4, 5, 1)
        return self.linear(x.flatten(3).flatten(1, 2))


@wrong(LINEAR, "must copy the bias")
class WithoutBias(Linear):
    def copy_from(self, patcher):
        self.linear.weight.data.copy_(patcher.weight.data.flatten(1))


@wrong(LINEAR, "must copy the bias")
class NoBiasAtAll(Linear):
    def __init__(self, in_channels, patch_size, embedding_dim):
        super().__init__(in_channels, patch_size, embedding_dim)
        self.linear = nn.Linear(in_channels * patch_size**2, embedding_dim, bias=False)

    def copy_from(self, patcher):
        self.linear.weight.data.copy_(patcher.weight.data.flatten(1))


@wrong(LINEAR, "has changed no parameter")
class CopiesNothing(Linear):
    def copy_from(self, patcher):
        weight = self.linear.weight.detach().clone()
        weight.copy_(patcher.weight.detach().flatten(1))


@wrong(LINEAR, "no method")
class NoCopy(nn.Module):
    def __init__(self, in_channels, patch_size, embedding_dim):
        super().__init__()
        self.linear = nn.Linear(in_channels * patch_size**2, embedding_dim)


@wrong(LINEAR, "no_grad")
class RecordedCopy(Linear):
    def copy_from(self, patcher):
        self.linear.weight.copy_(patcher.weight.flatten(1))
        self.linear.bias.copy_(patcher.bias)


@wrong(LINEAR, "cannot be replaced by a plain tensor")
class PlainTensor(Linear):
    def copy_from(self, patcher):
        self.linear.weight = patcher.weight.flatten(1)


@wrong(LINEAR, "the two layers share memory")
class Shared(Linear):
    def copy_from(self, patcher):
        self.linear.weight.data = patcher.weight.data.flatten(1)
        self.linear.bias.data = patcher.bias.data.clone()


@wrong(LINEAR, "the two layers share memory")
class SharedBias(Linear):
    def copy_from(self, patcher):
        self.linear.weight = nn.Parameter(patcher.weight.detach().flatten(1).clone())
        self.linear.bias = patcher.bias


@wrong(LINEAR, "convolution in your class")
class ConvolutionInside(nn.Module):
    def __init__(self, in_channels, patch_size, embedding_dim):
        super().__init__()
        self.patcher = nn.Conv2d(in_channels, embedding_dim, patch_size, patch_size)

    def forward(self, images):
        return self.patcher(images).flatten(2).transpose(1, 2)

    def copy_from(self, patcher):
        self.patcher.load_state_dict(patcher.state_dict())


@wrong(LINEAR, "convolution in your class")
class FunctionalConvolution(Linear):
    def forward(self, images):
        p = self.patch_size
        weight = self.linear.weight.view(-1, images.shape[1], p, p)
        maps = F.conv2d(images, weight, self.linear.bias, stride=p)
        return maps.flatten(2).transpose(1, 2)


@wrong(LINEAR, "It must stay as it is")
class FreezesTheConvolution(Linear):
    def copy_from(self, patcher):
        super().copy_from(patcher.requires_grad_(False))


@wrong(LINEAR, "stops if `copy_from` was not called")
class MadeByTheCopy(Linear):
    def __init__(self, in_channels, patch_size, embedding_dim):
        nn.Module.__init__(self)
        self.patch_size, self.linear = patch_size, None

    def copy_from(self, patcher):
        self.linear = nn.Linear(patcher.weight[0].numel(), patcher.out_channels)
        super().copy_from(patcher)


@wrong(LINEAR, "something random")
class WithDropout(Linear):
    def forward(self, images):
        return F.dropout(super().forward(images), 0.1)


@wrong(LINEAR, "It must stay as it is")
class CopiesBack(Linear):
    @torch.no_grad()
    def copy_from(self, patcher):
        super().copy_from(patcher)
        patcher.weight.zero_()


@wrong(LINEAR, "your layer has 5 parameters")
class FrozenCopy(Linear):
    def copy_from(self, patcher):
        weight = patcher.weight.detach().flatten(1).clone()
        self.linear.weight = nn.Parameter(weight, requires_grad=False)
        self.linear.bias.data.copy_(patcher.bias.data)


@wrong(LINEAR, "your layer has 0 parameters")
class FrozenForTheCopy(Linear):
    def copy_from(self, patcher):
        self.linear.requires_grad_(False)
        self.linear.weight.copy_(patcher.weight.flatten(1))
        self.linear.bias.copy_(patcher.bias)


@wrong(LINEAR, "a part cut off")
class WeightDetached(Linear):
    def forward(self, images):
        weight = self.linear.weight.detach()
        return F.linear(patchify(images, self.patch_size), weight, self.linear.bias)


@wrong(LINEAR, "no gradient arrives")
class ImagesDetached(Linear):
    def forward(self, images):
        return super().forward(images.detach())


@wrong(LINEAR, "RuntimeError")
class Base16(Linear):
    def __init__(self, in_channels, patch_size, embedding_dim):
        super().__init__(3, 16, 768)


@wrong(LINEAR, "not written yet")
class BlankLinear(nn.Module):
    def __init__(self, in_channels, patch_size, embedding_dim):
        super().__init__()
        raise NotImplementedError("your lines go here")


@right(LINEAR)
class ByUnfold(Linear):
    def forward(self, images):
        p = self.patch_size
        return self.linear(F.unfold(images, p, stride=p).transpose(1, 2))

    def copy_from(self, patcher):
        weight = patcher.weight.detach().flatten(1)
        state = {"weight": weight, "bias": patcher.bias.detach()}
        self.linear.load_state_dict(state)


@right(LINEAR)
class BothChannelLast(PatchesChannelLast):
    def rows(self, weight):
        return weight.permute(0, 2, 3, 1).flatten(1)


@right(LINEAR)
class IsALinear(nn.Linear):
    def __init__(self, in_channels, patch_size, embedding_dim):
        super().__init__(in_channels * patch_size**2, embedding_dim)
        self.patch_size = patch_size

    def forward(self, images):
        return super().forward(patchify(images, self.patch_size))

    def copy_from(self, patcher):
        state = {"weight": patcher.weight.flatten(1), "bias": patcher.bias}
        self.load_state_dict(state)


@right(LINEAR)
class AMatrixByHand(nn.Module):
    def __init__(self, in_channels, patch_size, embedding_dim):
        super().__init__()
        self.patch_size = patch_size
        self.E = nn.Parameter(torch.zeros(in_channels * patch_size**2, embedding_dim))
        self.b = nn.Parameter(torch.zeros(embedding_dim))

    def forward(self, images):
        return patchify(images, self.patch_size) @ self.E + self.b

    def copy_from(self, patcher):
        self.E.data = patcher.weight.detach().flatten(1).T.clone()
        self.b.data = patcher.bias.detach().clone()


class Mended(nn.Module):
    """What the answers to the third task share."""

    def __init__(self, in_channels, patch_size, embedding_dim):
        super().__init__()
        self.patch_size = patch_size
        self.patcher = nn.Conv2d(in_channels, embedding_dim, patch_size, patch_size)

    def forward(self, images):
        self.check(*images.shape[-2:])
        return self.patcher(images).flatten(2).transpose(1, 2)

    def check(self, height, width):
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(f"{height} x {width} does not fit {self.patch_size}")


@wrong(MENDED, "Each object must keep")
class StillGlobal(Mended):
    def check(self, height, width):
        if height % patch_size or width % patch_size:
            raise ValueError("this picture does not fit")


@wrong(MENDED, "Each object must keep")
class StillTheBug(Mended):
    def check(self, height, width):
        assert width % patch_size == 0


@wrong(MENDED, "whatever other objects")
class OneForAllObjects(Mended):
    size = 16

    def __init__(self, in_channels, patch_size, embedding_dim):
        super().__init__(in_channels, patch_size, embedding_dim)
        OneForAllObjects.size = patch_size

    def check(self, height, width):
        if height % self.size or width % self.size:
            raise ValueError("this picture does not fit")


@wrong(MENDED, "a name that is not there")
class NoSuchName(Mended):
    def check(self, height, width):
        if height % the_patch_size or width % the_patch_size:  # noqa: F821
            raise ValueError("this picture does not fit")


@wrong(MENDED, "are axes 2 and 3")
class OtherAxes(Mended):
    def forward(self, images):
        self.check(*images.shape[1:3])
        return self.patcher(images).flatten(2).transpose(1, 2)


@wrong(MENDED, "the height is not checked")
class WidthOnly(Mended):
    def check(self, height, width):
        if width % self.patch_size:
            raise ValueError("this picture does not fit")


@wrong(MENDED, "the width is not checked")
class HeightOnly(Mended):
    def check(self, height, width):
        if height % self.patch_size:
            raise ValueError("this picture does not fit")


@wrong(MENDED, "not `and`")
class BothWrong(Mended):
    def check(self, height, width):
        if height % self.patch_size and width % self.patch_size:
            raise ValueError("this picture does not fit")


@wrong(MENDED, "accepts images with one wrong side")
class ShorterSide(Mended):
    def check(self, height, width):
        if min(height, width) % self.patch_size:
            raise ValueError("this picture does not fit")


@wrong(MENDED, "P divides both sides")
class AreaOnly(Mended):
    def check(self, height, width):
        if height * width % self.patch_size**2:
            raise ValueError("this picture does not fit")


@wrong(MENDED, "does not fit: a ValueError is expected")
class SumOnly(Mended):
    def check(self, height, width):
        if (height + width) % self.patch_size:
            raise ValueError("this picture does not fit")


@wrong(MENDED, "python -O")
class Asserts(Mended):
    def check(self, height, width):
        assert height % self.patch_size == 0 and width % self.patch_size == 0


@wrong(MENDED, "Your class: RuntimeError")
class AnotherError(Mended):
    def check(self, height, width):
        if height % self.patch_size or width % self.patch_size:
            raise RuntimeError("this picture does not fit")


@wrong(MENDED, "Is a ValueError *raised*")
class OnlyMade(Mended):
    def check(self, height, width):
        if height % self.patch_size or width % self.patch_size:
            ValueError("this picture does not fit")


@wrong(MENDED, "Not every image is a square")
class SquaresOnly(Mended):
    def check(self, height, width):
        if height != width or height % self.patch_size:
            raise ValueError("this picture does not fit")


@wrong(MENDED, "no parameter `patcher.weight`")
class OtherName(nn.Module):
    def __init__(self, in_channels, patch_size, embedding_dim):
        super().__init__()
        self.conv = nn.Conv2d(in_channels, embedding_dim, patch_size, patch_size)


@wrong(MENDED, "not written yet")
class BlankMended(Mended):
    def forward(self, images):
        raise NotImplementedError("your lines go here")


@right(MENDED)
class FromTheConvolution(nn.Module):
    def __init__(self, in_channels, patch_size, embedding_dim):
        super().__init__()
        self.patcher = nn.Conv2d(
            in_channels, embedding_dim, kernel_size=patch_size, stride=patch_size
        )

    def forward(self, images):
        for side, p in zip(images.shape[2:], self.patcher.kernel_size, strict=True):
            if side % p != 0:
                raise ValueError(f"{side} is not divisible by {p}")
        return self.patcher(images).flatten(start_dim=2).permute(0, 2, 1)


class SizeError(ValueError):
    """What a learner may make of a ValueError."""


@right(MENDED)
class WithItsOwnError(Mended):
    def check(self, height, width):
        if height % self.patch_size or width % self.patch_size:
            raise SizeError(f"{height} x {width} does not fit {self.patch_size}")


@right(MENDED)
class WithGridSize(Mended):
    def check(self, height, width):
        grid_size(height, width, self.patch_size)


@right(MENDED)
class CutsFirst(Mended):
    def forward(self, images):
        patches = patchify(images, self.patch_size)
        return patches @ self.patcher.weight.flatten(1).T + self.patcher.bias


def seconds(function, x):
    start = time.perf_counter()
    function(x)
    return time.perf_counter() - start


def in_turns(first, second, x, repeats):
    """The times of both, after a call each that does not count."""
    first(x), second(x)
    rounds = [(seconds(first, x), seconds(second, x)) for _ in range(repeats)]
    return zip(*rounds, strict=True)


@wrong(RATIO, "before you measure")
def cold_start(first, second, x, repeats):
    rounds = [(seconds(first, x), seconds(second, x)) for _ in range(repeats)]
    a, b = zip(*rounds, strict=True)
    return statistics.median(a) / statistics.median(b)


@wrong(RATIO, "before you measure")
def second_is_cold(first, second, x, repeats):
    first(x)
    rounds = [(seconds(first, x), seconds(second, x)) for _ in range(repeats)]
    a, b = zip(*rounds, strict=True)
    return statistics.median(a) / statistics.median(b)


@wrong(RATIO, "Does a first, slow call count")
def first_call_counts(first, second, x, repeats):
    rounds = [(seconds(first, x), seconds(second, x)) for _ in range(repeats + 1)]
    a, b = zip(*rounds, strict=True)
    return statistics.median(a) / statistics.median(b)


@wrong(RATIO, "upside down")
def upside_down(first, second, x, repeats):
    a, b = in_turns(first, second, x, repeats)
    return statistics.median(b) / statistics.median(a)


@wrong(RATIO, "do not subtract")
def difference(first, second, x, repeats):
    a, b = in_turns(first, second, x, repeats)
    return statistics.median(a) - statistics.median(b)


@wrong(RATIO, "Read the clock again")
def one_start(first, second, x, repeats):
    first(x), second(x)
    a, b = [], []
    for _ in range(repeats):
        start = time.perf_counter()
        first(x)
        a.append(time.perf_counter() - start)
        second(x)
        b.append(time.perf_counter() - start)
    return statistics.median(a) / statistics.median(b)


@wrong(RATIO, "while a function waits")
def time_of_the_processor(first, second, x, repeats):
    first(x), second(x)
    a, b = [], []
    for _ in range(repeats):
        start = time.process_time()
        first(x)
        a.append(time.process_time() - start)
        start = time.process_time()
        second(x)
        b.append(time.process_time() - start)
    return statistics.median(a) / max(statistics.median(b), 1e-9)


@wrong(RATIO, "a mean or a sum")
def means(first, second, x, repeats):
    a, b = in_turns(first, second, x, repeats)
    return statistics.mean(a) / statistics.mean(b)


@wrong(RATIO, "the fastest run")
def fastest(first, second, x, repeats):
    a, b = in_turns(first, second, x, repeats)
    return min(a) / min(b)


@wrong(RATIO, "or the first")
def first_round(first, second, x, repeats):
    a, b = in_turns(first, second, x, repeats)
    return a[0] / b[0]


@wrong(RATIO, "the fastest run")
def fastest_below(first, second, x, repeats):
    a, b = in_turns(first, second, x, repeats)
    return statistics.median(a) / min(b)


@wrong(RATIO, "a mean or a sum")
def mean_below(first, second, x, repeats):
    a, b = in_turns(first, second, x, repeats)
    return statistics.median(a) / statistics.mean(b)


@wrong(RATIO, "not sorted")
def middle_of_the_lists(first, second, x, repeats):
    a, b = in_turns(first, second, x, repeats)
    return a[repeats // 2] / b[repeats // 2]


@wrong(RATIO, "Divide the median of one list")
def without_the_extremes(first, second, x, repeats):
    cut = 1 if repeats > 2 else 0
    times = in_turns(first, second, x, repeats)
    a, b = (statistics.mean(sorted(t)[cut : repeats - cut]) for t in times)
    return a / b


@wrong(RATIO, "Divide the median of one list")
def one_below_the_middle(first, second, x, repeats):
    a, b = (sorted(times) for times in in_turns(first, second, x, repeats))
    return a[repeats // 2 - 1] / b[repeats // 2 - 1]


@wrong(RATIO, "divide with `/`")
def whole_times(first, second, x, repeats):
    a, b = in_turns(first, second, x, repeats)
    return statistics.median(a) // statistics.median(b)


@wrong(RATIO, "one run alone")
def last(first, second, x, repeats):
    a, b = in_turns(first, second, x, repeats)
    return list(a)[-1] / list(b)[-1]


@wrong(RATIO, "the slowest")
def slowest(first, second, x, repeats):
    a, b = in_turns(first, second, x, repeats)
    return max(a) / statistics.median(b)


@wrong(RATIO, "Take turns")
def one_after_the_other(first, second, x, repeats):
    first(x), second(x)
    a = [seconds(first, x) for _ in range(repeats)]
    b = [seconds(second, x) for _ in range(repeats)]
    return statistics.median(a) / statistics.median(b)


@wrong(RATIO, "`repeats` does not decide")
def always_seven(first, second, x, repeats):
    a, b = in_turns(first, second, x, 7)
    return statistics.median(a) / statistics.median(b)


@wrong(RATIO, "give back one number")
def two_numbers(first, second, x, repeats):
    a, b = in_turns(first, second, x, repeats)
    return statistics.median(a), statistics.median(b)


@wrong(RATIO, "with `x`")
def without_x(first, second, x, repeats):
    return first() / second()


@wrong(RATIO, "Divide the median of one list")
def a_constant(first, second, x, repeats):
    in_turns(first, second, x, repeats)
    return 2 / 3


@wrong(RATIO, "no clock was read")
def what_the_hint_said(first, second, x, repeats):
    for _ in range(repeats + 1):
        first(x), second(x)
    return 0.67


@wrong(RATIO, "not written yet")
def blank_ratio(first, second, x, repeats):
    raise NotImplementedError("your lines go here")


@wrong(RATIO, "median of the ratios of the rounds")
def by_pairs(first, second, x, repeats):
    a, b = in_turns(first, second, x, repeats)
    return statistics.median(u / v for u, v in zip(a, b, strict=True))


@right(RATIO)
def clock_as_an_argument(first, second, x, repeats, clock=time.perf_counter):
    first(x), second(x)
    a, b = [], []
    for _ in range(repeats):
        start = clock()
        first(x)
        between = clock()
        second(x)
        a.append(between - start)
        b.append(clock() - between)
    return statistics.median(a) / statistics.median(b)


@right(RATIO)
def by_timeit(first, second, x, repeats):
    first(x), second(x)
    a, b = [], []
    for _ in range(repeats):
        a.append(timeit.timeit(lambda: first(x), number=1))
        b.append(timeit.Timer(lambda: second(x)).timeit(1))
    return statistics.median(a) / statistics.median(b)


@right(RATIO)
def in_nanoseconds(first, second, x, repeats):
    taken = {first: [], second: []}
    for _ in range(repeats + 1):
        for function, times in taken.items():
            start = perf_counter_ns()
            function(x)
            times.append(perf_counter_ns() - start)
    a, b = (statistics.median(times[1:]) for times in taken.values())
    return a / b


@wrong(RATIO, "with `repeats=1` there is no time")
def without_the_first_round(first, second, x, repeats):
    rounds = [(seconds(first, x), seconds(second, x)) for _ in range(repeats)]
    a, b = ([pair[i] for pair in rounds[1:]] for i in (0, 1))
    return statistics.median(a) / statistics.median(b)


@wrong(RATIO, "for 4 rounds")
def upper_of_two(first, second, x, repeats):
    a, b = (
        sorted(times)[repeats // 2] for times in in_turns(first, second, x, repeats)
    )
    return a / b


@wrong(RATIO, "for 4 rounds")
def median_of_torch(first, second, x, repeats):
    a, b = torch.tensor(list(in_turns(first, second, x, repeats)))
    return (a.median() / b.median()).item()


@right(RATIO)
def prepared_in_each_round(first, second, x, repeats):
    rounds = [list(in_turns(first, second, x, 1)) for _ in range(repeats)]
    a, b = ([times[i][0] for times in rounds] for i in (0, 1))
    return statistics.median(a) / statistics.median(b)


@right(RATIO)
def with_torch_and_swaps(first, second, x, repeats):
    second(x), first(x)
    times = torch.zeros(repeats, 2)
    for i in range(repeats):
        for j in (0, 1) if i % 2 else (1, 0):
            times[i, j] = seconds((first, second)[j], x)
    a, b = times.quantile(0.5, dim=0)
    return a / b
