"""The checks find each promise that an Executor breaks, and nothing that it keeps."""

from __future__ import annotations

from threading import Event

import pytest
from support.broken_promises import BROKEN, Broken
from support.fake_executor import FakeExecutor

from conformance.checks import CHECKS, nothing_is_left_behind
from conformance.report import Report, Result
from conformance.run import run


def checked(executor: FakeExecutor) -> Report:
    return run(executor.subject(), "http://fake", lambda _: None, Event())


def test_an_executor_that_keeps_all_promises_passes_all_checks() -> None:
    report = checked(FakeExecutor())
    assert [each for each in report.findings if each.result is not Result.PASSED] == []


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: f"an Executor that {broken.how}")
def test_exactly_the_checks_of_a_broken_promise_fail(broken: Broken) -> None:
    report = checked(broken.executor())
    failed = {each.check: each.seen for each in report.findings if each.result is Result.FAILED}
    assert set(failed) == broken.fails, failed


def test_each_check_finds_a_broken_promise() -> None:
    found = {name for each in BROKEN for name in each.fails}
    assert {each.name for each in [*CHECKS, nothing_is_left_behind]} - found == set()
