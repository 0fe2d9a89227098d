"""How to wait for plans to end, written once for threads and for asyncio.

Each wait is a generator: it yields a request to Redis and is sent the reply. `Waiter` and `AsyncWaiter` send
the requests, and wait out trouble with Redis in pauses that grow to `LONGEST_PAUSE_SEC`. Redis never blocks a
request for longer than a slice, after which the wait looks whether its plans are still known: callers learn
within seconds that plans are lost.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import redis
from redis.backoff import EqualJitterBackoff

from dispatcher.errors import RecordUnreadableError
from dispatcher.ledger.connection import (
    RedisErrors,
    async_client,
    impatient_client,
    impatient_timeout_s,
    is_trouble,
    patient_client,
    reply_of,
)
from dispatcher.models import PlanState

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from dispatcher.ledger.ledger import Ledger
    from dispatcher.settings.settings import Settings

__all__ = [
    "PAGE",
    "AsyncWaiter",
    "Block",
    "Read",
    "Wait",
    "Waiter",
    "completions",
    "first_of",
    "pages",
    "result_of",
    "values_of",
]

T = TypeVar("T")

AWAY_SEC = 60.0
"""How long Redis may be away before waiting callers give up."""

SLICE_SEC = 2.0
"""The longest that Redis blocks a request."""

SHORTEST_BLOCK_SEC = 0.01
"""Redis before 7.0.8 takes less for no limit at all (redis issue 11688)."""

LONGEST_PAUSE_SEC = 2.0
MOST_DOUBLINGS = 8
"""After which the pause has long been the longest."""

PAGE = 500
"""How many plans one command is about."""


@dataclass(frozen=True, slots=True)
class Read:
    """A command that Redis answers at once, and writes nothing for."""

    words: Sequence[Any]


@dataclass(frozen=True, slots=True)
class Block:
    """A command that Redis answers once there is something, or with None after some seconds."""

    words: Callable[[float], Sequence[Any]]
    """The command, given those seconds."""


Request = Read | Block
Wait = Generator[Request, Any, T]
"""A wait that ends with a `T`."""


def result_of(
    ledger: Ledger, plan_id: str, result_key: str, timeout_sec: float | None
) -> Wait[tuple[PlanState | None, str | None]]:
    """Wait until the plan ends, or `timeout_sec` have passed; its state then, and its stored result.

    No state if the plan is unknown, whose result may be there even so.
    """
    give_up_at = time.monotonic() + (math.inf if timeout_sec is None else timeout_sec)
    while True:
        state = _state(plan_id, (yield Read(["HGET", ledger.plan_key(plan_id), "state"])))
        if state is None or state.final:
            result: str | None = yield Read(["GET", result_key])
            return state, result
        if time.monotonic() >= give_up_at:
            return state, None
        yield _first(ledger.ended_key(plan_id))


def completions(
    ledger: Ledger, batch: str, cursor: str, pending: Sequence[str], timeout_sec: float
) -> Wait[tuple[str, list[str]]]:
    """Wait until more of a batch has ended: the ids after `place` in its stream, and the new place.

    Plans that are unknown by now have ended too. No ids once `timeout_sec` have passed.
    """
    give_up_at = time.monotonic() + timeout_sec
    key = ledger.completions_key(batch)

    def words(seconds: float) -> list[Any]:
        return ["XREAD", "COUNT", PAGE, "BLOCK", round(seconds * 1000), "STREAMS", key, cursor]

    while True:
        entries = _entries((yield Block(words)))
        ids = [fields["id"] for _, fields in entries if "id" in fields]
        cursor = entries[-1][0] if entries else cursor
        if ids:
            return cursor, ids
        lost = yield from _unknown(ledger, pending)
        if lost or time.monotonic() >= give_up_at:
            return cursor, lost


def first_of(key: str, timeout_sec: float) -> Wait[str | None]:
    """The first element of the list under `key`, which stays there. None once `timeout_sec` have passed."""
    give_up_at = time.monotonic() + timeout_sec
    while True:
        found: str | None = yield Read(["LINDEX", key, 0])
        if found is not None or time.monotonic() >= give_up_at:
            return found
        yield _first(key)


def values_of(keys: Sequence[str]) -> Wait[list[str | None]]:
    """What is stored under each of `keys`."""
    values: list[str | None] = []
    for page in pages(keys):
        values += yield Read(["MGET", *page])
    return values


def pages(items: Sequence[str]) -> Iterator[Sequence[str]]:
    """The items, as many at a time as one command should be about."""
    for start in range(0, len(items), PAGE):
        yield items[start : start + PAGE]


class _Patience:
    """How long a wait goes on, and how long it pauses while Redis is in trouble."""

    def __init__(self, settings: Settings, timeout_sec: float | None) -> None:
        self._give_up_at = time.monotonic() + (math.inf if timeout_sec is None else timeout_sec)
        self._errors = RedisErrors(settings.redis_address)
        self._slice_s = min(SLICE_SEC, settings.redis_timeout_sec / 2)
        self._short_slice_s = impatient_timeout_s(settings) / 2
        self._hurry_s = 2 * settings.redis_timeout_sec + self._slice_s
        self._backoff = EqualJitterBackoff(LONGEST_PAUSE_SEC, base=0.1)
        self._troubles = 0
        self._away_since: float | None = None

    @property
    def left_s(self) -> float:
        """How much time the wait has left."""
        return max(0.0, self._give_up_at - time.monotonic())

    @property
    def hurries(self) -> bool:
        """Whether a Redis that hangs would hold up the wait for longer than it may last."""
        return self.left_s < self._hurry_s

    def words(self, request: Request) -> Sequence[Any]:
        """The command to send."""
        if isinstance(request, Read):
            return request.words
        seconds = min(self.left_s, self._short_slice_s if self.hurries else self._slice_s)
        return request.words(max(seconds, SHORTEST_BLOCK_SEC))

    def replied(self, request: Request) -> None:
        """Redis has answered."""
        self._away_since = None
        if isinstance(request, Block):
            self._troubles = 0

    def pause_s(self, request: Request, error: redis.RedisError) -> float:
        """How long to pause before asking again. Raises what ends the wait.

        While Redis refuses to block (it takes no writes, for example) the wait goes on by looking.
        """
        now = time.monotonic()
        if not refused(request, error):
            self._away_since = self._away_since or now
            if not is_trouble(error) or now >= min(self._give_up_at, self._away_since + AWAY_SEC):
                raise self._errors.translate(error) from error
        self._troubles = min(self._troubles + 1, MOST_DOUBLINGS)
        return min(self._backoff.compute(self._troubles), self.left_s)


def refused(request: Request, error: redis.RedisError) -> bool:
    """Whether Redis is there, and only does not block for now."""
    return isinstance(request, Block) and is_trouble(error) and reply_of(error) is not None


class Waiter:
    """Carries waits out in the calling thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._client = patient_client(settings)
        self._hasty_client = impatient_client(settings)

    def wait(self, wait: Wait[T], timeout_sec: float | None = 0) -> T:
        """What the wait ends with.

        Raises `LedgerUnavailableError` if Redis is away until `timeout_sec` have passed, or for a minute.
        """
        patience, reply = _Patience(self._settings, timeout_sec), None
        while True:
            try:
                request = wait.send(reply)
            except StopIteration as stop:
                return cast("T", stop.value)
            reply = self._reply(request, patience)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
        self._hasty_client.close()

    def _reply(self, request: Request, patience: _Patience) -> Any:
        while True:
            client = self._hasty_client if patience.hurries else self._client
            try:
                reply = client.execute_command(*patience.words(request))  # type: ignore[no-untyped-call]
            except redis.RedisError as exc:
                time.sleep(patience.pause_s(request, exc))
                if refused(request, exc):
                    return None
            else:
                patience.replied(request)
                return reply


