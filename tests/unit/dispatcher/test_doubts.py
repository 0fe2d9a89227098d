"""Plans that ended while their faults may be alive, on a fake and on a real Redis. Time is shifted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from support.eventually import AT_ONCE_S, SET_BACK_MS, eventually
from support.plans import abort_plan
from support.steps import LOOK_AGAIN_MS, finished, parked, release, submit_in_turn

from dispatcher import ConflictPolicy, ExecutorClientError, PlanConflictError, PlanState, Settings
from dispatcher.errors import PlanCancelledError
from dispatcher.ledger.leases import Denial, Lease, Leases, Named, Settlement, Standing
from dispatcher.ledger.ledger import Ledger, Submission
from dispatcher.ledger.record import SCHEMA_VERSION, Order

if TYPE_CHECKING:
    import redis

    from dispatcher import FaultPlan
    from dispatcher.ledger.record import PlanRecord

DUE = "{dispatcher}:due"
DOUBTS = "{dispatcher}:doubts"
KEY = "{dispatcher}:plan:"
TARGET = "default:PaymentService:/api/v1/payment/process"
LEASE_MS = 6_000
DOUBT = "no answer says that it is over"


@pytest.fixture
def leases(redis_client: redis.Redis) -> Leases:
    return Leases(redis_client, Settings())


def submit(
    ledger: Ledger, plan_id: str = "p1", plan: FaultPlan | None = None, **options: Any
) -> bool | ExecutorClientError:
    own = {name: options.pop(name) for name in ("expires_after_ms",) if name in options}
    order = Order(plan=plan or abort_plan(), **{"timeout_ms": 30_000, **options})
    return submit_in_turn(ledger, Submission(plan_id, order, **own))


def read(ledger: Ledger, plan_id: str = "p1") -> PlanRecord:
    [record] = ledger.read([plan_id])
    assert record is not None
    return record


def named(leases: Leases, plan_id: str) -> Lease | Denial:
    [answer] = leases.fetch([Named(plan_id, 0)], 0).named
    return answer


def begin(leases: Leases, plan_id: str = "p1") -> Lease:
    lease = named(leases, plan_id)
    assert isinstance(lease, Lease), lease
    return lease


def begin_due(leases: Leases, plan_id: str = "p1") -> Lease:
    [lease] = eventually(lambda: leases.fetch([], 10).due, AT_ONCE_S)
    assert lease.plan_id == plan_id
    return lease


def end_in_doubt(leases: Leases, plan_id: str = "p1") -> None:
    """Carry the plan out until it ends as cancelled, with its fault in doubt."""
    lease = begin(leases, plan_id)
    error = PlanCancelledError("enough")
    record = lease.record.applied("f1", 1).ending(error, 1).ended(error)
    assert finished(leases, lease, record, doubt=DOUBT).due_ms == LOOK_AGAIN_MS


def look_again(client: redis.Redis, leases: Leases, plan_id: str = "p1") -> Lease:
    """Let the time pass until the fault is looked at again."""
    assert client.zscore(DOUBTS, plan_id) is not None
    client.zadd(DOUBTS, {plan_id: 0})
    return begin_due(leases, plan_id)


def known(leases: Leases, lease: Lease, gone_in_ms: int = 0) -> Standing:
    """How the ledger answers a step that has found out that the fault is over."""
    [standing] = leases.settle([Settlement(lease.plan_id, lease.token, "known", [gone_in_ms])])
    return standing


def pass_time(client: redis.Redis, plan_id: str, ms: int, *fields: str) -> None:
    """Let `ms` pass for one plan and these fields, and as much as the clock may be set back meanwhile."""
    ms += SET_BACK_MS
    for field in ("due_ms", *fields):
        client.hincrby(KEY + plan_id, field, -ms)
    client.zincrby(DUE, -ms, plan_id)


def test_a_plan_that_ends_in_doubt_has_its_result_and_keeps_its_target(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    submit(ledger, "p2")
    end_in_doubt(leases)
    record = read(ledger)
    assert (record.state, record.doubt, record.cause) == (PlanState.CANCELLED, DOUBT, "enough")
    assert redis_client.get("result-p1") == "the result"
    assert redis_client.llen("{dispatcher}:ended:p1") == 1
    assert ledger.in_flight() == ["p2"]
    assert ledger.in_doubt() == ["p1"]
    assert named(leases, "p2") is Denial.WAITS
    assert read(ledger, "p2").cause == "its target is in doubt: dispatcher release frees it"


def test_a_target_in_doubt_is_free_once_the_fault_is_known_to_be_over_and_gone(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    submit(ledger, "p2")
    end_in_doubt(leases)
    assert named(leases, "p2") is Denial.WAITS
    assert known(leases, look_again(redis_client, leases), 5_000).due_ms == 0
    assert (read(ledger).doubt, ledger.in_doubt()) == (None, [])
    assert leases.fetch([], 10).due == []  # its removal is yet to arrive
    redis_client.hincrby(KEY + "p1", "released_ms", -5_000)
    pass_time(redis_client, "p2", 5_000)
    assert begin_due(leases, "p2").first_step


def test_a_record_in_doubt_does_not_expire_before_its_fault_is_known_to_be_over(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    end_in_doubt(leases)
    assert redis_client.ttl(KEY + "p1") == -1
    lease = look_again(redis_client, leases)
    parked(leases, lease, 60_000)
    assert redis_client.ttl(KEY + "p1") == -1
    known(leases, look_again(redis_client, leases))
    assert 0 < redis_client.ttl(KEY + "p1") <= 86_400


def test_a_fault_in_doubt_is_looked_at_after_its_pause_and_not_before(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    end_in_doubt(leases)
    fetched = leases.fetch([], 10)
    assert fetched.due == []
    assert fetched.next_due_s == pytest.approx(LOOK_AGAIN_MS / 1000, abs=1)
    lease = look_again(redis_client, leases)
    assert (lease.first_step, lease.record.apply_id, lease.record.doubt) == (False, "f1", DOUBT)
    assert isinstance(lease.record.error, PlanCancelledError)
    again = lease.record._replace(attempts=3)
    assert parked(leases, lease, 60_000, again).due_ms == 60_000
    fetched = leases.fetch([], 10)
    assert fetched.due == []
    assert fetched.next_due_s == pytest.approx(60, abs=2)
    assert look_again(redis_client, leases).record.attempts == 3
    assert redis_client.zcard(DUE) == 0


def test_the_lease_of_a_plan_in_doubt_is_renewed(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    end_in_doubt(leases)
    lease = look_again(redis_client, leases)
    redis_client.zincrby(DOUBTS, 1_000 - LEASE_MS, "p1")
    assert leases.renew({"p1": lease.token}) == []
    redis_client.zincrby(DOUBTS, 1_000 - LEASE_MS, "p1")
    assert leases.fetch([], 10).due == []
    assert redis_client.zcard(DUE) == 0


def test_the_lease_of_a_plan_in_doubt_is_taken_over_once_it_is_lost(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    end_in_doubt(leases)
    stale = look_again(redis_client, leases)
    redis_client.zincrby(DOUBTS, -LEASE_MS, "p1")
    lease = begin_due(leases)
    assert lease.record._replace(error=None) == stale.record._replace(error=None)
    assert known(leases, stale).lost
    assert parked(leases, stale, 1_000).lost
    assert leases.renew({"p1": stale.token}) == ["p1"]
    assert ledger.in_doubt() == ["p1"]
    assert not known(leases, lease).lost
    assert ledger.in_doubt() == []


def test_a_lease_in_doubt_that_is_given_back_is_due_at_once(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    end_in_doubt(leases)
    release(leases, look_again(redis_client, leases))
    begin_due(leases)


def test_a_worker_without_room_looks_at_no_fault_in_doubt_and_others_at_few(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    plans = [f"p{number}" for number in range(6)]
    for plan_id in plans:
        submit(ledger, plan_id, abort_plan(api=f"/{plan_id}"))
        end_in_doubt(leases, plan_id)
    redis_client.zadd(DOUBTS, dict.fromkeys(plans, 0))
    assert leases.fetch([], 0).due == []
    assert [len(leases.fetch([], 10).due) for _ in range(3)] == [4, 2, 0]


def test_plans_in_doubt_are_not_in_flight(ledger: Ledger, leases: Leases, redis_client: redis.Redis) -> None:
    for plan_id in ("p1", "p2", "p3"):
        submit(ledger, plan_id, abort_plan(api=f"/{plan_id}"))
    assert begin(leases, "p2").in_flight == 3
    end_in_doubt(leases)
    assert begin(leases, "p3").in_flight == 2
    assert look_again(redis_client, leases).in_flight == 2


def test_an_ended_plan_in_doubt_cannot_be_cancelled_and_its_messages_are_over(
    ledger: Ledger, leases: Leases
) -> None:
    submit(ledger)
    end_in_doubt(leases)
    assert ledger.cancel(["p1"], "") == [False]
    assert named(leases, "p1") is Denial.OVER


def test_a_doubt_whose_record_is_gone_is_forgotten(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    end_in_doubt(leases)
    redis_client.delete(KEY + "p1")
    redis_client.zadd(DOUBTS, {"p1": 0})
    assert leases.fetch([], 10).due == []
    assert ledger.in_doubt() == []
    submit(ledger, "p2")
    begin(leases, "p2")


def test_a_doubt_whose_record_cannot_be_read_is_kept_for_workers_that_can(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    end_in_doubt(leases)
    order = redis_client.hget(KEY + "p1", "order")
    redis_client.hset(KEY + "p1", "order", '{"version": 99}')
    redis_client.zadd(DOUBTS, {"p1": 0})
    [unreadable] = leases.fetch([], 10).unreadable
    leases.settle([Settlement("p1", unreadable.token, "aside", [unreadable.why])])
    assert (leases.fetch([], 10).due, ledger.in_doubt()) == ([], ["p1"])
    assert redis_client.hexists("{dispatcher}:aside", "p1")
    redis_client.hset(KEY + "p1", "order", str(order))
    look_again(redis_client, leases)
    assert not redis_client.hexists("{dispatcher}:aside", "p1")


def test_a_doubt_of_another_version_is_looked_at_again_later(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    end_in_doubt(leases)
    redis_client.hset(KEY + "p1", "v", "99")
    redis_client.zadd(DOUBTS, {"p1": 0})
    fetched = leases.fetch([], 10)
    assert fetched.due == []
    assert fetched.next_due_s == pytest.approx(60, abs=2)
    redis_client.hset(KEY + "p1", "v", SCHEMA_VERSION)
    look_again(redis_client, leases)


def test_a_waiting_plan_ends_as_a_conflict_after_its_own_timeout(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    submit(ledger, "p2", timeout_ms=20_000)
    end_in_doubt(leases)
    assert named(leases, "p2") is Denial.WAITS
    assert read(ledger, "p2").due_ms - ledger.now_ms() == pytest.approx(20_000, abs=2_000)
    pass_time(redis_client, "p2", 20_000, "stuck_ms")
    lease = begin_due(leases, "p2")
    assert (lease.first_step, lease.record.in_the_way, lease.record.started_ms) == (False, "p1", None)
    assert lease.record.cause == "its target is in doubt: dispatcher release frees it"
    pass_time(redis_client, "p2", LEASE_MS)
    lease = begin_due(leases, "p2")  # the step was lost: nothing was applied
    assert (lease.record.in_the_way, lease.record.doubtful) == ("p1", False)
    finished(leases, lease, lease.record.ended(PlanConflictError("held", "p1")))
    assert read(ledger, "p2").state is PlanState.FAILED
    assert ledger.in_doubt() == ["p1"]


def test_a_plan_that_does_not_wait_meets_a_target_in_doubt_at_once(ledger: Ledger, leases: Leases) -> None:
    submit(ledger)
    end_in_doubt(leases)
    refusal = submit(ledger, "p2", conflict_policy=ConflictPolicy.REJECT)
    assert isinstance(refusal, PlanConflictError)
    assert refusal.holder == "p1"


def test_the_expiry_of_a_plan_that_waits_for_a_target_in_doubt_comes_first(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    submit(ledger, "p2", expires_after_ms=5_000)
    end_in_doubt(leases)
    assert named(leases, "p2") is Denial.WAITS
    assert read(ledger, "p2").due_ms == read(ledger, "p2").expires_ms
    pass_time(redis_client, "p2", 5_000, "expires_ms")
    lease = begin_due(leases, "p2")
    assert (lease.first_step, lease.record.in_the_way) == (True, None)


def test_the_time_that_a_plan_waits_for_a_doubt_begins_again_with_the_next_doubt(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    for plan_id in ("p1", "p2", "p3"):
        submit(ledger, plan_id)
    end_in_doubt(leases, "p1")
    assert named(leases, "p3") is Denial.WAITS
    known(leases, look_again(redis_client, leases))
    lease = begin(leases, "p2")
    redis_client.hincrby(KEY + "p3", "stuck_ms", -60_000)
    redis_client.zadd(DUE, {"p3": 0})
    assert leases.fetch([], 10).due == []  # p2 has the target, and is in no doubt
    finished(leases, lease, lease.record.ended(ValueError("gone")), doubt=DOUBT)
    pass_time(redis_client, "p3", 0)
    assert leases.fetch([], 10).due == []
    assert read(ledger, "p3").due_ms - ledger.now_ms() == pytest.approx(30_000, abs=2_000)


def test_people_free_a_target_while_a_worker_looks_at_it(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    submit(ledger, "p2")
    end_in_doubt(leases)
    assert named(leases, "p2") is Denial.WAITS
    lease = look_again(redis_client, leases)
    assert ledger.release(TARGET, "seen") == ["p1"]
    begin_due(leases, "p2")
    assert parked(leases, lease, 1_000).lost
    assert known(leases, lease, 60_000).lost
    assert ledger.in_doubt() == []
    assert 0 < redis_client.ttl(KEY + "p1") <= 86_400


def test_a_step_that_was_lost_leaves_it_unknown_until_when_its_apply_may_arrive(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    lease = begin(leases)
    parked(leases, lease, 0, lease.record.in_doubt(lease.now_ms, lease.now_ms + 30_000))
    assert begin_due(leases).record.not_after_ms == lease.now_ms + 30_000
    pass_time(redis_client, "p1", LEASE_MS)
    record = begin_due(leases).record
    assert (record.doubtful, record.not_after_ms) == (True, 0)


def test_plans_on_one_target_at_once_are_overlapped_and_so_is_the_holder(
    ledger: Ledger, leases: Leases
) -> None:
    submit(ledger, "holder")
    for plan_id in ("p1", "p2"):
        submit(ledger, plan_id, conflict_policy=ConflictPolicy.ALLOW)
    submit(ledger, "elsewhere", abort_plan(api="/other"))
    assert not begin(leases, "holder").record.overlapped
    assert begin(leases, "p1").record.overlapped
    assert begin(leases, "p2").record.overlapped
    begin(leases, "elsewhere")
    overlapped = {plan_id: read(ledger, plan_id).overlapped for plan_id in ("holder", "p1", "p2")}
    assert overlapped == {"holder": True, "p1": True, "p2": True}
    assert not read(ledger, "elsewhere").overlapped


def test_a_plan_that_begins_while_another_is_on_its_target_is_overlapped(
    ledger: Ledger, leases: Leases
) -> None:
    submit(ledger, "p1", conflict_policy=ConflictPolicy.ALLOW)
    submit(ledger, "p2")
    assert not begin(leases, "p1").record.overlapped
    assert begin(leases, "p2").record.overlapped
    assert read(ledger, "p1").overlapped


def test_plans_one_after_the_other_are_not_overlapped(ledger: Ledger, leases: Leases) -> None:
    for plan_id in ("p1", "p2"):
        submit(ledger, plan_id, conflict_policy=ConflictPolicy.ALLOW)
        lease = begin(leases, plan_id)
        finished(leases, lease)
        assert not lease.record.overlapped
    submit(ledger, "p3")
    assert not begin(leases, "p3").record.overlapped
    assert not read(ledger, "p1").overlapped


def test_plans_that_wait_overlap_no_other(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2")
    begin(leases, "p1")
    assert named(leases, "p2") is Denial.WAITS
    assert not read(ledger, "p1").overlapped
    assert not read(ledger, "p2").overlapped


@pytest.mark.parametrize("ends", ["cancelled", "expired"])
def test_a_plan_that_begins_only_to_end_overlaps_no_other(
    ends: str, ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    begin(leases, "p1")
    submit(ledger, "p2", conflict_policy=ConflictPolicy.ALLOW, expires_after_ms=5_000)
    if ends == "cancelled":
        ledger.cancel(["p2"], "")
    else:
        pass_time(redis_client, "p2", 60_000, "expires_ms")
    assert not begin_due(leases, "p2").record.overlapped
    assert not read(ledger, "p1").overlapped


def test_a_fault_in_doubt_overlaps_those_that_begin_on_its_target(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    end_in_doubt(leases)
    submit(ledger, "p2", conflict_policy=ConflictPolicy.ALLOW)
    lease = begin(leases, "p2")
    assert lease.record.overlapped
    known(leases, look_again(redis_client, leases))
    finished(leases, lease)
    submit(ledger, "p3", conflict_policy=ConflictPolicy.ALLOW)
    assert not begin(leases, "p3").record.overlapped


def test_a_plan_in_doubt_overlaps_those_that_do_not_wait_for_it_until_it_is_over(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1", conflict_policy=ConflictPolicy.ALLOW)
    end_in_doubt(leases)
    submit(ledger, "p2", conflict_policy=ConflictPolicy.ALLOW)
    lease = begin(leases, "p2")
    assert lease.record.overlapped
    finished(leases, lease)
    known(leases, look_again(redis_client, leases))
    submit(ledger, "p3", conflict_policy=ConflictPolicy.ALLOW)
    assert not begin(leases, "p3").record.overlapped
    assert redis_client.smembers(f"{{dispatcher}}:beside:{TARGET}") == {"p3"}
