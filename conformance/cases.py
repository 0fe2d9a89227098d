"""The cases of the contract (`executor/openapi.yaml`; specification, appendix A, way 2).

A case returns what came, or raises `ViolationError` or `AbsentError` with it.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from conformance.subject import NO_SUCH_METHOD, AbsentError, Subject, ViolationError, shown
from workers.drivers.contract import SPOKEN, same_major, version_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workers.drivers.answers import Answer

__all__ = ["CASES", "IDEMPOTENT", "STOPS", "Case", "left_behind"]

OK, BAD_REQUEST, UNAUTHORIZED, NOT_FOUND, KEY_REUSED = 200, 400, 401, 404, 422
AT_ONCE = 8
UNKNOWN = "conformance-no-such-fault"
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
SOON_S = 5.0
"""How late a fault's end may be, in seconds."""

MAX_ID_LENGTH = 200


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that the contract says."""

    name: str
    expected: str
    check: Callable[[Subject], str]


CASES: list[Case] = []
"""In the order in which they are tried."""


def case(expected: str) -> Callable[[Callable[[Subject], str]], Callable[[Subject], str]]:
    """A function that is a case. Its name is the case's."""

    def add(check: Callable[[Subject], str]) -> Callable[[Subject], str]:
        CASES.append(Case(check.__name__.replace("_", " "), expected, check))
        return check

    return add


@case(f"200, and no contract version but {SPOKEN.partition('.')[0]}.x")
def the_executor_is_healthy(subject: Subject) -> str:
    answer = subject.transport.call("GET", "/v1/health")
    message = version_of(answer)
    return _held(answer.status == OK and (message is None or same_major(message, SPOKEN)), shown(answer))


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
    return _held(usable and ids[0] != ids[1], " ".join(ids))


@case("its apply_id, status running, start_time with a zone")
def an_applied_fault_is_running(subject: Subject) -> str:
    apply_id = subject.applied()
    answer = subject.about(apply_id, "status")
    fields = subject.fields(answer)
    good = (fields.get("apply_id"), fields.get("status")) == (apply_id, "running")
    return _held(good and _is_moment(fields.get("start_time")), shown(answer))


@case("status completed after its second, with end_time")
def a_fault_ends_by_itself(subject: Subject) -> str:
    begun = time.monotonic()
    apply_id = subject.applied(subject.body(duration_seconds=1))
    if not subject.until_over(apply_id, 1 + SOON_S):
        raise ViolationError(f"still running after {1 + SOON_S:g} s")
    took_s = time.monotonic() - begun
    answer = subject.about(apply_id, "status")
    fields = subject.fields(answer)
    good = fields.get("status") == "completed" and _is_moment(fields.get("end_time")) and took_s >= 1
    return _held(good, f"after {took_s:.1f} s {shown(answer)}")


@case("apply_id, status_code, latency_ms, error_rate, trace_data, logs")
def a_completed_fault_has_metrics(subject: Subject) -> str:
    apply_id = subject.applied(subject.body(duration_seconds=1))
    subject.until_over(apply_id, 1 + SOON_S)
    answer = subject.about(apply_id, "metrics")
    fields = subject.fields(answer)
    good = (
        fields.get("apply_id") == apply_id
        and _is_number(fields.get("status_code"), whole=True)
        and _is_number(fields.get("latency_ms"))
        and _is_number(fields.get("error_rate"), at_most=1)
        and "trace_data" in fields
        and (fields.get("logs") is None or _are_texts(fields["logs"]))
    )
    return _held(good, shown(answer))


@case("404 for its status and its metrics")
def an_unknown_fault_is_not_found(subject: Subject) -> str:
    answers = [subject.about(UNKNOWN, part) for part in ("status", "metrics")]
    return _all_with_status(answers, NOT_FOUND)


@case("404 or 405")
def an_unknown_path_is_not_found(subject: Subject) -> str:
    return _with_status(subject.transport.call("GET", "/v1/no-such-path"), *NO_SUCH_METHOD)


@case("JSON with error or message, a text")
def a_refusal_says_why(subject: Subject) -> str:
    answer = subject.apply(subject.body(service=None))
    fields = answer.json()
    message = [fields.get(name) for name in ("error", "message")] if isinstance(fields, dict) else []
    return _held(any(isinstance(each, str) and each for each in message), shown(answer))


@case("the same apply_id twice")
def the_same_key_is_the_same_fault(subject: Subject) -> str:
    body, headers = subject.body(), {"Idempotency-Key": subject.key()}
    first = subject.applied(body, headers)
    answer = subject.apply(body, headers)
    if not answer.ok or subject.fields(answer).get("apply_id") != first:
        raise AbsentError(f"{first}, then {shown(answer)}")
    return f"{first} twice"


