"""The leases of plans, on a fake and on a real Redis. Time passes by shifting what is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from support.eventually import AT_ONCE_S, SET_BACK_MS, eventually
from support.plans import abort_plan
from support.steps import LOOK_AGAIN_MS, finished, parked, release, retried, submit_in_turn

from dispatcher import ConflictPolicy, ExecutorClientError, PlanState, Settings
from dispatcher.ledger.leases import Denial, Lease, Leases, Named, Settlement
from dispatcher.ledger.ledger import Ledger, Submission
from dispatcher.ledger.record import SCHEMA_VERSION, Order

if TYPE_CHECKING:
    import redis

    from dispatcher import FaultPlan
    from dispatcher.ledger.record import PlanRecord

DUE = "{dispatcher}:due"
COUNTS = "{dispatcher}:counts"
LINE = "{dispatcher}:line:default:PaymentService:/api/v1/payment/process"
QUEUE = "dispatcher"
PLAN = abort_plan()
MANY = 300
"""So many plans that what Redis needs once, such as the scripts, is a small part of each."""


@pytest.fixture
def leases(redis_client: redis.Redis) -> Leases:
    return Leases(redis_client, Settings(queue=QUEUE))


def submit(ledger: Ledger, plan_id: str = "p1", plan: FaultPlan = PLAN, **options: Any) -> None:
    names = ("expires_after_ms", "batch", "traceparent")
    own = {name: options.pop(name) for name in names if name in options}
    order = Order(plan=plan, **{"timeout_ms": 30_000, **options})
    outcome = submit_in_turn(ledger, Submission(plan_id, order, **own))
    assert not isinstance(outcome, ExecutorClientError), outcome


def read(ledger: Ledger, plan_id: str = "p1") -> PlanRecord:
    [record] = ledger.read([plan_id])
    assert not isinstance(record, Exception)
    assert record is not None
    return record


def named(leases: Leases, plan_id: str = "p1", retries: int = 0) -> Lease | Denial:
    """What a message for the plan gets."""
    [answer] = leases.fetch([Named(plan_id, retries)], 0).named
    return answer


def begin(leases: Leases, plan_id: str = "p1", retries: int = 0) -> Lease:
    lease = named(leases, plan_id, retries)
    assert isinstance(lease, Lease), lease
    return lease


def begin_due(leases: Leases, plan_id: str = "p1") -> Lease:
    [lease] = eventually(lambda: leases.fetch([], 10).due, AT_ONCE_S)
    assert lease.plan_id == plan_id
    return lease


def pass_time(client: redis.Redis, plan_id: str, ms: int) -> None:
    """Let `ms` pass for one plan, and as much as the machine's clock may be set back meanwhile."""
    ms += SET_BACK_MS
    for field in ("due_ms", "started_ms", "expires_ms", "submitted_ms", "applied_ms"):
        if client.hexists(f"{{dispatcher}}:plan:{plan_id}", field):
            client.hincrby(f"{{dispatcher}}:plan:{plan_id}", field, -ms)
    client.zincrby(DUE, -ms, plan_id)


def set_clock_back(client: redis.Redis, plan_id: str, ms: int) -> None:
    """Have the server's clock be `ms` behind the one that the plan was submitted by."""
    client.hincrby(f"{{dispatcher}}:plan:{plan_id}", "due_ms", ms)
    submitted_ms = client.hincrby(f"{{dispatcher}}:plan:{plan_id}", "submitted_ms", ms)
    client.zincrby(DUE, ms, plan_id)
    client.zadd(LINE, {plan_id: submitted_ms * 1000})


def counted(client: redis.Redis, name: str) -> int:
    return int(client.hget(COUNTS, name) or 0)


def test_a_message_gets_the_lease_of_its_plan(ledger: Ledger, leases: Leases) -> None:
    submit(ledger)
    lease = begin(leases)
    assert (lease.plan_id, lease.first_step, lease.record.state) == ("p1", True, PlanState.QUEUED)
    assert lease.record.started_ms == lease.now_ms


def test_a_message_for_no_plan_learns_so(leases: Leases) -> None:
    assert named(leases, "unknown") is Denial.UNKNOWN


