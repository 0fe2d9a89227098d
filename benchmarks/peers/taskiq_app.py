"""Taskiq with aiohttp: one task that applies, sleeps and observes, thousands of them in one event loop.

The broker is the one with acknowledgements that taskiq-redis shows first. Without them (`ListQueueBroker`)
the cost of a plan was the same, and the plans of a killed worker were gone.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import aiohttp
from taskiq import TaskiqEvents, TaskiqState
from taskiq_redis import RedisAsyncResultBackend, RedisStreamBroker

__all__ = ["broker", "carry_out", "results"]

REDIS = os.environ.get("PEER_REDIS", "redis://127.0.0.1:6379/0")

results: RedisAsyncResultBackend[Any] = RedisAsyncResultBackend(redis_url=REDIS, result_ex_time=86_400)
broker = RedisStreamBroker(url=REDIS).with_result_backend(results)


@broker.on_event(TaskiqEvents.WORKER_STARTUP)
async def _open_session(state: TaskiqState) -> None:
    """One session for all plans, as aiohttp recommends."""
    state.session = aiohttp.ClientSession(os.environ["PEER_EXECUTOR"], raise_for_status=True)


@broker.on_event(TaskiqEvents.WORKER_SHUTDOWN)
async def _close_session(state: TaskiqState) -> None:
    await state.session.close()


@broker.task
async def carry_out(plan: dict[str, Any]) -> dict[str, Any]:
    """Apply, wait, ask for the status, collect the metrics."""
    session: aiohttp.ClientSession = broker.state.session
    async with session.post("/v1/faults/apply", json=plan) as answer:
        apply_id = (await answer.json())["apply_id"]
    await asyncio.sleep(plan["duration_seconds"])
    while True:
        async with session.get(f"/v1/faults/{apply_id}/status") as answer:
            if (await answer.json())["status"] != "running":
                break
        await asyncio.sleep(0.5)
    async with session.get(f"/v1/faults/{apply_id}/metrics") as answer:
        return {**await answer.json(), "ended_at": time.time()}
