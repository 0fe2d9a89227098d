"""Whether one call ends all faults, for people in an emergency."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from conformance.check import Checks, Grade
from conformance.checks.keys import running_faults_are_listed
from conformance.errors import SkippedError
from conformance.reading import fields_of, held, read_as, shown
from conformance.subject import SOON_S
from workers.drivers.fault_answers import FaultsAnswer

if TYPE_CHECKING:
    from conformance.subject import Subject
    from workers.drivers.answers import Answer

__all__ = ["EVERYTHING"]

LONG_S = 10
SEVERAL = 3

EVERYTHING = Checks()


@dataclass(frozen=True, slots=True)
class StoppedAll:
    """The outcome of a call that ends all faults."""

    apply_ids: list[str]
    answer: Answer


def all_faults_are_stopped(subject: Subject) -> StoppedAll:
    """Only if all that are active are the checks' own: others may be an experiment. Raises `SkippedError`."""
    apply_ids = [subject.applied(subject.body(duration_seconds=LONG_S)) for _ in range(SEVERAL)]
    listed = read_as(FaultsAnswer, subject.api.call("GET", "/v1/faults")).faults
    others = [each.apply_id for each in listed if each.apply_id not in subject.faults]
    if others:
        subject.stop_quietly(apply_ids)
        raise SkippedError(f"it would end faults that are not the check's own: {', '.join(others[:3])}")
    return StoppedAll(apply_ids, subject.api.call("POST", "/v1/faults/stop-all"))


@EVERYTHING.add(
    Grade.RECOMMENDED,
    "success of POST /v1/faults/stop-all (contract 1.2)",
    "Nothing must be set. Without it, `dispatcher halt` stops the fleet's faults one by one",
    running_faults_are_listed,
)
def one_call_stops_all_faults(subject: Subject) -> str:
    answer = subject.once(all_faults_are_stopped).answer
    return held(answer.ok, shown(answer))


@EVERYTHING.add(
    Grade.REQUIRED,
    f"no fault that is still running {SOON_S:g} s later",
    "End each fault, those included that are just being applied",
    one_call_stops_all_faults,
)
def after_stop_all_no_fault_is_running(subject: Subject) -> str:
    apply_ids = subject.once(all_faults_are_stopped).apply_ids
    running = [each for each in apply_ids if not subject.until_over(each, SOON_S)]
    return held(not running, f"{len(apply_ids)} faults, {len(running)} still running")


@EVERYTHING.add(
    Grade.RECOMMENDED,
    "all faults that were active",
    "Answer with the list of the faults that were ended: a person wants to know what was hit",
    one_call_stops_all_faults,
)
def stop_all_lists_what_it_stopped(subject: Subject) -> str:
    stopped = subject.once(all_faults_are_stopped)
    listed = fields_of(stopped.answer).get("faults")
    ids = {each.get("apply_id") for each in listed or () if isinstance(each, dict)}
    return held(ids >= set(stopped.apply_ids), shown(stopped.answer))
