"""This project, its workers set up as `docs/operate.md` recommends for many plans a second."""

from __future__ import annotations

import itertools
import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self
from uuid import uuid4

from benchmarks.queues.contenders.base import Base, Ended
from benchmarks.stage.commands import celery_worker
from benchmarks.stage.plans import plan
from dispatcher import Dispatcher, ExecutorClientError, PlanBatch, RawObservation, ResultTimeoutError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks.stage.commands import Command
    from dispatcher import FaultPlan, PlanHandle

THREADS = 4
"""Of each worker process: enough for an Executor that answers at once."""

CORES = sorted(os.sched_getaffinity(0))
"""Each worker process is bound to one of them."""


def workers(
    count: int, environment: Mapping[str, str], app: str = "workers.app", threads: int = THREADS
) -> list[Command]:
    """How to start worker processes, each bound to a core."""
    each = [celery_worker(app, number, environment, f"--concurrency={threads}") for number in range(count)]
    return [replace(worker, core=core) for worker, core in zip(each, itertools.cycle(CORES), strict=False)]


class Contender(Base):
    """A `Dispatcher` and Celery workers."""

    def plan(self, number: int, duration_s: int) -> FaultPlan:
        return plan(number, duration_s)

    def workers(self, count: int) -> list[Command]:
        return workers(count, self.stage.environment, threads=self.threads or THREADS)

    def __enter__(self) -> Self:
        self._dispatcher = Dispatcher(self.stage.settings).__enter__()
        self._ids = (f"{uuid4().hex}-{number}" for number in itertools.count())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._dispatcher.close()

    def submit(self, plan: Any) -> PlanHandle:
        return self._dispatcher.submit(plan)

    def submit_many(self, plans: Sequence[Any]) -> Any:
        return self._dispatcher.submit_many(plans, plan_ids=list(itertools.islice(self._ids, len(plans))))

    def endings(self, submitted: Sequence[Any], timeout_s: float = 0) -> list[Ended | None]:
        if timeout_s:
            self.wait(submitted, timeout_s)
        return [_ending(handle) for handle in submitted]

    def wait(self, submitted: Sequence[Any], timeout_s: float) -> int:
        with suppress(ResultTimeoutError):
            if isinstance(submitted, PlanBatch):
                return sum(isinstance(result, RawObservation) for result in submitted.results(timeout_s))
            return sum(_observed(handle, timeout_s) for handle in submitted)
        return sum(ended is not None for ended in self.endings(submitted))


def _observed(handle: PlanHandle, timeout_s: float) -> bool:
    with suppress(ExecutorClientError):
        handle.result(timeout_s)
        return True
    return False


def _ending(handle: PlanHandle) -> Ended | None:
    """Its times are those of Redis, which runs on this machine."""
    status = handle.status()
    if status.state != "observed" or status.apply_id is None or status.ended_at is None:
        return None
    return Ended(status.apply_id, status.ended_at.timestamp())
