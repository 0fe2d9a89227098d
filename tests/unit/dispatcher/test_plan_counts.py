"""What the ledger counts, and the states of plans, on a fake and on real servers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.eventually import SET_BACK_MS
from support.plans import abort_plan
from support.steps import finished, parked, retried

from dispatcher import PlanCancelledError, PlanExpiredError, PlanState, Settings
from dispatcher.ledger.counts import plan_counts
from dispatcher.ledger.leases import Denial, Lease, Leases, Named
from dispatcher.ledger.ledger import Submission
from dispatcher.ledger.record import Order
from dispatcher.ledger.waits import PAGE

if TYPE_CHECKING:
    import redis
    from support.stopwatch import Stopwatch

    from dispatcher.ledger.ledger import Ledger

DUE = "{dispatcher}:due"
LEASE_MS = 6_000


@pytest.fixture
def leases(redis_client: redis.Redis) -> Leases:
    return Leases(redis_client, Settings())


def submit(ledger: Ledger, *ids: str) -> None:
    """Each for a target of its own."""
    orders = [(plan_id, Order(plan=abort_plan(api=f"/{plan_id}"), timeout_ms=30_000)) for plan_id in ids]
    ledger.submit([Submission(plan_id, order) for plan_id, order in orders])


def begin(leases: Leases, plan_id: str) -> Lease:
    [lease] = leases.fetch([Named(plan_id, 0)], 0).named
    assert isinstance(lease, Lease)
    return lease


def begin_due(leases: Leases) -> dict[str, Lease]:
    return {lease.plan_id: lease for lease in leases.fetch([], 10).due}


def pass_time(client: redis.Redis, plan_id: str, ms: int) -> None:
    """Let `ms` pass for one plan, and as much as the machine's clock may be set back meanwhile."""
    ms += SET_BACK_MS
    client.hincrby(f"{{dispatcher}}:plan:{plan_id}", "due_ms", -ms)
    client.zincrby(DUE, -ms, plan_id)


def test_of_an_empty_ledger_all_is_zero(ledger: Ledger) -> None:
    counts = plan_counts(ledger)
    assert (counts.in_flight, counts.waiting, counts.oldest_due_s, counts.halted) == (0, 0, 0.0, False)
    assert (counts.submitted, counts.steps, counts.late_s, counts.leases_lost) == (0, 0, 0.0, 0)
    assert (counts.messages_lost, counts.set_aside) == (0, 0)
    assert set(counts.states.values()) | set(counts.ended.values()) == {0}


def test_a_plan_is_counted_once_however_often_it_is_submitted(ledger: Ledger) -> None:
    submit(ledger, "p1", "p2")
    submit(ledger, "p1")
    assert plan_counts(ledger).submitted == 2


def test_a_step_is_counted_with_its_lease_and_a_denial_is_none(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "p1")
    begin(leases, "p1")
    denials = leases.fetch([Named("p1", 0), Named("unknown", 0)], 10).named
    assert denials == [Denial.ELSEWHERE, Denial.UNKNOWN]
    assert plan_counts(ledger).steps == 1


def test_how_late_a_step_begins_is_counted(ledger: Ledger, leases: Leases, redis_client: redis.Redis) -> None:
    submit(ledger, "p1", "p2")
    late_ms = []
    for plan_id, ms in (("p1", 2_000), ("p2", 5_000)):
        pass_time(redis_client, plan_id, ms)
        lease = begin(leases, plan_id)
        late_ms.append(lease.now_ms - lease.record.due_ms)
    assert late_ms[0] >= 2_000
    assert late_ms[1] >= 5_000
    assert plan_counts(ledger).late_s == sum(late_ms) / 1000


