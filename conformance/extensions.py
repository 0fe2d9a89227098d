"""The cases of the extensions, without which an Executor may do."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial

from pydantic import ValidationError

from conformance.case import SOON_S, Case, all_with_status, case_of, held, metrics_of, read_as, with_status
from conformance.subject import NO_SUCH_METHOD, SHORT_S, AbsentError, Subject, ViolationError, shown, until
from workers.drivers.fault_answers import FaultsAnswer, MetricsAnswer, StatusAnswer, StopAnswer
from workers.drivers.moments import rfc3339

__all__ = ["EXTENSIONS", "IDEMPOTENT", "LISTS", "REFUSES_LATE", "STOPS"]

OK, UNAUTHORIZED, NOT_FOUND, TOO_LATE, KEY_REUSED = 200, 401, 404, 412, 422
AT_ONCE = 8
UNKNOWN = "conformance-no-such-fault"

IDEMPOTENT = "the same key is the same fault"
STOPS = "a fault can be stopped"
LISTS = "running faults are listed"
REFUSES_LATE = "an apply that comes too late begins nothing"

EXTENSIONS: list[Case] = []
case = partial(case_of, EXTENSIONS)


@case("start_time and end_time with a zone (RFC 3339), about a second apart")
def a_status_says_when_a_fault_began_and_ended(subject: Subject) -> str:
    apply_id = subject.applied(subject.body(duration_seconds=1))
    subject.until_over(apply_id, 1 + SOON_S)
    answer = subject.about(apply_id, "status")
    status = read_as(StatusAnswer, subject.fields(answer), answer)
    if status.began is None or status.ended is None:
        raise AbsentError(shown(answer))
    lasted_s = (status.ended - status.began).total_seconds()
    return held(1 - SOON_S < lasted_s < 1 + SOON_S, f"{lasted_s:.1f} s in {shown(answer)}")


@case("requests, and faulted, unanswered, success_count and error_count that fit")
def metrics_count_requests(subject: Subject) -> str:
    _, answer = metrics_of(subject)
    metrics = read_as(MetricsAnswer, subject.fields(answer), answer)
    if metrics.requests is None or metrics.faulted is None or metrics.unanswered is None:
        raise AbsentError(shown(answer))
    return shown(answer)


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
    return held(len(ids) == 1, ", ".join(f"{count} x {apply_id}" for apply_id, count in ids.items()))


@case("422")
def a_key_of_another_fault_is_refused(subject: Subject) -> str:
    _needs_idempotency(subject)
    headers = {"Idempotency-Key": subject.key()}
    subject.applied(headers=headers)
    return with_status(subject.apply(subject.body(), headers), KEY_REUSED)


@case("412 after its Not-After, and an apply_id before it")
def an_apply_that_comes_too_late_begins_nothing(subject: Subject) -> str:
    now = datetime.now(UTC)
    moments = [rfc3339(now + timedelta(hours=hours)) for hours in (24, -24)]  # more than clocks differ by
    subject.applied(headers={"Not-After": moments[0]})
    answer = subject.apply(subject.body(), {"Not-After": moments[1]})
    if answer.ok:
        raise AbsentError(shown(answer))
    return with_status(answer, TOO_LATE)


@case("its apply_id and its key while it runs, and not after its end")
def running_faults_are_listed(subject: Subject) -> str:
    key = subject.key()
    apply_id = subject.applied(headers={"Idempotency-Key": key})
    answer = subject.transport.call("GET", "/v1/faults")
    if answer.status in NO_SUCH_METHOD:
        raise AbsentError(shown(answer))
    keys = {each.apply_id: each.key for each in _listed(subject).faults if each.status == "running"}
    held(apply_id in keys and keys[apply_id] in {key, None}, shown(answer))
    subject.until_over(apply_id, SHORT_S + SOON_S)
    gone = until(lambda: apply_id not in {each.apply_id for each in _listed(subject).faults}, SOON_S)
    return held(gone, f"{apply_id} with key {keys[apply_id]}, then {'absent' if gone else 'still listed'}")


@case("success, then status completed")
def a_fault_can_be_stopped(subject: Subject) -> str:
    apply_id = _stopped(subject)
    if not subject.until_over(apply_id, SOON_S):
        raise ViolationError(f"still running {SOON_S:g} s after it was stopped")
    status = subject.status(apply_id)
    return held(status == "completed", f"status {status}")


@case("200 with status completed or failed in the answer to the stop")
def a_stop_says_that_the_fault_is_over(subject: Subject) -> str:
    answer = subject.stop(subject.applied())
    if answer.status in NO_SUCH_METHOD:
        raise AbsentError(shown(answer))
    try:
        StopAnswer.model_validate(answer.json() if answer.body and answer.status == OK else None, strict=True)
    except ValidationError as exc:
        raise AbsentError(shown(answer)) from exc
    return shown(answer)


@case("success, or 404")
def a_stop_may_be_repeated(subject: Subject) -> str:
    return with_status(subject.stop(_stopped(subject)), *range(200, 300), NOT_FOUND)


@case("success, or 404")
def an_unknown_fault_needs_no_stopping(subject: Subject) -> str:
    _stopped(subject)
    return with_status(subject.stop(UNKNOWN), *range(200, 300), NOT_FOUND)


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
    return all_with_status(answers, UNAUTHORIZED)


def _stopped(subject: Subject) -> str:
    apply_id = subject.applied()
    answer = subject.stop(apply_id)
    if answer.status in NO_SUCH_METHOD:
        raise AbsentError(shown(answer))
    if not answer.ok:
        subject.violated(answer)
    return apply_id


def _listed(subject: Subject) -> FaultsAnswer:
    answer = subject.transport.call("GET", "/v1/faults")
    return read_as(FaultsAnswer, subject.fields(answer), answer)


def _needs_idempotency(subject: Subject) -> None:
    the_same_key_is_the_same_fault(subject)
