"""What an observer must do."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dispatcher.ledger.record import PlanRecord
    from dispatcher.observations import RawObservation

__all__ = ["Observer", "Phase"]


class Phase(StrEnum):
    """When an observer looks."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


class Observer(Protocol):
    """Shared by all threads of a worker process.

    `now_ms` is the present on the Redis server's clock, in milliseconds since 1970, as all times of records
    are. An observer never reads the worker's own clock for a moment, because that may be wrong.
    """

    every_s: float | None
    """How often to look while the fault is there. None: it need not look, and is asked at the end only."""

    longest_look_s: float
    """No method takes longer."""

    def sample(self, record: PlanRecord, phase: Phase, now_ms: int, within_s: float) -> str:
        """See how the target does. What was seen of it so far, this look included, as text for the record.

        A look before the fault takes the place of an earlier one. It sees nothing if the fault may be there
        already (`record.doubtful`). A look during the fault counts only what lies in the fault's window. One
        after it counts only what comes once the fault is surely gone.

        Raises `FaultUnobservedError` if a look before the fault shows that the target cannot be observed."""
        ...

    def settled(self, record: PlanRecord, now_ms: int) -> bool:
        """Whether no further look is needed after the fault: the target is healthy again, or does not become
        so in time."""
        ...

    def observation(self, record: PlanRecord, now_ms: int, within_s: float) -> RawObservation:
        """What was seen while the fault was in force: from `record.in_force_ms` until `record.over_ms`, or
        else `record.surely_until_ms`.

        Raises `FaultUnobservedError` if nothing was seen, `MetricsNotReadyError` if it is too early to ask,
        and other `ExecutorClientError`."""
        ...

    def close(self) -> None:
        """Let go of all connections."""
        ...
