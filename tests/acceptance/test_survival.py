"""What is left when things are killed, cancelled, halted or wiped."""

from __future__ import annotations

import asyncio
import itertools
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from support.eventually import eventually
from support.plans import abort_plan
from support.redis_server import RedisServer

from dispatcher import (
    Dispatcher,
    DispatchHaltedError,
    FaultInDoubtError,
    LedgerUnavailableError,
    PlanCancelledError,
    PlanConflictError,
    PlanState,
    PlanUnknownError,
    RawObservation,
    Settings,
)

if TYPE_CHECKING:
    from pathlib import Path

    from support.processes import Workers
    from support.stub_executor import StubExecutor


def is_running(dispatcher: Dispatcher, plan_id: str) -> bool:
    return dispatcher.handle(plan_id).status().state is PlanState.RUNNING


def queued(dispatcher: Dispatcher) -> list[str]:
    return [status.id for status in dispatcher.in_flight() if status.state is PlanState.QUEUED]


def connected(server: RedisServer) -> Dispatcher:
    return Dispatcher(Settings(redis_url=SecretStr(server.url)))


def test_a_restart_of_redis_kills_no_worker_and_loses_no_plan(
    start: Workers, stub: StubExecutor, tmp_path: Path
) -> None:
    (tmp_path / "redis").mkdir()
    options = ("--appendonly", "yes", "--appendfsync", "everysec")
    with RedisServer(tmp_path / "redis", *options) as server, connected(server) as dispatcher:
        workers = [start(stub.url, DISPATCHER_REDIS_URL=server.url) for _ in range(2)]
        plans = [abort_plan(api=f"/{number}", duration_seconds=6) for number in range(50)]
        batch = dispatcher.submit_many(plans)
        eventually(lambda: len(stub.applied) == 50 and not queued(dispatcher))
        eventually(lambda: server.client.info("persistence")["aof_pending_bio_fsync"] == 0)
        assert dispatcher.active()
        server.kill()
        server.start()
        assert all(observation.error_rate == 1.0 for observation in batch.results(60))  # type: ignore[union-attr]
        assert set(stub.applied.values()) == {1}
        assert all(worker.alive() for worker in workers)


def test_callers_wait_for_a_redis_that_is_away(start: Workers, stub: StubExecutor, tmp_path: Path) -> None:
    (tmp_path / "redis").mkdir()
    options = ("--appendonly", "yes", "--appendfsync", "always")
    with RedisServer(tmp_path / "redis", *options) as server, connected(server) as dispatcher:
        start(stub.url, DISPATCHER_REDIS_URL=server.url)
        handle = dispatcher.submit(abort_plan(duration_seconds=6))
        batch = dispatcher.submit_many([abort_plan(api="/other", duration_seconds=6)])
        with ThreadPoolExecutor(3) as pool:
            one, many = pool.submit(handle.result, 60), pool.submit(batch.results, 60)
            awaited = pool.submit(lambda: asyncio.run(handle.result_async(60)))
            eventually(lambda: server.client.info("clients")["blocked_clients"] >= 3)
            parked = [handle, *batch]  # a step that is cut off would hold its plan until its lease ends
            eventually(lambda: {each.status().state for each in parked} == {PlanState.RUNNING})
            server.kill()
            with pytest.raises(LedgerUnavailableError):
                handle.status()
            with pytest.raises(LedgerUnavailableError):
                handle.result(0.5)
            server.start()
            [other] = many.result()
            assert isinstance(other, RawObservation)
            assert one.result() == awaited.result()


