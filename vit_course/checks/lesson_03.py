"""Tasks of the exercises of lesson 03: the patch embedding."""

import math
import threading
import time
import timeit
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import StatisticsError, fmean, median
from types import FunctionType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from going_modular.patch_embedding import PatchEmbedding
from going_modular.patches import patchify
from vit_course.checks.hints import (
    NO_RETURN,
    ForbiddenCalls,
    Hint,
    hint,
    learners_code,
)
from vit_course.checks.task import Case, Task


def _writing_parameters(error: Exception) -> str:
    """Explains what PyTorch says when a parameter is written in a wrong way."""
    if "cannot assign" in str(error):
        return (
            "a parameter cannot be replaced by a plain tensor: write the values into "
            "the one that is there, with `copy_` or an index on the left of `=`."
        )
    if "leaf" in str(error):
        return (
            "PyTorch raises an error when a parameter is changed in place while "
            "operations are recorded for the gradient. Write it inside `with "
            "torch.no_grad():`."
        )
    return ""


def _inputs(*sizes: tuple[int, ...]) -> list[tuple[torch.Tensor, ...]]:
    """Images, weight and bias for sizes (batch, channels, height, width, P, D)."""
    g = torch.Generator().manual_seed(3)
    return [
        (
            torch.rand(b, c, height, width, generator=g),
            torch.randn(dim, c, p, p, generator=g),
            torch.randn(dim, generator=g),
        )
        for b, c, height, width, p, dim in sizes
    ]


def _maps(images, weight, bias):
    return F.conv2d(images, weight, bias, stride=weight.shape[-1])


def _tokens(images, weight, bias):
    return _maps(images, weight, bias).flatten(2).transpose(1, 2)  # (B, N, D)


def _reshaped(images, weight, bias):
    maps = _maps(images, weight, bias).flatten(2)  # (B, D, N)
    return maps.reshape(maps.shape[0], maps.shape[2], maps.shape[1])


def _pure(weight: torch.Tensor) -> torch.Tensor:
    """Three kernels that each sum one channel: (3, 3, P, P)."""
    return torch.eye(3)[:, :, None, None].expand(3, 3, *weight.shape[2:])


def _area(weight: torch.Tensor) -> int:
    return weight.shape[-1] ** 2


def _chosen(kernels: Callable, keep_bias: bool = False, others: float = 1.0):
    """Tokens when the first three kernels are `kernels(weight)`."""

    def call(images, weight, bias):
        weight = torch.cat([kernels(weight), others * weight[3:]])
        first = bias[:3] if keep_bias else torch.zeros(3)
        return _tokens(images, weight, torch.cat([first, others * bias[3:]]))

    return call


def _means(weight):
    return _pure(weight) / _area(weight)


def _left_over(weight):
    return torch.where(_pure(weight) > 0, _means(weight), weight[:3])


def _zero_biases(images, weight, bias):
    return _chosen(_means)(images, weight, 0 * bias)


KERNELS = {
    _pure: (
        "these are sums over the patch, not means: the P² weights that a kernel has "
        "for its channel must add up to 1."
    ),
    lambda w: _pure(w) / w.shape[-1]: "P² pixels are added up, and divided by P only.",
    lambda w: _pure(w) / (3 * _area(w)): (
        "the sum over one channel has P² terms, not C·P²: the other channels have "
        "weight 0."
    ),
    lambda w: torch.ones_like(w[:3]) / (3 * _area(w)): (
        "every kernel adds up all three channels, so the three feature maps are alike. "
        "Kernel 0 must have weight 0 for green and blue."
    ),
    lambda w: torch.ones_like(w[:3]) / _area(w): (
        "each kernel adds up the means of all three channels, so the three feature "
        "maps are alike. Kernel 0 must have weight 0 for green and blue."
    ),
    _left_over: (
        "each kernel still has its old weights for the other two channels: these must "
        "be 0."
    ),
    lambda w: _means(w).flip(0): (
        "the feature maps are blue, green, red. The channels of an image are red, "
        "green, blue."
    ),
}
COLOURS = {
    _tokens: (
        "the layer is as it was: write into its own `patcher.weight` and "
        "`patcher.bias`."
    ),
    _chosen(_means, keep_bias=True): (
        "the kernels are right. What else is added to each feature map? Look at "
        "`patcher.bias`."
    ),
    _chosen(_means, others=0.0): (
        "the first three features are right, but the other kernels have changed, too."
    ),
    _zero_biases: (
        "only the first three biases are yours: the others have been changed, too."
    ),
}
for _kernels, _text in KERNELS.items():
    COLOURS[_chosen(_kernels)] = _text
    COLOURS[_chosen(_kernels, True)] = (
        f"{_text} And a bias is added to each feature map."
    )


