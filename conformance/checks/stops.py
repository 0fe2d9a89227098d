"""Whether a fault can be ended before its time, and is over once the Executor says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.check import Checks, Grade
from conformance.checks.basics import an_applied_fault_is_running, an_ended_fault_has_metrics
from conformance.reading import fields_of, held, read_as, shown, with_status
from conformance.stories import a_fault_that_is_stopped, settled_metrics
from conformance.subject import SOON_S
from workers.drivers.fault_answers import MetricsAnswer, StopAnswer

if TYPE_CHECKING:
    from conformance.subject import Subject

__all__ = [
    "STOPS",
    "a_fault_can_be_stopped",
    "a_stop_is_confirmed",
    "a_stopped_fault_has_metrics",
    "a_stopped_fault_is_over",
]

OK, NOT_FOUND = 200, 404
SUCCESS = range(200, 300)
UNKNOWN = "conformance-no-such-fault"

STOPS = Checks()
required, recommended = Grade.REQUIRED, Grade.RECOMMENDED


@STOPS.add(
    recommended,
    "success of DELETE /v1/faults/{apply_id}",
    "Nothing must be set: a cancelled plan ends at once then, and its target is free at the fault's end",
    an_applied_fault_is_running,
)
def a_fault_can_be_stopped(subject: Subject) -> str:
    answer = subject.stop(subject.applied())
    return held(answer.ok, shown(answer))


@STOPS.add(
    required,
    f"status completed within {SOON_S:g} s",
    "Remove the fault from the data plane before the stop is answered, or soon after",
    a_fault_can_be_stopped,
)
def a_stopped_fault_is_over(subject: Subject) -> str:
    stopped = subject.once(a_fault_that_is_stopped)
    subject.until_over(stopped.apply_id, SOON_S)
    status = subject.status(stopped.apply_id)
    return held(status == "completed", f"status {status}")


@STOPS.add(
    recommended,
    "200 with status completed or failed",
    "Answer a stop with the fault's status: otherwise each stop costs the fleet a call more",
    a_stopped_fault_is_over,
)
def a_stop_is_confirmed(subject: Subject) -> str:
    answer = subject.once(a_fault_that_is_stopped).answer
    read_as(StopAnswer, answer)
    return held(answer.status == OK, shown(answer))


@STOPS.add(
    required,
    "success or 404, and the same status as before",
    "Take a repeated stop for one that has nothing to do: workers repeat calls that got no answer",
    a_stopped_fault_is_over,
)
def a_stop_may_be_repeated(subject: Subject) -> str:
    apply_id = subject.once(a_fault_that_is_stopped).apply_id
    before = subject.about(apply_id, "status")
    seen = with_status(subject.stop(apply_id), *SUCCESS, NOT_FOUND)
    after = subject.about(apply_id, "status")
    return held(fields_of(before) == fields_of(after), f"{seen}, then {shown(after)}, before {shown(before)}")


@STOPS.add(required, "success or 404", "Answer 404 to the stop of an unknown fault", a_fault_can_be_stopped)
def an_unknown_fault_needs_no_stop(subject: Subject) -> str:
    return with_status(subject.stop(UNKNOWN), *SUCCESS, NOT_FOUND)


@STOPS.add(
    required,
    "another fault that is still running",
    "End the fault that the path names, and no other",
    a_fault_can_be_stopped,
)
def a_stop_leaves_other_faults_alone(subject: Subject) -> str:
    answer = subject.once(a_fault_that_is_stopped).bystander_status
    return held(fields_of(answer).get("status") == "running", shown(answer))


@STOPS.add(
    required,
    "metrics with its apply_id",
    "Keep the figures of a fault that was stopped, too",
    a_stopped_fault_is_over,
    an_ended_fault_has_metrics,
)
def a_stopped_fault_has_metrics(subject: Subject) -> str:
    apply_id = subject.once(a_fault_that_is_stopped).apply_id
    answer = settled_metrics(subject, apply_id)
    return held(read_as(MetricsAnswer, answer).apply_id == apply_id, shown(answer))
