"""What a Recommender needs of an Executor, however it is reached."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatcher.models import FaultPlan
    from dispatcher.observations import RawObservation

__all__ = ["ExecutorClient"]


class ExecutorClient(ABC):
    """The interface `IExecutorClient` of the specification (5.1)."""

    @abstractmethod
    def apply_and_observe(self, plan: FaultPlan, timeout_sec: float = 30.0) -> RawObservation:
        """Carry the plan out and return what was observed. Raises `ExecutorClientError`.

        `timeout_sec` is what this may take beyond the fault's own time, in seconds.
        """

    @abstractmethod
    def check_health(self) -> bool:
        """Whether the Executor is up."""
