"""Applies faults, ends them in time, and knows what was seen of them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import TYPE_CHECKING

from executor.arrivals import LOOK_EVERY_S, Arrivals
from executor.control_plane import EnvoyError, RefusedError
from executor.faults import TooLateError, refuse_after
from executor.injected import Injected
from executor.journal import Journal
from executor.restart import carry_on
from executor.waiting import Waiting

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime, timedelta

    from executor.clock import Clock
    from executor.contract import FaultApply
    from executor.control_plane import ControlPlane
    from executor.envoy import Envoy
    from executor.faults import Fault, FaultRegistry
    from executor.routes import RouteTable
    from executor.store import Store

__all__ = ["Injector"]

ENDED_WITHIN_S = 10.0
"""How long a stop waits for Envoy."""

SETTLED_WITHIN_S = 0.5
"""How long a caller waits for requests that are under way."""

WATCH_EVERY_S = 0.25

logger = logging.getLogger(__name__)


class Injector:
    """The faults of one Envoy. One task (`run`) changes what Envoy has, for all callers together."""

    def __init__(
        self,
        *,
        envoy: Envoy,
        control: ControlPlane,
        table: RouteTable,
        faults: FaultRegistry,
        store: Store,
        clock: Clock,
        wait_for_answers: timedelta,
    ) -> None:
        """`wait_for_answers`: how long after a fault, and after its delay, requests may still be answered."""
        self._envoy = envoy
        self._injected = Injected(control, table, clock)
        self._faults = faults
        self._clock = clock
        self._journal = Journal(store, faults)
        self._arrivals = Arrivals(envoy, faults, self._journal, clock, wait_for_answers)
        self._changing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._begun, self._ended = Waiting(), Waiting()

    async def start(self, *, adopted: bool) -> None:
        """Restore what an earlier Executor has left, and have Envoy started. Raises `EnvoyError`.

        `adopted`: whether its Envoy is still there.
        """
        stored = self._journal.read()
        carry_on(stored, self._clock, adopted=adopted)
        self._arrivals.go_on(stored.position)
        for fault in stored.faults:
            self._faults.restore(fault)
        self._journal.note(*stored.faults)
        steady_s = self._clock.steady_s()
        await self._injected.start([fault for fault in self._in_force() if fault.wanted(steady_s)])
        if not adopted:
            await self._envoy.start()
        await self._injected.taken()
        await self._arrivals.begin()
        self._save()

    async def run(self) -> None:
        """Begin and end faults, and renew those that are on. Runs until cancelled."""
        while True:
            await self._until_something_is_due()
            try:
                async with self._changing:
                    await self._advance()
            except EnvoyError as exc:
                logger.error("faults do not change as they should, trying again: %s", exc)  # noqa: TRY400
                await asyncio.sleep(WATCH_EVERY_S)

    async def watch(self) -> None:
        """Read the log, and start Envoy again if it has ended. Runs until cancelled."""
        last_trouble = ""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            trouble = ""
            try:
                await self._look_after()
            except (EnvoyError, OSError, TimeoutError) as exc:
                trouble = f"{type(exc).__name__}: {exc}"
                if trouble != last_trouble:  # it comes back four times a second
                    logger.exception("Envoy is in trouble")
            last_trouble = trouble

    async def apply(self, request: FaultApply, key: str | None, not_after: datetime | None = None) -> Fault:
        """Inject the fault; it is on when this returns. The same request with the same key is one fault.

        Raises `ConflictError`, `KeyReusedError`, `TooManyFaultsError`, `EnvoyError`, and `TooLateError` after
        `not_after`.
        """
        fault = self._faults.repeated(key, request)
        if fault is None:
            refuse_after(not_after, self._clock.now())
            fault = self._faults.add(request, key, self._clock.now(), not_after)
            self._begun.of(fault.apply_id)
            self._wake.set()
        if fault.apply_id in self._begun:
            await asyncio.shield(self._begun.of(fault.apply_id))
        return fault

    def find(self, apply_id: str) -> Fault | None:
        """The fault, if it is known, with all that Envoy has logged of it."""
        fault = self._faults.find(apply_id)
        if fault is not None:
            self._arrivals.read_for(fault)
        return fault

    def current(self) -> list[Fault]:
        """The faults that are not over."""
        self._arrivals.read()
        return self._faults.current(self._clock.now())

    async def end(self, fault: Fault) -> None:
        """Take the fault away, if it is still there. Raises `EnvoyError`, and then it is tried again."""
        if fault.apply_id in self._begun:
            await asyncio.wait([self._begun.of(fault.apply_id)])
        if fault.active:
            fault.stopping = True
            ended = self._ended.of(fault.apply_id)
            self._wake.set()
            try:
                async with asyncio.timeout(ENDED_WITHIN_S):
                    await asyncio.shield(ended)
            except TimeoutError as exc:
                raise EnvoyError("Envoy does not answer") from exc
        await self._arrivals.known(fault)

    async def end_all(self) -> list[Fault]:
        """Take all faults away; those that were there. Raises `EnvoyError`."""
        active = self._faults.active()
        await asyncio.gather(*(self.end(fault) for fault in active))
        return [fault for fault in active if fault.in_force]

    async def settle(self, fault: Fault) -> bool:
        """Whether all requests of the fault have ended, or were given up. Waits a little if it has ended."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SETTLED_WITHIN_S):
                while not (fault.active or fault.settled):
                    await asyncio.sleep(LOOK_EVERY_S)
                    self._arrivals.read_for(fault)
        return fault.settled

    def requests(self) -> list[FaultApply]:
        """What was applied and is active."""
        return [fault.request for fault in self._faults.active()]

    async def close(self) -> None:
        """Keep what is known. Nothing is looked at any more."""
        await self._arrivals.close()
        try:
            self._save()
        except EnvoyError as exc:
            logger.error("the last figures are not kept: %s", exc)  # noqa: TRY400

    async def _until_something_is_due(self) -> None:
        due_s = min([self._injected.renew_at_s, *(fault.ends_by_s for fault in self._in_force())])
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, due_s - self._clock.steady_s())):
                await self._wake.wait()
        self._wake.clear()

    async def _advance(self) -> None:
        """Have Envoy inject what it should inject at this moment, and no more."""
        if self._injected.lapsed:
            self._lapse()
        begins = [fault for fault in self._faults.active() if not fault.in_force]
        try:
            await self._change(begins)
        except RefusedError as exc:
            for fault in begins:  # one that Envoy refuses does not keep the others from beginning
                if fault.active:
                    await self._begin_alone(fault, exc if len(begins) == 1 else None)
        except EnvoyError as exc:
            for fault in begins:
                if not fault.in_force:
                    self._fail(fault, exc)
            raise

    async def _begin_alone(self, fault: Fault, refused: RefusedError | None) -> None:
        try:
            if refused is not None:
                raise refused
            await self._change([fault])
        except EnvoyError as exc:
            if not fault.in_force:
                self._fail(fault, exc)

    async def _change(self, begins: Sequence[Fault]) -> None:
        """End the faults whose time is over, renew the others, and begin these. Raises `EnvoyError`."""
        steady_s, in_force = self._clock.steady_s(), self._in_force()
        goes_on = [fault for fault in in_force if fault.wanted(steady_s)]
        ends = [fault for fault in in_force if not fault.wanted(steady_s)]
        await self._injected.renew(goes_on)  # an Envoy that does not answer begins nothing
        self._have_ended(ends)
        self._save(*ends)
        if in_time := self._in_time(begins):
            await self._begin(in_time, goes_on)

    async def _begin(self, begins: Sequence[Fault], goes_on: Sequence[Fault]) -> None:
        self._save(*begins)  # an Executor that is restarted must know them
        await self._injected.inject([*goes_on, *begins])
        self._have_begun(begins)
        self._save(*begins)

    def _have_begun(self, begins: Sequence[Fault]) -> None:
        for fault in begins:
            fault.begin(self._injected.renewed_at, self._injected.renewed_s)
            if fault.not_after is not None and fault.start_time > fault.not_after:
                fault.stopping = True  # its apply is refused once it is taken away
                self._wake.set()
            else:
                self._begun.resolve(fault.apply_id)

    def _have_ended(self, ends: Sequence[Fault]) -> None:
        for fault in ends:
            fault.end(self._injected.renewed_s)
            self._ended.resolve(fault.apply_id)
            if fault.apply_id in self._begun and fault.not_after is not None:
                self._fail(fault, TooLateError(f"the fault began after {fault.not_after.isoformat()}"))
        if ends:
            self._arrivals.complete(ends)

    def _lapse(self) -> None:
        """Envoy has dropped all faults, or is about to, because it was not renewed in time."""
        faults = self._in_force()
        if faults:
            logger.error("Envoy was not renewed in time: %d faults have lapsed", len(faults))
        for fault in faults:
            fault.lapse(self._injected.lapsed_s)
        self._have_ended(faults)

    def _in_force(self) -> list[Fault]:
        return [fault for fault in self._faults.active() if fault.in_force]

    def _in_time(self, pending: Sequence[Fault]) -> list[Fault]:
        """Those that may still begin."""
        in_time = []
        for fault in pending:
            try:
                refuse_after(fault.not_after, self._clock.now())
            except TooLateError as exc:
                self._fail(fault, exc)
            else:
                in_time.append(fault)
        return in_time

    def _fail(self, fault: Fault, error: Exception) -> None:
        """The fault does not begin, and its key may be used again."""
        fault.cancel()
        self._faults.drop(fault)
        self._journal.forget(fault)
        self._begun.resolve(fault.apply_id, error)

    async def _look_after(self) -> None:
        self._arrivals.read()
        if not self._envoy.alive:
            self._injected.give_up("Envoy has ended")  # a change that is under way must not wait for it
            async with self._changing:
                await self._start_again()
        await self._arrivals.catch_up()

    async def _start_again(self) -> None:
        """Envoy has ended, and every fault with it."""
        logger.error("Envoy has ended by itself: starting it again, without faults")
        for fault in self._faults.unsettled():
            if fault.apply_id not in self._begun:
                fault.break_off(self._clock.now(), "Envoy ended by itself while the fault was on")
                self._journal.note(fault)
                self._ended.resolve(fault.apply_id)
        self._arrivals.all_known()
        self._injected.start_again()
        await self._envoy.start()
        await self._injected.taken()
        await self._arrivals.begin()

    def _save(self, *faults: Fault) -> None:
        """Keep these faults, and all that has changed. Raises `NotKeptError`."""
        self._journal.note(*faults)
        self._journal.keep(self._arrivals.position, self._injected.renewed_at)
