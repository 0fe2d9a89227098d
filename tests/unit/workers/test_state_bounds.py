"""The state machine at its bounds: just before, at and after a moment; with an observer; and what it says."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest
from support.fake_driver import FakeDriver
from support.machine import FAULT, NOW, QUEUED, RUNNING, UNANSWERED, advance

from dispatcher import (
    Doubt,
    ExecutorClientConfig,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
    PlanCancelledError,
    PlanConflictError,
    PlanExpiredError,
    PlanState,
    RawObservation,
)
from workers.breaker.rules import Rejection
from workers.drivers.base import FaultState, FaultStatus, StopOutcome
from workers.engine.calls import StepCalls
from workers.engine.decisions import Complete, Fail, Retry, Snooze
from workers.engine.gateway import Gateway
from workers.engine.state_machine import StateMachine, _skew_ms, _until, on_our_clock, told_window
from workers.engine.terminal_errors import cancelled, defect, failed, given_up, has_passed, hindrance
from workers.observers.base import Phase

if TYPE_CHECKING:
    from dispatcher.ledger.record import PlanRecord
    from workers.engine.decisions import Decision

END = NOW + 10_000
DEADLINE = END + 30_000
WATCH_MS = 1_500
FIGURES: dict[str, Any] = {"status_code": 503, "latency_ms": 1.5, "error_rate": 1.0, "requests": 100}


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver(applied={FAULT: QUEUED.plan})


@dataclass
class FakeObserver:
    """Notes what it is asked for. Each measurement takes `takes_s` on the driver's clock."""

    driver: FakeDriver
    takes_s: float = 0.0
    is_settled: bool = True
    looks: list[tuple[Phase, int, float]] = field(default_factory=list)
    every_s: float | None = WATCH_MS / 1000
    longest_look_s: float = 1.0
    window: dict[str, Any] = field(default_factory=dict)

    def sample(self, record: PlanRecord, phase: Phase, now_ms: int, within_s: float) -> str:
        self.looks.append((phase, now_ms, within_s))
        self.driver.clock_s += self.takes_s
        return f"{record.seen}{phase[0]}"

    def settled(self, record: PlanRecord, now_ms: int) -> bool:
        return self.is_settled and bool(record.seen)

    def observation(self, record: PlanRecord, now_ms: int, within_s: float) -> RawObservation:
        figures = FIGURES | self.window
        return RawObservation(execution_id=record.apply_id or "", timestamp=datetime.now(UTC), **figures)

    def close(self) -> None:
        """Nothing is open."""


def observed(observer: FakeObserver, record: PlanRecord, now_ms: int, /, **config: Any) -> Decision:
    """A step of a plan whose target is measured."""
    settings = ExecutorClientConfig.model_validate({"retry_jitter": 0.0, **config})
    machine = StateMachine(settings, poll_ms=500, watch_ms=WATCH_MS, draw=lambda: 0.5)
    calls = StepCalls(observer.driver, now_ms, observer, clock=lambda: observer.driver.clock_s)
    return machine.advance(record, calls)


def moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def snoozed(decision: Decision) -> Snooze:
    assert isinstance(decision, Snooze)
    return decision


def test_a_target_is_measured_before_its_fault_which_begins_after_that(driver: FakeDriver) -> None:
    observer = FakeObserver(driver, takes_s=0.2)
    decision = snoozed(observed(observer, QUEUED, NOW))
    assert observer.looks == [(Phase.BEFORE, NOW, 40.0)]
    assert decision.record.seen == "b"
    assert decision.record.applied_ms == NOW + 200
    assert decision.after_ms == 0  # it is in force at once, and measured then
    later = snoozed(observed(FakeObserver(FakeDriver()), QUEUED, NOW, takes_effect_sec=3))
    assert later.after_ms == 3_000


def test_a_running_fault_is_measured_at_its_own_pace_without_a_check(driver: FakeDriver) -> None:
    observer = FakeObserver(driver, takes_s=0.2)
    decision = snoozed(observed(observer, RUNNING, NOW + 1_000))
    assert observer.looks == [(Phase.DURING, NOW + 1_000, 39.0)]
    assert driver.calls == []
    assert (decision.record.seen, decision.after_ms) == ("d", WATCH_MS - 200)


