"""A check that could prove nothing does not pass, and what it began is known in the end."""

from __future__ import annotations

from threading import Event
from typing import TYPE_CHECKING

import pytest
from support.fake_executor import FakeExecutor
from support.fake_faults import PATH, SERVICE, Ways

from conformance.checks.hits import a_percentage_hits_its_share
from conformance.checks.refusals import (
    applies_beyond_the_limit_are_refused,
    without_the_token_no_call_is_answered,
)
from conformance.errors import FailedError, SkippedError
from conformance.report import Result
from conformance.run import run

if TYPE_CHECKING:
    from collections.abc import Mapping

    from conformance.outside import Response


class SlowTraffic:
    """Each request takes a tenth of a second."""

    service, path = SERVICE, PATH

    def __init__(self, executor: FakeExecutor) -> None:
        self._executor = executor

    def send(self, suffix: str = "", headers: Mapping[str, str] | None = None) -> Response:
        self._executor.time.sleep(0.1)
        return self._executor.plane.send(suffix, headers)


def test_a_hang_of_the_data_plane_proves_nothing_of_the_faults_end() -> None:
    executor = FakeExecutor(Ways(goes_on_if_it_hangs=False, lapses_if_it_hangs=False))
    report = run(executor.subject(), "http://fake", lambda _: None, Event())
    not_passed = {each.check: each for each in report.findings if each.result is not Result.PASSED}
    assert list(not_passed) == [
        "a fault ends soon if the Executor hangs",
        "a fault that a hang met does not begin again",
    ]
    hangs = not_passed["a fault ends soon if the Executor hangs"]
    assert hangs.result is Result.SKIPPED
    assert hangs.seen == (
        "no request was answered while the Executor hung: hang its process, not its data plane"
    )


def test_a_few_requests_prove_nothing_of_a_percentage() -> None:
    executor = FakeExecutor(Ways(hits_always=True))
    with pytest.raises(SkippedError, match=r"only \d+ requests were sent in time: at least 50 are needed"):
        a_percentage_hits_its_share.verify(executor.subject(traffic=SlowTraffic(executor)))


def test_a_limit_that_other_faults_fill_fails_the_check() -> None:
    executor = FakeExecutor(Ways(limit=2))
    others = executor.subject()
    for _ in range(2):
        others.applied(others.body(duration_seconds=60))
    with pytest.raises(FailedError, match=r"429 .* to each of 3 applies"):
        applies_beyond_the_limit_are_refused.verify(executor.subject(max_active_faults=2))


def test_a_fault_that_was_applied_without_a_token_is_not_left_behind() -> None:
    executor = FakeExecutor(Ways(takes_no_token=True))
    subject = executor.subject()
    with pytest.raises(FailedError):
        without_the_token_no_call_is_answered.verify(subject)
    assert executor.plane.faults.keys() == subject.faults.keys()
    assert subject.clean_up() == []
    assert executor.running() == []
