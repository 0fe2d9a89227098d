"""An Executor whose faults really begin and end, even if its answers differ. Nothing here sleeps."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from support.machine import NOW

from dispatcher import (
    ExecutorConnectionError,
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
    FaultFailedError,
    FaultLostError,
    MetricsNotReadyError,
    RawObservation,
)
from workers.drivers.base import Driver, FaultState, FaultStatus, ListedFault, StopOutcome

if TYPE_CHECKING:
    from dispatcher import FaultPlan

T = TypeVar("T")

STOPPED_AFTER_S = 1.0
"""How long a fault lasts whose stop was only accepted."""

FOREVER_S = 1e9


class Manner(Enum):
    """How a call goes."""

    WELL = "it is carried out and answered"
    UNSENT = "there is no connection"
    IN_VAIN = "it is not carried out, and has no answer"
    UNANSWERED = "it is carried out, and has no answer"
    LATE = "an apply is carried out after its caller gave up; all else in vain"
    OVERLOADED = "it is refused with a 503"
    FORBIDDEN = "it is refused with a 403"
    FAULT_FAILS = "the fault fails, and the answer says so"
    FAULT_FORGOTTEN = "the Executor loses the fault's record, but not the fault"
    TOO_EARLY = "metrics are not ready; all else goes well"


class Stops(Enum):
    """What the Executor makes of a stop."""

    AT_ONCE = "the fault is over, and the answer says so"
    ACCEPTED = "the fault is over soon, and the answer does not say so"
    NEVER = "the Executor cannot stop faults"


@dataclass
class Fault:
    """A fault on the Executor. Its data plane acts on both ends later, by `takes_effect_s`."""

    key: str
    plan: FaultPlan
    ends_s: float
    failed: bool = False
    forgotten: bool = False


@dataclass
class UnsteadyExecutor(Driver):
    """`manners` are those of the next calls. After them, all goes well."""

    keeps_keys: bool = True
    checks_not_after: bool = False
    lists: bool = False
    stops: Stops = Stops.AT_ONCE
    overtime_s: float = 0.0
    """By how much faults last longer than they should."""

    late_s: float = 3.0
    """How long after its caller gave up an apply arrives."""

    calls_take_s: float = 0.0
    manners: deque[Manner] = field(default_factory=deque)
    clock_s: float = 0.0
    longest_call_s: float = 35.0
    there: dict[str, Fault] = field(default_factory=dict)
    on_their_way: list[tuple[float, FaultPlan, str, datetime]] = field(default_factory=list)
    """Applies whose callers gave up: when each arrives, and what it says."""

    @property
    def now_ms(self) -> int:
        return NOW + round(self.clock_s * 1000)

    @property
    def over_s(self) -> float:
        """When the last fault ends of all that have begun. Infinite if one is yet to begin."""
        self._take_in()
        coming = [math.inf for each in self.on_their_way if self._would_begin(*each)]
        return max([-math.inf, *coming, *(fault.ends_s for fault in self.there.values())])

    def apply(self, plan: FaultPlan, key: str, within_s: float, not_after: datetime) -> str:
        manner = self._called()
        if manner is Manner.LATE:
            self.on_their_way.append((self.clock_s + self.late_s, plan, key, not_after))
            raise ExecutorTimeoutError("no answer")
        if manner is Manner.FAULT_FAILS and self._would_begin(self.clock_s, plan, key, not_after):
            raise FaultFailedError("the fault could not begin")
        apply_id = self._begin(self.clock_s, plan, key, not_after)
        if manner is Manner.FAULT_FAILS:
            self._fail(apply_id)
        return self._answered(manner, apply_id)

    def status(self, apply_id: str, within_s: float) -> FaultStatus:
        manner = self._called()
        fault = self.there.get(apply_id)
        if fault is not None and manner is Manner.FAULT_FORGOTTEN:
            fault.forgotten = True
        if fault is None or fault.forgotten:
            raise FaultLostError(f"{apply_id} is unknown")
        if fault.failed or manner is Manner.FAULT_FAILS:
            self._fail(apply_id)
        state = FaultState.COMPLETED if self.clock_s >= fault.ends_s else FaultState.RUNNING
        return self._answered(manner, FaultStatus(state))

    def metrics(self, apply_id: str, within_s: float) -> RawObservation:
        manner = self._called()
        if manner is Manner.TOO_EARLY:
            raise MetricsNotReadyError(f"{apply_id} has no metrics yet")
        seen = RawObservation(execution_id=apply_id, timestamp=datetime.now(UTC), requests=9, error_count=9)
        return self._answered(manner, seen)

    def faults(self, within_s: float) -> list[ListedFault] | None:
        manner = self._called()
        if not self.lists:
            return None
        there = {name: fault for name, fault in self.there.items() if self.clock_s < fault.ends_s}
        return self._answered(manner, [ListedFault(name, fault.key) for name, fault in there.items()])

    def stop(self, apply_id: str) -> StopOutcome:
        manner, fault = self._called(), self.there.get(apply_id)
        if self.stops is Stops.NEVER:
            return StopOutcome.UNSUPPORTED
        if fault is None or fault.forgotten:
            return self._answered(manner, StopOutcome.UNCONFIRMED)
        at_once = self.stops is Stops.AT_ONCE
        fault.ends_s = min(fault.ends_s, self.clock_s + (0.0 if at_once else STOPPED_AFTER_S))
        return self._answered(manner, StopOutcome.OVER if at_once else StopOutcome.UNCONFIRMED)

    def health(self, within_s: float) -> None:
        """It is up."""

    def _called(self) -> Manner:
        """How this call goes. Raises if it is not carried out."""
        self.clock_s += self.calls_take_s
        self._take_in()
        manner = self.manners.popleft() if self.manners else Manner.WELL
        match manner:
            case Manner.UNSENT:
                raise ExecutorConnectionError("refused", "refused")
            case Manner.IN_VAIN:
                raise ExecutorTimeoutError("no answer")
            case Manner.OVERLOADED:
                raise ExecutorServerError("overloaded", 503, "")
            case Manner.FORBIDDEN:
                raise ExecutorRejectedError("forbidden", 403, "")
        return manner

    def _answered(self, manner: Manner, answer: T) -> T:
        if manner is Manner.UNANSWERED:
            raise ExecutorConnectionError("broken", "broken")
        return answer

    def _take_in(self) -> None:
        """Applies arrive whose callers gave up."""
        arrived = [each for each in self.on_their_way if each[0] <= self.clock_s]
        self.on_their_way = [each for each in self.on_their_way if each not in arrived]
        for each in arrived:
            if self._would_begin(*each):
                self._begin(*each)

    def _would_begin(self, arrives_s: float, plan: FaultPlan, key: str, not_after: datetime) -> bool:
        known = any(fault.key == key for fault in self.there.values())
        in_time = NOW + arrives_s * 1000 <= not_after.timestamp() * 1000
        return not (known and self.keeps_keys) and (in_time or not self.checks_not_after)

    def _begin(self, at_s: float, plan: FaultPlan, key: str, not_after: datetime) -> str:
        if self.keeps_keys:
            for name, fault in self.there.items():
                if fault.key == key:
                    if fault.plan != plan:
                        raise ExecutorRejectedError("the key was used for another fault", 422, "")
                    return name
        if self.checks_not_after and NOW + at_s * 1000 > not_after.timestamp() * 1000:
            raise ExecutorRejectedError("the apply came too late, and began nothing", 412, "")
        name = f"fault-{len(self.there)}"
        self.there[name] = Fault(key, plan, at_s + plan.duration_seconds + self.overtime_s)
        return name

    def _fail(self, apply_id: str) -> None:
        fault = self.there[apply_id]
        fault.failed, fault.ends_s = True, min(fault.ends_s, self.clock_s)
        raise FaultFailedError(f"{apply_id} failed")
