"""Which faults there are, and what may be applied at the same time. Pure state: no clock, no Envoy."""

from __future__ import annotations

import itertools
import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from executor.observations import Tally

if TYPE_CHECKING:
    from executor.contract import FaultApply

__all__ = [
    "MAX_ACTIVE",
    "ConflictError",
    "Fault",
    "FaultRegistry",
    "KeyReusedError",
    "TooLateError",
    "TooManyFaultsError",
    "refuse_after",
]

REMEMBERED_FOR = timedelta(hours=1)
"""How long an ended fault, and its idempotency key, are known."""

MOST_FORGOTTEN = 100
"""How many old faults one apply looks at."""

MAX_ACTIVE = 2_000
"""How many faults may be active at a time, unless an Executor is started with another number."""

HELD_LATE = timedelta(milliseconds=50)
"""How much longer than planned Envoy may hold a request, because its timers are late."""


WITH_ENVOY = "it ended with Envoy, which may have been shortly before"

LAPSED = "the Executor did not renew it, so Envoy dropped it by itself"


class ConflictError(Exception):
    """Another fault is on the same target."""


class KeyReusedError(Exception):
    """The idempotency key belongs to another request."""


class TooManyFaultsError(Exception):
    """The Executor has as many faults as it may have."""


class TooLateError(Exception):
    """The apply came after the moment at which its fault may begin at the latest."""


def refuse_after(not_after: datetime | None, now: datetime) -> None:
    """Raises `TooLateError` if it is later than `not_after`."""
    if not_after is not None and now > not_after:
        raise TooLateError(
            f"the apply came too late: it is {now.isoformat()}, and Not-After is {not_after.isoformat()}"
        )


@dataclass(slots=True)
class Fault:
    """One fault, and the requests that arrived while it was in force.

    It is active until `end_time`, and over once it holds no request any more. It is settled once all of its
    requests have ended or were given up.
    """

    request: FaultApply
    key: str | None
    start_time: datetime
    """Since when Envoy injects it. Until it is in force: when its apply came."""

    apply_id: str = field(default_factory=lambda: f"f-{uuid.uuid4().hex}")
    not_after: datetime | None = None
    """When it may come into force at the latest."""

    in_force: bool = False
    """Whether it has come into force."""

    began_s: float = 0.0
    """The same moment as `start_time`, by the steady clock of this process, once it is in force."""

    stopping: bool = False
    """Whether it is to end before its time."""

    end_time: datetime | None = None
    """Since when Envoy does not inject it any more."""

    doubt: str = ""
    """Why its window is not known exactly."""

    arrivals_known: bool = False
    """Whether all requests that arrived before its end are in the tally."""

    error: str = ""
    tally: Tally = field(default_factory=Tally)

    @property
    def active(self) -> bool:
        """Whether Envoy injects it."""
        return self.end_time is None

    @property
    def planned_end(self) -> datetime:
        """When it ends by itself."""
        return self.start_time + timedelta(seconds=self.request.duration_seconds)

    @property
    def ends_by_s(self) -> float:
        """When it ends at the latest, by the steady clock, once it is in force."""
        return self.began_s + self.request.duration_seconds

    def wanted(self, steady_s: float) -> bool:
        """Whether Envoy should inject it: never beyond its time."""
        return self.active and not self.stopping and not (self.in_force and steady_s >= self.ends_by_s)

    @property
    def target(self) -> tuple[str, str]:
        """What it hits."""
        return self.request.service, self.request.api

    @property
    def settled(self) -> bool:
        """Whether all requests that arrived before its end have ended, or were given up."""
        return self.arrivals_known and not self.tally.under_way

    def over(self, now: datetime) -> bool:
        """Whether it holds no request any more. Its removal does not release those that it holds."""
        return self.arrivals_known and not self._holds_one(now)

    def _holds_one(self, now: datetime) -> bool:
        if not self.request.held_ms:
            return False
        arrived_after = (now - self._held - HELD_LATE).timestamp()
        waiting = self.tally.under_way.values()
        return any(arrival.chosen and arrival.arrived_at > arrived_after for arrival in waiting)

    def ended_before(self, moment: datetime) -> bool:
        """Whether it, and the time for which it may hold a request, had ended by then."""
        return self.end_time is not None and self.end_time + self._held + HELD_LATE <= moment

    def give_up(self, now: datetime, wait: timedelta) -> None:
        """Count requests as unanswered that are under way for longer than `wait` after they were held."""
        if self.end_time is not None and self.arrivals_known:
            last = self.end_time + self._held + wait
            if now >= last:
                self.tally.give_up(last.timestamp())

    def begin(self, now: datetime, steady_s: float) -> None:
        """It has come into force."""
        self.start_time, self.began_s, self.in_force = now, steady_s, True

    def go_on(self, now: datetime, steady_s: float) -> None:
        """It began in another process. It does not last longer because the clock was set back meanwhile."""
        self.began_s = steady_s - max(0.0, (now - self.start_time).total_seconds())

    def end(self, steady_s: float) -> None:
        """Envoy has taken it away. Its window is as long as it really was, even if the clock was set."""
        if self.active:
            self.end_time = self.start_time + timedelta(seconds=self._lasted_s(steady_s))

    def lapse(self, steady_s: float) -> None:
        """Envoy has dropped it by itself, then or a little earlier, because nothing renewed it."""
        if not self.active:
            return
        self.doubt = self.doubt or LAPSED
        if not self.in_force or steady_s < self.ends_by_s:
            lasted, planned = self._lasted_s(steady_s), self.request.duration_seconds
            self.error = f"it lapsed after {lasted:.1f} of {planned} s: {LAPSED}"
        self.end(steady_s)

    def cancel(self) -> None:
        """It has never come into force, and will not."""
        self.end_time, self.arrivals_known = self.start_time, True

    def break_off(self, now: datetime, error: str) -> None:
        """Envoy has ended, and with it the fault and each request that was under way."""
        if self.active:
            self.end_time, self.error = max(now, self.start_time), error
            self.doubt = self.doubt or WITH_ENVOY
        self.arrivals_known = True
        self.tally.give_up(now.timestamp())

    def _lasted_s(self, steady_s: float) -> float:
        return max(0.0, steady_s - self.began_s) if self.in_force else 0.0

    @property
    def _held(self) -> timedelta:
        return timedelta(milliseconds=self.request.held_ms)