def test_a_lease_that_ended_before_its_step_was_settled_is_lost(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1", "p2")
    begin(leases, "p1")
    parked(leases, begin(leases, "p2"), 0)
    for plan_id in ("p1", "p2"):
        pass_time(redis_client, plan_id, LEASE_MS)
    assert set(begin_due(leases)) == {"p1", "p2"}
    assert plan_counts(ledger).leases_lost == 1


def test_a_lease_that_was_lost_after_the_apply_is_counted_too(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    lease = begin(leases, "p1")
    parked(leases, lease, 0, lease.record.applied("f1", lease.now_ms))
    pass_time(redis_client, "p1", 0)
    begin_due(leases)
    pass_time(redis_client, "p1", LEASE_MS)
    assert begin_due(leases)["p1"].record.doubtful_ms is None
    assert plan_counts(ledger).leases_lost == 1


def test_a_step_that_begins_without_the_message_it_waited_for_is_counted(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1", "p2", "p3")
    retried(leases, begin(leases, "p2"), 1_000)
    parked(leases, begin(leases, "p3"), 0)
    for plan_id, ms in (("p1", 60_000), ("p2", 6_000), ("p3", 0)):
        pass_time(redis_client, plan_id, ms)
    assert set(begin_due(leases)) == {"p1", "p2", "p3"}
    assert plan_counts(ledger).messages_lost == 2


def test_plans_that_another_version_wrote_are_counted(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    redis_client.hset("{dispatcher}:plan:p1", "v", "99")
    leases.fetch([Named("p1", 0)], 0)
    assert plan_counts(ledger).set_aside == 1


def test_each_end_is_counted_once(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "p1", "p2", "p3", "p4")
    held = [begin(leases, plan_id) for plan_id in ("p1", "p2", "p3", "p4")]
    ends = [
        held[0].record.observed(),
        held[1].record.ended(ZeroDivisionError("oops")),
        held[2].record.ended(PlanCancelledError("enough")),
        held[3].record.ended(PlanExpiredError("late")),
    ]
    for lease, record in list(zip(held, ends, strict=True)) * 2:
        assert finished(leases, lease, record).due_ms == 0
    counts = plan_counts(ledger)
    assert set(counts.ended.values()) == {1}
    assert set(counts.ended) == {state for state in PlanState if state.final}
    assert counts.in_flight == 0


def test_plans_in_flight_are_counted_by_state_and_by_whether_a_worker_has_them(
    ledger: Ledger, leases: Leases
) -> None:
    submit(ledger, *(f"p{n}" for n in range(6)))
    for plan_id in ("p0", "p1", "p2"):
        lease = begin(leases, plan_id)
        applied = lease.record.applied("f1", lease.now_ms)
        parked(leases, lease, LEASE_MS, applied.completed() if plan_id == "p2" else applied)
    begin(leases, "p3")
    counts = plan_counts(ledger)
    assert counts.states == {PlanState.QUEUED: 3, PlanState.RUNNING: 2, PlanState.COMPLETED: 1}
    assert (counts.in_flight, counts.waiting) == (6, 5)


def test_more_plans_than_one_command_is_about_are_counted(ledger: Ledger) -> None:
    submit(ledger, *(f"p{n}" for n in range(PAGE + 1)))
    assert plan_counts(ledger).in_flight == PAGE + 1


def test_the_oldest_due_plan_is_found_though_its_message_is_still_awaited(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis, stopwatch: Stopwatch
) -> None:
    submit(ledger, "p1", "p2")
    parked(leases, begin(leases, "p2"), LEASE_MS)
    redis_client.hincrby("{dispatcher}:plan:p1", "due_ms", -90_000)
    assert plan_counts(ledger).oldest_due_s == stopwatch.grown_from(90.0)


def test_a_plan_that_a_worker_is_carrying_out_is_not_overdue(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    begin(leases, "p1")
    redis_client.hincrby("{dispatcher}:plan:p1", "due_ms", -90_000)
    assert plan_counts(ledger).oldest_due_s == 0.0


def test_a_due_entry_without_a_plan_does_not_count_as_a_plan(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    redis_client.zadd(DUE, {"ghost": 0})
    assert (plan_counts(ledger).in_flight, plan_counts(ledger).oldest_due_s) == (0, 0.0)


def test_halt_is_reported_until_resume(ledger: Ledger) -> None:
    ledger.halt("smoke")
    assert plan_counts(ledger).halted
    ledger.resume()
    assert not plan_counts(ledger).halted
