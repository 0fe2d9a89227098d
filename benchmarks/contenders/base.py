"""What measurements need of each way to carry out plans."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.chaos_campaign import body

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from benchmarks.stage import Command, Stage

__all__ = ["WORKERS", "Client", "Contender", "Ended", "peer_environment"]

WORKERS = 2


@dataclass(frozen=True)
class Ended:
    """How a plan ended that has an observation."""

    apply_id: str
    at: float
    """When its result was stored, in seconds since 1970. Peers say so just before they store it."""


class Client(ABC):
    """The submitter's side. Plans are what `Contender.plan` makes; what submitting returns is its own."""

    @abstractmethod
    def submit(self, plan: Any) -> Any:
        """Hand over one plan."""

    @abstractmethod
    def submit_many(self, plans: Sequence[Any]) -> Sequence[Any]:
        """Hand over many plans, in the fastest way there is."""

    @abstractmethod
    def wait(self, submitted: Sequence[Any], timeout_s: float) -> int:
        """Wait until all have their observations here, or the time is over; how many have."""

    @abstractmethod
    def endings(self, submitted: Sequence[Any]) -> list[Ended | None]:
        """How each of them ended. None for one that has no observation."""


class Contender(ABC):
    """One way to carry out plans."""

    name: str
    least_wait_s: int = 0
    """The shortest wait that a plan may ask for."""

    swift: bool = False
    """Whether it takes part in every round, for ratios; the others would make the rounds long."""

    @abstractmethod
    def worker_commands(self, stage: Stage, in_flight: int) -> list[Command]:
        """How to start `WORKERS` worker processes that may have `in_flight` plans in flight together."""

    def plan(self, number: int, wait_s: int) -> Any:
        """A plan as its submitter has it, with a target of its own. Peers: the request to the Executor."""
        return body(number) | {"duration_seconds": wait_s}

    @abstractmethod
    def client(self, stage: Stage) -> AbstractContextManager[Client]:
        """A submitter. In a process of its own: some queues keep their settings in globals."""


def peer_environment(stage: Stage) -> dict[str, str]:
    """Where things are, for peers."""
    return {"PEER_REDIS": stage.redis_url, "PEER_EXECUTOR": stage.executor_url}
