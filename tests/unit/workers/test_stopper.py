"""How faults end: a plan ends once its fault is known to be over, or in doubt, which is settled later."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import event, given
from hypothesis import strategies as st
from support.fake_driver import FakeDriver
from support.machine import FAULT, NOW, QUEUED, RUNNING, UNANSWERED, advance
from support.plans import abort_plan
from support.unsteady import FOREVER_S, Manner, Stops, UnsteadyExecutor

from dispatcher import (
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
    FaultFailedError,
    FaultInDoubtError,
    FaultLostError,
    PlanCancelledError,
    PlanState,
)
from workers.drivers.base import ListedFault, StopOutcome
from workers.engine.decisions import Complete, Fail, Release, Retry, Snooze

if TYPE_CHECKING:
    from dispatcher.ledger.record import PlanRecord
    from workers.engine.decisions import Decision

TIMED_OUT = ExecutorTimeoutError("no answer")
LOST = FaultLostError("unknown")
CANCELLED = RUNNING._replace(cancelled="enough")
DOUBTFUL = UNANSWERED._replace(cancelled="")
NO_APPLY = ExecutorRejectedError("the apply came too late, and began nothing", 412, "")


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver(applied={FAULT: QUEUED.plan}, now=lambda: datetime.fromtimestamp(NOW / 1000, UTC))


def stopped(
    driver: FakeDriver, record: PlanRecord, now_ms: int = NOW, **config: Any
) -> tuple[Fail, list[int], int]:
    """How a plan ends that has to; the pauses in ms between its steps; and when."""
    pauses: list[int] = []
    decision = advance(driver, record, now_ms, **config)
    while isinstance(decision, Snooze | Retry):
        pauses.append(wait_ms(decision))
        now_ms += pauses[-1]
        decision = advance(driver, decision.record, now_ms, **config)
    assert isinstance(decision, Fail)
    return decision, pauses, now_ms


def wait_ms(decision: Snooze | Retry) -> int:
    return decision.after_ms if isinstance(decision, Snooze) else math.ceil(decision.after_s * 1000)


def in_doubt(record: PlanRecord, doubt: str = "who knows") -> PlanRecord:
    """The record of a plan that has ended with this doubt, as a worker gets it later."""
    error = PlanCancelledError("enough")
    return record.ending(error, NOW).ended(error)._replace(doubt=doubt)


def test_a_stop_that_says_the_fault_is_over_ends_the_plan_at_once(driver: FakeDriver) -> None:
    decision = advance(driver, CANCELLED)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, PlanCancelledError)
    assert "enough" in str(decision.error)
    assert decision.record.state is PlanState.CANCELLED
    assert (decision.doubt, decision.gone_in_ms) == ("", 0)
    assert driver.calls == ["stop"]


@pytest.mark.parametrize("failed", [False, True], ids=["it is completed", "it failed"])
def test_a_stop_that_was_only_accepted_is_followed_by_a_check_which_says_that_the_fault_is_over(
    driver: FakeDriver, *, failed: bool
) -> None:
    driver.stop_says = StopOutcome.UNCONFIRMED
    driver.trouble([None, FaultFailedError("failed")] if failed else [])
    decision = advance(driver, CANCELLED)
    assert isinstance(decision, Fail)
    assert decision.doubt == ""
    assert driver.calls == ["stop", "status"]


@pytest.mark.parametrize("status", [400, 409, 410])
def test_a_stop_that_is_refused_because_the_fault_is_over_leaves_no_doubt(
    driver: FakeDriver, status: int
) -> None:
    driver.trouble([ExecutorRejectedError("it has ended", status, "")])
    driver.end(FAULT)
    decision = advance(driver, CANCELLED)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, PlanCancelledError)
    assert decision.doubt == ""
    assert driver.calls == ["stop", "status"]


def test_a_stop_that_is_refused_while_the_fault_runs_is_tried_again(driver: FakeDriver) -> None:
    driver.trouble([ExecutorRejectedError("forbidden", 403, ""), None, None])
    decision = advance(driver, CANCELLED)
    assert isinstance(decision, Retry)
    assert isinstance(decision.cause, ExecutorRejectedError)
    assert isinstance(advance(driver, decision.record), Fail)
    assert driver.calls == ["stop", "status", "stop"]


def test_a_stop_that_is_refused_and_followed_by_no_answer_is_tried_again_for_its_refusal(
    driver: FakeDriver,
) -> None:
    driver.trouble([ExecutorRejectedError("forbidden", 403, ""), TIMED_OUT])
    decision = advance(driver, CANCELLED)
    assert isinstance(decision, Retry)
    assert isinstance(decision.cause, ExecutorRejectedError)
    assert driver.calls == ["stop", "status"]


def test_a_stop_that_is_refused_because_a_fault_in_doubt_is_over_settles_it(driver: FakeDriver) -> None:
    driver.trouble([ExecutorRejectedError("it has ended", 409, "")])
    driver.end(FAULT)
    assert isinstance(advance(driver, in_doubt(RUNNING)), Release)


def test_a_fault_that_a_list_does_not_have_is_over(driver: FakeDriver) -> None:
    driver.stop_says, driver.lists = StopOutcome.UNCONFIRMED, True
    driver.trouble([None, LOST])
    decision = advance(driver, CANCELLED)
    assert isinstance(decision, Fail)
    assert decision.doubt == ""
    assert driver.calls == ["stop", "status", "faults"]


def test_a_fault_that_a_list_still_has_is_not_over(driver: FakeDriver) -> None:
    driver.stop_says, driver.stop_ends, driver.lists = StopOutcome.UNCONFIRMED, False, True
    driver.trouble([None, LOST])
    assert isinstance(advance(driver, CANCELLED), Snooze)


def test_a_single_404_says_nothing(driver: FakeDriver) -> None:
    driver.applied.clear()
    driver.stop_says = StopOutcome.UNCONFIRMED
    assert isinstance(advance(driver, CANCELLED), Snooze)
    assert driver.calls == ["stop", "status", "faults"]


def test_a_list_that_is_refused_says_nothing(driver: FakeDriver) -> None:
    driver.stop_says = StopOutcome.UNCONFIRMED
    driver.trouble([None, LOST, ExecutorRejectedError("no", 400, "")])
    assert isinstance(advance(driver, CANCELLED), Snooze)
    driver.trouble([ExecutorRejectedError("no", 400, ""), TIMED_OUT])
    decision = advance(driver, DOUBTFUL)
    assert isinstance(decision, Fail)
    assert decision.doubt == "the last call failed: no answer"


def test_a_fault_that_is_not_known_to_be_over_is_stopped_with_growing_pauses_and_then_in_doubt(
    driver: FakeDriver,
) -> None:
    driver.stop_says, driver.stop_ends = StopOutcome.UNCONFIRMED, False
    decision, pauses, now_ms = stopped(driver, CANCELLED)
    assert pauses == [400, 800, 1_600, 2_000, 2_000, 2_000, 2_000, 2_000, 2_000, 200]
    assert now_ms == NOW + 15_000
    assert isinstance(decision.error, FaultInDoubtError)
    assert decision.error.apply_id == FAULT
    assert "plan p1 was cancelled: enough" in str(decision.error)
    assert f"it is unknown whether its fault {FAULT} is over" in str(decision.error)
    assert decision.doubt == f"the Executor still has fault {FAULT}"
    assert (decision.record.state, decision.look_again_ms) == (PlanState.FAILED, 1_000)
    assert decision.gone_in_ms == 0


def test_how_long_a_confirmation_is_waited_for_is_a_setting(driver: FakeDriver) -> None:
    driver.stop_says, driver.stop_ends = StopOutcome.UNCONFIRMED, False
    _, _, now_ms = stopped(driver, CANCELLED, stop_confirmation_sec=3)
    assert now_ms == NOW + 3_000


def test_a_stop_that_fails_is_tried_again_and_does_not_hide_why_the_plan_failed(driver: FakeDriver) -> None:
    driver.trouble([FaultFailedError("failed"), TIMED_OUT, TIMED_OUT])
    decision, pauses, _ = stopped(driver, RUNNING, NOW + 10_000)
    assert isinstance(decision.error, FaultFailedError)
    assert (decision.doubt, pauses) == ("", [400, 800])
    assert driver.calls == ["status", "stop", "stop", "stop"]


def test_a_stop_that_fails_again_and_again_leaves_a_doubt(driver: FakeDriver) -> None:
    driver.trouble([TIMED_OUT] * 100)
    decision, _, now_ms = stopped(driver, CANCELLED)
    assert now_ms == NOW + 15_000
    assert isinstance(decision.error, FaultInDoubtError)
    assert decision.doubt == "the last call failed: no answer"


def test_a_plan_whose_fault_is_over_is_not_stopped(driver: FakeDriver) -> None:
    decision = advance(driver, CANCELLED.completed())
    assert isinstance(decision, Fail)
    assert decision.doubt == ""
    assert driver.calls == []


def test_an_executor_that_cannot_stop_faults_leaves_a_doubt_at_once(driver: FakeDriver) -> None:
    driver.stop_says, driver.stop_ends = StopOutcome.UNSUPPORTED, False
    decision = advance(driver, CANCELLED, NOW + 4_000)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, PlanCancelledError)
    assert decision.doubt == "the Executor cannot stop faults"
    assert "the fault may be alive until 2030-03-17T17:46:50+00:00" in str(decision.error)
    assert driver.calls == ["stop", "status"]
    record = decision.record._replace(doubt=decision.doubt)
    assert isinstance(advance(driver, record, NOW + 60_000), Snooze)  # it says that the fault is still there
    driver.end(FAULT)
    assert advance(driver, record, NOW + 61_000) == Release(advance(driver, record, NOW + 61_000).record, 0)


def test_an_apply_without_an_answer_is_sent_once_more_to_learn_its_fault_which_is_stopped(
    driver: FakeDriver,
) -> None:
    decision = advance(driver, DOUBTFUL)
    assert isinstance(decision, Fail)
    assert (decision.doubt, decision.record.apply_id) == ("", FAULT)
    assert decision.record.applied_ms == NOW
    assert driver.calls == ["faults", "apply", "stop"]
    [not_after] = driver.not_after
    assert not_after < datetime.fromtimestamp(NOW / 1000, UTC)  # it must begin nothing


def test_a_plan_waits_seconds_for_what_an_apply_without_an_answer_did_and_after_its_end_longer(
    driver: FakeDriver,
) -> None:
    driver.can = driver.supports
    doubtful = DOUBTFUL._replace(plan=abort_plan(duration_seconds=10, headers={"x-test-run": "42"}))
    driver.trouble([None, None, TIMED_OUT, None, None, TIMED_OUT])
    decision = advance(driver, doubtful)
    assert driver.calls == ["faults", "capabilities", "apply"]
    assert driver.within_s == [5.0, 5.0, 5.0]
    advance(driver, decision.record, NOW + 1_000)
    assert driver.within_s[3:] == [5.0, 5.0, driver.longest_call_s]


def test_an_apply_that_an_executor_was_too_busy_for_is_sent_again_only_after_its_plan(
    driver: FakeDriver,
) -> None:
    busy = ExecutorServerError("busy", 503, "")
    decision = advance(driver, UNANSWERED._replace(error=busy))
    assert isinstance(decision, Fail)
    assert decision.doubt == "the last call failed: busy"
    assert driver.calls == ["faults"]
    assert isinstance(advance(driver, decision.record._replace(doubt="x"), NOW + 1_000), Release)
    assert driver.calls == ["faults", "faults", "apply", "stop"]


def test_what_is_sent_once_more_is_what_was_sent(driver: FakeDriver) -> None:
    driver.applied[FAULT] = QUEUED.plan.model_copy(update={"duration_seconds": 15})
    decision = advance(driver, DOUBTFUL._replace(takes_effect_ms=5_000), takes_effect_sec=5)
    assert isinstance(decision, Fail)
    assert (decision.doubt, decision.gone_in_ms) == ("", 5_000)
    lost = QUEUED._replace(doubtful_ms=NOW + 6_000, cancelled="")  # the step wrote nothing of what it sent
    decision = advance(driver, lost, NOW + 6_000, takes_effect_sec=5)
    assert isinstance(decision, Fail)
    assert (decision.doubt, decision.gone_in_ms) == ("", 5_000)


def test_a_list_with_keys_names_the_fault_of_an_apply_without_an_answer(driver: FakeDriver) -> None:
    driver.lists = True
    decision = advance(driver, DOUBTFUL, idempotent_apply=False)
    assert isinstance(decision, Fail)
    assert (decision.doubt, decision.record.apply_id) == ("", FAULT)
    assert driver.calls == ["faults", "stop"]


def test_one_attempt_that_does_not_settle_it_ends_the_plan_with_its_own_error_in_doubt(
    driver: FakeDriver,
) -> None:
    driver.trouble([None, TIMED_OUT])
    decision = advance(driver, DOUBTFUL)
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, PlanCancelledError)
    assert decision.doubt == "the last call failed: no answer"
    assert (decision.look_again_ms, decision.gone_in_ms) == (1_000, 0)


@pytest.mark.parametrize(
    ("trouble", "over"),
    [
        (ExecutorRejectedError("bad request", 400, ""), True),
        (ExecutorRejectedError("the key was used for another fault", 422, ""), False),
        (ExecutorRejectedError("another fault is in the way", 409, ""), False),
        (ExecutorRejectedError("forbidden", 403, ""), False),
        (ExecutorServerError("down", 503, ""), False),
        (ExecutorConnectionError("refused", "refused"), False),
    ],
    ids=repr,
)
def test_an_answer_to_the_apply_that_is_sent_again_says_whether_there_was_a_fault(
    driver: FakeDriver, trouble: ExecutorTimeoutError, *, over: bool
) -> None:
    driver.trouble([None, trouble])
    decision = advance(driver, DOUBTFUL)
    assert isinstance(decision, Fail)
    assert (decision.doubt == "") is over


def test_an_apply_that_fails_when_it_is_sent_again_may_have_been_late_the_first_time(
    driver: FakeDriver,
) -> None:
    driver.trouble([None, FaultFailedError("failed")] * 2)
    assert isinstance(advance(driver, in_doubt(UNANSWERED), NOW + 4_999), Snooze)
    assert isinstance(advance(driver, in_doubt(UNANSWERED), NOW + 5_000), Release)


def test_an_apply_that_began_nothing_so_far_may_still_arrive_until_its_time_has_passed(
    driver: FakeDriver,
) -> None:
    driver.trouble([None, NO_APPLY] * 4)
    record = DOUBTFUL._replace(doubtful_ms=NOW, not_after_ms=NOW + 30_000)
    decision = advance(driver, record)
    assert isinstance(decision, Fail)
    assert decision.doubt == "its apply may still arrive"
    record = decision.record._replace(doubt=decision.doubt)
    for now_ms in (NOW + 20_000, NOW + 30_999):  # the Executor's clock may be behind by a second
        assert isinstance(advance(driver, record, now_ms), Snooze)
    assert isinstance(advance(driver, record, NOW + 31_000), Release)


def test_the_apply_of_a_lost_step_may_begin_its_fault_for_as_long_as_any_apply(driver: FakeDriver) -> None:
    driver.trouble([None, NO_APPLY] * 2)
    record = in_doubt(UNANSWERED._replace(not_after_ms=0))
    assert isinstance(advance(driver, record, NOW + 7_999, apply_not_after_sec=7), Snooze)
    assert isinstance(advance(driver, record, NOW + 8_000, apply_not_after_sec=7), Release)


def test_a_fault_whose_id_is_known_beforehand_is_stopped_though_its_apply_may_still_be_on_its_way(
    driver: FakeDriver,
) -> None:
    driver.ids_known = True
    decision, pauses, now_ms = stopped(driver, DOUBTFUL, NOW + 1_000)
    assert isinstance(decision.error, PlanCancelledError)
    assert (decision.doubt, set(driver.calls)) == ("", {"stop"})
    assert now_ms >= NOW + 5_000
    assert len(pauses) == len(driver.calls) - 1
    assert isinstance(advance(driver, DOUBTFUL, NOW + 4_999), Snooze)
    assert isinstance(advance(driver, DOUBTFUL, NOW + 5_000), Fail)
    decision, _, now_ms = stopped(driver, DOUBTFUL, stop_confirmation_sec=3)
    assert (decision.doubt, now_ms) == ("its apply may still arrive", NOW + 3_000)


def test_a_doubt_about_a_fault_whose_id_is_known_beforehand_names_it(driver: FakeDriver) -> None:
    driver.ids_known = True
    driver.trouble([TIMED_OUT] * 100)
    decision, _, now_ms = stopped(driver, DOUBTFUL)
    assert now_ms == NOW + 15_000
    assert isinstance(decision.error, FaultInDoubtError)
    assert decision.error.apply_id == FAULT


@pytest.mark.parametrize(
    ("applies", "idempotent", "ids_known"),
    [(4, True, False), (1, False, False), (1, True, True)],
    ids=["which is sent again", "which must not be sent again", "whose fault has a known name"],
)
def test_a_fault_that_an_apply_answered_with_nonsense_names_is_stopped(
    driver: FakeDriver, applies: int, *, idempotent: bool, ids_known: bool
) -> None:
    driver.ids_known = ids_known
    driver.trouble([ExecutorProtocolError("what?", FAULT)] * applies + [TIMED_OUT, TIMED_OUT])
    decision, _, _ = stopped(driver, QUEUED, idempotent_apply=idempotent)
    assert isinstance(decision.error, ExecutorProtocolError)
    assert decision.doubt == ""
    assert driver.calls == ["apply"] * applies + ["stop"] * (len(driver.calls) - applies)
    assert FAULT in driver.ended


def test_a_stop_that_fails_does_not_make_a_worker_forget_the_fault_that_nonsense_named(
    driver: FakeDriver,
) -> None:
    nonsense = ExecutorProtocolError("what?", FAULT)
    driver.trouble([TIMED_OUT])
    decision = advance(driver, DOUBTFUL.failed_once_more(nonsense, NOW))
    assert isinstance(decision, Retry)
    assert (decision.record.failure, decision.record.attempts) == (nonsense, 1)
    assert isinstance(advance(driver, decision.record, NOW + 400), Fail)
    assert driver.calls == ["stop", "stop"]


def test_a_fault_that_nonsense_names_is_stopped_after_its_plan_too(driver: FakeDriver) -> None:
    driver.trouble([ExecutorProtocolError("what?", FAULT)] + [TIMED_OUT] * 12)
    decision, _, now_ms = stopped(driver, QUEUED, idempotent_apply=False)
    assert isinstance(decision.error, FaultInDoubtError)
    driver.troubles.clear()
    driver.calls.clear()
    assert isinstance(advance(driver, decision.record, now_ms + 1_000, idempotent_apply=False), Release)
    assert driver.calls == ["stop"]


def test_without_keys_a_doubt_ends_when_the_executor_itself_has_ended_the_fault(driver: FakeDriver) -> None:
    driver.trouble([TIMED_OUT])
    decision = advance(driver, QUEUED, idempotent_apply=False, takes_effect_sec=2)
    assert isinstance(decision, Fail)
    assert decision.doubt == "its apply had no answer, and the Executor keeps no keys"
    record = decision.record._replace(doubt=decision.doubt)
    later = advance(driver, record, NOW + 1_000, idempotent_apply=False)
    assert later == Snooze(record, 18_000)  # the fault, its begin, its end, and an apply that is late
    assert advance(driver, record, NOW + 18_999, idempotent_apply=False) == Snooze(record, 1)
    assert advance(driver, record, NOW + 19_000, idempotent_apply=False) == Release(record, 0)
    assert driver.calls == ["apply"] + ["faults"] * 4


def test_a_fault_that_cannot_be_stopped_but_looked_at_is_not_over_by_the_calendar(driver: FakeDriver) -> None:
    driver.stop_says, driver.stop_ends, driver.ids_known = StopOutcome.UNSUPPORTED, False, True
    record = in_doubt(UNANSWERED)
    assert isinstance(advance(driver, record, NOW + 3_600_000), Snooze)
    driver.end(FAULT)
    assert isinstance(advance(driver, record, NOW + 3_660_000), Release)


def test_a_fault_in_doubt_is_stopped_again_and_again_with_growing_pauses(driver: FakeDriver) -> None:
    driver.stop_says, driver.stop_ends = StopOutcome.UNCONFIRMED, False
    record, now_ms, pauses = in_doubt(RUNNING), NOW, []
    for _ in range(12):
        decision = advance(driver, record, now_ms)
        assert isinstance(decision, Snooze)
        assert (decision.record.state, decision.record.cause) == (record.state, record.cause)
        pauses.append(decision.after_ms)
        record, now_ms = decision.record, now_ms + decision.after_ms
    assert pauses == sorted(pauses)
    assert pauses[-1] == 60_000
    driver.stop_ends = True
    assert isinstance(advance(driver, record, now_ms), Release)


def test_trouble_with_a_fault_in_doubt_does_not_hide_why_its_plan_ended(driver: FakeDriver) -> None:
    driver.trouble([TIMED_OUT])
    record = in_doubt(RUNNING)
    decision = advance(driver, record)
    assert isinstance(decision, Snooze)
    assert decision.record == record._replace(attempts=1)


def test_a_target_is_free_only_after_the_removal_of_a_fault_in_doubt_has_taken_effect(
    driver: FakeDriver,
) -> None:
    decision = advance(driver, in_doubt(RUNNING._replace(takes_effect_ms=5_000)), NOW + 500_000)
    assert isinstance(decision, Release)
    assert decision.gone_in_ms == 5_000
    assert (decision.record.id, decision.record.apply_id) == ("p1", FAULT)


def test_an_id_that_was_learned_is_kept_though_the_stop_fails(driver: FakeDriver) -> None:
    driver.trouble([None, None, TIMED_OUT])
    decision = advance(driver, DOUBTFUL)
    assert isinstance(decision, Retry)
    assert decision.record.apply_id == FAULT
    assert isinstance(advance(driver, decision.record, NOW + 400), Fail)
    assert driver.calls == ["faults", "apply", "stop", "stop"]


def test_a_list_of_other_faults_names_no_fault_of_the_plan(driver: FakeDriver) -> None:
    class Crowded(FakeDriver):
        def faults(self, within_s: float) -> list[ListedFault] | None:
            return [ListedFault("fault-p2", "p2"), ListedFault("fault-3", None)]

    decision = advance(Crowded(applied=driver.applied), DOUBTFUL, idempotent_apply=False)
    assert isinstance(decision, Fail)
    assert decision.doubt


@dataclass
class Run:
    """A plan from its first step until its target is free, on an Executor that keeps the truth for itself."""

    executor: UnsteadyExecutor
    takes_effect_s: float
    cancel_at: int
    """Before which step it is cancelled."""

    lost: frozenset[int]
    """The steps after whose calls the worker is killed."""

    record: PlanRecord = QUEUED
    steps: int = 0

    def step(self) -> Decision | None:
        """One step, as a worker carries it out. None if its worker is killed."""
        self.steps += 1
        record = self.record
        if self.steps == self.cancel_at and not record.state.final:
            self.record = record = record._replace(cancelled="enough")
        if self._must_announce(record):
            record = record._replace(applying_ms=self.executor.now_ms, doubtful_ms=None)
        decision = advance(
            self.executor,
            record,
            self.executor.now_ms,
            idempotent_apply=self.executor.keeps_keys,
            takes_effect_sec=self.takes_effect_s,
        )
        if self.steps in self.lost:
            self._take_over(record)
            return None
        self.record = decision.record
        if isinstance(decision, Snooze | Retry):
            self.executor.clock_s += wait_ms(decision) / 1000
        return decision

    def _must_announce(self, record: PlanRecord) -> bool:
        unsent = record.apply_id is None and record.applying_ms is None and not record.ends
        return unsent and not self.executor.keeps_keys

    def _take_over(self, record: PlanRecord) -> None:
        """What another worker gets once the lease has ended (`fetch.lua`)."""
        self.executor.clock_s += 6
        if record.apply_id is None and not record.state.final:
            not_after_ms = None if record.not_after_ms is None else 0
            record = record._replace(doubtful_ms=self.executor.now_ms, not_after_ms=not_after_ms)
        self.record = record

    def is_gone(self, in_ms: int) -> bool:
        """Whether no fault acts on the target any more in `in_ms` milliseconds."""
        return self.executor.over_s + self.takes_effect_s <= self.executor.clock_s + in_ms / 1000 + 1e-6


@st.composite
def executors(draw: st.DrawFn) -> UnsteadyExecutor:
    keeps_keys = draw(st.booleans())
    checks_not_after = keeps_keys and draw(st.booleans())
    return UnsteadyExecutor(
        keeps_keys=keeps_keys,
        checks_not_after=checks_not_after,
        late_s=draw(st.sampled_from([3.0, 9.5, 20.0])) if checks_not_after else 3.0,
        lists=draw(st.booleans()),
        stops=draw(st.sampled_from(Stops)),
        overtime_s=draw(st.sampled_from([0.0, 4.0, FOREVER_S])) if keeps_keys else 0.0,
        calls_take_s=draw(st.sampled_from([0.0, 1.5])),
        manners=deque(draw(st.lists(st.sampled_from([Manner.WELL, *Manner]), max_size=25))),
    )


runs = st.builds(
    Run,
    executors(),
    takes_effect_s=st.sampled_from([0.0, 0.4, 3.0]),
    cancel_at=st.integers(1, 40),
    lost=st.frozensets(st.integers(1, 12), max_size=2),
)


@given(run=runs)
def test_after_any_answer_of_the_executor_a_plan_ends_with_its_fault(run: Run) -> None:
    decision = run.step()
    while not isinstance(decision, Complete | Fail):
        assert not isinstance(decision, Release)
        decision = run.step()
    budget_s = 10 + 30 + 2 * run.takes_effect_s
    assert run.executor.clock_s <= budget_s + 15 + 6 * len(run.lost) + 20 * run.executor.calls_take_s + 1
    if run.executor.keeps_keys:
        assert len(run.executor.there) <= 1
    if isinstance(decision, Complete) or not decision.doubt:
        event("the fault is known to be over")
        assert run.is_gone(decision.gone_in_ms)
        return
    event("the fault is in doubt")
    for _ in range(60):
        if isinstance(decision, Release):
            break
        run.executor.clock_s += getattr(decision, "look_again_ms", 0) / 1000
        decision = run.step()
    forgotten = any(fault.forgotten for fault in run.executor.there.values())
    can_last = run.executor.overtime_s == FOREVER_S and (forgotten or run.executor.stops is Stops.NEVER)
    if isinstance(decision, Release):
        event("the doubt is settled")
        assert run.is_gone(decision.gone_in_ms)
    else:
        event("the doubt is left to people")
        assert can_last or (forgotten and not run.executor.lists)