def _tokens_of_a_changed_layer(answer: Callable, images, weight, bias):
    dim, _, patch_size, _ = weight.shape
    layer = PatchEmbedding(3, patch_size, dim)
    with torch.no_grad():
        layer.patcher.weight.copy_(weight)
        layer.patcher.get_parameter("bias").copy_(bias)
    before = dict(layer.patcher.named_parameters())
    answer(layer)
    for name in ("weight", "bias"):
        value = getattr(layer.patcher, name)
        hint(
            isinstance(value, nn.Parameter) and value.requires_grad,
            f"`patcher.{name}` can no longer be trained. Change its values and "
            "nothing else.",
        )
        hint(
            value is before[name],
            f"`patcher.{name}` is a new parameter: an optimiser that holds the old one "
            "would no longer train the layer. Write into the one that is there.",
        )
    return _tokens(images, layer.patcher.weight, layer.patcher.bias).detach()


check_mean_colours = Task(
    "set_mean_colours",
    "three kernels that output mean red, green and blue",
    Case(
        inputs=_inputs((2, 3, 32, 48, 16, 8), (1, 3, 8, 12, 4, 5), (3, 3, 6, 9, 3, 3)),
        call=_tokens_of_a_changed_layer,
        right=_chosen(_means),
        mistakes=COLOURS,
        explain=_writing_parameters,
        gradient=False,
        advice=(
            "Kernel i has one weight for all pixels of channel i, and 0 for the other "
            "channels; its bias is 0. All other kernels stay as they are."
        ),
    ),
)


def _by_layout(weight_order: tuple = (0, 1, 2, 3), patch_order: tuple = (0, 1, 2, 3)):
    """Tokens when weight rows and patches hold channel, row, column in other orders."""

    def call(images, weight, bias):
        _, channels, p, _ = weight.shape
        patches = patchify(images, p)  # (B, N, C·P²)
        b, n, _ = patches.shape
        order = [0, *[axis + 1 for axis in patch_order]]
        patches = patches.reshape(b, n, channels, p, p).permute(order).flatten(2)
        return patches @ weight.permute(weight_order).flatten(1).T + bias

    return call


def _mixed_kernels(images, weight, bias):
    mixed = weight.reshape(-1, weight.shape[0])  # (C·P², D), but not the transpose
    return patchify(images, weight.shape[-1]) @ mixed + bias


def _strips(images, weight, bias):
    patches = images.reshape(patchify(images, weight.shape[-1]).shape)
    return patches @ weight.flatten(1).T + bias


MAPS_TO_TOKENS = {
    lambda *given: _maps(*given).flatten(2): (
        "these are (B, D, N). Each patch must be a row: (B, N, D)."
    ),
    _reshaped: (
        "`reshape` gives the right shape and mixes patches: from (B, D, N) to (B, N, "
        "D) two axes are swapped, which is `transpose`."
    ),
    _maps: (
        "these are still feature maps, (B, D, rows, columns). The Transformer reads "
        "(B, N, D)."
    ),
    lambda *given: _maps(*given).transpose(2, 3).flatten(2).transpose(1, 2): (
        "the tokens run down the columns of patches; reading order goes across."
    ),
}
LINEAR = {
    _by_layout((0, 2, 3, 1)): (
        "the rows of your weight hold row, column, channel, and `patchify` keeps "
        "channel, row, column. Both must have the same order."
    ),
    _by_layout(patch_order=(0, 2, 3, 1)): (
        "your patches hold row, column, channel, and a kernel of the convolution is "
        "channel, row, column. Both must have the same order."
    ),
    _by_layout((0, 1, 3, 2)): (
        "rows and columns of the kernels are swapped against those of the patches."
    ),
    _mixed_kernels: (
        "`reshape` to (C·P², D) gives the right shape and mixes kernels: flatten each "
        "kernel, then transpose if you need to."
    ),
    _strips: (
        "your patches are strips: `view` and `reshape` cut memory, not the image. "
        "`patchify` of lesson 02 cuts squares."
    ),
    **MAPS_TO_TOKENS,
}

