"""What a learner reads when an answer is not right yet, and what finds it."""

import builtins
import inspect
import linecache
import math
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from numbers import Real
from types import FrameType, MethodType

import torch
from torch import nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

CUT = (
    "the values are right, but no gradient arrives, so nothing before it can be "
    "trained. `detach`, `.data`, `.item()`, `torch.tensor(…)`, numpy and `no_grad` cut "
    "the graph; an nn.Parameter made in `forward` is one that no optimiser knows"
)
SHOWN_ONLY = (
    "right for the example shown, and wrong for {}. What is different there? Perhaps a "
    "number in your code belongs to the example."
)
CHANGED = (
    "your code changes the tensor that it was given (an operation in place, such as "
    "`+=`, or one that ends in `_`). The caller still needs that tensor."
)
CHANGED_LIST = (
    "your code changes the list or the dict that it was given: a tensor in it is "
    "written into (`+=`), or entries are taken out (`pop`), added, replaced, moved or "
    "sorted. The caller still needs it as it was."
)
CHANGED_PARAMETER = (
    "your code overwrites its own parameter `{}` when it is called, so what an "
    "optimiser has learned is lost. Read it, and leave it as it is."
)
FOOLED = (
    "this check takes a wrong answer for a right one: a function of Python or PyTorch "
    "was replaced. Restart the kernel, and run your cell again."
)
IN_PLACE = (
    "an operation in place (such as `+=`) overwrites a tensor that the backward pass "
    "still needs. Make a new one: `z = z + …`."
)
NO_RETURN = "your code gives back None. Is a `return` missing?"
NOT_WRITTEN = (
    "this task is not written yet. Put your lines in the cell above, where "
    "`raise NotImplementedError` stands, run that cell, then this one."
)
REPLACED = (
    "`{}` was replaced, and the checks compare with it. Restart the kernel, leave out "
    "the line that replaces it, and run all cells."
)
# What checks compare with, as it was before the learner's code.
_equal, _allclose = torch.equal, torch.allclose
_PLACES = (builtins, math, torch, torch.Tensor, torch.autograd, nn.functional)
_KEPT = [
    (place, name, value)
    for place in _PLACES
    for name, value in vars(place).items()
    # Jupyter sets `input` (a method) in each cell; torch wraps this one to compile.
    if callable(value) and not isinstance(value, MethodType) and name != "manual_seed"
]


class Hint(AssertionError):
    """An answer that is not right yet; its text says what to think about."""

    def _render_traceback_(self) -> list[str]:
        """What IPython shows: the hint alone, without the lines of the check."""
        return [f"Not yet: {self}"]


def hint(holds: object, text: str) -> None:
    """Raises `Hint(text)` unless something holds.

    Raises:
        Hint: it does not hold.
    """
    if not holds:
        raise Hint(text)


def nothing_is_replaced() -> None:
    """Checks that what the checks compare with can still tell right from wrong.

    Raises:
        Hint: it takes a known wrong answer for a right one, or is not what it was.
    """
    right, wrong = torch.arange(3.0), torch.zeros(3)
    for name, compares in (("equal", torch.equal), ("allclose", torch.allclose)):
        works = compares(right, right.clone()) and not compares(right, wrong)
        hint(works, REPLACED.format(f"torch.{name}"))
    for place, name, value in _KEPT:
        if vars(place).get(name) is not value:
            raise Hint(REPLACED.format(f"{place.__name__}.{name}"))


def passed(task: str) -> None:
    """Prints the one line that a right answer gets."""
    print(f"✓ {task}")


def _last_line_of_learner(error: BaseException) -> str:
    """Names the last line that is neither torch's nor ours, with its text."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        # Jupyter: /tmp/ipykernel_…; Colab also: /tmp/ipython-input-…; older: <ipython-…
        in_cell = "ipykernel" in frame.filename or "ipython-input" in frame.filename
        if in_cell:
            text = linecache.getline(frame.filename, frame.lineno or 0).strip()
            return f", in line {frame.lineno} of its cell: {text}"
    return ""


@contextmanager
def learners_code(
    known: Callable[[Exception], str] | None = None, before: str = ""
) -> Iterator[None]:
    """Turns whatever the learner's code raises into a `Hint` that names it.

    Args:
        known: gives the hint for an exception that a known mistake raises, or "".
        before: words that come before those about the exception.

    Raises:
        Hint: the code raised an exception, or replaced what the checks compare with.
    """
    nothing_is_replaced()
    try:
        yield
        nothing_is_replaced()
    except Hint:
        raise
    except Exception as error:
        blank = not str(error) or "your lines go here" in str(error)
        if isinstance(error, NotImplementedError) and blank:  # torch raises it, too
            raise Hint(NOT_WRITTEN) from error
        if known and (text := known(error)):
            raise Hint(text) from error
        where = _last_line_of_learner(error)
        name = type(error).__name__
        raise Hint(f"{before}your code stops with {name}: {error}{where}") from error


class ForbiddenCalls(TorchFunctionMode):
    """Gives a hint where a function of torch is called that a task rules out.

    Args:
        rules_out: whether it does, by the function's name and the frame that calls it.
        text: the hint.
    """

    def __init__(self, rules_out: Callable[[str, FrameType], bool], text: str) -> None:
        super().__init__()
        self.rules_out, self.text = rules_out, text

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        hint(not self.rules_out(name, sys._getframe(1)), self.text)
        return function(*args, **(kwargs or {}))


def is_a_class(answer: object, name: str) -> None:
    """Checks that the answer is a subclass of nn.Module, not an instance of one.

    Raises:
        Hint: it is not.
    """
    hint(
        not isinstance(answer, nn.Module),
        f"hand over the class `{name}` itself, not an object made from it",
    )
    hint(
        inspect.isclass(answer) and issubclass(answer, nn.Module),
        f"`{name}` must be a class that inherits from nn.Module",
    )


def is_a_function(answer: object, name: str) -> None:
    """Checks that the answer can be called, and was not called already.

    Raises:
        Hint: it cannot.
    """
    hint(
        callable(answer), f"hand over the function `{name}` itself, without calling it"
    )


def is_initialised_small(values: torch.Tensor, name: str) -> None:
    """Checks that a parameter is initialised with a standard deviation of 0.02.

    Args:
        values: so many that their standard deviation varies little by chance.
        name: of the parameter.

    Raises:
        Hint: it does not.
    """
    std = values.std().item()
    hint(
        0.015 < std < 0.025,
        f"`{name}` is initialised with a standard deviation of {std:.3g}. The task "
        "asks for 0.02.",
    )


def in_place(error: Exception) -> str:
    """Gives the hint for autograd's complaints about an operation in place, or ""."""
    text = str(error)
    return CHANGED if "in-place" in text else IN_PLACE if "inplace" in text else ""


