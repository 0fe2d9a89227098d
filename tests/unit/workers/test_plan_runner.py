"""The step machine: what comes next, for every state and every trouble. How faults end: test_stopper.py."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import pytest
from support.fake_driver import FakeDriver
from support.machine import FAULT, NOW, QUEUED, RUNNING, advance
from support.plans import delay_plan

from dispatcher import (
    CircuitOpenError,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
    FaultFailedError,
    FaultLostError,
    FaultUnobservedError,
    MetricsNotReadyError,
    PlanCancelledError,
    PlanConflictError,
    PlanExpiredError,
    PlanState,
)
from dispatcher.observations import Doubt
from workers.breaker.rules import Rejection
from workers.drivers.base import StopOutcome
from workers.engine.decisions import Complete, Fail, Retry, Snooze

if TYPE_CHECKING:
    from dispatcher.ledger.record import PlanRecord

END = NOW + 10_000
"""When the plan's fault should be over."""

DEADLINE = END + 30_000
LONG = RUNNING._replace(plan=QUEUED.plan.model_copy(update={"duration_seconds": 60}))
TIMED_OUT = ExecutorTimeoutError("no answer")
TRANSIENT = [TIMED_OUT, ExecutorConnectionError("refused", "refused"), ExecutorServerError("down", 503, "")]
FINAL = [
    ExecutorRejectedError("no", 400, ""),
    ExecutorProtocolError("what?"),
    FaultFailedError("failed"),
    FaultLostError("lost"),
]


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver(applied={FAULT: QUEUED.plan})


