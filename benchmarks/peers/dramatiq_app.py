"""Dramatiq: a pipeline of two actors, the second of them delayed until the fault should be over."""

from __future__ import annotations

import os
import time
from typing import Any

import dramatiq
import requests
from dramatiq import pipeline
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend
from requests.adapters import HTTPAdapter

__all__ = ["carry_out"]

THREADS = 8  # what Dramatiq has where nothing else is said
REDIS = os.environ.get("PEER_REDIS", "redis://127.0.0.1:6379/0")
FAULTS = os.environ.get("PEER_EXECUTOR", "http://127.0.0.1:8000") + "/v1/faults"
TIMEOUTS_S = (5, 30)

broker = RedisBroker(url=REDIS)  # type: ignore[no-untyped-call]
stored = RedisBackend(url=REDIS)
broker.add_middleware(Results(backend=stored, result_ttl=86_400_000))  # type: ignore[no-untyped-call]
dramatiq.set_broker(broker)

session = requests.Session()
session.mount("http://", HTTPAdapter(pool_maxsize=THREADS))


@dramatiq.actor
def apply(plan: dict[str, Any]) -> str:
    """Apply the fault; its id."""
    answer = session.post(f"{FAULTS}/apply", json=plan, timeout=TIMEOUTS_S)
    answer.raise_for_status()
    return str(answer.json()["apply_id"])


@dramatiq.actor(store_results=True)
def observe(apply_id: str) -> dict[str, Any]:
    """Ask for the status, collect the metrics. Dramatiq calls it again where it raises."""
    status = session.get(f"{FAULTS}/{apply_id}/status", timeout=TIMEOUTS_S)
    status.raise_for_status()
    if status.json()["status"] == "running":
        raise dramatiq.Retry(delay=500)
    metrics = session.get(f"{FAULTS}/{apply_id}/metrics", timeout=TIMEOUTS_S)
    metrics.raise_for_status()
    return {**metrics.json(), "ended_at": time.time()}


def carry_out(plan: dict[str, Any]) -> pipeline:
    """Hand over one plan."""
    wait_ms = plan["duration_seconds"] * 1000
    delay = {"delay": wait_ms} if wait_ms else {}
    steps = pipeline([apply.message(plan), observe.message_with_options(**delay)])
    steps.run()  # type: ignore[no-untyped-call]
    return steps
