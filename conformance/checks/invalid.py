"""Applies that must be refused because their bodies are wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.check import Check, Checks, Grade
from conformance.checks.basics import each_fault_has_an_id_of_its_own
from conformance.reading import with_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from conformance.subject import Subject

__all__ = ["INVALID"]

BAD_REQUEST = 400
REQUIRED_FIELDS = ("service", "api", "fault_type", "percentage", "duration_seconds", "fault_config")

NOT_OBJECTS: dict[str, object] = {
    "a body that is not JSON": b"{",
    "an empty body": b"",
    "a body that is not an object": [1],
}
CHANGES: dict[str, dict[str, object]] = {
    **{f"an apply without {name}": {name: None} for name in REQUIRED_FIELDS},
    "an unknown fault_type": {"fault_type": "explode"},
    "a percentage of 101": {"percentage": 101},
    "a percentage below 0": {"percentage": -1},
    "a percentage that is text": {"percentage": "50"},
    "a duration of 0": {"duration_seconds": 0},
    "a duration that is text": {"duration_seconds": "1"},
    "an abort without http_status": {"fault_config": {}},
    "an abort with http_status 42": {"fault_config": {"http_status": 42}},
    "a delay without delay_ms": {"fault_type": "delay", "fault_config": {}},
    "a delay below 0": {"fault_type": "delay", "fault_config": {"delay_ms": -1}},
}


def _check(what: str, make: Callable[[Subject], object]) -> Check:
    def verify(subject: Subject) -> str:
        return with_status(subject.apply(make(subject)), BAD_REQUEST)

    advice = f"Answer 400 to {what}: a fault that differs from its plan spoils the plan's observation"
    return Check(
        f"{what} is refused", Grade.REQUIRED, "400", advice, verify, (each_fault_has_an_id_of_its_own,)
    )


def _given(body: object) -> Callable[[Subject], object]:
    return lambda _: body


def _changed(changes: dict[str, object]) -> Callable[[Subject], object]:
    return lambda subject: subject.body(**changes)


INVALID = Checks(
    [
        *(_check(what, _given(body)) for what, body in NOT_OBJECTS.items()),
        *(_check(what, _changed(changes)) for what, changes in CHANGES.items()),
    ]
)
