"""A probe holds its rate while the target holds its requests."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_driver import FakeDriver
from support.fake_target import FakeTarget
from support.plans import delay_plan, plan_record

from dispatcher import ExecutorClientConfig
from dispatcher.observations import Doubt, RawObservation
from dispatcher.settings.observers import ProbeSettings, ServiceSettings
from workers.engine.calls import StepCalls
from workers.engine.decisions import Complete, Snooze
from workers.engine.state_machine import StateMachine
from workers.observers.base import Phase
from workers.observers.pace import MOST_OWED_MS, QUICKEST, Pace, Slot, send_all
from workers.observers.probe import LONGEST_SENDING_S, ProbeObserver
from workers.observers.seen import Seen
from workers.observers.tally import Tally

if TYPE_CHECKING:
    from datetime import datetime

    from dispatcher import FaultPlan
    from dispatcher.ledger.record import PlanRecord
    from workers.drivers.base import FaultStatus

RATE = 20
BEGIN_MS = 1_700_000_000_000
PATIENT_S = 60.0


def observer_of(target: FakeTarget, rate: int = RATE) -> ProbeObserver:
    service = ServiceSettings(base_url="http://payment", requests_per_sec=rate)
    return ProbeObserver(
        ProbeSettings(kind="probe"), {"PaymentService": service}, open_target=lambda *_: target
    )


def slow(hold_s: float) -> FakeTarget:
    return FakeTarget(lambda _: hold_s)


def record(duration_s: int) -> PlanRecord:
    """Of a plan whose fault is in force from `BEGIN_MS` on."""
    plan = delay_plan(duration_seconds=duration_s)
    return plan_record("p1", plan=plan, apply_id="f1", applied_ms=BEGIN_MS)


def looked(
    observer: ProbeObserver, target: FakeTarget, what: PlanRecord, phase: Phase = Phase.DURING
) -> PlanRecord:
    now_ms = BEGIN_MS + round(target.clock_s * 1000)
    return what.sampled(observer.sample(what, phase, now_ms, PATIENT_S))


# The moments


@given(st.integers(1, 100), st.lists(st.integers(0, 150), min_size=1, max_size=12))
def test_looks_that_begin_late_leave_no_request_out_and_send_none_at_once(rate: int, late: list[int]) -> None:
    now_ms, due_ms, sent = BEGIN_MS, float(BEGIN_MS), list[float]()
    for late_ms in late:
        now_ms += late_ms
        moments = list(Pace(rate, now_ms, due_ms, now_ms + 1000).moments())
        assert all(moment >= now_ms for moment, _ in moments)
        sent += [moment for moment, _ in moments]
        due_ms = moments[-1][1] if moments else due_ms
        now_ms += 1000
    owed = 1 + late[-1] * rate / 1000  # of the last measurement, which had no time to make up for all
    assert abs(len(sent) - (now_ms - BEGIN_MS) * rate / 1000) <= owed
    assert all(later - earlier >= QUICKEST * 1000 / rate - 0.01 for earlier, later in pairwise(sent))


@given(st.integers(1, 100), st.integers(MOST_OWED_MS + 1, 100_000))
def test_what_was_due_while_no_worker_looked_is_not_sent(rate: int, late_ms: int) -> None:
    moments = list(Pace(rate, BEGIN_MS + late_ms, BEGIN_MS, BEGIN_MS + late_ms + 1000).moments())
    assert [moment for moment, _ in moments] == [
        pytest.approx(BEGIN_MS + late_ms + number * 1000 / rate, abs=0.01) for number in range(rate)
    ]


def test_nothing_is_sent_before_it_is_due() -> None:
    moments = list(Pace(4, BEGIN_MS, BEGIN_MS + 400, BEGIN_MS + 1000).moments())
    assert [moment - BEGIN_MS for moment, _ in moments] == [400, 650, 900]


def slots(seconds: int, gives_up_s: float = 35.0) -> list[Slot]:
    return [
        Slot(round(at * 1000), round(at * 1000) + 250, at, at + gives_up_s)
        for at in (number / 4 for number in range(seconds * 4))
    ]


def always() -> bool:
    return True


@pytest.mark.parametrize(
    ("hold_s", "sent", "ends_at"),
    [(0.1, 4, 0.85), (0.3, 40, 10.05), (3.0, 40, 12.75)],
    ids=["less than an interval", "more than an interval", "more than its time"],
)
def test_a_measurement_sends_for_its_time_and_then_until_all_are_answered(
    hold_s: float, sent: int, ends_at: float
) -> None:
    target = slow(hold_s)
    last = send_all(FakeTarget.line(target, None, 100.0), slots(10), 1.0, 100.0, always)  # type: ignore[arg-type]
    assert len(target.sent) == sent
    assert last == target.sent[-1]
    assert target.clock_s == pytest.approx(ends_at)


def test_one_request_that_is_held_keeps_the_look_sending_until_it_is_answered() -> None:
    target = FakeTarget(lambda planned_ms: 5.1 if planned_ms == 500 else 0.01)
    send_all(target.line(None, 100.0), slots(10), 1.0, 100.0, always)  # type: ignore[arg-type]
    assert [slot.at for slot in target.sent][-1] == 5.5  # it is answered at 5.6


def test_a_measurement_whose_requests_are_never_answered_ends_when_its_time_is_over() -> None:
    target = slow(1000.0)
    line = target.line(None, 7.0)  # type: ignore[arg-type]
    send_all(line, slots(4), 1.0, 7.0, always)
    assert target.clock_s == 7.0
    assert [probe.incomplete for probe in line.probes()] == [True] * 16


def test_without_a_slot_nothing_is_sent_and_no_time_passes() -> None:
    target = slow(1.0)
    assert send_all(target.line(None, 7.0), [], 1.0, 7.0, always) is None  # type: ignore[arg-type]
    assert target.clock_s == 0.0


# Whole plans, with the state machine


class Executor(FakeDriver):
    """Its fault is in force from its apply on, for the plan's duration, and holds each request."""

    def __init__(self, hold_s: float) -> None:
        super().__init__()
        self.target = FakeTarget(lambda planned_ms: 0.001 + hold_s * self.is_in_force(planned_ms / 1000))
        self.began_s = math.inf

    def is_in_force(self, at: float) -> bool:
        duration_s = sum(plan.duration_seconds for plan in self.applied.values())
        return self.began_s <= at < self.began_s + duration_s

    def apply(self, plan: FaultPlan, key: str, within_s: float, not_after: datetime) -> str:
        self.began_s = self.target.clock_s
        return super().apply(plan, key, within_s, not_after)

    def status(self, apply_id: str, within_s: float) -> FaultStatus:
        if not self.is_in_force(self.target.clock_s):
            self.end(apply_id)
        return super().status(apply_id, within_s)


