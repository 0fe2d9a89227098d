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


class Journal:
    """All faults, on disk before any caller learns of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.faults: dict[str, Fault] = {}
        if path.exists():
            for line in path.read_text("utf-8").splitlines():
                self._replay(json.loads(line))

    def apply(self, fault: Fault) -> None:
        """A fault begins."""
        self._write({"apply": vars(fault)})

    def stop(self, apply_id: str) -> None:
        """A fault is stopped, if it is not over."""
        if self.faults[apply_id].ends > time.time():
            self._write({"stop": apply_id, "at": time.time()})

    def _write(self, entry: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as journal:
            journal.write(json.dumps(entry) + "\n")
        self._replay(entry)

    def _replay(self, entry: dict[str, Any]) -> None:
        if "apply" in entry:
            fault = Fault(**entry["apply"])
            self.faults[fault.apply_id] = fault
        else:
            self.faults[entry["stop"]].stopped = entry["at"]


class CountingExecutor:
    """The faults API. A request without an idempotency key is always a new fault."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._by_key = {fault.key: fault for fault in journal.faults.values() if fault.key}
        self._how, self._until = "no", 0.0

    def app(self) -> web.Application:
        """The application."""
        app = web.Application(middlewares=[self._misbehaving()])
        app.router.add_post("/misbehave", self._misbehave)
        app.router.add_get("/v1/health", self._health)
        app.router.add_post("/v1/faults/apply", self._apply)
        app.router.add_get("/v1/faults/{id}/status", self._status)
        app.router.add_get("/v1/faults/{id}/metrics", self._metrics)
        app.router.add_delete("/v1/faults/{id}", self._stop)
        return app

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
            return web.json_response({"error": "internal"}, status=500)

        return misbehaving

    async def _misbehave(self, request: web.Request) -> web.Response:
        asked = await request.json()
        self._how, self._until = asked["how"], time.time() + asked["seconds"]
        return web.json_response({})

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "healthy"})

    async def _apply(self, request: web.Request) -> web.Response:
        body, key = await request.json(), request.headers.get("Idempotency-Key", "")
        fault = self._by_key.get(key)
        if fault is None:
            apply_id = f"f{len(self._journal.faults)}"
            fault = Fault(apply_id, key, body["api"], time.time(), body["duration_seconds"])
            self._journal.apply(fault)
            if key:
                self._by_key[key] = fault
        return web.json_response({"apply_id": fault.apply_id, "status": "applied"})

    async def _status(self, request: web.Request) -> web.Response:
        fault = self._known(request)
        state = "completed" if fault.ends <= time.time() else "running"
        return web.json_response({"apply_id": fault.apply_id, "status": state})

    async def _metrics(self, request: web.Request) -> web.Response:
        """The observation names the target, so that a wrong one would be seen."""
        fault = self._known(request)
        observed = {"status_code": 503, "latency_ms": 1.0, "error_rate": 1.0, "logs": [fault.api]}
        return web.json_response({"apply_id": fault.apply_id, "trace_data": None, **observed})

    async def _stop(self, request: web.Request) -> web.Response:
        self._journal.stop(self._known(request).apply_id)
        return web.json_response({})

    def _known(self, request: web.Request) -> Fault:
        fault = self._journal.faults.get(request.match_info["id"])
        if fault is None:
            raise web.HTTPNotFound
        return fault


def main() -> None:
    """Serve until killed."""
    port, journal = int(sys.argv[1]), Journal(Path(sys.argv[2]))
    app = CountingExecutor(journal).app()
    web.run_app(app, host="127.0.0.1", port=port, print=None, access_log=None, reuse_address=True)


if __name__ == "__main__":
    main()
