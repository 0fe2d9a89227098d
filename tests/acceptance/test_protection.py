"""What a fleet of real workers does to an Executor that is down, and when it comes back."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from support.eventually import eventually
from support.plans import abort_plan

from dispatcher import (
    CircuitOpenError,
    Dispatcher,
    ExecutorServerError,
    ExecutorTimeoutError,
    PlanState,
    RawObservation,
)

if TYPE_CHECKING:
    from support.processes import Workers
    from support.redis_server import RedisServer
    from support.stub_executor import StubExecutor

    from dispatcher import PlanBatch

PLANS = 300
PER_SEC = 150
THREADS = 8
BREAKER = "{dispatcher}:breaker:default"
LEASE_S = 110
PROBES = f"{BREAKER}:probes"


def configured(**knobs: object) -> dict[str, str]:
    return {f"DISPATCHER_EXECUTORS__DEFAULT__{name.upper()}": str(value) for name, value in knobs.items()}


def submit(dispatcher: Dispatcher, plans: int = PLANS, timeout_sec: float = 30.0) -> PlanBatch:
    return dispatcher.submit_many(
        (abort_plan(api=f"/{number}") for number in range(plans)), timeout_sec=timeout_sec
    )


def most_in_a_second(moments: list[float]) -> int:
    return max(sum(begun <= moment < begun + 1 for moment in moments) for begun in moments)


def test_a_dead_executor_is_left_alone_and_the_plans_fail_with_when_to_come_again(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    stub.down = True
    for _ in range(2):
        start(stub.url, "--concurrency", str(THREADS))
    outcomes = submit(dispatcher, timeout_sec=2).results(60)
    kinds = Counter(type(outcome) for outcome in outcomes)
    print(f"{len(stub.calls)} calls for {PLANS} plans: {kinds}")
    assert len(stub.calls) <= 1.1 * PLANS
    assert len(stub.calls) <= 4 + 2 * THREADS
    assert kinds[CircuitOpenError] >= PLANS - len(stub.calls)
    assert set(kinds) <= {CircuitOpenError, ExecutorServerError, ExecutorTimeoutError}
    assert all(
        (outcome.retry_after_s or 0) > 0 for outcome in outcomes if isinstance(outcome, CircuitOpenError)
    )


def test_a_dead_executor_gets_few_retries_where_there_is_no_breaker(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    stub.down = True
    for _ in range(2):
        start(stub.url, **configured(circuit_breaker_enabled=False, initial_retry_delay_sec=0.1))
    outcomes = submit(dispatcher, timeout_sec=5).results(60)
    print(f"{len(stub.calls)} calls for {PLANS} plans")
    assert PLANS <= len(stub.calls) <= 1.1 * PLANS
    assert {type(outcome) for outcome in outcomes} <= {ExecutorServerError, ExecutorTimeoutError}


def test_plans_that_wait_for_an_executor_go_one_after_the_other_once_it_is_back(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor, redis_server: RedisServer
) -> None:
    stub.down = True
    for _ in range(2):
        start(
            stub.url,
            **configured(
                circuit_breaker_on_open="defer",
                circuit_breaker_timeout_sec=1,
                circuit_breaker_max_timeout_sec=2,
                circuit_breaker_recovery_per_sec=PER_SEC,
            ),
        )
    batch = submit(dispatcher, timeout_sec=120)  # a busy machine takes its time
    eventually(lambda: int(redis_server.client.hget(BREAKER, "opens") or 0) >= 3)
    while_down = len(stub.calls)
    stub.down = False
    outcomes = batch.results(120)
    after = stub.called_at[while_down:]
    calls = zip(stub.calls[while_down:], after, strict=True)
    applied_at = [at for (method, _), at in calls if method == "POST"]
    begun = applied_at[0]
    print(
        f"{while_down} calls for {PLANS} plans while it was down; then in the first second "
        f"{sum(at < begun + 1 for at in applied_at)} applies, {sum(at < begun + 1 for at in after)} calls; "
        f"in the fullest {most_in_a_second(applied_at)}"
    )
    assert [outcome for outcome in outcomes if not isinstance(outcome, RawObservation)] == []
    assert set(stub.applied.values()) == {1}
    assert while_down <= 1.1 * PLANS
    assert sum(at < begun + 1 for at in after) <= PER_SEC * 1.2
    assert most_in_a_second(applied_at) <= PER_SEC * 1.5


def test_a_probe_whose_worker_is_killed_frees_its_place_after_its_lease(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor, redis_server: RedisServer
) -> None:
    redis = redis_server.client
    waiting = configured(
        circuit_breaker_on_open="defer", circuit_breaker_timeout_sec=1, circuit_breaker_failure_threshold=2
    )
    worker = start(stub.url, **waiting)
    stub.down = True
    doomed = dispatcher.submit(abort_plan(api="/doomed"))
    eventually(lambda: redis.hget(BREAKER, "state") == "open")
    stub.hanging.add("/doomed")
    stub.down = False
    eventually(lambda: redis.zcard(PROBES) == 1 and stub.calls[-1][0] == "POST")
    worker.kill()
    start(stub.url, **waiting)
    handles = [dispatcher.submit(abort_plan(api=f"/{number}")) for number in range(5)]
    eventually(lambda: all(handle.status().cause for handle in handles))
    assert {handle.status().state for handle in handles} == {PlanState.QUEUED}
    stub.hanging.clear()
    stub.let_go.set()
    [probe] = map(str, redis.zrange(PROBES, 0, -1))
    redis.zincrby(PROBES, -LEASE_S * 1000, probe)  # its lease runs out
    assert {handle.result(60).error_rate for handle in handles} == {1.0}
    redis.hset(f"{{dispatcher}}:plan:{doomed.id}", "due_ms", 0)  # and that of its plan
    redis.zadd("{dispatcher}:due", {doomed.id: 0})
    assert doomed.result(60).error_rate == 1.0
    assert set(stub.applied.values()) == {1}
