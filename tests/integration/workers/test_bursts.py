"""How many messages a worker fetches at once, from a real Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import kombu as _kombu
import pytest

from workers.bursts import Transport

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

kombu: Any = _kombu  # which ships no types
QUEUE = kombu.Queue("bursts", routing_key="bursts")
PREFETCH = 6


class Worker:
    """Takes messages, and acknowledges them when it is told to."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._held: list[Any] = []
        consumer = kombu.Consumer(connection.channel(), [QUEUE], on_message=self._held.append)
        consumer.qos(prefetch_count=PREFETCH)
        consumer.consume()

    def fetch(self) -> list[object]:
        """The messages that come next; they are held."""
        before = len(self._held)
        self._connection.drain_events(timeout=5)
        return [message.payload for message in self._held[before:]]

    def acknowledge(self, count: int) -> None:
        """So many of those that it holds."""
        for message in self._held[:count]:
            message.ack()
        del self._held[:count]


@pytest.fixture
def connection(redis_url: str) -> Iterator[Any]:
    with kombu.Connection(
        redis_url, transport=Transport, transport_options={"ack_emulation": False}
    ) as connection:
        yield connection


def send(connection: Any, *messages: int) -> None:
    with connection.Producer() as producer:
        for message in messages:
            producer.publish(message, routing_key=QUEUE.name, declare=[QUEUE], serializer="json")


def test_a_worker_fetches_at_once_what_it_may_hold_oldest_first_and_leaves_the_rest(
    connection: Any, real_redis: redis.Redis
) -> None:
    worker = Worker(connection)
    send(connection, *range(10))
    assert worker.fetch() == list(range(PREFETCH))
    assert real_redis.llen(QUEUE.name) == 10 - PREFETCH


def test_what_it_has_let_go_of_it_may_fetch_anew(connection: Any, real_redis: redis.Redis) -> None:
    worker = Worker(connection)
    send(connection, *range(10))
    worker.fetch()
    worker.acknowledge(3)
    assert worker.fetch() == [6, 7, 8]
    assert real_redis.llen(QUEUE.name) == 1


def test_a_single_message_is_a_burst_of_one(connection: Any) -> None:
    worker = Worker(connection)
    send(connection, 7)
    assert worker.fetch() == [7]
