"""Witnesses of when each fault was really in force: they ask the data plane, never the Executor's API.

And whether it was in force while its target was not reserved for it.
"""

from __future__ import annotations

import asyncio
import re
import time
from itertools import groupby, pairwise
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import aiohttp

from campaigns.traffic import Request

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from campaigns.calibration.report import Window

LOOK_EVERY_S = 0.1
SLACK_S = 0.25
RUNTIME = "http://envoy/runtime"
FAULT_ID = re.compile(rb'"on\.([^"]+)"')
"""The runtime key of a fault that is on."""


class Force(NamedTuple):
    """What a data plane says of a fault. Times are in seconds since 1970."""

    apply_id: str
    service: str
    api: str
    applied: float
    began: float | None
    """When it was in force first. None if it never was."""

    ended: float | None
    """When it was gone. None if it is in force."""

    @property
    def target(self) -> tuple[str, str]:
        """What it hits."""
        return self.service, self.api

    @property
    def until(self) -> float:
        """Until when it was in force, if it ever was."""
        if self.began is None:
            return 0.0
        return float("inf") if self.ended is None else self.ended


class Witness(Protocol):
    """Knows what a data plane did."""

    async def run(self) -> None:
        """Look until cancelled."""
        ...

    async def windows(self) -> dict[str, Window]:
        """When each fault was in force, by its `apply_id`."""
        ...

    async def requests(self, api: str) -> list[Request]:
        """All requests that came to a path, if it noted them."""
        del api
        return []


class EnvoyWitness(Witness):
    """Reads the runtime values that Envoy has, again and again. They name the faults that are on."""

    def __init__(self, admin: str) -> None:
        """`admin` is the Unix socket of Envoy's admin interface."""
        self._admin = admin
        self._seen: dict[str, Window] = {}

    async def run(self) -> None:
        before = time.time()
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(self._admin)) as session:
            while True:
                async with session.get(RUNTIME) as answer:
                    runtime = await answer.read()
                now = time.time()
                self.note(fault_ids(runtime), before, now)
                before = now
                await asyncio.sleep(LOOK_EVERY_S)

    def note(self, ids: set[str], before: float, now: float) -> None:
        """These faults were in force at `now`. The last check was at `before`; the truth is between."""
        middle = (before + now) / 2
        for fault_id in ids:
            began, _ = self._seen.get(fault_id, (middle, 0.0))
            self._seen[fault_id] = (began, now + (now - before) / 2)

    async def windows(self) -> dict[str, Window]:
        return dict(self._seen)


class JournalWitness(Witness):
    """Reads the journal of the stub whose data plane is slow."""

    def __init__(self, executor: str) -> None:
        """`executor` is the URL of its API."""
        self._executor = executor

    async def run(self) -> None:
        """The journal is complete at the end."""

    async def windows(self) -> dict[str, Window]:
        return {
            force.apply_id: (force.began, force.ended)
            for force in await self.forces()
            if force.began is not None and force.ended is not None
        }

    async def requests(self, api: str) -> list[Request]:
        return [Request(0.0, *noted) for noted in await self._ask(f"/requests{api}")]

    async def forces(self) -> list[Force]:
        """All faults that were ever applied."""
        return [Force(**line) for line in await self._ask("/journal")]

    async def _ask(self, path: str) -> Any:
        async with aiohttp.ClientSession() as session, session.get(self._executor + path) as answer:
            return await answer.json()


def fault_ids(runtime: bytes) -> set[str]:
    """The ids of all faults that are on by Envoy's runtime values, which are JSON.

    They are searched for and not parsed: that takes too long for a process that times requests meanwhile.
    """
    return {found.decode() for found in FAULT_ID.findall(runtime)}


def unreserved(forces: Iterable[Force], released: Mapping[str, float]) -> list[str]:
    """A sentence for each fault that was in force outside of its reservation.

    `released` says until when each fault's plan kept the target, by the fault's `apply_id`. A later apply to
    the same target shows that it was free by then.
    """
    ranked = sorted(forces, key=attrgetter("target", "applied"))
    found = [
        f"{one.apply_id} was in force {late_s:.1f} s after its plan released the target"
        for one in ranked
        if (late_s := one.until - released.get(one.apply_id, float("inf"))) > SLACK_S
    ]
    for _, on_one_target in groupby(ranked, key=attrgetter("target")):
        for one, following in pairwise(on_one_target):
            if one.until > following.applied:
                late_s = one.until - following.applied
                found.append(
                    f"{one.apply_id} was in force {late_s:.1f} s after {following.apply_id} was applied"
                )
    return found
