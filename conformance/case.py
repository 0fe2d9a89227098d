"""What a case is, and what cases say of answers."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from conformance.subject import LOOK_EVERY_S, Subject, ViolationError, shown
from dispatcher.settings.validation import in_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from pydantic import BaseModel

    from workers.drivers.answers import Answer

__all__ = ["SOON_S", "Case", "all_with_status", "case_of", "held", "metrics_of", "read_as", "with_status"]

SOON_S = 5.0
"""How late a fault's end may be, in seconds."""

NOT_READY = {202, 204, 404, 409, 425}
"""Answers to a request of metrics that are not there yet."""

T = TypeVar("T", bound="BaseModel")


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that the contract says."""

    name: str
    expected: str
    check: Callable[[Subject], str]


def case_of(
    cases: list[Case], expected: str
) -> Callable[[Callable[[Subject], str]], Callable[[Subject], str]]:
    """Adds a function to these cases. Its name is the case's."""

    def add(check: Callable[[Subject], str]) -> Callable[[Subject], str]:
        cases.append(Case(check.__name__.replace("_", " "), expected, check))
        return check

    return add


def held(good: object, got: str) -> str:
    """What came, if it is good. Raises `ViolationError`."""
    if not good:
        raise ViolationError(got)
    return got


def with_status(answer: Answer, *statuses: int) -> str:
    """What came, if it has one of these statuses. Raises `ViolationError`."""
    return held(answer.status in statuses, shown(answer))


def all_with_status(answers: list[Answer], status: int) -> str:
    """What came, if each has this status. Raises `ViolationError`."""
    return held(all(each.status == status for each in answers), ", ".join(map(shown, answers)))


def read_as(kind: type[T], fields: dict[str, Any], answer: Answer) -> T:
    """The fields as what the driver reads. Raises `ViolationError`."""
    try:
        return kind.model_validate(fields, strict=True)
    except ValidationError as exc:
        raise ViolationError(f"{shown(answer)} ({in_words(exc)})") from exc


def metrics_of(subject: Subject) -> tuple[str, Answer]:
    """A fault that is over, and the answer to a request of its metrics, once they are ready."""
    apply_id = subject.applied(subject.body(duration_seconds=1))
    subject.until_over(apply_id, 1 + SOON_S)
    answer = subject.about(apply_id, "metrics")
    until_s = time.monotonic() + SOON_S
    while answer.status in NOT_READY and time.monotonic() < until_s:
        time.sleep(LOOK_EVERY_S)
        answer = subject.about(apply_id, "metrics")
    return apply_id, answer
