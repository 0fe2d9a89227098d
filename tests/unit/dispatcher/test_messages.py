"""The messages of submitted plans, on a real broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery import signals

from dispatcher.tasks.app import make_celery
from dispatcher.tasks.messages import Publisher

if TYPE_CHECKING:
    from support.redis_server import RedisServer

    from dispatcher import Settings


def test_a_batch_binds_its_queue_once(settings: Settings, redis_server: RedisServer) -> None:
    declared: list[Any] = []

    def note(declare: list[Any], **_: Any) -> None:
        declared.extend(declare)

    with make_celery(settings) as app:
        publisher = Publisher(app)
        signals.before_task_publish.connect(note)
        try:
            assert publisher.send([(f"p{number}", "a plan") for number in range(3)])
        finally:
            signals.before_task_publish.disconnect(note)
            publisher.close()
    assert redis_server.client.llen(settings.queue) == 3
    assert [queue.name for queue in declared] == [settings.queue] * 3
    assert len({id(queue) for queue in declared}) == 1
    assert declared[0].is_bound
