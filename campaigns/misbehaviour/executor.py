"""An Executor that misbehaves with each fault in a way of its own.

`python -m campaigns.misbehaviour.executor PORT SEED PLANS`. It injects nothing: it has the faults API, and
what it says of requests is made up. The first PLANS plans meet a misdeed, those after them none.
`GET /journal` lists what is true of each fault, by the number of its plan.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from aiohttp import web

from benchmarks.stage.plans import number_of
from campaigns.faults_api import FaultsApi, answer, serve
from campaigns.misbehaviour.acts import Act, misdeed_of
from campaigns.misbehaviour.fault import StubFault


class MisbehavingExecutor(FaultsApi[StubFault]):
    """The faults API of an Executor that may be silent about a fault, or forget it."""

    def __init__(self, seed: int, plans: int) -> None:
        super().__init__()
        self._seed = seed
        self._plans = plans

    def app(self, **options: Any) -> web.Application:
        app = super().app(**options)
        app.router.add_get("/journal", self._journal)
        return app

    async def _journal(self, _: web.Request) -> web.Response:
        """The last fault of each plan counts."""
        return answer({fault.apply_id.split("-")[1]: fault.truth() for fault in self.faults.values()})

    def forgotten(self, fault: StubFault) -> bool:
        return fault.misdeed.act is Act.RESTARTED and fault.forgotten(time.time())

    def begin(self, apply_number: int, key: str, body: dict[str, Any], path: str) -> StubFault:
        del key, path
        number = number_of(body["api"])
        misdeed = misdeed_of(self._seed, number, self._plans)
        apply_id, lasts_s = f"f{apply_number}-{number}", body["duration_seconds"]
        return StubFault(apply_id, misdeed, body["percentage"], lasts_s, time.time())

    async def status(self, fault: StubFault) -> web.Response:
        await self._remembers(fault)
        return answer(fault.status(time.time()))

    async def metrics(self, fault: StubFault) -> web.Response:
        await self._remembers(fault)
        if not fault.not_ready(time.time()):
            return answer(fault.metrics())
        status = fault.misdeed.not_ready
        return web.Response(status=204) if status == 204 else answer({}, status=status)

    async def stop(self, fault: StubFault) -> web.Response:
        await self._remembers(fault)
        now = time.time()
        fault.stopped = fault.stopped or now
        return answer(fault.status(now)) if now >= fault.ended else answer({}, status=fault.misdeed.stop)

    async def _remembers(self, fault: StubFault) -> None:
        """Returns once the Executor says something about the fault. Raises if it has forgotten it."""
        now = time.time()
        await asyncio.sleep(fault.silent_until(now) - now)
        if fault.forgotten(time.time()):
            raise web.HTTPNotFound


if __name__ == "__main__":
    port, seed, plans = map(int, sys.argv[1:])
    serve(MisbehavingExecutor(seed, plans).app(), port)
