"""This project, as it comes."""

from __future__ import annotations

import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from benchmarks.chaos_campaign import plan
from benchmarks.contenders.base import WORKERS, Client, Contender, Ended
from benchmarks.stage import Command
from dispatcher import (
    Dispatcher,
    ExecutorClientError,
    PlanBatch,
    RawObservation,
    ResultTimeoutError,
    Settings,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
        """By the ledger, whose clock is the machine's."""
        status = handle.status()
        if status.state != "observed" or status.apply_id is None or status.ended_at is None:
            return None
        return Ended(status.apply_id, status.ended_at.timestamp())


class Ours(Contender):
    """The dispatcher, with the settings that it comes with."""

    name = "this project"
    least_wait_s = 1
    swift = True

    def __init__(self, workers: int = WORKERS) -> None:
        self._workers = workers

    def plan(self, number: int, wait_s: int) -> FaultPlan:
        return plan(number, wait_s)

    def worker_commands(self, stage: Stage, in_flight: int) -> list[Command]:  # noqa: ARG002 (no limit)
        environment = {
            "DISPATCHER_REDIS_URL": stage.redis_url,
            "DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": stage.executor_url,
        }
        worker = [sys.executable, "-m", "celery", "--app", "workers.app", "worker", "--loglevel", "WARNING"]
        return [
            Command([*worker, "--hostname", f"w{number}@%h"], environment) for number in range(self._workers)
        ]

    @contextmanager
    def client(self, stage: Stage) -> Iterator[OurClient]:
        with Dispatcher(Settings(redis_url=SecretStr(stage.redis_url))) as dispatcher:
            yield OurClient(dispatcher)


def _observed(handle: PlanHandle, timeout_s: float) -> bool:
    try:
        handle.result(timeout_s)
    except ResultTimeoutError:
        raise
    except ExecutorClientError:
        return False
    return True
