"""Whether an observation can be true: the real window, the counts, the doubts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.check import Checks, Grade
from conformance.checks.basics import an_ended_fault_has_a_status, an_ended_fault_has_metrics
from conformance.checks.stops import a_stopped_fault_is_over
from conformance.errors import SkippedError
from conformance.reading import fields_of, held, read_as, shown
from conformance.stories import SHORTEST_S, a_fault_that_ends, a_fault_that_is_stopped, window_of
from conformance.subject import SOON_S
from workers.drivers.fault_answers import MetricsAnswer

if TYPE_CHECKING:
    from conformance.subject import Subject

__all__ = [
    "TRUTH",
    "a_status_and_metrics_have_a_doubt",
    "a_window_is_as_long_as_its_fault",
    "metrics_count_requests",
]

TOLERANCE_S = 0.2
"""By how much a window may exceed what a client measures from before the apply until after the stop."""

FIGURES = ("status_code", "latency_ms", "error_rate")

TRUTH = Checks()
required, recommended = Grade.REQUIRED, Grade.RECOMMENDED


@TRUTH.add(
    recommended,
    "start_time and end_time",
    "Nothing must be set. Without them each observation has the doubt window_unknown",
    an_ended_fault_has_a_status,
)
def a_status_says_when_its_fault_began_and_ended(subject: Subject) -> str:
    ended = subject.once(a_fault_that_ends)
    return held(ended.window is not None, shown(ended.status))


@TRUTH.add(
    required,
    f"from {SHORTEST_S} s to {SHORTEST_S + SOON_S:g} s between start_time and end_time",
    "Take start_time when the data plane has the fault, and end_time when the data plane is without it",
    a_status_says_when_its_fault_began_and_ended,
)
def a_window_is_as_long_as_its_fault(subject: Subject) -> str:
    ended = subject.once(a_fault_that_ends)
    began, over = ended.window or (subject.clock.now(),) * 2
    lasted_s = (over - began).total_seconds()
    return held(SHORTEST_S - TOLERANCE_S <= lasted_s <= SHORTEST_S + SOON_S, f"{lasted_s:.2f} s")


@TRUTH.add(
    required,
    "an end_time at the stop, not at the planned end",
    "Take end_time when the data plane is without the fault",
    a_window_is_as_long_as_its_fault,
    a_stopped_fault_is_over,
)
def a_stopped_fault_has_the_window_until_its_stop(subject: Subject) -> str:
    stopped = subject.once(a_fault_that_is_stopped)
    window = window_of(subject.about(stopped.apply_id, "status"))
    lasted_s = (window[1] - window[0]).total_seconds() if window else 0.0
    good = SHORTEST_S - TOLERANCE_S <= lasted_s <= stopped.lasted_s + TOLERANCE_S
    return held(good, f"{lasted_s:.2f} s, of {stopped.lasted_s:.2f} s from the apply to the stop's answer")


@TRUTH.add(
    required,
    "the same start_time and end_time as its status, if any",
    "Take both from one record of the fault",
    a_window_is_as_long_as_its_fault,
    an_ended_fault_has_metrics,
)
def metrics_have_the_window_of_the_status(subject: Subject) -> str:
    ended = subject.once(a_fault_that_ends)
    window = window_of(ended.metrics)
    if window is None:
        raise SkippedError("its metrics have no start_time and end_time")
    return held(window == ended.window, f"{shown(ended.metrics)}, status {shown(ended.status)}")


@TRUTH.add(
    recommended,
    "requests, faulted and unanswered",
    "Nothing must be set. Without them each observation has the doubt count_unknown",
    an_ended_fault_has_metrics,
)
def metrics_count_requests(subject: Subject) -> str:
    answer = subject.once(a_fault_that_ends).metrics
    metrics = read_as(MetricsAnswer, answer)
    return held(None not in {metrics.requests, metrics.faulted, metrics.unanswered}, shown(answer))


@TRUTH.add(
    recommended,
    f"null for {', '.join(FIGURES)} if no request arrived",
    "Leave out what no request backs: 0 is a measurement",
    metrics_count_requests,
)
def figures_without_requests_are_null(subject: Subject) -> str:
    answer = subject.once(a_fault_that_ends).metrics
    fields = fields_of(answer)
    if fields["requests"] != 0:
        raise SkippedError(f"{fields['requests']} requests arrived at the check's own path")
    return held(all(fields[name] is None for name in FIGURES), shown(answer))


@TRUTH.add(
    recommended,
    "doubt, a text, in status and metrics (contract 1.2)",
    "Nothing must be set. Without it, no observation says that a restart has cut its window",
    an_ended_fault_has_a_status,
    an_ended_fault_has_metrics,
)
def a_status_and_metrics_have_a_doubt(subject: Subject) -> str:
    ended = subject.once(a_fault_that_ends)
    doubts = [fields_of(answer).get("doubt") for answer in (ended.status, ended.metrics)]
    return held(all(isinstance(each, str) for each in doubts), " and ".join(map(repr, doubts)))


@TRUTH.add(
    required,
    "an empty doubt in status and metrics",
    "Doubt only a window that is not known exactly: observations in doubt may be discarded",
    a_status_and_metrics_have_a_doubt,
)
def a_fault_without_incident_has_no_doubt(subject: Subject) -> str:
    ended = subject.once(a_fault_that_ends)
    doubts = [fields_of(answer)["doubt"] for answer in (ended.status, ended.metrics)]
    return held(doubts == ["", ""], " and ".join(map(repr, doubts)))
