"""Tasks as data: what is right, on which inputs, and which mistakes are known.

An answer is called on several inputs, beside a reference. Where they differ, it is
looked whether a known mistake gives the learner's results for *all* inputs: then the
hint says which idea is missing. Otherwise it says what differs. How to write a task of
your own: `notebooks/solutions/WRITE_A_TASK.md`.
"""

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

import torch
from torch import Tensor, allclose

from vit_course.checks.hints import (
    CHANGED,
    CHANGED_LIST,
    CHANGED_PARAMETER,
    FOOLED,
    NO_RETURN,
    SHOWN_ONLY,
    Hint,
    as_number,
    compare_gradients,
    hint,
    in_place,
    is_a_class,
    is_a_function,
    kind_of,
    learners_code,
    nothing_is_replaced,
    parts_of,
    passed,
    shown,
    with_parameters,
)

LINEAR = " nn.Linear(inputs, outputs) stores (outputs, inputs)."
# Kept at import, so that nothing that a notebook does later changes a comparison.
_equal, _as_tensor = torch.equal, torch.as_tensor


def _map(function: Callable, value) -> Any:
    """Applies a function to all tensors in a value, which may be nested."""
    if isinstance(value, Tensor):
        return function(value)
    if isinstance(value, list | tuple):
        return type(value)([_map(function, v) for v in value])
    if isinstance(value, dict):
        return {k: _map(function, v) for k, v in value.items()}
    return copy.deepcopy(value)


def _leaf(x: Tensor) -> Tensor:
    return x.detach().clone().requires_grad_(x.is_floating_point())


def _unchanged(before, after) -> bool:
    if isinstance(before, Tensor):
        return _equal(before, after.detach())
    if isinstance(before, dict):
        before, after = list(before.items()), list(after.items())
    if isinstance(before, list | tuple):
        pairs = zip(before, after, strict=False)
        return len(before) == len(after) and all(_unchanged(a, b) for a, b in pairs)
    return not isinstance(before, str | Real) or before == after


def _wrong_kind(ours, theirs, says: str) -> str:
    """Says which type, length, shape, dtype or device is wrong, or "".

    Args:
        ours: of the learner.
        theirs: of the reference.
        says: the words before what ours is, such as "it gives".
    """
    if ours is None:
        return "" if theirs is None else NO_RETURN
    wrong = f"{says} {kind_of(ours)}, expected {kind_of(theirs)}"
    if isinstance(theirs, dict):
        if not isinstance(ours, dict) or set(ours) != set(theirs):
            *keys, last = map(repr, theirs)
            return f"give back a dict with the keys {', '.join(keys)} and {last}"
        texts = (
            _wrong_kind(ours[k], v, f"{says.removesuffix('it gives')}`{k}` is")
            for k, v in theirs.items()
        )
        return next(filter(None, texts), "")
    if isinstance(theirs, tuple | list):
        if getattr(ours, "ndim", 0) == 1 and not any(
            isinstance(value, Tensor) for value in theirs
        ):
            ours = ours.tolist()
        if not isinstance(ours, tuple | list) or len(ours) != len(theirs):
            return wrong
        pairs = zip(ours, theirs, strict=True)
        return next(filter(None, (_wrong_kind(a, b, says) for a, b in pairs)), "")
    if isinstance(theirs, Tensor):
        if not isinstance(ours, Tensor):
            return wrong
        if ours.shape != theirs.shape:
            return f"{says} {kind_of(ours)}, expected {tuple(theirs.shape)}"
        if _family(ours.dtype) != _family(theirs.dtype):
            return f"{says} values of dtype {ours.dtype}, expected {theirs.dtype}"
        if ours.device != theirs.device:
            return f"{says} a tensor on {ours.device}, expected {theirs.device}"
    elif _is_number(theirs) and not _is_number(as_number(ours)):
        called = " Is it called, with `()`?" if callable(ours) else ""
        return f"{says} {kind_of(ours)}, expected a number.{called}"
    elif isinstance(theirs, bool | str):
        return "" if isinstance(as_number(ours), type(theirs)) else wrong
    return ""


def _family(dtype: torch.dtype) -> str:
    integer = "bool" if dtype == torch.bool else "integer"
    return "float" if dtype.is_floating_point else integer


def _is_number(value) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _by_order(ours, theirs):
    """The values of a dict in the order of the reference, arrays as lists."""
    if isinstance(theirs, dict):
        return {k: _by_order(ours[k], v) for k, v in theirs.items()}
    if isinstance(theirs, list | tuple):
        ours = ours if isinstance(ours, list | tuple) else ours.tolist()
        return [_by_order(a, b) for a, b in zip(ours, theirs, strict=True)]
    return ours