def with_parameters(module: nn.Module, *names: str) -> Callable:
    """Makes a function of inputs and parameters of a module.

    Args:
        module: the learner's; its parameters are replaced in each call.
        names: of the parameters; their values are the last arguments.

    Raises:
        Hint: the module has not these parameters.
    """
    # A layer that is kept under two names is found under both.
    have = dict(module.named_parameters(remove_duplicate=False))
    for name in names:
        listed = ", ".join(have) or "none"
        hint(
            name in have,
            f"the module has no parameter `{name}` (it has: {listed}). Only an "
            "nn.Parameter that is an attribute of the module is trained and saved.",
        )
        hint(
            have[name].requires_grad,
            f"`{name}` has requires_grad=False: an optimiser would never change it.",
        )

    def call(*given):
        values = dict(zip(names, given[-len(names) :], strict=True))
        return functional_call(module, values, given[: -len(names)])

    return call


def as_number(value):
    """A number, also from a tensor or an array that holds one and no more."""
    one = getattr(value, "ndim", None) == 0 or getattr(value, "shape", None) == (1,)
    return value.item() if one else value


def parts_of(value) -> list:
    """The values in a nested value, in order."""
    if isinstance(value, dict):
        value = list(value.values())
    if not isinstance(value, list | tuple):
        return [value]
    return [part for v in value for part in parts_of(v)]


def kind_of(value) -> str:
    """What a value is, for a hint: its type, or the shape of a tensor."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, tuple | list):
        kinds = [kind_of(v) for v in value[:3]] + ["…"] * (len(value) > 3)
        return f"{len(value)} values ({', '.join(kinds)})"
    return f"{type(value).__name__}"


def shown(given: tuple) -> str:
    """An input, for a hint; what takes more than a few words is left out."""
    words = []
    for x in given:
        if isinstance(x, torch.Tensor) and x.numel() < 9 and not x.is_floating_point():
            words.append(f"{x.tolist()}")
        elif isinstance(x, torch.Tensor):
            words.append(f"an input of shape {tuple(x.shape)}")
        elif isinstance(x, str | Real | tuple):
            words.append(repr(x))
    return " and ".join(words) or "this input"


def _gradients(out, leaves: list[torch.Tensor]) -> list:
    """Gradients of a fixed weighted sum of all outputs."""
    generator = torch.Generator().manual_seed(1)
    loss = torch.zeros(())
    for value in parts_of(out):
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            weights = torch.randn(value.shape, generator=generator, dtype=value.dtype)
            loss = loss + (value * weights).sum()
    if not loss.requires_grad:
        return [None] * len(leaves)
    return list(torch.autograd.grad(loss, leaves, allow_unused=True))


def compare_gradients(ours, theirs, mine, right, tolerance: float) -> None:
    """Compares the gradients of an answer and of the reference.

    Args:
        ours: what the answer gave.
        theirs: what the reference gave.
        mine: the answer's inputs; tensors in them are leaves.
        right: those of the reference.
        tolerance: of the values.

    Raises:
        Hint: they differ, or there is none.
    """
    leaves, expected = _leaves_of(mine), _gradients(theirs, _leaves_of(right))
    with learners_code(in_place):  # some are noticed in the backward pass only
        found = _gradients(ours, leaves)
    for a, b in zip(found, expected, strict=True):
        if b is None:
            continue
        hint(a is not None or not b.any(), CUT)
        if a is not None:
            text = "the values are right, the gradient is not: is a part of it cut off?"
            hint(_allclose(a, b, atol=10 * tolerance, rtol=1e-3), text)


def _leaves_of(given) -> list[torch.Tensor]:
    values = parts_of(given)
    return [x for x in values if isinstance(x, torch.Tensor) and x.requires_grad]