def at(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


def same(error: ExecutorClientError, cause: ExecutorClientError) -> bool:
    """Whether a plan ended with just that, and names the plan."""
    told = f"plan p1: {cause.message}"
    return (type(error), error.args[1:]) == (type(cause), cause.args[1:]) and error.message.startswith(told)


def test_a_queued_plan_is_applied_and_parked_until_its_fault_should_end(driver: FakeDriver) -> None:
    assert advance(driver, QUEUED) == Snooze(RUNNING, 10_000)
    assert driver.calls == ["apply"]


@pytest.mark.parametrize(("now_ms", "after_s"), [(NOW, 7), (DEADLINE - 3_000, 3)])
def test_an_apply_must_not_begin_its_fault_late_nor_after_it_is_waited_for(
    driver: FakeDriver, now_ms: int, after_s: int
) -> None:
    advance(driver, QUEUED, now_ms, apply_not_after_sec=7)
    assert driver.not_after == [at(now_ms + after_s * 1000)]


def test_an_apply_that_came_too_late_is_sent_again(driver: FakeDriver) -> None:
    driver.trouble([ExecutorRejectedError("the apply came too late", 412, "")])
    decision = advance(driver, QUEUED)
    assert isinstance(decision, Retry)
    assert not decision.record.doubtful


def test_a_long_fault_is_checked_from_time_to_time(driver: FakeDriver) -> None:
    decision = advance(driver, LONG, NOW + 3_000, check_interval_sec=3)
    assert decision == Snooze(LONG._replace(looked_ms=NOW + 3_000), 3_000)
    decision = advance(driver, decision.record, NOW + 58_000, check_interval_sec=3)
    assert decision == Snooze(LONG._replace(looked_ms=NOW + 58_000), 2_000)  # its end is nearer


def test_many_faults_are_looked_at_less_often(driver: FakeDriver) -> None:
    assert advance(driver, LONG, NOW + 10_000, in_flight=1_000) == Snooze(LONG, 10_000)
    decision = advance(driver, LONG, NOW + 20_000, in_flight=1_000)
    assert decision == Snooze(LONG._replace(looked_ms=NOW + 20_000), 20_000)


def test_a_fault_is_not_looked_at_before_its_time(driver: FakeDriver) -> None:
    assert advance(driver, LONG, NOW + 9_999) == Snooze(LONG, 1)
    assert driver.calls == []


@pytest.mark.parametrize("trouble", TRANSIENT, ids=repr)
def test_a_check_midway_that_fails_is_not_an_attempt(
    driver: FakeDriver, trouble: ExecutorTimeoutError
) -> None:
    driver.trouble([trouble] * 5)
    record = LONG
    for seconds in (10, 20, 30, 40, 50):
        decision = advance(driver, record, NOW + seconds * 1000)
        assert decision == Snooze(record._replace(looked_ms=NOW + seconds * 1000), 10_000)
        record = decision.record
    assert record.attempts == 0
    driver.end(FAULT)
    assert isinstance(advance(driver, record, NOW + 60_000), Complete)


@pytest.mark.parametrize("trouble", FINAL, ids=repr)
def test_a_fault_that_fails_or_is_lost_midway_ends_its_plan_then(
    driver: FakeDriver, trouble: FaultLostError
) -> None:
    driver.trouble([trouble])
    decision = advance(driver, LONG, NOW + 10_000)
    assert isinstance(decision, Fail)
    assert same(decision.error, trouble)
    assert driver.calls == ["status", "stop"]


def test_the_key_of_an_apply_is_the_plan_id_each_time(driver: FakeDriver) -> None:
    driver.trouble([TIMED_OUT])
    decision = advance(driver, QUEUED)
    assert isinstance(decision, Retry)
    assert advance(driver, decision.record) == Snooze(
        RUNNING._replace(failures=decision.record.failures), 10_000
    )
    assert list(driver.applied) == ["fault-p1"]


def test_a_fault_that_is_over_is_observed_in_the_same_step(driver: FakeDriver) -> None:
    driver.end(FAULT)
    decision = advance(driver, RUNNING, END)
    assert isinstance(decision, Complete)
    assert decision.observation.error_rate == 1.0
    assert decision.record.state is PlanState.OBSERVED
    assert decision.gone_in_ms == 0
    assert driver.calls == ["status", "metrics"]


def test_a_fault_that_was_removed_by_hand_is_short_and_ends_when_that_is_seen(
    driver: FakeDriver,
) -> None:
    driver.started_at = at(NOW)
    decision = advance(driver, LONG, NOW + 10_000)
    driver.end(FAULT)
    decision = advance(driver, decision.record, NOW + 20_000)
    assert isinstance(decision, Complete)
    assert decision.observation.ended_at == at(NOW + 20_000)
    assert decision.observation.doubts == (Doubt.SHORT,)


def test_a_fault_that_ended_early_has_the_end_that_the_executor_says(driver: FakeDriver) -> None:
    driver.started_at, driver.ended_at = at(NOW), at(NOW + 13_000)
    driver.end(FAULT)
    decision = advance(driver, LONG, NOW + 20_000)
    assert isinstance(decision, Complete)
    assert decision.observation.ended_at == at(NOW + 13_000)
    assert decision.observation.doubts == (Doubt.SHORT,)


@pytest.mark.parametrize("off_s", [-7200, -3, 3, 7200])
def test_a_clock_of_the_executor_that_is_wrong_moves_no_window(driver: FakeDriver, off_s: int) -> None:
    driver.started_at, driver.ended_at = at(NOW + off_s * 1000), at(END + off_s * 1000)
    driver.end(FAULT)
    decision = advance(driver, RUNNING, END)
    assert isinstance(decision, Complete)
    seen = decision.observation
    assert (seen.started_at, seen.ended_at, seen.doubts) == (at(NOW), at(END), ())


@pytest.mark.parametrize("off_s", [-7200, -3, 3, 7200])
def test_a_wrong_clock_of_the_executor_moves_no_window_of_its_figures(driver: FakeDriver, off_s: int) -> None:
    driver.started_at, driver.ended_at = at(NOW + off_s * 1000), at(END + off_s * 1000)
    driver.figures |= {"started_at": driver.started_at, "ended_at": driver.ended_at}
    driver.end(FAULT)
    decision = advance(driver, RUNNING, END)
    assert isinstance(decision, Complete)
    seen = decision.observation
    assert (seen.started_at, seen.ended_at, seen.doubts) == (at(NOW), at(END), ())


@pytest.mark.parametrize(
    ("of_status", "of_figures", "doubts"),
    [
        pytest.param(True, False, (Doubt.SHORT,), id="by the status"),
        pytest.param(False, True, (Doubt.SHORT, Doubt.WINDOW_UNKNOWN), id="by the figures"),
        pytest.param(True, True, (Doubt.SHORT, Doubt.WINDOW_UNKNOWN), id="by both"),
    ],
)
def test_a_fault_that_was_removed_by_hand_is_short_though_its_planned_end_is_given(
    driver: FakeDriver, *, of_status: bool, of_figures: bool, doubts: tuple[Doubt, ...]
) -> None:
    window = {"started_at": at(NOW), "ended_at": at(NOW + 60_000)}
    if of_status:
        driver.started_at, driver.ended_at = window.values()
    if of_figures:
        driver.figures |= window
    driver.end(FAULT)
    decision = advance(driver, LONG, NOW + 20_000)
    assert isinstance(decision, Complete)
    assert decision.observation.ended_at == at(NOW + 20_000)
    assert decision.observation.doubts == doubts


def test_figures_of_a_longer_time_than_the_fault_can_have_lasted_are_in_doubt(driver: FakeDriver) -> None:
    driver.started_at, driver.ended_at = at(NOW), at(END)
    driver.figures |= {"started_at": at(NOW - 86_400_000), "ended_at": at(END)}
    driver.end(FAULT)
    decision = advance(driver, RUNNING, END)
    assert isinstance(decision, Complete)
    seen = decision.observation
    assert (seen.started_at, seen.ended_at, seen.doubts) == (at(NOW), at(END), (Doubt.WINDOW_UNKNOWN,))


@pytest.mark.parametrize("off_s", [-7200, -20, 20, 7200])
@pytest.mark.parametrize("clock_off_s", [0, 3600])
def test_figures_of_another_time_as_long_as_the_fault_are_in_doubt(
    driver: FakeDriver, off_s: int, clock_off_s: int
) -> None:
    driver.started_at, driver.ended_at = at(NOW + clock_off_s * 1000), at(END + clock_off_s * 1000)
    off_ms = (clock_off_s + off_s) * 1000
    driver.figures |= {"started_at": at(NOW + off_ms), "ended_at": at(END + off_ms)}
    driver.end(FAULT)
    decision = advance(driver, RUNNING, END)
    assert isinstance(decision, Complete)
    seen = decision.observation
    assert (seen.started_at, seen.ended_at, seen.doubts) == (at(NOW), at(END), (Doubt.WINDOW_UNKNOWN,))


def test_figures_that_only_say_when_they_began_must_be_possible_too(driver: FakeDriver) -> None:
    driver.started_at, driver.ended_at = at(NOW), at(END)
    driver.figures |= {"started_at": at(NOW - 86_400_000)}
    driver.end(FAULT)
    decision = advance(driver, RUNNING, END)
    assert isinstance(decision, Complete)
    seen = decision.observation
    assert (seen.started_at, seen.ended_at, seen.doubts) == (at(NOW), at(END), (Doubt.WINDOW_UNKNOWN,))


def test_figures_of_another_time_are_in_doubt_if_the_status_says_no_time(driver: FakeDriver) -> None:
    driver.figures |= {"started_at": at(NOW - 60_000), "ended_at": at(NOW - 52_000)}
    driver.end(FAULT)
    decision = advance(driver, RUNNING, END)
    assert isinstance(decision, Complete)
    seen = decision.observation
    assert (seen.started_at, seen.ended_at) == (at(NOW), at(NOW + 8_000))
    assert seen.doubts == (Doubt.SHORT, Doubt.WINDOW_UNKNOWN)


def test_a_wrong_clock_is_known_to_later_steps(driver: FakeDriver) -> None:
    driver.started_at, driver.ended_at = at(NOW + 7_200_000), at(END + 7_200_000)
    driver.figures |= {"started_at": driver.started_at, "ended_at": driver.ended_at}
    driver.end(FAULT)
    driver.trouble([None, ExecutorServerError("busy", 503)])
    decision = advance(driver, RUNNING, END)
    assert isinstance(decision, Retry)
    decision = advance(driver, decision.record, END + 1_000)
    assert isinstance(decision, Complete)
    seen = decision.observation
    assert (seen.started_at, seen.ended_at, seen.doubts) == (at(NOW), at(END), ())


def test_a_fault_that_an_apply_without_an_answer_began_has_its_real_window(driver: FakeDriver) -> None:
    driver.trouble([TIMED_OUT])
    decision = advance(driver, QUEUED)
    driver.started_at, driver.ended_at = at(NOW + 100), at(NOW + 10_100)
    decision = advance(driver, decision.record, NOW + 8_000)
    assert isinstance(decision, Snooze)
    assert decision.after_ms == END - (NOW + 8_000)  # it may have begun with the first apply
    driver.end(FAULT)
    decision = advance(driver, decision.record, NOW + 10_200)
    assert isinstance(decision, Complete)
    seen = decision.observation
    assert (seen.started_at, seen.ended_at, seen.doubts) == (at(NOW + 100), at(NOW + 10_100), ())


def test_the_first_apply_without_an_answer_counts_though_the_next_one_was_refused(driver: FakeDriver) -> None:
    driver.trouble([TIMED_OUT, ExecutorConnectionError("refused", "refused")])
    decision = advance(driver, QUEUED)
    decision = advance(driver, decision.record, NOW + 1_000)
    decision = advance(driver, decision.record, NOW + 3_000)
    assert isinstance(decision, Snooze)
    assert decision.record.sent_ms == NOW


def test_an_apply_that_never_left_begins_nothing(driver: FakeDriver) -> None:
    driver.trouble([ExecutorConnectionError("refused", "refused")])
    decision = advance(driver, QUEUED)
    decision = advance(driver, decision.record, NOW + 1_000)
    assert isinstance(decision, Snooze)
    assert decision.record.planned_end_ms == END + 1_000


def test_a_lost_step_may_have_sent_its_apply_since_the_plan_began(driver: FakeDriver) -> None:
    driver.applied.clear()
    decision = advance(driver, QUEUED._replace(doubtful_ms=NOW + 6_000), NOW + 6_000, takes_effect_sec=2)
    assert isinstance(decision, Snooze)
    assert (decision.record.sent_ms, decision.record.takes_effect_ms) == (NOW, 2_000)


@pytest.mark.parametrize(
    ("late_ms", "pause_ms"),
    [(0, 20), (20, 20), (40, 40), (320, 320), (640, 500), (1_900, 100), (2_000, 500), (2_500, 500)],
)
def test_a_fault_that_is_still_there_is_looked_at_again_in_pauses_that_grow(
    driver: FakeDriver, late_ms: int, pause_ms: int
) -> None:
    decision = advance(driver, RUNNING, END + late_ms)
    assert isinstance(decision, Snooze)
    assert decision.after_ms == pause_ms


def test_a_fault_that_lasts_too_long_is_stopped_and_then_observed_with_a_doubt(driver: FakeDriver) -> None:
    driver.started_at, driver.stop_says = at(NOW), StopOutcome.UNCONFIRMED
    decision = advance(driver, RUNNING, END + 1_999)
    assert driver.calls == ["status"]
    decision = advance(driver, decision.record, END + 2_000)
    assert isinstance(decision, Snooze)
    assert driver.calls == ["status"] * 2 + ["stop"]
    driver.ended_at = at(END + 2_000)
    decision = advance(driver, decision.record, END + 2_500)
    assert isinstance(decision, Complete)
    assert decision.observation.doubts == (Doubt.LONG,)


def test_a_fault_may_hold_its_last_requests_for_as_long_as_it_delays_them(driver: FakeDriver) -> None:
    record = RUNNING._replace(plan=delay_plan(duration_seconds=10, delay_seconds=30))
    advance(driver, record, END + 31_999)
    assert driver.calls == ["status"]
    advance(driver, record, END + 32_000)
    assert driver.calls == ["status"] * 2 + ["stop"]
    assert record.deadline_ms == DEADLINE + 30_000


def test_an_overdue_fault_that_cannot_be_stopped_is_looked_at_until_the_budget_ends(
    driver: FakeDriver,
) -> None:
    driver.stop_says, driver.stop_ends = StopOutcome.UNSUPPORTED, False
    assert isinstance(advance(driver, RUNNING, DEADLINE - 1), Snooze)
    decision = advance(driver, RUNNING, DEADLINE)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, ExecutorTimeoutError)
    assert decision.doubt == "the Executor cannot stop faults"


