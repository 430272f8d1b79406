"""Checks of the capstone: what every variation of a ViT, and its proof, must do."""

import inspect
from collections.abc import Callable
from unittest.mock import patch

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.modules import module as modules
from torch.optim.optimizer import register_optimizer_step_post_hook
from torch.overrides import TorchFunctionMode

from helper_functions import check_close
from vit_course.checks.hints import (
    CHANGED,
    as_number,
    hint,
    is_a_function,
    learners_code,
    passed,
)


def _images(batch: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(15)
    return torch.randn(batch, 3, 64, 64, generator=generator)


def check_variation(answer: Callable[[int], nn.Module]) -> None:
    """Checks a variation of the ViT as a classifier of images of 64 x 64 pixels.

    Args:
        answer: makes the model for a number of classes.

    Raises:
        Hint: it is not right yet.
    """
    hint(
        not isinstance(answer, nn.Module),
        "hand over the function that makes the model, not a model",
    )
    is_a_function(answer, "create_variation")
    torch.manual_seed(0)
    with learners_code():
        model, twin, other = answer(3), answer(3), answer(7)
    hint(isinstance(model, nn.Module), "give back a model: an nn.Module")
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    hint(
        not frozen,
        f"{', '.join(frozen[:3])}: requires_grad=False, so no gradient comes there. "
        "What is fixed belongs into a buffer (`register_buffer`).",
    )
    images = _images(4)
    before = images.clone()
    with learners_code(_other_size), torch.no_grad():
        logits, again, alone = model.eval()(images), model(images), model(images[1:2])
        seven = other.eval()(images[:1])
        twin.load_state_dict(model.state_dict())
        loaded = twin.eval()(images)
    hint(torch.equal(images, before), CHANGED)
    hint(
        isinstance(logits, torch.Tensor) and tuple(logits.shape) == (4, 3),
        "4 images and 3 classes must give logits of shape (4, 3)",
    )
    hint(
        tuple(alone.shape) == (1, 3),
        f"one image and 3 classes must give logits of shape (1, 3), not "
        f"{tuple(alone.shape)}",
    )
    hint(
        tuple(seven.shape) == (1, 7),
        "for 7 classes it gives another number of logits: is the head fixed?",
    )
    hint(logits.isfinite().all(), "some logits are no finite numbers (NaN or inf)")
    hint(
        logits.min() < 0 or not torch.allclose(logits.sum(dim=1), torch.ones(4)),
        "the model gives probabilities. Logits are wanted: cross-entropy does the "
        "softmax itself.",
    )
    hint(
        torch.equal(logits, again),
        "the same images give other logits in evaluation: is something random there "
        "that `eval()` does not switch off?",
    )
    hint(
        torch.allclose(logits, loaded, atol=1e-4),
        "a second model that loads the `state_dict` gives other logits: part of the "
        "model is not in it, so no optimizer trains it. Learned tokens must be an "
        "nn.Parameter, a list of blocks an nn.ModuleList.",
    )
    hint(
        torch.allclose(logits[1:2], alone, atol=1e-4),
        "the logits of an image depend on the other images of the batch. Does "
        "something mix axis 0, such as attention over the batch (batch_first!) or "
        "BatchNorm?",
    )
    hint(
        not torch.allclose(logits[:1].expand_as(logits), logits, atol=1e-6)
        or _depends_on_pixels(model, images),
        "all images get the same logits: what the head reads does not depend on the "
        "patches",
    )
    _check_training(model, images)
    passed("a classifier: all parameters are trained, each image is classified alone")
    count = sum(p.numel() for p in model.parameters())
    print(f"  {count:,} parameters")


def _other_size(error: Exception) -> str:
    """The hint for a model that is made for other images than those of the task."""
    if "images must be of size" not in str(error):
        return ""
    return f"{str(error).split(';')[0]}. Give `create_vit` the size: `img_size=64`."


def _depends_on_pixels(model: nn.Module, images: torch.Tensor) -> bool:
    """A zero head gives equal logits; then its gradient tells, or another one."""
    trained = [p for p in model.parameters() if p.requires_grad]
    grads = []
    for image in images[:2]:
        loss = F.cross_entropy(model(image[None]), torch.tensor([0]))
        grads.append(torch.autograd.grad(loss, trained, materialize_grads=True))
    return not all(map(torch.allclose, *grads))


def _check_training(model: nn.Module, images: torch.Tensor) -> None:
    """Checks that all parameters get gradients and that a few steps fit four images."""
    labels = torch.tensor([0, 1, 2, 0])
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    model.train()
    losses, reached = [], set()
    for _ in range(15):
        with learners_code():
            loss = F.cross_entropy(model(images), labels)
            optimizer.zero_grad()
            loss.backward()
        losses.append(loss.item())
        for name, parameter in model.named_parameters():
            if parameter.grad is not None and parameter.grad.any():
                reached.add(name)
        optimizer.step()
    missing = [name for name, _ in model.named_parameters() if name not in reached]
    hint(
        not missing,
        f"no gradient ever reaches {', '.join(missing[:3])}: it is there, but the "
        "logits do not depend on it",
    )
    hint(
        losses[-1] < 0.5 * losses[0],
        "15 steps on four images should fit them, but the loss went from "
        f"{losses[0]:.2f} to {losses[-1]:.2f}",
    )


class _Backward(TorchFunctionMode):
    """Notes whether a gradient is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = False

    def __torch_function__(self, func, types, args=(), kwargs=None):
        ways = torch.autograd.grad, torch.autograd.backward, torch.Tensor.backward
        self.seen = self.seen or func in ways
        return func(*args, **(kwargs or {}))


def check_proof(answer: Callable[[], None]) -> None:
    """Runs a proof and looks at what it compares.

    Raises:
        Hint: it compares too little, or nothing that could fail.
    """
    is_a_function(answer, "prove")
    compared, failed, backward = [], [], _Backward()
    outputs = {}  # of all modules, by id: kept, so that no id is used twice

    def record(name, ours, theirs, tolerance=1e-6):
        failed.append(name)
        check_close(name, ours, theirs, tolerance)
        failed.pop()
        compared.append((name, ours, theirs, tolerance))

    def in_training(error: Exception) -> str:
        active = [isinstance(m, nn.Dropout) and m.training for _, m in outputs.values()]
        if not (failed and any(active)):
            return ""
        return f"{error}. Dropout is active: call `eval()` before you compare."

    # Wherever the learner's function finds the name, also below a decorator.
    names = getattr(inspect.unwrap(answer), "__globals__", {})
    with (
        patch.dict(names, {"check_close": record}),
        patch("helper_functions.check_close", record),
        learners_code(in_training),
        backward,
    ):
        hook = modules.register_module_forward_hook(
            lambda module, _, out: outputs.update({id(out): (out, module)})
        )
        try:
            answer()
        finally:
            hook.remove()
    hint(
        not failed,
        f"{', '.join(failed)}: the comparison failed, and your code caught that. Let "
        "it fail.",
    )
    hint(
        len(compared) >= 2,
        f"`check_close` was called {len(compared)} times. Compare values and "
        "gradients: many mistakes leave one of the two right.",
    )
    hint(
        backward.seen,
        "no gradient is computed. Compare one as well: `torch.autograd.grad` of both, "
        "with respect to the same input or weight.",
    )
    for name, ours, theirs, tolerance in compared:
        hint(
            ours is not theirs and ours.data_ptr() != theirs.data_ptr(),
            f"{name}: a tensor is compared with itself, which always passes",
        )
        hint(
            bool(ours.any()),
            f"{name}: both are zero. Fill parameters that are initialised to zero with "
            "random values first, or a version that forgets them passes, too.",
        )
        one, two = (outputs.get(id(x), (x, None))[1] for x in (ours, theirs))
        hint(
            one is None or str(one) != str(two) or not torch.equal(ours, theirs),
            f"{name}: one model, or a copy, gives both sides, so a mistake in it is in "
            "both. Compare with something that was written independently.",
        )
        hint(
            tolerance <= 1e-3,
            f"{name}: with a tolerance of {tolerance} a wrong value may pass",
        )
    numbers = [name for name, ours, *_ in compared if ours.numel() == 1]
    hint(
        len(compared) - len(numbers) >= 2,
        f"{', '.join(numbers)}: one number is compared. A sum or mean hides where "
        "values are. Compare at least two tensors of several numbers.",
    )
    passed(f"{len(compared)} comparisons that could have failed")


class _Runs:
    """Notes how models are trained and measured, until its hooks are removed."""

    def __init__(self) -> None:
        self.steps: dict = {}  # of each trained model, by its first parameter
        self.first: dict = {}  # module -> when it first saw images, by their norm
        self.last: dict = {}  # module -> when it was measured last
        self.hooks = (
            register_optimizer_step_post_hook(self.step),
            modules.register_module_forward_pre_hook(self.measured),
        )

    def step(self, optimizer, *_) -> None:
        parameter = optimizer.param_groups[0]["params"][0]
        self.steps[parameter] = self.steps.get(parameter, 0) + 1

    def measured(self, module: nn.Module, given: tuple) -> None:
        if module.training and torch.is_grad_enabled():
            return
        if given and getattr(given[0], "ndim", 0) == 4:
            now, norm = sum(self.steps.values()), given[0].norm().item()
            self.first.setdefault(module, {}).setdefault(norm, now)
            self.last[module] = now


def _check_runs(runs: _Runs, wanted: int) -> None:
    """Checks that both were trained alike, and measured afterwards."""
    steps = sorted(set(runs.steps.values()))
    hint(steps, "no optimizer has taken a step: train the models, then measure them")
    hint(
        len(runs.steps) >= wanted,
        f"{len(runs.steps)} models are trained where two names and {wanted // 2} seeds "
        f"are {wanted} runs. Make a new model for each, or it goes on from the last.",
    )
    hint(
        len(steps) == 1,
        f"some models are trained for {steps[0]} steps and some for {steps[-1]}. Give "
        "both the same recipe and as many steps.",
    )
    hint(
        max(runs.last.values(), default=0) >= wanted * steps[0],
        "after the training no model has classified an image (with `model.eval()` or "
        "`no_grad`). Is it the accuracy of the training? Measure on the test images.",
    )
    hint(
        all(now in runs.first[module].values() for module, now in runs.last.items()),
        "the images of the last measurement were looked at during the training "
        "already, so the best epoch may be chosen by them. Use the test images once, "
        "at the end.",
    )


def check_measured_race(answer: Callable) -> None:
    """Runs a measurement with three seeds, and looks at what it gives back.

    Raises:
        Hint: something is missing, or cannot be.
    """
    is_a_function(answer, "measure")
    seeds, runs = (0, 1, 2), _Runs()
    try:
        with learners_code():
            found = answer(seeds)
    finally:
        for hook in runs.hooks:
            hook.remove()
    hint(
        isinstance(found, dict)
        and len(found) == 2
        and all(isinstance(name, str) for name in found),
        "give back a dict with two names: the variation, and the ViT beside it",
    )
    for name, values in found.items():
        several = isinstance(values, list | tuple) and len(values) == len(seeds)
        hint(
            several,
            f"{name}: for the three seeds {seeds} there must be three accuracies, in a "
            "list",
        )
        numbers = [isinstance(as_number(value), int | float) for value in values]
        hint(
            all(numbers),
            f"{name}: {list(values)!r:.60} are not three numbers. If there is one for "
            "each epoch, take the last.",
        )
        hint(
            all(0 <= value <= 1 for value in values),
            f"{name}: {list(values)} are no accuracies between 0 and 1",
        )
    _check_runs(runs, len(found) * len(seeds))
    one, two = (list(values) for values in found.values())
    hint(
        one != two,
        "both models have exactly the same accuracies: is it the same model twice?",
    )
    hint(
        len(set(one)) > 1 or len(set(two)) > 1,
        "all seeds give the same: does the seed reach the initial weights and the "
        "order of the images?",
    )
    passed("measured for both; compare the seeds before you compare the means")
    for name, values in found.items():
        print(f"  {name:10}", " ".join(f"{value:.1%}" for value in values))
