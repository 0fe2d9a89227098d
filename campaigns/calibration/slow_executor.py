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
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from benchmarks.stage.http import serve
from campaigns.calibration.slow_plane import PlaneFault, SlowPlane

__all__ = ["BLIND", "main"]

BLIND = "/blind"


@dataclass
class Order:
    """A fault as the control plane knows it. Times are in seconds since 1970."""

    fault: PlaneFault
    applied: float
    ends: float
    blind: bool

    def journal(self) -> dict[str, Any]:
        """Its line in the journal."""
        times = {"applied": self.applied, "began": self.fault.began, "ended": self.fault.ended}
        return {
            "apply_id": self.fault.apply_id,
            "service": self.fault.service,
            "api": self.fault.api,
            **times,
        }


class ControlPlane:
    """The faults API."""

    def __init__(self) -> None:
        self.plane: SlowPlane
        self._orders: dict[str, Order] = {}
        self._by_key: dict[str, Order] = {}

    def wanted(self) -> list[PlaneFault]:
        """The faults that should be in force."""
        now = time.time()
        return [order.fault for order in self._orders.values() if now < order.ends]

    def app(self) -> web.Application:
        """The application."""
        app = web.Application()
        app.router.add_get("/journal", self._journal)
        app.router.add_get("/requests/{path:.*}", self._requests)
        for base in ("", BLIND):
            app.router.add_get(f"{base}/v1/health", self._health)
            app.router.add_post(f"{base}/v1/faults/apply", self._apply)
            app.router.add_get(f"{base}/v1/faults/{{id}}/status", self._status)
            app.router.add_get(f"{base}/v1/faults/{{id}}/metrics", self._metrics)
            app.router.add_delete(f"{base}/v1/faults/{{id}}", self._stop)
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "healthy"})

    async def _journal(self, _: web.Request) -> web.Response:
        return web.json_response([order.journal() for order in self._orders.values()])

    async def _requests(self, request: web.Request) -> web.Response:
        return web.json_response(self.plane.requests[f"/{request.match_info['path']}"])

    async def _apply(self, request: web.Request) -> web.Response:
        key = request.headers["Idempotency-Key"]
        if key not in self._by_key:
            body, now = await request.json(), time.time()
            fault = fault_of(body, f"f{len(self._orders)}")
            order = Order(fault, now, now + body["duration_seconds"], request.path.startswith(BLIND))
            self._orders[order.fault.apply_id] = self._by_key[key] = order
        return web.json_response({"apply_id": self._by_key[key].fault.apply_id, "status": "applied"})

    async def _status(self, request: web.Request) -> web.Response:
        return web.json_response(status_of(self._known(request)))

    async def _metrics(self, request: web.Request) -> web.Response:
        order = self._known(request)
        if order.blind or not over(order):
            return web.json_response({"error": "conflict", "message": "the fault is not over"}, status=409)
        times = {"start_time": moment(order.fault.began), "end_time": moment(order.fault.ended)}
        return web.json_response({"apply_id": order.fault.apply_id, **times, **order.fault.metrics()})

    async def _stop(self, request: web.Request) -> web.Response:
        order = self._known(request)
        order.ends = min(order.ends, time.time())
        return web.json_response(status_of(order), status=200 if over(order) else 202)

    def _known(self, request: web.Request) -> Order:
        order = self._orders.get(request.match_info["id"])
        if order is None:
            raise web.HTTPNotFound
        return order


def fault_of(body: dict[str, Any], apply_id: str) -> PlaneFault:
    """The fault that a request asks for."""
    config = body["fault_config"]
    held_ms = config.get("start_delay_ms", 0) + config.get("delay_ms", 0)
    return PlaneFault(
        apply_id=apply_id,
        service=body["service"],
        api=body["api"],
        percentage=body["percentage"],
        held_s=held_ms / 1000,
        abort_status=config.get("http_status"),
    )


def over(order: Order) -> bool:
    """Whether the control plane says that the fault is over.

    Unless it is blind, that is true: the fault has settled, or it ended before any poll.
    """
    if order.blind:
        return time.time() >= order.ends
    never = order.fault.began is None and time.time() >= order.ends
    return order.fault.settled or never


def status_of(order: Order) -> dict[str, Any]:
    """What the control plane knows of the fault. Times are those that the data plane has reported."""
    status = {"apply_id": order.fault.apply_id, "status": "completed" if over(order) else "running"}
    if order.blind:
        return status
    return status | {"start_time": moment(order.fault.began), "end_time": moment(order.fault.ended)}


def moment(at: float | None) -> str | None:
    """The time as in RFC 3339."""
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat()


async def main(port: int, proxy_port: int, poll_s: float) -> None:
    """Serve until killed."""
    control = ControlPlane()
    plane = control.plane = SlowPlane(control.wanted, poll_s)
    runner = web.AppRunner(control.app(), access_log=None)
    await runner.setup()
    await serve(plane, proxy_port)
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await plane.run()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
