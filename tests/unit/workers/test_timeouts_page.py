"""The worked example in docs/timeouts.md is what the steps do: a plan of 30 s with the default settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.fake_driver import FakeDriver
from support.plans import abort_plan

from dispatcher import ExecutorClientConfig, ExecutorTimeoutError, Settings
from dispatcher.ledger.record import PlanRecord
from dispatcher.settings.executors import ProbeSettings, ServiceSettings
from workers.breaker.rules import Rejection
from workers.engine.calls import StepCalls
from workers.engine.decisions import Complete, Fail, Snooze
from workers.engine.gateway import open_gateway
from workers.engine.state_machine import StateMachine

if TYPE_CHECKING:
    from collections.abc import Callable

PAGE = (Path(__file__).parents[3] / "docs" / "timeouts.md").read_text("utf-8")
CONFIG = ExecutorClientConfig()
DURATION_S = 30
FAULT = "fault-p1"


class SlowExecutor(FakeDriver):
    """Takes all the time that a call may take, and then gives no answer, for the calls named in `silent`."""

    silent: frozenset[str] = frozenset()
    ends_after_s: float = DURATION_S

    def _called(self, name: str, within_s: float = float("inf")) -> None:
        super()._called(name, within_s)
        if name in self.silent:
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
    record = PlanRecord("p1", plan, "default", timeout_ms, submitted_ms=0, due_ms=0, started_ms=0)
    while True:
        now_ms = round(executor.clock_s * 1000)
        calls = StepCalls(executor, now_ms, clock=lambda: executor.clock_s)
        rejection = Rejection(60.0, "five calls failed") if opens(executor.clock_s) else None
        decision = runner.advance(record, calls, rejection)
        if isinstance(decision, Complete | Fail):
            return decision, executor.clock_s
        record = decision.record
        executor.clock_s += decision.after_ms / 1000 if isinstance(decision, Snooze) else decision.after_s


def silent(*calls: str) -> SlowExecutor:
    executor = SlowExecutor()
    executor.silent = frozenset(calls)
    return executor


def row(what: str) -> list[str]:
    [line] = [line for line in PAGE.splitlines() if line.startswith(f"| {what} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_an_executor_that_answers_at_once() -> None:
    decision, took_s = carried_out(SlowExecutor())
    assert isinstance(decision, Complete)
    assert row("answers at once")[1] == f"{took_s:g}" == "30"


def test_a_fault_that_does_not_end() -> None:
    executor = SlowExecutor()
    executor.ends_after_s = float("inf")
    decision, took_s = carried_out(executor)
    assert isinstance(decision, Fail)
    assert (type(decision.error), decision.alive_ms) == (ExecutorTimeoutError, 0)
    assert row("says that the fault is still there, again and again")[1] == f"{took_s:g}" == "60"


def test_a_breaker_that_opens_while_the_fault_is_there() -> None:
    decision, took_s = carried_out(SlowExecutor(), opens=lambda clock_s: clock_s > 0)
    assert isinstance(decision, Fail)
    assert (type(decision.error), decision.alive_ms) == (ExecutorTimeoutError, 0)
    assert row("has its breaker opened while the fault is there")[1] == f"{took_s:g}" == "60"


def test_an_apply_that_is_never_answered() -> None:
    decision, took_s = carried_out(silent("apply"))
    assert isinstance(decision, Fail)
    assert "the fault may be alive until" in decision.error.message
    assert row("never answers the apply")[1] == f"{took_s:g}" == "65"


def test_an_executor_that_falls_silent() -> None:
    _, unheard_s = carried_out(silent("status"))
    decision, took_s = carried_out(silent("status", "stop"))
    assert isinstance(decision, Fail)
    assert row("answers nothing more, from the end of the fault on")[1] == (
        f"{unheard_s:g}, and up to {took_s:g} to stop it"
    )


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


def test_with_the_policy_api_a_call_counts_twice_and_an_observer_adds_two_looks() -> None:
    config = ExecutorClientConfig(driver="policy_api", observer=ProbeSettings(kind="probe"))
    services = {"PaymentService": ServiceSettings(base_url="http://payment:8080")}
    gateway = open_gateway("default", config, services, connections=1, poll_ms=500)
    assert gateway.rules.lease_ms / 1000 == 3 * 2 * 35 + 2 * (31 + 35) + 5
    gateway.close()
