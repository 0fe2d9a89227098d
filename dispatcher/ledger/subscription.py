"""The subscriptions of one connection to channels of results (`Subscription`)."""

from __future__ import annotations

import asyncio
import itertools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import redis.asyncio

__all__ = ["Subscription"]

MESSAGES_IN_A_ROW = 50
"""After which other tasks have their turn."""

CONFIRMED_TOGETHER = 200
"""Plans whose subscriptions are confirmed are looked up together, so many at the most."""


class Subscription:
    """Subscribes to the channels of plans, and reads what is published there in a background task."""

    def __init__(
        self, client: redis.asyncio.Redis, on_message: Callable[[str, str], None], wake: Callable[[], None]
    ) -> None:
        """`on_message` gets the id of a plan, and what was published on its channel.

        `wake` is called once plans are confirmed, and once the connection has broken.
        """
        self._pubsub = client.pubsub()
        self._on_message = on_message
        self._wake = wake
        self._plan_of: dict[str, str] = {}
        self._asked: set[str] = set()
        self._confirmed: set[str] = set()
        self._settled: frozenset[str] = frozenset()
        self._reader: asyncio.Task[None] | None = None

    @property
    def plan_ids(self) -> list[str]:
        """The plans whose channels are subscribed to, or will be once that is confirmed."""
        return list(self._plan_of.values())

    async def add(self, channels: Mapping[str, str]) -> None:
        """Subscribe to channels, each with the id of its plan. Raises `redis.RedisError`."""
        self._plan_of.update(channels)
        self._asked.update(channels)
        await self._pubsub.subscribe(*channels)
        if self._reader is None:
            self._reader = asyncio.create_task(self._read())
            self._reader.add_done_callback(lambda _: self._wake())

    async def remove(self, channels: Mapping[str, str]) -> None:
        """End subscriptions, given by id of plan and channel. Raises `redis.RedisError`."""
        for channel in channels.values():
            self._plan_of.pop(channel, None)
        await self._pubsub.unsubscribe(*channels.values())

    def raise_error(self) -> None:
        """Raises the `redis.RedisError` that ended the connection, if one did."""
        if self._reader is not None and self._reader.done():
            self._reader.result()

    def take_confirmed(self) -> set[str]:
        """The plans whose subscriptions were confirmed since the last call. Later ends cannot be missed."""
        confirmed, self._confirmed = self._confirmed, set()
        return confirmed

    def settled(self) -> frozenset[str]:
        """The plans that were subscribed to when this was called last: messages announce their ends."""
        settled = self._settled
        self._settled = frozenset(
            plan for channel, plan in self._plan_of.items() if channel not in self._asked
        )
        return settled

    async def rest(self, most_kept: int) -> None:
        """Read no longer. The connection stays, unless it has more subscriptions than `most_kept`."""
        await self._stop_reading()
        if len(self._plan_of) > most_kept:
            await self.aclose()

    async def aclose(self) -> None:
        """Close the connection. The next subscription opens another."""
        await self._stop_reading()
        await self._pubsub.aclose()  # type: ignore[no-untyped-call]
        self._plan_of.clear()
        self._asked.clear()
        self._confirmed.clear()
        self._settled = frozenset()

    async def _stop_reading(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.cancel()
            await asyncio.gather(
                reader, return_exceptions=True
            )  # its error, if any, was raised or is too late

    async def _read(self) -> None:
        for number in itertools.count(1):
            message = await self._pubsub.get_message(timeout=None)
            if message is not None:
                self._take(message["type"], message["channel"], message["data"])
            if number % MESSAGES_IN_A_ROW == 0:
                await asyncio.sleep(0)

    def _take(self, kind: str, channel: str, data: str) -> None:
        plan_id = self._plan_of.get(channel)
        if plan_id is None:
            return
        if kind == "message":
            self._on_message(plan_id, data)
        elif kind == "subscribe":
            self._asked.discard(channel)
            self._confirmed.add(plan_id)
            if not self._asked or len(self._confirmed) >= CONFIRMED_TOGETHER:
                self._wake()
