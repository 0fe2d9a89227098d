"""An Executor in memory, behind the driver's interface."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dispatcher import (
    ExecutorClientError,
    ExecutorRejectedError,
    FaultLostError,
    FaultPlan,
    RawObservation,
)
from workers.drivers.base import Driver, FaultState

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass
class FakeDriver(Driver):
    """Faults end when `end` says so. `troubles` are raised, one a call, before a call does anything."""

    troubles: deque[ExecutorClientError | None] = field(default_factory=deque)
    calls: list[str] = field(default_factory=list)
    within_s: list[float] = field(default_factory=list)
    applied: dict[str, FaultPlan] = field(default_factory=dict)
    ended: set[str] = field(default_factory=set)
    longest_call_s: float = 35.0
    clock_s: float = 0.0
    ids_known: bool = False
    calls_take_s: float = 0.0

    def trouble(self, errors: Iterable[ExecutorClientError | None]) -> None:
        self.troubles.extend(errors)

    def end(self, apply_id: str) -> None:
        self.ended.add(apply_id)

    def apply(self, plan: FaultPlan, key: str, within_s: float) -> str:
        self._called("apply", within_s)
        if self.applied.setdefault(f"fault-{key}", plan) != plan:
            raise ExecutorRejectedError("the key was used for another fault", 422, "")
        return f"fault-{key}"

    def id_of(self, key: str) -> str | None:
        return f"fault-{key}" if self.ids_known else None

    def status(self, apply_id: str, within_s: float) -> FaultState:
        self._called("status", within_s)
        self._known(apply_id)
        return FaultState.COMPLETED if apply_id in self.ended else FaultState.RUNNING

    def metrics(self, apply_id: str, within_s: float) -> RawObservation:
        self._called("metrics", within_s)
        self._known(apply_id)
        return RawObservation(
            execution_id=apply_id,
            timestamp=datetime.now(UTC),
            status_code=503,
            latency_ms=1.5,
            error_rate=1.0,
        )

    def health(self, within_s: float) -> None:
        self._called("health", within_s)

    def close(self) -> None:
        """Nothing is open."""

    def stop(self, apply_id: str) -> bool:
        self._called("stop")
        self.ended.add(apply_id)
        return True

    def _called(self, name: str, within_s: float = 0.0) -> None:
        self.calls.append(name)
        self.within_s.append(within_s)
        self.clock_s += self.calls_take_s
        if self.troubles and (trouble := self.troubles.popleft()) is not None:
            raise trouble

    def _known(self, apply_id: str) -> None:
        if apply_id not in self.applied:
            raise FaultLostError(f"{apply_id} is unknown")
