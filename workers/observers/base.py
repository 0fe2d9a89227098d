"""What an observer must do."""

from __future__ import annotations

from collections import Counter
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from pydantic import BaseModel, Field

if TYPE_CHECKING:
    from dispatcher.ledger.record import PlanRecord
    from dispatcher.observations import RawObservation

__all__ = ["Observer", "Phase", "Seen", "Tally"]

FIRST_ERROR_STATUS = 400


class Phase(StrEnum):
    """When an observer looks."""

    BEFORE = "before"
    DURING = "during"
    AFTER = "after"


class Tally(BaseModel):
    """Requests to a target, and what came of them."""

    statuses: Counter[int] = Field(default_factory=Counter)
    """How often each status was seen. 0 is no answer."""

    latency_ms: float = 0.0
    """Of all requests together."""

    def add(self, status: int, latency_ms: float) -> None:
        """Count one more."""
        self.statuses[status] += 1
        self.latency_ms += latency_ms

    @property
    def requests(self) -> int:
        """How many there were."""
        return self.statuses.total()

    @property
    def errors(self) -> int:
        """How many got an error, or no answer."""
        return sum(count for status, count in self.statuses.items() if not 0 < status < FIRST_ERROR_STATUS)

    @property
    def mean_latency_ms(self) -> float:
        """0 if there was no request."""
        return self.latency_ms / self.requests if self.requests else 0.0

    def __str__(self) -> str:
        counts = ", ".join(
            f"{count} x {status or 'no answer'}" for status, count in sorted(self.statuses.items())
        )
        return f"{self.requests} requests ({counts or 'none'}), mean {self.mean_latency_ms:.1f} ms"


class Seen(BaseModel):
    """What was seen of one plan's target so far. It travels in the plan's record, from step to step."""

    before: Tally = Field(default_factory=Tally)
    during: Tally = Field(default_factory=Tally)
    after: Tally = Field(default_factory=Tally)

    def tally(self, phase: Phase) -> Tally:
        """Of one phase."""
        return {Phase.BEFORE: self.before, Phase.DURING: self.during, Phase.AFTER: self.after}[phase]


class Observer(Protocol):
    """Shared by all threads of a worker process."""

    every_s: float | None
    """How often to look while the fault is there. None: it need not look, and is asked at the end only."""

    longest_look_s: float
    """Neither method takes longer."""

    def sample(self, record: PlanRecord, phase: Phase, within_s: float) -> str:
        """See how the target does. What was seen of it so far, this look included, as text for the record.

        Raises `FaultUnobservedError` if a look before the fault shows that the target cannot be observed."""
        ...

    def settled(self, record: PlanRecord, now_ms: int) -> bool:
        """Whether no further look is needed after the fault: the target is healthy again, or does not become
        so in time."""
        ...

    def observation(self, record: PlanRecord, within_s: float) -> RawObservation:
        """What was seen while the fault was in force: from `record.in_force_ms` until `record.over_ms`, or
        else `record.planned_end_ms`.

        Raises `FaultUnobservedError` if nothing was seen, and other `ExecutorClientError`."""
        ...

    def close(self) -> None:
        """Let go of all connections."""
        ...
