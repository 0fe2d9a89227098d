"""An Executor that injects nothing, remembers everything, and misbehaves on demand.

`python -m campaigns.chaos.counting_executor PORT JOURNAL`. The journal has a line of JSON for each fault that
was applied or stopped. A killed Executor reads it when it is back.
`POST /misbehave {"how": "hang" | "500" | "garbage" | "slow" | "no", "seconds": s}` begins an episode.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web

from campaigns.faults_api import FaultsApi, answer, serve

SLOW_S = 0.5


@dataclass
class Fault:
    """One fault, with wall-clock times in seconds."""

    apply_id: str
    key: str
    api: str
    begun: float
    duration: float
    stopped: float | None = None

    @property
    def ends(self) -> float:
        """When it is over."""
        return self.begun + self.duration if self.stopped is None else self.stopped


def faults_in(journal: Path) -> dict[str, Fault]:
    """All faults by their ids. Of a fault that was stopped, the second line counts."""
    lines = journal.read_text("utf-8").splitlines() if journal.exists() else []
    return {fault.apply_id: fault for fault in (Fault(**json.loads(line)) for line in lines)}


class CountingExecutor(FaultsApi[Fault]):
    """All faults are on disk before any caller learns of them."""

    def __init__(self, journal: Path) -> None:
        super().__init__()
        self._journal = journal
        self.faults = faults_in(journal)
        self.by_key = {fault.key: fault for fault in self.faults.values() if fault.key}
        self._how, self._until = "no", 0.0

    def app(self, **options: Any) -> web.Application:
        app = super().app(middlewares=[self._misbehaving()], **options)
        app.router.add_post("/misbehave", self._misbehave)
        return app

    def _write(self, fault: Fault) -> None:
        with self._journal.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(vars(fault)) + "\n")

    def _misbehaving(self) -> Any:
        @web.middleware
        async def misbehaving(request: web.Request, handler: Any) -> web.StreamResponse:
            how = self._how if time.time() < self._until else "no"
            if request.path == "/misbehave" or how == "no":
                return await handler(request)  # type: ignore[no-any-return]
            match how:
                case "slow":
                    await asyncio.sleep(SLOW_S)
                    return await handler(request)  # type: ignore[no-any-return]
                case "hang":  # it does what it is asked, and says nothing
                    await handler(request)
                    await asyncio.sleep(max(0.0, self._until - time.time()))
                case "garbage" if request.method == "GET":
                    return web.Response(text="<html>oops")
            return answer({"error": "internal"}, status=500)

        return misbehaving

    async def _misbehave(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self._how, self._until = asked["how"], time.time() + asked["seconds"]
        return answer({})

    def begin(self, apply_number: int, key: str, body: dict[str, Any], path: str) -> Fault:
        del path
        fault = Fault(f"f{apply_number}", key, body["api"], time.time(), body["duration_seconds"])
        self._write(fault)
        return fault

    async def status(self, fault: Fault) -> web.Response:
        state = "completed" if fault.ends <= time.time() else "running"
        return answer({"apply_id": fault.apply_id, "status": state})

    async def metrics(self, fault: Fault) -> web.Response:
        """The observation names the target, so that a wrong one would be seen."""
        observed = {"status_code": 503, "latency_ms": 1.0, "error_rate": 1.0, "logs": [fault.api]}
        return answer({"apply_id": fault.apply_id, "trace_data": None, **observed})

    async def stop(self, fault: Fault) -> web.Response:
        if fault.ends > time.time():
            fault.stopped = time.time()
            self._write(fault)
        return answer({})


if __name__ == "__main__":
    serve(CountingExecutor(Path(sys.argv[2])).app(), int(sys.argv[1]))
