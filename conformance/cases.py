"""The cases of the contract (`executor/openapi.yaml`; specification, appendix A, way 2).

A case returns what came, or raises `ViolationError` or `AbsentError` with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.basics import BASICS
from conformance.case import Case, held, with_status
from conformance.extensions import EXTENSIONS, IDEMPOTENT, LISTS, REFUSES_LATE, STOPS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from conformance.subject import Subject

__all__ = ["CASES", "IDEMPOTENT", "LISTS", "REFUSES_LATE", "STOPS", "Case", "left_behind"]

BAD_REQUEST = 400


def _invalid() -> Iterator[tuple[str, Callable[[Subject], object]]]:
    """What must be refused, and its body."""
    yield "a body that is not JSON", lambda _: b"{"
    yield "an empty body", lambda _: b""
    yield "a body that is not an object", lambda _: [1]
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
    return lambda subject: with_status(subject.apply(make(subject)), BAD_REQUEST)


CASES = [
    *BASICS,
    *EXTENSIONS,
    *(Case(f"{message} is refused", "400", _refused(make)) for message, make in _invalid()),
]
"""In the order in which they are tried."""


def left_behind(subject: Subject) -> str:
    """The last case, which also ends what the others began."""
    running = subject.clean_up()
    return held(not running, f"{len(subject.faults)} faults, {len(running)} of them still running")
