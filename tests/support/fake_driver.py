"""An Executor in memory, behind the driver's interface."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from dispatcher import (
    ExecutorClientError,
    ExecutorRejectedError,
    FaultLostError,
    FaultPlan,
    MetricsNotReadyError,
    RawObservation,
)
from workers.drivers.base import Driver, FaultState, FaultStatus, ListedFault, StopOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass
class FakeDriver(Driver):
    """Faults end when `end` says so. `troubles` are raised, one a call, before a call does anything."""

    figures: dict[str, Any] = field(
        default_factory=lambda: {
            "status_code": 503,
            "latency_ms": 1.5,
            "error_rate": 1.0,
            "requests": 100,
            "success_count": 0,
            "error_count": 100,
            "faulted": 100,
        }
    )
    """What is observed of every fault."""

    started_at: datetime | None = None
    ended_at: datetime | None = None
    """What the status says, if anything."""

    not_ready: int = 0
    """How many more requests of metrics come too early."""

    stop_says: StopOutcome = StopOutcome.OVER
    stop_ends: bool = True
    """Whether a stop ends the fault."""

    lists: bool = False
    checks_not_after: bool = False
    """Whether an apply after its `not_after`, by its own clock, is refused."""

    now: Callable[[], datetime] = field(default=lambda: datetime.now(UTC))
    """Its clock."""

    not_after: list[datetime] = field(default_factory=list)
    """Of the applies."""

    troubles: deque[ExecutorClientError | None] = field(default_factory=deque)
    calls: list[str] = field(default_factory=list)
    within_s: list[float] = field(default_factory=list)
    applied: dict[str, FaultPlan] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    longest_call_s: float = 35.0
    clock_s: float = 0.0
    supports: frozenset[str] = frozenset({"headers", "grpc_status"})
    can: frozenset[str] = frozenset()
    """What it says that it can do."""

    ids_known: bool = False
    calls_take_s: float = 0.0

    def trouble(self, errors: Iterable[ExecutorClientError | None]) -> None:
        self.troubles.extend(errors)

    def end(self, apply_id: str) -> None:
        self.ended.add(apply_id)

    def apply(self, plan: FaultPlan, key: str, within_s: float, not_after: datetime) -> str:
        self._called("apply", within_s)
        self.not_after.append(not_after)
        if self.checks_not_after and self.now() > not_after:
            raise ExecutorRejectedError("the apply came too late, and began nothing", 412, "")
        if self.applied.setdefault(f"fault-{key}", plan) != plan:
            raise ExecutorRejectedError("the key was used for another fault", 422, "")
        return f"fault-{key}"

    def id_of(self, key: str) -> str | None:
        return "fault-" + key if self.ids_known else None

    def status(self, apply_id: str, within_s: float) -> FaultStatus:
        self._called("status", within_s)
        self._known(apply_id)
        if apply_id in self.ended:
            return FaultStatus(FaultState.COMPLETED, self.started_at, self.ended_at)
        return FaultStatus(FaultState.RUNNING, self.started_at)

    def metrics(self, apply_id: str, within_s: float) -> RawObservation:
        self._called("metrics", within_s)
        self._known(apply_id)
        if self.not_ready > 0:
            self.not_ready -= 1
            raise MetricsNotReadyError(f"{apply_id} has no metrics yet")
        return RawObservation(execution_id=apply_id, timestamp=datetime.now(UTC), **self.figures)

    def faults(self, within_s: float) -> list[ListedFault] | None:
        self._called("faults", within_s)
        if not self.lists:
            return None
        there = [each for each in self.applied if each not in self.ended]
        return [ListedFault(each, each.removeprefix("fault-")) for each in there]

    def capabilities(self, within_s: float) -> frozenset[str]:
        self._called("capabilities", within_s)
        return self.can

    def health(self, within_s: float) -> None:
        self._called("health", within_s)

    def close(self) -> None:
        """Nothing is open."""

    def stop(self, apply_id: str) -> StopOutcome:
        self._called("stop")
        if self.stop_ends:
            self.ended.add(apply_id)
        return self.stop_says

    def _called(self, name: str, within_s: float = 0.0) -> None:
        self.calls.append(name)
        self.within_s.append(within_s)
        self.clock_s += self.calls_take_s
        if self.troubles and (trouble := self.troubles.popleft()) is not None:
            raise trouble

    def _known(self, apply_id: str) -> None:
        if apply_id not in self.applied:
            raise FaultLostError(f"{apply_id} is unknown")
