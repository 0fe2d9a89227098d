"""Taskiq + aiohttp: the usual choice today for thousands of waits at once."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis
import uvloop

from benchmarks.contenders.base import WORKERS, Client, Contender, Ended, peer_environment
from benchmarks.contenders.bulk import fetch
from benchmarks.processes import Command

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from taskiq import AsyncTaskiqTask
    from taskiq.abc.serializer import TaskiqSerializer

    from benchmarks.stage import Stage

__all__ = ["TaskiqAiohttp"]

AT_ONCE = 500
"""Messages that are sent at the same time; each of them takes a connection."""


class TaskiqClient(Client):
    """Sends from one event loop."""

    def __init__(
        self,
        runner: asyncio.Runner,
        send: Callable[[dict[str, Any]], Awaitable[AsyncTaskiqTask[Any]]],
        stored: redis.Redis,
        serializer: TaskiqSerializer,
    ) -> None:
        self._runner = runner
        self._send = send
        self._stored = stored
        self._serializer = serializer

    def submit(self, plan: Any) -> AsyncTaskiqTask[Any]:
        return self._runner.run(self._send_all([plan]))[0]

    def submit_many(self, plans: Sequence[Any]) -> list[AsyncTaskiqTask[Any]]:
        return self._runner.run(self._send_all(plans))

    def wait(self, submitted: Sequence[Any], timeout_s: float) -> int:
        return sum(ended is not None for ended in self._fetch(submitted, timeout_s))

    def endings(self, submitted: Sequence[Any]) -> list[Ended | None]:
        return self._fetch(submitted, 0)

    async def _send_all(self, plans: Sequence[Any]) -> list[AsyncTaskiqTask[Any]]:
        tasks: list[AsyncTaskiqTask[Any]] = []
        for start in range(0, len(plans), AT_ONCE):
            tasks += await asyncio.gather(*map(self._send, plans[start : start + AT_ONCE]))
        return tasks

    def _fetch(self, submitted: Sequence[Any], timeout_s: float) -> list[Ended | None]:
        stored = fetch(self._stored, [task.task_id for task in submitted], timeout_s)
        return [None if value is None else self._decoded(value) for value in stored]

    def _decoded(self, value: bytes) -> Ended | None:
        result = self._serializer.loadb(value)
        observed = result["return_value"]
        return None if result["is_err"] else Ended(observed["apply_id"], observed["ended_at"])


class TaskiqAiohttp(Contender):
    """One manager that starts two worker processes. They run on uvloop, which is installed."""

    name = "Taskiq + aiohttp"
    swift = True

    def worker_commands(self, stage: Stage, in_flight: int) -> list[Command]:
        worker = [sys.executable, "-m", "taskiq", "worker", "benchmarks.peers.taskiq_app:broker"]
        options = ["--workers", str(WORKERS), "--max-async-tasks", str(in_flight), "--log-level", "WARNING"]
        return [Command([*worker, *options], peer_environment(stage))]

    @contextmanager
    def client(self, stage: Stage) -> Iterator[TaskiqClient]:
        os.environ.update(peer_environment(stage))
        from benchmarks.peers import taskiq_app  # noqa: PLC0415 (it reads the environment)

        with (
            redis.Redis.from_url(stage.redis_url) as stored,
            asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
        ):
            runner.run(taskiq_app.broker.startup())
            serializer = taskiq_app.results.serializer
            yield TaskiqClient(runner, taskiq_app.carry_out.kiq, stored, serializer)
            runner.run(taskiq_app.broker.shutdown())
