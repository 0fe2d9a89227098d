"""The worked example in docs/timeouts.md is what the steps do: a plan of 30 s with the default settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.fake_driver import FakeDriver
from support.plans import abort_plan

from dispatcher import (
    ExecutorClientConfig,
    ExecutorTimeoutError,
    FaultInDoubtError,
    MetricsNotReadyError,
    Settings,
)
from dispatcher.ledger.record import PlanRecord
from dispatcher.observations import Doubt
from dispatcher.settings.executors import ProbeSettings, ServiceSettings
from workers.breaker.rules import Rejection
from workers.drivers.base import StopOutcome
from workers.engine.calls import StepCalls
from workers.engine.decisions import Complete, Fail, Retry, Snooze
from workers.engine.gateway import open_gateway
from workers.engine.state_machine import MOST_LOOKS_PER_SEC, StateMachine

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = (Path(__file__).parents[3] / "docs" / "timeouts.md").read_text("utf-8")
CONFIG = ExecutorClientConfig()
DURATION_S = 30
FAULT = "fault-p1"


class SlowExecutor(FakeDriver):
    """Takes all the time that a call may take, and then gives no answer, for the calls named in `silent`."""

    silent: frozenset[str] = frozenset()
    silent_from_s: float = 0.0
    ends_after_s: float = DURATION_S

    def _called(self, name: str, within_s: float = float("inf")) -> None:
        super()._called(name, within_s)
        if name in self.silent and self.clock_s >= self.silent_from_s:
            within_s = float("inf") if name == "stop" else within_s
            self.clock_s += min(CONFIG.connection_timeout_sec, within_s)
            self.clock_s += min(CONFIG.read_timeout_sec, within_s)
            raise ExecutorTimeoutError("no answer in time")
        if name == "status" and self.clock_s >= self.ends_after_s:
            self.end(FAULT)


def carried_out(
    executor: SlowExecutor, opens: Callable[[float], bool] = lambda _: False
) -> tuple[Complete | Fail, float]:
    """How the plan ends, and how many seconds after its first step. `opens` says when its breaker is open."""
    runner = StateMachine(CONFIG, poll_ms=500, draw=lambda: 0.0)
    plan, timeout_ms = abort_plan(duration_seconds=DURATION_S), round(CONFIG.default_timeout_sec * 1000)
    record = PlanRecord("p1", plan, "default", timeout_ms, submitted_ms=1, due_ms=1, started_ms=1)
    while True:
        now_ms = 1 + round(executor.clock_s * 1000)
        calls = StepCalls(executor, now_ms, clock=lambda: executor.clock_s)
        rejection = Rejection(60.0, "five calls failed") if opens(executor.clock_s) else None
        decision = runner.advance(record, calls, rejection)
        if isinstance(decision, Complete | Fail):
            return decision, executor.clock_s
        assert isinstance(decision, Snooze | Retry)
        record = decision.record
        executor.clock_s += decision.after_ms / 1000 if isinstance(decision, Snooze) else decision.after_s


def silent(*calls: str, from_s: float = 0.0) -> SlowExecutor:
    executor = SlowExecutor()
    executor.silent, executor.silent_from_s = frozenset(calls), from_s
    return executor


def endless(stop_says: StopOutcome) -> SlowExecutor:
    """Its faults end only if they are stopped, and the answer to that says so."""
    executor = SlowExecutor(stop_says=stop_says, stop_ends=stop_says is StopOutcome.OVER)
    executor.ends_after_s = float("inf")
    return executor


def row(what: str) -> list[str]:
    [line] = [line for line in PAGE.splitlines() if line.startswith(f"| {what} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_an_executor_that_answers_at_once() -> None:
    decision, took_s = carried_out(SlowExecutor())
    assert isinstance(decision, Complete)
    assert row("answers at once")[1] == f"{took_s:g}" == "30"


def test_a_fault_that_does_not_end_by_itself() -> None:
    decision, took_s = carried_out(endless(StopOutcome.OVER))
    assert isinstance(decision, Complete)
    assert decision.observation.doubts == (Doubt.WINDOW_UNKNOWN,)
    _, page_s, outcome = row("does not end the fault, but stops it")
    assert page_s == f"{took_s:g}" == "32.5"
    assert f"`{Doubt.LONG}` or `{Doubt.WINDOW_UNKNOWN}`" in outcome


@pytest.mark.parametrize(
    ("what", "executor", "error", "doubtful"),
    [
        (
            "does not end the fault, and cannot stop it",
            endless(StopOutcome.UNSUPPORTED),
            ExecutorTimeoutError,
            True,
        ),
        (
            "does not end the fault, and only accepts to stop it",
            endless(StopOutcome.UNCONFIRMED),
            FaultInDoubtError,
            True,
        ),
        ("never has metrics", SlowExecutor(not_ready=1_000), MetricsNotReadyError, False),
        ("never answers the apply", silent("apply"), ExecutorTimeoutError, True),
        (
            "answers only stops, from the end of the fault on",
            silent("status", "metrics", from_s=DURATION_S),
            ExecutorTimeoutError,
            False,
        ),
        (
            "answers nothing, from the end of the fault on",
            silent("status", "metrics", "stop", from_s=DURATION_S),
            FaultInDoubtError,
            True,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_plan_on_an_executor_that_does_otherwise(
    what: str, executor: SlowExecutor, error: type[Exception], *, doubtful: bool
) -> None:
    decision, took_s = carried_out(executor)
    assert isinstance(decision, Fail)
    assert (type(decision.error), bool(decision.doubt)) == (error, doubtful)
    _, page_s, outcome = row(what)
    assert page_s == f"{took_s:g}"
    assert f"`{error.__name__}`" in outcome
    assert ("in doubt" in outcome or error is FaultInDoubtError) is doubtful


def test_a_breaker_that_opens_while_the_fault_is_there() -> None:
    decision, took_s = carried_out(SlowExecutor(), opens=lambda clock_s: clock_s > 0)
    assert isinstance(decision, Fail)
    assert (type(decision.error), decision.doubt) == (ExecutorTimeoutError, "")
    assert row("has its breaker opened while the fault is there")[1] == f"{took_s:g}" == "60"


def test_so_many_plans_may_be_in_flight_before_looks_become_rarer() -> None:
    assert f"more than {CONFIG.check_interval_sec * MOST_LOOKS_PER_SEC:g} plans" in PAGE
    assert row("`check_interval_sec`")[1] == f"{CONFIG.check_interval_sec:g}"
    assert row("`stop_confirmation_sec`")[1] == f"{CONFIG.stop_confirmation_sec:g}"
    assert row("`takes_effect_sec`, or a plan's own")[1] == f"{CONFIG.takes_effect_sec:g}"


@pytest.mark.parametrize(
    ("config", "sum_on_the_page"),
    [({}, "3 x (5 + 30) + 5"), ({"read_timeout_sec": 120}, "3 x (5 + 120) + 5")],
)
def test_a_probe_keeps_its_place_for_as_long_as_a_step_may_take(
    config: dict[str, float], sum_on_the_page: str
) -> None:
    gateway = open_gateway("default", ExecutorClientConfig(**config), {}, connections=1, poll_ms=500)
    gateway.close()
    assert f"{sum_on_the_page} = {gateway.rules.lease_ms / 1000:g}" in " ".join(PAGE.split())


def test_the_default_lease_is_on_the_page() -> None:
    assert row("`lease_sec` (`[worker]`)")[1] == f"{Settings().worker.lease_sec:g}"


def test_with_the_policy_api_a_call_counts_twice_and_an_observer_adds_two_measurements() -> None:
    config = ExecutorClientConfig(driver="policy_api", observer=ProbeSettings(kind="probe"))
    services = {"PaymentService": ServiceSettings(base_url="http://payment:8080")}
    gateway = open_gateway("default", config, services, connections=1, poll_ms=500)
    assert gateway.rules.lease_ms / 1000 == 3 * 2 * 35 + 2 * (31 + 35) + 5
    gateway.close()