def test_a_measurement_is_not_made_before_the_fault_is_in_force_nor_after_it_is_surely_over(
    driver: FakeDriver,
) -> None:
    late = RUNNING._replace(takes_effect_ms=3_000)
    observer = FakeObserver(driver)
    assert snoozed(observed(observer, late, NOW + 2_999)).after_ms == WATCH_MS
    assert observer.looks == []
    observed(observer, late, NOW + 3_000)
    observed(observer, late, NOW + 12_999)
    assert [phase for phase, _, _ in observer.looks] == [Phase.DURING] * 2
    observed(observer, late, NOW + 13_000)
    assert len(observer.looks) == 2


def test_a_target_that_has_not_settled_is_measured_until_the_last_second(driver: FakeDriver) -> None:
    driver.end(FAULT)
    over = RUNNING.completed()
    observer = FakeObserver(driver, is_settled=False)
    decision = snoozed(observed(observer, over, END))
    assert (decision.record.seen, decision.after_ms) == ("a", WATCH_MS)
    assert observer.looks == [(Phase.AFTER, END, 30.0)]
    assert isinstance(observed(observer, over, DEADLINE - 1_001), Snooze)
    assert isinstance(observed(observer, over, DEADLINE - 1_000), Complete)
    observer.is_settled = True
    for overlapped in (False, True):
        settled = observed(observer, over._replace(overlapped=overlapped), END)
        assert isinstance(settled, Complete)
        assert (Doubt.OVERLAPPED in settled.observation.doubts) is overlapped


def test_the_times_of_an_observer_are_the_servers_already(driver: FakeDriver) -> None:
    window = {"started_at": moment(NOW - 60_000), "ended_at": moment(END)}
    driver.end(FAULT)
    watched: dict[str, Any] = {"driver": "policy_api", "observer": {"kind": "probe"}}
    decision = observed(FakeObserver(driver, window=window), RUNNING.completed(), END, **watched)
    assert isinstance(decision, Complete)
    assert decision.observation.started_at == window["started_at"]


def test_a_fault_that_ended_early_is_certain_until_the_check_before_or_the_last_measurement(
    driver: FakeDriver,
) -> None:
    driver.end(FAULT)
    looked = RUNNING._replace(looked_ms=NOW + 3_000)
    seen = snoozed(advance(driver_without_metrics(driver), looked, NOW + 9_000, check_interval_sec=5))
    assert seen.record.over_ms == NOW + 9_000
    counted = observed(FakeObserver(driver), looked, NOW + 9_000, check_interval_sec=5)
    assert isinstance(counted, Complete)
    assert counted.record.over_ms == NOW + 3_000
    for now_ms, over_ms in ((END - 1, END - 1), (END, None)):
        in_time = advance(driver, RUNNING, now_ms, check_interval_sec=5)
        assert in_time.record.over_ms == over_ms


def driver_without_metrics(driver: FakeDriver) -> FakeDriver:
    driver.not_ready = 1
    return driver


@pytest.mark.parametrize(
    ("now_ms", "pause_ms"),
    [
        (END, 500),
        (END + 1_000, 500),
        (END + 2_000, 1_000),
        (END + 20_000, 5_000),
        (DEADLINE - 1_500, 500),
        (DEADLINE - 1_001, 1),
    ],
)
def test_metrics_are_asked_for_in_growing_pauses_that_end_a_second_before_the_deadline(
    driver: FakeDriver, now_ms: int, pause_ms: int
) -> None:
    driver.end(FAULT)
    driver.not_ready = 1
    decision = snoozed(advance(driver, RUNNING.completed(), now_ms))
    assert decision.after_ms == pause_ms


def test_metrics_that_are_not_ready_in_the_last_second_end_the_plan(driver: FakeDriver) -> None:
    driver.end(FAULT)
    driver.not_ready = 1
    assert isinstance(advance(driver, RUNNING.completed(), DEADLINE - 1_000), Fail)


@pytest.mark.parametrize(("in_flight", "after_ms"), [(0, 5_000), (250, 5_000), (300, 6_000), (5_000, 10_000)])
def test_the_fleet_looks_at_no_more_than_fifty_faults_a_second(
    driver: FakeDriver, in_flight: int, after_ms: int
) -> None:
    decision = snoozed(advance(driver, QUEUED, in_flight=in_flight, check_interval_sec=5))
    assert (decision.after_ms, type(decision.after_ms)) == (after_ms, int)


