"""Which faults there are, and what may be applied beside them. Pure state: no clock, no Envoy."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from executor.observations import Tally

if TYPE_CHECKING:
    from executor.contract import FaultApply

__all__ = ["ConflictError", "Fault", "FaultRegistry", "KeyReusedError"]

REMEMBERED_FOR = timedelta(hours=1)
"""How long an ended fault, and its idempotency key, are known."""


class ConflictError(Exception):
    """Another fault is on the same target."""


class KeyReusedError(Exception):
    """The idempotency key belongs to another request."""


@dataclass(slots=True)
class Fault:
    """One fault: on from `start_time`, off from `end_time`, settled once its held requests are answered."""

    request: FaultApply
    key: str | None
    start_time: datetime
    apply_id: str = field(default_factory=lambda: f"f-{uuid.uuid4().hex}")
    end_time: datetime | None = None
    error: str = ""
    tally: Tally = field(default_factory=Tally)

    @property
    def active(self) -> bool:
        """Whether Envoy injects it."""
        return self.end_time is None

    @property
    def target(self) -> tuple[str, str]:
        """What it hits."""
        return self.request.service, self.request.api

    def settled(self, now: datetime) -> bool:
        """Whether no request is held by it any more. Taking a fault away does not release them."""
        if self.end_time is None:
            return False
        return now >= self.end_time + timedelta(milliseconds=self.request.held_ms)


class FaultRegistry:
    """The faults of one Executor, by their `apply_id`."""

    def __init__(self) -> None:
        self._faults: dict[str, Fault] = {}
        self._by_key: dict[str, Fault] = {}

    def find(self, apply_id: str) -> Fault | None:
        """The fault, if it is known."""
        return self._faults.get(apply_id)

    def repeated(self, key: str | None, request: FaultApply) -> Fault | None:
        """The fault that this very request has applied before. Raises `KeyReusedError`."""
        fault = None if key is None else self._by_key.get(key)
        if fault is not None and fault.request != request:
            raise KeyReusedError(f"the idempotency key was used for another request, fault {fault.apply_id}")
        return fault

    def add(self, request: FaultApply, key: str | None, now: datetime) -> Fault:
        """A new active fault. Raises `ConflictError` if its target has one already."""
        self._forget(now)
        for other in self.active():
            if other.target == (request.service, request.api):
                until = other.start_time + timedelta(seconds=other.request.duration_seconds)
                message = (
                    f"{request.service} {request.api} has fault {other.apply_id} until {until.isoformat()}"
                )
                raise ConflictError(message)
        fault = Fault(request, key, now)
        self._faults[fault.apply_id] = fault
        if key is not None:
            self._by_key[key] = fault
        return fault

    def drop(self, fault: Fault) -> None:
        """Forget a fault that was never injected, so that its key may be used again."""
        self._faults.pop(fault.apply_id, None)
        if fault.key is not None:
            self._by_key.pop(fault.key, None)

    def active(self) -> list[Fault]:
        """The faults that Envoy injects."""
        return [fault for fault in self._faults.values() if fault.active]

    def take_span(self, fault_id: str, span: dict[str, Any]) -> None:
        """Keep a span of a request that met the fault."""
        fault = self.find(fault_id)
        if fault is not None:
            fault.tally.add_span(span)

    def _forget(self, now: datetime) -> None:
        old = [
            fault
            for fault in self._faults.values()
            if fault.end_time is not None and fault.end_time < now - REMEMBERED_FOR
        ]
        for fault in old:
            self.drop(fault)
