"""What doctor says of that which holds plans up."""

from __future__ import annotations

from typing import Any

import pytest
from support.plans import abort_plan

from dispatcher import ExecutorClientConfig, ExecutorRejectedError, ExecutorServerError, RecordUnreadableError
from dispatcher.ledger.record import Order, PlanRecord
from workers.breaker.rules import BreakerState
from workers.breaker.shared import BreakerStatus
from workers.commands.diagnostics import Finding, Level, breaker, fsync, worker_fleet
from workers.commands.stalls import (
    applies,
    busy,
    hanging,
    leases,
    longest_step_s,
    retention,
    unreadable,
    unreceived,
)

ORDER = Order(plan=abort_plan(duration_seconds=30), timeout_ms=30_000)
NOW = 1_800_000_000_000
QUEUED = PlanRecord("p1", ORDER.plan, "default", ORDER.timeout_ms, NOW, NOW)
RUNNING = QUEUED._replace(id="p2", started_ms=NOW).applied("f2", NOW)
FAILING = QUEUED.failed_once_more(ExecutorServerError("503 service unavailable", 503), NOW)


def test_no_worker_is_an_error_that_counts_the_plans_that_wait() -> None:
    [finding] = worker_fleet({}, "q", "1.0", 3)
    assert (finding.level, finding.message) == (Level.ERROR, "none answers, and 3 plans wait for one")
    assert "dispatcher worker" in finding.fix


def test_a_worker_that_is_connected_and_does_not_answer_hangs() -> None:
    [finding] = hanging({"one@host": 60.0, "just@begun": 2.0})
    assert (finding.what, finding.level) == ("worker one@host", Level.ERROR)


@pytest.mark.parametrize(
    ("reply", "what"),
    [
        ({}, []),
        ({"waiting": 5, "longest_wait_s": 2.0, "longest_step_s": 1.0}, []),
        ({"waiting": 5, "longest_wait_s": 9.0, "longest_step_s": 9.0}, ["waiting plans"]),
        ({"waiting": 0, "longest_wait_s": 0.0, "longest_step_s": 500.0}, ["worker one"]),
        ({"waiting": "many", "longest_step_s": None}, []),
    ],
    ids=["another version", "a short wait", "all threads are busy", "a step does not end", "nonsense"],
)
def test_plans_that_wait_for_a_thread_and_steps_that_do_not_end_are_found(
    reply: dict[str, Any], what: list[str]
) -> None:
    assert [finding.what for finding in busy({"one": reply}, 120.0)] == what


def test_a_step_may_take_as_long_as_its_calls() -> None:
    configs = [
        ExecutorClientConfig(connection_timeout_sec=5, read_timeout_sec=seconds) for seconds in (10, 60)
    ]
    assert longest_step_s(configs) == 3 * 65 + 30


@pytest.mark.parametrize(
    ("messages", "plan", "found"),
    [
        pytest.param(3, QUEUED._replace(due_ms=NOW - 90_000), 1, id="a plan waits for its message"),
        pytest.param(0, QUEUED._replace(due_ms=NOW - 90_000), 0, id="no message waits"),
        pytest.param(3, QUEUED._replace(due_ms=NOW - 30_000), 0, id="it has not waited for long"),
        pytest.param(3, QUEUED._replace(due_ms=NOW - 90_000, cause="its target"), 0, id="it waits for more"),
        pytest.param(3, RUNNING._replace(due_ms=NOW - 90_000), 0, id="it has begun"),
        pytest.param(3, RecordUnreadableError("p9"), 0, id="it cannot be read"),
    ],
)
def test_messages_that_no_worker_receives_are_an_error(
    messages: int, plan: PlanRecord | RecordUnreadableError, found: int
) -> None:
    findings = list(unreceived(messages, [plan], NOW, 1.5))
    assert [finding.level for finding in findings] == [Level.ERROR] * found
    assert all("3 in the queue" in each.message and "rate_limit" in each.fix for each in findings)


def test_leases_that_are_lost_meanwhile_are_a_warning() -> None:
    assert list(leases(0, 2.0)) == []
    assert [finding.level for finding in leases(3, 2.0)] == [Level.WARNING]


def test_plans_that_cannot_be_read_are_named_with_the_reason() -> None:
    aside = {"p7": "schema version 9"}
    spoiled = RecordUnreadableError("plan p8 cannot be read: KeyError", "p8")
    plans: list[PlanRecord | RecordUnreadableError | None] = [QUEUED, spoiled, None]
    [finding] = unreadable(aside, plans)
    assert finding.level is Level.ERROR
    assert finding.message == "plan p7 is set aside: schema version 9; plan p8 cannot be read: KeyError"
    assert list(unreadable({}, [QUEUED])) == []


@pytest.mark.parametrize(
    ("plans", "level"),
    [
        ([QUEUED, RUNNING], None),
        ([FAILING], Level.ERROR),
        ([FAILING, RUNNING], Level.WARNING),
        ([QUEUED.failed_once_more(ExecutorRejectedError("412", 412), NOW)], None),
    ],
    ids=["all is well", "every apply fails", "some are applied", "a rejection"],
)
def test_an_executor_that_fails_only_applies_is_named_with_its_answer(
    plans: list[PlanRecord], level: Level | None
) -> None:
    found = list(applies(plans))
    assert [finding.level for finding in found] == ([] if level is None else [level])
    for finding in found:
        assert finding.what == "applies of default"
        assert "503" in finding.message


@pytest.mark.parametrize(("keep_s", "level"), [(29, Level.WARNING), (31, Level.OK)])
def test_results_must_be_kept_until_the_last_plan_in_flight_ends(keep_s: int, level: Level) -> None:
    assert retention(keep_s, [RUNNING, None], NOW).level is level
    assert retention(keep_s, [], NOW).level is Level.OK


def status(state: BreakerState, *, by_hand: bool = False) -> BreakerStatus:
    return BreakerStatus("staging", state, "why", 1, None, by_hand, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("shown", "level", "message"),
    [
        (status(BreakerState.CLOSED), Level.OK, "closed"),
        (status(BreakerState.OPEN), Level.ERROR, "open: why"),
        (status(BreakerState.HALF_OPEN), Level.WARNING, "half open: why"),
        (status(BreakerState.OPEN, by_hand=True), Level.WARNING, "open by hand: why"),
        (status(BreakerState.DISABLED, by_hand=True), Level.WARNING, "disabled by hand: why"),
    ],
    ids=["closed", "open", "half open", "opened by hand", "disabled"],
)
def test_a_breaker_that_opened_by_itself_is_an_error(
    shown: BreakerStatus, level: Level, message: str
) -> None:
    found = breaker(shown)
    assert (found.what, found.level, found.message) == ("breaker of staging", level, message)


def test_a_redis_that_leaves_writing_to_the_system_is_a_warning() -> None:
    assert [finding.level for finding in fsync("no")] == [Level.WARNING]
    assert [*fsync("everysec"), *fsync("always"), *fsync(None)] == []


def test_a_finding_is_a_line_with_what_to_do() -> None:
    assert str(Finding("a", Level.ERROR, "b", "c")) == "error    a: b. c"