class AsyncWaiter:
    """Carries waits out in the running event loop, each over a connection of its own."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def wait(self, wait: Wait[T], timeout_sec: float | None = 0) -> T:
        """`Waiter.wait`, for asyncio."""
        patience, reply = _Patience(self._settings, timeout_sec), None
        async with async_client(self._settings) as client:
            while True:
                try:
                    request = wait.send(reply)
                except StopIteration as stop:
                    return cast("T", stop.value)
                reply = await self._reply(client, request, patience)

    async def _reply(self, client: redis.asyncio.Redis, request: Request, patience: _Patience) -> Any:
        grace_s = impatient_timeout_s(self._settings)
        while True:
            try:
                async with asyncio.timeout(patience.left_s + grace_s):
                    reply = await client.execute_command(*patience.words(request))  # type: ignore[no-untyped-call]
            except (redis.RedisError, TimeoutError) as exc:
                error = exc if isinstance(exc, redis.RedisError) else redis.TimeoutError("no reply in time")
                await asyncio.sleep(patience.pause_s(request, error))
                if refused(request, error):
                    return None
            else:
                patience.replied(request)
                return reply


def _first(key: str) -> Block:
    """Wait for an element of a list. It goes round to the list's other end, for others who wait."""
    return Block(lambda seconds: ["BLMOVE", key, key, "LEFT", "LEFT", seconds])


def _state(plan_id: str, stored: str | None) -> PlanState | None:
    try:
        return None if stored is None else PlanState(stored)
    except ValueError as exc:
        message = f"plan {plan_id} cannot be read: this version knows no state {stored!r}"
        raise RecordUnreadableError(message, plan_id) from exc


def _unknown(ledger: Ledger, plan_ids: Sequence[str]) -> Wait[list[str]]:
    """Those of the plans that are unknown. Asks about each only if some are missing."""
    unknown: list[str] = []
    for page in pages(plan_ids):
        known = yield Read(["EXISTS", *map(ledger.plan_key, page)])
        if known < len(page):
            for plan_id in page:
                exists = yield Read(["EXISTS", ledger.plan_key(plan_id)])
                unknown += [] if exists else [plan_id]
    return unknown


def _entries(answer: Any) -> list[tuple[str, dict[str, str]]]:
    """The entries in an answer to XREAD of one stream."""
    for _, entries in answer or []:
        return list(entries)
    return []
