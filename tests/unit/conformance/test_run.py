"""A run ends what it began and has a finding for each check, even if one breaks."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

import pytest
from support.fake_executor import FakeExecutor

from conformance.check import Check, Grade
from conformance.report import Finding, Report, Result
from conformance.run import run

if TYPE_CHECKING:
    from conformance.subject import Subject


def breaks(subject: Subject) -> str:
    subject.applied(subject.body(duration_seconds=60))
    raise IndexError("list index out of range")


def passes(subject: Subject) -> str:
    return subject.applied()


BREAKS = Check("a check of ours has a bug", Grade.REQUIRED, "no bug", "Mend it", breaks)
PASSES = Check("an abort is applied", Grade.REQUIRED, "an id", "Apply it", passes)


def test_a_check_that_breaks_has_failed_with_its_error() -> None:
    report = checked(FakeExecutor())
    assert [each.result for each in report.findings] == [Result.FAILED, Result.PASSED, Result.PASSED]
    assert report.findings[0].seen == "the check broke: IndexError: list index out of range"
    assert not report.conforms


def test_the_fault_of_a_check_that_breaks_is_stopped() -> None:
    checked(executor := FakeExecutor())
    assert len(executor.plane.faults) == 2
    assert executor.running() == []


def test_faults_are_stopped_even_if_a_finding_cannot_be_shown() -> None:
    def show(_: Finding) -> None:
        raise BrokenPipeError

    executor = FakeExecutor()
    with pytest.raises(BrokenPipeError):
        run(executor.subject(), "http://fake", show, Event(), [BREAKS])
    assert len(executor.plane.faults) == 1
    assert executor.running() == []


def checked(executor: FakeExecutor) -> Report:
    return run(executor.subject(), "http://fake", lambda _: None, Event(), [BREAKS, PASSES])