def test_callers_learn_within_seconds_that_everything_was_wiped(
    dispatcher: Dispatcher, redis_server: RedisServer
) -> None:
    handle = dispatcher.submit(abort_plan(api="/one"))
    batch = dispatcher.submit_many([abort_plan(api="/two"), abort_plan(api="/three")])
    with ThreadPoolExecutor(2) as pool:
        one, many = pool.submit(handle.result, 30), pool.submit(batch.results, 30)
        eventually(lambda: redis_server.client.info("clients")["blocked_clients"] == 2)
        begun = time.monotonic()
        redis_server.client.flushall()
        with pytest.raises(PlanUnknownError):
            one.result()
        assert [type(outcome) for outcome in many.result()] == [PlanUnknownError, PlanUnknownError]
    assert time.monotonic() - begun < 15


def test_a_worker_ends_when_asked_although_redis_is_away_and_a_failure_waits_for_its_answer(
    start: Workers, stub: StubExecutor, tmp_path: Path
) -> None:
    (tmp_path / "redis").mkdir()
    stub.hanging.add("/hangs")
    options = {"DISPATCHER_WORKER__LEASE_SEC": "1", "DISPATCHER_EXECUTORS__DEFAULT__READ_TIMEOUT_SEC": "2"}
    with RedisServer(tmp_path / "redis") as server, connected(server) as dispatcher:
        worker = start(stub.url, DISPATCHER_REDIS_URL=server.url, **options)
        dispatcher.submit(abort_plan(api="/hangs"))
        eventually(lambda: len(stub.calls) == 1)
        server.kill()
        worker.send_signal(signal.SIGTERM)
        assert worker.wait() == 0