@pytest.mark.parametrize(("takes_s", "sent_s"), [(0.0, 10), (5.0, 15), (0.1, 11), (4.5, 15)])
def test_a_fault_that_takes_effect_late_lasts_longer_by_that(
    driver: FakeDriver, takes_s: float, sent_s: int
) -> None:
    driver.applied.clear()
    decision = advance(driver, QUEUED, takes_effect_sec=takes_s, check_interval_sec=60)
    assert driver.applied[FAULT].duration_seconds == sent_s
    takes_ms = round(takes_s * 1000)
    assert decision == Snooze(RUNNING._replace(takes_effect_ms=takes_ms), 10_000 + takes_ms)
    assert decision.record.deadline_ms == DEADLINE + 2 * takes_ms


def test_the_plans_own_time_to_take_effect_wins(driver: FakeDriver) -> None:
    driver.applied.clear()
    plan = QUEUED.plan.model_copy(update={"takes_effect_sec": 0.0})
    decision = advance(driver, QUEUED._replace(plan=plan), takes_effect_sec=5)
    assert decision.record.takes_effect_ms == 0


def test_a_target_is_kept_until_the_end_of_its_fault_has_taken_effect(driver: FakeDriver) -> None:
    driver.end(FAULT)
    late = RUNNING._replace(takes_effect_ms=5_000)
    decision = advance(driver, late, NOW + 15_300)
    assert isinstance(decision, Complete)
    assert decision.gone_in_ms == 5_000  # its end is between this check and the last one
    completed = decision.record._replace(state=PlanState.COMPLETED)
    decision = advance(driver, completed, NOW + 18_300)
    assert isinstance(decision, Complete)
    assert decision.gone_in_ms == 2_000
    decision = advance(driver, late._replace(cancelled=""), NOW + 8_000)
    assert isinstance(decision, Fail)
    assert decision.gone_in_ms == 5_000


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


