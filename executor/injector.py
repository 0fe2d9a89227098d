"""Applies faults, ends them in time, and knows what was seen of them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from executor.access_log import AccessLog
from executor.envoy import EnvoyError

if TYPE_CHECKING:
    from executor.contract import FaultApply
    from executor.envoy import Envoy
    from executor.faults import Fault, FaultRegistry
    from executor.observations import Request

__all__ = ["Injector"]

FLUSH_S = 0.15
"""How long after a request Envoy may take to write it down: its flush interval, and the disk."""

WATCH_EVERY_S = 0.25

logger = logging.getLogger(__name__)


class Injector:
    """The faults of one Envoy."""

    def __init__(self, envoy: Envoy, faults: FaultRegistry) -> None:
        self._envoy = envoy
        self._log = AccessLog(envoy.access_log)
        self._faults = faults
        self._changing = asyncio.Lock()
        self._ends: set[asyncio.Task[None]] = set()

    async def apply(self, request: FaultApply, key: str | None) -> Fault:
        """Inject the fault; it is on when this returns. The same request with the same key is one fault.

        Raises `ConflictError`, `KeyReusedError`, `EnvoyError`.
        """
        async with self._changing:
            repeated = self._faults.repeated(key, request)
            if repeated is not None:
                return repeated
            fault = self._faults.add(request, key, _now())
            try:
                await self._envoy.inject(self._faults.active())
            except EnvoyError:
                self._faults.drop(fault)
                raise
            fault.start_time = _now()
        task = asyncio.create_task(self._end_in_time(fault))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)
        return fault

    def find(self, apply_id: str) -> Fault | None:
        """The fault, if it is known."""
        return self._faults.find(apply_id)

    async def end(self, fault: Fault) -> None:
        """Take the fault away, if it is still there. Raises `EnvoyError`, and then it is tried again."""
        async with self._changing:
            if not fault.active:
                return
            others = [other for other in self._faults.active() if other is not fault]
            await self._envoy.inject(others)
            fault.end_time = _now()

    async def observe(self, fault: Fault) -> None:
        """Have everything in the fault's tally that was answered before it ended."""
        if fault.end_time is not None:
            since_end_s = (_now() - fault.end_time).total_seconds() - fault.request.held_ms / 1000
            await asyncio.sleep(max(0.0, FLUSH_S - since_end_s))
        self._read_log()

    def targets(self) -> list[tuple[str, str]]:
        """What has a fault."""
        return [fault.target for fault in self._faults.active()]

    async def watch(self) -> None:
        """Read the log, and start Envoy again if it has ended. Runs until cancelled."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            try:
                self._read_log()
                for request in await self._log.rotate(self._envoy):
                    self._count(request)
                if not self._envoy.alive:
                    await self._start_again()
            except (EnvoyError, OSError):
                logger.exception("Envoy is in trouble")

    async def _start_again(self) -> None:
        """Envoy has ended, and every fault with it."""
        logger.error("Envoy has ended by itself: starting it again, without faults")
        async with self._changing:
            for fault in self._faults.active():
                fault.end_time, fault.error = _now(), "Envoy ended by itself while the fault was on"
            await self._envoy.start()

    async def _end_in_time(self, fault: Fault) -> None:
        await asyncio.sleep(fault.request.duration_seconds)
        while fault.active:
            try:
                await self.end(fault)
            except EnvoyError as exc:
                logger.error("fault %s was not taken away, trying again: %s", fault.apply_id, exc)  # noqa: TRY400
                await asyncio.sleep(WATCH_EVERY_S)

    def _read_log(self) -> None:
        for request in self._log.new_requests():
            self._count(request)

    def _count(self, request: Request) -> None:
        fault = self._faults.find(request.fault_id)
        if fault is not None:
            fault.tally.add(request)

    async def close(self) -> None:
        """Forget the ends that are still to come: Envoy is about to be stopped."""
        for task in list(self._ends):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _now() -> datetime:
    return datetime.now(UTC)
