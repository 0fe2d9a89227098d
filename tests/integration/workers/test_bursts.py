"""How many messages a worker fetches at once, from a real Redis."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

import kombu as _kombu
import pytest

from workers.bursts import LEAST_ROOM, Transport

if TYPE_CHECKING:
    from collections.abc import Iterator

    import redis

from kombu.asynchronous import Hub

pytestmark = pytest.mark.every_server

kombu: Any = _kombu  # which ships no types
QUEUE = kombu.Queue("bursts", routing_key="bursts")
PREFETCH = 6


class Worker:
    """Takes messages, and acknowledges them when it is told to."""

    def __init__(self, connection: Any, prefetch: int = PREFETCH) -> None:
        self._connection = connection
        self._held: list[Any] = []
        consumer = kombu.Consumer(connection.channel(), [QUEUE], on_message=self._held.append)
        consumer.qos(prefetch_count=prefetch)
        consumer.consume()

    def fetch(self, within_s: float = 5) -> list[object]:
        """The messages that come next, none if they do not in time; they are held."""
        before = len(self._held)
        with suppress(TimeoutError):
            self._connection.drain_events(timeout=within_s)
        return [message.payload for message in self._held[before:]]

    def acknowledge(self, count: int) -> None:
        """So many of those that it holds."""
        for message in self._held[:count]:
            message.ack()
        del self._held[:count]


class Loop(Hub):
    """An event loop that counts how often it is woken."""

    woken = 0

    def call_soon(self, callback: Any, *args: object) -> Any:
        self.woken += 1
        return super().call_soon(callback, *args)  # type: ignore[no-untyped-call]


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


def test_what_it_has_let_go_of_it_may_fetch_anew_once_that_is_half_of_all(
    connection: Any, real_redis: redis.Redis
) -> None:
    worker = Worker(connection)
    send(connection, *range(10))
    worker.fetch()
    worker.acknowledge(2)
    assert worker.fetch(within_s=0.1) == []
    worker.acknowledge(1)
    assert worker.fetch() == [6, 7, 8]
    assert real_redis.llen(QUEUE.name) == 1


def test_one_that_holds_very_many_until_later_fetches_others_all_the_same(connection: Any) -> None:
    worker = Worker(connection, prefetch=100)
    send(connection, *range(110))
    worker.fetch()
    worker.acknowledge(LEAST_ROOM - 1)
    assert worker.fetch(within_s=0.1) == []
    worker.acknowledge(1)
    assert worker.fetch() == list(range(100, 110))


def test_the_event_loop_hears_when_there_is_room_and_only_then(connection: Any) -> None:
    loop: Any = Loop()  # type: ignore[no-untyped-call]
    connection.register_with_event_loop(loop)
    worker = Worker(connection)
    send(connection, *range(PREFETCH))
    worker.fetch()
    worker.acknowledge(PREFETCH // 2 - 1)
    assert loop.woken == 0
    worker.acknowledge(1)
    assert loop.woken == 1


def test_a_single_message_is_a_burst_of_one(connection: Any) -> None:
    worker = Worker(connection)
    send(connection, 7)
    assert worker.fetch() == [7]