def _wrong_value(ours, theirs, tolerance: float) -> str:
    """Says where two values of the same kind differ most, or ""."""
    if isinstance(theirs, dict):
        texts = {k: _wrong_value(ours[k], v, tolerance) for k, v in theirs.items()}
        return next((f"`{k}` is {text}" for k, text in texts.items() if text), "")
    pairs = zip(parts_of(_by_order(ours, theirs)), parts_of(theirs), strict=True)
    for a, b in pairs:
        if not isinstance(b, Tensor | Real):
            if a != b:
                return f"{a!r} where {b!r} is expected"
            continue
        a, b = _as_tensor(as_number(a) if isinstance(b, Real) else a), _as_tensor(b)
        a, b = a.detach().double(), b.detach().double()
        if not allclose(a, b, atol=tolerance, rtol=tolerance, equal_nan=True):
            gap = (a - b).abs().nan_to_num(torch.inf)
            at = tuple(int(i) for i in torch.unravel_index(gap.argmax(), gap.shape))
            place = f" at {list(at)}" if at else ""
            mine, right = (_digits(x[at].item()) for x in (a, b))
            return f"{mine}{place} where {right} is expected"
    return ""


def _digits(number: float) -> str:
    """A number of four digits, or all of them if it is whole."""
    whole = number % 1 == 0 and abs(number) < 1e12
    return f"{number:.0f}" if whole else f"{number:.4g}"


def equal(ours, theirs, tolerance: float = 1e-5) -> bool:
    """Whether two values, nested or not, have the same kinds, shapes and entries."""
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        return type(ours) is type(theirs) and str(ours) == str(theirs)
    if _wrong_kind(ours, theirs, "it gives"):
        return False
    return not _wrong_value(ours, theirs, tolerance)


def _run(function: Callable, given: tuple):
    torch.manual_seed(0)
    return function(*given)


