"""The interface of measurements to each way to carry out plans."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.plans import body

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from benchmarks.processes import Command
    from benchmarks.stage import Stage

__all__ = ["WORKERS", "Client", "Contender", "Ended", "peer_environment"]

WORKERS = 2


@dataclass(frozen=True)
class Ended:
    """How a plan ended that has an observation."""

    apply_id: str
    at: float
    """When its result was stored, in seconds since 1970. Peers take the time just before they store it."""


class Client(ABC):
    """The submitter's side. Plans are what `Contender.plan` makes; each client has its own type of handle."""

    @abstractmethod
    def submit(self, plan: Any) -> Any:
        """Hand over one plan."""

    @abstractmethod
    def submit_many(self, plans: Sequence[Any]) -> Sequence[Any]:
        """Hand over many plans, in the fastest way that the contender has."""

    @abstractmethod
    def wait(self, submitted: Sequence[Any], timeout_s: float) -> int:
        """Wait until all have their observations here, or the time is over. Returns how many have."""

    @abstractmethod
    def endings(self, submitted: Sequence[Any]) -> list[Ended | None]:
        """How each of them ended. None if it has no observation."""


class Contender(ABC):
    """One way to carry out plans."""

    name: str
    swift: bool = False
    """Whether it takes part in every round, for ratios. The others take long, and are measured once."""

    @abstractmethod
    def worker_commands(self, stage: Stage, in_flight: int) -> list[Command]:
        """How to start `WORKERS` worker processes that may have `in_flight` plans in flight together."""

    def plan(self, number: int, wait_s: int) -> Any:
        """A plan of `wait_s` seconds as its submitter has it. Peers: the request to the Executor."""
        return body(number, wait_s)

    @abstractmethod
    def client(self, stage: Stage) -> AbstractContextManager[Client]:
        """A submitter. It needs a process of its own, because some queues keep their settings in globals."""


def peer_environment(stage: Stage) -> dict[str, str]:
    """The addresses of Redis and the Executor, for peers."""
    return {"PEER_REDIS": stage.redis_url, "PEER_EXECUTOR": stage.executor_url}
