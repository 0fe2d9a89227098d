"""This project with its default settings."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from benchmarks.contenders.base import WORKERS, Client, Contender, Ended
from benchmarks.plans import plan
from benchmarks.stage import celery_worker
from dispatcher import (
    Dispatcher,
    ExecutorClientError,
    PlanBatch,
    RawObservation,
    ResultTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from benchmarks.processes import Command
    from benchmarks.stage import Stage
    from dispatcher import FaultPlan, PlanHandle

__all__ = ["Ours"]


class OurClient(Client):
    """A `Dispatcher`."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def submit(self, plan: Any) -> PlanHandle:
        return self._dispatcher.submit(plan)

    def submit_many(self, plans: Sequence[Any]) -> Sequence[Any]:
        return self._dispatcher.submit_many(plans)  # type: ignore[return-value]  # as much of one as is needed

    def wait(self, submitted: Sequence[Any], timeout_s: float) -> int:
        with suppress(ResultTimeoutError):
            if isinstance(submitted, PlanBatch):
                return sum(isinstance(outcome, RawObservation) for outcome in submitted.results(timeout_s))
            return sum(_observed(handle, timeout_s) for handle in submitted)
        return sum(ended is not None for ended in self.endings(submitted))

    def endings(self, submitted: Sequence[Any]) -> list[Ended | None]:
        return [self._ending(handle) for handle in submitted]

    def _ending(self, handle: PlanHandle) -> Ended | None:
        """Its times are those of Redis, which runs on this machine."""
        status = handle.status()
        if status.state != "observed" or status.apply_id is None or status.ended_at is None:
            return None
        return Ended(status.apply_id, status.ended_at.timestamp())


THREADS = 8
"""Of each worker process."""


class Ours(Contender):
    """The dispatcher with its default settings."""

    name = "this project"
    swift = True

    def __init__(self, workers: int = WORKERS, *options: str) -> None:
        """`options` are more options of each worker's command line."""
        self._workers = workers
        self._options = options
        self.threads = THREADS

    def plan(self, number: int, wait_s: int) -> FaultPlan:
        return plan(number, wait_s)

    def worker_commands(self, stage: Stage, in_flight: int) -> list[Command]:  # noqa: ARG002 (no limit)
        return [
            celery_worker(
                "workers.app", number, stage.environment, "--concurrency", str(self.threads), *self._options
            )
            for number in range(self._workers)
        ]

    @contextmanager
    def client(self, stage: Stage) -> Iterator[OurClient]:
        with Dispatcher(stage.settings) as dispatcher:
            yield OurClient(dispatcher)


def _observed(handle: PlanHandle, timeout_s: float) -> bool:
    try:
        handle.result(timeout_s)
    except ResultTimeoutError:
        raise
    except ExecutorClientError:
        return False
    return True