def _outcome(function: Callable, given: tuple):
    """What a function gives back, or the exception that it raises."""
    try:
        return _run(function, given)
    except Hint:
        raise
    except Exception as error:
        return error


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is right on some inputs, and which mistakes are known.

    Args:
        right: the reference, a function of one input.
        inputs: tuples of arguments; the first is the one that the task shows. Or a
            function that makes them.
        mistakes: function with a mistake, or several of them in a tuple -> hint. The
            hint is given when the answer has the results of this function for all
            inputs.
        call: how an answer is called: `call(answer, *input)`. The answer is a function
            of one input by itself if it is not given.
        sizes: for a class: the arguments of `__init__` as a tuple, from an input.
        parameters: for a class: names of the parameters whose values are the last
            entries of an input. They must have these shapes.
        made: for a class: looks at an object that was made, before it is called:
            `made(module, *input)`.
        explain: gives the hint for an exception that an answer raises, or "".
        changed: hint for an answer that changes a tensor that it was given.
        tolerance: largest difference allowed, absolute or relative.
        gradient: whether the gradients of all inputs of floats must agree, too.
        advice: what to look at when the values are wrong in another way.
    """

    right: Callable
    inputs: Sequence[tuple] | Callable[[], Sequence[tuple]]
    mistakes: dict[Any, str] = field(default_factory=dict)
    call: Callable = lambda answer, *given: answer(*given)
    sizes: Callable | None = None
    parameters: tuple[str, ...] = ()
    made: Callable | None = None
    explain: Callable[[Exception], str] | None = None
    changed: str = CHANGED
    tolerance: float = 1e-5
    gradient: bool = True
    advice: str = ""

    def known_mistakes(self) -> list[tuple[Callable, str]]:
        """Each function with a mistake, and its hint."""
        return [
            (wrong, text)
            for key, text in self.mistakes.items()
            for wrong in (key if isinstance(key, tuple) else (key,))
        ]

    def check(self, answer: Callable, name: str) -> None:
        """Checks an answer.

        Args:
            answer: a function or, if the case has `sizes`, a class.
            name: of the answer.

        Raises:
            Hint: the answer is wrong, or raises.
        """
        made = {}

        def function(*given):
            if not self.sizes:
                return self.call(answer, *given)
            sizes = self.sizes(*given)
            if sizes not in made:
                made[sizes] = self._make(answer, name, sizes, given)
            return self.call(made[sizes], *given)

        self.judge(function)
        # Nobody passes a check that takes a known mistake for right.
        for wrong, _ in self.known_mistakes()[:1]:
            try:
                self.judge(wrong)
            except Hint:
                continue
            raise Hint(FOOLED)

    def _make(self, answer: Callable, name: str, sizes: tuple, given: tuple):
        """Makes an object of the learner's class, and looks at its parameters."""
        module = answer(*sizes)
        if not self.parameters:
            if self.made:
                self.made(module, *given)
            return module
        call = with_parameters(module, *self.parameters)
        if self.made:
            self.made(module, *given)
        have = dict(module.named_parameters(remove_duplicate=False))
        values = given[-len(self.parameters) :]
        for parameter, value in zip(self.parameters, values, strict=True):
            shape, expected = tuple(have[parameter].shape), tuple(value.shape)
            hint(
                shape == expected,
                f"{name}({', '.join(map(str, sizes))}): `{parameter}` has shape "
                f"{shape}, expected {expected}."
                + (LINEAR if "." in parameter and len(expected) == 2 else ""),
            )
        return call

    def judge(self, function: Callable) -> None:
        """Compares a function of one input with the reference.

        Raises:
            Hint: it is wrong, or raises.
        """
        inputs = self.inputs() if callable(self.inputs) else self.inputs
        leaf = _leaf if self.gradient else torch.clone
        mine = [_map(leaf, given) for given in inputs]
        handed = [_map(torch.clone, given) for given in mine]
        # All of them before the reference is computed, so that nothing can be copied.
        outcomes = [_outcome(function, given) for given in handed]
        nothing_is_replaced()
        for before, after, ours in zip(inputs, handed, outcomes, strict=True):
            names = ("",) * (len(before) - len(self.parameters)) + self.parameters
            for a, b, name in zip(before, after, names, strict=True):
                text = self.changed if isinstance(a, Tensor) else CHANGED_LIST
                text = CHANGED_PARAMETER.format(name) if name else text
                hint(isinstance(ours, Exception) or _unchanged(a, b), text)
        theirs = [_map(leaf, given) for given in inputs]
        right = [_run(self.right, _map(torch.clone, given)) for given in theirs]
        good = [
            equal(a, b, self.tolerance) for a, b in zip(outcomes, right, strict=True)
        ]
        if not all(good):
            at = good.index(False)
            self._explain_known(outcomes, inputs, at)
            self._explain_other(outcomes[at], right[at], inputs[at], at)
        if self.gradient:
            for ours, value, a, b in zip(outcomes, right, mine, theirs, strict=True):
                compare_gradients(ours, value, a, b, self.tolerance)

    def _explain_known(self, outcomes: list, inputs: Sequence, at: int) -> None:
        """Gives the hint for the mistake that has these outcomes for all inputs.

        Args:
            outcomes: of the answer.
            inputs: of the case.
            at: where the answer went wrong first. There, an exception must have the
                words of the mistake's; elsewhere, its class is enough.
        """
        for wrong, text in self.known_mistakes():
            for i in (at, *range(len(inputs))):
                ours = outcomes[i]
                theirs = _outcome(wrong, _map(torch.clone, inputs[i]))
                both = isinstance(ours, Exception) and type(ours) is type(theirs)
                if not (i != at and both) and not equal(ours, theirs, self.tolerance):
                    break
            else:
                raise Hint(text)

    def _explain_other(self, ours, right, given: tuple, was_right: int) -> None:
        """Says what differs for the first input that went wrong."""

        def known(error):
            return (self.explain(error) if self.explain else "") or in_place(error)

        shows = shown(given[: len(given) - len(self.parameters)])
        only = SHOWN_ONLY.format(shows)
        if isinstance(ours, Exception):
            with learners_code(known, f"{only} There " if was_right else ""):
                raise ours
        text = _wrong_kind(ours, right, f"for {shows} it gives")
        hint(not text, text)
        more = f" {self.advice}" if self.advice else ""
        hint(not was_right, only + more)
        where = _wrong_value(ours, right, self.tolerance)
        says = "the shape is right, the values are not"
        if not any(isinstance(part, Tensor) for part in parts_of(right)):
            says = "the values are not right"
        raise Hint(f"{says}: {where}.{more}")


class Task:
    """A task of an exercise: `task(answer)` prints a line, or raises a `Hint`.

    Args:
        name: what the learner must define: a function, or a class if the cases have
            `sizes`.
        success: the sentence on success.
        cases: comparisons with a reference.
        also: functions of the answer that check what no comparison shows; they raise
            `Hint`.
    """

    def __init__(
        self, name: str, success: str, *cases: Case, also: Sequence[Callable] = ()
    ) -> None:
        self.name, self.success, self.cases, self.also = name, success, cases, also

    def __call__(self, answer) -> None:
        """Checks an answer.

        Raises:
            Hint: it is not right yet.
        """
        if any(case.sizes for case in self.cases):
            is_a_class(answer, self.name)
        else:
            is_a_function(answer, self.name)
        for case in self.cases:
            case.check(answer, self.name)
        for check in self.also:
            with learners_code():
                check(answer)
        passed(self.success)