def test_a_plan_first_started_after_its_expiry_is_never_applied(driver: FakeDriver) -> None:
    decision = advance(driver, QUEUED._replace(expires_ms=NOW - 1))
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, PlanExpiredError)
    assert decision.record.state is PlanState.EXPIRED
    assert driver.calls == []


def test_a_plan_started_in_time_does_not_expire_later(driver: FakeDriver) -> None:
    begun = QUEUED._replace(expires_ms=NOW + 1)
    assert isinstance(advance(driver, begun, NOW + 5_000), Snooze)


@pytest.mark.parametrize("trouble", TRANSIENT, ids=repr)
@pytest.mark.parametrize("record", [QUEUED, RUNNING, RUNNING.completed()], ids=lambda record: record.state)
def test_a_transient_trouble_is_tried_again_with_growing_delays(
    driver: FakeDriver, record: PlanRecord, trouble: ExecutorTimeoutError
) -> None:
    delays = []
    driver.trouble([trouble] * 3)
    decision = advance(driver, record, END)
    while isinstance(decision, Retry):
        delays.append(decision.after_s)
        assert decision.record.why == str(trouble)
        decision = advance(driver, decision.record, END)
    assert delays == [0.5, 1.0, 2.0]
    assert decision.record.attempts == 0


@pytest.mark.parametrize("record", [QUEUED, RUNNING], ids=lambda record: record.state)
def test_a_plan_fails_with_its_last_trouble_when_its_retries_are_used_up(
    driver: FakeDriver, record: PlanRecord
) -> None:
    driver.trouble([TIMED_OUT])
    decision = advance(driver, record._replace(attempts=3), END)
    assert isinstance(decision, Fail)
    assert same(decision.error, TIMED_OUT)
    assert decision.doubt == ""
    assert FAULT in driver.ended


