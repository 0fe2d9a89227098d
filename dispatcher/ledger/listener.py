"""The one place of an event loop that waits for plans to end (`Listener`), however many are awaited.

The ledger publishes each result under the key of that result. The listener subscribes to the keys of all
awaited plans over one connection. Each plan is looked up once its subscription is confirmed, and again in
each slice: so a lost message or connection only delays a result, and a wiped Redis is noticed.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from typing import TYPE_CHECKING, Self

import redis

from dispatcher.errors import CLOSED, DispatcherClosedError, ExecutorClientError
from dispatcher.ledger.connection import RedisErrors, is_trouble
from dispatcher.ledger.subscription import Subscription
from dispatcher.ledger.waiters import longest_slice_s
from dispatcher.ledger.waits import End, ended_among, results_or_states
from dispatcher.models import PlanState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from redis.asyncio import Redis

    from dispatcher.ledger.ledger import Ledger
    from dispatcher.ledger.waiters import AsyncWaiter
    from dispatcher.settings.settings import Settings

__all__ = ["Listener", "Watch"]

PAGE = 200
"""How many plans one command is about: more would hold up the loop while replies are read."""

MOST_LEFT_OVER = 100
"""Subscriptions that are no longer needed are ended together, once there are so many."""

FIRST_PAUSE_SEC = 0.1
LONGEST_PAUSE_SEC = 2.0
"""Between attempts to subscribe again. There is none before the first."""

logger = logging.getLogger(__name__)


class Watch:
    """Waits for the ends of some plans. Use it as a context manager: its end frees its place."""

    def __init__(self, listener: Listener, plan_ids: Iterable[str]) -> None:
        self.plan_ids = list(plan_ids)
        self._listener = listener
        self._ended: dict[str, End] = {}
        self._error: ExecutorClientError | None = None
        self._arrived = asyncio.Event()

    def __enter__(self) -> Self:
        self._listener.add(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.remove(self)

    async def ends(self, timeout_sec: float | None) -> dict[str, End]:
        """How plans have ended since the last call, waiting for the first one.

        Empty once `timeout_sec` have passed. Raises `LedgerUnavailableError`, `DispatcherClosedError`.
        """
        try:
            async with asyncio.timeout(None if timeout_sec == math.inf else timeout_sec):
                await self._arrived.wait()
        except TimeoutError:
            return {}
        if self._error is not None and not self._ended:
            raise self._error.saying(self._error.message) from self._error
        if self._error is None:
            self._arrived.clear()
        ended, self._ended = self._ended, {}
        return ended

    def on_end(self, plan_id: str, end: End) -> None:
        """A plan has ended."""
        self._ended[plan_id] = end
        self._arrived.set()

    def on_error(self, error: ExecutorClientError) -> None:
        """No more ends will come."""
        self._error = error
        self._arrived.set()


class Listener:
    """Waits for the plans of all watches. One background task serves them while there are any."""

    def __init__(
        self,
        client: Redis,
        waiter: AsyncWaiter,
        ledger: Ledger,
        result_key: Callable[[str], str],
        settings: Settings,
        *,
        is_end: Callable[[str], bool],
    ) -> None:
        """`client` is for subscriptions, `waiter` for checks. `result_key` names a plan's result.

        `is_end` says whether a message is surely the result of a plan that has ended.
        """
        self._waiter = waiter
        self._ledger = ledger
        self._result_key = result_key
        self._is_end = is_end
        self._errors = RedisErrors(settings.redis_address)
        self._check_every_s = longest_slice_s(settings)
        self._check_at = 0.0
        self._watches: dict[str, list[Watch]] = {}
        self._new: dict[str, None] = {}
        self._unsure: set[str] = set()
        """Plans of which something else was published: they may have ended."""

        self._wanted = asyncio.Event()
        self._subscription = Subscription(client, self._on_message, self._wanted.set)
        self._failures = 0
        self._server: asyncio.Task[None] | None = None

    def watch(self, plan_ids: Iterable[str]) -> Watch:
        """A watch on these plans."""
        return Watch(self, plan_ids)

    def add(self, watch: Watch) -> None:
        """Begin to wait for the plans of a watch."""
        for plan_id in watch.plan_ids:
            self._watches.setdefault(plan_id, []).append(watch)
            self._new[plan_id] = None
        self._wanted.set()
        if self._watches and (self._server is None or self._server.done()):
            self._server = asyncio.create_task(self._serve())

    def remove(self, watch: Watch) -> None:
        """Wait no longer for the plans of a watch."""
        for plan_id in watch.plan_ids:
            left = [each for each in self._watches.get(plan_id, []) if each is not watch]
            if left:
                self._watches[plan_id] = left
            else:
                self._watches.pop(plan_id, None)
        if not self._watches:
            self._wanted.set()

    async def aclose(self) -> None:
        """End all watches with `DispatcherClosedError`, and close the connection."""
        if self._server is not None:
            self._server.cancel()
            await asyncio.wait([self._server])
        self._fail(DispatcherClosedError(CLOSED))
        await self._subscription.aclose()

    async def _serve(self) -> None:
        self._check_at = time.monotonic() + self._check_every_s
        try:
            while self._watches:
                await self._subscribe()
                await self._look_up_unsure()
                if time.monotonic() >= self._check_at:
                    await self._check_all()
                await self._pause()
                if not self._watches:
                    await self._subscription.rest(MOST_LEFT_OVER)
        except Exception as exc:  # noqa: BLE001 (all waiters raise it)
            defect = ExecutorClientError(f"waiting for plans failed: {exc!r}")
            self._fail(exc if isinstance(exc, ExecutorClientError) else defect)

    async def _subscribe(self) -> None:
        """Subscribe to what is new, over a new connection if the last one broke."""
        new = [plan_id for plan_id in self._new if plan_id in self._watches]
        self._new.clear()
        try:
            self._subscription.raise_error()
            for page in _pages(new):
                await self._subscription.add({self._result_key(plan_id): plan_id for plan_id in page})
        except redis.RedisError as exc:
            await self._subscribe_again(exc)

    async def _subscribe_again(self, error: redis.RedisError) -> None:
        """Begin again with all plans, after a pause. Raises what does not pass by itself."""
        await self._subscription.aclose()
        if not is_trouble(error):
            raise self._errors.translate(error) from error
        logger.info("subscribes again to the results of %d plans: %s", len(self._watches), error)
        await asyncio.sleep(min(self._failures * FIRST_PAUSE_SEC, LONGEST_PAUSE_SEC))
        self._failures += 1
        self._new = dict.fromkeys(self._watches)
        self._wanted.set()

    async def _look_up_unsure(self) -> None:
        """Look up plans that may have ended: before they were subscribed to, for example."""
        unsure, self._unsure = self._unsure | self._subscription.take_confirmed(), set()
        for page in _pages([each for each in unsure if each in self._watches]):
            self._failures = 0
            found = await self._waiter.wait(results_or_states(self._ledger, self._keys(page)), None)
            for plan_id, what in found.items():
                if not isinstance(what, PlanState) or what.final:
                    self._on_result(plan_id, what)

    async def _check_all(self) -> None:
        """Look up all plans: messages may have been lost, or Redis wiped."""
        expected = self._subscription.settled()
        missed = False
        for page in _pages(list(self._watches)):
            ended = await self._waiter.wait(ended_among(self._ledger, self._keys(page)), None)
            for plan_id, stored in ended.items():
                missed |= plan_id in self._watches and plan_id in expected
                self._on_result(plan_id, stored)
        if missed:
            await self._subscribe_again(redis.ConnectionError("its messages do not arrive"))
        else:
            await self._forget_ended()
        self._check_at = time.monotonic() + self._check_every_s

    async def _forget_ended(self) -> None:
        ended = [plan_id for plan_id in self._subscription.plan_ids if plan_id not in self._watches]
        if len(ended) >= MOST_LEFT_OVER:
            try:
                for page in _pages(ended):
                    await self._subscription.remove(self._keys(page))
            except redis.RedisError as exc:
                await self._subscribe_again(exc)

    async def _pause(self) -> None:
        """Wait until there is something to do, a check at the latest."""
        try:
            async with asyncio.timeout(max(0.0, self._check_at - time.monotonic())):
                await self._wanted.wait()
        except TimeoutError:
            pass
        self._wanted.clear()

    def _keys(self, plan_ids: Iterable[str]) -> dict[str, str]:
        return {plan_id: self._result_key(plan_id) for plan_id in plan_ids}

    def _on_message(self, plan_id: str, text: str) -> None:
        """Celery, too, publishes states under the key of a result. Only the ledger knows which is an end."""
        if self._is_end(text):
            self._on_result(plan_id, text)
        else:
            self._unsure.add(plan_id)
            self._wanted.set()

    def _on_result(self, plan_id: str, end: End) -> None:
        for watch in self._watches.pop(plan_id, []):
            watch.on_end(plan_id, end)
        if not self._watches:
            self._wanted.set()

    def _fail(self, error: ExecutorClientError) -> None:
        watches = {id(watch): watch for each in self._watches.values() for watch in each}
        self._watches.clear()
        self._new.clear()
        for watch in watches.values():
            watch.on_error(error)


def _pages(plan_ids: list[str]) -> Iterator[list[str]]:
    for start in range(0, len(plan_ids), PAGE):
        yield plan_ids[start : start + PAGE]
