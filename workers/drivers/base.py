"""What a driver must do.

A driver is an entry point in the group `fault_dispatcher.drivers`: a callable that takes the Executor's
`ExecutorClientConfig` and how many threads will call at once, and returns a `Driver`. A class that derives
from it has the answers of an Executor that can do no more than it must.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from dispatcher.ledger.reach import Reach

if TYPE_CHECKING:
    from datetime import datetime

    from dispatcher.models import FaultPlan
    from dispatcher.observations import RawObservation

__all__ = ["Driver", "FaultState", "FaultStatus", "ListedFault", "StopOutcome"]


class FaultState(StrEnum):
    """What the Executor says of a fault that has not failed."""

    RUNNING = "running"
    COMPLETED = "completed"


@dataclass(frozen=True, slots=True)
class FaultStatus:
    """An answer about a fault."""

    state: FaultState
    started_at: datetime | None = None
    """When it began to be in force, by the Executor's clock. None if the Executor does not say."""

    ended_at: datetime | None = None
    """When it ended. None if it runs, or the Executor does not say."""


class StopOutcome(StrEnum):
    """What the answer to a stop says."""

    OVER = "over"
    """The fault is over."""

    UNCONFIRMED = "unconfirmed"
    """Nothing about the fault: the stop was only accepted, or the Executor does not know the fault."""

    UNSUPPORTED = "unsupported"
    """The Executor cannot stop faults."""


@dataclass(frozen=True, slots=True)
class ListedFault:
    """A fault that the Executor has at this moment."""

    apply_id: str
    key: str | None
    """The key of the apply that injected it. None if the Executor does not keep keys."""


class Driver(Protocol):
    """The client of one Executor. Shared by all threads of a worker process.

    Every method may raise `ExecutorTimeoutError`, `ExecutorConnectionError`, `ExecutorRejectedError`,
    `ExecutorServerError` and `ExecutorProtocolError`.
    """

    longest_call_s: float
    """No call takes longer, in seconds."""

    supports: frozenset[str] = frozenset()
    """Which capabilities its requests can express: plans that need others are never passed to `apply`."""

    reach: Reach = Reach()
    """Which requests its faults hit beyond a plan's service and path."""

    speaks: str | None = None
    """Version of the API's contract that it implements: `major.minor`. None if the API has no versions."""

    def apply(self, plan: FaultPlan, key: str, within_s: float, not_after: datetime) -> str:
        """Inject the fault, and return the Executor's id of it. Take no longer than `within_s` seconds.

        The same `key` is the same fault, however often it is sent, unless the Executor is configured with
        `idempotent_apply = false`. An apply that arrives after `not_after` must not begin a fault; Executors
        that cannot check that ignore it. Raises `FaultFailedError`. An `ExecutorProtocolError` carries the id
        if the answer has one, so that the fault can be stopped.
        """
        ...

    def id_of(self, key: str) -> str | None:
        """The id that an apply under this key gets, if that is known beforehand."""
        del key
        return None

    def status(self, apply_id: str, within_s: float) -> FaultStatus:
        """What the Executor says of the fault.

        COMPLETED only if the answer itself says that the fault is over. Raises `FaultFailedError`, and
        `FaultLostError` if the Executor does not know the fault.
        """
        ...

    def metrics(self, apply_id: str, within_s: float) -> RawObservation:
        """What was observed of a completed fault. Not called if an observer is configured.

        Raises `MetricsNotReadyError` if they are worth another request later, and `FaultLostError`.
        """
        ...

    def faults(self, within_s: float) -> list[ListedFault] | None:
        """All faults that the Executor has. None if it cannot list them.

        A fault that is absent from such a list is over, once its removal has had time to arrive.
        """
        del within_s
        return None

    def health(self, within_s: float) -> None:
        """Returns if the Executor is up, and raises why not if it is not."""
        ...

    def capabilities(self, within_s: float) -> frozenset[str]:
        """What the Executor can do, in the names of `Capability`. All that the driver supports by default.

        Called for plans that need a capability, unless the settings say what the Executor can do.
        """
        del within_s
        return self.supports

    def contract(self, within_s: float) -> str | None:
        """Which version of the contract the Executor says it keeps. None if it does not say."""
        del within_s
        return None

    def close(self) -> None:
        """Close all connections."""
        return

    def stop(self, apply_id: str) -> StopOutcome:
        """End the fault now. OVER only if the answer itself says that the fault is over."""
        del apply_id
        return StopOutcome.UNSUPPORTED
