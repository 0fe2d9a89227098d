"""What an Executor must refuse, and how it says so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.check import Checks, Grade
from conformance.checks.basics import (
    an_ended_fault_has_metrics,
    applies_at_once_begin_a_fault_each,
    each_fault_has_an_id_of_its_own,
)
from conformance.checks.stops import a_stopped_fault_is_over
from conformance.errors import SkippedError
from conformance.reading import NO_SUCH_CALL, all_with_status, held, loose_fields, shown, with_status
from conformance.stories import a_fault_that_ends
from dispatcher.errors import ExecutorConnectionError

if TYPE_CHECKING:
    from conformance.outside import Api
    from conformance.subject import Subject
    from workers.drivers.answers import Answer

__all__ = ["REFUSALS"]

OK, UNAUTHORIZED, NOT_FOUND, CONFLICT, TOO_LARGE, TOO_MANY = 200, 401, 404, 409, 413, 429
REDIRECTS = range(300, 400)
MANY_BYTES = 1_000_001
UNKNOWN = "conformance-no-such-fault"
LONG_S = 60
WRONG_TOKEN = {"Authorization": "Bearer conformance-wrong-token"}

REFUSALS = Checks()
required, recommended = Grade.REQUIRED, Grade.RECOMMENDED


@REFUSALS.add(
    required, "404 for its status and its metrics", "Answer 404 about a fault that the Executor does not know"
)
def an_unknown_fault_is_not_found(subject: Subject) -> str:
    return all_with_status([subject.about(UNKNOWN, part) for part in ("status", "metrics")], NOT_FOUND)


@REFUSALS.add(required, "404 or 405", "Answer 404 to a path that the API does not have")
def an_unknown_path_is_not_found(subject: Subject) -> str:
    return with_status(subject.api.call("GET", "/v1/no-such-path"), *NO_SUCH_CALL)


@REFUSALS.add(
    required,
    "a refusal in JSON with error or message, a text",
    "Say in error and message what is wrong: the plan's error quotes it",
)
def a_refusal_says_why(subject: Subject) -> str:
    fields = loose_fields(answer := subject.apply(subject.body(service=None))) or {}
    texts = [fields.get(name) for name in ("error", "message")]
    says_why = any(isinstance(each, str) and each for each in texts)
    return held(not answer.ok and says_why, shown(answer))


@REFUSALS.add(
    recommended,
    "JSON with error and message, two texts, and different errors for 400 and 404",
    "Name the kind of the refusal in error, such as not_found, and the rest in message",
    a_refusal_says_why,
)
def a_refusal_names_its_kind(subject: Subject) -> str:
    answers = [subject.apply(subject.body(service=None)), subject.about(UNKNOWN, "status")]
    fields = [loose_fields(answer) or {} for answer in answers]
    texts = all(
        isinstance(each.get(name), str) and each[name] for each in fields for name in ("error", "message")
    )
    good = texts and fields[0]["error"] != fields[1]["error"]
    return held(good, ", ".join(map(shown, answers)))


@REFUSALS.add(
    recommended,
    "413, or the end of the connection, and a healthy Executor after it",
    "Bound the body of a request, by 1 MB for example: a client could fill the Executor's memory",
    each_fault_has_an_id_of_its_own,
)
def a_body_of_more_than_1_MB_is_refused(subject: Subject) -> str:  # noqa: N802 (the name is the sentence)
    try:
        seen = with_status(subject.apply(subject.body(filling="x" * MANY_BYTES)), TOO_LARGE)
    except ExecutorConnectionError:  # it was closed before all was sent, and the answer with it
        seen = "the end of the connection"
    return f"{seen}, then {with_status(subject.api.call('GET', '/v1/health'), OK)}"


@REFUSALS.add(
    recommended,
    "409",
    "Refuse a target that has a fault: otherwise their counts mix if another client applies one",
    each_fault_has_an_id_of_its_own,
)
def a_second_fault_on_a_target_is_refused(subject: Subject) -> str:
    body = subject.body()
    subject.applied(body)
    return with_status(subject.apply(body), CONFLICT)


@REFUSALS.add(
    recommended,
    "409",
    "Refuse the metrics of a running fault: figures that still change are not an observation",
    an_ended_fault_has_metrics,
)
def metrics_of_a_running_fault_are_refused(subject: Subject) -> str:
    return with_status(subject.about(subject.applied(), "metrics"), CONFLICT)


@REFUSALS.add(
    required,
    "429 after at most max_active_faults applies, and an apply_id again after a stop",
    "Count the active faults, and correct --max-active-faults if the limit is another one",
    applies_at_once_begin_a_fault_each,
    a_stopped_fault_is_over,
)
def applies_beyond_the_limit_are_refused(subject: Subject) -> str:
    if (limit := subject.max_active_faults) is None:
        raise SkippedError("no --max-active-faults was given")
    begun = len(subject.faults)
    bodies = [subject.body(duration_seconds=LONG_S) for _ in range(limit + 1)]
    answers = subject.at_once(lambda number: subject.apply(bodies[number]), limit + 1)
    ours = list(subject.faults)[begun:]
    try:
        refused = [answer for answer in answers if not answer.ok]
        held(refused, f"{len(answers)} applies, and no refusal")
        all_with_status(refused, TOO_MANY)
        held(ours, f"{shown(refused[0])} to each of {len(answers)} applies")
        subject.stop(ours[0])
        again = subject.applied()
    finally:
        subject.stop_quietly(ours)
    return f"{shown(refused[0])} after {len(ours)} applies, and {again} after a stop"


@REFUSALS.add(
    required,
    "401 to apply, status, metrics, stop and list",
    "Ask for the token in every call except GET /v1/health: the API injects faults",
    each_fault_has_an_id_of_its_own,
)
def without_the_token_no_call_is_answered(subject: Subject) -> str:
    return all_with_status(_guarded(subject, subject.stranger, None), UNAUTHORIZED)


@REFUSALS.add(
    required,
    "401 to apply, status, metrics, stop and list",
    "Compare the whole token, in constant time",
    each_fault_has_an_id_of_its_own,
)
def a_wrong_token_is_refused(subject: Subject) -> str:
    return all_with_status(_guarded(subject, subject.stranger, WRONG_TOKEN), UNAUTHORIZED)


@REFUSALS.add(
    recommended,
    "200",
    "Answer GET /v1/health without a token: what watches the Executor needs no secret then",
)
def the_health_needs_no_token(subject: Subject) -> str:
    _needs_token(subject)
    return with_status(subject.stranger.call("GET", "/v1/health"), OK)


@REFUSALS.add(
    required,
    "no status from 300 to 399",
    "Answer under the contract's own paths: the driver follows no redirect, because a token could leak",
    an_ended_fault_has_metrics,
)
def no_call_is_redirected(subject: Subject) -> str:
    answers = _calls(subject)
    moved = [answer for answer in answers if answer.status in REDIRECTS]
    return held(not moved, ", ".join(f"{answer.call}: {answer.status}" for answer in moved or answers[:1]))


@REFUSALS.add(
    recommended,
    "Content-Type: application/json with each body",
    "Name the type: proxies and people's tools show what it says",
    an_ended_fault_has_metrics,
)
def each_body_is_json_by_its_content_type(subject: Subject) -> str:
    answers = [*_calls(subject), subject.apply(subject.body(service=None)), subject.about(UNKNOWN, "status")]
    kinds = {answer.content_type.partition(";")[0].strip().lower() for answer in answers if answer.body}
    return held(kinds <= {"application/json"}, ", ".join(sorted(kinds)) or "no body")


def _needs_token(subject: Subject) -> None:
    if not subject.has_token:
        raise SkippedError("no --token was given")


def _guarded(subject: Subject, api: Api, headers: dict[str, str] | None) -> list[Answer]:
    """The answers to calls that need the token."""
    _needs_token(subject)
    fault = f"/v1/faults/{subject.applied()}"
    answers = [
        subject.apply(subject.body(), headers, api),
        api.call("GET", f"{fault}/status", headers=headers),
        api.call("GET", f"{fault}/metrics", headers=headers),
        api.call("DELETE", fault, headers=headers),
        api.call("GET", "/v1/faults", headers=headers),
    ]
    return [each for each in answers if each.status not in NO_SUCH_CALL - {NOT_FOUND}]


def _calls(subject: Subject) -> list[Answer]:
    """An answer to each call of the contract."""
    ended = subject.once(a_fault_that_ends)
    answers = [subject.api.call("GET", path) for path in ("/v1/health", "/v1/faults")]
    answers += [subject.apply(subject.body()), ended.status, ended.metrics, subject.stop(ended.apply_id)]
    return [each for each in answers if each.status not in NO_SUCH_CALL]
