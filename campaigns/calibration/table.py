"""The 40 plans of a calibration, in lanes.

A lane is one target with steady traffic of its own. Its plans differ in their percentage, and are carried out
one after the other. The longest delay has a lane for each plan, because its requests are held for 30 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from dispatcher import FaultPlan, FaultType

__all__ = ["DURATION_S", "LANES", "PERCENTAGES", "RATE_PER_S", "Lane"]

PERCENTAGES = (1, 10, 30, 50, 100)
DURATION_S = 14
RATE_PER_S = 25
"""Of each lane. 350 requests meet a plan. All lanes together are a small load for two cores."""

PATIENT_S = 60.0
ABORT_STATUS = 503


@dataclass(frozen=True)
class Lane:
    """One target, the traffic to it, and the faults that it meets."""

    name: str
    fault_type: FaultType
    held_ms: int
    """How long the fault holds a request: the delay, or the start delay of an abort."""

    answer_ms: int
    """How long the API takes by itself."""

    patience_s: float = PATIENT_S
    """When the clients give up."""

    percentages: tuple[int, ...] = PERCENTAGES
    waits_s: float = 0.0
    """How much later than the first lanes it begins, so that not all send at once."""

    @property
    def service(self) -> str:
        """Name of the service, which only this lane uses."""
        return f"Lane-{self.name.replace(' ', '-')}"

    @property
    def api(self) -> str:
        """Path of the target."""
        return f"/{self.name.replace(' ', '-')}"

    def plans(self) -> list[FaultPlan]:
        """The plans, in their order."""
        return [self._plan(percentage) for percentage in self.percentages]

    def error_share(self, percentage: int) -> float:
        """The share of requests that end as errors, if the percentage is hit exactly.

        An aborted request is an error, and so is one that takes longer than its client waits.
        """
        hit_s = (self.held_ms + (0 if self.fault_type is FaultType.ABORT else self.answer_ms)) / 1000
        hit_fails = self.fault_type is FaultType.ABORT or hit_s > self.patience_s
        spared_fails = self.answer_ms / 1000 > self.patience_s
        return (percentage * hit_fails + (100 - percentage) * spared_fails) / 100

    def _plan(self, percentage: int) -> FaultPlan:
        what: dict[str, Any] = {"delay_seconds": self.held_ms / 1000}
        if self.fault_type is FaultType.ABORT:
            what = {"abort_http_status": ABORT_STATUS, "start_delay_ms": self.held_ms}
        return FaultPlan(
            service=self.service,
            api=self.api,
            fault_type=self.fault_type,
            percentage=percentage,
            duration_seconds=DURATION_S,
            **what,
        )


LANES = (
    Lane("abort", FaultType.ABORT, held_ms=0, answer_ms=1),
    Lane("abort of a slow API", FaultType.ABORT, held_ms=0, answer_ms=2000),
    Lane("abort after 50 ms", FaultType.ABORT, held_ms=50, answer_ms=50),
    Lane("delay of 100 ms", FaultType.DELAY, held_ms=100, answer_ms=10),
    Lane("delay of 500 ms", FaultType.DELAY, held_ms=500, answer_ms=200),
    Lane("impatient clients", FaultType.DELAY, held_ms=2000, answer_ms=20, patience_s=0.5),
    Lane("clients that wait 3 s", FaultType.DELAY, held_ms=10_000, answer_ms=500, patience_s=3),
    Lane("slow API and impatient clients", FaultType.DELAY, 1000, 2000, 1.2, percentages=(50,), waits_s=60),
    *(
        Lane(
            f"delay of 30 s at {percentage}",
            FaultType.DELAY,
            30_000,
            1,
            percentages=(percentage,),
            waits_s=wait_s,
        )
        for percentage, wait_s in ((1, 0), (10, 15), (30, 30), (100, 45))
    ),
)
"""Plans cannot ask for delays below 100 ms, so 50 ms is the start delay of an abort."""
