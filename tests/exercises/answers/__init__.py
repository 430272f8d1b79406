"""Answers that learners may give: wrong ones with the hint that each must get, and
right ones in other styles than the solutions.
"""

from collections.abc import Callable
from dataclasses import dataclass

ANSWERS = []


@dataclass(frozen=True)
class Answer:
    """An answer to one task.

    Args:
        check: name of the check in `vit_course.checks`.
        value: what the learner hands over.
        hint: words of the hint that it must get; "" for a right answer.
        name: of the answer, for the report.
    """

    check: str
    value: object
    hint: str
    name: str


def wrong(check: str, hint: str) -> Callable:
    """Marks a class or function as an answer that the check must reject."""

    def note(value):
        ANSWERS.append(Answer(check, value, hint, value.__name__))
        return value

    return note


def right(check: str) -> Callable:
    """Marks a class or function as an answer that the check must accept."""
    return wrong(check, "")
