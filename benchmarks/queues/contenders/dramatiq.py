"""Dramatiq: a pipeline of two actors, the second of them delayed until the fault should be over."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import dramatiq
from dramatiq import pipeline
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import ResultError, ResultMissing, Results, ResultTimeout
from dramatiq.results.backends import RedisBackend

from benchmarks.queues.contenders.base import Base, Ended
from benchmarks.queues.contenders.calls import REDIS, Calls
from benchmarks.stage.commands import python

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.stage.commands import Command

THREADS = 8
"""Dramatiq's own default."""

SLICE_MS = 2000
"""No call blocks for longer: the client of Redis gives up on an answer after five seconds."""

broker = RedisBroker(url=REDIS)  # type: ignore[no-untyped-call]
broker.add_middleware(Results(backend=RedisBackend(url=REDIS), result_ttl=86_400_000))  # type: ignore[no-untyped-call]
dramatiq.set_broker(broker)
calls = Calls(THREADS)


@dramatiq.actor
def apply(plan: dict[str, Any]) -> str:
    """Apply the fault. Returns its id."""
    return calls.apply(plan)


@dramatiq.actor(store_results=True)
def observe(apply_id: str) -> dict[str, Any]:
    """Ask for the status, collect the metrics. Dramatiq calls it again if it raises."""
    observed = calls.observe(apply_id)
    if observed is None:
        raise dramatiq.Retry(delay=500)
    return observed


class Contender(Base):
    """One main process that starts the worker processes, with as many threads as Dramatiq gives them."""

    def workers(self, count: int) -> list[Command]:
        return [python("dramatiq", __name__, "--processes", count)]

    def __exit__(self, *exc_info: object) -> None:
        broker.close()

    def submit_many(self, plans: Sequence[Any]) -> list[pipeline]:
        return [self.submit(plan) for plan in plans]

    def submit(self, plan: Any) -> pipeline:
        delay = {"delay": plan["duration_seconds"] * 1000}
        steps = pipeline([apply.message(plan), observe.message_with_options(**delay)])
        steps.run()  # type: ignore[no-untyped-call]
        return steps

    def endings(self, submitted: Sequence[Any], timeout_s: float = 0) -> list[Ended | None]:
        give_up_at = time.monotonic() + timeout_s
        return [_ended(each, give_up_at) for each in submitted]


def _ended(submitted: pipeline, give_up_at: float) -> Ended | None:
    """The result of the last actor. None if it is absent when the time is over, or is an error."""
    while True:
        waits = time.monotonic() < give_up_at
        try:
            return Ended.of(submitted.get_result(block=waits, timeout=SLICE_MS))  # type: ignore[no-untyped-call]
        except (ResultMissing, ResultTimeout):
            if not waits:
                return None
        except ResultError:
            return None