@case("one apply_id for all")
def applies_at_once_under_one_key_are_one_fault(subject: Subject) -> str:
    _needs_idempotency(subject)
    body, headers = subject.body(), {"Idempotency-Key": subject.key()}
    with ThreadPoolExecutor(AT_ONCE) as pool:
        ids = Counter(pool.map(lambda _: subject.applied(body, headers), range(AT_ONCE)))
    return _held(len(ids) == 1, ", ".join(f"{count} x {apply_id}" for apply_id, count in ids.items()))


@case("422")
def a_key_of_another_fault_is_refused(subject: Subject) -> str:
    _needs_idempotency(subject)
    headers = {"Idempotency-Key": subject.key()}
    subject.applied(headers=headers)
    return _with_status(subject.apply(subject.body(), headers), KEY_REUSED)


@case("success, then status completed")
def a_fault_can_be_stopped(subject: Subject) -> str:
    apply_id = _stopped(subject)
    if not subject.until_over(apply_id, SOON_S):
        raise ViolationError(f"still running {SOON_S:g} s after it was stopped")
    status = subject.status(apply_id)
    return _held(status == "completed", f"status {status}")


@case("success, or 404")
def a_stop_may_be_repeated(subject: Subject) -> str:
    return _with_status(subject.stop(_stopped(subject)), *range(200, 300), NOT_FOUND)


@case("success, or 404")
def an_unknown_fault_needs_no_stopping(subject: Subject) -> str:
    _stopped(subject)
    return _with_status(subject.stop(UNKNOWN), *range(200, 300), NOT_FOUND)


@case("401 for apply, status and metrics")
def without_the_token_nothing_is_told(subject: Subject) -> str:
    if not subject.has_token:
        raise AbsentError("no --token was given")
    apply_id = subject.applied()
    answers = [
        subject.stranger.call("POST", "/v1/faults/apply", subject.body()),
        subject.stranger.call("GET", f"/v1/faults/{apply_id}/status"),
        subject.stranger.call("GET", f"/v1/faults/{apply_id}/metrics"),
    ]
    return _all_with_status(answers, UNAUTHORIZED)


def _invalid() -> Iterator[tuple[str, Callable[[Subject], object]]]:
    """What must be refused, and its body."""
    yield "a body that is not JSON", lambda _: b"{"
    yield "an empty body", lambda _: b""
    yield "a body that is no object", lambda _: [1]
    for name in ("service", "api", "fault_type", "percentage", "duration_seconds", "fault_config"):
        yield f"an apply without {name}", lambda subject, name=name: subject.body(**{name: None})  # type: ignore[misc]
    for message, changes in (
        ("an unknown fault_type", {"fault_type": "explode"}),
        ("a percentage of 101", {"percentage": 101}),
        ("a percentage below 0", {"percentage": -1}),
        ("a percentage that is text", {"percentage": "50"}),
        ("a duration of 0", {"duration_seconds": 0}),
        ("a duration that is text", {"duration_seconds": "1"}),
        ("an abort without http_status", {"fault_config": {}}),
        ("an abort with http_status 42", {"fault_config": {"http_status": 42}}),
        ("a delay without delay_ms", {"fault_type": "delay", "fault_config": {}}),
        ("a delay below 0", {"fault_type": "delay", "fault_config": {"delay_ms": -1}}),
    ):
        yield message, lambda subject, changes=changes: subject.body(**changes)  # type: ignore[misc]


def _refused(make: Callable[[Subject], object]) -> Callable[[Subject], str]:
    return lambda subject: _with_status(subject.apply(make(subject)), BAD_REQUEST)


CASES.extend(Case(f"{message} is refused", "400", _refused(make)) for message, make in _invalid())

IDEMPOTENT = "the same key is the same fault"
STOPS = "a fault can be stopped"


def left_behind(subject: Subject) -> str:
    """The last case, which also ends what the others began."""
    running = subject.clean_up()
    return _held(not running, f"{len(subject.faults)} faults, {len(running)} of them still running")


def _stopped(subject: Subject) -> str:
    apply_id = subject.applied()
    answer = subject.stop(apply_id)
    if answer.status in NO_SUCH_METHOD:
        raise AbsentError(shown(answer))
    if not answer.ok:
        subject.violated(answer)
    return apply_id


def _needs_idempotency(subject: Subject) -> None:
    the_same_key_is_the_same_fault(subject)


def _held(held: object, got: str) -> str:
    if not held:
        raise ViolationError(got)
    return got


def _with_status(answer: Answer, *statuses: int) -> str:
    return _held(answer.status in statuses, shown(answer))


def _all_with_status(answers: list[Answer], status: int) -> str:
    return _held(all(each.status == status for each in answers), ", ".join(map(shown, answers)))


def _is_number(value: Any, *, at_most: float = float("inf"), whole: bool = False) -> bool:
    kinds = int if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value <= at_most


def _are_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _is_moment(value: Any) -> bool:
    """A date and time with a zone (RFC 3339)."""
    try:
        return datetime.fromisoformat(value).tzinfo is not None
    except (TypeError, ValueError):
        return False
