"""What the ledger counts, and how plans stand, on a fake Redis and on real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from support.plans import abort_plan
from support.steps import finished, parked

from dispatcher import PlanCancelledError, PlanExpiredError, PlanState
from dispatcher.ledger import Submission
from dispatcher.plan_counts import plan_counts
from dispatcher.record import Order
from dispatcher.waits import PAGE

if TYPE_CHECKING:
    import redis
    from support.stopwatch import Stopwatch

    from dispatcher.ledger import Ledger, Step

DUE = "{dispatcher}:due"
LEASE_MS = 60_000


def submit(ledger: Ledger, *ids: str) -> None:
    """Each for a target of its own."""
    orders = [(plan_id, Order(plan=abort_plan(api=f"/{plan_id}"), timeout_ms=30_000)) for plan_id in ids]
    ledger.submit([Submission(plan_id, order) for plan_id, order in orders])


def begin(ledger: Ledger, plan_id: str, token: str = "t1") -> Step:
    step = ledger.begin(plan_id, token, LEASE_MS)
    assert step is not None
    return step


def pass_time(client: redis.Redis, plan_id: str, ms: int) -> None:
    client.hincrby(f"{{dispatcher}}:plan:{plan_id}", "due_ms", -ms)
    client.zincrby(DUE, -ms, plan_id)


def test_of_an_empty_ledger_all_is_zero(ledger: Ledger) -> None:
    counts = plan_counts(ledger)
    assert (counts.in_flight, counts.waiting, counts.oldest_due_s, counts.halted) == (0, 0, 0.0, False)
    assert (counts.submitted, counts.steps, counts.late_s, counts.leases_lost) == (0, 0, 0.0, 0)
    assert (counts.wake_ups, counts.wake_ups_wasted) == (0, 0)
    assert set(counts.states.values()) | set(counts.ended.values()) == {0}


def test_a_plan_is_counted_once_however_often_it_is_submitted(ledger: Ledger) -> None:
    submit(ledger, "p1", "p2")
    submit(ledger, "p1")
    assert plan_counts(ledger).submitted == 2


def test_a_step_is_counted_once_however_often_it_asks_for_its_lease(ledger: Ledger) -> None:
    submit(ledger, "p1")
    begin(ledger, "p1", "t1")
    begin(ledger, "p1", "t1")
    assert (plan_counts(ledger).steps, plan_counts(ledger).wake_ups_wasted) == (1, 0)


def test_how_late_a_step_begins_is_counted(
    ledger: Ledger, redis_client: redis.Redis, stopwatch: Stopwatch
) -> None:
    submit(ledger, "p1", "p2")
    for plan_id, ms in (("p1", 2_000), ("p2", 5_000)):
        pass_time(redis_client, plan_id, ms)
        begin(ledger, plan_id)
    assert plan_counts(ledger).late_s == stopwatch.grown_from(7.0)


def test_wake_ups_that_find_nothing_to_do_are_wasted(ledger: Ledger) -> None:
    submit(ledger, "p1")
    step = begin(ledger, "p1")
    assert ledger.begin("p1", "another", LEASE_MS) is None
    finished(ledger, step.record.observed(), step.token)
    assert ledger.begin("p1", "late", LEASE_MS) is None
    assert ledger.begin("nobody", "t1", LEASE_MS) is None
    assert plan_counts(ledger).wake_ups_wasted == 3


def test_a_plan_that_takes_its_place_in_the_line_wastes_no_wake_up(ledger: Ledger) -> None:
    orders = [Submission(f"p{n}", Order(plan=abort_plan(), timeout_ms=30_000)) for n in range(2)]
    ledger.submit(orders)
    begin(ledger, "p0")
    assert ledger.begin("p1", "t1", LEASE_MS) is None
    assert (plan_counts(ledger).steps, plan_counts(ledger).wake_ups_wasted) == (1, 0)


def test_a_lease_that_ended_before_its_step_came_back_is_lost(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1", "p2")
    begin(ledger, "p1", "killed")
    step = begin(ledger, "p2", "well")
    parked(ledger, step.record, step.token, 0)
    pass_time(redis_client, "p1", LEASE_MS)
    begin(ledger, "p1", "next")
    begin(ledger, "p2", "next")
    assert plan_counts(ledger).leases_lost == 1


def test_a_lease_that_was_lost_after_the_apply_is_counted_too(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    step = begin(ledger, "p1", "t1")
    parked(ledger, step.record.applied("f1", step.now_ms), step.token, 0)
    begin(ledger, "p1", "killed")
    pass_time(redis_client, "p1", LEASE_MS)
    record = begin(ledger, "p1", "next").record
    assert record.doubtful_ms is None
    assert plan_counts(ledger).leases_lost == 1


def test_the_wakers_wake_ups_are_counted(ledger: Ledger, redis_client: redis.Redis) -> None:
    submit(ledger, "p1", "p2", "p3")
    assert ledger.claim_due().wake_ups == []
    for plan_id in ("p1", "p2"):
        pass_time(redis_client, plan_id, 2_000)
    assert len(ledger.claim_due().wake_ups) == 2
    assert plan_counts(ledger).wake_ups == 2


def test_each_end_is_counted_once(ledger: Ledger) -> None:
    submit(ledger, "p1", "p2", "p3", "p4")
    ends = [
        begin(ledger, "p1").record.observed(),
        begin(ledger, "p2").record.ended(ZeroDivisionError("oops")),
        begin(ledger, "p3").record.ended(PlanCancelledError("enough")),
        begin(ledger, "p4").record.ended(PlanExpiredError("late")),
    ]
    for record in ends * 2:
        assert finished(ledger, record, "t1") == 0
    assert finished(ledger, ends[0], "stale") is None
    counts = plan_counts(ledger)
    assert set(counts.ended.values()) == {1}
    assert set(counts.ended) == {state for state in PlanState if state.final}
    assert counts.in_flight == 0


def test_plans_in_flight_are_told_by_state_and_whether_a_step_is_at_work(ledger: Ledger) -> None:
    submit(ledger, *(f"p{n}" for n in range(6)))
    for plan_id in ("p0", "p1", "p2"):
        step = begin(ledger, plan_id)
        applied = step.record.applied("f1", step.now_ms)
        parked(ledger, applied.completed() if plan_id == "p2" else applied, step.token, LEASE_MS)
    begin(ledger, "p3")
    counts = plan_counts(ledger)
    assert counts.states == {PlanState.QUEUED: 3, PlanState.RUNNING: 2, PlanState.COMPLETED: 1}
    assert (counts.in_flight, counts.waiting) == (6, 5)


def test_more_plans_than_one_command_is_about_are_counted(ledger: Ledger) -> None:
    submit(ledger, *(f"p{n}" for n in range(PAGE + 1)))
    assert plan_counts(ledger).in_flight == PAGE + 1


def test_the_oldest_due_plan_is_found_though_its_waker_sees_it_later(
    ledger: Ledger, redis_client: redis.Redis, stopwatch: Stopwatch
) -> None:
    submit(ledger, "p1", "p2")
    step = begin(ledger, "p2")
    parked(ledger, step.record, step.token, LEASE_MS)
    pass_time(redis_client, "p1", 90_000)
    assert len(ledger.claim_due().wake_ups) == 1  # and nobody takes it up
    assert plan_counts(ledger).oldest_due_s == stopwatch.grown_from(90.0)


def test_a_due_entry_without_a_plan_is_no_plan(ledger: Ledger, redis_client: redis.Redis) -> None:
    redis_client.zadd(DUE, {"ghost": 0})
    assert (plan_counts(ledger).in_flight, plan_counts(ledger).oldest_due_s) == (0, 0.0)


def test_halt_is_told_until_resume(ledger: Ledger) -> None:
    ledger.halt("smoke")
    assert plan_counts(ledger).halted
    ledger.resume()
    assert not plan_counts(ledger).halted
