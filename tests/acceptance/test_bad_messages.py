"""Messages with broken bodies, in the queue of a real worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis
from support.eventually import eventually
from support.plans import abort_plan

from campaigns.chaos.bad_messages import BODIES, message
from dispatcher.tasks.messages import RUN_PLAN

if TYPE_CHECKING:
    from support.processes import Workers
    from support.stub_executor import StubExecutor

    from dispatcher import Dispatcher

QUEUE = "dispatcher"
OFTEN = 3


@pytest.mark.parametrize("task", [RUN_PLAN, "celery.accumulate"])
def test_a_message_with_a_broken_body_is_dropped_and_costs_no_reconnection(
    start: Workers, stub: StubExecutor, dispatcher: Dispatcher, redis_url: str, task: str
) -> None:
    worker = start(stub.url)
    with redis.Redis.from_url(redis_url) as client:
        client.lpush(QUEUE, *[message(task, QUEUE, body) for body in BODIES * OFTEN])
        handle = dispatcher.submit(abort_plan())  # its message comes last
        assert handle.result(timeout=30).status_code == 503
        eventually(lambda: client.llen(QUEUE) == 0, within_s=10)
    assert worker.alive()
    assert "Connection to broker lost" not in worker.output
