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
from typing import Any

from aiohttp import web

from campaigns.calibration.lanes import BLIND
from campaigns.calibration.slow_plane import PlaneFault, SlowPlane
from campaigns.faults_api import FaultsApi, answer
from campaigns.traffic import serving


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