def test_many_messages_are_answered_in_one_call_each_with_its_own_answer(
    ledger: Ledger, leases: Leases
) -> None:
    for plan_id in ("p1", "p2", "p3"):
        submit(ledger, plan_id, abort_plan(api=f"/{plan_id}"))
    finished(leases, begin(leases, "p2"))
    names = [Named("p1", 0), Named("unknown", 0), Named("p2", 0), Named("p3", 1), Named("p3", 0)]
    first, *denials, last = leases.fetch(names, 0).named
    assert isinstance(first, Lease)
    assert denials == [Denial.UNKNOWN, Denial.OVER, Denial.ELSEWHERE]
    assert isinstance(last, Lease)
    assert (first.plan_id, last.plan_id) == ("p1", "p3")


def test_a_plan_has_one_lease_at_a_time(ledger: Ledger, leases: Leases) -> None:
    submit(ledger)
    begin(leases)
    assert named(leases) is Denial.ELSEWHERE
    assert leases.fetch([], 10).due == []


def test_a_message_that_comes_twice_gets_one_lease(ledger: Ledger, leases: Leases) -> None:
    submit(ledger)
    parked(leases, begin(leases), 1000)
    assert named(leases) is Denial.ELSEWHERE


def test_a_plan_with_a_start_time_waits_for_it_in_the_ledger(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, plan=abort_plan(start_time=datetime.now(UTC) + timedelta(seconds=60)))
    assert named(leases) is Denial.WAITS
    assert leases.fetch([], 10).due == []
    pass_time(redis_client, "p1", 60_000)
    begin_due(leases)


