"""Kombu's Redis transport, but that it fetches messages in bursts.

Kombu asks Redis for one message at a time, and waits for that in its event loop. Here it waits until there is
room for many, and fetches as many as the worker may hold with the first: one turn of the loop and two
exchanges for all of them, and work of one kind done in a row, which processors like.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis, virtual
from pydantic_core import from_json

__all__ = ["BurstChannel", "Transport", "fetch_in_bursts"]

LEAST_ROOM = 16
"""A worker that may hold so many messages more fetches some; one that may hold few does at half of them."""


class BurstQoS(virtual.QoS):
    """What a worker holds and may hold. Threads may acknowledge, and the event loop hears of it in time."""

    def can_consume(self) -> bool:
        most = self.prefetch_count
        room: int = self.can_consume_max_estimate() if most else LEAST_ROOM  # type: ignore[no-untyped-call]
        return room >= min(LEAST_ROOM, (most + 1) // 2)

    def ack(self, delivery_tag: str) -> None:
        super().ack(delivery_tag)  # type: ignore[no-untyped-call]
        if not self.channel.asks and self.can_consume():
            self.channel.connection.look_again()


class BurstChannel(redis.Channel):
    """Fetches what its prefetch limit leaves room for whenever a message has come.

    Its `ack_emulation` must be switched off in the transport's options.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)  # type: ignore[no-untyped-call]
        self.QoS = BurstQoS  # type: ignore[assignment]

    @property
    def asks(self) -> bool:
        """Whether it has asked Redis for a message."""
        return bool(self._in_poll)

    def _brpop_read(self, **options: Any) -> Any:
        read = super()._brpop_read(**options)  # type: ignore[no-untyped-call]
        for queue in self.active_queues:
            room = self.qos.can_consume_max_estimate()
            for message in self.client.rpop(queue, room) or () if room else ():
                self.connection._deliver(from_json(message), queue)  # noqa: SLF001 (as kombu's own)
        return read


class Transport(redis.Transport):
    """For `redis://` and `rediss://`."""

    Channel = BurstChannel
    _loop: Any = None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        super().register_with_event_loop(connection, loop)  # type: ignore[no-untyped-call]
        self._loop = loop

    def look_again(self) -> None:
        """Have the event loop see whether a channel is to ask for messages. From any thread."""
        if self._loop is not None:
            self._loop.call_soon(_nothing_besides)


def fetch_in_bursts() -> None:
    """Have this process use it wherever it connects to a Redis broker from now on."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"


def _nothing_besides() -> None:
    """A turn of the loop is all it takes."""
