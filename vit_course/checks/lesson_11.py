"""Checks of the exercises of lesson 11: training."""

import copy
import warnings
from collections.abc import Callable
from functools import partial
from itertools import cycle, islice

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, parameters_to_vector
from torch.utils.data import DataLoader, TensorDataset

from going_modular.optimization import create_optimizer, warmup_schedule
from vit_course.checks.hints import (
    NO_RETURN,
    Hint,
    as_number,
    compare,
    hint,
    learners_code,
    passed,
)

KEEPS_GRAPH = (
    "the losses are tensors with a gradient: each keeps the whole graph of its step in "
    "memory. `loss.item()` gives the value alone."
)
NOT_RESTORED = (
    "the model's weights are not what they were before. `state_dict()` gives the "
    "tensors themselves, not copies: put back a `copy.deepcopy` of it."
)
BUFFERS = (
    "the parameters are what they were, but running averages of the model changed: "
    "they belong to `state_dict()`, too."
)
NO_CLIPPING = (
    "clipping has no effect in your run. It must stand between `backward`, which fills "
    "the gradients, and `optimizer.step`, which uses them."
)
EMPTIED = (
    "a gradient is None where your code reads it: `backward` has not filled it yet, or "
    "`zero_grad` has emptied it before. Read it after `backward` and clipping."
)
MEASURED = ("largest_step", "largest_gradient", "weight_norm")


