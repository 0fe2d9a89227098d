"""The interface of measurements to each way to carry out plans."""

from __future__ import annotations

import shutil
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from benchmarks.stage.plans import body

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

    from benchmarks.stage import Stage
    from benchmarks.stage.processes import Command

__all__ = ["Base", "Ended", "fetch", "program"]

PAGE = 500
LOOK_AGAIN_S = 0.05


@dataclass(frozen=True)
class Ended:
    """How a plan ended that has an observation."""

    apply_id: str
    at: float
    """When its result was stored, in seconds since 1970. Peers take the time just before they store it."""

    @classmethod
    def of(cls, observed: dict[str, Any]) -> Self:
        """From the result of a peer's task."""
        return cls(observed["apply_id"], observed["ended_at"])


class Base(ABC):
    """One way to carry out plans: its workers, and the submitter's side, which is a context."""

    def __init__(self, stage: Stage, threads: int | None) -> None:
        """`threads` are those of each worker, if a contender's threads are a choice."""
        self.stage = stage
        self.threads = threads

    def plan(self, number: int, duration_s: int) -> Any:
        """A plan as its submitter has it. Peers: the request to the Executor."""
        return body(number, duration_s)

    @abstractmethod
    def workers(self, count: int, in_flight: int) -> list[Command]:
        """How to start `count` worker processes that may have `in_flight` plans in flight together."""

    def __enter__(self) -> Self:
        """Start the servers that it needs next to Redis, and open the submitter's side."""
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Close it."""
        del exc_info

    def submit(self, plan: Any) -> Any:
        """Submit one plan. Returns its handle."""
        return self.submit_many([plan])[0]

    @abstractmethod
    def submit_many(self, plans: Sequence[Any]) -> Sequence[Any]:
        """Submit many plans, in the fastest way that the contender has."""

    @abstractmethod
    def endings(self, submitted: Sequence[Any], timeout_s: float = 0) -> list[Ended | None]:
        """How each has ended. None if it has no observation when the time is over."""

    def wait(self, submitted: Sequence[Any], timeout_s: float) -> int:
        """Wait until all have their observations here, or the time is over. Returns how many have."""
        return sum(ended is not None for ended in self.endings(submitted, timeout_s))


def fetch(
    client: redis.Redis, keys: Sequence[str], timeout_s: float, unfinished: bytes | None = None
) -> list[bytes | None]:
    """Wait for the values of all keys. None for each that is absent when the time is over.

    The peers' own ways to collect many results ask for each one by itself, some repeatedly. One MGET for some
    hundred keys is to their advantage. A value that contains `unfinished` is not yet a result.
    """
    give_up_at = time.monotonic() + timeout_s
    found: list[bytes | None] = []
    for start in range(0, len(keys), PAGE):
        while True:
            values: Any = client.mget(keys[start : start + PAGE])
            page = [None if unfinished and unfinished in (value or b"") else value for value in values]
            if None not in page or time.monotonic() >= give_up_at:
                break
            time.sleep(LOOK_AGAIN_S)
        found += page
    return found


def program(name: str) -> str | None:
    """Path of the command: next to this Python, or on `PATH`. None if it is in neither."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
