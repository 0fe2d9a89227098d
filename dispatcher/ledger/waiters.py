"""What carries waits out: `Waiter` in the calling thread, `AsyncWaiter` in an event loop.

Both wait out trouble with Redis in pauses that grow to `LONGEST_PAUSE_SEC`. Redis never blocks a request for
longer than a slice. Then the wait checks whether its plans are still known: callers learn within seconds that
plans are lost.
"""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, TypeVar

import redis
from redis.backoff import EqualJitterBackoff

from dispatcher.errors import CLOSED, DispatcherClosedError
from dispatcher.ledger.connection import (
    RedisErrors,
    impatient_client,
    impatient_timeout_s,
    is_trouble,
    patient_client,
    replies_of,
    reply_of,
)
from dispatcher.ledger.exchanges import Send, drive, drive_async, send_over
from dispatcher.ledger.waits import Block

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatcher.ledger.line import AsyncLine
    from dispatcher.ledger.waits import Request, Wait
    from dispatcher.settings.settings import Settings

__all__ = ["SHORTEST_BLOCK_SEC", "AsyncWaiter", "Waiter", "longest_slice_s"]

T = TypeVar("T")

AWAY_SEC = 60.0
"""How long Redis may be away before waiters give up."""

SLICE_SEC = 2.0
"""The longest that Redis blocks a request."""

SHORTEST_BLOCK_SEC = 0.01
"""Redis before 7.0.8 takes less for no limit at all (redis issue 11688)."""

ASK_AGAIN_SEC = 0.25
"""In asyncio no command blocks, because all share one connection. It is sent again after this."""

LONGEST_PAUSE_SEC = 2.0
MOST_DOUBLINGS = 8
"""After which the pause has long been the longest."""


def longest_slice_s(settings: Settings) -> float:
    """After how many seconds waiters check at the latest whether their plans are still known."""
    return min(SLICE_SEC, settings.redis_timeout_sec / 2)


class _Patience:
    """How long a wait goes on, and how long it pauses while Redis is in trouble."""

    def __init__(self, settings: Settings, timeout_sec: float | None) -> None:
        self._give_up_at = time.monotonic() + (math.inf if timeout_sec is None else timeout_sec)
        self._errors = RedisErrors(settings.redis_address)
        self._slice_s = longest_slice_s(settings)
        self._grace_s = impatient_timeout_s(settings)
        self._hurry_s = 2 * settings.redis_timeout_sec + self._slice_s
        self._backoff = EqualJitterBackoff(LONGEST_PAUSE_SEC, base=0.1)
        self._troubles = 0
        self._away_since: float | None = None

    @property
    def left_s(self) -> float:
        """How much time the wait has left."""
        return max(0.0, self._give_up_at - time.monotonic())

    @property
    def reply_within_s(self) -> float | None:
        """How long a reply may take. None if the wait has no limit."""
        return None if self._give_up_at == math.inf else self.left_s + self._grace_s

    @property
    def hurries(self) -> bool:
        """Whether a Redis that hangs would hold up the wait for longer than it may last."""
        return self.left_s < self._hurry_s

    def words(self, request: Block) -> Sequence[Any]:
        """The command to send."""
        seconds = min(self.left_s, self._grace_s / 2 if self.hurries else self._slice_s)
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
        if not _only_refused(request, error):
            self._away_since = self._away_since or now
            if not is_trouble(error) or now >= min(self._give_up_at, self._away_since + AWAY_SEC):
                raise self._errors.translate(error) from error
        self._troubles = min(self._troubles + 1, MOST_DOUBLINGS)
        return min(self._backoff.compute(self._troubles), self.left_s)


class Waiter:
    """Carries waits out in the calling thread."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._errors = RedisErrors(settings.redis_address)
        self._client = patient_client(settings)
        self._hasty_client = impatient_client(settings)
        self._closed = 0

    def wait(self, wait: Wait[T], timeout_sec: float | None = 0) -> T:
        """What the wait ends with.

        Raises `LedgerUnavailableError` if Redis is away until `timeout_sec` have passed, or for a minute;
        `DispatcherClosedError` if another thread closes the dispatcher.
        """
        patience, closed = _Patience(self._settings, timeout_sec), self._closed
        with self._errors:
            return drive(wait, lambda request: self._reply(request, patience, closed))

    def close(self) -> None:
        """End the waits of other threads within a slice, and close the connections."""
        self._closed += 1
        self._client.close()
        self._hasty_client.close()

    def _reply(self, request: Request, patience: _Patience, closed: int) -> Any:
        while self._closed == closed:
            client = self._hasty_client if patience.hurries else self._client
            try:
                reply = _without_trouble(send_over(client, _send(request, patience)))
            except redis.RedisError as exc:
                time.sleep(patience.pause_s(request, exc))
                if _only_refused(request, exc):
                    return None
            else:
                patience.replied(request)
                return reply if isinstance(request, Send) else replies_of(reply)[0]
        for client in (self._client, self._hasty_client):  # redis-py has connected this wait again
            client.connection_pool.disconnect(inuse_connections=False)
        raise DispatcherClosedError(CLOSED)


class AsyncWaiter:
    """Carries waits out in an event loop, over the line that all its tasks share."""

    def __init__(self, line: AsyncLine, settings: Settings) -> None:
        self._line = line
        self._settings = settings
        self._errors = RedisErrors(settings.redis_address)

    async def wait(self, wait: Wait[T], timeout_sec: float | None = 0) -> T:
        """`Waiter.wait`, for asyncio."""
        patience = _Patience(self._settings, timeout_sec)
        with self._errors:
            return await drive_async(wait, lambda request: self._reply(request, patience))

    async def _reply(self, request: Request, patience: _Patience) -> Any:
        if isinstance(request, Block):
            await asyncio.sleep(min(ASK_AGAIN_SEC, patience.left_s))
            return None
        while True:
            try:
                async with asyncio.timeout(patience.reply_within_s):
                    replies = _without_trouble(await self._line.send(request))
            except (redis.RedisError, TimeoutError) as exc:
                error = exc if isinstance(exc, redis.RedisError) else redis.TimeoutError("no reply in time")
                await asyncio.sleep(patience.pause_s(request, error))
            else:
                patience.replied(request)
                return replies


def _send(request: Request, patience: _Patience) -> Send:
    return request if isinstance(request, Send) else Send([patience.words(request)])


def _without_trouble(replies: list[Any]) -> list[Any]:
    """The replies. Raises the first that is trouble with Redis; other errors are the caller's."""
    for reply in replies:
        if isinstance(reply, redis.ResponseError) and is_trouble(reply):
            raise reply
    return replies


def _only_refused(request: Request, error: redis.RedisError) -> bool:
    """Whether Redis is there, and only does not block for now."""
    return isinstance(request, Block) and is_trouble(error) and reply_of(error) is not None
