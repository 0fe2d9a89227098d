"""Applies faults, ends them in time, and knows what was seen of them."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from executor.access_log import AccessLog
from executor.control_plane import TTL_S, EnvoyError, RefusedError
from executor.faults import TooLateError, refuse_after
from executor.observations import Arrival
from executor.routes import runtime_layer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from executor.contract import FaultApply
    from executor.control_plane import ControlPlane
    from executor.envoy import Envoy
    from executor.faults import Fault, FaultRegistry
    from executor.observations import End
    from executor.routes import RouteTable
    from executor.store import Store

__all__ = ["Injector"]

KEPT_FOR = timedelta(seconds=TTL_S)
"""How long Envoy keeps faults on after a renewal."""

RENEW_AFTER = KEPT_FOR / 3

MARGIN = timedelta(seconds=0.5)
"""A renewal that begins later than this before the end of `KEPT_FOR` may come too late."""

LOGGED_WITHIN_S = 3.0
"""How long Envoy may take to record what has happened."""

ENDED_WITHIN_S = 10.0
"""How long a stop waits for Envoy."""

SETTLED_WITHIN_S = 0.5
"""How long a caller waits for requests that are under way."""

LOOK_EVERY_S = 0.01
WATCH_EVERY_S = 0.25

RESTARTED = "the Executor was restarted while it was on, and it may have been off for a moment"

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
        wait_for_answers: timedelta,
    ) -> None:
        """`wait_for_answers`: how long after a fault, and after its delay, requests may still be answered."""
        self._envoy = envoy
        self._control = control
        self._table = table
        self._log = AccessLog(envoy.files.access_log)
        self._faults = faults
        self._store = store
        self._wait_for_answers = wait_for_answers
        self._changing = asyncio.Lock()
        self._wake = asyncio.Event()
        self._begun: dict[str, asyncio.Future[None]] = {}
        self._ended: dict[str, asyncio.Future[None]] = {}
        self._renewal_sent = self._renewed = _now()
        self._on: set[str] = set()
        """The faults that are on by what was published last."""

        self._unsaved: dict[str, Fault] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, *, adopted: bool) -> None:
        """Restore what an earlier Executor has left, and have Envoy started. Raises `EnvoyError`.

        `adopted`: whether its Envoy is still there.
        """
        self._restore(adopted=adopted)
        wanted = self._wanted()
        await self._control.start(self._table.configuration(wanted), runtime_layer(wanted))
        if not adopted:
            await self._envoy.start()
        await self._control.taken()
        self._renewal_sent = self._renewed = _now()
        self._on = {fault.apply_id for fault in wanted}
        self._save()

    async def run(self) -> None:
        """Begin and end faults, and renew those that are on. Runs until cancelled."""
        while True:
            await self._until_something_is_due()
            try:
                async with self._changing:
                    await self._advance()
            except EnvoyError as exc:
                logger.error("Envoy does not take what it should have, trying again: %s", exc)  # noqa: TRY400
                await asyncio.sleep(WATCH_EVERY_S)

    async def watch(self) -> None:
        """Read the log, and start Envoy again if it has ended. Runs until cancelled."""
        while True:
            await asyncio.sleep(WATCH_EVERY_S)
            try:
                await self._look_after()
            except (EnvoyError, OSError, TimeoutError):
                logger.exception("Envoy is in trouble")

    async def apply(self, request: FaultApply, key: str | None, not_after: datetime | None = None) -> Fault:
        """Inject the fault; it is on when this returns. The same request with the same key is one fault.

        Raises `ConflictError`, `KeyReusedError`, `TooManyFaultsError`, `EnvoyError`, and `TooLateError` after
        `not_after`.
        """
        fault = self._faults.repeated(key, request)
        if fault is None:
            refuse_after(not_after, _now())
            fault = self._faults.add(request, key, _now(), not_after)
            self._begun[fault.apply_id] = asyncio.get_running_loop().create_future()
            self._wake.set()
        begun = self._begun.get(fault.apply_id)
        if begun is not None:
            await asyncio.shield(begun)
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
        if (begun := self._begun.get(fault.apply_id)) is not None:
            await asyncio.wait([begun])
        if fault.active:
            fault.stopping = True
            ended = self._ended.setdefault(fault.apply_id, asyncio.get_running_loop().create_future())
            self._wake.set()
            try:
                async with asyncio.timeout(ENDED_WITHIN_S):
                    await asyncio.shield(ended)
            except TimeoutError as exc:
                raise EnvoyError("Envoy does not answer") from exc
        with suppress(TimeoutError):
            async with asyncio.timeout(LOGGED_WITHIN_S):
                while not fault.arrivals_known:
                    await asyncio.sleep(LOOK_EVERY_S)
                    self._look()

    async def end_all(self) -> list[Fault]:
        """Take all faults away; those that were there. Raises `EnvoyError`."""
        active = self._faults.active()
        await asyncio.gather(*(self.end(fault) for fault in active))
        return active

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

    async def close(self) -> None:
        """Keep what is known. Nothing is looked at any more."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._look()
        self._save()

    def _restore(self, *, adopted: bool) -> None:
        stored, now = self._store.read(), _now()
        self._log.restore(stored.position)
        lapsed = min(now, stored.renewed_at + KEPT_FOR) if stored.renewed_at else now
        for fault in stored.faults:
            if fault.active and not adopted:
                fault.break_off(lapsed, "Envoy ended while the Executor was away")
            elif fault.active and (not fault.in_force or now > lapsed - MARGIN):
                fault.lapse(lapsed)
            elif fault.active:
                fault.doubt = RESTARTED
            self._faults.restore(fault)
            self._unsaved[fault.apply_id] = fault

    async def _until_something_is_due(self) -> None:
        due = min([self._renewed + RENEW_AFTER, *(fault.planned_end for fault in self._in_force())])
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, (due - _now()).total_seconds())):
                await self._wake.wait()
        self._wake.clear()

    async def _advance(self) -> None:
        """Have Envoy inject what it should inject at this moment, and no more."""
        if _now() > self._renewal_sent + KEPT_FOR - MARGIN:
            self._lapse()
        begins = self._pending()
        try:
            await self._change(begins)
        except RefusedError as exc:
            for fault in begins:  # one that Envoy refuses does not keep the others from beginning
                await self._begin_alone(fault, exc if len(begins) == 1 else None)
        except EnvoyError as exc:
            for fault in begins:
                self._fail(fault, exc)
            raise

    async def _begin_alone(self, fault: Fault, refused: RefusedError | None) -> None:
        try:
            if refused is not None:
                raise refused
            await self._change([fault])
        except EnvoyError as exc:
            self._fail(fault, exc)

    async def _change(self, begins: Sequence[Fault]) -> None:
        """Begin these faults, end those whose time is over, and renew the others. Raises `EnvoyError`."""
        goes_on = [fault for fault in self._in_force() if fault.wanted(_now())]
        ends = [fault for fault in self._in_force() if not fault.wanted(_now())]
        if begins:
            await self._control.renew()  # an Envoy that does not answer begins nothing
            begins = self._in_time(begins)
        wanted = [*goes_on, *begins]
        on = {fault.apply_id for fault in wanted}
        self._save(*begins)  # otherwise an Executor that is restarted would not know of them
        sent = _now()
        if begins:
            await self._control.publish(self._table.configuration(wanted), runtime_layer(wanted))
        elif on != self._on:
            await self._control.publish(None, runtime_layer(wanted))
        else:
            await self._control.renew()
        self._renewal_sent, self._renewed, self._on = sent, _now(), on
        self._have_begun(begins)
        self._have_ended(ends, self._renewed)
        self._save(*begins, *ends)

    def _have_begun(self, begins: Sequence[Fault]) -> None:
        for fault in begins:
            fault.begin(self._renewed)
            if fault.not_after is not None and fault.start_time > fault.not_after:
                fault.stopping = True  # its apply is refused once it is taken away
                self._wake.set()
            else:
                _resolve(self._begun.pop(fault.apply_id, None))

    def _have_ended(self, ends: Sequence[Fault], now: datetime) -> None:
        for fault in ends:
            fault.end_time = fault.end_time or now
            _resolve(self._ended.pop(fault.apply_id, None))
            self._in_time([fault] if fault.apply_id in self._begun else [])
        if ends:
            task = asyncio.create_task(self._know_arrivals(ends))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _lapse(self) -> None:
        """Envoy has dropped all faults, or is about to, because it was not renewed in time."""
        lapsed = self._renewed + KEPT_FOR
        faults = self._in_force()
        logger.error("Envoy was not renewed in time: %d faults have lapsed", len(faults))
        for fault in faults:
            fault.lapse(min(lapsed, _now()))
        self._have_ended(faults, lapsed)

    def _pending(self) -> list[Fault]:
        return [fault for fault in self._faults.active() if not fault.in_force]

    def _in_force(self) -> list[Fault]:
        return [fault for fault in self._faults.active() if fault.in_force]

    def _wanted(self) -> list[Fault]:
        return [fault for fault in self._in_force() if fault.wanted(_now())]

    def _in_time(self, pending: Sequence[Fault]) -> list[Fault]:
        """Those that may still begin."""
        in_time = []
        for fault in pending:
            try:
                refuse_after(fault.not_after, _now())
            except TooLateError as exc:
                self._fail(fault, exc)
            else:
                in_time.append(fault)
        return in_time

    def _fail(self, fault: Fault, error: Exception) -> None:
        """The fault does not begin, and its key may be used again."""
        self._faults.drop(fault)
        self._store.save(gone=[fault])
        _resolve(self._begun.pop(fault.apply_id, None), error)

    async def _know_arrivals(self, ended: Sequence[Fault]) -> None:
        """Read the log past the faults' end. If Envoy does not write it in time, `watch` tries again."""
        try:
            mark = await self._envoy.mark_log()
            async with asyncio.timeout(LOGGED_WITHIN_S):
                while self._log.read_to_mark < mark:
                    await asyncio.sleep(LOOK_EVERY_S)
                    self._read_log()
        except (EnvoyError, TimeoutError) as exc:
            logger.warning("the requests of %d faults are not known yet: %s", len(ended), exc)
            return
        for fault in ended:
            fault.arrivals_known = True
            self._unsaved[fault.apply_id] = fault

    async def _look_after(self) -> None:
        self._look()
        if not self._envoy.alive:
            async with self._changing:
                await self._start_again()
        for news in await self._log.rotate(self._envoy):
            self._count(news)
        unknown = [fault for fault in self._faults.unsettled() if not (fault.active or fault.arrivals_known)]
        if unknown and not self._tasks:
            await self._know_arrivals(unknown)

    async def _start_again(self) -> None:
        """Envoy has ended, and every fault with it."""
        logger.error("Envoy has ended by itself: starting it again, without faults")
        for fault in self._faults.unsettled():
            if fault.apply_id not in self._begun:
                fault.break_off(_now(), "Envoy ended by itself while the fault was on")
                self._unsaved[fault.apply_id] = fault
                _resolve(self._ended.pop(fault.apply_id, None))
        self._control.begin_with(self._table.configuration([]), runtime_layer([]))
        await self._envoy.start()
        await self._control.taken()
        self._renewal_sent = self._renewed = _now()

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
        self._unsaved[fault.apply_id] = fault
        if isinstance(news, Arrival):
            if fault.arrivals_known:
                logger.warning("a request met fault %s after its end: %s", fault.apply_id, news.line)
            fault.tally.begin(news)
        else:
            fault.tally.end(news)

    def _save(self, *faults: Fault) -> None:
        """Keep these faults, and all that has changed, with the place in the log up to which it was read."""
        self._unsaved.update((fault.apply_id, fault) for fault in faults)
        self._store.save(
            self._unsaved.values(),
            gone=self._faults.forgotten(),
            position=self._log.position,
            renewed_at=self._renewed,
        )
        self._unsaved.clear()


def _resolve(waiting: asyncio.Future[None] | None, error: Exception | None = None) -> None:
    if waiting is None or waiting.done():
        return
    if error is None:
        waiting.set_result(None)
    else:
        waiting.set_exception(error)
        waiting.exception()  # it is not missed if there is no caller any more


def _now() -> datetime:
    return datetime.now(UTC)