@pytest.mark.parametrize("trouble", FINAL, ids=repr)
def test_a_final_trouble_ends_the_plan_at_once_and_stops_its_fault(
    driver: FakeDriver, trouble: FaultLostError
) -> None:
    driver.trouble([trouble])
    decision = advance(driver, RUNNING, END)
    assert isinstance(decision, Fail)
    assert same(decision.error, trouble)
    assert driver.calls == ["status", "stop"]


def test_a_cancelled_plan_that_was_never_applied_needs_no_executor(driver: FakeDriver) -> None:
    decision = advance(driver, QUEUED._replace(cancelled=""), takes_effect_sec=5)
    assert isinstance(decision, Fail)
    assert (decision.doubt, decision.gone_in_ms) == ("", 0)
    assert driver.calls == []


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
    driver.trouble([ExecutorConnectionError("refused", "refused")] * 3)
    decision = advance(driver, decision.record._replace(attempts=3))
    assert isinstance(decision, Fail)
    assert same(decision.error, ExecutorConnectionError("refused", "refused"))
    assert bool(decision.doubt) is doubtful


@pytest.mark.parametrize("status", [101, 303])
def test_the_fault_of_an_apply_that_was_neither_taken_nor_refused_is_stopped(
    driver: FakeDriver, status: int
) -> None:
    driver.trouble([ExecutorRejectedError("see another page", status, "")])
    decision = advance(driver, QUEUED)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, ExecutorRejectedError)
    assert driver.calls == ["apply", "faults", "apply", "stop"]
    assert driver.ended == {FAULT}