def test_a_check_is_due_exactly_after_its_interval(driver: FakeDriver) -> None:
    assert snoozed(advance(driver, RUNNING, NOW + 4_999, check_interval_sec=5)).after_ms == 1
    assert driver.calls == []
    assert snoozed(advance(driver, RUNNING, NOW + 5_000, check_interval_sec=5)).after_ms == 5_000
    assert driver.calls == ["status"]


def test_a_fault_that_may_have_begun_earlier_is_looked_at_when_it_is_surely_over(driver: FakeDriver) -> None:
    slow = RUNNING._replace(sent_ms=NOW - 1_001)
    assert snoozed(advance(driver, slow, NOW, check_interval_sec=60)).after_ms == 8_999
    looked = slow._replace(looked_ms=NOW + 8_999)
    assert snoozed(advance(driver, looked, NOW + 8_999, check_interval_sec=60)).after_ms == 1_001
    assert driver.calls == []
    nearly = RUNNING._replace(sent_ms=NOW - 1_000)
    assert snoozed(advance(driver, nearly, NOW, check_interval_sec=60)).after_ms == 10_000


def test_a_fault_is_overdue_two_seconds_after_its_executor_should_have_ended_it(
    driver: FakeDriver, caplog: pytest.LogCaptureFixture
) -> None:
    driver.stop_ends = False
    assert snoozed(advance(driver, RUNNING, END + 1_999)).after_ms == 1
    assert driver.calls == ["status"]
    driver.trouble([None, ExecutorServerError("busy", 503, "")])
    assert snoozed(advance(driver, RUNNING, END + 2_000)).after_ms == 500
    assert driver.calls == ["status", "status", "stop"]
    assert caplog.messages == ["plan p1: its fault lasts too long, and was not stopped: busy"]


def test_a_fault_that_is_still_there_at_the_deadline_ends_its_plan_with_that_reason(
    driver: FakeDriver,
) -> None:
    decision = advance(driver, RUNNING, DEADLINE)
    assert isinstance(decision, Fail)
    assert decision.error.message == (
        "plan p1: its fault lasted longer than planned (30 s beyond its fault's own time)"
    )
    assert driver.calls == ["status", "stop"]