def test_a_cancelled_plan_has_its_fault_stopped(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    start(stub.url)
    handle = dispatcher.submit(abort_plan(duration_seconds=60))
    eventually(lambda: is_running(dispatcher, handle.id))
    begun = time.monotonic()
    assert handle.cancel("seen enough")
    with pytest.raises(PlanCancelledError, match="seen enough"):
        handle.result(60)
    assert time.monotonic() - begun < 15
    assert stub.stopped == {handle.id}
    assert handle.status().state is PlanState.CANCELLED
    assert not handle.cancel()


def test_a_stop_that_fails_is_tried_again_until_it_succeeds(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    start(stub.url, DISPATCHER_EXECUTORS__DEFAULT__MAX_RETRY_DELAY_SEC="0.5")
    handle = dispatcher.submit(abort_plan(duration_seconds=60))
    eventually(lambda: is_running(dispatcher, handle.id))
    stub.answers.extend([(503, {}), (500, {})])
    handle.cancel()
    with pytest.raises(PlanCancelledError):
        handle.result(60)
    assert [method for method, _ in stub.calls] == ["POST", "DELETE", "DELETE", "DELETE"]
    assert stub.stopped == {handle.id}


def test_an_unknown_plan_cannot_be_cancelled(dispatcher: Dispatcher) -> None:
    with pytest.raises(PlanUnknownError):
        dispatcher.handle("unknown-plan").cancel()


def test_a_halt_stops_every_fault_although_all_workers_are_busy(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    start(stub.url, "--concurrency", "1", DISPATCHER_EXECUTORS__DEFAULT__READ_TIMEOUT_SEC="2")
    running = [dispatcher.submit(abort_plan(api=f"/{n}", duration_seconds=60)) for n in range(5)]
    eventually(lambda: all(is_running(dispatcher, handle.id) for handle in running))
    stub.hanging.add("/hangs")
    stuck = dispatcher.submit(abort_plan(api="/hangs", duration_seconds=60))
    eventually(lambda: stub.bodies[-1] and stub.bodies[-1]["api"] == "/hangs")
    assert dispatcher.halt("fire drill") == 6
    for handle in running:
        with pytest.raises(PlanCancelledError, match="fire drill"):
            handle.result(60)
    assert stub.stopped == {handle.id for handle in running}
    with pytest.raises(DispatchHaltedError, match="fire drill"):
        dispatcher.submit(abort_plan())
    stub.let_go.set()
    with pytest.raises(PlanCancelledError):
        stuck.result(60)
    eventually(lambda: dispatcher.active() == [])  # until its unanswered apply can begin no fault any more
    assert dispatcher.resume()
    assert dispatcher.submit(abort_plan()).result(60).error_rate == 1.0


def test_plans_for_one_target_go_one_after_the_other(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    start(stub.url)
    handles = [dispatcher.submit(abort_plan()) for _ in range(3)]
    with pytest.raises(PlanConflictError) as caught:
        dispatcher.submit(abort_plan(), conflict_policy="reject")
    assert caught.value.holder == handles[0].id
    beside = dispatcher.submit(abort_plan(), conflict_policy="allow")
    statuses = []
    for handle in handles:
        handle.result(60)
        statuses.append(handle.status())
    for earlier, later in itertools.pairwise(statuses):
        assert earlier.ended_at is not None
        assert later.applied_at is not None
        assert earlier.ended_at <= later.applied_at
    beside_at, last_at = beside.status().applied_at, statuses[-1].applied_at
    assert beside_at is not None
    assert last_at is not None
    assert beside_at < last_at


def test_a_plan_in_mid_call_is_brought_back_by_its_lease(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor, redis_server: RedisServer
) -> None:
    stub.hanging.add("/hangs")
    worker = start(stub.url)
    handle = dispatcher.submit(abort_plan(api="/hangs"))
    eventually(lambda: stub.bodies and stub.bodies[-1]["api"] == "/hangs")
    worker.kill()
    stub.hanging.clear()
    stub.let_go.set()
    key = f"{{dispatcher}}:plan:{handle.id}"
    redis_server.client.hset(key, "due_ms", 0)  # the lease runs out
    redis_server.client.zadd("{dispatcher}:due", {handle.id: 0})
    start(stub.url)
    assert handle.result(60).error_rate == 1.0
    assert list(stub.applied.values()) == [1]


def test_a_fault_in_doubt_outlives_the_worker_that_met_it(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor, redis_server: RedisServer
) -> None:
    stub.lists_faults = False
    quick = {"DISPATCHER_EXECUTORS__DEFAULT__STOP_CONFIRMATION_SEC": "0.5"}
    first = start(stub.url, **quick)
    handle = dispatcher.submit(abort_plan(duration_seconds=60))
    eventually(lambda: is_running(dispatcher, handle.id))
    following = dispatcher.submit(abort_plan())
    stub.forget(abort_plan().api)
    handle.cancel()
    with pytest.raises(FaultInDoubtError):
        handle.result(30)
    first.kill()
    redis_server.client.zadd("{dispatcher}:doubts", {handle.id: 0})  # if it had the lease, that is over
    stub.running[handle.id] = 0.0
    stub.remember(abort_plan().api)
    start(stub.url, **quick)
    assert following.result(30).error_rate == 1.0
    assert dispatcher.active() == []
    ttl_s = redis_server.client.ttl(f"{{dispatcher}}:plan:{handle.id}")
    assert 0 < ttl_s <= 86_400  # its record is no longer kept for the workers


def test_active_lists_what_is_injected_and_its_target(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    start(stub.url)
    first = dispatcher.submit(abort_plan(duration_seconds=60))
    eventually(lambda: is_running(dispatcher, first.id))
    second = dispatcher.submit(abort_plan(api="/other", duration_seconds=60))
    eventually(lambda: len(dispatcher.active()) == 2)
    older, younger = dispatcher.active()
    assert (older.plan_id, younger.plan_id) == (first.id, second.id)
    assert (older.service, older.api, older.apply_id) == ("PaymentService", abort_plan().api, first.id)
    assert 0 <= younger.age_seconds <= older.age_seconds < 30
    dispatcher.halt("clean up")
    eventually(lambda: dispatcher.active() == [])


def test_many_threads_may_share_a_dispatcher(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    start(stub.url)
    together = threading.Barrier(8)

    def one(number: int) -> float | None:
        together.wait()
        return dispatcher.submit(abort_plan(api=f"/{number}")).result(60).error_rate

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(8))) == {1.0}
