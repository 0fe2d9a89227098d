"""What the injector changes and asks, without Envoy: a control plane, an Envoy, a clock, and a full disk."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from executor.control_plane import EnvoyError, RefusedError
from executor.envoy_config import Files
from executor.store import Store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from executor.xds_pb2 import RouteConfiguration, Runtime


class FakeControl:
    """Envoy takes everything at once, unless it is held."""

    def __init__(self) -> None:
        self.on: set[str] = set()
        """Ids of the faults that are on."""

        self.were_on: list[set[str]] = []
        """The same after each change, renewals included."""

        self.changes = 0
        self.renewals = 0
        self.refuses = ""
        """The path whose routes are refused."""

        self.asked = asyncio.Event()
        """Whether something waits for Envoy, or has been taken."""

        self.meanwhile: list[Callable[[], object]] = []
        """What happens while Envoy takes the next changes, one for each."""

        self._held = False
        self._waiting: list[asyncio.Future[None]] = []

    def hold(self) -> None:
        """Envoy does not answer any more."""
        self._held = True
        self.asked.clear()

    def release(self) -> None:
        """Envoy answers, also what it was asked before."""
        self._held = False
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    def drop(self) -> None:
        """The time to live of the layer is over."""
        self.on = set()
        self.were_on.clear()

    async def start(self, routes: RouteConfiguration, runtime: Runtime) -> None:
        self.begin_with(routes, runtime)

    def begin_with(self, routes: RouteConfiguration, runtime: Runtime) -> None:
        self._take(faults_on(runtime))

    async def taken(self) -> None:
        await self._answer()

    async def publish(self, routes: RouteConfiguration | None, runtime: Runtime) -> None:
        await self._answer()
        if routes is not None and self.refuses in paths_of(routes):
            raise RefusedError(f"Envoy refused {self.refuses}")
        self.changes += 1
        self._take(faults_on(runtime))
        if self.meanwhile:
            self.meanwhile.pop(0)()

    async def renew(self) -> None:
        await self._answer()
        self.renewals += 1
        self._take(self._published)

    def give_up(self, reason: str) -> None:
        self._held = False
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_exception(EnvoyError(reason))

    def _take(self, ids: set[str]) -> None:
        self.on = self._published = ids
        self.were_on.append(ids)

    async def _answer(self) -> None:
        self.asked.set()
        if self._held:
            self._waiting.append(asyncio.get_running_loop().create_future())
            await self._waiting[-1]


class FakeEnvoy:
    """A process that only records marks."""

    def __init__(self, folder: Path) -> None:
        self.files = Files.of(folder)
        self.alive = False
        self.starts = 0
        self.may_start = asyncio.Event()
        self.may_start.set()
        self.starting = asyncio.Event()
        self.reachable = True
        """Whether its admin interface is there."""

        self.lost = 0
        """How often it could not write to its log."""

        self.cut_marks: set[int] = set()
        """Numbers of the marks that something cuts out of the log before they are read."""

        self._marks = 0

    async def start(self) -> None:
        self.starting.set()
        await self.may_start.wait()
        self.starts += 1
        self.alive = True

    async def mark_log(self) -> int:
        if not (self.alive and self.reachable):
            raise EnvoyError("Envoy does not answer")
        self._marks += 1
        if self._marks not in self.cut_marks:
            self.log(mark=f"/ready?mark={self._marks}")
        return self._marks

    async def lost_writes(self) -> int:
        if not (self.alive and self.reachable):
            raise EnvoyError("Envoy does not answer")
        return self.lost

    async def reopen_logs(self) -> None:
        if self.reachable:
            raise AssertionError("the log is never that large")
        raise EnvoyError("Envoy does not answer")

    def log(self, **fields: Any) -> None:
        with self.files.access_log.open("a", encoding="utf-8") as log:
            log.write(json.dumps(fields) + "\n")


class FakeClock:
    """The real clocks, and what a test adds to them."""

    def __init__(self) -> None:
        self._set_by = timedelta()
        self._passed_s = 0.0

    def now(self) -> datetime:
        return datetime.now(UTC) + self._set_by + timedelta(seconds=self._passed_s)

    def steady_s(self) -> float:
        return time.monotonic() + self._passed_s

    def set_by(self, seconds: float) -> None:
        """Set the machine's clock forward, or back."""
        self._set_by += timedelta(seconds=seconds)

    def pass_(self, seconds: float) -> None:
        self._passed_s += seconds


class FullDisk(Store):
    """A store that may be unable to write."""

    full = False

    def save(self, *given: Any, **more: Any) -> None:
        if self.full:
            raise sqlite3.OperationalError("database or disk is full")
        super().save(*given, **more)


def faults_on(runtime: Runtime) -> set[str]:
    return {key.removeprefix("on.") for key in runtime.layer.fields if key.startswith("on.")}


def paths_of(routes: RouteConfiguration) -> set[str]:
    return {route.match.path for host in routes.virtual_hosts for route in host.routes if route.match.path}
