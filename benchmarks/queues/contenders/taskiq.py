"""Taskiq with aiohttp on uvloop: a task applies, sleeps and observes; one event loop has thousands of them.

The broker is the one with acknowledgements that taskiq-redis shows first. Without them (`ListQueueBroker`)
the cost of a plan was the same, and the plans of a killed worker were gone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import redis
from taskiq import TaskiqEvents
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.queues.contenders.asynchronous import AsyncBase
from benchmarks.queues.contenders.base import Ended, collect
from benchmarks.queues.contenders.calls import REDIS, AsyncCalls
from benchmarks.stage.commands import python

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskiq import AsyncTaskiqTask

    from benchmarks.stage.commands import Command

results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(redis_url=REDIS, result_ex_time=86_400)
broker = RedisStreamBroker(url=REDIS).with_result_backend(results)
calls = AsyncCalls()


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def _close(_: object) -> None:
    await calls.close()


@broker.task
async def carry_out(plan: dict[str, Any]) -> dict[str, Any]:
    """Apply, wait, ask for the status, collect the metrics."""
    apply_id = await calls.apply(plan)
    await asyncio.sleep(plan["duration_seconds"])
    return await calls.observe(apply_id)


class Contender(AsyncBase):
    """One manager that starts the worker processes. They run on uvloop, which is installed."""

    at_once = 500
    """Each message takes a connection while it is sent."""

    def workers(self, count: int) -> list[Command]:
        limits = ["--workers", count, "--max-async-tasks", self.in_flight]
        return [python("taskiq", "worker", f"{__name__}:broker", *limits, "--log-level", "WARNING")]

    async def open(self) -> None:
        self._stored = redis.Redis.from_url(REDIS)
        await broker.startup()

    async def close(self) -> None:
        await broker.shutdown()
        self._stored.close()

    async def send(self, plan: Any) -> AsyncTaskiqTask[Any]:
        return await carry_out.kiq(plan)

    def endings(self, submitted: Sequence[Any], timeout_s: float = 0) -> list[Ended | None]:
        stored = collect([task.task_id for task in submitted], timeout_s, self._results)
        return [None if value is None else _decoded(value) for value in stored]

    def _results(self, keys: Sequence[str]) -> list[bytes | None]:
        stored: Any = self._stored.mget(keys)
        return list(stored)


def _decoded(value: bytes) -> Ended | None:
    result = results.serializer.loadb(value)
    return None if result["is_err"] else Ended.of(result["return_value"])
