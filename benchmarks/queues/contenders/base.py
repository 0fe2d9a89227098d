"""The interface of measurements to each way to carry out plans."""

from __future__ import annotations

import shutil
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from benchmarks.stage.plans import body

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.stage.commands import Command
    from benchmarks.stage.stage import Stage

PAGE = 500
LOOK_AGAIN_S = 0.05

T = TypeVar("T")


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

    def __init__(self, stage: Stage, threads: int | None, in_flight: int) -> None:
        """`threads` are those of each worker, if a contender's threads are a choice.

        `in_flight` plans may be in flight together, if a contender has a limit.
        """
        self.stage = stage
        self.threads = threads
        self.in_flight = in_flight

    def plan(self, number: int, duration_s: int) -> Any:
        """A plan as its submitter has it. Peers: the request to the Executor."""
        return body(number, duration_s)

    @abstractmethod
    def workers(self, count: int) -> list[Command]:
        """How to start `count` worker processes."""

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


def collect(
    keys: Sequence[str], timeout_s: float, ask: Callable[[Sequence[str]], Sequence[T | None]]
) -> list[T | None]:
    """Wait for the results of all keys. None for each that is absent when the time is over.

    The peers' own ways to collect many results ask for each one by itself, some repeatedly. To `ask` for some
    hundred in one call is to their advantage.
    """
    give_up_at = time.monotonic() + timeout_s
    found: list[T | None] = []
    for start in range(0, len(keys), PAGE):
        page = keys[start : start + PAGE]
        while None in (results := ask(page)) and time.monotonic() < give_up_at:
            time.sleep(LOOK_AGAIN_S)
        found += results
    return found


def program(name: str) -> str | None:
    """Path of the command: next to this Python, or on `PATH`. None if it is in neither."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)