NO_CONVOLUTION = (
    "there is a convolution in your class. Cut with `patchify`, and multiply with an "
    "nn.Linear."
)
WITHOUT_COPY = (
    "`forward` stops if `copy_from` was not called before. A layer can also be trained "
    "from its own initial values: make it in `__init__`."
)


def _values(module: nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.detach().clone() for k, v in module.named_parameters()}


def _only_the_bias_differs(ours, right) -> bool:
    if not isinstance(ours, torch.Tensor) or ours.shape != right.shape:
        return False
    gap = ours - right
    return bool(gap.abs().max() > 1e-3) and torch.allclose(
        gap, gap[:1, :1].expand_as(gap), atol=1e-4
    )


def _squared_gradient(out: torch.Tensor, parameters: list) -> float:
    """Sum of the squared gradients of one fixed weighted sum of the outputs.

    It does not depend on the order of the values in a patch.
    """
    g = torch.Generator().manual_seed(1)
    loss = (out * torch.randn(out.shape, generator=g)).sum()
    hint(loss.requires_grad, "the tokens have no gradient: the layer cannot be trained")
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return sum(float((x**2).sum()) for x in found if x is not None)


def _copy(module: Any, weight, bias) -> nn.Conv2d:
    """Lets a module copy a convolution with these weights, and gives that back."""
    dim, channels, patch_size, _ = weight.shape
    conv = nn.Conv2d(channels, dim, patch_size, stride=patch_size)
    with torch.no_grad():
        conv.weight.copy_(weight)
        conv.get_parameter("bias").copy_(bias)
    hint(hasattr(module, "copy_from"), "the class has no method `copy_from(patcher)`")
    before = _values(module)
    module.copy_from(conv)
    hint(not any(isinstance(m, nn.Conv2d) for m in module.modules()), NO_CONVOLUTION)
    after = _values(module)
    same = before.keys() == after.keys() and all(
        before[k].shape == after[k].shape and torch.equal(before[k], after[k])
        for k in before
    )
    hint(not same, "`copy_from` has changed no parameter of the module.")
    pairs = zip(conv.parameters(), (weight, bias), strict=True)
    kept = all(torch.equal(p, w) and p.requires_grad for p, w in pairs)
    hint(kept, "`copy_from` has changed the convolution. It must stay as it is.")
    return conv


def _copy_and_call(module: nn.Module, images, weight, bias):
    conv = _copy(module, weight, bias)
    # Also a convolution that is no attribute of a module.
    with ForbiddenCalls(lambda name, _: "conv" in name, NO_CONVOLUTION):
        ours = module(images)
    with torch.no_grad():
        hint(
            not _only_the_bias_differs(ours, _tokens(images, weight, bias)),
            "all tokens are off by the same vector: `copy_from` must copy the bias, "
            "too.",
        )
        if isinstance(ours, torch.Tensor):
            hint(
                torch.allclose(module(images), ours),
                "the same images give other tokens each time: is something random in "
                "`forward`?",
            )
            conv.weight.mul_(2)
            conv.get_parameter("bias").mul_(2)
            hint(
                torch.allclose(module(images), ours),
                "the two layers share memory: when the convolution changes, yours "
                "does, too. `flatten` of a weight is a view: copy it.",
            )
    return module(images)


def _check_training(answer: type) -> None:
    """Checks a layer that copies nothing, and the gradients of one that does."""
    images, weight, bias = _inputs((2, 3, 8, 12, 4, 5))[0]
    module = answer(3, 4, 5)
    with learners_code(lambda error: f"{WITHOUT_COPY} ({error})"):
        module(images)
    _copy(module, weight, bias)
    out = module(images)
    # An operation in place makes a frozen parameter a result, which is not trained.
    trained = [p for p in module.parameters() if p.requires_grad and p.is_leaf]
    count, expected = sum(p.numel() for p in trained), weight.numel() + bias.numel()
    hint(
        count == expected,
        f"your layer has {count} parameters that can be trained, the convolution "
        f"{expected}. Is one frozen (`requires_grad_(False)`), or left out?",
    )
    parts = [weight.clone().requires_grad_(), bias.clone().requires_grad_()]
    expected = _squared_gradient(_tokens(images, *parts), parts)
    hint(
        math.isclose(_squared_gradient(out, trained), expected, rel_tol=1e-3),
        "the tokens are right, but the gradients of weight and bias are not: is a "
        "part cut off by `detach`, `.data` or `no_grad`?",
    )


