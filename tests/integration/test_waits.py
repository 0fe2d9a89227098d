"""Waits for plans, on each version of Redis and Valkey. No worker runs: the tests end plans themselves."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from celery.result import AsyncResult
from support.ends import end
from support.eventually import eventually
from support.plans import abort_plan
from support.redis_server import blocked_for

from dispatcher import Dispatcher, PlanCancelledError, PlanUnknownError, ResultTimeoutError
from dispatcher.ledger.waiters import SHORTEST_BLOCK_SEC
from dispatcher.ledger.waits import PAGE
from dispatcher.tasks.app import make_celery

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.redis_server import RedisServer

    from dispatcher import PlanBatch, Settings

    Wait = Callable[[PlanBatch, float], object]

pytestmark = pytest.mark.every_server

TIMEOUTS_SEC = [0.0, 1e-9, 0.0005, 0.001, 0.004, 0.03]
"""Redis before 7.0.8 took about a millisecond forever."""


@pytest.fixture(autouse=True)
def _prompt_server(redis_server: RedisServer) -> Iterator[None]:
    """A server looks 10 times a second whose time to block is over. Here it does so 100 times."""
    redis_server.client.config_set("hz", 100)
    yield
    redis_server.client.config_set("hz", 10)


@pytest.fixture
def dispatcher(settings: Settings) -> Iterator[Dispatcher]:
    with Dispatcher(settings) as dispatcher:
        yield dispatcher


@pytest.fixture
def batch(dispatcher: Dispatcher) -> PlanBatch:
    """Of two plans that stay in the queue."""
    return dispatcher.submit_many([abort_plan(api="/one"), abort_plan(api="/two")])


async def all_results(batch: PlanBatch, within_s: float) -> None:
    await batch.results_async(within_s)


async def drained(batch: PlanBatch, within_s: float) -> None:
    async for _ in batch.as_completed_async(within_s):
        pass


WAITS: dict[str, Wait] = {
    "result": lambda batch, timeout: batch.handles[0].result(timeout),
    "result_async": lambda batch, timeout: asyncio.run(batch.handles[0].result_async(timeout)),
    "results": lambda batch, timeout: batch.results(timeout),
    "as_completed": lambda batch, timeout: list(batch.as_completed(timeout)),
    "results_async": lambda batch, timeout: asyncio.run(all_results(batch, timeout)),
    "as_completed_async": lambda batch, timeout: asyncio.run(drained(batch, timeout)),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_for_plans_ends_with_its_timeout_however_short(batch: PlanBatch, name: str) -> None:
    for timeout_sec in TIMEOUTS_SEC:
        with pytest.raises(ResultTimeoutError):
            WAITS[name](batch, timeout_sec)


def test_a_wait_for_a_health_check_ends_with_its_timeout_however_short(dispatcher: Dispatcher) -> None:
    for timeout_sec in TIMEOUTS_SEC[1:]:  # 0 disables the timeout of a check
        with pytest.raises(ResultTimeoutError, match="is a worker running"):
            dispatcher.health(timeout_sec=timeout_sec)


def test_no_wait_is_so_short_that_the_server_reads_it_as_forever(
    dispatcher: Dispatcher, batch: PlanBatch, redis_server: RedisServer
) -> None:
    with blocked_for(redis_server) as seconds, ThreadPoolExecutor(len(WAITS) + 1) as threads:
        waits = [threads.submit(wait, batch, 0.2) for wait in WAITS.values()]
        waits += [threads.submit(dispatcher.health, timeout_sec=0.2)]
        assert {type(wait.exception()) for wait in waits} == {ResultTimeoutError}
    assert min(seconds) >= SHORTEST_BLOCK_SEC


@pytest.mark.parametrize("name", ["result", "result_async"])
def test_a_wait_for_an_unknown_plan_ends_at_once(dispatcher: Dispatcher, batch: PlanBatch, name: str) -> None:
    batch.handles[0] = dispatcher.handle("unknown-plan")
    with pytest.raises(PlanUnknownError):
        WAITS[name](batch, 3600)


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_for_a_plan_whose_result_was_forgotten_says_so(
    batch: PlanBatch, settings: Settings, name: str
) -> None:
    one, other = batch.handles
    end(settings, [one.id, other.id])
    app = make_celery(settings)
    AsyncResult(one.id, app=app).forget()
    app.backend.result_consumer.stop()
    app.backend.client.connection_pool.disconnect()
    gone = f"plan {one.id} is cancelled, but its result is gone, because it has expired or was forgotten"
    if name.startswith("result_") or name == "result":
        with pytest.raises(PlanUnknownError, match=gone):
            WAITS[name](batch, 30)
        assert one.refusal is None
        return
    WAITS[name](batch, 30)
    forgotten, kept = batch.results(30)
    assert str(forgotten) == gone
    assert isinstance(kept, PlanCancelledError)


def test_all_waiters_for_a_plan_learn_its_end(
    dispatcher: Dispatcher, batch: PlanBatch, settings: Settings, redis_server: RedisServer
) -> None:
    one, other = batch.handles
    with ThreadPoolExecutor(4) as threads:
        waits = [threads.submit(one.result, 60) for _ in range(2)]
        waits += [threads.submit(lambda: asyncio.run(one.result_async(60)))]
        both = threads.submit(batch.results, 60)
        eventually(lambda: redis_server.client.info("clients")["blocked_clients"] == 3)
        eventually(redis_server.client.pubsub_channels)
        end(settings, [one.id])
        assert {type(wait.exception(30)) for wait in waits} == {PlanCancelledError}
        end(settings, [other.id])
        assert [type(outcome) for outcome in both.result(60)] == [PlanCancelledError] * 2


def test_a_batch_of_more_plans_than_one_command_is_about_is_read_to_its_end(
    dispatcher: Dispatcher, settings: Settings
) -> None:
    batch = dispatcher.submit_many(abort_plan(api=f"/{number}") for number in range(PAGE + 1))
    end(settings, [handle.id for handle in batch])
    assert [type(outcome) for outcome in batch.results(60)] == [PlanCancelledError] * (PAGE + 1)
    asyncio.run(drained(batch, 60))


def test_waits_end_within_a_slice_if_redis_was_wiped(settings: Settings, redis_server: RedisServer) -> None:
    hasty = settings.model_copy(update={"redis_timeout_sec": 0.5})  # a slice is half of it
    with Dispatcher(hasty) as dispatcher, ThreadPoolExecutor(3) as threads:
        batch = dispatcher.submit_many([abort_plan(api="/one"), abort_plan(api="/two")])
        one, both = threads.submit(batch.handles[0].result, 60), threads.submit(batch.results, 60)
        awaited = threads.submit(lambda: asyncio.run(batch.handles[0].result_async(60)))
        eventually(lambda: redis_server.client.info("clients")["blocked_clients"] == 2)
        eventually(redis_server.client.pubsub_channels)
        redis_server.client.flushall()  # the fixture's own
        assert {type(one.exception(30)), type(awaited.exception(30))} == {PlanUnknownError}
        assert [type(outcome) for outcome in both.result(60)] == [PlanUnknownError] * 2
