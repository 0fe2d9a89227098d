"""The chaos campaign with plain Celery instead of this project, for comparison."""

from __future__ import annotations

import os
import time
from collections import Counter
from contextlib import suppress
from typing import TYPE_CHECKING

from benchmarks.stage import celery_worker
from benchmarks.stage.plans import api, body

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery import Task
    from celery.result import AsyncResult

    from benchmarks.stage import Stage

__all__ = ["start", "submit_all", "tally"]

VISIBILITY_TIMEOUT_S = 10
APP = "benchmarks.queues.contenders.celery_retry"


def start(stage: Stage, count: int) -> Task:
    """Start so many workers. Returns the task that carries plans out."""
    environment = {
        "PEER_REDIS": stage.redis_url,
        "PEER_EXECUTOR": stage.executor_url,
        "PEER_VISIBILITY_TIMEOUT_S": str(VISIBILITY_TIMEOUT_S),
    }
    os.environ.update(environment)
    from benchmarks.queues.contenders.celery_retry import app, carry_out  # noqa: PLC0415 (it reads the environment)

    stage.add_workers([celery_worker(APP, number, environment) for number in range(count)])
    stage.wait_for_workers(app)
    return carry_out


def submit_all(task: Task, numbers: Iterable[int], duration_s: int) -> dict[int, AsyncResult]:
    """Submit the plans with these numbers, each as often as it takes."""
    results: dict[int, AsyncResult] = {}
    for number in numbers:
        while number not in results:
            with suppress(Exception):  # Celery raises errors of several libraries if Redis is away
                results[number] = task.apply_async(args=[body(number, duration_s)], retry=False)
    return results


def tally(results: Mapping[int, AsyncResult], within_s: float) -> Counter[str]:
    """How many of the plans were lost, or have the observation of another plan."""
    counts: Counter[str] = Counter()
    give_up_at = time.monotonic() + within_s
    for number, result in results.items():
        try:
            observed = result.get(timeout=max(0.1, give_up_at - time.monotonic()), propagate=False)
            counts["wrong"] += isinstance(observed, dict) and observed["logs"] != [api(number)]
        except Exception:  # noqa: BLE001 (no answer, for any reason)
            counts["lost"] += 1
    return counts
