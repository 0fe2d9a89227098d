"""Celery, without this project, in two forms.

`carry_out` waits by `self.retry(countdown=...)` and holds no thread meanwhile; `carry_out_blocking` sleeps in
its thread. Tasks are acknowledged late, as Celery's documentation recommends for tasks that must not be lost.
`PEER_THREADS` is the number of threads of a worker, `PEER_VISIBILITY_TIMEOUT_S` the time after which Redis
delivers an unacknowledged message again.
"""

from __future__ import annotations

import os
import time
from typing import Any

import requests
from celery import Celery
from requests.adapters import HTTPAdapter

VISIBILITY_TIMEOUT_S = 10
THREADS = int(os.environ.get("PEER_THREADS", "8"))

app = Celery("plain", broker=os.environ.get("PEER_REDIS"), backend=os.environ.get("PEER_REDIS"))
app.conf.update(
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_pool="threads",
    worker_concurrency=THREADS,
    broker_transport_options={
        "visibility_timeout": int(os.environ.get("PEER_VISIBILITY_TIMEOUT_S", VISIBILITY_TIMEOUT_S))
    },
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    result_backend_always_retry=True,
)

session = requests.Session()
session.mount("http://", HTTPAdapter(pool_maxsize=THREADS))


@app.task(bind=True, max_retries=None, name="plain.carry_out")  # type: ignore[untyped-decorator]
def carry_out(self: Any, plan: dict[str, Any], apply_id: str | None = None) -> dict[str, Any]:
    """Apply, wait, ask for the status, collect the metrics."""
    try:
        if apply_id is None:
            found = _apply(plan)
            raise self.retry(args=[plan, found], countdown=plan["duration_seconds"])
        if _runs(apply_id):
            raise self.retry(countdown=0.5)
        return _observe(apply_id)
    except (requests.RequestException, ValueError) as exc:
        raise self.retry(exc=exc, countdown=1) from exc


@app.task(  # type: ignore[untyped-decorator]
    name="plain.carry_out_blocking",
    autoretry_for=(requests.RequestException, ValueError),
    default_retry_delay=1,
    max_retries=None,
)
def carry_out_blocking(plan: dict[str, Any]) -> dict[str, Any]:
    """The same, in one go."""
    apply_id = _apply(plan)
    time.sleep(plan["duration_seconds"])
    while _runs(apply_id):
        time.sleep(0.5)
    return _observe(apply_id)


def _apply(plan: dict[str, Any]) -> str:
    answer = session.post(_faults("apply"), json=plan, timeout=(1, 2))
    answer.raise_for_status()
    return str(answer.json()["apply_id"])


def _runs(apply_id: str) -> bool:
    status = session.get(_faults(f"{apply_id}/status"), timeout=(1, 2))
    status.raise_for_status()
    return bool(status.json()["status"] == "running")


def _observe(apply_id: str) -> dict[str, Any]:
    metrics = session.get(_faults(f"{apply_id}/metrics"), timeout=(1, 2))
    metrics.raise_for_status()
    return {**metrics.json(), "ended_at": time.time()}


def _faults(path: str) -> str:
    return f"{os.environ['PEER_EXECUTOR']}/v1/faults/{path}"