def test_a_message_begins_its_plan_though_the_servers_clock_was_set_back_since(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    set_clock_back(redis_client, "p1", 5_000)
    begin(leases)


def test_a_plan_whose_turn_comes_begins_though_the_servers_clock_was_set_back_since(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2")
    holder = begin(leases, "p1")
    assert named(leases, "p2") is Denial.WAITS
    set_clock_back(redis_client, "p2", 3_600_000)
    finished(leases, holder)
    begin_due(leases, "p2")


def test_a_plan_whose_turn_comes_before_its_start_time_waits_for_that(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2", abort_plan(start_time=datetime.now(UTC) + timedelta(seconds=60)))
    start_ms = read(ledger, "p2").due_ms
    assert named(leases, "p2") is Denial.WAITS
    finished(leases, begin(leases, "p1"))
    assert leases.fetch([], 10).due == []
    assert (read(ledger, "p2").due_ms, redis_client.zscore(DUE, "p2")) == (start_ms, start_ms)


def test_line_and_history_have_the_microsecond_of_the_submission(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    assert ledger.submit([Submission("p1", Order(plan=PLAN, timeout_ms=30_000))]) == [True]
    submitted_us = redis_client.zscore("{dispatcher}:history", "p1") or 0
    assert submitted_us // 1000 == read(ledger).submitted_ms
    assert redis_client.zscore(LINE, "p1") == submitted_us


def test_a_new_plan_whose_message_is_lost_is_due_a_minute_after_its_submission(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    pass_time(redis_client, "p1", 50_000)
    assert leases.fetch([], 10).due == []
    pass_time(redis_client, "p1", 10_000)
    begin_due(leases)
    assert counted(redis_client, "messages_lost") == 1
    assert named(leases) is Denial.ELSEWHERE  # should the message come after all


def test_a_new_plan_waits_for_its_message_while_the_queue_holds_messages(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    redis_client.lpush(QUEUE, "a message")
    for _ in range(5):
        redis_client.zadd(DUE, {"p1": 0})
        assert leases.fetch([], 10).due == []
    redis_client.delete(QUEUE)
    assert leases.fetch([], 10).due == []  # it was deferred by a minute
    pass_time(redis_client, "p1", 60_000)
    begin_due(leases)


def test_a_message_that_younger_ones_have_overtaken_is_lost_however_long_the_queue(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    submit(ledger, "p2", abort_plan(api="/other"))
    redis_client.lpush(QUEUE, "a message")
    redis_client.zadd(DUE, {"p1": 0})
    pass_time(redis_client, "p1", 15_000)
    assert leases.fetch([], 10).due == []
    begin(leases, "p2")  # the message of a plan that was submitted 15 s later
    redis_client.zadd(DUE, {"p1": 0})
    begin_due(leases)


def test_a_message_that_was_lost_between_its_arrival_and_its_lease_is_noticed_within_seconds(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    pass_time(redis_client, "p1", 4_000)
    assert leases.fetch([], 10).next_due_s == pytest.approx(56, abs=2)
    pass_time(redis_client, "p1", 2_000)
    assert leases.fetch([], 10).next_due_s == 0
    begin_due(leases)
    assert counted(redis_client, "messages_lost") == 1


def test_a_message_that_still_queues_is_not_taken_for_lost(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    redis_client.lpush(QUEUE, "a message")
    pass_time(redis_client, "p1", 6_000)
    assert leases.fetch([], 10).next_due_s == pytest.approx(54, abs=2)


def test_without_the_queue_in_its_redis_each_message_has_its_minute_and_no_more(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    elsewhere = Leases(redis_client, Settings(queue=QUEUE, broker_url=SecretStr("redis://127.0.0.1:1/0")))
    submit(ledger)
    redis_client.lpush(QUEUE, "another program's")
    pass_time(redis_client, "p1", 6_000)
    assert elsewhere.fetch([], 10).next_due_s == pytest.approx(54, abs=2)
    pass_time(redis_client, "p1", 54_000)
    [lease] = elsewhere.fetch([], 10).due
    assert lease.plan_id == "p1"


def test_a_plan_that_has_expired_does_not_wait_for_its_message_in_a_queue_that_nothing_empties(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, expires_after_ms=5_000)
    submit(ledger, "p2", abort_plan(api="/2"), expires_after_ms=70_000)
    redis_client.lpush(QUEUE, "its message", "the other's message")
    pass_time(redis_client, "p1", 6_000)
    pass_time(redis_client, "p2", 61_000)
    assert leases.fetch([], 10).due == []  # but p1 is due now
    begin_due(leases)
    assert counted(redis_client, "messages_lost") == 0


def test_a_plan_with_a_start_time_is_not_taken_for_lost_before_it(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, plan=abort_plan(start_time=datetime.now(UTC) + timedelta(seconds=50)))
    assert leases.fetch([], 10).next_due_s == pytest.approx(50, abs=2)
    assert leases.fetch([], 10).due == []


def test_messages_that_were_lost_with_a_killed_worker_are_noticed_while_others_are_busy(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    for plan_id in ("killed", "popped", "busy"):
        submit(ledger, plan_id, abort_plan(api=f"/{plan_id}"))
        pass_time(redis_client, plan_id, 6_000)
    begin(leases, "killed")
    redis_client.zadd(DUE, {"killed": 0})
    fetched = leases.fetch([Named("busy", 0)], 10)
    assert [lease.plan_id for lease in fetched.due] == ["killed"]
    assert fetched.next_due_s == 0
    begin_due(leases, "popped")


def test_a_queue_of_another_kind_holds_nothing_up(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    redis_client.set(QUEUE, "no list")
    pass_time(redis_client, "p1", 60_000)
    begin_due(leases)


def test_a_lease_that_ends_lets_another_worker_begin(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    assert not begin(leases).record.doubtful
    pass_time(redis_client, "p1", 4_000)
    assert leases.fetch([], 10).due == []
    pass_time(redis_client, "p1", 2_000)
    lease = begin_due(leases)
    assert lease.record.doubtful  # the step that never came back may have applied the fault
    assert not lease.first_step
    assert counted(redis_client, "leases_lost") == 1


def test_a_renewed_lease_does_not_end(ledger: Ledger, leases: Leases, redis_client: redis.Redis) -> None:
    submit(ledger)
    lease = begin(leases)
    pass_time(redis_client, "p1", 5_000)
    assert leases.renew({"p1": lease.token}) == []
    pass_time(redis_client, "p1", 5_000)
    assert leases.fetch([], 10).due == []


def test_a_lease_that_was_lost_is_not_renewed(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    lost = begin(leases)
    pass_time(redis_client, "p1", 6_000)
    next_lease = begin_due(leases)
    assert leases.renew({"p1": lost.token, "unknown": "token"}) == ["p1", "unknown"]
    assert leases.renew({"p1": next_lease.token}) == []


def test_a_stale_decision_changes_nothing(ledger: Ledger, leases: Leases, redis_client: redis.Redis) -> None:
    submit(ledger)
    stale = begin(leases)
    pass_time(redis_client, "p1", 6_000)
    begin_due(leases)
    before = read(ledger)
    assert parked(leases, stale, 1000, stale.record.applied("f1", 1)).lost
    assert retried(leases, stale, 1000).lost
    assert finished(leases, stale).lost
    assert read(ledger) == before
    assert redis_client.get("result-p1") is None


def test_one_stale_decision_in_a_batch_spoils_no_other(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    submit(ledger, "p2", abort_plan(api="/other"))
    stale, other = begin(leases), begin(leases, "p2")
    pass_time(redis_client, "p1", 6_000)
    begin_due(leases)
    args: list[str | int] = [1000, "apply_id", "f"]
    both = [Settlement(each.plan_id, each.token, "snooze", args) for each in (stale, other)]
    assert [standing.lost for standing in leases.settle(both)] == [True, False]
    assert [read(ledger, plan_id).apply_id for plan_id in ("p1", "p2")] == [None, "f"]


def test_a_parked_plan_waits_until_it_is_due(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    lease = begin(leases)
    assert parked(leases, lease, 30_000, lease.record.applied("f1", 1)).due_ms == 30_000
    assert leases.fetch([], 10).due == []
    pass_time(redis_client, "p1", 30_000)
    record = begin_due(leases).record
    assert (record.state, record.apply_id) == (PlanState.RUNNING, "f1")
    assert record.applied_ms is not None


@pytest.mark.parametrize("ending", [parked, retried])
def test_a_decision_sent_again_because_its_answer_was_lost_is_recognised(
    ledger: Ledger, leases: Leases, ending: Any
) -> None:
    submit(ledger)
    lease = begin(leases)
    ending(leases, lease, 1000)
    again = ending(leases, lease, 1000)
    assert not again.lost
    assert read(ledger).retries == (1 if ending is retried else 0)


def test_an_end_sent_again_ends_the_plan_once(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    lease = begin(leases)
    assert finished(leases, lease).due_ms == 0
    assert finished(leases, lease).due_ms == 0
    assert redis_client.llen("{dispatcher}:ended:p1") == 1
    assert counted(redis_client, "observed") == 1


def test_a_retry_is_begun_only_by_its_own_message(ledger: Ledger, leases: Leases) -> None:
    submit(ledger)
    assert retried(leases, begin(leases), 500).due_ms == 500
    assert named(leases, retries=0) is Denial.ELSEWHERE
    assert named(leases, retries=2) is Denial.ELSEWHERE
    assert begin(leases, retries=1).record.retries == 1


def test_a_retry_whose_message_is_lost_is_due_behind_its_time(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    retried(leases, begin(leases), 500, grace_ms=600_000)
    assert (redis_client.zscore(DUE, "p1") or 0) - read(ledger).due_ms == 600_000
    pass_time(redis_client, "p1", 500_500)
    assert leases.fetch([], 10).due == []
    pass_time(redis_client, "p1", 100_000)
    begin_due(leases)
    assert named(leases, retries=1) is Denial.ELSEWHERE
    assert counted(redis_client, "messages_lost") == 1


def test_a_released_lease_leaves_the_plan_as_if_it_had_not_begun(ledger: Ledger, leases: Leases) -> None:
    submit(ledger)
    lease = begin(leases)
    release(leases, lease)
    assert read(ledger).started_ms is None
    again = begin_due(leases)
    assert (again.first_step, again.record.doubtful) == (True, False)


def test_the_call_says_when_the_next_plan_is_due(ledger: Ledger, leases: Leases) -> None:
    assert leases.fetch([], 10).next_due_s is None
    submit(ledger)
    assert leases.fetch([], 10).next_due_s == pytest.approx(60, abs=1)


def test_no_more_due_plans_are_leased_than_asked_for(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    for number in range(5):
        submit(ledger, f"p{number}", abort_plan(api=f"/{number}"))
        pass_time(redis_client, f"p{number}", 60_000)
    assert len(leases.fetch([], 3).due) == 3
    assert len(leases.fetch([], 3).due) == 2


def test_a_due_entry_without_a_plan_is_dropped(leases: Leases, redis_client: redis.Redis) -> None:
    redis_client.zadd(DUE, {"ghost": 0})
    assert leases.fetch([], 10).due == []
    assert redis_client.zcard(DUE) == 0


def test_the_result_and_the_end_are_one(ledger: Ledger, leases: Leases, redis_client: redis.Redis) -> None:
    submit(ledger)
    finished(leases, begin(leases))
    assert read(ledger).state is PlanState.OBSERVED
    assert redis_client.get("result-p1") == "the result"
    assert redis_client.zcard(DUE) == 0
    assert named(leases) is Denial.OVER


def test_an_ended_plan_expires_with_all_its_keys(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, batch="b1")
    assert redis_client.ttl("{dispatcher}:plan:p1") == -1
    finished(leases, begin(leases))
    removed_by_workers = {f"{{dispatcher}}:{name}" for name in ("history", "endings", "batch:b1")}
    own = set(redis_client.keys("*")) - {COUNTS, "{dispatcher}:reached"} - removed_by_workers
    assert "{dispatcher}:completions:b1" in own
    assert all(0 < redis_client.ttl(key) <= 86_400 for key in own)


def test_the_deadline_is_the_faults_own_time_and_the_timeout_after_the_first_step(
    ledger: Ledger, leases: Leases
) -> None:
    submit(ledger, plan=abort_plan(duration_seconds=10, start_delay_ms=200))
    lease = begin(leases)
    assert lease.record.deadline_ms == lease.now_ms + 200 + 10_000 + 30_000


def test_a_target_has_one_plan_at_a_time_first_come_first_served(ledger: Ledger, leases: Leases) -> None:
    for plan_id in ("p1", "p2", "p3"):
        submit(ledger, plan_id)
    assert named(leases, "p2") is Denial.WAITS
    assert read(ledger, "p2").cause == "waits for its target, which plan p1 holds"
    first = begin(leases, "p1")
    assert leases.fetch([], 10).due == []
    assert named(leases, "p3") is Denial.WAITS
    finished(leases, first)
    second = begin_due(leases, "p2")
    assert second.record.cause is None
    finished(leases, second)
    begin_due(leases, "p3")


def test_a_plan_keeps_its_target_from_its_first_step_to_its_end(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2")
    lease = begin(leases, "p1")
    parked(leases, lease, 0, lease.record.applied("f1", 1))
    assert named(leases, "p2") is Denial.WAITS
    begin_due(leases, "p1")


def test_the_budget_of_a_plan_that_waits_for_its_target_has_not_begun(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2")
    begin(leases, "p1")
    assert named(leases, "p2") is Denial.WAITS
    assert read(ledger, "p2").started_ms is None


def test_another_target_executor_or_policy_does_not_wait(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "p1")
    begin(leases, "p1")
    submit(ledger, "p2", abort_plan(api="/other"))
    submit(ledger, "p3", executor="another")
    submit(ledger, "p4", conflict_policy=ConflictPolicy.ALLOW)
    for plan_id in ("p2", "p3", "p4"):
        begin(leases, plan_id)


def test_a_conflict_that_shows_only_at_the_start_time_is_part_of_the_lease(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    later = abort_plan(start_time=datetime.now(UTC) + timedelta(seconds=60))
    submit(ledger, "p2", later, conflict_policy=ConflictPolicy.REJECT)
    submit(ledger, "p1")
    begin(leases, "p1")
    pass_time(redis_client, "p2", 60_000)
    assert begin_due(leases, "p2").record.in_the_way == "p1"
    pass_time(redis_client, "p2", 60_000)
    again = begin_due(leases, "p2").record  # the step was lost
    assert (again.in_the_way, again.doubtful, again.started_ms) == ("p1", False, None)


def test_a_plan_with_a_later_start_time_does_not_hold_others_up(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "p1", abort_plan(start_time=datetime.now(UTC) + timedelta(seconds=60)))
    submit(ledger, "p2")
    begin(leases, "p2")


def test_a_plan_that_expires_in_the_line_gets_a_lease_to_end(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2", expires_after_ms=5_000)
    begin(leases, "p1")
    assert named(leases, "p2") is Denial.WAITS
    assert read(ledger, "p2").due_ms == read(ledger, "p2").expires_ms
    pass_time(redis_client, "p2", 5_000)
    begin_due(leases, "p2")


def test_a_target_whose_fault_may_be_alive_stays_reserved(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2")
    lease = begin(leases, "p1")
    finished(leases, lease, lease.record.ended(ValueError("gone")), alive_ms=5_000)
    assert named(leases, "p2") is Denial.WAITS
    redis_client.hincrby("{dispatcher}:plan:p1", "released_ms", -5_000)
    pass_time(redis_client, "p2", 5_000)
    begin_due(leases, "p2")


def test_a_holder_that_vanished_does_not_block_its_target(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2")
    begin(leases, "p1")
    redis_client.delete("{dispatcher}:plan:p1")
    begin(leases, "p2")


def end_in_doubt(leases: Leases, lease: Lease) -> None:
    record = lease.record.applied("f1", 1)
    finished(leases, lease, record.ended(ValueError("gone")), doubt="no answer says that it is over")


def test_all_plans_that_wait_for_a_target_in_doubt_wait_from_then_on_for_their_own_timeout(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    holder = begin(leases, "p1")
    waiting = ("p2", "p3", "p4")
    for plan_id in waiting:
        submit(ledger, plan_id, timeout_ms=5_000)
        assert named(leases, plan_id) is Denial.WAITS
    end_in_doubt(leases, holder)
    for plan_id in waiting:
        pass_time(redis_client, plan_id, 0)
    assert leases.fetch([], 10).due == []
    for plan_id in waiting:
        stuck_ms = int(redis_client.hget(f"{{dispatcher}}:plan:{plan_id}", "stuck_ms") or 0)
        assert read(ledger, plan_id).due_ms == stuck_ms + 5_000
        redis_client.hincrby(f"{{dispatcher}}:plan:{plan_id}", "stuck_ms", -5_000)
        pass_time(redis_client, plan_id, 5_000)
    ends = {lease.plan_id: lease.record.in_the_way for lease in leases.fetch([], 10).due}
    assert ends == dict.fromkeys(waiting, "p1")


def test_a_plan_that_shares_its_target_reserves_it_once_its_fault_is_in_doubt(
    ledger: Ledger, leases: Leases
) -> None:
    submit(ledger, "p1", conflict_policy=ConflictPolicy.ALLOW)
    end_in_doubt(leases, begin(leases, "p1"))
    submit(ledger, "p2")
    assert named(leases, "p2") is Denial.WAITS
    assert ledger.release("default:PaymentService:/api/v1/payment/process", "it is over") == ["p1"]
    begin_due(leases, "p2")


def test_a_target_of_two_faults_in_doubt_is_free_once_both_are_over(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2", conflict_policy=ConflictPolicy.ALLOW)
    submit(ledger, "p3")
    for plan_id in ("p1", "p2"):
        end_in_doubt(leases, begin(leases, plan_id))
    assert named(leases, "p3") is Denial.WAITS
    redis_client.zincrby("{dispatcher}:doubts", -LOOK_AGAIN_MS, "p1")
    over = begin_due(leases, "p1")
    leases.settle([Settlement(over.plan_id, over.token, "known", [0])])
    assert leases.fetch([], 10).due == []
    assert ledger.in_doubt() == ["p2"]
    redis_client.zincrby("{dispatcher}:doubts", -LOOK_AGAIN_MS, "p2")
    over = begin_due(leases, "p2")
    leases.settle([Settlement(over.plan_id, over.token, "known", [0])])
    begin_due(leases, "p3")


def test_a_cancelled_plan_is_due_at_once(ledger: Ledger, leases: Leases) -> None:
    submit(ledger)
    lease = begin(leases)
    parked(leases, lease, 30_000, lease.record.applied("f1", 1))
    assert ledger.cancel(["p1", "unknown"], "why not") == [True, None]
    assert begin_due(leases).record.cancelled == "why not"


def test_a_plan_cancelled_during_a_step_is_due_when_the_step_ends(ledger: Ledger, leases: Leases) -> None:
    submit(ledger)
    lease = begin(leases)
    ledger.cancel(["p1"], "")
    assert leases.fetch([], 10).due == []
    assert parked(leases, lease, 30_000, lease.record.applied("f1", 1)).due_ms == 0
    begin_due(leases)


def test_no_retry_is_sent_for_a_plan_that_was_cancelled_meanwhile(ledger: Ledger, leases: Leases) -> None:
    submit(ledger)
    lease = begin(leases)
    ledger.cancel(["p1"], "")
    assert retried(leases, lease, 30_000).cancelled
    begin_due(leases)


def test_a_cancelled_plan_does_not_wait_for_its_message_or_its_target(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2")
    begin(leases, "p1")
    ledger.cancel(["p2"], "")
    begin_due(leases, "p2")
    assert named(leases, "p2") is Denial.ELSEWHERE


def test_an_ended_plan_cannot_be_cancelled(ledger: Ledger, leases: Leases) -> None:
    submit(ledger)
    finished(leases, begin(leases))
    assert ledger.cancel(["p1"], "") == [False]
    assert read(ledger).cancelled is None


def test_nothing_begins_while_the_dispatcher_is_halted(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "running")
    begin(leases, "running")
    submit(ledger, "behind")
    submit(ledger, "elsewhere", abort_plan(api="/elsewhere"))
    ledger.halt("all out")
    assert named(leases, "elsewhere") is Denial.WAITS
    ledger.cancel(["running"], "halted", only_begun=True)
    assert named(leases, "behind") is Denial.WAITS
    assert read(ledger, "elsewhere").started_ms is None
    ledger.cancel(["elsewhere"], "halted")
    assert begin_due(leases, "elsewhere").record.cancelled == "halted"


def test_only_plans_that_have_begun_are_cancelled_if_so_asked(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2")
    begin(leases, "p1")
    assert ledger.cancel(["p1", "p2"], "halted", only_begun=True) == [True, False]
    assert [read(ledger, plan_id).cancelled for plan_id in ("p1", "p2")] == ["halted", None]


def test_an_apply_that_must_not_be_repeated_is_announced_only_under_the_lease(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    lost = begin(leases)
    pass_time(redis_client, "p1", 6_000)
    lease = begin_due(leases)
    assert not leases.announce_apply(lost)
    assert read(ledger).applying_ms is None
    assert leases.announce_apply(lease)
    assert read(ledger).applying_ms is not None


def test_a_record_that_cannot_be_read_spoils_no_other(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    for plan_id in ("p1", "p2", "p3"):
        submit(ledger, plan_id, abort_plan(api=f"/{plan_id}"))
    redis_client.hset("{dispatcher}:plan:p1", "order", '{"version": 99}')
    redis_client.hset("{dispatcher}:plan:p2", "v", "99")
    fetched = leases.fetch([Named(plan_id, 0) for plan_id in ("p1", "p2", "p3")], 0)
    assert fetched.named[:2] == [Denial.UNREADABLE, Denial.UNREADABLE]
    assert isinstance(fetched.named[2], Lease)
    [unreadable] = fetched.unreadable
    assert unreadable.plan_id == "p1"
    leases.settle([Settlement("p1", unreadable.token, "aside", [unreadable.why])])
    aside = redis_client.hgetall("{dispatcher}:aside")
    assert aside == {"p1": unreadable.why, "p2": "schema version 99"}
    assert leases.fetch([], 10).due == []


@pytest.mark.parametrize("damage", ["another kind of key", "no lease", "no due time"])
def test_a_plan_whose_record_is_damaged_is_set_aside_and_spoils_no_other(
    damage: str, ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    for plan_id in ("p1", "p2"):
        submit(ledger, plan_id, abort_plan(api=f"/{plan_id}"))
        redis_client.zadd(DUE, {plan_id: 0})
    if damage == "another kind of key":
        redis_client.set("{dispatcher}:plan:p1", "text")
    else:
        redis_client.hdel("{dispatcher}:plan:p1", {"no lease": "lease", "no due time": "due_ms"}[damage])
    assert named(leases) is Denial.UNREADABLE
    redis_client.zadd(DUE, {"p1": 0})
    begin_due(leases, "p2")
    assert set(redis_client.hgetall("{dispatcher}:aside")) == {"p1"}
    assert ledger.cancel(["p1", "p2"], "why not")[1] is True


@pytest.mark.parametrize("field", ["due_ms", "submitted_ms", "expires_ms"])
@pytest.mark.parametrize("text", ["soon", "-1e999", "nan"])
def test_a_time_that_is_not_a_number_spoils_only_its_own_plan(
    field: str, text: str, ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    for plan_id in ("p1", "p2"):
        submit(ledger, plan_id, abort_plan(api=f"/{plan_id}"))
    redis_client.hset("{dispatcher}:plan:p1", field, text)
    redis_client.lpush(QUEUE, "message")
    redis_client.zincrby(DUE, -10_000, "p1")
    leases.fetch([], 10)  # looks for messages that were lost
    assert named(leases) is Denial.UNREADABLE
    redis_client.zadd(DUE, {"p1": 0})
    assert leases.fetch([], 10).due == []
    begin(leases, "p2")


@pytest.mark.parametrize("key", ["line:default:PaymentService:/p1", "beside:default:PaymentService:/p1"])
def test_another_programs_key_in_the_place_of_a_targets_spoils_only_plans_of_that_target(
    key: str, ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    for plan_id in ("p1", "p2"):
        submit(ledger, plan_id, abort_plan(api=f"/{plan_id}"))
        redis_client.zadd(DUE, {plan_id: 0})
    redis_client.delete(f"{{dispatcher}}:{key}")
    redis_client.set(f"{{dispatcher}}:{key}", "text")
    assert named(leases) is Denial.UNREADABLE
    redis_client.zadd(DUE, {"p1": 0})
    begin_due(leases, "p2")
    assert "WRONGTYPE" in redis_client.hgetall("{dispatcher}:aside")["p1"]


def test_a_plan_that_is_gone_is_no_longer_aside(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    redis_client.hset("{dispatcher}:plan:p1", "v", "99")
    assert named(leases) is Denial.UNREADABLE
    redis_client.delete("{dispatcher}:plan:p1")
    redis_client.zadd(DUE, {"p1": 0})
    assert leases.fetch([], 10).due == []
    assert redis_client.hgetall("{dispatcher}:aside") == {}


def test_a_plan_that_was_set_aside_goes_on_once_a_worker_can_read_it(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    submit(ledger)
    redis_client.hset("{dispatcher}:plan:p1", "v", "99")
    assert named(leases) is Denial.UNREADABLE
    redis_client.hset("{dispatcher}:plan:p1", "v", SCHEMA_VERSION)
    pass_time(redis_client, "p1", 60_000)
    begin_due(leases)
    assert redis_client.hgetall("{dispatcher}:aside") == {}


def test_the_breakers_state_comes_with_each_lease(
    ledger: Ledger, leases: Leases, redis_client: redis.Redis
) -> None:
    redis_client.hset("{dispatcher}:breaker:default", mapping={"state": "open", "epoch": "7"})
    submit(ledger, "p1", abort_plan(api="/1"))
    submit(ledger, "p2", abort_plan(api="/2"), executor="other")
    assert begin(leases, "p1").breaker == ("open", "7")
    assert begin(leases, "p2").breaker == ("", "0")


@pytest.mark.every_server
def test_a_plan_in_flight_costs_2200_bytes_at_most_its_place_in_history_and_batch_included(
    real_redis: redis.Redis,
) -> None:
    ledger, leases = Ledger(real_redis, Settings()), Leases(real_redis, Settings())
    submit(ledger, "before", batch="b0")
    parked(leases, begin(leases, "before"), 30_000)  # Redis keeps the scripts from now on
    before = real_redis.info("memory")["used_memory"]
    for number in range(MANY):
        plan_id = f"{number:032x}-{number}"
        target = abort_plan(api=f"/api/v1/payment/process/{number}", start_delay_ms=200)
        more = {"batch": "b" * 32, "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
        submit(ledger, plan_id, target, expires_after_ms=60_000, **more)
        lease = begin(leases, plan_id)
        parked(leases, lease, 30_000, lease.record.applied(f"f-{number:032x}", 1_900_000_000_000))
    assert (real_redis.info("memory")["used_memory"] - before) / MANY <= 2_200
