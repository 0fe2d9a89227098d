"""The messages of submitted plans, on a real broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from celery import signals
from pydantic import SecretStr

from dispatcher import Settings
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.messages import Publisher

if TYPE_CHECKING:
    from support.redis_server import RedisServer


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


@pytest.mark.parametrize(
    "url",
    [
        "sqla+nosuch://u:pa55@here/x",
        "amqp://u:pa55@here//?heartbeat=pa55",
        "slmq://u:pa55@here",
        "sentinel://u:pa55@127.0.0.1:1/0",
        "pyro://pa55@here/x",
    ],
)
def test_no_error_of_a_brokers_package_reaches_the_submitter(
    url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with make_celery(Settings(broker_url=SecretStr(url))) as app:
        assert not Publisher(app).send([("p1", "a plan")])
    [message] = caplog.messages
    assert "1 plans were submitted without messages, they begin later: " in message
    assert "pa55" not in message
