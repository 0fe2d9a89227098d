"""Kombu's Redis transport, but that it fetches messages in bursts.

Kombu asks Redis for one message at a time, and waits for that in its event loop. Where many are there, as
many as the worker may hold are fetched with the first: one exchange for all of them, and work of one kind
done in a row, which processors like.
"""

from __future__ import annotations

from typing import Any

from kombu.transport import TRANSPORT_ALIASES, redis
from pydantic_core import from_json

__all__ = ["BurstChannel", "Transport", "fetch_in_bursts"]


class BurstChannel(redis.Channel):
    """Fetches what its prefetch limit leaves room for whenever a message has come."""

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


def fetch_in_bursts() -> None:
    """Have this process use it wherever it connects to a Redis broker from now on."""
    for scheme in ("redis", "rediss"):
        TRANSPORT_ALIASES[scheme] = f"{__name__}:{Transport.__name__}"
