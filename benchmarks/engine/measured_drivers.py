"""Two drivers for workers that are measured: one makes no calls, the other only what any client has to do.

A worker finds them by entry points, which `install` writes into a folder that is on its path.
"""

from __future__ import annotations

import json
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

import requests

from benchmarks.engine.steps import ScriptedDriver
from workers.drivers.registry import GROUP

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime
    from pathlib import Path

    from dispatcher import ExecutorClientConfig, FaultPlan, RawObservation
    from workers.drivers.base import FaultStatus

TIMEOUTS_S = (5.0, 30.0)
INSTALLED = "measured_drivers-0.dist-info"
NAMES = {"no_calls": "NoCalls", "plain_calls": "PlainCalls"}


def install(folder: Path) -> None:
    """Write the entry points of both drivers into this folder."""
    info = folder / INSTALLED
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: measured-drivers\nVersion: 0\n", "utf-8")
    points = [f"{name} = {__name__}:{of_class}" for name, of_class in NAMES.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *points]), "utf-8")


class NoCalls(ScriptedDriver):
    """An Executor that answers before it is asked."""

    def __init__(self, config: ExecutorClientConfig, connections: int) -> None:
        del config, connections
        super().__init__()


class PlainCalls(ScriptedDriver):
    """Copies of prepared requests over a session that no other call uses meanwhile. Checks no answer."""

    def __init__(self, config: ExecutorClientConfig, connections: int) -> None:
        del connections
        super().__init__()
        self._url = config.url
        self._get = requests.Request("GET", self._url).prepare()
        self._post = requests.Request("POST", f"{self._url}/v1/faults/apply", json={}).prepare()
        self._sessions: deque[requests.Session] = deque()

    def apply(self, plan: FaultPlan, key: str, within_s: float, not_after: datetime) -> str:
        """Send the plan's target. Of the answer only the id is read."""
        del key, within_s, not_after
        request = self._post.copy()
        request.body = json.dumps({"service": plan.service, "api": plan.api})
        request.headers["Content-Length"] = str(len(request.body))
        with self._session() as session:
            answer = session.send(request, timeout=TIMEOUTS_S)
        applied: str = json.loads(answer.content)["apply_id"]
        return applied

    def status(self, apply_id: str, within_s: float) -> FaultStatus:
        """The answer is not read."""
        self._ask(f"/v1/faults/{apply_id}/status")
        return super().status(apply_id, within_s)

    def metrics(self, apply_id: str, within_s: float) -> RawObservation:
        """The answer is not read."""
        self._ask(f"/v1/faults/{apply_id}/metrics")
        return super().metrics(apply_id, within_s)

    def close(self) -> None:
        """Close all sessions."""
        while self._sessions:
            self._sessions.pop().close()

    def _ask(self, path: str) -> None:
        request = self._get.copy()
        request.url = self._url + path
        with self._session() as session:
            session.send(request, timeout=TIMEOUTS_S)

    @contextmanager
    def _session(self) -> Iterator[requests.Session]:
        try:
            session = self._sessions.pop()
        except IndexError:
            session = requests.Session()
            session.trust_env = False
        yield session
        self._sessions.append(session)