def test_an_apply_that_may_have_arrived_is_never_repeated_where_it_would_be_a_second_fault(
    driver: FakeDriver,
) -> None:
    driver.trouble([TIMED_OUT])
    decision = advance(driver, QUEUED, idempotent_apply=False)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, ExecutorTimeoutError)
    assert "no answer" in str(decision.error)
    assert "the fault may be alive until 2030-03-17T17:46:50+00:00" in str(decision.error)
    assert decision.doubt == "its apply had no answer, and the Executor keeps no keys"
    assert driver.calls == ["apply", "faults"]


def test_an_apply_whose_step_was_lost_is_never_repeated_either(driver: FakeDriver) -> None:
    decision = advance(driver, QUEUED.in_doubt(NOW - 4_000), idempotent_apply=False)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, ExecutorTimeoutError)
    assert decision.doubt
    assert driver.calls == ["faults"]


@pytest.mark.parametrize("reason", ["refused", "dns", "tls"])
def test_an_apply_that_never_arrived_is_repeated_all_the_same(driver: FakeDriver, reason: str) -> None:
    driver.trouble([ExecutorConnectionError("never sent", reason)])
    assert isinstance(advance(driver, QUEUED, idempotent_apply=False), Retry)


def test_an_apply_answered_with_nonsense_is_sent_again_for_its_fault_may_be_there(driver: FakeDriver) -> None:
    driver.trouble([ExecutorProtocolError("what?")])
    decision = advance(driver, QUEUED)
    assert isinstance(decision, Retry)
    assert isinstance(advance(driver, decision.record), Snooze)


def test_a_plan_whose_target_is_held_and_that_does_not_wait_fails_unapplied(driver: FakeDriver) -> None:
    decision = advance(driver, QUEUED._replace(in_the_way="p0"))
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, PlanConflictError)
    assert decision.error.holder == "p0"
    assert driver.calls == []


def test_what_is_left_of_the_budget_and_the_plans_timeout_cap_every_call(driver: FakeDriver) -> None:
    advance(driver, QUEUED, NOW + 6_000)
    advance(driver, RUNNING, NOW + 39_000)
    driver.end(FAULT)
    advance(driver, RUNNING, NOW + 41_000)
    assert driver.calls == ["apply", "status", "stop", "status", "metrics"]
    assert driver.within_s == [30.0, 1.0, 0.0, 1.0, 1.0]


