"""How to wait for plans to end, written once for threads and for asyncio.

Each wait is a generator: it yields a Redis command and is sent the answer. `Waiter` and `AsyncWaiter` carry
the commands out. A command never blocks for longer than a slice, after which the wait looks whether its plans
are still known: a caller hears of lost plans within seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, TypeVar, cast

import redis.asyncio
from redis.asyncio.retry import Retry as AsyncRetry

from dispatcher.errors import LedgerUnavailableError
from dispatcher.ledger import RedisErrors, connection_options
from dispatcher.models import PlanState

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dispatcher.ledger import Ledger
    from dispatcher.settings import Settings

__all__ = [
    "PAGE",
    "AsyncWaiter",
    "Wait",
    "Waiter",
    "completions",
    "end_of",
    "first_of",
    "pages",
    "value_of",
    "values_of",
]

T = TypeVar("T")
Wait = Generator[list[Any], Any, T]
"""A wait that ends with a `T`."""

AWAY_SEC = 60.0
"""How long Redis may be away before those who wait give up."""

PAGE = 500
"""How many plans one command is about."""


def end_of(ledger: Ledger, plan_id: str, timeout_sec: float | None) -> Wait[PlanState | None]:
    """Wait until the plan ends, or `timeout_sec` have passed; its state then. None where nobody knows it."""
    give_up_at = time.monotonic() + (math.inf if timeout_sec is None else timeout_sec)
    ended = ledger.ended_key(plan_id)
    while True:
        state = yield ["HGET", ledger.plan_key(plan_id), "state"]
        left = give_up_at - time.monotonic()
        if state is None:
            return None
        if PlanState(state).final or left <= 0:
            return PlanState(state)
        # The element goes round to the other end of its list, where it stays for others who wait.
        yield ["BLMOVE", ended, ended, "LEFT", "LEFT", max(min(left, ledger.slice_s), 0.001)]


def completions(
    ledger: Ledger, batch: str, place: str, pending: Sequence[str], timeout_sec: float
) -> Wait[tuple[str, list[str]]]:
    """Wait until more of a batch has ended: the ids after `place` in its stream, and the new place.

    Plans that nobody knows any more have ended too. No ids once `timeout_sec` have passed.
    """
    give_up_at = time.monotonic() + timeout_sec
    key = ledger.completions_key(batch)
    while True:
        left = give_up_at - time.monotonic()
        block_ms = max(1, round(min(left, ledger.slice_s) * 1000))
        answer = yield ["XREAD", "COUNT", PAGE, "BLOCK", block_ms, "STREAMS", key, place]
        entries = _entries(answer)
        if entries:
            return entries[-1][0], [fields["id"] for _, fields in entries]
        lost = yield from _unknown(ledger, pending)
        if lost or left <= 0:
            return place, lost


def first_of(ledger: Ledger, key: str, timeout_sec: float) -> Wait[str | None]:
    """The first element of the list under `key`, where it stays. None once `timeout_sec` have passed."""
    give_up_at = time.monotonic() + timeout_sec
    while True:
        left = give_up_at - time.monotonic()
        found: str | None = yield ["BLMOVE", key, key, "LEFT", "LEFT", max(min(left, ledger.slice_s), 0.001)]
        if found is not None or left <= 0:
            return found


def value_of(key: str) -> Wait[str | None]:
    """What is stored under `key`."""
    value: str | None = yield ["GET", key]
    return value


def values_of(keys: Sequence[str]) -> Wait[list[str | None]]:
    """What is stored under each of `keys`."""
    values: list[str | None] = []
    for page in pages(keys):
        values += yield ["MGET", *page]
    return values


def pages(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """The items, as many at a time as one command should be about."""
    for start in range(0, len(items), PAGE):
        yield items[start : start + PAGE]


class _Patience:
    """With a Redis that is away: as long as the caller would wait anyway, but not for ever."""

    def __init__(self, timeout_sec: float | None) -> None:
        self._give_up_at = time.monotonic() + (math.inf if timeout_sec is None else timeout_sec)
        self._away_since: float | None = None

    def answered(self) -> None:
        """Redis is there."""
        self._away_since = None

    def ends(self) -> bool:
        """Redis did not answer once more. Whether that was once too often."""
        now = time.monotonic()
        self._away_since = self._away_since or now
        return now >= min(self._give_up_at, self._away_since + AWAY_SEC)


class Waiter:
    """Carries waits through in the calling thread."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def wait(self, wait: Wait[T], timeout_sec: float | None = 0) -> T:
        """What the wait ends with.

        Raises `LedgerUnavailableError` where Redis is away until `timeout_sec` have passed, or too long.
        """
        patience, answer = _Patience(timeout_sec), None
        while True:
            try:
                command = wait.send(answer)
            except StopIteration as stop:
                return cast("T", stop.value)
            answer = self._answer(command, patience)

    def _answer(self, command: list[Any], patience: _Patience) -> Any:
        while True:
            try:
                answer = self._ledger.execute(command)
            except LedgerUnavailableError:
                if patience.ends():
                    raise
            else:
                patience.answered()
                return answer


class AsyncWaiter:
    """Carries waits through in the running event loop, each over a connection of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def wait(self, wait: Wait[T], timeout_sec: float | None = 0) -> T:
        """`Waiter.wait`, for asyncio."""
        url = self._settings.redis_url.get_secret_value()
        patience, answer = _Patience(timeout_sec), None
        async with redis.asyncio.Redis.from_url(
            url, **connection_options(self._settings, AsyncRetry)
        ) as client:
            while True:
                try:
                    command = wait.send(answer)
                except StopIteration as stop:
                    return cast("T", stop.value)
                answer = await self._answer(client, command, patience)

    async def _answer(self, client: redis.asyncio.Redis, command: list[Any], patience: _Patience) -> Any:
        while True:
            try:
                with RedisErrors(self._settings.redis_address):
                    answer = await client.execute_command(*command)  # type: ignore[no-untyped-call]
            except LedgerUnavailableError:
                if patience.ends():
                    raise
            else:
                patience.answered()
                return answer


def _unknown(ledger: Ledger, plan_ids: Sequence[str]) -> Wait[list[str]]:
    """Those of the plans that nobody knows. Asks about each only where some are missing."""
    unknown: list[str] = []
    for page in pages(plan_ids):
        known = yield ["EXISTS", *map(ledger.plan_key, page)]
        if known < len(page):
            for plan_id in page:
                exists = yield ["EXISTS", ledger.plan_key(plan_id)]
                unknown += [] if exists else [plan_id]
    return unknown


def _entries(answer: Any) -> list[tuple[str, dict[str, str]]]:
    """The entries in an answer to XREAD of one stream."""
    for _, entries in answer or []:
        return list(entries)
    return []
