"""Waits for plans that no worker carries out, on each version of Redis and Valkey."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from support.plans import abort_plan
from support.redis_server import blocked_for

from dispatcher import Dispatcher, PlanUnknownError, ResultTimeoutError
from dispatcher.waits import SHORTEST_BLOCK_SEC

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.redis_server import RedisServer

    from dispatcher import PlanBatch, Settings

    Wait = Callable[[PlanBatch, float], object]

pytestmark = pytest.mark.every_server

TIMEOUTS_SEC = [0.0, 1e-9, 0.0005, 0.001, 0.004, 0.03]
"""Redis before 7.0.8 took about a millisecond for ever."""


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


async def drained(batch: PlanBatch, within_s: float) -> None:
    async for _ in batch.as_completed_async(within_s):
        pass


WAITS: dict[str, Wait] = {
    "result": lambda batch, timeout: batch.handles[0].result(timeout),
    "result_async": lambda batch, timeout: asyncio.run(batch.handles[0].result_async(timeout)),
    "results": lambda batch, timeout: batch.results(timeout),
    "as_completed": lambda batch, timeout: list(batch.as_completed(timeout)),
    "as_completed_async": lambda batch, timeout: asyncio.run(drained(batch, timeout)),
}


@pytest.mark.parametrize("name", WAITS)
def test_a_wait_for_plans_ends_with_its_timeout_however_short(batch: PlanBatch, name: str) -> None:
    for timeout_sec in TIMEOUTS_SEC:
        with pytest.raises(ResultTimeoutError):
            WAITS[name](batch, timeout_sec)


def test_a_wait_for_a_health_check_ends_with_its_timeout_however_short(dispatcher: Dispatcher) -> None:
    for timeout_sec in TIMEOUTS_SEC[1:]:  # 0 is no timeout of a check
        with pytest.raises(ResultTimeoutError, match="is a worker running"):
            dispatcher.health(timeout_sec=timeout_sec)


def test_no_wait_blocks_for_so_short_a_time_that_the_server_takes_it_for_ever(
    dispatcher: Dispatcher, batch: PlanBatch, redis_server: RedisServer
) -> None:
    with blocked_for(redis_server) as seconds:
        for wait in WAITS.values():
            with pytest.raises(ResultTimeoutError):
                wait(batch, 0.02)
        with pytest.raises(ResultTimeoutError):
            dispatcher.health(timeout_sec=0.02)
    assert len(seconds) >= len(WAITS) + 1
    assert min(seconds) >= SHORTEST_BLOCK_SEC
    assert max(seconds) <= 0.02


@pytest.mark.parametrize("name", ["result", "result_async"])
def test_a_wait_for_a_plan_that_nobody_knows_ends_at_once(
    dispatcher: Dispatcher, batch: PlanBatch, name: str
) -> None:
    batch.handles[0] = dispatcher.handle("nobody")
    with pytest.raises(PlanUnknownError):
        WAITS[name](batch, 3600)
