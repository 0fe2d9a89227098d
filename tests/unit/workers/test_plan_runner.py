"""The step machine: what comes next, for every state and every trouble."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_driver import FakeDriver
from support.plans import abort_plan

from dispatcher import (
    CircuitOpenError,
    ExecutorClientConfig,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
    FaultFailedError,
    FaultLostError,
    PlanCancelledError,
    PlanConflictError,
    PlanExpiredError,
    PlanState,
)
from dispatcher.ledger.record import PlanRecord
from workers.breaker.rules import Rejection
from workers.engine.calls import StepCalls
from workers.engine.decisions import Complete, Decision, Fail, Retry, Snooze
from workers.engine.state_machine import StateMachine

NOW = 1_900_000_000_000
TIMED_OUT = ExecutorTimeoutError("no answer")
TRANSIENT = [TIMED_OUT, ExecutorConnectionError("refused", "refused"), ExecutorServerError("down", 503, "")]
FINAL = [
    ExecutorRejectedError("no", 400, ""),
    ExecutorProtocolError("what?"),
    FaultFailedError("failed"),
    FaultLostError("lost"),
]
QUEUED = PlanRecord(
    id="p1",
    plan=abort_plan(duration_seconds=10),
    executor="default",
    timeout_ms=30_000,
    submitted_ms=NOW,
    due_ms=NOW,
    started_ms=NOW,
)
RUNNING = QUEUED.applied("fault-p1", NOW)


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver(applied={"fault-p1": QUEUED.plan})


def advance(
    driver: FakeDriver,
    record: PlanRecord,
    now_ms: int = NOW,
    rejection: Rejection | None = None,
    **config: object,
) -> Decision:
    settings = ExecutorClientConfig.model_validate({"retry_jitter": 0.0, **config})
    runner = StateMachine(settings, poll_ms=500, draw=lambda: 0.5)
    return runner.advance(record, StepCalls(driver, now_ms, clock=lambda: driver.clock_s), rejection)


def same(error: ExecutorClientError, cause: ExecutorClientError) -> bool:
    """Whether a plan ended with just that, and tells which plan it is."""
    told = f"plan p1: {cause.message}"
    return (type(error), error.args[1:]) == (type(cause), cause.args[1:]) and error.message.startswith(told)


def test_a_queued_plan_is_applied_and_parked_until_its_fault_should_end(driver: FakeDriver) -> None:
    assert advance(driver, QUEUED) == Snooze(RUNNING, 10_000)
    assert driver.calls == ["apply"]


def test_the_key_of_an_apply_is_the_plan_id_each_time(driver: FakeDriver) -> None:
    driver.trouble([TIMED_OUT])
    decision = advance(driver, QUEUED)
    assert isinstance(decision, Retry)
    assert advance(driver, decision.record) == Snooze(RUNNING, 10_000)
    assert list(driver.applied) == ["fault-p1"]


def test_a_fault_that_is_over_is_observed_in_the_same_step(driver: FakeDriver) -> None:
    driver.end("fault-p1")
    decision = advance(driver, RUNNING)
    assert isinstance(decision, Complete)
    assert decision.observation.error_rate == 1.0
    assert decision.record.state is PlanState.OBSERVED
    assert driver.calls == ["status", "metrics"]


def test_a_fault_that_is_still_there_is_looked_at_again(driver: FakeDriver) -> None:
    assert advance(driver, RUNNING, NOW + 10_000) == Snooze(RUNNING, 500)


def test_a_fault_past_its_deadline_is_stopped_and_the_plan_fails(driver: FakeDriver) -> None:
    decision = advance(driver, RUNNING, NOW + 40_000)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, ExecutorTimeoutError)
    assert driver.calls == ["status", "stop"]


def test_a_plan_that_could_not_be_applied_before_its_deadline_fails_unapplied(driver: FakeDriver) -> None:
    decision = advance(driver, QUEUED._replace(attempts=1, failure=TIMED_OUT), NOW + 40_000)
    assert isinstance(decision, Fail)
    assert "no answer" in str(decision.error)
    assert driver.calls == []


def test_a_plan_first_taken_up_after_its_expiry_is_never_applied(driver: FakeDriver) -> None:
    decision = advance(driver, QUEUED._replace(expires_ms=NOW - 1))
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, PlanExpiredError)
    assert decision.record.state is PlanState.EXPIRED
    assert driver.calls == []


def test_a_plan_taken_up_in_time_does_not_expire_later(driver: FakeDriver) -> None:
    begun = QUEUED._replace(expires_ms=NOW + 1)
    assert isinstance(advance(driver, begun, NOW + 5_000), Snooze)


@pytest.mark.parametrize("trouble", TRANSIENT, ids=repr)
@pytest.mark.parametrize("record", [QUEUED, RUNNING, RUNNING.completed()], ids=lambda record: record.state)
def test_a_transient_trouble_is_tried_again_with_growing_delays(
    driver: FakeDriver, record: PlanRecord, trouble: ExecutorTimeoutError
) -> None:
    delays = []
    driver.trouble([trouble] * 3)
    decision = advance(driver, record)
    while isinstance(decision, Retry):
        delays.append(decision.after_s)
        assert decision.record.why == str(trouble)
        decision = advance(driver, decision.record)
    assert delays == [0.5, 1.0, 2.0]
    assert decision.record.attempts == 0


@pytest.mark.parametrize("record", [QUEUED, RUNNING], ids=lambda record: record.state)
def test_a_plan_fails_with_its_last_trouble_when_its_retries_are_used_up(
    driver: FakeDriver, record: PlanRecord
) -> None:
    driver.trouble([TIMED_OUT])
    decision = advance(driver, record._replace(attempts=3))
    assert isinstance(decision, Fail)
    assert same(decision.error, TIMED_OUT)


@pytest.mark.parametrize("trouble", FINAL, ids=repr)
def test_a_final_trouble_ends_the_plan_at_once_and_stops_its_fault(
    driver: FakeDriver, trouble: FaultLostError
) -> None:
    driver.trouble([trouble])
    decision = advance(driver, RUNNING)
    assert isinstance(decision, Fail)
    assert same(decision.error, trouble)
    assert driver.calls == ["status", "stop"]


APPLIED = RUNNING._replace(applied_ms=NOW)


def test_a_stop_that_fails_is_tried_again_and_does_not_hide_why_the_plan_failed(driver: FakeDriver) -> None:
    failed = FaultFailedError("failed")
    driver.trouble([failed, TIMED_OUT, TIMED_OUT])
    decision = advance(driver, APPLIED)
    assert isinstance(decision, Retry)
    decision = advance(driver, decision.record, NOW + 1_000)
    assert isinstance(decision, Retry)
    decision = advance(driver, decision.record, NOW + 2_000)
    assert isinstance(decision, Fail)
    assert same(decision.error, failed)
    assert decision.alive_ms == 0
    assert driver.calls == ["status", "stop", "stop", "stop"]


def test_a_stop_is_tried_some_times_more_though_the_executor_should_have_ended_the_fault(
    driver: FakeDriver,
) -> None:
    driver.trouble([TIMED_OUT] * 10)
    decision = advance(driver, APPLIED._replace(cancelled=""), NOW + 9_000)
    assert isinstance(decision, Retry)
    assert decision.after_s == 1.0
    delays = []
    decision = advance(driver, decision.record, NOW + 10_000)
    while isinstance(decision, Retry):
        delays.append(decision.after_s)
        decision = advance(driver, decision.record, NOW + 10_000)
    assert delays == [1.0, 2.0]
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, PlanCancelledError)
    assert decision.alive_ms == 0


def test_a_cancelled_plan_stops_its_fault(driver: FakeDriver) -> None:
    decision = advance(driver, APPLIED._replace(cancelled="enough"))
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, PlanCancelledError)
    assert "enough" in str(decision.error)
    assert decision.record.state is PlanState.CANCELLED
    assert driver.calls == ["stop"]


def test_a_cancelled_plan_that_was_never_applied_needs_no_executor(driver: FakeDriver) -> None:
    decision = advance(driver, QUEUED._replace(cancelled=""))
    assert isinstance(decision, Fail)
    assert decision.alive_ms == 0
    assert driver.calls == []


def test_a_plan_that_may_have_been_applied_is_not_applied_to_be_cancelled(driver: FakeDriver) -> None:
    decision = advance(driver, QUEUED._replace(cancelled="", doubtful_ms=NOW))
    assert isinstance(decision, Fail)
    assert decision.alive_ms == 10_000
    assert driver.calls == []


def test_an_executor_that_cannot_stop_faults_leaves_them_alive_until_their_end(driver: FakeDriver) -> None:
    class Unstoppable(FakeDriver):
        def stop(self, apply_id: str) -> bool:
            return False

    decision = advance(Unstoppable(), APPLIED._replace(cancelled=""), NOW + 4_000)
    assert isinstance(decision, Fail)
    assert decision.alive_ms == 6_000


@pytest.mark.parametrize(
    ("trouble", "doubtful"),
    [
        (TIMED_OUT, True),
        (ExecutorServerError("down", 503, ""), True),
        (ExecutorConnectionError("broken", "broken"), True),
        (ExecutorConnectionError("refused", "refused"), False),
        (ExecutorConnectionError("no such host", "dns"), False),
    ],
    ids=repr,
)
def test_an_apply_that_may_have_arrived_leaves_a_doubt(
    driver: FakeDriver, trouble: ExecutorTimeoutError, *, doubtful: bool
) -> None:
    driver.trouble([trouble])
    decision = advance(driver, QUEUED)
    assert isinstance(decision, Retry)
    assert decision.record.doubtful is doubtful
    driver.trouble([ExecutorConnectionError("refused", "refused")])
    decision = advance(driver, decision.record._replace(attempts=3))
    assert isinstance(decision, Fail)
    assert decision.alive_ms == (10_000 if doubtful else 0)


def test_an_apply_that_may_have_arrived_is_never_repeated_where_it_would_be_a_second_fault(
    driver: FakeDriver,
) -> None:
    driver.trouble([TIMED_OUT])
    decision = advance(driver, QUEUED, idempotent_apply=False)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, ExecutorTimeoutError)
    assert "no answer" in str(decision.error)
    assert "the fault may be alive until 2030-03-17T17:46:50+00:00" in str(decision.error)
    assert decision.alive_ms == 10_000
    assert driver.calls == ["apply"]


def test_an_apply_whose_step_was_lost_is_never_repeated_either(driver: FakeDriver) -> None:
    decision = advance(driver, QUEUED.in_doubt(NOW - 4_000), idempotent_apply=False)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, ExecutorTimeoutError)
    assert decision.alive_ms == 6_000
    assert driver.calls == []


@pytest.mark.parametrize("reason", ["refused", "dns", "tls"])
def test_an_apply_that_never_arrived_is_repeated_all_the_same(driver: FakeDriver, reason: str) -> None:
    driver.trouble([ExecutorConnectionError("never sent", reason)])
    assert isinstance(advance(driver, QUEUED, idempotent_apply=False), Retry)


def test_an_apply_answered_with_nonsense_is_sent_again_for_its_fault_may_be_there(driver: FakeDriver) -> None:
    driver.trouble([ExecutorProtocolError("what?")])
    decision = advance(driver, QUEUED)
    assert isinstance(decision, Retry)
    assert isinstance(advance(driver, decision.record), Snooze)


def test_a_fault_that_nonsense_speaks_of_is_stopped(driver: FakeDriver) -> None:
    driver.trouble([ExecutorProtocolError("what?", "fault-p1")] * 4)
    decision = advance(driver, QUEUED)
    while isinstance(decision, Retry):
        decision = advance(driver, decision.record)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, ExecutorProtocolError)
    assert decision.alive_ms == 10_000  # nonsense may speak of another fault as well
    assert driver.calls == ["apply"] * 4 + ["stop"]
    assert "fault-p1" in driver.ended


def test_a_fault_whose_id_is_known_beforehand_is_stopped_though_its_apply_had_no_answer(
    driver: FakeDriver,
) -> None:
    driver.ids_known = True
    decision = advance(driver, QUEUED.in_doubt(NOW)._replace(cancelled=""), NOW + 1_000)
    assert isinstance(decision, Fail)
    assert driver.calls == ["stop"]
    assert decision.alive_ms == 9_000  # the apply may still be on its way


def test_what_is_not_stopped_in_doubt_is_tried_again_until_it_cannot_be_alive(driver: FakeDriver) -> None:
    driver.ids_known = True
    driver.trouble([TIMED_OUT] * 100)
    record, now_ms = QUEUED.in_doubt(NOW)._replace(cancelled=""), NOW
    decision = advance(driver, record, now_ms)
    while isinstance(decision, Retry):
        now_ms += math.ceil(decision.after_s * 1000)
        decision = advance(driver, decision.record, now_ms)
    assert isinstance(decision, Fail)
    assert (now_ms, decision.alive_ms) == (NOW + 10_000, 0)


def test_a_plan_whose_target_is_held_and_that_does_not_wait_fails_unapplied(driver: FakeDriver) -> None:
    decision = advance(driver, QUEUED._replace(in_the_way="p0"))
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, PlanConflictError)
    assert decision.error.holder == "p0"
    assert driver.calls == []


def test_what_is_left_of_the_budget_caps_every_call(driver: FakeDriver) -> None:
    advance(driver, QUEUED, NOW)
    advance(driver, APPLIED, NOW + 39_000)
    driver.end("fault-p1")
    advance(driver, APPLIED, NOW + 41_000)
    assert driver.within_s == [40.0, 1.0, 1.0, 1.0]


def test_metrics_that_fail_are_asked_for_again_without_the_status(driver: FakeDriver) -> None:
    driver.end("fault-p1")
    driver.trouble([None, TIMED_OUT])
    decision = advance(driver, RUNNING)
    assert isinstance(decision, Retry)
    assert decision.record.state is PlanState.COMPLETED
    assert isinstance(advance(driver, decision.record), Complete)
    assert driver.calls == ["status", "metrics", "metrics"]


def test_no_retry_begins_after_the_deadline(driver: FakeDriver) -> None:
    driver.trouble([TIMED_OUT])
    assert isinstance(advance(driver, RUNNING, NOW + 39_600), Fail)


STATES = ["applied", "completed", "doubtful"]
REJECTED = Rejection(20.0, "5 calls in a row failed")
SPENT = Rejection(-1.0, "", budget_spent=True)
DOWN = ExecutorServerError("down", 503, "")
FAILED_ONCE = QUEUED.failed_once_more(DOWN)


def test_a_plan_that_meets_an_open_breaker_fails_with_when_to_come_again(driver: FakeDriver) -> None:
    decision = advance(driver, QUEUED, rejection=REJECTED)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, CircuitOpenError)
    assert decision.error.retry_after_s == 20.0
    assert "submit it again in 20 s" in str(decision.error)
    assert "5 calls in a row failed" in str(decision.error)
    assert (decision.record.state, decision.alive_ms) == (PlanState.FAILED, 0)
    assert driver.calls == []


def test_a_plan_that_is_told_to_wait_has_not_begun_and_its_budget_neither(driver: FakeDriver) -> None:
    decision = advance(driver, FAILED_ONCE, NOW + 5_000, REJECTED, circuit_breaker_on_open="defer")
    assert isinstance(decision, Snooze)
    assert decision.after_ms == 20_000
    waiting = decision.record
    assert (waiting.started_ms, waiting.attempts, waiting.failure) == (None, 0, None)
    assert waiting.expires_ms == NOW + 5_000 + 3_600_000
    assert "5 calls in a row failed" in (waiting.why or "")
    assert advance(driver, waiting._replace(started_ms=NOW + 900_000), NOW + 900_000) == Snooze(
        waiting.applied("fault-p1", NOW + 900_000)._replace(started_ms=NOW + 900_000), 10_000
    )


def test_a_plan_waits_for_an_open_breaker_no_longer_than_it_may_wait_at_all(driver: FakeDriver) -> None:
    soon = QUEUED._replace(expires_ms=NOW + 4_000)
    decision = advance(driver, soon, rejection=REJECTED, circuit_breaker_on_open="defer")
    assert isinstance(decision, Snooze)
    assert (decision.after_ms, decision.record.expires_ms) == (4_000, NOW + 4_000)
    late = decision.record._replace(started_ms=NOW + 4_000)
    decision = advance(driver, late, NOW + 4_000, REJECTED, circuit_breaker_on_open="defer")
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, PlanExpiredError)
    assert "5 calls in a row failed" in str(decision.error)


@pytest.mark.parametrize("on_open", ["fail", "defer"])
@pytest.mark.parametrize("record", [APPLIED, APPLIED.completed(), QUEUED.in_doubt(NOW)], ids=STATES)
def test_a_plan_whose_fault_may_be_there_waits_for_an_open_breaker_within_its_budget(
    driver: FakeDriver, record: PlanRecord, on_open: str
) -> None:
    decision = advance(driver, record, NOW + 12_000, REJECTED, circuit_breaker_on_open=on_open)
    assert isinstance(decision, Snooze)
    assert decision.after_ms == 20_000
    assert (decision.record.started_ms, decision.record.state) == (NOW, record.state)
    decision = advance(driver, record, NOW + 32_000, REJECTED, circuit_breaker_on_open=on_open)
    assert isinstance(decision, Snooze)
    assert decision.after_ms == 8_000  # until its deadline
    decision = advance(driver, record, NOW + 40_000, REJECTED, circuit_breaker_on_open=on_open)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, ExecutorTimeoutError)


def test_an_open_breaker_keeps_no_fault_from_being_stopped(driver: FakeDriver) -> None:
    decision = advance(driver, APPLIED._replace(cancelled=""), rejection=REJECTED)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, PlanCancelledError)
    assert driver.calls == ["stop"]


def test_a_fault_past_its_deadline_is_stopped_through_an_open_breaker(driver: FakeDriver) -> None:
    decision = advance(driver, APPLIED, NOW + 40_000, REJECTED)
    assert isinstance(decision, Fail)
    assert "lets no call through" in str(decision.error)
    assert driver.calls == ["stop"]


def test_a_plan_for_which_no_retry_is_left_fails_with_its_last_trouble(driver: FakeDriver) -> None:
    decision = advance(driver, FAILED_ONCE, NOW + 1_000, SPENT)
    assert isinstance(decision, Fail)
    assert same(decision.error, DOWN)
    assert driver.calls == []


@pytest.mark.parametrize(
    "record",
    [APPLIED.failed_once_more(DOWN), FAILED_ONCE._replace(doubtful_ms=NOW)],
    ids=["applied", "doubtful"],
)
def test_a_plan_whose_fault_may_be_there_waits_for_a_retry(driver: FakeDriver, record: PlanRecord) -> None:
    decision = advance(driver, record, NOW + 1_000, SPENT)
    assert isinstance(decision, Snooze)
    assert decision.after_ms == 10_000  # the longest delay, times a half and what chance adds
    assert (decision.record.started_ms, decision.record.attempts) == (NOW, 1)


@pytest.mark.parametrize(
    ("asked_s", "now_ms", "waits_s"), [(0.1, NOW, 0.5), (7.0, NOW, 7.0), (7200.0, NOW, 39.0)]
)
def test_an_executor_that_asks_to_be_left_alone_is_as_far_as_the_budget_goes(
    driver: FakeDriver, asked_s: float, now_ms: int, waits_s: float
) -> None:
    driver.trouble([ExecutorServerError("busy", 429, "", asked_s)])
    decision = advance(driver, QUEUED, now_ms)
    assert isinstance(decision, Retry)
    assert decision.after_s == waits_s


def test_time_that_a_call_took_is_no_longer_there_for_the_next_attempt(driver: FakeDriver) -> None:
    driver.trouble([TIMED_OUT])
    driver.calls_take_s = 39.0
    assert isinstance(advance(driver, QUEUED), Fail)  # of 40 s, an attempt would have half a second


def test_every_attempt_has_a_second_at_least(driver: FakeDriver) -> None:
    driver.trouble([TIMED_OUT, TIMED_OUT])
    assert isinstance(advance(driver, QUEUED, NOW + 38_500), Retry)
    assert isinstance(advance(driver, QUEUED, NOW + 38_501), Fail)


@given(troubles=st.lists(st.sampled_from([None, *TRANSIENT, *FINAL]), max_size=20), ends=st.booleans())
def test_whatever_the_executor_answers_a_plan_ends_with_its_fault(
    troubles: list[ExecutorTimeoutError | None], *, ends: bool
) -> None:
    driver = FakeDriver()
    driver.trouble(troubles)
    now_ms, decision = NOW, advance(driver, QUEUED)
    while isinstance(decision, Snooze | Retry):
        if decision.record.apply_id and decision.record.applied_ms is None:
            decision = replace(decision, record=decision.record._replace(applied_ms=now_ms))
        now_ms += decision.after_ms if isinstance(decision, Snooze) else math.ceil(decision.after_s * 1000)
        if ends and now_ms >= NOW + 10_000:
            driver.end("fault-p1")
        decision = advance(driver, decision.record, now_ms)
    assert len(driver.applied) <= 1
    assert now_ms <= NOW + 10_000 + 30_000 + 500
    if isinstance(decision, Fail) and driver.applied and "fault-p1" not in driver.ended:
        applied_ms = decision.record.applied_ms or now_ms
        assert now_ms + decision.alive_ms >= applied_ms + 10_000
