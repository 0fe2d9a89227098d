"""An Executor whose data plane learns of faults late.

`python -m campaigns.calibration.slow_executor PORT PROXY_PORT POLL_S`. PORT is the faults API, PROXY_PORT
the data plane, which polls every POLL_S seconds. A fault is accepted at once, in force from the next poll on,
and gone at the first poll after its end. `GET /journal` lists when each was asked for, and when in force.
`GET /requests/<path>` lists the requests that came to a path.

Below /blind/ is the same API of a control plane that learns nothing from its data plane: a fault is completed
once its duration has passed or it is deleted, without any times, and there are no metrics.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import fmean
from typing import TYPE_CHECKING, Any

from aiohttp import web

from campaigns.calibration.lanes import BLIND, answer_s
from campaigns.faults_api import FaultsApi, answer
from campaigns.traffic import FIRST_ERROR_STATUS, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


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


class ControlPlane(FaultsApi[PlaneFault]):
    """The faults API of both kinds."""

    bases = ("", BLIND)

    def __init__(self, poll_s: float) -> None:
        super().__init__()
        self.plane = SlowPlane(self._wanted, poll_s)

    def _wanted(self) -> list[PlaneFault]:
        """The faults that should be in force."""
        now = time.time()
        return [fault for fault in self.faults.values() if now < fault.ends]

    def app(self, **options: Any) -> web.Application:
        app = super().app(**options)
        app.router.add_get("/journal", self._journal)
        app.router.add_get("/requests/{path:.*}", self._requests)
        return app

    async def _journal(self, _: web.Request) -> web.Response:
        return answer([fault.journal() for fault in self.faults.values()])

    async def _requests(self, request: web.Request) -> web.Response:
        return answer(self.plane.requests[f"/{request.match_info['path']}"])

    def begin(self, apply_number: int, key: str, body: dict[str, Any], path: str) -> PlaneFault:
        del key
        config, now = body["fault_config"], time.time()
        return PlaneFault(
            apply_id=f"f{apply_number}",
            service=body["service"],
            api=body["api"],
            percentage=body["percentage"],
            held_s=(config.get("start_delay_ms", 0) + config.get("delay_ms", 0)) / 1000,
            abort_status=config.get("http_status"),
            applied=now,
            ends=now + body["duration_seconds"],
            blind=path.startswith(BLIND),
        )

    async def status(self, fault: PlaneFault) -> web.Response:
        return answer(fault.status(time.time()))

    async def metrics(self, fault: PlaneFault) -> web.Response:
        if fault.blind or not fault.over(time.time()):
            return answer({"error": "conflict", "message": "the fault is not over"}, status=409)
        return answer({"apply_id": fault.apply_id, **fault.times(), **fault.metrics()})

    async def stop(self, fault: PlaneFault) -> web.Response:
        now = time.time()
        fault.ends = min(fault.ends, now)
        return answer(fault.status(now), status=200 if fault.over(now) else 202)


async def main(port: int, proxy_port: int, poll_s: float) -> None:
    """Serve until killed."""
    control = ControlPlane(poll_s)
    runner = web.AppRunner(control.app(), access_log=None)
    await runner.setup()
    async with serving(control.plane, proxy_port):
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await control.plane.run()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
