"""What every Executor must do: apply faults, end them in time, and say what was seen of them."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from conformance.check import Checks, Grade
from conformance.errors import FailedError, SkippedError
from conformance.reading import fields_of, held, read_as, shown
from conformance.stories import SHORTEST_S, a_fault_that_ends, settled_metrics
from conformance.subject import AT_ONCE, SOON_S
from workers.drivers.contract import SPOKEN, same_major, version_of
from workers.drivers.fault_answers import MetricsAnswer, StatusAnswer, usable_id

if TYPE_CHECKING:
    from conformance.subject import Subject

__all__ = [
    "BASICS",
    "a_delay_is_applied",
    "a_fault_ends_by_itself",
    "a_target_is_free_after_its_fault",
    "an_applied_fault_is_running",
    "an_ended_fault_has_a_status",
    "an_ended_fault_has_metrics",
    "applies_at_once_begin_a_fault_each",
    "each_fault_has_an_id_of_its_own",
]

OK = 200
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MANY, FEW, LASTS_S = 40, 5, 10
"""Faults that are active, applies whose time is measured, and how long these faults last, in seconds."""

SLOWER, SLOWER_S = 3.0, 0.25
"""An apply may take this many times as long, and this much longer, if many faults are active."""

BASICS = Checks()
required = Grade.REQUIRED


@BASICS.add(
    required,
    f"200, and no contract version except {SPOKEN.partition('.')[0]}.x",
    "See its log. If the version differs, bring Executor and fleet to the same major version",
)
def the_executor_is_healthy(subject: Subject) -> str:
    answer = subject.api.call("GET", "/v1/health")
    version = version_of(answer)
    return held(answer.status == OK and (version is None or same_major(version, SPOKEN)), shown(answer))


@BASICS.add(
    required,
    "an apply_id, status applied",
    "Give a --service that it knows. Otherwise correct POST /v1/faults/apply first: all else depends on it",
)
def an_abort_is_applied(subject: Subject) -> str:
    return subject.applied()


@BASICS.add(
    required,
    "different ids that can be one segment of a path, at most 200 characters",
    "Give each fault a new id, such as a UUID",
    an_abort_is_applied,
)
def each_fault_has_an_id_of_its_own(subject: Subject) -> str:
    ids = [subject.applied() for _ in range(2)]
    return held(all(map(usable_id, ids)) and ids[0] != ids[1], " ".join(ids))


@BASICS.add(
    required,
    "its apply_id, status running",
    "Answer GET /v1/faults/{apply_id}/status with running while the fault is in force",
    each_fault_has_an_id_of_its_own,
)
def an_applied_fault_is_running(subject: Subject) -> str:
    apply_id = subject.applied()
    answer = subject.about(apply_id, "status")
    fields = fields_of(answer)
    return held((fields.get("apply_id"), fields.get("status")) == (apply_id, "running"), shown(answer))


@BASICS.add(
    required,
    "an apply_id, status applied",
    "Accept fault_type delay with delay_ms",
    each_fault_has_an_id_of_its_own,
)
def a_delay_is_applied(subject: Subject) -> str:
    return subject.applied(subject.body(fault_type="delay", fault_config={"delay_ms": 100}))


@BASICS.add(
    required,
    "an apply_id, status applied",
    "Accept start_delay_ms in fault_config",
    each_fault_has_an_id_of_its_own,
)
def a_start_delay_is_accepted(subject: Subject) -> str:
    return subject.applied(subject.body(fault_config={"http_status": 503, "start_delay_ms": 50}))


@BASICS.add(
    required,
    "an apply_id for each, status applied",
    "Accept whole percentages, 0 and 100 included",
    each_fault_has_an_id_of_its_own,
)
def percentages_from_0_to_100_are_accepted(subject: Subject) -> str:
    return " ".join(subject.applied(subject.body(percentage=percentage)) for percentage in (0, 1, 100))


@BASICS.add(
    required,
    "an apply_id, status applied",
    "Accept the header traceparent (W3C), or pass it over",
    each_fault_has_an_id_of_its_own,
)
def a_traceparent_is_accepted(subject: Subject) -> str:
    return subject.applied(headers={"traceparent": TRACEPARENT})


@BASICS.add(
    required,
    f"{AT_ONCE} different faults, each running",
    "Let applies to different targets neither wait for each other's end nor share an id",
    an_applied_fault_is_running,
)
def applies_at_once_begin_a_fault_each(subject: Subject) -> str:
    bodies = [subject.body() for _ in range(AT_ONCE)]
    ids = subject.at_once(lambda number: subject.applied(bodies[number]), AT_ONCE)
    running = [each for each in ids if subject.status(each) == "running"]
    return held(len(set(running)) == AT_ONCE, f"{len(set(ids))} ids, {len(set(running))} running")


@BASICS.add(
    required,
    f"status completed after its second, within {SOON_S:g} s",
    "End each fault by its own timer: a fault must not depend on a client's stop",
    an_applied_fault_is_running,
)
def a_fault_ends_by_itself(subject: Subject) -> str:
    ended = subject.once(a_fault_that_ends)
    good = fields_of(ended.status).get("status") == "completed" and ended.took_s >= SHORTEST_S
    return held(good, f"after {ended.took_s:.1f} s {shown(ended.status)}")


@BASICS.add(
    required,
    "its apply_id, status completed, and times with a zone (RFC 3339) or null, in their order",
    "Correct the fields that are named: the driver reads them strictly",
    a_fault_ends_by_itself,
)
def an_ended_fault_has_a_status(subject: Subject) -> str:
    ended = subject.once(a_fault_that_ends)
    status = read_as(StatusAnswer, ended.status)
    return held(status.apply_id == ended.apply_id, shown(ended.status))


@BASICS.add(
    required,
    "apply_id, status_code, latency_ms, error_rate, trace_data, logs",
    "Correct the fields that are named: the driver reads them strictly",
    a_fault_ends_by_itself,
)
def an_ended_fault_has_metrics(subject: Subject) -> str:
    ended = subject.once(a_fault_that_ends)
    metrics = read_as(MetricsAnswer, ended.metrics)
    return held(metrics.apply_id == ended.apply_id, shown(ended.metrics))


@BASICS.add(
    required,
    "the same answers as before, after another fault",
    "Keep the figures of ended faults for an hour: a worker that was killed asks for them later",
    an_ended_fault_has_a_status,
    an_ended_fault_has_metrics,
)
def an_earlier_fault_keeps_its_status_and_metrics(subject: Subject) -> str:
    ended = subject.once(a_fault_that_ends)
    later = subject.applied(subject.body(duration_seconds=SHORTEST_S))
    subject.until_over(later, SHORTEST_S + SOON_S)
    for before, part in ((ended.status, "status"), (ended.metrics, "metrics")):
        now = settled_metrics(subject, ended.apply_id) if part == "metrics" else None
        now = now or subject.about(ended.apply_id, part)
        held(fields_of(now) == fields_of(before), f"{shown(now)} instead of {shown(before)}")
    return shown(ended.status)


@BASICS.add(
    required,
    "an apply_id, status applied",
    "Free a target at the end of its fault",
    a_fault_ends_by_itself,
)
def a_target_is_free_after_its_fault(subject: Subject) -> str:
    return subject.applied(subject.once(a_fault_that_ends).body)


@BASICS.add(
    Grade.RECOMMENDED,
    f"with {MANY} more active faults at most {SLOWER:g} times as long, and {SLOWER_S:g} s",
    "Change the data plane once for many faults. Until then allow few plans at once",
    applies_at_once_begin_a_fault_each,
)
def an_apply_is_as_fast_if_many_faults_are_active(subject: Subject) -> str:
    begun = len(subject.faults)
    before_s = median(_apply_s(subject) for _ in range(FEW))
    bodies = [subject.body(duration_seconds=LASTS_S) for _ in range(MANY)]
    answers = subject.at_once(lambda number: subject.apply(bodies[number]), MANY)
    refused = [answer for answer in answers if not answer.ok]
    if refused:
        raise SkippedError(f"the Executor takes fewer faults at once: {shown(refused[0])}")
    after_s = median(_apply_s(subject) for _ in range(FEW))
    subject.stop_quietly(list(subject.faults)[begun:])
    seen = f"{before_s * 1000:.0f} ms before, {after_s * 1000:.0f} ms after"
    return held(after_s <= SLOWER * before_s + SLOWER_S, seen)


def _apply_s(subject: Subject) -> float:
    """How long one apply takes, in seconds. Raises `FailedError`."""
    body, begun_s = subject.body(), subject.clock.steady_s()
    answer = subject.apply(body)
    if not answer.ok:
        raise FailedError(shown(answer))
    return subject.clock.steady_s() - begun_s