def _sizes(images, weight, bias) -> tuple[int, int, int]:
    return weight.shape[1], weight.shape[2], weight.shape[0]


check_linear_patch_embedding = Task(
    "LinearPatchEmbedding",
    "a matrix product that equals the convolution, weights copied",
    Case(
        sizes=_sizes,
        inputs=_inputs((2, 3, 8, 12, 4, 5), (1, 2, 6, 9, 3, 7), (3, 1, 4, 10, 2, 4)),
        call=_copy_and_call,
        right=lambda images, weight, bias: _tokens(
            images, weight.detach(), bias.detach()
        ),
        mistakes=LINEAR,
        explain=_writing_parameters,
        tolerance=1e-4,
        advice=(
            "In which order does a patch hold its values, and in which order a row of "
            "your weight?"
        ),
    ),
    also=[_check_training],
)


ITS_OWN = (
    "Each object must keep the patch size that it was made with, in `self`: whatever a "
    "variable of the notebook says, and whatever other objects were made since."
)
# For a patch size: images with one wrong side, with two, and with a wrong side that
# is not seen in the area.
INVALID = {
    4: {"tall": (10, 12), "wide": (12, 10), "both": (10, 14), "area": (8, 6)},
    6: {"tall": (16, 12), "wide": (12, 16), "both": (16, 20), "area": (12, 9)},
}


def _outcome(module: nn.Module, channels: int, size: tuple[int, int]) -> str:
    """What the module does with an image: "accepts", or the name of an exception."""
    with torch.no_grad():
        try:
            module(torch.ones(1, channels, *size))
        except NotImplementedError:
            raise
        except ValueError:
            return "ValueError"  # or a class of the learner's that inherits from it
        except Exception as error:
            return type(error).__name__
    return "accepts"


def _check_validation(answer: type) -> None:
    """Checks which image sizes raise ValueError, of two objects at once."""
    modules = [(answer(3, 4, 5), 3, 4), (answer(2, 6, 7), 2, 6)]
    for module, channels, p in modules:
        _check_sizes(module, channels, p)


