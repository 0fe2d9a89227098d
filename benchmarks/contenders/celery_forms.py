"""Plain Celery, in two forms: one that sleeps in its thread, and one that waits by `self.retry`."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import redis

from benchmarks.contenders.base import WORKERS, Client, Contender, Ended, peer_environment
from benchmarks.contenders.bulk import fetch
from benchmarks.stage import celery_worker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from celery import Task
    from celery.result import AsyncResult

    from benchmarks.processes import Command
    from benchmarks.stage import Stage

__all__ = ["CeleryBlocking", "CeleryRetry"]

APP = "benchmarks.peers.plain_celery"
VISIBILITY_TIMEOUT_S = 3600
"""Celery's own default, which it recommends to keep above the longest wait."""


class CeleryClient(Client):
    """Sends all over one connection, as Celery's guide recommends. The handle of a plan is its task's id."""

    def __init__(self, task: Task, stored: redis.Redis) -> None:
        self._task = task
        self._stored = stored
        self._results: list[AsyncResult] = []
        """Kept to the end: deleting one costs a call to Redis."""

    def submit(self, plan: Any) -> str:
        return self.submit_many([plan])[0]

    def submit_many(self, plans: Sequence[Any]) -> list[str]:
        with self._task.app.producer_or_acquire() as producer:
            results = [self._task.apply_async(args=[plan], producer=producer) for plan in plans]
        self._results += results
        return [result.id for result in results]

    def wait(self, submitted: Sequence[Any], timeout_s: float) -> int:
        return sum(ended is not None for ended in self._fetch(submitted, timeout_s))

    def endings(self, submitted: Sequence[Any]) -> list[Ended | None]:
        return self._fetch(submitted, 0)

    def close(self) -> None:
        """Let go of all results."""
        self._results.clear()

    def _fetch(self, submitted: Sequence[Any], timeout_s: float) -> list[Ended | None]:
        keys = list(map(self._task.backend.get_key_for_task, submitted))
        stored = fetch(self._stored, keys, timeout_s, unfinished=b'"status": "RETRY"')
        return [None if value is None else _decoded(value) for value in stored]


class CeleryBlocking(Contender):
    """A thread for each plan in flight."""

    name = "Celery, blocking"
    task = "carry_out_blocking"

    def threads(self, in_flight: int) -> int:
        """Of each worker."""
        return in_flight // WORKERS

    def worker_commands(self, stage: Stage, in_flight: int) -> list[Command]:
        environment = _environment(stage) | {"PEER_THREADS": str(self.threads(in_flight))}
        return [celery_worker(APP, number, environment) for number in range(WORKERS)]

    @contextmanager
    def client(self, stage: Stage) -> Iterator[CeleryClient]:
        os.environ.update(_environment(stage))
        from benchmarks.peers import plain_celery  # noqa: PLC0415 (it reads the environment)

        with redis.Redis.from_url(stage.redis_url) as stored:
            client = CeleryClient(getattr(plain_celery, self.task), stored)
            yield client
            client.close()
        plain_celery.app.close()


class CeleryRetry(CeleryBlocking):
    """Few threads, and plans that wait in the workers' memory."""

    name = "Celery, retry"
    task = "carry_out"

    def threads(self, in_flight: int) -> int:  # noqa: ARG002 (a plan holds no thread while it waits)
        """Of each worker: few are enough."""
        return 8


def _environment(stage: Stage) -> dict[str, str]:
    return peer_environment(stage) | {"PEER_VISIBILITY_TIMEOUT_S": str(VISIBILITY_TIMEOUT_S)}


def _decoded(value: bytes) -> Ended | None:
    result = json.loads(value)
    if result["status"] != "SUCCESS":
        return None
    return Ended(result["result"]["apply_id"], result["result"]["ended_at"])
