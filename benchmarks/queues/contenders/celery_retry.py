"""Plain Celery: a task that waits by `self.retry(countdown=...)`, and holds no thread meanwhile.

It is acknowledged late, as Celery's documentation recommends for tasks that must not be lost.
`PEER_VISIBILITY_TIMEOUT_S` is the time after which Redis delivers an unacknowledged message again. Celery
recommends to keep it above the longest wait.
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Self

import redis
import requests
from celery import Celery

from benchmarks.queues.contenders.base import Base, Ended, collect
from benchmarks.queues.contenders.calls import REDIS, Calls
from benchmarks.stage.commands import celery_worker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.result import AsyncResult

    from benchmarks.stage.commands import Command

THREADS = 8
WAITS = b'"status": "RETRY"'

app = Celery("plain", broker=REDIS, backend=REDIS)
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_pool="threads",
    worker_concurrency=THREADS,
    broker_transport_options={"visibility_timeout": int(os.environ.get("PEER_VISIBILITY_TIMEOUT_S", "3600"))},
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    result_backend_always_retry=True,
)
calls = Calls(THREADS, timeouts_s=(1, 2))


@app.task(bind=True, max_retries=None, name="plain.carry_out")  # type: ignore[untyped-decorator]
def carry_out(self: Any, plan: dict[str, Any], apply_id: str | None = None) -> dict[str, Any]:
    """Apply, wait, ask for the status, collect the metrics."""
    try:
        if apply_id is None:
            found = calls.apply(plan)
            raise self.retry(args=[plan, found], countdown=plan["duration_seconds"])
        observed = calls.observe(apply_id)
    except (requests.RequestException, ValueError) as exc:
        raise self.retry(exc=exc, countdown=1) from exc
    if observed is None:
        raise self.retry(countdown=0.5)
    return observed


class Contender(Base):
    """Sends all over one connection, as Celery's guide recommends. The handle of a plan is its task's id."""

    def workers(self, count: int) -> list[Command]:
        return [celery_worker(__name__, number, {}) for number in range(count)]

    def __enter__(self) -> Self:
        self._stored = redis.Redis.from_url(REDIS)
        self._kept: list[AsyncResult] = []  # deleting one costs a call to Redis
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._kept.clear()
        self._stored.close()
        app.close()

    def submit_many(self, plans: Sequence[Any]) -> list[str]:
        with app.producer_or_acquire() as producer:
            sent = [carry_out.apply_async(args=[plan], producer=producer) for plan in plans]
        self._kept += sent
        return [result.id for result in sent]

    def endings(self, submitted: Sequence[Any], timeout_s: float = 0) -> list[Ended | None]:
        keys = list(map(app.backend.get_key_for_task, submitted))
        stored = collect(keys, timeout_s, self._results)
        results = [{} if value is None else json.loads(value) for value in stored]
        return [Ended.of(each["result"]) if each.get("status") == "SUCCESS" else None for each in results]

    def _results(self, keys: Sequence[str]) -> list[bytes | None]:
        """What is stored. A task that waits for its next turn has no result yet."""
        stored: Any = self._stored.mget(keys)
        return [None if value is None or WAITS in value else value for value in stored]
