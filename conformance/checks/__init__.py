"""All checks, in the order in which they are made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from conformance.check import Checks, Grade
from conformance.checks.basics import BASICS
from conformance.checks.capabilities import CAPABILITIES
from conformance.checks.everything import EVERYTHING
from conformance.checks.hits import HITS
from conformance.checks.invalid import INVALID
from conformance.checks.keys import (
    KEYS,
    a_late_apply_is_refused,
    running_faults_are_listed,
    the_same_key_is_the_same_fault,
)
from conformance.checks.refusals import REFUSALS
from conformance.checks.stops import STOPS, a_fault_can_be_stopped
from conformance.checks.survival import SURVIVAL
from conformance.checks.truth import TRUTH
from conformance.reading import held

if TYPE_CHECKING:
    from conformance.subject import Subject

__all__ = ["ABILITIES", "CHECKS", "GROUPS", "nothing_is_left_behind"]

LAST = Checks()


@LAST.add(
    Grade.REQUIRED,
    "no fault that is still running",
    "End each fault when its time is over, and when it is stopped",
)
def nothing_is_left_behind(subject: Subject) -> str:
    """Also ends what the others began."""
    running = subject.clean_up()
    return held(not running, f"{len(subject.faults)} faults, {len(running)} of them still running")


GROUPS = {
    "BASICS": BASICS,
    "STOPS": STOPS,
    "KEYS": KEYS,
    "TRUTH": TRUTH,
    "REFUSALS": REFUSALS,
    "INVALID": INVALID,
    "HITS": HITS,
    "CAPABILITIES": CAPABILITIES,
    "EVERYTHING": EVERYTHING,
    "SURVIVAL": SURVIVAL,
    "LAST": LAST,
}
"""In the order in which they are made."""

CHECKS = [check for checks in GROUPS.values() for check in checks if checks is not LAST]
"""All except the last one, which is made after an interruption, too."""

ABILITIES = {
    "idempotent_apply": the_same_key_is_the_same_fault,
    "stops_faults": a_fault_can_be_stopped,
    "lists_faults": running_faults_are_listed,
    "keeps_not_after": a_late_apply_is_refused,
}
"""What the Executor can do, by which checks pass. These names say how to configure it."""
