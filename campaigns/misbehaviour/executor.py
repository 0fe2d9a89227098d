"""An Executor that misbehaves with each fault in a way of its own.

`python -m campaigns.misbehaviour.executor PORT SEED PLANS`. It injects nothing: it has the faults API, and
what it says of requests is made up. The first PLANS plans meet a misdeed, those after them none.
`GET /journal` lists what is true of each fault, by the number of its plan.
"""

from __future__ import annotations

import asyncio
import sys
import time

from aiohttp import web

from benchmarks.stage.plans import number_of
from campaigns.misbehaviour.acts import Act, misdeed_of
from campaigns.misbehaviour.fault import StubFault


class MisbehavingExecutor:
    """The faults API."""

    def __init__(self, seed: int, plans: int) -> None:
        self._seed = seed
        self._plans = plans
        self._faults: dict[str, StubFault] = {}
        self._by_key: dict[str, str] = {}

    def app(self) -> web.Application:
        """The application."""
        app = web.Application()
        app.router.add_get("/v1/health", self._health)
        app.router.add_get("/journal", self._journal)
        app.router.add_post("/v1/faults/apply", self._apply)
        app.router.add_get("/v1/faults/{id}/status", self._status)
        app.router.add_get("/v1/faults/{id}/metrics", self._metrics)
        app.router.add_delete("/v1/faults/{id}", self._stop)
        return app

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "healthy"})

    async def _journal(self, _: web.Request) -> web.Response:
        """The last fault of each plan counts."""
        return web.json_response(
            {fault.apply_id.split("-")[1]: fault.truth() for fault in self._faults.values()}
        )

    async def _apply(self, request: web.Request) -> web.Response:
        key, body = request.headers["Idempotency-Key"], await request.json()
        fault = self._faults.get(self._by_key.get(key, ""))
        now = time.time()
        if fault is None or (fault.misdeed.act is Act.RESTARTED and fault.forgotten(now)):
            number = number_of(body["api"])
            misdeed = misdeed_of(self._seed, number, self._plans)
            apply_id = f"f{len(self._faults)}-{number}"
            fault = StubFault(apply_id, misdeed, body["percentage"], body["duration_seconds"], now)
            self._faults[apply_id], self._by_key[key] = fault, apply_id
        return web.json_response({"apply_id": fault.apply_id, "status": "applied"})

    async def _status(self, request: web.Request) -> web.Response:
        fault = await self._known(request)
        return web.json_response(fault.status(time.time()))

    async def _metrics(self, request: web.Request) -> web.Response:
        fault = await self._known(request)
        if not fault.not_ready(time.time()):
            return web.json_response(fault.metrics())
        status = fault.misdeed.not_ready
        return web.Response(status=204) if status == 204 else web.json_response({}, status=status)

    async def _stop(self, request: web.Request) -> web.Response:
        fault = await self._known(request)
        now = time.time()
        fault.stopped = fault.stopped or now
        if now >= fault.ended:
            return web.json_response(fault.status(now))
        return web.json_response({}, status=fault.misdeed.stop)

    async def _known(self, request: web.Request) -> StubFault:
        """The fault that a request names, once the Executor answers."""
        fault = self._faults.get(request.match_info["id"])
        if fault is None:
            raise web.HTTPNotFound
        now = time.time()
        await asyncio.sleep(fault.silent_until(now) - now)
        if fault.forgotten(time.time()):
            raise web.HTTPNotFound
        return fault


def main() -> None:
    """Serve until killed."""
    port, seed, plans = map(int, sys.argv[1:])
    app = MisbehavingExecutor(seed, plans).app()
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None)


if __name__ == "__main__":
    main()