class FaultRegistry:
    """The faults of one Executor, by their `apply_id`."""

    def __init__(self, max_active: int = MAX_ACTIVE) -> None:
        """`max_active`: how many may be active at a time."""
        self._max_active = max_active
        self._faults: dict[str, Fault] = {}
        self._unsettled: dict[str, Fault] = {}
        self._by_key: dict[str, Fault] = {}
        self._by_target: dict[tuple[str, str], Fault] = {}
        self._forgotten: list[Fault] = []

    def find(self, apply_id: str) -> Fault | None:
        """The fault, if it is known."""
        return self._faults.get(apply_id)

    def repeated(self, key: str | None, request: FaultApply) -> Fault | None:
        """The fault that this very request has applied before. Raises `KeyReusedError`."""
        fault = None if key is None else self._by_key.get(key)
        if fault is not None and fault.request != request:
            raise KeyReusedError(f"the idempotency key was used for another request, fault {fault.apply_id}")
        return fault

    def add(
        self, request: FaultApply, key: str | None, now: datetime, not_after: datetime | None = None
    ) -> Fault:
        """A new active fault.

        Raises `ConflictError` if its target has one already, `TooManyFaultsError` if there are too many.
        """
        self._forget(now)
        if len(self._unsettled) >= self._max_active and len(self.active()) >= self._max_active:
            raise TooManyFaultsError(f"{self._max_active} faults are active: this Executor takes no more")
        other = self._by_target.get((request.service, request.api))
        if other is not None and other.active:
            where, until = f"{request.service} {request.api}", other.planned_end.isoformat()
            raise ConflictError(f"{where} has fault {other.apply_id} until {until}")
        fault = Fault(request, key, now, not_after=not_after)
        self.restore(fault)
        return fault

    def restore(self, fault: Fault) -> None:
        """A fault that was known before a restart."""
        self._faults[fault.apply_id] = fault
        if not fault.settled:
            self._unsettled[fault.apply_id] = fault
        if fault.active:
            self._by_target[fault.target] = fault
        if fault.key is not None:
            self._by_key[fault.key] = fault

    def forgotten(self) -> list[Fault]:
        """The faults that were forgotten since the last call because they are old."""
        forgotten, self._forgotten = self._forgotten, []
        return forgotten

    def drop(self, fault: Fault) -> None:
        """Forget a fault that was never injected, so that its key may be used again."""
        self._faults.pop(fault.apply_id, None)
        self._unsettled.pop(fault.apply_id, None)
        if self._by_target.get(fault.target) is fault:
            del self._by_target[fault.target]
        if fault.key is not None and self._by_key.get(fault.key) is fault:
            del self._by_key[fault.key]

    def active(self) -> list[Fault]:
        """The faults that Envoy injects, or is about to."""
        return [fault for fault in self._unsettled.values() if fault.active]

    def current(self, now: datetime) -> list[Fault]:
        """The faults that are not over."""
        return [fault for fault in self._unsettled.values() if not fault.over(now)]

    def unsettled(self) -> list[Fault]:
        """The faults whose requests are not all counted."""
        return list(self._unsettled.values())

    def settle(self, now: datetime, wait: timedelta) -> None:
        """Give up requests that are under way for too long (`Fault.give_up`)."""
        for fault in self.unsettled():
            fault.give_up(now, wait)
            if fault.settled:
                del self._unsettled[fault.apply_id]

    def wants_span(self, fault_id: str) -> bool:
        """Whether the fault is known, and not all of the spans that are kept are there."""
        fault = self.find(fault_id)
        return fault is not None and fault.tally.wants_span

    def take_span(self, fault_id: str, span: dict[str, Any]) -> None:
        """Keep a span of a request that met the fault."""
        fault = self.find(fault_id)
        if fault is not None:
            fault.tally.add_span(span)

    def _forget(self, now: datetime) -> None:
        """Faults are in the order of their applies, and few last for long: looks at the oldest ones only."""
        for fault in list(itertools.islice(self._faults.values(), MOST_FORGOTTEN)):
            if fault.end_time is not None and fault.end_time < now - REMEMBERED_FOR:
                self.drop(fault)
                self._forgotten.append(fault)
