"""A plan that asks for more than its Executor can is refused, and no apply is sent for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.fake_driver import FakeDriver
from support.machine import NOW, QUEUED, advance
from support.plans import abort_plan

from dispatcher import (
    Capability,
    CapabilityMissingError,
    ExecutorClientConfig,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
    PlanCancelledError,
)
from dispatcher.capabilities import CAPABILITIES_OF_DRIVERS
from workers.breaker.rules import Outcome, Rejection
from workers.drivers.base import Driver
from workers.drivers.faults_api import FaultsApiDriver
from workers.drivers.policy_api import PolicyApiDriver
from workers.engine.calls import StepCalls
from workers.engine.capabilities import KEPT_MS
from workers.engine.decisions import Fail, Release, Retry, Snooze
from workers.engine.state_machine import StateMachine

if TYPE_CHECKING:
    from dispatcher.ledger.record import PlanRecord

HEADERS = QUEUED._replace(plan=abort_plan(duration_seconds=10, headers={"x-test-run": "42"}))
GRPC = QUEUED._replace(
    plan=abort_plan(duration_seconds=10, protocol="grpc", grpc_status=14, abort_http_status=None)
)
BOTH = QUEUED._replace(plan=GRPC.plan.with_headers(HEADERS.plan.headers))
ALL = frozenset({"headers", "grpc_status"})


def test_a_plan_that_asks_for_nothing_makes_no_call_more() -> None:
    driver = FakeDriver()
    assert isinstance(advance(driver, QUEUED), Snooze)
    assert driver.calls == ["apply"]


@pytest.mark.parametrize("record", [HEADERS, GRPC, BOTH], ids=["headers", "gRPC", "both"])
def test_a_plan_is_applied_if_its_executor_says_that_it_can(record: PlanRecord) -> None:
    driver = FakeDriver(can=ALL | {"dead_man", "of the future"})
    assert isinstance(advance(driver, record), Snooze)
    assert driver.calls == ["capabilities", "apply"]


@pytest.mark.parametrize(
    ("record", "can", "missing"),
    [
        (HEADERS, frozenset(), ["headers"]),
        (GRPC, frozenset({"headers"}), ["grpc_status"]),
        (BOTH, frozenset({"dead_man"}), ["grpc_status", "headers"]),
    ],
    ids=["none at all", "another one", "two"],
)
def test_a_plan_ends_at_once_if_its_executor_does_not_say_that_it_can(
    record: PlanRecord, can: frozenset[str], missing: list[str]
) -> None:
    driver = FakeDriver(can=can)
    decision = advance(driver, record)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, CapabilityMissingError)
    assert decision.error.missing == missing
    assert decision.error.message.startswith("plan p1 asks for ")
    assert f"executor default lacks {' and '.join(missing)}: its health does not" in decision.error.message
    assert not decision.doubt
    assert driver.calls == ["capabilities"]


@pytest.mark.parametrize("declared", [["headers"], []], ids=["it can", "it cannot"])
def test_what_the_settings_declare_is_not_asked(declared: list[str]) -> None:
    driver = FakeDriver()
    decision = advance(driver, HEADERS, capabilities=declared)
    assert driver.calls == (["apply"] if declared else [])
    assert isinstance(decision, Snooze if declared else Fail)
    if isinstance(decision, Fail):
        assert decision.error.message.endswith("lacks headers: its settings do not list that")


def test_what_the_driver_cannot_express_is_refused_even_if_the_settings_declare_it() -> None:
    driver = FakeDriver(supports=frozenset({"headers"}), can=ALL)
    decision = advance(driver, GRPC, capabilities=["grpc_status"])
    assert isinstance(decision, Fail)
    assert decision.error.message == (
        "plan p1 asks for protocol grpc, and executor default lacks grpc_status: "
        "its driver cannot express that"
    )
    assert driver.calls == []


def machine(**config: Any) -> StateMachine:
    return StateMachine(ExecutorClientConfig.model_validate(config), poll_ms=500, draw=lambda: 0.5)


def test_an_answer_holds_for_all_plans_for_a_short_time() -> None:
    driver, runner = FakeDriver(can=ALL), machine()
    for number, now_ms in enumerate((NOW, NOW, NOW + KEPT_MS - 1, NOW + KEPT_MS)):
        record = HEADERS._replace(id=f"p{number}")
        runner.advance(record, StepCalls(driver, now_ms, clock=lambda: 0.0))
    assert driver.calls == ["capabilities", "apply", "apply", "apply", "capabilities", "apply"]
    driver.can = frozenset()
    decision = runner.advance(HEADERS, StepCalls(driver, NOW + 3 * KEPT_MS, clock=lambda: 0.0))
    assert isinstance(decision, Fail)


@pytest.mark.parametrize(
    "trouble",
    [
        ExecutorTimeoutError("no answer"),
        ExecutorConnectionError("broken", "broken"),
        ExecutorServerError("down", 503, ""),
    ],
    ids=["no answer", "a broken connection", "503"],
)
def test_trouble_while_it_is_asked_is_retried_and_leaves_no_fault_in_doubt(
    trouble: ExecutorClientError,
) -> None:
    driver, runner = FakeDriver(can=ALL), machine(retry_jitter=0.0)
    driver.trouble([trouble])
    calls = StepCalls(driver, NOW, clock=lambda: 0.0)
    decision = runner.advance(HEADERS, calls)
    assert decision == Retry(decision.record, 0.5, trouble)
    assert not decision.record.applied_for_all_we_know
    assert calls.report.outcome is Outcome.FAILURE
    assert calls.counts == {}, "these are the calls for plans"
    again = runner.advance(decision.record, StepCalls(driver, NOW + 500, clock=lambda: 0.0))
    assert isinstance(again, Snooze)
    assert driver.calls == ["capabilities", "capabilities", "apply"]


@pytest.mark.parametrize(
    "trouble",
    [ExecutorRejectedError("no", 401, ""), ExecutorProtocolError("what?")],
    ids=["it refuses", "its answer makes no sense"],
)
def test_an_executor_that_does_not_say_what_it_can_do_ends_the_plan(trouble: ExecutorClientError) -> None:
    driver = FakeDriver()
    driver.trouble([trouble])
    decision = advance(driver, HEADERS)
    assert isinstance(decision, Fail)
    assert type(decision.error) is type(trouble)
    assert not decision.doubt
    assert driver.calls == ["capabilities"]


def test_an_open_breaker_is_not_passed_by() -> None:
    driver = FakeDriver(can=ALL)
    assert isinstance(advance(driver, HEADERS, rejection=Rejection(5.0, "open")), Fail)
    assert driver.calls == []


def test_an_apply_is_never_sent_again_to_an_executor_that_lacks_what_it_needs() -> None:
    """Not even to learn the id of its fault: such an apply would hit all requests."""
    driver = FakeDriver()
    doubtful = HEADERS.in_doubt(NOW, NOW)
    for record in (doubtful, doubtful._replace(cancelled="enough")):
        decision = advance(driver, record)
        assert isinstance(decision, Fail)
        assert isinstance(decision.error, PlanCancelledError if record.cancelled else CapabilityMissingError)
        assert "lacks headers" in decision.doubt
        later = decision.record._replace(doubt=decision.doubt)
        assert isinstance(advance(driver, later, NOW + 5_000), Snooze)
        assert isinstance(advance(driver, later, NOW + 60_000), Release)
    assert set(driver.calls) == {"capabilities", "faults"}


def test_the_table_of_drivers_is_what_they_support() -> None:
    assert FaultsApiDriver.supports == CAPABILITIES_OF_DRIVERS["faults_api"] == ALL
    assert PolicyApiDriver.supports == CAPABILITIES_OF_DRIVERS["policy_api"] == {Capability.HEADERS}


def test_a_driver_of_another_package_gets_no_plan_that_it_was_not_written_for() -> None:
    assert Driver.supports == frozenset()