def _classifier(seed: int, *layers: nn.Module) -> nn.Module:
    """A small model with random weights: (B, 4) -> (B, 3)."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(*layers)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator)
    return model


def _batches(seed: int, sizes: tuple[int, ...]) -> list[tuple]:
    """Batches of (B, 4) features and (B,) labels of three classes."""
    generator = torch.Generator().manual_seed(seed)
    return [
        (
            torch.randn(b, 4, generator=generator),
            torch.randint(3, (b,), generator=generator),
        )
        for b in sizes
    ]


# 1. The learning rate finder


def _lr_finder(model, batches, lr, factor, steps, mistake=""):
    """The solution, or one with a mistake in it."""
    if mistake == "eval":
        model.eval()
    optimizer = create_optimizer(model)
    stream = islice(cycle(batches), steps)
    if mistake == "first batch":
        stream = [next(iter(batches))] * steps
    if mistake == "ends":
        stream = islice(batches, steps)
    rates, losses, first = [], [], lr
    for x, y in stream:
        if mistake == "new optimizer":
            optimizer = create_optimizer(model)
        if mistake == "grows first":
            lr *= factor
        groups = optimizer.param_groups[: 1 if mistake == "one group" else None]
        for group in groups if mistake != "rate not set" else ():
            group["lr"] = lr
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        if mistake != "no step":
            optimizer.step()
        if mistake != "no zero_grad":
            optimizer.zero_grad()
        if mistake == "loss after":
            loss = F.cross_entropy(model(x), y)
        rates.append(lr)
        losses.append(loss.item())
        if mistake == "adds":
            lr += (factor - 1) * first
        elif mistake != "grows first":
            lr *= factor
    return (losses, rates) if mistake == "swapped" else (rates, losses)


FINDER_MISTAKES = {
    "the gradients of all steps add up: is `optimizer.zero_grad()` missing?": (
        "no zero_grad"
    ),
    "each step gets a new optimizer, and Adam's running means start from zero again. "
    "One optimizer serves all steps; only its rate changes.": "new optimizer",
    "the rates grow in your list, but not in the optimizer: set `group['lr']` of all "
    "its groups before the step.": "rate not set",
    "only one group of the optimizer gets the new rate. `create_optimizer` makes two, "
    "with and without weight decay: set it in all of `param_groups`.": "one group",
    "the first step should be made with `lr` itself: let the rate grow after the "
    "step, not before it.": "grows first",
    "the loss is measured after the step. Note the one that `backward` was called "
    "on: of this batch, before this step.": "loss after",
    "each step sees the first batch: `next(iter(batches))` starts from the front "
    "every time.": "first batch",
    "the batches end before the steps do. Begin with the first one again.": "ends",
    "the weights never move: does the optimizer hold the parameters of the model that "
    "you train, does `optimizer.step()` run before `zero_grad`, and are the weights "
    "put back after the last step only?": "no step",
    "the rate grows by the same amount in each step. It should grow by the same "
    "factor, so that a few steps cover many powers of ten.": "adds",
    "the two lists are swapped: rates first.": "swapped",
    "this model is in evaluation mode while it trains. Rates are wanted for training, "
    "where dropout is on and running averages move.": "eval",
}


def _two_lists(found) -> tuple[list[float], list[float]]:
    hint(found is not None, NO_RETURN)
    pair = isinstance(found, tuple | list) and len(found) == 2
    hint(pair, "give back two lists: the rates and the losses")
    lists = []
    for values in found:
        values = values.tolist() if hasattr(values, "tolist") else values
        hint(isinstance(values, tuple | list), "rates and losses must be two lists")
        graph = any(isinstance(v, torch.Tensor) and v.requires_grad for v in values)
        hint(not graph, KEEPS_GRAPH)
        try:
            lists.append([float(v) for v in values])
        except (TypeError, ValueError):
            hint(False, "rates and losses must be lists of numbers")
    rates, losses = lists
    same = len(rates) == len(losses)
    hint(same, f"one loss for each rate: you give {len(losses)} for {len(rates)}")
    return rates, losses


def _finder_problem(kind: str) -> tuple[nn.Module, object]:
    """A model, and batches: a list, or a loader whose last batch is smaller."""
    if kind == "a list of batches":
        return _classifier(1, nn.Linear(4, 3)), _batches(2, (6, 4, 5, 3))
    if kind == "a DataLoader":
        layers = nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)
        return _classifier(3, *layers), DataLoader(
            TensorDataset(*_batches(4, (11,))[0]), batch_size=4
        )
    layers = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)
    return _classifier(5, *layers), _batches(6, (6, 7))


def check_lr_finder(answer: Callable) -> None:
    """Checks the sweep of the learning rate within one run.

    Raises:
        Hint: it is not right yet.
    """
    changed = []

    def learners(kind, lr, factor, steps):
        model, batches = _finder_problem(kind)
        before = copy.deepcopy(model.state_dict())
        found = _two_lists(answer(model, batches, lr, factor, steps))
        after, trained = model.state_dict(), dict(model.named_parameters())
        for name in before:
            if not torch.equal(before[name], after[name]):
                changed.append(NOT_RESTORED if name in trained else BUFFERS)
        return found

    def with_mistake(mistake):
        def run(kind, lr, factor, steps):
            model, batches = _finder_problem(kind)
            with torch.enable_grad():  # `compare` tries mistakes without
                return _lr_finder(model, batches, lr, factor, steps, mistake)

        return run

    inputs = [
        ("a list of batches", 1e-3, 2.0, 8),
        ("a DataLoader", 1e-2, 1.5, 7),
        ("a model with running averages", 0.02, 3.0, 3),
        ("a list of batches", 0.5, 2.0, 1),
    ]
    mistakes = {text: with_mistake(name) for text, name in FINDER_MISTAKES.items()}
    advice = "In each step: set the rate, loss, backward, step, zero_grad."
    compare(learners, with_mistake(""), inputs, mistakes, gradient=False, advice=advice)
    for text in (NOT_RESTORED, BUFFERS):
        hint(text not in changed, text)
    passed("rates and losses of one run, and the weights as they were")


# 2. What each part of the recipe does


def _clip(model, clip_norm, mistake) -> None:
    if mistake == "None":
        clip_grad_norm_(model.parameters(), clip_norm)
    if clip_norm is None or mistake == "no clipping":
        return
    if mistake == "by value":
        clip_grad_value_(model.parameters(), clip_norm)
    elif mistake == "each tensor":
        for p in model.parameters():
            clip_grad_norm_([p], clip_norm)
    else:
        clip_grad_norm_(model.parameters(), clip_norm)


def _gradient(model) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def _measure_run(model, batches, lr, warmup, decay, clip_norm, mistake=""):
    """The solution, or one with a mistake in it."""
    optimizer = create_optimizer(model, lr, decay)
    schedule = warmup_schedule(optimizer, warmup, len(batches) + 1, "none")
    start = parameters_to_vector(model.parameters()).detach()
    moved, gradients = [], []
    for x, y in batches:
        loss = F.cross_entropy(model(x), y)
        loss.backward()
        if mistake == "before clipping":
            gradients.append(_gradient(model))
        if mistake != "clips late":
            _clip(model, clip_norm, mistake)
        if mistake not in ("before clipping", "clips late"):
            gradients.append(_gradient(model))
        before = parameters_to_vector(model.parameters()).detach()
        if mistake == "schedule first":
            schedule.step()
        optimizer.step()
        if mistake == "clips late":
            _clip(model, clip_norm, mistake)
            gradients.append(_gradient(model))
        if mistake != "no zero_grad":
            optimizer.zero_grad()
        if mistake not in ("no schedule", "schedule first"):
            schedule.step()
        now = parameters_to_vector(model.parameters()).detach()
        moved.append(now - (start if mistake == "from start" else before))
    now = parameters_to_vector(model.parameters()).detach()
    sizes = [p.numel() for p in model.parameters()]
    lengths = {
        "of each tensor": [part.norm() for m in moved for part in m.split(sizes)],
        "of each weight": [m.abs().max() for m in moved],
        "squared": [m.square().sum() for m in moved],
        "of gradients": [g.norm() for g in gradients],
        "mean": [torch.stack([m.norm() for m in moved]).mean()],
        "no copy": [torch.zeros(())],
    }.get(mistake, [m.norm() for m in moved])
    gradients = {
        "gradient of each tensor": [
            part.norm() for g in gradients for part in g.split(sizes)
        ],
        "last gradient": [gradients[-1].norm()],
        "mean gradient": [torch.stack([g.norm() for g in gradients]).mean()],
        "gradient squared": [g.square().sum() for g in gradients],
        "no gradient": [torch.zeros(())],
    }.get(mistake, [g.norm() for g in gradients])
    norm = {"norm before": start.norm(), "norm squared": now.square().sum()}
    return (
        float(max(lengths)),
        float(max(gradients)),
        float(norm.get(mistake, now.norm())),
    )


RUN_MISTAKES = {
    NO_CLIPPING: "no clipping",
    f"{NO_CLIPPING} You clip after the step.": "clips late",
    "each entry of the gradient is clipped by itself, which changes its direction. "
    "Clip the global norm: `clip_grad_norm_` over all parameters.": "by value",
    "each tensor is clipped by itself. The global norm takes all gradients as one "
    "long vector: one call with all parameters.": "each tensor",
    "`clip_norm` may be None: then nothing is clipped.": "None",
    "the rate stays where the warm-up begins: call `schedule.step()` once for each "
    "step.": "no schedule",
    "the schedule steps before the optimizer, so the first rate of the warm-up is "
    "left out.": "schedule first",
    "the gradients of all batches add up: is `optimizer.zero_grad()` missing?": (
        "no zero_grad"
    ),
    "`largest_step` is the way from the weights at the start. Wanted is the way of "
    "one step: from just before it to just after it.": "from start",
    "`largest_step` is taken over single tensors. Take all weights as one long "
    "vector: `parameters_to_vector`.": "of each tensor",
    "`largest_step` is the largest change of a single weight. Wanted is the length of "
    "the change of all weights together.": "of each weight",
    "`largest_step` is squared: the length of a vector is the square root of the sum "
    "of "
    "squares.": "squared",
    "`largest_step` is the norm of the gradient. Adam divides it by its usual size: "
    "measure how far the weights really moved.": "of gradients",
    "`largest_step` is a mean over the steps. Wanted is the largest.": "mean",
    "`largest_step` is zero: what you call 'before' is no copy, so it changes along "
    "with the weights.": "no copy",
    "`largest_gradient` is the length before clipping, which is what `clip_grad_norm_` "
    "gives back. Wanted is what the optimizer got.": "before clipping",
    "`largest_gradient` is taken over single tensors. Take all gradients as one long "
    "vector.": "gradient of each tensor",
    "`largest_gradient` is that of the last batch. Wanted is the largest of all.": (
        "last gradient"
    ),
    "`largest_gradient` is a mean over the batches. Wanted is the largest.": (
        "mean gradient"
    ),
    "`largest_gradient` is squared: the length of a vector is the square root of the "
    "sum of "
    "squares.": "gradient squared",
    "`largest_gradient` is zero: measure it before `zero_grad` empties the "
    "gradients.": "no gradient",
    "`weight_norm` is that of the weights before the run. Measure it at the end.": (
        "norm before"
    ),
    "`weight_norm` is squared: the length of a vector is the square root of the sum of "
    "squares.": "norm squared",
}
# What each run is given: seeds, sizes of batches; rate, warm-up, decay and clipping.
RUNS = {
    "the whole recipe": (1, (6, 4, 5, 6, 6, 3), 0.1, 3, 0.4, 0.5),
    "a run without clipping": (6, (5, 4, 6, 5), 0.05, 2, 0.4, None),
    "a run without warm-up and decay": (3, (4, 5, 6), 0.05, 0, 0.0, 1.5),
    "a run of one batch": (4, (7,), 0.01, 0, 1.0, 0.1),
    "a run whose gradients are short": (5, (4, 6, 5), 0.02, 1, 0.1, 9.0),
}


def _run_problem(kind: str) -> tuple:
    seed, sizes, *recipe = RUNS[kind]
    model = _classifier(seed, nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
    batches = _batches(seed + 10, sizes)
    if len(batches) > 3:  # one batch that has a huge gradient
        x, y = batches[2]
        batches[2] = 20 * x, y
    return model, batches, *recipe


def check_measured_run(answer: Callable) -> None:
    """Checks a short training run that is measured at each step.

    Raises:
        Hint: it is not right yet.
    """
    not_trained = []

    def learners(kind):
        model, batches, *recipe = _run_problem(kind)
        try:
            found = answer(model, batches, *recipe)
        except (AttributeError, TypeError) as error:
            empty = any(p.grad is None for p in model.parameters())
            hint(not empty or "NoneType" not in str(error), EMPTIED)
            raise
        hint(found is not None, NO_RETURN)
        keys = isinstance(found, dict) and set(found) == set(MEASURED)
        hint(keys, f"give back a dict with the keys {', '.join(MEASURED)}")
        try:
            numbers = tuple(float(torch.as_tensor(found[k]).detach()) for k in MEASURED)
        except (TypeError, ValueError, RuntimeError):
            hint(False, "each of the three values must be one number")
        expected, batches, *recipe = _run_problem(kind)
        _measure_run(expected, batches, *recipe)
        for p, right in zip(model.parameters(), expected.parameters(), strict=True):
            not_trained.append(not torch.allclose(p, right, atol=1e-4))
        return numbers

    def with_mistake(mistake):
        def measure(kind):
            # `compare` tries mistakes without gradients; torch warns of some.
            with torch.enable_grad(), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _measure_run(*_run_problem(kind), mistake=mistake)

        return measure

    mistakes = {text: with_mistake(name) for text, name in RUN_MISTAKES.items()}
    advice = "In each step: loss, backward, clip, optimizer, zero_grad, schedule."
    inputs = [(kind,) for kind in RUNS]
    compare(learners, with_mistake(""), inputs, mistakes, gradient=False, advice=advice)
    hint(
        not any(not_trained),
        "the three numbers are right, but the model that was given has other weights "
        "after the run than training would give it. Train that model, not a copy.",
    )
    passed("how far the weights move, how long gradients are, how large weights end")


# 3. Find the bug: the best epoch


def _choose(results: dict, by: str, report: str) -> tuple[int, float]:
    values = results[by]
    best = max(range(len(values)), key=lambda i: (values[i], i))
    return best + 1, results[report][best]


def _first_of_equals(results: dict) -> tuple[int, float]:
    best = results["val_acc"].index(max(results["val_acc"]))
    return best + 1, results["test_acc"][best]


def _lowest(results: dict, by: str) -> tuple[int, float]:
    values = results[by]
    best = min(range(len(values)), key=lambda i: (values[i], -i))
    return best + 1, results["test_acc"][best]


def _last_epoch(results: dict) -> tuple[int, float]:
    return len(results["test_acc"]), results["test_acc"][-1]


def _from_zero(results: dict) -> tuple[int, float]:
    epoch, accuracy = _choose(results, "val_acc", "test_acc")
    return epoch - 1, accuracy


def _highest_test(results: dict) -> tuple[int, float]:
    return _choose(results, "val_acc", "test_acc")[0], max(results["test_acc"])


REPORT_MISTAKES = {
    "the epoch is still chosen by the test accuracy: then the test images are a part "
    "of training. What else was measured after each epoch?": (
        lambda results: _choose(results, "test_acc", "test_acc")
    ),
    "the epoch is right, and the accuracy is that on validation images. It was the "
    "largest of many, so it is too good, too: report that of the test images.": (
        lambda results: _choose(results, "val_acc", "val_acc")
    ),
    "the epoch is chosen on validation images, and the accuracy is the best of all "
    "test accuracies. Report the one of the chosen epoch.": _highest_test,
    "epochs are counted from 1: yours is one less.": _from_zero,
    "two epochs are equally good on validation images. Take the last of them, as "
    "`train` does: its weights are those that the model has.": _first_of_equals,
    "the epoch is the one with the lowest validation accuracy.": (
        lambda results: _lowest(results, "val_acc")
    ),
    "the epoch is chosen by the validation loss. That can be done, but `train` keeps "
    "the weights of the best validation *accuracy*.": (
        lambda results: _lowest(results, "val_loss")
    ),
    "the epoch is chosen on the training images. There the last ones are nearly always "
    "best, however much the model overfits.": (
        lambda results: _choose(results, "train_acc", "test_acc")
    ),
    "this is the last epoch, not the one that was best on validation images.": (
        _last_epoch
    ),
}


def _history(epochs: int, seed: int, tie: bool) -> dict[str, list[float]]:
    """Made up, with all best epochs at different places."""
    generator = torch.Generator().manual_seed(seed)
    parts, whats = ("train", "val", "test"), ("loss", "acc")
    names = [f"{part}_{what}" for part in parts for what in whats]
    values = torch.rand(len(names), epochs, generator=generator, dtype=torch.float64)
    results = dict(zip(names, values.round(decimals=4).tolist(), strict=True))
    if tie:
        best = max(results["val_acc"]) + 0.01
        results["val_acc"][1] = results["val_acc"][epochs - 2] = best
        # The first of them has the better test accuracy, which must not decide.
        two = sorted([results["test_acc"][1], results["test_acc"][epochs - 2]])
        results["test_acc"][epochs - 2], results["test_acc"][1] = two
    return results


def check_mended_report(answer: Callable) -> None:
    """Checks the report of a run: epoch by validation, accuracy by test.

    Raises:
        Hint: it is not right yet.
    """
    histories = {
        "a run of 8 epochs": _history(8, 12, tie=False),
        "a run with two equally good epochs": _history(7, 36, tie=True),
        "a run of one epoch": _history(1, 1, tie=False),
        "a run of 20 epochs": _history(20, 5, tie=False),
    }
    changed = []

    def learners(kind):
        given = copy.deepcopy(histories[kind])
        found = answer(given)
        changed.append(given != histories[kind])
        if isinstance(found, tuple | list):  # also scalars of numpy and torch
            found = [as_number(value) for value in found]
        return found

    def of(function):
        return lambda kind: function(histories[kind])

    compare(
        learners,
        of(lambda results: _choose(results, "val_acc", "test_acc")),
        [(kind,) for kind in histories],
        {text: of(wrong) for text, wrong in REPORT_MISTAKES.items()},
        gradient=False,
        advice="The first number is the epoch, the second the accuracy.",
    )
    hint(
        not any(changed),
        "your code changes the lists that it was given, such as by `sort` or `pop`. "
        "The caller still wants to plot them.",
    )
    passed("mended: chosen on validation images, reported on test images")


# 4. Near-duplicate images


def _pairs(train, test, threshold, mistake="") -> list[tuple[int, int]]:
    """The solution, or one with a mistake in it."""
    side = train.shape[-1] if mistake == "not shrunk" else 8
    size = (train.shape[-2], side) if mistake == "not shrunk" else (8, 8)
    shrink = F.adaptive_avg_pool2d
    if mistake in ("nearest", "bilinear"):  # reads one pixel of a block, or four
        shrink = partial(F.interpolate, mode=mistake)
    train, test = shrink(train, size), shrink(test, size)
    if mistake == "grey":
        train, test = train.mean(1, keepdim=True), test.mean(1, keepdim=True)
    ways = {
        "no mirror": [test],
        "only mirror": [test.flip(-1)],
        "upside down": [test, test.flip(-2)],
        "turned": [test, test.flip((-2, -1))],
    }.get(mistake, [test, test.flip(-1)])
    gaps = train[:, None, None] - torch.stack(ways, dim=1)  # (n, m, ways, C, 8, 8)
    channels, gaps = gaps.flatten(4).square().mean(-1).sqrt(), gaps.flatten(3)
    distance = gaps.square().mean(-1).sqrt()
    if mistake == "sum":
        distance = gaps.square().sum(-1).sqrt()
    elif mistake == "no root":
        distance = gaps.square().mean(-1)
    elif mistake == "each channel":
        distance = channels.mean(-1)
    elif mistake == "absolute":
        distance = gaps.abs().mean(-1)
    distance = distance.amax(-1) if mistake == "both" else distance.amin(-1)
    near = distance > threshold if mistake == "above" else distance < threshold
    found = [tuple(pair) for pair in near.nonzero().tolist()]
    if mistake == "swapped":
        return [(j, i) for i, j in found]
    if mistake == "same place":
        return [(i, j) for i, j in found if i == j]
    if mistake == "one each":
        return list({j: (i, j) for i, j in reversed(found)}.values())
    if mistake in ("first of each", "last of each"):
        found = found[::-1] if mistake == "first of each" else found
        return list({i: (i, j) for i, j in found}.values())
    return found


PAIR_MISTAKES = {
    "the mirrored copy is not found. Compare each image with the left-right mirror "
    "image of the other as well, and take the smaller distance.": "no mirror",
    "only mirrored copies are found. A pair's distance is the smaller of the two, "
    "with and without the mirror.": "only mirror",
    "you mirror top and bottom. A photograph mirrored left and right still looks "
    "like one: flip the last axis, the columns.": "upside down",
    "you turn images upside down. Mirror left and right only: flip the last axis, "
    "the columns.": "turned",
    "it asks that an image be near *and* its mirror image. One of the two is "
    "enough: take the smaller distance.": "both",
    "the images are compared in full size, or not as averages over 8 x 8 blocks. A "
    "copy that was encoded again differs in every pixel: shrink both first, "
    "`F.adaptive_avg_pool2d(images, 8)`.": "not shrunk",
    "it shrinks by picking single pixels, and those differ in a copy that was encoded "
    "again. Average over blocks: `F.adaptive_avg_pool2d(images, 8)`.": "nearest",
    "it shrinks by interpolating, such as between four pixels of each block, or over "
    "other blocks than 8 x 8. Average over all pixels of each: "
    "`F.adaptive_avg_pool2d(images, 8)`.": "bilinear",
    "you take a square root for each channel and average these. Take the mean of all "
    "3 · 8 · 8 squares, then one square root.": "each channel",
    "you add up the squares, so the distance grows with the number of values. Take "
    "their mean before the square root.": "sum",
    "the square root is missing: mean squares of small differences are much smaller "
    "than "
    "the differences.": "no root",
    "you average absolute differences, which a change in a small part of the image "
    "hardly moves. Average squares, then take the square root.": "absolute",
    "colours are averaged away: a green image may be a red one's grey twin. Compare "
    "all three channels.": "grey",
    "these are the pairs *above* the threshold.": "above",
    "the pairs are the wrong way round: (training image, test image).": "swapped",
    "only images with the same index are compared. Any training image may be the "
    "copy of any test image.": "same place",
    "a test image may have several copies in the training set: give all pairs.": (
        "one each"
    ),
    "a training image may have several copies in the test set: give all pairs.": (
        "first of each"
    ),
    "a training image may have several copies in the test set: give all pairs. ": (
        "last of each"
    ),
}


def _planted(n: int, size: tuple[int, int], seed: int) -> tuple:
    """Images (n, 3, H, W) and (12, 3, H, W); which are copies, `_pairs` knows."""
    generator = torch.Generator().manual_seed(seed)

    def large(x):  # every value becomes a block of the same value
        down, across = size[0] // 8, size[1] // 8
        return x.repeat_interleave(down, -2).repeat_interleave(across, -1)

    train = 0.2 + 0.6 * torch.rand(n, 3, 8, 8, generator=generator)
    train[3] = (train[3] + train[3].flip(-1)) / 2  # its own mirror image
    train[n - 1] = train[2] + 0.02  # two of them are near the same test image
    test = 0.2 + 0.6 * torch.rand(12, 3, 8, 8, generator=generator)
    test[0] = train[3]
    noise = torch.randn(3, 8, 8, generator=generator)
    noise *= 0.03 / noise.square().mean().sqrt()
    test[1] = train[1].flip(-1) + noise
    test[2] = train[0].flip(-2)
    test[3] = train[2]
    test[4] = train[4] + 0.07  # brighter
    test[5] = train[5].roll(1, dims=0)  # other colours of the same grey
    test[6] = train[5]
    test[6, :, 2, 6] += torch.where(test[6, :, 2, 6] < 0.5, 0.5, -0.5)  # one spot
    test[7] = train[0]
    test[8] = train[0].flip((-2, -1))
    test[9] = train[1] + noise
    test[10] = train[4]
    test[10, 0] += 0.1  # redder
    test[11] = train[0].flip(-1) + noise
    train, test = large(train), large(test)
    squares = torch.tensor([[1.0, -1.0], [-1.0, 1.0]])
    fine = squares.repeat(size[0] // 2, size[1] // 2)  # gone after averaging
    test[3] += 0.2 * fine
    down, across = size[0] // 8, size[1] // 8
    block = torch.zeros(down, across)  # its mean is 0, and so is the first pixel
    block[-1, 1:] = 1
    block[down // 2 - 1 : down // 2 + 1, across // 2] += 3
    block[0, 0] = 0
    block[0, -1] -= block.sum()
    test[7] += 0.05 * block.repeat(8, 8)
    return train, test


def check_near_duplicates(answer: Callable) -> None:
    """Checks the search for near-duplicate images in two sets.

    Raises:
        Hint: it is not right yet.
    """
    sets = {
        "7 training and 12 test images": (*_planted(7, (32, 48), 1), 0.05),
        "a larger threshold": (*_planted(8, (16, 16), 2), 0.08),
        "a small threshold": (*_planted(7, (64, 32), 3), 0.01),
        "one image each": tuple(x[1:2] for x in _planted(7, (16, 32), 4)) + (0.05,),
        "images that differ": (*(x[:2] for x in _planted(7, (16, 16), 5)), 0.001),
    }
    for kind, (train, test, threshold) in sets.items():
        given = train.clone(), test.clone()
        with learners_code(was_right=kind != next(iter(sets))):
            found = answer(*given, threshold)
        same = torch.equal(given[0], train) and torch.equal(given[1], test)
        hint(same, "your code changes the images that it was given")
        _check_pairs(kind, found, train, test, threshold)
    passed("near-duplicate images found, mirrored ones, too")


def _check_pairs(kind, found, train, test, threshold) -> None:
    hint(found is not None, NO_RETURN)
    hint(
        hasattr(found, "__len__"),
        f"give back a list of pairs. This {type(found).__name__} can be read only once",
    )
    try:
        found = [tuple(int(number) for number in pair) for pair in found]
        pairs = all(len(pair) == 2 for pair in found)
    except (TypeError, ValueError):
        pairs = False
    hint(pairs, "give back a list of pairs of indices (training image, test image)")
    right = set(_pairs(train, test, threshold))
    if set(found) != right:
        for text, name in PAIR_MISTAKES.items():
            wrong = set(_pairs(train, test, threshold, name))
            hint(set(found) != wrong, text)
        raise Hint(
            f"for {kind}, below {threshold}, it gives {sorted(set(found))}, expected "
            f"{sorted(right)}. Shrink, compare with both, square root of the mean "
            "square."
        )
    hint(
        len(found) == len(right),
        "a pair is named twice: an image that is its own mirror image is near in both "
        "ways. Take the smaller distance, then ask once.",
    )