def test_metrics_that_are_not_ready_are_asked_for_again_until_the_budget_ends(driver: FakeDriver) -> None:
    driver.end(FAULT)
    driver.not_ready = 1_000
    pauses, now_ms, decision = [], END, advance(driver, RUNNING, END)
    while isinstance(decision, Snooze):
        assert (decision.record.state, decision.record.attempts) == (PlanState.COMPLETED, 0)
        pauses.append(decision.after_ms)
        now_ms += decision.after_ms
        decision = advance(driver, decision.record, now_ms)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, MetricsNotReadyError)
    assert (decision.doubt, decision.gone_in_ms) == ("", 0)
    assert now_ms == DEADLINE - 1_000  # one last request, of a second at most
    assert pauses[:6] == [500, 500, 500, 750, 1125, 1687]
    assert max(pauses) == 5_000


def test_metrics_that_become_ready_are_taken(driver: FakeDriver) -> None:
    driver.end(FAULT)
    driver.not_ready = 1
    decision = advance(driver, RUNNING, END)
    assert isinstance(advance(driver, decision.record, END + 500), Complete)
    assert driver.calls == ["status", "metrics", "metrics"]


def test_a_fault_that_no_request_met_is_an_error_and_not_a_zero(driver: FakeDriver) -> None:
    driver.end(FAULT)
    driver.figures = {"requests": 0}
    decision = advance(driver, RUNNING, END)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, FaultUnobservedError)
    assert isinstance(advance(driver, RUNNING, END, min_requests=0), Complete)


def test_metrics_that_fail_are_asked_for_again_without_the_status(driver: FakeDriver) -> None:
    driver.end(FAULT)
    driver.trouble([None, TIMED_OUT])
    decision = advance(driver, RUNNING, END)
    assert isinstance(decision, Retry)
    assert decision.record.state is PlanState.COMPLETED
    assert isinstance(advance(driver, decision.record, END), Complete)
    assert driver.calls == ["status", "metrics", "metrics"]


def test_no_retry_begins_after_the_deadline(driver: FakeDriver) -> None:
    driver.trouble([TIMED_OUT])
    assert isinstance(advance(driver, RUNNING, NOW + 39_600), Fail)


STATES = ["applied", "completed", "doubtful"]
REJECTED = Rejection(20.0, "5 calls in a row failed")
SPENT = Rejection(-1.0, "", budget_spent=True)
DOWN = ExecutorServerError("down", 503, "")
FAILED_ONCE = QUEUED.failed_once_more(DOWN, NOW)


def test_a_plan_that_meets_an_open_breaker_fails_with_when_to_come_again(driver: FakeDriver) -> None:
    decision = advance(driver, QUEUED, rejection=REJECTED)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, CircuitOpenError)
    assert decision.error.retry_after_s == 20.0
    assert "submit it again in 20 s" in str(decision.error)
    assert "5 calls in a row failed" in str(decision.error)
    assert (decision.record.state, decision.doubt) == (PlanState.FAILED, "")
    assert driver.calls == []


def test_a_plan_that_must_wait_has_not_begun_and_its_budget_neither(driver: FakeDriver) -> None:
    decision = advance(driver, FAILED_ONCE, NOW + 5_000, REJECTED, circuit_breaker_on_open="defer")
    assert isinstance(decision, Snooze)
    assert decision.after_ms == 20_000
    waiting = decision.record
    assert (waiting.started_ms, waiting.attempts, waiting.failure) == (None, 0, None)
    assert waiting.expires_ms == NOW + 5_000 + 3_600_000
    assert "5 calls in a row failed" in (waiting.why or "")
    later = NOW + 900_000
    decision = advance(driver, waiting._replace(started_ms=later), later)
    applied = waiting._replace(started_ms=later, sent_ms=later).applied(FAULT, later)
    assert decision == Snooze(applied, 10_000)


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
@pytest.mark.parametrize("record", [RUNNING, RUNNING.completed(), QUEUED.in_doubt(NOW)], ids=STATES)
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
    decision = advance(driver, RUNNING._replace(cancelled=""), rejection=REJECTED)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, PlanCancelledError)
    assert driver.calls == ["stop"]


def test_a_fault_past_its_deadline_is_stopped_through_an_open_breaker(driver: FakeDriver) -> None:
    decision = advance(driver, RUNNING, NOW + 40_000, REJECTED)
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
    [RUNNING.failed_once_more(DOWN, NOW), FAILED_ONCE._replace(doubtful_ms=NOW)],
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
