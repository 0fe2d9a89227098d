"""Which requests met which fault: what Envoy's access log says, counted for each fault."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from executor.access_log import AccessLog
from executor.control_plane import EnvoyError
from executor.observations import Arrival

if TYPE_CHECKING:
    from collections.abc import Sequence

    from executor.clock import Clock
    from executor.envoy import Envoy
    from executor.faults import Fault, FaultRegistry
    from executor.journal import Journal
    from executor.observations import End
    from executor.store import Position

__all__ = ["LOOK_EVERY_S", "Arrivals"]

LOGGED_WITHIN_S = 3.0
"""How long Envoy may take to record what has happened."""

LOOK_EVERY_S = 0.01

GIVEN_UP_AFTER = timedelta(seconds=15)
"""How long after a fault, and after its delay, Envoy's log is waited for."""

CUT = "Envoy's log was cut, damaged or removed, so requests may be missing in its figures"

logger = logging.getLogger(__name__)


class Arrivals:
    """Reads the log of one Envoy as it grows."""

    def __init__(
        self, envoy: Envoy, faults: FaultRegistry, journal: Journal, clock: Clock, wait_for_answers: timedelta
    ) -> None:
        """`wait_for_answers`: how long after a fault, and after its delay, requests may still be answered."""
        self._envoy = envoy
        self._faults = faults
        self._journal = journal
        self._clock = clock
        self._wait_for_answers = wait_for_answers
        self._log = AccessLog(envoy.files.access_log)
        self._more_known = asyncio.Event()
        """Set, and replaced, once the arrivals of more faults are known."""

        self._tasks: set[asyncio.Task[None]] = set()
        self._owed: dict[int, float] = {}
        """Marks that Envoy was asked for and that were not read yet, and when each must have been read."""

        self._lost_writes = 0
        """How often this Envoy could not write to its log, as far as that was noticed."""

    @property
    def position(self) -> Position:
        """How far the log was read."""
        return self._log.position

    def go_on(self, position: Position) -> None:
        """Read on from the position at which an earlier Executor stopped."""
        self._log.restore(position)

    async def begin(self) -> None:
        """Know the log of an Envoy that has started, or was found. What it could not write is lost.

        A log that is cut before it was ever read lacks the mark that it begins with.
        """
        self._owed.clear()
        self._lost_writes = 0
        with suppress(EnvoyError):
            await self._notice_lost_writes()
            await self._mark()

    def read(self) -> None:
        """Count what is new, and give up requests that are under way for too long."""
        self._read_log()
        self._faults.settle(self._clock.now(), self._wait_for_answers)

    def read_for(self, fault: Fault) -> None:
        """`read`, if only this fault matters."""
        self._read_log()
        fault.give_up(self._clock.now(), self._wait_for_answers)

    def complete(self, ended: Sequence[Fault]) -> None:
        """In the background, read the log past the end of these faults. Their arrivals are known then."""
        task = asyncio.create_task(self._complete(ended))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def all_known(self) -> None:
        """Wake the tasks that wait for arrivals, because Envoy has ended and records no more of them."""
        self._more_known.set()
        self._more_known = asyncio.Event()

    async def known(self, fault: Fault) -> None:
        """Wait until the arrivals of a fault that has ended are known, or `LOGGED_WITHIN_S` have passed."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOGGED_WITHIN_S):
                while not fault.arrivals_known:
                    await self._more_known.wait()

    async def catch_up(self) -> None:
        """Keep the log small and there, and complete faults whose arrivals Envoy did not record in time.

        Raises `EnvoyError`.
        """
        self._give_up()
        if self._log.missing:
            self._log.cut = True
            await self._envoy.reopen_logs()
            await self._mark()
        for news in await self._log.rotate(self._mark, self._envoy.reopen_logs):
            self._count(news)
        unknown = [fault for fault in self._faults.unsettled() if not (fault.active or fault.arrivals_known)]
        if unknown and not self._tasks:
            await self._complete(unknown)

    async def close(self) -> None:
        """End what is done in the background, and read what there is."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self.read()

    def _give_up(self) -> None:
        """A fault that has ended is over at some time, even if Envoy's log cannot be read any more."""
        now = self._clock.now()
        for fault in self._faults.unsettled():
            if fault.arrivals_known or not fault.ended_before(now - GIVEN_UP_AFTER):
                continue
            logger.error("the requests of fault %s are not known: Envoy's log cannot be read", fault.apply_id)
            fault.doubt = fault.doubt or CUT
            fault.arrivals_known = True
            fault.tally.give_up(now.timestamp())
            self._journal.note(fault)

    async def _complete(self, ended: Sequence[Fault]) -> None:
        try:
            mark = await self._mark()
            async with asyncio.timeout(LOGGED_WITHIN_S):
                while not self._log.has(mark):
                    await asyncio.sleep(LOOK_EVERY_S)
                    self._read_log()
            await self._notice_lost_writes()
        except (EnvoyError, TimeoutError) as exc:
            logger.warning("the requests of %d faults are not known yet: %s", len(ended), exc)
            return
        for fault in ended:
            fault.arrivals_known = True
        self._journal.note(*ended)
        self.all_known()

    async def _mark(self) -> int:
        """Have a mark written to the log; its number. Raises `EnvoyError`."""
        mark = await self._envoy.mark_log()
        self._owed[mark] = self._clock.steady_s() + LOGGED_WITHIN_S
        return mark

    async def _notice_lost_writes(self) -> None:
        """Raises `EnvoyError`."""
        lost = await self._envoy.lost_writes()
        self._log.cut |= lost > self._lost_writes
        self._lost_writes = lost
        self._doubt_if_cut()

    def _lacks_a_mark(self) -> bool:
        """Whether a mark is missing although a later one was read: so are lines around it."""
        self._owed = {mark: by_s for mark, by_s in self._owed.items() if not self._log.has(mark)}
        now_s = self._clock.steady_s()
        missing = [
            mark for mark, by_s in self._owed.items() if by_s < now_s and mark < self._log.read_to_mark
        ]
        for mark in missing:
            del self._owed[mark]
        return bool(missing)

    def _read_log(self) -> None:
        for news in self._log.news():
            self._count(news)
        self._log.cut |= self._lacks_a_mark()
        self._doubt_if_cut()

    def _doubt_if_cut(self) -> None:
        if self._log.cut:
            self._log.cut = False
            certain = [fault for fault in self._faults.unsettled() if not fault.doubt]
            if certain:
                logger.error("the access log was cut, damaged or removed: requests may be missing in figures")
            for fault in certain:
                fault.doubt = CUT
                self._journal.note(fault)

    def _count(self, news: Arrival | End) -> None:
        fault = self._faults.find(news.fault_id)
        if fault is None:
            return
        self._journal.note(fault)
        if isinstance(news, Arrival):
            if fault.arrivals_known:
                logger.warning("a request met fault %s after its end: %s", fault.apply_id, news.line)
            fault.tally.begin(news)
        else:
            fault.tally.end(news)
