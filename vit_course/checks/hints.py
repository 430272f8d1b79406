"""What a learner reads when an answer is not right yet, and how answers are compared.

A check calls the answer on several inputs, beside a solution of its own. Where they
differ, it looks whether a known mistake gives the learner's values: then it says which
idea is missing. Otherwise it says what differs.
"""

import builtins
import inspect
import linecache
import math
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from numbers import Real
from types import MethodType

import torch
from torch import nn
from torch.func import functional_call

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
    for name, compares in (
        ("equal", equal),
        ("torch.equal", torch.equal),
        ("torch.allclose", torch.allclose),
    ):
        works = compares(right, right.clone()) and not compares(right, wrong)
        hint(works, REPLACED.format(name))
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


def with_parameters(module: nn.Module, *names: str, inputs: int = 1) -> Callable:
    """Makes a function of inputs and parameters of a module.

    Args:
        module: the learner's; its parameters are replaced in each call.
        names: of the parameters; their values are the last arguments.
        inputs: how many arguments come before them, for `compare`.

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

    call.inputs = inputs
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


# From here on: what lessons use whose tasks are not written as data yet (`task.py`).


def _leaves(inputs: tuple) -> tuple:
    """Copies tensors; floats ask for a gradient, so that a missing one is noticed."""
    found = []
    for x in inputs:
        if isinstance(x, torch.Tensor):
            x = x.detach().clone()
            x.requires_grad_(x.is_floating_point())
        found.append(x)
    return tuple(found)


def _copies(inputs: tuple) -> tuple:
    """Copies that may be changed in place, which autograd forbids for leaves."""
    return tuple(x.clone() if isinstance(x, torch.Tensor) else x for x in inputs)


def _call(function: Callable, inputs: tuple):
    torch.manual_seed(0)
    return function(*inputs)


def _known(given: tuple, mistakes: dict[str, Callable], error: Exception) -> str:
    """Finds the mistake that raises the same exception."""
    for text, wrong in mistakes.items():
        try:
            with torch.no_grad():
                _call(wrong, _copies(given))
        except Exception as other:
            if type(other) is type(error) and str(other) == str(error):
                return text
    return ""


def _as_tensors(values) -> list[torch.Tensor]:
    values = values if isinstance(values, tuple | list) else [values]
    return [torch.as_tensor(v) for v in values]


def equal(ours, theirs, tolerance: float = 1e-5) -> bool:
    """Whether two tensors, or lists of them, have the same shapes and values."""
    ours, theirs = _as_tensors(ours), _as_tensors(theirs)
    if len(ours) != len(theirs):
        return False
    return all(
        a.shape == b.shape
        and _allclose(
            a.double(), b.double(), atol=tolerance, rtol=tolerance, equal_nan=True
        )
        for a, b in zip(ours, theirs, strict=True)
    )


def _check_kind(ours, theirs, says: str) -> None:
    """Checks that an answer is of the right kind, shape and dtype."""
    if ours is None and theirs is not None:
        raise Hint(NO_RETURN)
    wrong_kind = f"{says} {kind_of(ours)}, expected {kind_of(theirs)}"
    if isinstance(theirs, tuple | list):
        if not isinstance(ours, tuple | list) or len(ours) != len(theirs):
            raise Hint(wrong_kind)
        for a, b in zip(ours, theirs, strict=True):
            _check_kind(a, b, says)
        return
    if not isinstance(theirs, torch.Tensor):
        number = isinstance(ours, Real) and not isinstance(ours, bool)  # also numpy's
        if isinstance(theirs, int | float) and not isinstance(theirs, bool):
            hint(number, f"{says} {kind_of(ours)}, expected a number")
        return
    if not isinstance(ours, torch.Tensor):
        raise Hint(wrong_kind)
    hint(
        ours.shape == theirs.shape,
        f"{says} {kind_of(ours)}, expected {tuple(theirs.shape)}",
    )
    hint(
        ours.is_floating_point() == theirs.is_floating_point(),
        f"it gives values of dtype {ours.dtype}, expected {theirs.dtype}",
    )


def _difference(ours, theirs) -> str:
    """Says where two answers of the same shapes differ most."""
    for a, b in zip(_as_tensors(ours), _as_tensors(theirs), strict=True):
        if not equal(a, b):
            gap = (a.double() - b.double()).abs().nan_to_num(torch.inf)
            at = tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
            place = f" at {list(at)}" if at else ""
            mine, right = a[at].item(), b[at].item()
            return f"{mine:.4g}{place} where {right:.4g} is expected"
    return ""


def compare(
    answer: Callable,
    solution: Callable,
    inputs: list[tuple],
    mistakes: dict[str, Callable] | None = None,
    *,
    tolerance: float = 1e-5,
    gradient: bool = True,
    advice: str = "",
) -> None:
    """Compares an answer with a solution on several inputs, by value and gradient.

    Args:
        answer: the learner's function.
        solution: gives what is right; called in the same way.
        inputs: arguments of each call; the first are those that the task shows.
        mistakes: hint -> a function with that mistake. The hint is given when the
            answer has the values of the mistake and the solution has not.
        tolerance: largest difference allowed, absolute or relative.
        gradient: whether the gradients of all floating-point inputs must agree, too.
        advice: what to look at when the values are wrong in another way.

    Raises:
        Hint: the answer is wrong, or raises.
    """
    was_right = 0
    for given in inputs:
        mine, theirs = _leaves(given), _leaves(given)
        handed = _copies(mine)
        right = _call(solution, _copies(theirs))
        known = partial(_known, given, mistakes or {})
        before = f"{SHOWN_ONLY.format(shown(given))} There " if was_right else ""
        with learners_code(lambda error, f=known: in_place(error) or f(error), before):
            ours = _call(answer, handed)
        # To the author of a module, its parameters are not inputs.
        says = f"for {shown(given[: getattr(answer, 'inputs', len(given))])} it gives"
        for before, after in zip(given, handed, strict=True):
            if isinstance(before, torch.Tensor):
                hint(_equal(before, after.detach()), CHANGED)
        if not equal_kind(ours, right) or not equal(ours, right, tolerance):
            for text, wrong in (mistakes or {}).items():
                try:
                    with torch.no_grad():
                        value = _call(wrong, _copies(given))
                except Exception:
                    continue  # this mistake stops on this input; the answer did not
                differs = not equal(value, right, tolerance)
                hint(not (differs and _same(ours, value, tolerance)), text)
            _check_kind(ours, right, says)
            hint(not was_right, SHOWN_ONLY.format(shown(given)))
            where = _difference(ours, right)
            more = f" {advice}" if advice else ""
            raise Hint(f"the shape is right, the values are not: {where}.{more}")
        was_right += 1
        if gradient:
            compare_gradients(ours, right, mine, theirs, tolerance)


def equal_kind(ours, theirs) -> bool:
    """Whether two answers are of the same kind and shapes."""
    try:
        _check_kind(ours, theirs, "")
    except Hint:
        return False
    return True


def _same(ours, value, tolerance: float) -> bool:
    return equal_kind(ours, value) and equal(ours, value, tolerance)