def _check_sizes(module: nn.Module, channels: int, p: int) -> None:
    sizes = INVALID[p] | {"smaller than a patch": (p // 2, 2 * p)}
    with learners_code():
        found = {k: _outcome(module, channels, size) for k, size in sizes.items()}
    hint(
        "AssertionError" not in found.values(),
        "an `assert` raises AssertionError, and `python -O` leaves it out altogether. "
        "Write `if …: raise ValueError(…)`.",
    )
    accepted = {k for k, what in found.items() if what == "accepts"}
    hint(
        not {"tall", "wide", "both"} <= accepted,
        "images that do not fit are accepted. Is a ValueError *raised*?",
    )
    hint(
        not {"tall", "wide"} <= accepted,
        "it accepts images with one wrong side. One is enough to raise ValueError: "
        "`or`, not `and`.",
    )
    (height, _), (_, width) = sizes["tall"], sizes["wide"]
    hint(
        "tall" not in accepted,
        f"the height is not checked: with P = {p}, the last {height % p} of {height} "
        "rows of pixels are ignored.",
    )
    hint(
        "wide" not in accepted,
        f"the width is not checked: with P = {p}, the last {width % p} of {width} "
        "columns of pixels are ignored.",
    )
    hint(
        "area" not in accepted,
        f"{sizes['area'][0]} x {sizes['area'][1]} is accepted with P = {p}. That P² "
        "divides the number of pixels does not mean that P divides both sides.",
    )
    for name, what in found.items():
        height, width = sizes[name]
        hint(
            what == "ValueError",
            f"{height} x {width} with P = {p} does not fit: a ValueError is expected, "
            f"before the convolution is called. Your class: {what}.",
        )


def _does_not_fit(error: Exception) -> str:
    if isinstance(error, NameError):
        return (
            f"`forward` reads a name that is not there: {error}. An argument of "
            f"`__init__` is gone when `__init__` ends. {ITS_OWN}"
        )
    return ""


def _call_with_an_image_that_fits(module, images, weight, bias):
    def call(images):
        return module(images, weight, bias)

    (height, width), p = images.shape[2:], weight.shape[-1]
    try:
        return call(images)
    except (ValueError, AssertionError) as error:
        why = "Not every image is a square."
        try:
            call(images[..., :p, :p])
        except (ValueError, AssertionError):
            why = ITS_OWN
        raise Hint(
            f"{height} x {width} fits P = {p}, and raises an error ({error}). Height "
            f"and width are axes 2 and 3. {why}"
        ) from error


check_mended_patch_embedding = Task(
    "MendedPatchEmbedding",
    "mended: its own patch size, and both sides validated",
    Case(
        sizes=_sizes,
        parameters=("patcher.weight", "patcher.bias"),
        inputs=_inputs(
            (2, 3, 8, 12, 4, 5),
            (2, 2, 12, 18, 6, 7),  # two sizes in turns, as when they are compared
            (1, 3, 20, 4, 4, 5),
            (1, 2, 30, 6, 6, 7),
            (3, 3, 4, 16, 4, 5),
        ),
        call=_call_with_an_image_that_fits,
        right=_tokens,
        mistakes=MAPS_TO_TOKENS,
        explain=_does_not_fit,
        tolerance=1e-4,
    ),
    also=[_check_validation],
)


CLOCKS = ("perf_counter", "monotonic", "time", "process_time", "thread_time")


class _Machine:
    """A machine with a clock that stands still until one of its functions is called.

    So a measurement has one right value, however busy the real machine is.

    Args:
        times: for each function, the milliseconds of its calls in their order; the
            last number serves for all further calls.
        slow_after: from this number of calls on, of both, all take three times as long.
    """

    def __init__(self, times: dict[str, list], slow_after: float = math.inf) -> None:
        self.times, self.slow_after = times, slow_after
        self.x = torch.arange(6.0).view(2, 3)
        self.calls, self.reads, self.waited = [], 0, 0.0

    def function(self, name: str) -> Callable:
        """Makes a function that takes its time."""

        def call(given=None, *more):
            same = isinstance(given, torch.Tensor) and torch.equal(given, self.x)
            hint(same and not more, "call both functions with `x`, nothing else")
            ms = self.times[name][
                min(self.calls.count(name), len(self.times[name]) - 1)
            ]
            self.calls.append(name)
            self.waited += ms * (3 if len(self.calls) > self.slow_after else 1) / 1000
            return given

        return call

    def clock(self, name: str, real: Callable) -> Callable:
        """Makes a clock; those of the processor count calls, and not what waits."""
        start, here = real(), threading.get_ident()

        def read():
            if threading.get_ident() != here:
                return real()  # other threads keep their time
            self.reads += 1
            works = name.startswith(("process", "thread"))
            seconds = len(self.calls) / 1000 if works else self.waited
            return start + (round(1e9 * seconds) if name[-3:] == "_ns" else seconds)

        return read

    @contextmanager
    def clocks(self, answer: Callable) -> Iterator[None]:
        """Replaces the clocks of `time`, wherever the answer has them from."""
        replaced = []
        beside = getattr(answer, "__globals__", {})
        places = [vars(time), vars(timeit), beside]
        functions = [answer, *beside.values(), *vars(timeit).values()]
        functions = [f for f in functions if isinstance(f, FunctionType)]
        functions.append(timeit.Timer.__init__)
        defaults = [(f, f.__defaults__, f.__kwdefaults__) for f in functions]
        places += [named for _, _, named in defaults if named]
        names = [name + end for name in CLOCKS for end in ("", "_ns")]
        for name in [name for name in names if hasattr(time, name)]:
            real = getattr(time, name)
            read = self.clock(name, real)
            for place in places:
                for key in [key for key, value in place.items() if value is real]:
                    replaced.append((place, key, real))
                    place[key] = read
            for function in functions:
                values = function.__defaults__ or ()
                if any(value is real for value in values):
                    function.__defaults__ = tuple(
                        read if value is real else value for value in values
                    )
        try:
            yield
        finally:
            for place, key, real in replaced:
                place[key] = real
            for function, values, _ in defaults:
                function.__defaults__ = values

    def measure(self, answer: Callable, repeats: int) -> float:
        """Lets an answer measure the two functions of this machine."""
        no_clock = "no clock was read: take the time from `time.perf_counter()`."
        functions = [self.function(name) for name in self.times]

        def unread(error):
            if isinstance(error, StatisticsError):
                return (
                    f"with `repeats={repeats}` there is no time to take a median "
                    "of: the first calls, not measured, are not one of the rounds."
                )
            zero = isinstance(error, ZeroDivisionError) and not self.reads
            return no_clock if zero else ""

        with (
            learners_code(unread),
            self.clocks(answer),
        ):
            found = answer(*functions, self.x, repeats)
        if isinstance(found, torch.Tensor) and found.numel() == 1:
            found = found.item()
        hint(found is not None, NO_RETURN)
        if isinstance(found, bool) or not isinstance(found, int | float):
            raise Hint(f"give back one number, the ratio, not {found!r}")
        hint(self.reads, no_clock)
        return found


def _near(found: float, expected: float) -> bool:
    return math.isclose(found, expected, rel_tol=0.01)


NO_MEDIANS = {
    "In it is a mean or a sum, and one slow run spoils that.": fmean,
    "In it is the fastest run, or the first.": min,
    "In it is one run alone, the last or the slowest.": max,
    "In it is the middle of a list that is not sorted.": lambda times: times[2],
}


def _check_ratio(answer: Callable) -> None:
    """Lets an answer measure functions that take a known time."""
    first, second, cold = 6, 9, 30  # milliseconds; the last of a first call
    machine = _Machine({"first": [cold, first], "second": [cold, second]})
    found = machine.measure(answer, repeats=1)
    once = machine.calls
    known = "Two functions that take 6 and 9 ms should give 0.67"
    hint(
        min(once.count("first"), once.count("second")) >= 2,
        "a first call prepares things and takes longer: call each of the two functions "
        "once before you measure.",
    )
    hint(
        found > 0,
        f"{known}, and yours gives {found:.3g}: divide with `/`, do not subtract.",
    )
    hint(
        not _near(found, second / first),
        f"{known}; yours gives {found:.2f}, which is upside down: the time of `first` "
        "is divided by that of `second`.",
    )
    hint(
        not _near(found, first / (first + second)),
        f"{known}; yours gives {found:.2f}: the time of `second` holds that of "
        "`first`, too. Read the clock again between the two calls.",
    )
    hint(
        not _near(found, 1),
        f"{known}, even if they do nothing but wait; yours gives {found:.2f}. Does "
        "your clock stand still while a function waits? `perf_counter` does not.",
    )
    hint(
        _near(found, first / second),
        f"{known}; yours gives {found:.3g}. Does a first, slow call count? Does the "
        "clock run from right before a call until right after it?",
    )
    # All runs but the second are disturbed: each place but one gives another number.
    a, b, second = [1, 6, 30, 2, 60], [4, 7, 31, 15, 65], 15
    machine = _Machine({"first": [cold, *a, first], "second": [cold, *b, second]})
    found = machine.measure(answer, repeats=5)
    known = "Two functions that take 6 and 15 ms, but for some disturbed runs, should "
    known += f"give 0.40; yours gives {found:.2f}"
    hint(
        len(machine.calls) - len(once) >= 8,
        "`repeats` does not decide how many rounds are measured.",
    )
    for text, take in NO_MEDIANS.items():  # in one of the two places, or in both
        ratios = take(a) / take(b), take(a) / second, first / take(b)
        hint(
            not any(_near(found, ratio) for ratio in ratios),
            f"{known}. {text} Take the median of each list.",
        )
    hint(
        not _near(found, median(x / y for x, y in zip(a, b, strict=True))),
        f"{known}. That is the median of the ratios of the rounds. Take the median of "
        "each list first, then one ratio.",
    )
    hint(
        _near(found, first / second),
        f"{known}. Divide the median of one list by the median of the other.",
    )
    # The same medians also if further calls are made, which are not measured.
    a, b = [2, 60, 10, 6, 6, 60], [4, 75, 12, 8, 8, 75]
    machine = _Machine({"first": [cold, *a], "second": [cold, *b]})
    found = machine.measure(answer, repeats=4)
    hint(
        _near(found, 0.8),
        f"for 4 rounds, the ratio should be 0.80; yours is {found:.2f}. The median of "
        "an even number of times is the mean of the two in the middle, as `median` of "
        "`statistics` takes it; `torch.median` and `sorted(…)[n // 2]` take one.",
    )
    machine = _Machine({"first": [8], "second": [4]}, slow_after=8)
    found = machine.measure(answer, repeats=5)
    hint(
        _near(found, 2),
        "halfway through, this machine slowed down, for both functions alike, and your "
        f"ratio became {found:.2f} instead of 2. Was one function measured after the "
        "other? Take turns, so that both meet the same machine.",
    )


check_time_ratio = Task(
    "time_ratio", "a ratio of medians, measured in turns", also=[_check_ratio]
)
