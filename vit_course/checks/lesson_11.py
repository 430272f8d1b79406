"""Tasks of the exercises of lesson 11: training."""

import copy
import warnings
from functools import partial
from itertools import cycle, islice
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_, clip_grad_value_, parameters_to_vector
from torch.utils.data import DataLoader, TensorDataset

from going_modular.optimization import create_optimizer, warmup_schedule
from vit_course.checks.hints import Hint, hint
from vit_course.checks.task import Case, Task


def _classifier(seed: int, *layers: nn.Module) -> nn.Module:
    """A small model with random weights: (B, 4) -> (B, 3)."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(*layers)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator)
    return model


def _batches(seed: int, sizes: tuple[int, ...]) -> list[tuple]:
    """Batches of (B, 4) features and (B,) labels of three classes."""
    g = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(b, 4, generator=g), torch.randint(3, (b,), generator=g))
        for b in sizes
    ]


# 1. The learning rate finder


def _sweep(model, batches, lr, factor, steps, mistake=""):
    """The solution, or one with a mistake in it."""
    optimizer = create_optimizer(model.train(mistake != "eval"))
    rates, losses = [], []
    for x, y in islice(batches if mistake == "ends" else cycle(batches), steps):
        if mistake == "first batch":
            x, y = next(iter(batches))
        if mistake in ("Adam", "AdamW", "SGD") and not rates:
            optimizer = getattr(torch.optim, mistake)(model.parameters())
        if mistake == "new optimizer":
            optimizer = create_optimizer(model)
        rates.append(lr * factor ** (len(rates) + (mistake == "grows first")))
        for group in optimizer.param_groups[: 1 if mistake == "one group" else None]:
            group["lr"] = group["lr"] if mistake == "rate not set" else rates[-1]
        loss = F.cross_entropy(model(x), y)
        losses.append(loss.item())
        loss.backward()
        if mistake != "no step":
            optimizer.step()
        if mistake != "no zero_grad":
            optimizer.zero_grad()
    return rates, losses


ALL_GROUPS = (
    "the new rate does not reach all weights. `create_optimizer` makes two groups, one "
    "without weight decay: set `group['lr']` of all `param_groups` before the step."
)
OWN_OPTIMIZER = (
    "your steps are those of another optimizer. Take the one of the first line, from "
    "`create_optimizer`: it has weight decay, and not for all weights."
)
SWEEPS = {
    "no zero_grad": (
        "the gradients of all steps add up: is `optimizer.zero_grad()` missing?"
    ),
    "new optimizer": (
        "each step gets a new optimizer, and Adam's running means start from zero "
        "again. One optimizer serves all steps; only its rate changes."
    ),
    "Adam": OWN_OPTIMIZER,
    "AdamW": OWN_OPTIMIZER,
    "SGD": OWN_OPTIMIZER,
    "rate not set": ALL_GROUPS,
    "one group": ALL_GROUPS,
    "grows first": "make the first step with `lr` itself: let it grow after the step.",
    "first batch": "each step sees the first batch. `iter(batches)` starts anew.",
    "ends": "the batches end before the steps do. Begin with the first one again.",
    "no step": (
        "the weights never move. Does the optimizer hold the parameters of the model "
        "that you train, and are the weights put back after the last step only?"
    ),
    "eval": (
        "this model is in evaluation mode while it trains. Rates are wanted for "
        "training, where dropout is on and running averages move."
    ),
}


def _call_finder(answer, *given):
    found = answer(*given)
    losses = found[1] if isinstance(found, tuple | list) and len(found) == 2 else ()
    hint(
        not any(getattr(loss, "requires_grad", False) for loss in losses),
        "the losses are tensors with a gradient: each keeps the whole graph of its "
        "step in memory. `loss.item()` gives the value alone.",
    )
    batches, steps = given[1], given[-1]
    hint(
        not len(batches) < len(losses) < steps,
        f"{len(losses)} losses, expected {steps}. All `steps` values are wanted, also "
        "after the loss has burst.",
    )
    return found


def _with_running_averages() -> tuple:
    layers = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 3)
    return _classifier(5, *layers), _batches(6, (6, 7)), 0.02, 3.0, 3


def _sweeps() -> list[tuple]:
    linear, batches = _classifier(1, nn.Linear(4, 3)), _batches(2, (6, 4, 5, 3))
    deep = _classifier(3, nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
    # Its last batch is smaller.
    loader = DataLoader(TensorDataset(*_batches(4, (11,))[0]), batch_size=4)
    return [
        (linear, batches, 1e-3, 2.0, 8),
        (deep, loader, 1e-2, 1.5, 7),
        _with_running_averages(),
        (linear, batches, 0.5, 2.0, 1),
        (linear, batches[:2], 0.01, 10.0, 7),  # its loss bursts
    ]


def _check_restored(answer) -> None:
    model, *given = _with_running_averages()
    before = copy.deepcopy(model.state_dict())
    answer(model, *given)
    changed = {n for n, x in model.state_dict().items() if not x.equal(before[n])}
    hint(
        not changed & set(dict(model.named_parameters())),
        "the model's weights are not what they were before. `state_dict()` gives the "
        "tensors themselves, not copies: put back a `copy.deepcopy` of it.",
    )
    hint(
        not changed,
        "the parameters are what they were, but running averages of the model changed: "
        "they belong to `state_dict()`, too.",
    )


check_lr_finder = Task(
    "lr_finder",
    "rates and losses of one run, and the weights as they were",
    Case(
        inputs=_sweeps,
        call=_call_finder,
        right=_sweep,
        mistakes={partial(_sweep, mistake=name): SWEEPS[name] for name in SWEEPS},
        gradient=False,
        advice=(
            "First come the rates, each `factor` times the one before, then the losses "
            "of cross-entropy."
        ),
    ),
    also=[_check_restored],
)

# 2. What each part of the recipe does


def _norm(tensors) -> Tensor:
    return parameters_to_vector(tensors).detach().norm()


def _measure(model, batches, lr, warmup, decay, limit: Any, mistake=""):
    """The solution, or one with a mistake in it."""
    optimizer = create_optimizer(model, lr, decay)
    schedule = warmup_schedule(optimizer, warmup, len(batches) + 1, "none")
    parameters = list(model.parameters())
    start = before = parameters_to_vector(parameters).detach()
    steps, gradients, length = [], [], cast(float, limit)  # or None
    for x, y in batches:
        F.cross_entropy(model(x), y).backward()
        if mistake == "before clipping":
            gradients.append(_norm([p.grad for p in parameters]))
        clips = limit is not None or mistake == "None"
        if clips and mistake == "each entry":
            clip_grad_value_(parameters, length)
        elif clips and mistake == "each tensor":
            for p in parameters:
                clip_grad_norm_([p], length)
        elif clips and mistake != "no clipping":
            clip_grad_norm_(parameters, length)
        if mistake != "before clipping":
            gradients.append(_norm([p.grad for p in parameters]))
        if mistake == "schedule first":
            with warnings.catch_warnings(action="ignore"):  # torch notices it, too
                schedule.step()
        optimizer.step()
        if mistake not in ("schedule first", "no schedule"):
            schedule.step()
        if mistake != "no zero_grad":
            optimizer.zero_grad()
        after = parameters_to_vector(parameters).detach()
        if mistake == "of lengths":
            before = after * before.norm() / after.norm()
        steps.append((after - (start if mistake == "from start" else before)).norm())
        before = after
    return {
        "largest_step": 0.0 if mistake == "no copy" else max(steps).item(),
        "largest_gradient": 0.0 if mistake == "emptied" else max(gradients).item(),
        "weight_norm": before.norm().item(),
    }


GLOBAL_NORM = (
    "each entry or each tensor of the gradient is clipped by itself, which changes its "
    "direction. Clip the global norm: call `clip_grad_norm_` once, with all parameters."
)
MEASUREMENTS = {
    "no clipping": (
        "clipping has no effect in your run. It must stand between `backward`, which "
        "fills the gradients, and `optimizer.step`, which uses them."
    ),
    "each entry": GLOBAL_NORM,
    "each tensor": GLOBAL_NORM,
    "None": "`clip_norm` may be None: then nothing is clipped.",
    "no schedule": (
        "the rate stays where the warm-up begins: call `schedule.step()` in each step."
    ),
    "schedule first": (
        "the schedule steps before the optimizer, so the first rate of the warm-up is "
        "left out."
    ),
    "no zero_grad": (
        "the gradients of all batches add up: is `optimizer.zero_grad()` missing?"
    ),
    "from start": (
        "`largest_step` is the way from the weights at the start. Wanted is the way of "
        "one step: from just before it to just after it."
    ),
    "of lengths": (
        "`largest_step` is by how much the *length* of the weights changes. Wanted is "
        "the length of the difference, not the difference of the lengths."
    ),
    "no copy": (
        "`largest_step` is zero: what you call 'before' is no copy, so it changes "
        "along with the weights."
    ),
    "before clipping": (
        "`largest_gradient` is the length before clipping, which is what "
        "`clip_grad_norm_` gives back. Wanted is what the optimizer got."
    ),
    "emptied": "`largest_gradient` is zero: measure it before `zero_grad`.",
}


def _runs() -> list[tuple]:
    inputs = []
    for seed, sizes, *recipe in [
        (5, (4, 6, 5), 0.02, 1, 0.1, 9.0),  # gradients are shorter than that
        (1, (6, 4, 5, 6, 6, 3), 0.1, 3, 0.4, 0.5),
        (6, (5, 4, 6, 5), 0.05, 2, 0.4, None),
        (3, (4, 5, 6), 0.05, 0, 0.0, 1.5),
        (4, (7,), 0.01, 0, 1.0, 0.1),
    ]:
        model = _classifier(seed, nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 3))
        batches = _batches(seed + 10, sizes)
        if len(batches) > 3:  # one batch that has a huge gradient
            batches[2] = 20 * batches[2][0], batches[2][1]
        inputs.append((model, batches, *recipe))
    return inputs


def _call_run(answer, model, *given):
    try:
        return answer(model, *given)
    except (AttributeError, TypeError) as error:
        empty = any(p.grad is None for p in model.parameters())
        hint(
            not empty or "NoneType" not in str(error),
            "a gradient is None where your code reads it: `backward` has not filled it "
            "yet, or `zero_grad` has emptied it.",
        )
        raise


def _check_trained(answer) -> None:
    given, expected = _runs()[1], _runs()[1]
    answer(*given)
    _measure(*expected)
    found, right = (parameters_to_vector(x[0].parameters()) for x in (given, expected))
    hint(
        torch.allclose(found, right, atol=1e-4),
        "the three values are right, but the model that was given has other weights "
        "after the run than training would give it. Train that model, not a copy.",
    )


check_measured_run = Task(
    "measure_run",
    "how far the weights move, how long gradients are, how large weights end",
    Case(
        inputs=_runs,
        call=_call_run,
        right=_measure,
        mistakes={
            partial(_measure, mistake=name): MEASUREMENTS[name] for name in MEASUREMENTS
        },
        gradient=False,
        advice=(
            "A length is the norm of *one* vector of all weights, or all gradients; "
            "the largest is that of all steps, and `weight_norm` is taken at the end."
        ),
    ),
    also=[_check_trained],
)

# 3. Find the bug: the best epoch


def _report(by="val_acc", says="test_acc", best=max, which=max, first=1):
    """A report of a run; the arguments make mistakes.

    Args:
        by: the list by which the epoch is chosen.
        says: the list in which its accuracy stands.
        best: whether the largest or the smallest value is best.
        which: of equally good epochs, the last (max) or the first (min).
        first: the number of the first epoch.
    """

    def report(results: dict) -> tuple[int, float]:
        values = results[by]
        epoch = which(i for i, v in enumerate(values) if v == best(values))
        return epoch + first, results[says][epoch]

    return report


REPORTS = {
    _report(by="test_acc"): (
        "the epoch is still chosen by the test accuracy: then the test images are a "
        "part of training. What else was measured after each epoch?"
    ),
    _report(says="val_acc"): (
        "the epoch is right, and the accuracy is that on validation images. It was the "
        "largest of many, so it is too good, too: report that of the test images."
    ),
    lambda results: (_report()(results)[0], max(results["test_acc"])): (
        "the epoch is chosen on validation images, and the accuracy is the best of all "
        "test accuracies. Report the one of the chosen epoch."
    ),
    _report(first=0): "epochs are counted from 1: yours is one less.",
    _report(by="val_loss", best=min): (
        "the epoch is chosen by the validation loss. That can be done, but `train` "
        "keeps the weights of the best validation *accuracy*."
    ),
    _report(by="train_acc"): (
        "the epoch is chosen on the training images. There the last ones are nearly "
        "always best, however much the model overfits."
    ),
    (
        _report(best=min),
        lambda results: (len(results["test_acc"]), results["test_acc"][-1]),
    ): (
        "this is the last epoch, or the one with the lowest validation accuracy. Which "
        "was best on validation images?"
    ),
}


def _history(epochs: int, seed: int) -> dict[str, list[float]]:
    """Made up, with all best epochs at different places."""
    generator = torch.Generator().manual_seed(seed)
    names = [f"{x}_{y}" for x in ("train", "val", "test") for y in ("loss", "acc")]
    values = torch.rand(len(names), epochs, generator=generator, dtype=torch.float64)
    return dict(zip(names, values.round(decimals=4).tolist(), strict=True))


def _with_equals() -> dict[str, list[float]]:
    """The first of two equal epochs has the better test accuracy."""
    results = _history(7, 36)
    for epoch, accuracy in ((1, 0.6), (5, 0.5)):
        results["val_acc"][epoch], results["test_acc"][epoch] = 1.0, accuracy
    return results


check_mended_report = Task(
    "mended_report",
    "mended: chosen on validation images, reported on test images",
    Case(
        inputs=[(_history(8, 12),), (_history(1, 1),), (_history(20, 5),)],
        right=_report(),
        mistakes=REPORTS,
        gradient=False,
        advice="The first number is the epoch, the second the accuracy.",
    ),
    Case(
        inputs=[(_with_equals(),)],
        right=_report(),
        mistakes={
            _report(which=min): (
                "two epochs are equally good on validation images. Take the last of "
                "them, as `train` does: its weights are those that the model has."
            ),
        },
        gradient=False,
    ),
)

# 4. Near-duplicate images

IMAGE = (-3, -2, -1)  # the axes of one


def _blocks(images: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(images, 8)


def _near(shrink=_blocks, flips=((), (-1,)), distance=None, take=torch.amin):
    """The search; the arguments make mistakes.

    Args:
        shrink: what is compared of the images (n, C, H, W).
        flips: the axes of a test image that are flipped, for each comparison.
        distance: another one, from differences (n, m, flips, C, H, W).
        take: which of the distances of all comparisons.
    """

    def search(train, test, threshold) -> set[tuple]:
        train, test = shrink(train), shrink(test)
        flipped = torch.stack([test.flip(axes) for axes in flips], dim=1)
        gaps = train[:, None, None] - flipped
        distances = distance(gaps) if distance else gaps.square().mean(IMAGE).sqrt()
        near = take(distances, dim=-1) < threshold  # (n, m)
        return {tuple(pair) for pair in near.nonzero().tolist()}

    return search


def _of_pairs(change):
    """The right pairs, changed: `change(pairs)` gets them in order."""
    return lambda *given: set(change(sorted(_near()(*given))))


def _above(train, test, threshold) -> set[tuple]:
    return _near()(train, test, torch.inf) - _near()(train, test, threshold)


PAIRS = {
    _near(flips=[()]): (
        "the mirrored copy is not found. Compare each image with the left-right mirror "
        "image of the other as well, and take the smaller distance."
    ),
    (_near(flips=[(-1,)]), _near(take=torch.amax)): (
        "an image need not be near *and* mirrored. Its distance is the smaller of the "
        "two, with and without the mirror."
    ),
    (_near(flips=[(), (-2,)]), _near(flips=[(), (-2, -1)])): (
        "you turn images upside down. Mirror left and right only: flip the last axis."
    ),
    (
        _near(lambda x: x),
        _near(lambda x: F.adaptive_avg_pool2d(x, 16)),
        _near(lambda x: F.avg_pool2d(x, x.shape[3] // 8)),
        _near(lambda x: F.interpolate(x, (8, 8))),
        _near(lambda x: F.interpolate(x, (8, 8), mode="bilinear")),
    ): (
        "the images are not compared as averages over 8 x 8 blocks, and single pixels "
        "differ in a copy that was encoded again. Shrink both images first, "
        "`F.adaptive_avg_pool2d(images, 8)`."
    ),
    (
        _near(distance=lambda gaps: gaps.square().mean((-2, -1)).sqrt().mean(-1)),
        _near(distance=lambda gaps: gaps.square().sum(IMAGE).sqrt()),
        _near(distance=lambda gaps: gaps.square().mean(IMAGE)),
        _near(distance=lambda gaps: gaps.abs().mean(IMAGE)),
    ): (
        "the distance is another one. Wanted is one square root for each pair: that of "
        "the mean of all 3 · 8 · 8 squared differences."
    ),
    _near(lambda x: _blocks(x).mean(dim=1, keepdim=True)): (
        "colours are averaged away: a green image may be a red one's grey twin. "
        "Compare all three channels."
    ),
    _above: "these are the pairs *above* the threshold.",
    _of_pairs(
        lambda pairs: [(j, i) for i, j in pairs]
    ): "the pairs are the wrong way round: (training image, test image).",
    (
        _of_pairs(lambda pairs: [(i, j) for i, j in pairs if i == j]),
        _of_pairs(lambda pairs: {j: (i, j) for i, j in pairs[::-1]}.values()),
        _of_pairs(lambda pairs: dict(pairs).items()),
        _of_pairs(lambda pairs: dict(pairs[::-1]).items()),
    ): (
        "pairs are missing. Any training image may be the copy of any test image, and "
        "either may have several copies."
    ),
}


def _planted(n: int, size: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Images (n, 3, H, W) and (12, 3, H, W), some of them copies of others."""
    generator = torch.Generator().manual_seed(seed)
    train = 0.2 + 0.6 * torch.rand(n, 3, 8, 8, generator=generator)
    train[3] = (train[3] + train[3].flip(-1)) / 2  # its own mirror image
    train[n - 1] = train[2] + 0.02  # two of them are near the same test image
    test = 0.2 + 0.6 * torch.rand(12, 3, 8, 8, generator=generator)
    noise = torch.randn(3, 8, 8, generator=generator)
    noise *= 0.03 / noise.square().mean().sqrt()
    test[0] = train[3]
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
    # Every value becomes a block, and two images get noise that averages to 0.
    train, test = (F.interpolate(x, size=size) for x in (train, test))
    fine = torch.randn(3, *size, generator=generator)
    test[[3, 7]] += 0.2 * (fine - F.interpolate(_blocks(fine[None]), size=size)[0])
    return train, test


