"""What an observer must do."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from dispatcher.ledger.record import PlanRecord
    from dispatcher.observations import RawObservation

__all__ = ["Observer", "Phase"]


class Phase(StrEnum):
    """When an observer measures."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


class Observer(Protocol):
    """Shared by all threads of a worker process.

    `now_ms` is the present on the Redis server's clock, in milliseconds since 1970, as all times of records
    are. An observer never reads the worker's own clock for a moment, because that may be wrong.
    """

    every_s: float | None
    """How often to measure while the fault exists. None: it need not, and is asked at the end only."""

    longest_look_s: float
    """No method takes longer."""

    def sample(self, record: PlanRecord, phase: Phase, now_ms: int, within_s: float) -> str:
        """Measure the target. All that was seen of it so far, as text for the record.

        A measurement before the fault replaces an earlier one. It sees nothing if the fault may be there
        already (`record.doubtful`). One during the fault counts only what is in the fault's window. One
        after it counts only what comes once the fault is surely gone.

        Raises `FaultUnobservedError` if one before the fault shows that the target cannot be observed."""
        ...

    def settled(self, record: PlanRecord, now_ms: int) -> bool:
        """Whether no further measurement is needed: the target is healthy again, or does not become so in
        time."""
        ...

    def observation(self, record: PlanRecord, now_ms: int, within_s: float) -> RawObservation:
        """What was seen while the fault was in force: from `record.in_force_ms` until `record.over_ms`, or
        `record.surely_until_ms` without that.

        Raises `FaultUnobservedError` if nothing was seen, `MetricsNotReadyError` if it is too early to ask,
        and other `ExecutorClientError`."""
        ...

    def close(self) -> None:
        """Let go of all connections."""
        ...