def observed(
    hold_s: float, duration_s: int, late_s: float = 0.02
) -> tuple[RawObservation, FakeTarget, Executor]:
    """The outcome of a plan whose every step begins late, and whose fault holds each request."""
    executor = Executor(hold_s)
    target = executor.target
    observer = observer_of(target)
    machine = StateMachine(ExecutorClientConfig(), poll_ms=50, watch_ms=1000, draw=lambda: 0.0)
    plan = delay_plan(delay_seconds=max(0.1, hold_s), duration_seconds=duration_s)
    what = plan_record("p1", plan=plan, started_ms=0)
    while True:
        target.clock_s += late_s
        now_ms = round(target.clock_s * 1000)
        decision = machine.advance(what, StepCalls(executor, now_ms, observer, lambda: target.clock_s))
        if isinstance(decision, Complete):
            return decision.observation, target, executor
        assert isinstance(decision, Snooze)
        what = decision.record
        target.clock_s += decision.after_ms / 1000


@pytest.mark.parametrize("duration_s", [4, 8, 14, 30])
@pytest.mark.parametrize("hold_s", [0.0, 0.1, 0.5, 2, 10, 30])
def test_the_rate_is_held_however_long_the_fault_holds_requests(hold_s: float, duration_s: int) -> None:
    observation, *_ = observed(hold_s, duration_s)
    assert observation.requests == pytest.approx(RATE * duration_s, abs=1)
    assert observation.latency_ms == pytest.approx(1 + hold_s * 1000, rel=0.01)
    assert Doubt.INCOMPLETE not in observation.doubts
    assert Doubt.NOT_RECOVERED not in observation.doubts


@pytest.mark.parametrize(("hold_s", "share"), [(0.0, 0.99), (0.4, 0.99), (2, 0.93), (10, 0.75)])
def test_a_long_measurement_pauses_to_wait_for_its_answers(hold_s: float, share: float) -> None:
    observation, *_ = observed(hold_s, 120)
    assert observation.requests is not None
    assert share * RATE * 120 <= observation.requests <= RATE * 120 + 1
    assert observation.latency_ms == pytest.approx(1 + hold_s * 1000, rel=0.01)


