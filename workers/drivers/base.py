"""What a driver must do.

A driver is an entry point in the group `fault_dispatcher.drivers`: a callable that takes the Executor's
`ExecutorClientConfig` and how many threads will call at once, and returns a `Driver`. A class that derives
from it has the answers of an Executor that can do no more than it must.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dispatcher.models import FaultPlan, RawObservation

__all__ = ["Driver", "FaultState"]


class FaultState(StrEnum):
    """What the Executor says of a fault that has not failed."""

    RUNNING = "running"
    COMPLETED = "completed"


class Driver(Protocol):
    """Speaks to one Executor. Shared by all threads of a worker process.

    Every method may raise `ExecutorTimeoutError`, `ExecutorConnectionError`, `ExecutorRejectedError`,
    `ExecutorServerError` and `ExecutorProtocolError`.
    """

    longest_call_s: float
    """No call takes longer, in seconds."""

    speaks: str | None = None
    """Which version of its API's contract it speaks, as `major.minor`. None where the API has no versions."""

    def apply(self, plan: FaultPlan, key: str, within_s: float) -> str:
        """Inject the fault; the Executor's id for it. Take no longer than `within_s` seconds.

        The same `key` is the same fault, however often it is sent, unless the Executor is configured with
        `idempotent_apply = false`. Raises `FaultFailedError`. An `ExecutorProtocolError` carries the id where
        the answer has one, so that the fault can be stopped.
        """
        ...

    def id_of(self, key: str) -> str | None:
        """The id that an apply under this key gets, where that is known beforehand. None where it is not."""
        del key
        return None

    def status(self, apply_id: str, within_s: float) -> FaultState:
        """Whether the fault is still there. Raises `FaultFailedError`, `FaultLostError`."""
        ...

    def metrics(self, apply_id: str, within_s: float) -> RawObservation:
        """What was observed of a completed fault. Raises `FaultLostError`. Not asked where an observer is."""
        ...

    def health(self, within_s: float) -> None:
        """Whether the Executor is up: returns if it is, and raises why not if it is not."""
        ...

    def contract(self, within_s: float) -> str | None:
        """Which version of the contract the Executor says it keeps. None where it says nothing of it."""
        del within_s
        return None

    def close(self) -> None:
        """Let go of all connections."""
        return

    def stop(self, apply_id: str) -> bool:
        """End the fault now. True where it is over for sure, False where the Executor cannot stop faults."""
        del apply_id
        return False
