"""What happens to a fault from its apply on. Checks of several promises share each story."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conformance.errors import FailedError
from conformance.reading import held, read_as
from conformance.subject import LOOK_EVERY_S, SOON_S, Subject
from workers.drivers.fault_answers import MetricsAnswer, StatusAnswer

if TYPE_CHECKING:
    from datetime import datetime

    from workers.drivers.answers import Answer

__all__ = [
    "SHORTEST_S",
    "Ended",
    "Stopped",
    "a_fault_that_ends",
    "a_fault_that_is_stopped",
    "settled_metrics",
]

SHORTEST_S = 1
NOT_READY = {202, 204, 404, 409, 425}
"""Answers to a request of metrics that are not there yet."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A fault that has ended by itself."""

    apply_id: str
    body: dict[str, Any]
    headers: dict[str, str]
    took_s: float
    status: Answer
    metrics: Answer

    @property
    def window(self) -> tuple[datetime, datetime] | None:
        """Start and end by its status. None if the Executor does not say. Raises `FailedError`."""
        return window_of(self.status)


@dataclass(frozen=True, slots=True)
class Stopped:
    """A fault that was stopped long before its own end."""

    apply_id: str
    bystander: str
    """Another fault, which was active at that moment."""

    bystander_status: Answer
    answer: Answer
    """To the stop."""

    lasted_s: float
    """From before the apply until after the stop."""


def a_fault_that_ends(subject: Subject) -> Ended:
    """Raises `FailedError` if it does not end in time."""
    body, headers = subject.body(duration_seconds=SHORTEST_S), {"Idempotency-Key": subject.key()}
    begun_s = subject.clock.steady_s()
    apply_id = subject.applied(body, headers)
    if not subject.until_over(apply_id, SHORTEST_S + SOON_S):
        raise FailedError(f"still running after {SHORTEST_S + SOON_S:g} s")
    took_s = subject.clock.steady_s() - begun_s
    status = subject.about(apply_id, "status")
    return Ended(apply_id, body, headers, took_s, status, settled_metrics(subject, apply_id))


def the_same_fault_again(subject: Subject) -> str:
    """Its id, if the apply of a fault that has ended is sent again. Raises `FailedError` if it is another."""
    ended = subject.once(a_fault_that_ends)
    again = subject.applied(ended.body, ended.headers)
    return held(again == ended.apply_id, f"{again} instead of {ended.apply_id}")


def a_fault_that_is_stopped(subject: Subject) -> Stopped:
    """A second after its apply, because windows of a few milliseconds show nothing."""
    bystander = subject.applied()
    begun_s = subject.clock.steady_s()
    apply_id = subject.applied(subject.body(duration_seconds=60))
    subject.clock.sleep(SHORTEST_S)
    answer = subject.stop(apply_id)
    lasted_s = subject.clock.steady_s() - begun_s
    return Stopped(apply_id, bystander, subject.about(bystander, "status"), answer, lasted_s)


def settled_metrics(subject: Subject, apply_id: str) -> Answer:
    """The answer to a request of metrics, once they are ready, or some seconds later."""
    gives_up_at = subject.clock.steady_s() + SOON_S
    answer = subject.about(apply_id, "metrics")
    while answer.status in NOT_READY and subject.clock.steady_s() < gives_up_at:
        subject.clock.sleep(LOOK_EVERY_S)
        answer = subject.about(apply_id, "metrics")
    return answer


def window_of(answer: Answer) -> tuple[datetime, datetime] | None:
    """Start and end in an answer about status or metrics. Raises `FailedError` if they are not times."""
    kind = MetricsAnswer if answer.call.endswith("/metrics") else StatusAnswer
    fields = read_as(kind, answer)
    return None if fields.began is None or fields.ended is None else (fields.began, fields.ended)