@given(st.floats(0, 12), st.integers(1, 20), st.floats(0, 0.1))
def test_each_request_of_a_plan_is_sent_once_and_none_in_a_burst(
    hold_s: float, duration_s: int, late_s: float
) -> None:
    observation, target, executor = observed(hold_s, duration_s, late_s)
    sent = [slot.at for slot in target.sent if executor.is_in_force(slot.at)]
    assert all(later - earlier >= QUICKEST / RATE - 0.002 for earlier, later in pairwise(sent))
    assert observation.requests is not None
    assert observation.requests <= RATE * duration_s + 1


def test_what_the_fault_held_does_not_belong_to_the_recovery() -> None:
    observation, *_ = observed(hold_s=10, duration_s=4)
    assert observation.recovery is not None
    assert observation.recovery.latency_ms == pytest.approx(1, rel=0.01)
    assert observation.recovery.requests == RATE


# Single looks


def test_a_measurement_after_the_fault_or_before_it_sends_for_a_second_only() -> None:
    target = slow(3.0)
    for phase in (Phase.BEFORE, Phase.AFTER):
        observer_of(target).sample(record(4), phase, BEGIN_MS + 4000, PATIENT_S)
    assert len(target.sent) == 2 * RATE


def test_no_look_takes_longer_than_the_longest_look() -> None:
    target = slow(1000.0)
    observer = observer_of(target)
    looked(observer, target, record(600)._replace(timeout_ms=600_000))
    assert target.clock_s <= observer.longest_look_s == LONGEST_SENDING_S + 35
    assert len(target.sent) == LONGEST_SENDING_S * RATE


@pytest.mark.parametrize(("late_ms", "sent_s"), [(500, 8.5), (501, 1)], ids=["on time", "late"])
def test_a_measurement_that_begins_late_does_not_go_on_because_other_plans_wait_too(
    late_ms: int, sent_s: float
) -> None:
    target = slow(0.3)
    observer_of(target).sample(record(9), Phase.DURING, BEGIN_MS + late_ms, PATIENT_S)
    assert target.sent[-1].at == pytest.approx(sent_s, abs=0.051)


def test_a_measurement_that_begins_late_ends_the_others_of_its_worker_for_a_while() -> None:
    def holds_s(planned_ms: int) -> float:
        if planned_ms == BEGIN_MS + 4000:
            observer.sample(record(9), Phase.DURING, BEGIN_MS + 5001, PATIENT_S)
        return 0.3

    target = FakeTarget(holds_s)
    observer = observer_of(target)
    what = looked(observer, target, record(60))
    assert 4 <= target.clock_s < 6
    looked(observer, target, what)
    assert target.clock_s < 8
    target.clock_s = 20.0
    looked(observer, target, record(8)._replace(applied_ms=BEGIN_MS + 20_000))
    assert target.clock_s == pytest.approx(28.3, abs=0.051)


def test_a_measurement_that_ends_late_by_its_own_requests_keeps_no_other_short() -> None:
    target = slow(3.0)
    observer = observer_of(target)
    what = looked(observer, target, record(120))
    assert target.clock_s == pytest.approx(LONGEST_SENDING_S + 3, abs=0.051)
    looked(observer, target, what)
    assert target.clock_s == pytest.approx(2 * (LONGEST_SENDING_S + 3), abs=0.11)


def test_time_for_the_last_answers_is_left() -> None:
    target = slow(2.4)
    what = record(30)  # its fault holds requests for 2.5 s
    text = observer_of(target).sample(what, Phase.DURING, BEGIN_MS, 10.0)
    assert target.sent[-1].at < 10 - 2.5 - 1 < target.sent[-1].at + 0.1
    assert sum(Seen.of(text).during, Tally()).incomplete == 0


def test_a_worker_that_takes_over_from_a_killed_one_sends_no_burst() -> None:
    target = slow(0.0)
    observer = observer_of(target)
    what = looked(observer, target, record(30))
    target.clock_s = 9.013
    looked(observer, target, what)
    later = target.sent[RATE:]
    assert [slot.planned_ms - BEGIN_MS for slot in later] == [9013 + 50 * number for number in range(RATE)]


def test_a_long_measurement_has_parts_so_that_what_follows_an_early_end_does_not_count() -> None:
    target = FakeTarget(lambda planned_ms: 2.5 if planned_ms < BEGIN_MS + 6000 else 2.0)
    what = looked(observer_of(target), target, record(8))
    assert len(target.sent) == 8 * RATE
    observation = observer_of(target).observation(
        what._replace(over_ms=BEGIN_MS + 6000), BEGIN_MS + 12_000, PATIENT_S
    )
    assert observation.requests == 6 * RATE
    assert observation.latency_ms == pytest.approx(2500)
