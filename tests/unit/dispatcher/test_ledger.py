"""The ledger, on a fake Redis and on real ones. Time passes by shifting what is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from support.plans import abort_plan, delay_plan, plan_record
from support.steps import finished, parked

from dispatcher import (
    ConflictPolicy,
    DispatchHaltedError,
    ExecutorClientError,
    InvalidPlanError,
    LedgerUnavailableError,
    PlanConflictError,
    PlanState,
    Settings,
)
from dispatcher.ledger import Ledger, Step, Submission, connect
from dispatcher.record import Order
from dispatcher.wake_ups import WakeUp

if TYPE_CHECKING:
    import redis
    from support.stopwatch import Stopwatch

    from dispatcher import FaultPlan
    from dispatcher.ledger import Settled
    from dispatcher.record import PlanRecord

DUE = "{dispatcher}:due"
COUNTS = "{dispatcher}:counts"
PLAN = abort_plan()
MANY = 300
"""So many plans that what Redis needs once and for all, such as the scripts, is a small part of each."""


def submit(ledger: Ledger, plan_id: str = "p1", plan: FaultPlan = PLAN, **options: Any) -> bool:
    """Whether it is new. Raises why it was refused."""
    names = ("expires_after_ms", "batch", "traceparent")
    own = {name: options.pop(name) for name in names if name in options}
    order = Order(plan=plan, **{"timeout_ms": 30_000, **options})
    [outcome] = ledger.submit([Submission(plan_id, order, **own)])
    if isinstance(outcome, ExecutorClientError):
        raise outcome
    return outcome


def read(ledger: Ledger, plan_id: str = "p1") -> PlanRecord:
    [record] = ledger.read([plan_id])
    assert record is not None
    return record


def stored(ledger: Ledger, plan_id: str = "p1") -> str | None:
    [found] = ledger.execute_all([["GET", f"result-{plan_id}"]])
    return None if found is None else str(found)


def begin(ledger: Ledger, plan_id: str = "p1", token: str = "t1", lease_ms: int = 60_000) -> Step:
    step = ledger.begin(plan_id, token, lease_ms)
    assert step is not None
    return step


def finish(ledger: Ledger, step: Step) -> Settled:
    return finished(ledger, step.record.observed(), step.token)


def pass_time(client: redis.Redis, plan_id: str, ms: int) -> None:
    """Let `ms` pass for one plan."""
    for field in ("due_ms", "started_ms", "expires_ms", "submitted_ms", "applied_ms"):
        if client.hexists(f"{{dispatcher}}:plan:{plan_id}", field):
            client.hincrby(f"{{dispatcher}}:plan:{plan_id}", field, -ms)
    client.zincrby(DUE, -ms, plan_id)


def test_a_submitted_plan_is_queued(ledger: Ledger) -> None:
    assert submit(ledger)
    record = read(ledger)
    assert (record.state, record.plan, record.attempts) == (PlanState.QUEUED, PLAN, 0)


def test_the_same_plan_submitted_again_is_the_same_plan(ledger: Ledger) -> None:
    submit(ledger)
    assert not submit(ledger)


def test_the_span_that_submits_a_plan_is_kept_and_is_no_part_of_it(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    submit(ledger, traceparent="00-first")
    assert not submit(ledger, traceparent="00-second")
    assert (read(ledger).traceparent, begin(ledger).record.traceparent) == ("00-first", "00-first")
    submit(ledger, "p2")
    assert read(ledger, "p2").traceparent == ""
    assert not redis_client.hexists("{dispatcher}:plan:p2", "traceparent")  # each field costs memory


@pytest.mark.parametrize("change", [{"plan": abort_plan(percentage=1)}, {"timeout_ms": 1}])
def test_another_plan_under_the_same_id_is_refused(ledger: Ledger, change: dict[str, Any]) -> None:
    submit(ledger)
    with pytest.raises(PlanConflictError, match="p1"):
        submit(ledger, **change)


def test_a_start_time_in_the_past_is_refused(ledger: Ledger) -> None:
    late = abort_plan(start_time=datetime.now(UTC) - timedelta(seconds=2))
    with pytest.raises(InvalidPlanError, match="start_time"):
        submit(ledger, plan=late)
    assert ledger.read(["p1"]) == [None]


def test_a_plan_with_a_start_time_waits_for_it(ledger: Ledger, redis_client: redis.Redis) -> None:
    submit(ledger, plan=abort_plan(start_time=datetime.now(UTC) + timedelta(seconds=60)))
    assert ledger.begin("p1", "t1", 1000) is None
    assert ledger.claim_due().wake_ups == []
    pass_time(redis_client, "p1", 60_000)
    assert [wake_up.plan_id for wake_up in ledger.claim_due().wake_ups] == ["p1"]
    begin(ledger)


def test_expiry_counts_from_the_start_time(ledger: Ledger) -> None:
    start = datetime.now(UTC) + timedelta(seconds=60)
    submit(ledger, plan=abort_plan(start_time=start), expires_after_ms=5_000)
    record = read(ledger)
    assert record.expires_ms == record.due_ms + 5_000


def test_one_step_at_a_time(ledger: Ledger) -> None:
    submit(ledger)
    begin(ledger, token="t1")
    assert ledger.begin("p1", "t2", 60_000) is None


def test_begin_repeated_with_the_same_token_gets_the_same_lease(ledger: Ledger) -> None:
    submit(ledger)
    assert begin(ledger).record.started_ms == begin(ledger).record.started_ms


@pytest.mark.parametrize("plan", [PLAN, delay_plan(start_delay_ms=50)])
def test_a_wake_up_calls_its_plan_as_people_do(
    ledger: Ledger, redis_client: redis.Redis, plan: FaultPlan
) -> None:
    submit(ledger, plan=plan)
    begin(ledger, token="killed")
    pass_time(redis_client, "p1", 60_000)
    assert [wake_up.title for wake_up in ledger.claim_due().wake_ups] == [str(plan)]


def test_a_lost_lease_lets_another_step_begin(ledger: Ledger, redis_client: redis.Redis) -> None:
    submit(ledger)
    begin(ledger, token="killed")
    pass_time(redis_client, "p1", 60_000)
    assert ledger.claim_due().wake_ups == [WakeUp("p1", str(PLAN))]
    begin(ledger, token="next")


def test_a_stale_step_changes_nothing(ledger: Ledger, redis_client: redis.Redis) -> None:
    submit(ledger)
    stale = begin(ledger, token="stale")
    pass_time(redis_client, "p1", 60_000)
    begin(ledger, token="next")
    before = read(ledger)
    assert parked(ledger, stale.record.applied("f1", 1), "stale", 1000) is None
    assert finish(ledger, stale) is None
    assert read(ledger) == before
    assert stored(ledger) is None


def test_a_parked_plan_is_nobodys_until_it_is_due(ledger: Ledger, redis_client: redis.Redis) -> None:
    submit(ledger)
    step = begin(ledger)
    assert parked(ledger, step.record.applied("f1", 1), step.token, 30_000) == 30_000
    assert ledger.begin("p1", "early", 1000) is None
    assert ledger.claim_due().wake_ups == []
    pass_time(redis_client, "p1", 30_000)
    assert [wake_up.plan_id for wake_up in ledger.claim_due().wake_ups] == ["p1"]
    record = begin(ledger, token="t2").record
    assert (record.state, record.apply_id) == (PlanState.RUNNING, "f1")
    assert record.applied_ms is not None


def test_the_waker_leaves_a_retry_to_its_own_message_for_a_while(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    submit(ledger)
    step = begin(ledger)
    parked(ledger, step.record, step.token, 500, woken_otherwise=True)
    pass_time(redis_client, "p1", 500)
    assert ledger.claim_due().wake_ups == []
    pass_time(redis_client, "p1", 1_000)
    assert [wake_up.plan_id for wake_up in ledger.claim_due().wake_ups] == ["p1"]


def test_a_due_plan_is_claimed_once(ledger: Ledger, redis_client: redis.Redis) -> None:
    submit(ledger)
    pass_time(redis_client, "p1", 1_000)
    assert len(ledger.claim_due().wake_ups) == 1
    assert ledger.claim_due().wake_ups == []


def test_a_plan_that_nobody_takes_up_is_woken_ever_more_rarely(
    ledger: Ledger, redis_client: redis.Redis, stopwatch: Stopwatch
) -> None:
    submit(ledger)
    for wait_s in (1, 2, 4, 8, 16, 30, 30):
        assert (ledger.claim_due().next_due_ms or 0) / 1000 == stopwatch.left_of(wait_s)
        redis_client.zadd(DUE, {"p1": 0})
        assert len(ledger.claim_due().wake_ups) == 1


def test_a_backlog_of_wake_ups_is_not_doubled(ledger: Ledger, redis_client: redis.Redis) -> None:
    submit(ledger)
    redis_client.lpush("dispatcher", "somebody's wake-up")
    redis_client.zadd(DUE, {"p1": 0})
    assert ledger.claim_due().wake_ups == []
    redis_client.delete("dispatcher")
    redis_client.zadd(DUE, {"p1": 0})
    assert [wake_up.plan_id for wake_up in ledger.claim_due().wake_ups] == ["p1"]


def test_a_plan_that_fell_due_is_woken_behind_a_backlog(ledger: Ledger, redis_client: redis.Redis) -> None:
    submit(ledger)
    redis_client.lpush("dispatcher", "somebody's wake-up")
    step = begin(ledger)
    parked(ledger, step.record, step.token, 0)
    assert [wake_up.plan_id for wake_up in ledger.claim_due().wake_ups] == ["p1"]


def test_a_lost_wake_up_is_replaced_however_long_the_backlog(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    submit(ledger)
    redis_client.lpush("dispatcher", "somebody's wake-up")
    claimed = []
    for _ in range(6):
        redis_client.zadd(DUE, {"p1": 0})
        claimed.append(len(ledger.claim_due().wake_ups))
    assert claimed == [0, 0, 0, 0, 1, 1]


def test_the_claim_says_when_the_next_plan_is_due(ledger: Ledger, stopwatch: Stopwatch) -> None:
    assert ledger.claim_due().next_due_ms is None
    submit(ledger)
    assert (ledger.claim_due().next_due_ms or 0) / 1000 == stopwatch.left_of(1)


def test_a_due_entry_without_a_plan_is_dropped(ledger: Ledger, redis_client: redis.Redis) -> None:
    redis_client.zadd(DUE, {"ghost": 0})
    assert ledger.claim_due().wake_ups == []
    assert redis_client.zcard(DUE) == 0


def test_the_result_and_the_end_are_one(ledger: Ledger, redis_client: redis.Redis) -> None:
    submit(ledger)
    assert finish(ledger, begin(ledger)) == 0
    record = read(ledger)
    assert record.state is PlanState.OBSERVED
    assert stored(ledger) == "the result"
    assert redis_client.zcard(DUE) == 0
    assert ledger.begin("p1", "late", 1000) is None


def test_an_ended_plan_expires_with_all_its_keys(ledger: Ledger, redis_client: redis.Redis) -> None:
    submit(ledger)
    assert redis_client.ttl("{dispatcher}:plan:p1") == -1
    finish(ledger, begin(ledger))
    assert redis_client.ttl(COUNTS) == -1
    own = set(redis_client.keys("*")) - {COUNTS}
    assert all(0 < redis_client.ttl(key) <= 86_400 for key in own)


def test_finish_repeated_by_the_same_step_ends_the_plan_once(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    submit(ledger)
    step = begin(ledger)
    assert finish(ledger, step) == 0
    assert finish(ledger, step) == 0
    assert redis_client.llen("{dispatcher}:ended:p1") == 1


def test_the_deadline_is_the_faults_own_time_and_the_timeout_after_the_first_step(ledger: Ledger) -> None:
    submit(ledger, plan=abort_plan(duration_seconds=10, start_delay_ms=200))
    step = begin(ledger)
    assert step.record.deadline_ms == step.now_ms + 200 + 10_000 + 30_000


def test_a_redis_that_is_gone_is_one_typed_error(free_tcp_port: int) -> None:
    ledger = connect(Settings(redis_url=SecretStr(f"redis://:pa55@127.0.0.1:{free_tcp_port}/0")))
    with pytest.raises(LedgerUnavailableError, match="is redis_url right") as caught:
        ledger.read(["p1"])
    assert "pa55" not in str(caught.value)
    record = plan_record("p1")
    heard = [parked(ledger, record, "t1", 1000), finished(ledger, record, "t1")]
    assert [(type(each), str(each)) for each in heard] == [(LedgerUnavailableError, str(caught.value))] * 2
    ledger.close()


def test_a_target_has_one_plan_at_a_time_first_come_first_served(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    for plan_id in ("p1", "p2", "p3"):
        submit(ledger, plan_id)
    assert ledger.begin("p2", "t2", 1000) is None
    assert read(ledger, "p2").cause == "waits for its target, which plan p1 holds"
    first = begin(ledger, "p1")
    assert ledger.claim_due().wake_ups == []
    finish(ledger, first)
    assert [wake_up.plan_id for wake_up in ledger.claim_due().wake_ups] == ["p2"]
    second = begin(ledger, "p2", token="t2")
    assert second.record.cause is None
    assert ledger.begin("p3", "t3", 1000) is None
    finish(ledger, second)
    begin(ledger, "p3")


def test_a_plan_keeps_its_target_from_its_first_step_to_its_end(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2")
    step = begin(ledger, "p1")
    parked(ledger, step.record.applied("f1", 1), step.token, 0)
    assert ledger.begin("p2", "t2", 1000) is None
    begin(ledger, "p1", token="t2")


def test_the_budget_of_a_plan_that_waits_for_its_target_has_not_begun(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2")
    begin(ledger, "p1")
    ledger.begin("p2", "t2", 1000)
    assert read(ledger, "p2").started_ms is None


def test_another_target_executor_or_policy_does_not_wait(ledger: Ledger) -> None:
    submit(ledger, "p1")
    begin(ledger, "p1")
    submit(ledger, "p2", abort_plan(api="/other"))
    submit(ledger, "p3", executor="another")
    submit(ledger, "p4", conflict_policy=ConflictPolicy.ALLOW)
    for plan_id in ("p2", "p3", "p4"):
        begin(ledger, plan_id)


def test_a_plan_that_rejects_conflicts_is_refused_with_the_holders_name(ledger: Ledger) -> None:
    submit(ledger, "p1")
    with pytest.raises(PlanConflictError) as caught:
        submit(ledger, "p2", conflict_policy=ConflictPolicy.REJECT)
    assert caught.value.holder == "p1"
    assert ledger.read(["p2"]) == [None]


def test_a_conflict_that_shows_only_at_the_start_time_is_told_to_the_step(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    later = abort_plan(start_time=datetime.now(UTC) + timedelta(seconds=60))
    submit(ledger, "p2", later, conflict_policy=ConflictPolicy.REJECT)
    submit(ledger, "p1")
    begin(ledger, "p1")
    pass_time(redis_client, "p2", 60_000)
    assert begin(ledger, "p2", token="t2").record.in_the_way == "p1"
    assert begin(ledger, "p2", token="t2").record.in_the_way == "p1"  # the answer was lost
    pass_time(redis_client, "p2", 60_000)
    again = begin(ledger, "p2", token="t3").record  # the step was lost
    assert (again.in_the_way, again.doubtful, again.started_ms) == ("p1", False, None)


def test_a_plan_with_a_later_start_time_does_not_hold_others_up(ledger: Ledger) -> None:
    submit(ledger, "p1", abort_plan(start_time=datetime.now(UTC) + timedelta(seconds=60)))
    submit(ledger, "p2")
    begin(ledger, "p2")


def test_a_plan_that_expires_in_the_line_gets_its_step_to_end(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2", expires_after_ms=5_000)
    begin(ledger, "p1")
    assert ledger.begin("p2", "t2", 1000) is None
    assert read(ledger, "p2").due_ms == read(ledger, "p2").expires_ms
    pass_time(redis_client, "p2", 5_000)
    begin(ledger, "p2", token="t2")


def test_a_target_whose_fault_may_be_alive_stays_reserved(ledger: Ledger, redis_client: redis.Redis) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2")
    step = begin(ledger, "p1")
    finished(ledger, step.record.ended(ValueError("gone")), step.token, alive_ms=5_000)
    assert ledger.claim_due().wake_ups == []
    assert ledger.begin("p2", "t2", 1000) is None
    redis_client.hincrby("{dispatcher}:plan:p1", "released_ms", -5_000)
    pass_time(redis_client, "p2", 5_000)
    assert [wake_up.plan_id for wake_up in ledger.claim_due().wake_ups] == ["p2"]
    begin(ledger, "p2", token="t2")


def test_a_holder_that_vanished_does_not_block_its_target(ledger: Ledger, redis_client: redis.Redis) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2")
    begin(ledger, "p1")
    redis_client.delete("{dispatcher}:plan:p1")
    begin(ledger, "p2")


def test_a_cancelled_plan_is_due_at_once(ledger: Ledger) -> None:
    submit(ledger)
    step = begin(ledger)
    parked(ledger, step.record.applied("f1", 1), step.token, 30_000)
    assert ledger.cancel(["p1", "nobody"], "why not") == [WakeUp("p1", str(PLAN)), None]
    assert begin(ledger, token="t2").record.cancelled == "why not"


def test_a_plan_cancelled_during_a_step_is_due_when_the_step_ends(ledger: Ledger) -> None:
    submit(ledger)
    step = begin(ledger)
    ledger.cancel(["p1"], "")
    assert ledger.begin("p1", "t2", 1000) is None
    assert parked(ledger, step.record.applied("f1", 1), step.token, 30_000) == 0
    begin(ledger, token="t2")


def test_the_first_reason_of_a_cancel_stays(ledger: Ledger) -> None:
    submit(ledger)
    ledger.cancel(["p1"], "first")
    ledger.cancel(["p1"], "second")
    assert read(ledger).cancelled == "first"


def test_a_cancelled_plan_does_not_wait_for_its_target(ledger: Ledger) -> None:
    submit(ledger, "p1")
    submit(ledger, "p2")
    begin(ledger, "p1")
    ledger.cancel(["p2"], "")
    begin(ledger, "p2", token="t2")


def test_an_ended_plan_cannot_be_cancelled(ledger: Ledger) -> None:
    submit(ledger)
    finish(ledger, begin(ledger))
    assert ledger.cancel(["p1"], "") == [None]
    assert read(ledger).cancelled is None


def test_a_cancelled_plan_that_nobody_takes_up_is_urgent(ledger: Ledger, redis_client: redis.Redis) -> None:
    submit(ledger)
    ledger.cancel(["p1"], "")
    assert [wake_up.urgent for wake_up in ledger.claim_due().wake_ups] == [False]
    redis_client.zadd(DUE, {"p1": 0})
    assert [wake_up.urgent for wake_up in ledger.claim_due().wake_ups] == [True]


def test_a_halted_dispatcher_takes_no_plans_until_it_is_resumed(ledger: Ledger) -> None:
    submit(ledger, "p1")
    ledger.halt("fire drill")
    assert ledger.halted() == "fire drill"
    with pytest.raises(DispatchHaltedError, match="fire drill"):
        submit(ledger, "p2")
    assert not submit(ledger, "p1")  # that plan was taken before
    assert ledger.resume()
    assert not ledger.resume()
    assert submit(ledger, "p2")


def test_a_step_that_never_came_back_leaves_a_doubt(ledger: Ledger, redis_client: redis.Redis) -> None:
    submit(ledger)
    assert not begin(ledger, token="killed").record.doubtful
    pass_time(redis_client, "p1", 60_000)
    assert begin(ledger, token="next").record.doubtful


@pytest.mark.every_server
def test_a_plan_in_flight_costs_two_kilobytes_at_most(real_redis: redis.Redis) -> None:
    ledger = Ledger(real_redis, Settings())
    before = real_redis.info("memory")["used_memory"]
    for number in range(MANY):
        plan_id = f"{number:032x}-{number}"
        target = abort_plan(api=f"/api/v1/payment/process/{number}", start_delay_ms=200)
        more = {"batch": "b" * 32, "traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}
        submit(ledger, plan_id, target, expires_after_ms=60_000, **more)
        step = begin(ledger, plan_id, token=f"{number:032x}")
        parked(ledger, step.record.applied(f"f-{number:032x}", 1_900_000_000_000), step.token, 30_000)
    assert (real_redis.info("memory")["used_memory"] - before) / MANY <= 2_048
