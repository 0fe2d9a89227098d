"""What a worker does not keep: texts that it has read, and the frames of attempts that failed."""

from __future__ import annotations

import sys
import weakref
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import jiter
import pytest
from billiard.einfo import ExceptionInfo
from celery.exceptions import Retry as CeleryRetry
from support.fake_driver import FakeDriver
from support.machine import NOW, QUEUED, RUNNING

from dispatcher import ExecutorClientConfig, ExecutorRejectedError, ExecutorServerError, Settings
from dispatcher.stored_errors import from_json, to_json
from dispatcher.tasks.messages import RUN_PLAN
from workers.drivers.answers import parse_json
from workers.engine.decisions import Fail, Retry
from workers.engine.gateway import Gateway
from workers.tasks.app import create_worker_app
from workers.tasks.run_plan import PlanRequest

if TYPE_CHECKING:
    from dispatcher import ExecutorClientError
    from dispatcher.ledger.record import PlanRecord

MANY = 1_000
DOWN = ExecutorServerError("down", 503, "")


def test_no_text_of_an_answer_is_kept() -> None:
    parse_json(b'{"apply_id": "first"}')
    before = jiter.cache_usage()
    for number in range(MANY):
        parse_json(b'{"apply_id": "fault %d"}' % number)
    assert jiter.cache_usage() == before


def test_no_text_of_a_stored_error_is_kept() -> None:
    stored = [to_json(ExecutorServerError(f"the call {number} failed", 503, "")) for number in range(MANY)]
    from_json(stored[0])
    before = sys.getallocatedblocks()
    for text in stored:
        from_json(text)
    assert sys.getallocatedblocks() - before < MANY / 2


@pytest.mark.parametrize(
    ("record", "error", "kind"),
    [
        (QUEUED, ExecutorServerError, Retry),
        (RUNNING.completed(), ExecutorServerError, Retry),
        (QUEUED, ExecutorRejectedError, Fail),
    ],
    ids=["an apply that is retried", "metrics that are asked for again", "an apply that was refused"],
)
def test_a_failed_attempt_is_freed_at_once_although_its_error_is_kept(
    record: PlanRecord, error: type[ExecutorClientError], kind: type[object]
) -> None:
    driver = FakeDriver()
    driver.trouble([error("no", 500, "")])
    gateway = Gateway.of("default", ExecutorClientConfig(), driver, poll_ms=500)
    calls = gateway.calls(record, NOW)
    alive = weakref.ref(calls)
    decision = gateway.advance(record, calls, None)
    del calls
    assert isinstance(decision, kind)
    assert alive() is None


@pytest.mark.parametrize("raised", [CeleryRetry(exc=DOWN), DOWN], ids=["a retry", "an error"])
def test_what_a_task_raised_is_freed_at_once(raised: Exception) -> None:
    with create_worker_app(Settings()) as app:
        request = request_of(app)
        seen = Seen()
        alive = weakref.ref(seen)
        info = info_of(raised, seen)
        del seen
        assert alive() is not None
        request.on_failure(info, return_ok=True)
        assert alive() is None


class Seen:
    """What a frame holds."""


def info_of(error: Exception, held: Seen) -> Any:
    """The error as Celery passes it on after it was raised in a frame that holds `held`."""
    try:
        assert held
        raise error
    except type(error):
        return ExceptionInfo()


def request_of(app: Any) -> PlanRequest:
    """A message that has arrived for a plan."""
    headers = {"id": "p1", "task": RUN_PLAN, "root_id": "p1", "parent_id": None}
    parts = {"properties": {}, "delivery_info": {}, "content_type": "application/json"}
    message = SimpleNamespace(headers=headers, body="", content_encoding="utf-8", **parts)
    return PlanRequest(
        message, app=app, task=app.tasks[RUN_PLAN], headers=headers, decoded=True, body=((), {}, {})
    )
