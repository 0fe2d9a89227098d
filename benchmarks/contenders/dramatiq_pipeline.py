"""Dramatiq: two actors in a pipeline, the second one delayed."""

from __future__ import annotations

import os
import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from benchmarks.contenders.base import WORKERS, Client, Contender, Ended, peer_environment
from benchmarks.processes import Command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dramatiq import pipeline

    from benchmarks.stage import Stage

__all__ = ["DramatiqPipeline"]

SLICE_MS = 2000
"""No call blocks for longer: the client of Redis gives up on an answer after five seconds."""


class DramatiqClient(Client):
    """Sends one message a call, and blocks for one result after the other: Dramatiq has no other way."""

    def __init__(self, send: Callable[[dict[str, Any]], pipeline]) -> None:
        self._send = send

    def submit(self, plan: Any) -> pipeline:
        return self._send(plan)

    def submit_many(self, plans: Sequence[Any]) -> list[pipeline]:
        return [self._send(plan) for plan in plans]

    def wait(self, submitted: Sequence[Any], timeout_s: float) -> int:
        give_up_at = time.monotonic() + timeout_s
        return sum(_observed(each, give_up_at - time.monotonic()) is not None for each in submitted)

    def endings(self, submitted: Sequence[Any]) -> list[Ended | None]:
        return [_ended(_observed(each, 0)) for each in submitted]


class DramatiqPipeline(Contender):
    """One main process that starts two worker processes, with as many threads as Dramatiq gives them."""

    name = "Dramatiq"

    def worker_commands(self, stage: Stage, in_flight: int) -> list[Command]:  # noqa: ARG002 (no limit)
        worker = [sys.executable, "-m", "dramatiq", "benchmarks.peers.dramatiq_app"]
        return [Command([*worker, "--processes", str(WORKERS)], peer_environment(stage))]

    @contextmanager
    def client(self, stage: Stage) -> Iterator[DramatiqClient]:
        os.environ.update(peer_environment(stage))
        from benchmarks.peers import dramatiq_app  # noqa: PLC0415 (it reads the environment)

        yield DramatiqClient(dramatiq_app.carry_out)
        dramatiq_app.broker.close()


def _ended(observed: dict[str, Any] | None) -> Ended | None:
    return None if observed is None else Ended(observed["apply_id"], observed["ended_at"])


def _observed(submitted: pipeline, timeout_s: float) -> dict[str, Any] | None:
    """The result of the last actor. None if it is absent when the time is over, or is an error."""
    from dramatiq.results import ResultError, ResultMissing, ResultTimeout  # noqa: PLC0415 (after the environment)

    give_up_at = time.monotonic() + timeout_s
    while True:
        waits = time.monotonic() < give_up_at
        try:
            found = submitted.get_result(block=waits, timeout=SLICE_MS)  # type: ignore[no-untyped-call]
        except (ResultMissing, ResultTimeout):
            if not waits:
                return None
        except ResultError:
            return None
        else:
            return dict(found)
