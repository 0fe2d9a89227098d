"""A data plane that learns of faults late: it polls its control plane, and serves the target itself."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any

from campaigns.calibration.lanes import answer_s

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FIRST_ERROR_STATUS = 400


@dataclass
class PlaneFault:
    """A fault as both planes know it. Times are in seconds since 1970."""

    apply_id: str
    service: str
    api: str
    percentage: int
    held_s: float
    abort_status: int | None
    applied: float = 0.0
    ends: float = float("inf")
    """When it should no longer be in force."""

    blind: bool = False
    """Whether its control plane learns nothing of the data plane."""

    began: float | None = None
    """When it was in force first."""

    ended: float | None = None
    """When it was no longer."""

    faulted: int = 0
    under_way: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    """Of requests that have ended. 0 means no answer."""

    latencies_ms: list[float] = field(default_factory=list)

    def over(self, now: float) -> bool:
        """Whether the control plane says that the fault is over.

        Unless it is blind, that is true: all requests of the fault have ended, or it ended before any poll.
        """
        settled = self.ended is not None and not self.under_way
        return now >= self.ends if self.blind else settled or (self.began is None and now >= self.ends)

    def times(self) -> dict[str, str | None]:
        """What the data plane has reported, as in RFC 3339."""
        reported = {"start_time": self.began, "end_time": self.ended}
        return {
            name: None if at is None else datetime.fromtimestamp(at, UTC).isoformat()
            for name, at in reported.items()
        }

    def status(self, now: float) -> dict[str, Any]:
        """What the control plane says of it."""
        state = {"apply_id": self.apply_id, "status": "completed" if self.over(now) else "running"}
        return state if self.blind else state | self.times()

    def journal(self) -> dict[str, Any]:
        """Its line in the journal."""
        names = ("apply_id", "service", "api", "applied", "began", "ended")
        return {name: getattr(self, name) for name in names}

    def add(self, status: int, latency_ms: float) -> None:
        """One of its requests has ended."""
        self.under_way -= 1
        self.statuses[status] += 1
        self.latencies_ms.append(latency_ms)

    def metrics(self) -> dict[str, Any]:
        """The outcomes of the requests that arrived while it was in force."""
        requests = self.statuses.total()
        good = sum(count for status, count in self.statuses.items() if 0 < status < FIRST_ERROR_STATUS)
        answered = [status for status, _ in self.statuses.most_common() if status]
        return {
            "status_code": answered[0] if answered else None,
            "latency_ms": fmean(self.latencies_ms) if requests else None,
            "error_rate": (requests - good) / requests if requests else None,
            "requests": requests,
            "faulted": self.faulted,
            "unanswered": self.statuses[0],
            "success_count": good,
            "error_count": requests - good,
            "trace_data": None,
            "logs": [],
        }


class SlowPlane:
    """Injects what `wanted()` returned at its last poll."""

    def __init__(self, wanted: Callable[[], Iterable[PlaneFault]], poll_s: float) -> None:
        self._wanted = wanted
        self._poll_s = poll_s
        self._in_force: dict[str, PlaneFault] = {}
        self.requests: defaultdict[str, list[tuple[float, float, int]]] = defaultdict(list)
        """Of each path: when each request came, how many ms it was held, and its status."""

        self._chance = random.Random(0)  # noqa: S311 (which requests are hit is not a secret)

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            self.poll(time.time())
            await asyncio.sleep(self._poll_s)

    def poll(self, now: float) -> None:
        """Inject what is wanted now, and nothing else."""
        wanted = {fault.api: fault for fault in self._wanted()}
        for fault in self._in_force.values():
            if wanted.get(fault.api) is not fault:
                fault.ended = now
        for fault in wanted.values():
            fault.began = fault.began or now
        self._in_force = wanted

    async def __call__(self, path: str, query: str) -> int:
        """See `Service`."""
        fault = self._in_force.get(path)
        arrived, status = time.time(), 0
        if fault is not None:
            fault.under_way += 1
        try:
            status = await self._answer(fault, query)
        finally:
            latency_ms = (time.time() - arrived) * 1000
            self.requests[path].append((arrived, latency_ms, status))
            if fault is not None:
                fault.add(status, latency_ms)
        return status

    async def _answer(self, fault: PlaneFault | None, query: str) -> int:
        if fault is not None and self._chance.random() * 100 < fault.percentage:
            fault.faulted += 1
            await asyncio.sleep(fault.held_s)
            if fault.abort_status is not None:
                return fault.abort_status
        await asyncio.sleep(answer_s(query))
        return 200
