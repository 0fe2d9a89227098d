"""Whether an apply can be repeated, and refused if it comes late. Whether all faults are listed."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import TYPE_CHECKING

from conformance.check import Checks, Grade
from conformance.checks.basics import a_fault_ends_by_itself, each_fault_has_an_id_of_its_own
from conformance.reading import fields_of, held, read_as, shown, with_status
from conformance.stories import a_fault_that_ends, the_same_fault_again
from conformance.subject import AT_ONCE, SOON_S
from workers.drivers.fault_answers import FaultsAnswer
from workers.drivers.moments import rfc3339

if TYPE_CHECKING:
    from conformance.subject import Subject
    from workers.drivers.answers import Answer

__all__ = [
    "KEYS",
    "a_key_outlives_its_fault",
    "a_late_apply_is_refused",
    "running_faults_are_listed",
    "the_same_key_is_the_same_fault",
]

TOO_LATE, KEY_REUSED = 412, 422
A_DAY = 24
"""Hours. More than clocks differ by."""

KEYS = Checks()
required, recommended = Grade.REQUIRED, Grade.RECOMMENDED


@KEYS.add(
    recommended,
    "the same apply_id twice",
    "Set idempotent_apply = false: an apply without an answer is never repeated then",
    each_fault_has_an_id_of_its_own,
)
def the_same_key_is_the_same_fault(subject: Subject) -> str:
    body, headers = subject.body(), {"Idempotency-Key": subject.key()}
    first, again = subject.applied(body, headers), subject.applied(body, headers)
    return held(first == again, f"{first}, then {again}")


@KEYS.add(
    required,
    "one apply_id for all",
    "Look the key up and store it in one step",
    the_same_key_is_the_same_fault,
)
def applies_at_once_under_one_key_are_one_fault(subject: Subject) -> str:
    body, headers = subject.body(), {"Idempotency-Key": subject.key()}
    ids = Counter(subject.at_once(lambda _: subject.applied(body, headers), AT_ONCE))
    return held(len(ids) == 1, ", ".join(f"{count} x {apply_id}" for apply_id, count in ids.items()))


@KEYS.add(
    required,
    "422",
    "Compare the request with the one that the key came with",
    the_same_key_is_the_same_fault,
)
def a_key_of_another_fault_is_refused(subject: Subject) -> str:
    headers = {"Idempotency-Key": subject.key()}
    subject.applied(headers=headers)
    return with_status(subject.apply(subject.body(), headers), KEY_REUSED)


@KEYS.add(
    required,
    "its apply_id, after its end",
    "Keep the keys of ended faults for an hour: a repeated apply must not begin a second fault",
    the_same_key_is_the_same_fault,
    a_fault_ends_by_itself,
)
def a_key_outlives_its_fault(subject: Subject) -> str:
    return the_same_fault_again(subject)


@KEYS.add(
    required,
    "an apply_id, status applied",
    "Accept the header Not-After, or pass it over: each apply of the dispatcher has it",
    each_fault_has_an_id_of_its_own,
)
def an_apply_before_its_not_after_is_accepted(subject: Subject) -> str:
    return subject.applied(headers=_not_after(subject, A_DAY))


@KEYS.add(
    recommended,
    "412 after its Not-After",
    "Nothing must be set. Without it, an apply that is delayed on its way can hit another plan's window",
    an_apply_before_its_not_after_is_accepted,
)
def a_late_apply_is_refused(subject: Subject) -> str:
    return with_status(subject.apply(subject.body(), _not_after(subject, -A_DAY)), TOO_LATE)


@KEYS.add(
    required,
    "its apply_id, status applied",
    "Look the key up first: the dispatcher learns by a late apply which fault it must stop",
    the_same_key_is_the_same_fault,
    a_late_apply_is_refused,
)
def a_late_apply_under_a_known_key_names_its_fault(subject: Subject) -> str:
    body, key = subject.body(), {"Idempotency-Key": subject.key()}
    first = subject.applied(body, key)
    again = subject.applied(body, key | _not_after(subject, -A_DAY))
    return held(first == again, f"{first}, then {again}")


@KEYS.add(
    recommended,
    "its apply_id in GET /v1/faults while it runs",
    "Nothing must be set. Without it, faults that outlive their plans are not found",
    each_fault_has_an_id_of_its_own,
)
def running_faults_are_listed(subject: Subject) -> str:
    apply_id = subject.applied()
    return held(apply_id in _listed(subject), f"{apply_id}, and {shown(_list(subject))}")


@KEYS.add(
    recommended,
    "the key of each fault that was applied with one",
    "List the Idempotency-Key: it says which plan a fault belongs to",
    running_faults_are_listed,
    the_same_key_is_the_same_fault,
)
def the_list_names_keys(subject: Subject) -> str:
    key = subject.key()
    apply_id = subject.applied(headers={"Idempotency-Key": key})
    listed = _listed(subject).get(apply_id)
    return held(listed == key, f"{listed} instead of {key}")


@KEYS.add(
    required,
    "its absence from the list",
    "List faults that are in force, and no others: what is absent is over, what is listed is not",
    running_faults_are_listed,
    a_fault_ends_by_itself,
)
def an_ended_fault_is_not_listed(subject: Subject) -> str:
    apply_id = subject.once(a_fault_that_ends).apply_id
    gone = subject.until(lambda: apply_id not in _listed(subject), SOON_S)
    return held(gone, f"{apply_id} is {'absent' if gone else 'still listed'}")


@KEYS.add(
    required,
    "no fault in the list after a 412",
    "Look at the clock before the data plane changes, not after",
    running_faults_are_listed,
    a_late_apply_is_refused,
)
def a_refused_apply_begins_no_fault(subject: Subject) -> str:
    body, key = subject.body(), subject.key()
    answer = subject.apply(body, {"Idempotency-Key": key} | _not_after(subject, -A_DAY))
    listed = fields_of(_list(subject))["faults"]
    ours = [each for each in listed if each.get("key") == key or each.get("api") == body["api"]]
    return held(not ours, f"{shown(answer)}, and {len(ours)} faults on its target")


def _not_after(subject: Subject, hours: int) -> dict[str, str]:
    return {"Not-After": rfc3339(subject.clock.now() + timedelta(hours=hours))}


def _list(subject: Subject) -> Answer:
    return subject.api.call("GET", "/v1/faults")


def _listed(subject: Subject) -> dict[str, str | None]:
    """The key of each fault that is listed as running, by its id."""
    faults = read_as(FaultsAnswer, _list(subject)).faults
    return {each.apply_id: each.key for each in faults if each.status == "running"}