def _sets() -> list[tuple]:
    one, two = _planted(7, (16, 32), 4), _planted(7, (16, 16), 5)
    return [
        (*_planted(7, (32, 48), 1), 0.05),
        (*_planted(8, (16, 16), 2), 0.08),
        (*_planted(7, (64, 32), 3), 0.01),
        (one[0][1:2], one[1][1:2], 0.05),
        (two[0][:2], two[1][:2], 0.001),
    ]


def _as_a_set(answer, *given):
    """Pairs in any order, in a list or anything else that can be read twice."""
    found = answer(*given)
    if found is None:
        return None
    try:
        pairs = [(int(i), int(j)) for i, j in found]
        twice = len(found) - len(set(pairs))
    except (TypeError, ValueError):
        text = "give back a list of pairs of indices (training image, test image)"
        raise Hint(text) from None
    hint(
        not twice,
        "a pair is named twice: an image that is its own mirror image is near in both "
        "ways. Take the smaller distance, then ask once.",
    )
    return set(pairs)


check_near_duplicates = Task(
    "near_duplicates",
    "near-duplicate images found, mirrored ones, too",
    Case(
        inputs=_sets,
        call=_as_a_set,
        right=_near(),
        mistakes=PAIRS,
        gradient=False,
        advice="Are pairs missing, or too many? Nothing but `threshold` decides.",
    ),
)