def test_a_check_that_fails_midway_is_logged_and_at_the_end_is_an_attempt(
    driver: FakeDriver, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    driver.trouble([ExecutorServerError("busy", 503, "")] * 2)
    decision = snoozed(advance(driver, RUNNING, NOW + 5_000, check_interval_sec=5))
    assert (decision.record.looked_ms, decision.after_ms) == (NOW + 5_000, 5_000)
    assert caplog.messages == ["plan p1: a check of its fault failed: busy"]
    assert isinstance(advance(driver, RUNNING, END), Retry)
    driver.trouble([ExecutorServerError("busy", 503, "")])
    measured = observed(FakeObserver(driver), RUNNING, NOW + 5_000, check_interval_sec=5)
    assert snoozed(measured).after_ms == WATCH_MS
    measured = observed(FakeObserver(driver), RUNNING, NOW + 5_000, check_interval_sec=5)
    assert snoozed(measured).after_ms == WATCH_MS  # the check succeeds


def test_calls_get_what_is_left_of_the_budget_but_a_second_at_least(driver: FakeDriver) -> None:
    advance(driver, RUNNING, DEADLINE - 5_000)
    advance(driver, RUNNING, DEADLINE - 500)
    advance(driver, RUNNING._replace(timeout_ms=200), END)
    assert driver.within_s[0] == 5.0
    assert set(driver.within_s[1:]) >= {1.0}


@pytest.mark.parametrize(("left_ms", "tried"), [(1_500, True), (1_499, False)])
def test_an_attempt_begins_only_if_a_second_is_left_for_it(
    driver: FakeDriver, left_ms: int, *, tried: bool
) -> None:
    driver.trouble([ExecutorTimeoutError("no answer")])
    driver.end(FAULT)
    decision = advance(driver, RUNNING.completed(), DEADLINE - left_ms, initial_retry_delay_sec=0.5)
    assert isinstance(decision, Retry) is tried


@pytest.mark.parametrize(("asked_s", "after_s"), [(0.1, 0.5), (7.0, 7.0), (99.0, 9.0)])
def test_an_executor_is_left_alone_for_as_long_as_it_asks_within_the_budget(
    driver: FakeDriver, asked_s: float, after_s: float
) -> None:
    driver.trouble([ExecutorServerError("busy", 429, "", asked_s)])
    driver.end(FAULT)
    decision = advance(driver, RUNNING.completed(), DEADLINE - 10_000)
    assert isinstance(decision, Retry)
    assert decision.after_s == after_s


def status(began_ms: int | None, over_ms: int | None) -> FaultStatus:
    moments = [None if ms is None else moment(ms) for ms in (began_ms, over_ms)]
    return FaultStatus(FaultState.COMPLETED, *moments)


SLOW = RUNNING._replace(sent_ms=NOW - 1_000, takes_effect_ms=300)


@pytest.mark.parametrize(
    ("said", "believed"),
    [
        ((None, None), (None, None)),
        ((NOW, END), (NOW, END)),
        ((NOW - 1_500, END + 500), (NOW - 1_500, END + 500)),
        ((NOW - 1_501, END), (NOW + 300, NOW + 300 + 11_501)),
        ((NOW, END + 501), (NOW + 300, NOW + 300 + 10_501)),
        ((NOW - 1_501, END + 499), (NOW + 300, NOW + 300 + 12_000)),
        ((NOW - 1_500, END + 501), (NOW - 1_500, None)),
        ((NOW - 99_999, END), (None, None)),
        ((END + 500, END + 500 + 12_001), (END + 500, None)),
        ((END + 900, END + 600), (NOW + 300, NOW + 300)),
        ((NOW, None), (NOW, None)),
        ((None, END), (None, END)),
        ((NOW - 9_999, None), (None, None)),
        ((None, END + 9_999), (None, None)),
    ],
)
def test_times_that_cannot_be_are_moved_or_left_out(
    said: tuple[int | None, int | None], believed: tuple[int | None, int | None]
) -> None:
    assert told_window(SLOW, status(*said), END) == believed


def seen(began_ms: int | None, over_ms: int | None, *doubts: Doubt) -> RawObservation:
    window = {
        name: None if ms is None else moment(ms)
        for name, ms in (("started_at", began_ms), ("ended_at", over_ms))
    }
    return RawObservation.model_validate(
        FIGURES | window | {"execution_id": FAULT, "timestamp": moment(0), "doubts": doubts}
    )


@pytest.mark.parametrize("window", [(None, None), (NOW, None), (None, END), (NOW, END)])
def test_an_observation_whose_times_can_be_stays_as_it_is(window: tuple[int | None, int | None]) -> None:
    observation = seen(*window)
    assert on_our_clock(SLOW, observation, END) is observation


@pytest.mark.parametrize(
    ("said", "believed", "doubts"),
    [
        ((NOW - 1_501, END), (NOW + 300, NOW + 300 + 11_501), (Doubt.WINDOW_UNKNOWN,)),
        ((NOW - 9_999, None), (None, None), (Doubt.WINDOW_UNKNOWN,)),
        ((NOW, END + 99_999), (NOW, None), (Doubt.WINDOW_UNKNOWN,)),
    ],
    ids=["moved", "left out", "without an end"],
)
def test_an_observation_says_what_is_believed_of_its_times(
    said: tuple[int, int | None], believed: tuple[int | None, int | None], doubts: tuple[Doubt, ...]
) -> None:
    assert on_our_clock(SLOW, seen(*said, Doubt.SHORT), END) == seen(*believed, Doubt.SHORT, *doubts)


@pytest.mark.parametrize("skew_ms", [-1_801, -1_301, -2_301])
def test_an_observation_whose_times_are_moved_as_far_as_the_statuses_is_certain(skew_ms: int) -> None:
    known = SLOW._replace(skew_ms=skew_ms, began_ms=NOW, over_ms=END)
    for record in (SLOW._replace(skew_ms=skew_ms), known):
        moved = on_our_clock(record, seen(NOW - 1_501, END), END)
        assert moved == seen(NOW + 300, NOW + 300 + 11_501)


@pytest.mark.parametrize("skew_ms", [-1_300, -2_302])
def test_an_observation_whose_times_are_moved_farther_has_no_times_if_the_status_has_said_them(
    skew_ms: int,
) -> None:
    known = SLOW._replace(skew_ms=skew_ms, began_ms=NOW, over_ms=END)
    moved = on_our_clock(known, seen(NOW - 1_501, END), END)
    assert moved == seen(None, None, Doubt.WINDOW_UNKNOWN)


def test_a_status_without_a_window_was_not_moved() -> None:
    assert _skew_ms(status(NOW, END), (NOW + 300, END + 300)) == -300
    for said, window in (
        ((NOW - 9_999, None), (None, None)),
        ((NOW, END), (NOW, None)),
        ((None, END), (0, END)),
    ):
        assert _skew_ms(status(*said), window) == 0


@pytest.mark.parametrize(
    ("rejection", "on_open", "record", "after_ms"),
    [
        (Rejection(0.0, "down"), "defer", QUEUED, 1),
        (Rejection(1.2345, "down"), "defer", QUEUED, 1_235),
        (Rejection(1.0, "", budget_spent=True), "defer", QUEUED, 10_000),
        (Rejection(2.0, "down"), "fail", RUNNING, 2_000),
        (Rejection(99.0, "down"), "fail", RUNNING, 40_000),
    ],
    ids=["at once", "rounded up", "no retry is left", "in the middle", "until the deadline"],
)
def test_a_plan_that_must_wait_waits_as_long_as_the_rejection_says(
    driver: FakeDriver, rejection: Rejection, on_open: str, record: PlanRecord, after_ms: int
) -> None:
    decision = snoozed(advance(driver, record, NOW, rejection, circuit_breaker_on_open=on_open))
    assert decision.after_ms == after_ms
    assert decision.record.cause == rejection.message("default")


@pytest.mark.parametrize(("draw", "after_ms"), [(0.0, 2_000), (0.25, 3_000), (1.0, 6_000)])
def test_a_plan_without_a_retry_waits_for_about_the_longest_delay(
    driver: FakeDriver, draw: float, after_ms: int
) -> None:
    config = ExecutorClientConfig(max_retry_delay_sec=4, circuit_breaker_on_open="defer")
    machine = StateMachine(config, poll_ms=500, draw=lambda: draw)
    calls = StepCalls(driver, NOW, clock=lambda: 0.0)
    decision = snoozed(machine.advance(QUEUED, calls, Rejection(1.0, "", budget_spent=True)))
    assert (decision.after_ms, decision.record.started_ms) == (after_ms, NOW)


def test_a_pause_ends_with_the_moment_that_is_waited_for() -> None:
    assert [_until(moment, 10, 5) for moment in (None, 16, 15, 14, 10, 9)] == [5, 5, 5, 4, 0, 0]


def test_a_plan_that_is_deferred_waits_for_the_longest_deferral_or_until_it_expires(
    driver: FakeDriver,
) -> None:
    options: dict[str, Any] = {"circuit_breaker_on_open": "defer", "circuit_breaker_max_defer_sec": 60}
    decision = snoozed(advance(driver, QUEUED, NOW, Rejection(99.0, "down"), **options))
    assert (decision.record.expires_ms, decision.after_ms) == (NOW + 60_000, 60_000)


def test_a_refusal_says_when_to_submit_again(driver: FakeDriver) -> None:
    failed_before = QUEUED.failed_once_more(ExecutorConnectionError("refused", "refused"), NOW)
    for record, rejection, when, after_s in (
        (QUEUED, Rejection(1.2, "down"), "in 2 s", 1.2),
        (QUEUED, Rejection(1.2, "", budget_spent=True), "in 2 s", 1.2),
        (failed_before, Rejection(1.2, "down", by_hand=True), "once it is closed", None),
    ):
        decision = advance(driver, record, NOW, rejection, circuit_breaker_on_open="fail")
        assert isinstance(decision, Fail)
        why = rejection.message("default")
        assert decision.error.message == f"plan p1 was not applied: {why}; submit it again {when}"
        assert getattr(decision.error, "retry_after_s", 0) == after_s


def test_a_plan_whose_budget_is_used_up_says_how_long_it_was_and_what_failed_last() -> None:
    record = QUEUED._replace(timeout_ms=1_500)
    assert given_up(record, "why").message == "plan p1: why (1.5 s beyond its fault's own time)"
    record = record.failed_once_more(ExecutorServerError("busy", 503, ""), NOW)
    assert given_up(record, "why").message.endswith("own time); the last call failed: busy")


def test_what_hinders_a_plan_is_named_in_its_order() -> None:
    def why(record: PlanRecord, now_ms: int = NOW, *, idempotent: bool = True) -> str | None:
        error = hindrance(record, now_ms, idempotent=idempotent)
        return None if error is None else f"{type(error).__name__}: {error.message}"

    assert why(QUEUED) is None
    assert why(RUNNING._replace(in_the_way="p0")) is None
    unanswered = UNANSWERED._replace(failure=ExecutorTimeoutError("silence"))
    assert why(unanswered) is None
    assert why(unanswered._replace(applying_ms=None), idempotent=False) is None
    assert why(UNANSWERED, idempotent=False) == (
        "ExecutorTimeoutError: plan p1: its apply has no answer and must not be repeated "
        "(idempotent_apply = false)"
    )
    assert "no answer (silence) and" in str(why(unanswered, idempotent=False))
    target = f"{QUEUED.plan.service} {QUEUED.plan.api}"
    held = QUEUED._replace(in_the_way="p0")
    assert why(held) == f"PlanConflictError: {target} is held by plan p0"
    assert why(held._replace(cause="in doubt")) == f"PlanConflictError: {target} is held by plan p0; in doubt"
    conflict = hindrance(held, NOW, idempotent=True)
    assert isinstance(conflict, PlanConflictError)
    assert conflict.holder == "p0"
    late = QUEUED._replace(expires_ms=NOW)
    assert why(late) == "PlanExpiredError: plan p1 was not begun in time; it was never applied"
    assert str(why(late._replace(cause="busy"))).endswith("never applied: busy")
    assert why(late._replace(expires_ms=NOW + 1)) is None
    assert why(late._replace(started_ms=None)) is None
    assert why(QUEUED, DEADLINE - 1) is None
    assert why(QUEUED, DEADLINE) == (
        "ExecutorTimeoutError: plan p1: it could not be applied in time (30 s beyond its fault's own time)"
    )


def test_a_moment_has_passed_from_itself_on() -> None:
    assert [has_passed(moment, 5) for moment in (None, 4, 5, 6)] == [False, True, True, False]


def test_a_cancelled_plan_says_why() -> None:
    assert cancelled(QUEUED) is None
    assert str(cancelled(QUEUED._replace(cancelled="enough"))) == "plan p1 was cancelled: enough"
    assert str(cancelled(QUEUED._replace(cancelled=""))) == "plan p1 was cancelled"


def test_the_end_of_a_plan_names_it_once_and_says_what_is_unknown() -> None:
    named = failed(RUNNING, ExecutorTimeoutError("plan p1: x"), NOW)
    assert named.error.message == "plan p1: x"
    assert (named.doubt, named.look_again_ms, named.gone_in_ms) == ("", 0, 0)
    record = RUNNING._replace(takes_effect_ms=500)
    plain = failed(record, ExecutorTimeoutError("x"), NOW)
    assert (plain.error.message, plain.gone_in_ms) == ("plan p1: x", 500)
    assert plain.record == record.ended(plain.error)
    doubtful = failed(record, ExecutorTimeoutError("x"), NOW, doubt="who knows")
    until = datetime.fromtimestamp(NOW / 1000 + 12, UTC).isoformat()
    assert doubtful.error.message == (
        f"plan p1: x; the fault may be alive until {until}; "
        "it is unknown whether its fault is over: who knows"
    )
    assert (doubtful.doubt, doubtful.look_again_ms, doubtful.gone_in_ms) == ("who knows", 1_000, 0)
    assert "alive until" in failed(record, ExecutorTimeoutError("x"), NOW + 11_499, doubt="?").error.message
    over = failed(record, ExecutorTimeoutError("x: who knows"), NOW + 11_500, doubt="who knows")
    assert over.error.message == "plan p1: x: who knows"


def test_a_defect_leaves_a_fault_in_doubt_unless_it_is_over() -> None:
    message = "plan p1: a defect in the worker: ZeroDivisionError('x')"
    for record in (QUEUED, RUNNING):
        end = defect(record, ZeroDivisionError("x"), NOW)
        assert end.error.message.startswith(message)
        assert end.doubt == "a defect in the worker met it"
        assert end.record.applied_for_all_we_know
    assert defect(QUEUED, ZeroDivisionError("x"), NOW).record.doubtful_ms == NOW
    assert defect(RUNNING, ZeroDivisionError("x"), NOW).record.doubtful_ms is None
    over = defect(RUNNING.completed(), ZeroDivisionError("x"), NOW)
    assert (over.error.message, over.doubt) == (message, "")


class UnspeakableError(Exception):
    """What another package may raise."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")


def test_a_defect_is_described_for_any_exception() -> None:
    said = "plan p1: a defect in the worker: "
    assert said + "UnspeakableError" in defect(QUEUED, UnspeakableError(), NOW).error.message
    long = defect(RUNNING.completed(), ValueError("x" * 5_000), NOW).error.message
    assert long == f"{said}ValueError('{'x' * (1_000 - 12)}..."
    longest = ValueError("x" * (1_000 - len("ValueError('')")))
    assert defect(RUNNING.completed(), longest, NOW).error.message == f"{said}{longest!r}"
    assert defect(RUNNING.completed(), SystemExit("\x1b"), NOW).error.message == f"{said}SystemExit('\\x1b')"


class OwnError(ExecutorServerError):
    """A driver's own error, with another constructor."""

    def __init__(self) -> None:
        super().__init__("busy", 503, "wait")


@pytest.mark.parametrize(
    "raised", [SystemExit(1), KeyboardInterrupt(), GeneratorExit(), UnspeakableError()], ids=type
)
def test_any_exception_of_a_driver_ends_its_plan(driver: FakeDriver, raised: Any) -> None:
    driver.trouble([raised])
    config = ExecutorClientConfig()
    gateway = Gateway.of("default", config, cast("Any", driver), poll_ms=500)
    decision = gateway.advance(QUEUED, gateway.calls(QUEUED, NOW), None)
    assert isinstance(decision, Fail)
    assert "a defect in the worker" in decision.error.message


@pytest.mark.parametrize(
    "returned",
    [None, "", 5, b"f1", "\ud800", "a\nb"],
    ids=["none", "no characters", "a number", "bytes", "half a character", "two lines"],
)
def test_an_apply_that_returns_no_id_ends_its_plan_in_doubt_and_is_not_repeated(
    driver: FakeDriver, returned: Any
) -> None:
    def apply(*_: Any) -> Any:
        driver.calls.append("apply")
        return returned

    driver.apply = apply  # type: ignore[method-assign,assignment]
    gateway = Gateway.of("default", ExecutorClientConfig(), cast("Any", driver), poll_ms=500)
    decision = gateway.advance(QUEUED, gateway.calls(QUEUED, NOW), None)
    assert isinstance(decision, Fail)
    assert "FakeDriver.apply returned no id" in decision.error.message
    assert decision.doubt == "a defect in the worker met it"
    assert driver.calls == ["apply"]


def test_a_drivers_own_error_is_retried_as_the_one_that_it_derives_from(driver: FakeDriver) -> None:
    driver.trouble([OwnError()])
    decision = advance(driver, QUEUED)
    assert isinstance(decision, Retry)
    assert type(decision.cause) is ExecutorServerError
    assert decision.cause.args == ("busy", 503, "wait", None)
    assert type(decision.record.failure) is ExecutorServerError


def test_a_stop_that_fails_is_logged_and_tried_again_after_its_pause(
    driver: FakeDriver, caplog: pytest.LogCaptureFixture
) -> None:
    driver.trouble([ExecutorServerError("busy", 503, "")])
    decision = advance(driver, RUNNING._replace(cancelled="enough"))
    assert isinstance(decision, Retry)
    assert (decision.after_s, decision.cause.message) == (0.4, "busy")
    assert (decision.record.attempts, decision.record.failure) == (1, decision.cause)
    [failure] = decision.record.status().failures
    assert (failure.at, failure.cause) == (datetime.fromtimestamp(NOW / 1000, UTC), "busy")
    assert isinstance(decision.record.error, PlanCancelledError)
    assert caplog.messages == ["plan p1: its fault was not stopped: busy"]


def test_a_list_that_is_refused_is_logged(driver: FakeDriver, caplog: pytest.LogCaptureFixture) -> None:
    driver.stop_says = StopOutcome.UNCONFIRMED
    driver.applied.clear()
    driver.trouble([None, None, ExecutorRejectedError("no", 400, "")])
    decision = snoozed(advance(driver, RUNNING._replace(cancelled="enough")))
    assert caplog.messages == ["the Executor's faults cannot be listed: no"]
    assert decision.record.attempts == 1


def test_a_plan_in_doubt_says_of_which_fault_and_why(driver: FakeDriver) -> None:
    driver.applied.clear()
    driver.stop_says = StopOutcome.UNCONFIRMED
    stopping = RUNNING.ending(PlanCancelledError("plan p1 was cancelled"), NOW - 15_000)
    decision = advance(driver, stopping, NOW)
    assert isinstance(decision, Fail)
    assert decision.error.message.startswith(
        f"plan p1 was cancelled; it is unknown whether its fault {FAULT} is over: "
        f"the Executor does not know fault {FAULT}"
    )
    assert decision.doubt == f"the Executor does not know fault {FAULT}"
    assert isinstance(advance(driver, stopping._replace(stopping_ms=NOW - 14_999), NOW), Snooze)


def test_checks_while_a_fault_is_stopped_take_five_seconds_at_most(driver: FakeDriver) -> None:
    driver.stop_says, driver.lists = StopOutcome.UNCONFIRMED, True
    driver.applied.clear()
    advance(driver, RUNNING._replace(cancelled="enough"))
    assert (driver.calls, driver.within_s) == (["stop", "status", "faults"], [0.0, 5.0, 5.0])


def test_an_expired_and_a_failed_plan_end_in_their_states(driver: FakeDriver) -> None:
    late = advance(driver, QUEUED._replace(expires_ms=NOW - 1))
    assert isinstance(late, Fail)
    assert isinstance(late.error, PlanExpiredError)
    assert late.record.state is PlanState.EXPIRED
    error: ExecutorClientError = ExecutorConnectionError("cut", "broken")
    driver.trouble([error])
    retry = advance(driver, QUEUED)
    assert isinstance(retry, Retry)
    assert retry.record.doubtful
    assert retry.record.sent_ms == NOW


def retried(decision: Decision) -> PlanRecord:
    assert isinstance(decision, Retry)
    return decision.record


REFUSED = ExecutorConnectionError("refused", "refused")
TIMED_OUT = ExecutorTimeoutError("no answer")


def test_an_apply_without_an_answer_may_begin_its_fault_until_the_time_that_it_was_sent_with() -> None:
    driver = FakeDriver(calls_take_s=0.25)
    driver.trouble([TIMED_OUT])
    record = retried(advance(driver, QUEUED, apply_not_after_sec=20))
    assert (record.not_after_ms, record.doubtful_ms, record.sent_ms) == (NOW + 20_000, NOW + 250, NOW)
    [failure] = record.status().failures
    assert (failure.at, failure.cause) == (datetime.fromtimestamp(NOW / 1000 + 0.25, UTC), "no answer")


def test_an_apply_that_was_refused_was_not_sent_but_one_before_it_stays_in_doubt() -> None:
    driver = FakeDriver()
    driver.trouble([REFUSED] * 3)
    first = retried(advance(driver, QUEUED))
    assert (first.sent_ms, first.applying_ms, first.doubtful) == (None, None, False)
    later = retried(advance(driver, UNANSWERED, NOW + 500))
    assert (later.sent_ms, later.doubtful_ms, later.not_after_ms) == (NOW, NOW, NOW)
    announced = QUEUED._replace(applying_ms=NOW)
    assert retried(advance(driver, announced, idempotent_apply=False)).applying_ms is None


def test_an_apply_that_must_not_be_repeated_ends_its_plan_with_that_reason() -> None:
    driver = FakeDriver()
    driver.trouble([TIMED_OUT])
    decision = advance(driver, QUEUED, idempotent_apply=False)
    assert isinstance(decision, Fail)
    assert decision.error.message.startswith(
        "plan p1: its apply has no answer (no answer) and must not be repeated (idempotent_apply = false)"
    )


def test_an_apply_is_repeated_with_the_duration_that_it_had(driver: FakeDriver) -> None:
    driver.applied[FAULT] = QUEUED.plan.model_copy(update={"duration_seconds": 15})
    decision = snoozed(advance(driver, UNANSWERED._replace(takes_effect_ms=5_000), takes_effect_sec=1))
    assert (decision.record.apply_id, decision.record.takes_effect_ms) == (FAULT, 5_000)
