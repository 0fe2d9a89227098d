"""Applies faults, ends them in time, and knows what was seen of them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from executor.access_log import AccessLog
from executor.envoy import EnvoyError
from executor.faults import refuse_after
from executor.observations import Arrival

if TYPE_CHECKING:
    from executor.contract import FaultApply
    from executor.envoy import Envoy
    from executor.faults import Fault, FaultRegistry
    from executor.observations import End

__all__ = ["Injector"]

LOGGED_WITHIN_S = 3.0
"""How long Envoy may take to record what has happened."""

SETTLED_WITHIN_S = 0.5
"""How long a caller waits for requests that are under way."""

LOOK_EVERY_S = 0.01
WATCH_EVERY_S = 0.25

logger = logging.getLogger(__name__)


class Injector:
    """The faults of one Envoy."""

    def __init__(self, envoy: Envoy, faults: FaultRegistry, wait_for_answers: timedelta) -> None:
        """`wait_for_answers`: how long after a fault, and after its delay, requests may still be answered."""
        self._envoy = envoy
        self._log = AccessLog(envoy.access_log)
        self._faults = faults
        self._wait_for_answers = wait_for_answers
        self._changing = asyncio.Lock()
        self._ends: set[asyncio.Task[None]] = set()

    async def apply(self, request: FaultApply, key: str | None, not_after: datetime | None = None) -> Fault:
        """Inject the fault; it is on when this returns. The same request with the same key is one fault.

        Raises `ConflictError`, `KeyReusedError`, `EnvoyError`, and `TooLateError` after `not_after`.
        """
        async with self._changing:
            repeated = self._faults.repeated(key, request)
            if repeated is not None:
                return repeated
            refuse_after(not_after, _now())
            fault = self._faults.add(request, key, _now())
            try:
                fault.start_time = await self._envoy.inject(self._faults.active(), not_after)
            except BaseException:
                self._faults.drop(fault)
                raise
        task = asyncio.create_task(self._end_in_time(fault))
        self._ends.add(task)
        task.add_done_callback(self._ends.discard)
        return fault

    def find(self, apply_id: str) -> Fault | None:
        """The fault, if it is known, with all that Envoy has logged of it."""
        self._look()
        return self._faults.find(apply_id)

    def current(self) -> list[Fault]:
        """The faults that are not over."""
        self._look()
        return self._faults.current(_now())

    async def end(self, fault: Fault) -> None:
        """Take the fault away, if it is still there. Raises `EnvoyError`, and then it is tried again."""
        async with self._changing:
            if fault.active:
                others = [other for other in self._faults.active() if other is not fault]
                fault.end_time = await self._envoy.inject(others)
        await self._know_arrivals(fault)

    async def settle(self, fault: Fault) -> bool:
        """Whether all requests of the fault have ended, or were given up. Waits a little if it has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLED_WITHIN_S):
                while not (fault.active or fault.settled):
                    await asyncio.sleep(LOOK_EVERY_S)
                    self._look()
        return fault.settled

    def targets(self) -> list[tuple[str, str]]:
        """What has a fault."""
        return [fault.target for fault in self._faults.active()]

    async def watch(self) -> None:
        """Read the log, and start Envoy again if it has ended. Runs until cancelled."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            try:
                await self._look_after()
            except (EnvoyError, OSError, TimeoutError):
                logger.exception("Envoy is in trouble")

    async def _look_after(self) -> None:
        self._look()
        if not self._envoy.alive:
            await self._start_again()
        for news in await self._log.rotate(self._envoy):
            self._count(news)
        for fault in self._faults.unsettled():
            if not (fault.active or fault.arrivals_known):
                await self._know_arrivals(fault)

    async def _start_again(self) -> None:
        """Envoy has ended, and every fault with it."""
        logger.error("Envoy has ended by itself: starting it again, without faults")
        async with self._changing:
            for fault in self._faults.unsettled():
                fault.break_off(_now(), "Envoy ended by itself while the fault was on")
            await self._envoy.start()

    async def _end_in_time(self, fault: Fault) -> None:
        end_time = fault.start_time + timedelta(seconds=fault.request.duration_seconds)
        await asyncio.sleep((end_time - _now()).total_seconds())
        while fault.active:
            try:
                await self.end(fault)
            except EnvoyError as exc:
                logger.error("fault %s was not taken away, trying again: %s", fault.apply_id, exc)  # noqa: TRY400
                await asyncio.sleep(WATCH_EVERY_S)

    async def _know_arrivals(self, fault: Fault) -> None:
        """Read the log past the fault's end. If Envoy does not write it in time, `watch` tries again."""
        try:
            mark = await self._envoy.mark_log()
            async with asyncio.timeout(LOGGED_WITHIN_S):
                while not (fault.arrivals_known or self._log.read_to_mark >= mark):
                    await asyncio.sleep(LOOK_EVERY_S)
                    self._read_log()
        except (EnvoyError, TimeoutError) as exc:
            logger.warning("the requests of fault %s are not known yet: %s", fault.apply_id, exc)
            return
        fault.arrivals_known = True

    def _look(self) -> None:
        self._read_log()
        self._faults.settle(_now(), self._wait_for_answers)

    def _read_log(self) -> None:
        for news in self._log.news():
            self._count(news)

    def _count(self, news: Arrival | End) -> None:
        fault = self._faults.find(news.fault_id)
        if fault is None:
            return
        if isinstance(news, Arrival):
            if fault.arrivals_known:
                logger.warning("a request met fault %s after its end: %s", fault.apply_id, news.line)
            fault.tally.begin(news)
        else:
            fault.tally.end(news)

    async def close(self) -> None:
        """Forget the ends that are still to come: Envoy is about to be stopped."""
        for task in list(self._ends):
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def _now() -> datetime:
    return datetime.now(UTC)
