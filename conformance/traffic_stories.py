"""What happens to faults that hit the traffic of `--probe`. Checks of several promises share each story."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from conformance.stories import settled_metrics
from conformance.subject import SOON_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from conformance.outside import Response
    from conformance.subject import Subject
    from workers.drivers.answers import Answer

__all__ = [
    "ABORT_STATUS",
    "IN_FORCE_WITHIN_S",
    "LATEST_S",
    "MANY",
    "PROBE_EVERY_S",
    "SENT",
    "Hit",
    "during_a_fault",
    "fault_on_the_traffic",
    "half_of_the_traffic_is_hit",
    "in_force",
    "time_until_in_force",
]

ABORT_STATUS = 503
LASTS_S = 3
"""How long a fault is observed, in seconds. It lasts longer if it takes effect late."""

SENT = 20
"""Requests that are sent to a fault of 100 %."""

MANY, SENDING_S = 100, 1.8
"""Requests that a fault of 50 % may hit, and how long they are sent at most. A slow service gets fewer."""

PROBE_EVERY_S = 0.05
IN_FORCE_WITHIN_S = 0.5
LATEST_S = 60.0


@dataclass(frozen=True, slots=True)
class Hit:
    """A fault of 50 % on the traffic: what clients met, and what the Executor says of it."""

    responses: list[Response]
    span_s: float
    """From the first response with the fault to the last one."""

    lasted_s: float
    """From before the apply until it was over."""

    after: list[Response]
    """Responses once its status was completed."""

    status: Answer
    metrics: Answer


def half_of_the_traffic_is_hit(subject: Subject) -> Hit:
    """Up to `MANY` requests, spread over the fault's time."""
    traffic, clock = subject.needed_traffic(), subject.clock
    begun_s = clock.steady_s()
    apply_id = in_force(subject, percentage=50)
    in_force_s = clock.steady_s()

    def timed(_: int) -> tuple[float, Response]:
        return clock.steady_s(), traffic.send()

    sent: list[tuple[float, Response]] = []
    while len(sent) < MANY and clock.steady_s() < in_force_s + SENDING_S:
        sent += subject.at_once(timed, SENT // 4)
        clock.sleep(SENDING_S * SENT / 4 / MANY)
    hit = [at_s for at_s, response in sent if response.status == ABORT_STATUS]
    subject.until_over(apply_id, subject.faults[apply_id] - clock.steady_s() + SOON_S)
    over_s = clock.steady_s()
    after = [traffic.send() for _ in range(SENT)]
    status, metrics = subject.about(apply_id, "status"), settled_metrics(subject, apply_id)
    responses = [response for _, response in sent]
    span_s = hit[-1] - hit[0] if hit else 0.0
    return Hit(responses, span_s, over_s - begun_s, after, status, metrics)


def time_until_in_force(subject: Subject) -> float:
    """From the answer to an apply until the first response with its fault, in seconds."""
    traffic, clock = subject.needed_traffic(), subject.clock
    apply_id = subject.applied(fault_on_the_traffic(subject, duration_seconds=int(LATEST_S)))
    applied_s = clock.steady_s()
    sent_s = applied_s
    while traffic.send().status != ABORT_STATUS and sent_s <= applied_s + LATEST_S:
        clock.sleep(PROBE_EVERY_S)
        sent_s = clock.steady_s()
    late_s = sent_s - applied_s
    _end(subject, apply_id)
    return late_s


def fault_on_the_traffic(subject: Subject, **changes: Any) -> dict[str, Any]:
    """An abort of 100 % on the traffic, except for the changes."""
    traffic = subject.needed_traffic()
    fault = {"service": traffic.service, "api": traffic.path, "percentage": 100}
    return subject.body(**fault | changes)


def in_force(subject: Subject, **changes: Any) -> str:
    """The id of a fault on the traffic, once it is in force for `LASTS_S` more."""
    late_s = subject.once(time_until_in_force)
    late_s = 0.0 if late_s <= IN_FORCE_WITHIN_S else late_s
    fault = {"duration_seconds": LASTS_S + math.ceil(late_s)} | changes
    apply_id = subject.applied_once_free(fault_on_the_traffic(subject, **fault))
    subject.clock.sleep(late_s)
    return apply_id


def during_a_fault(
    subject: Subject, suffix: str = "", sent_with: Mapping[str, str] | None = None, **changes: Any
) -> tuple[str, list[Response]]:
    """The id of such a fault, and `SENT` responses while it is in force. It is over when this returns."""
    traffic = subject.needed_traffic()
    apply_id = in_force(subject, **changes)
    try:
        return apply_id, subject.at_once(lambda _: traffic.send(suffix, sent_with), SENT)
    finally:
        _end(subject, apply_id)


def _end(subject: Subject, apply_id: str) -> None:
    subject.stop_quietly([apply_id])
    ends_s = subject.faults[apply_id] - subject.clock.steady_s()
    subject.until_over(apply_id, ends_s + SOON_S)
