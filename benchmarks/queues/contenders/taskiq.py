"""Taskiq with aiohttp on uvloop: a task applies, sleeps and observes; one event loop has thousands of them.

The broker is the one with acknowledgements that taskiq-redis shows first. Without them (`ListQueueBroker`)
the cost of a plan was the same, and the plans of a killed worker were gone.
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Any, Self

import redis
import uvloop
from taskiq import TaskiqEvents
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

from benchmarks.queues.contenders.base import Base, Ended, fetch
from benchmarks.queues.contenders.calls import REDIS, AsyncCalls
from benchmarks.stage.processes import Command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from taskiq import AsyncTaskiqTask

__all__ = ["Contender", "broker", "carry_out"]

AT_ONCE = 500
"""Messages that are sent at the same time; each of them takes a connection."""

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


class Contender(Base):
    """One manager that starts the worker processes. They run on uvloop, which is installed."""

    def workers(self, count: int, in_flight: int) -> list[Command]:
        worker = [sys.executable, "-m", "taskiq", "worker", f"{__name__}:broker"]
        options = ["--workers", str(count), "--max-async-tasks", str(in_flight), "--log-level", "WARNING"]
        return [Command([*worker, *options])]

    def __enter__(self) -> Self:
        self._stored = redis.Redis.from_url(REDIS)
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._runner.run(broker.startup())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._runner.run(broker.shutdown())
        self._runner.close()
        self._stored.close()

    def submit_many(self, plans: Sequence[Any]) -> list[AsyncTaskiqTask[Any]]:
        return self._runner.run(self._send(plans))

    def endings(self, submitted: Sequence[Any], timeout_s: float = 0) -> list[Ended | None]:
        stored = fetch(self._stored, [task.task_id for task in submitted], timeout_s)
        return [None if value is None else _decoded(value) for value in stored]

    async def _send(self, plans: Sequence[Any]) -> list[AsyncTaskiqTask[Any]]:
        tasks: list[AsyncTaskiqTask[Any]] = []
        for start in range(0, len(plans), AT_ONCE):
            tasks += await asyncio.gather(*map(carry_out.kiq, plans[start : start + AT_ONCE]))
        return tasks


def _decoded(value: bytes) -> Ended | None:
    result = results.serializer.loadb(value)
    return None if result["is_err"] else Ended.of(result["return_value"])
