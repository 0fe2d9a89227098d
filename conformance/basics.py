"""The cases of what every Executor must do."""

from __future__ import annotations

import time
from functools import partial

from conformance.case import SOON_S, Case, all_with_status, case_of, held, metrics_of, read_as, with_status
from conformance.subject import NO_SUCH_METHOD, Subject, ViolationError, shown
from workers.drivers.contract import SPOKEN, same_major, version_of
from workers.drivers.fault_answers import MetricsAnswer

__all__ = ["BASICS"]

OK, NOT_FOUND = 200, 404
UNKNOWN = "conformance-no-such-fault"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
MAX_ID_LENGTH = 200

BASICS: list[Case] = []
case = partial(case_of, BASICS)


@case(f"200, and no contract version but {SPOKEN.partition('.')[0]}.x")
def the_executor_is_healthy(subject: Subject) -> str:
    answer = subject.transport.call("GET", "/v1/health")
    message = version_of(answer)
    return held(answer.status == OK and (message is None or same_major(message, SPOKEN)), shown(answer))


@case("an apply_id, status applied")
def an_abort_is_applied(subject: Subject) -> str:
    return subject.applied()


@case("an apply_id, status applied")
def a_delay_is_applied(subject: Subject) -> str:
    return subject.applied(subject.body(fault_type="delay", fault_config={"delay_ms": 100}))


@case("an apply_id, status applied")
def a_start_delay_is_taken(subject: Subject) -> str:
    return subject.applied(subject.body(fault_config={"http_status": 503, "start_delay_ms": 50}))


@case("an apply_id for each, status applied")
def percentages_from_0_to_100_are_taken(subject: Subject) -> str:
    return " ".join(subject.applied(subject.body(percentage=percentage)) for percentage in (0, 1, 100))


@case("an apply_id, status applied")
def a_traceparent_is_taken(subject: Subject) -> str:
    return subject.applied(headers={"traceparent": TRACEPARENT})


@case("two different ids that can be one segment of a path")
def each_fault_has_an_id_of_its_own(subject: Subject) -> str:
    ids = [subject.applied() for _ in range(2)]
    usable = all(len(each) <= MAX_ID_LENGTH and each not in {".", ".."} for each in ids)
    return held(usable and ids[0] != ids[1], " ".join(ids))


@case("its apply_id, status running")
def an_applied_fault_is_running(subject: Subject) -> str:
    apply_id = subject.applied()
    answer = subject.about(apply_id, "status")
    fields = subject.fields(answer)
    good = (fields.get("apply_id"), fields.get("status")) == (apply_id, "running")
    return held(good, shown(answer))


@case("status completed after its second")
def a_fault_ends_by_itself(subject: Subject) -> str:
    begun = time.monotonic()
    apply_id = subject.applied(subject.body(duration_seconds=1))
    if not subject.until_over(apply_id, 1 + SOON_S):
        raise ViolationError(f"still running after {1 + SOON_S:g} s")
    took_s = time.monotonic() - begun
    answer = subject.about(apply_id, "status")
    fields = subject.fields(answer)
    good = fields.get("status") == "completed" and took_s >= 1
    return held(good, f"after {took_s:.1f} s {shown(answer)}")


@case("apply_id, status_code, latency_ms, error_rate, trace_data, logs")
def a_completed_fault_has_metrics(subject: Subject) -> str:
    apply_id, answer = metrics_of(subject)
    metrics = read_as(MetricsAnswer, subject.fields(answer), answer)
    return held(metrics.apply_id == apply_id, shown(answer))


@case("404 for its status and its metrics")
def an_unknown_fault_is_not_found(subject: Subject) -> str:
    answers = [subject.about(UNKNOWN, part) for part in ("status", "metrics")]
    return all_with_status(answers, NOT_FOUND)


@case("404 or 405")
def an_unknown_path_is_not_found(subject: Subject) -> str:
    return with_status(subject.transport.call("GET", "/v1/no-such-path"), *NO_SUCH_METHOD)


@case("JSON with error or message, a text")
def a_refusal_says_why(subject: Subject) -> str:
    answer = subject.apply(subject.body(service=None))
    fields = answer.json()
    message = [fields.get(name) for name in ("error", "message")] if isinstance(fields, dict) else []
    return held(any(isinstance(each, str) and each for each in message), shown(answer))
