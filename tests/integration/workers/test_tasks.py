"""The way from a message to a step, and what Celery and Flower hear of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from celery import Celery
from celery.concurrency.solo import TaskPool
from celery.exceptions import Reject
from celery.worker import state
from kombu.exceptions import DecodeError
from support.plans import abort_plan

from dispatcher import ExecutorServerError
from dispatcher.record import PlanRecord
from workers.tasks import RunPlan, StepRequest, receive_wake_ups
from workers.verdicts import Fail, Park, Retry, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

CAUSE = ExecutorServerError("down", 503, "")
RECORD = PlanRecord("p1", abort_plan(), "default", 1000, submitted_ms=0, due_ms=0)


class Steps:
    """Have a verdict ready for any plan, or a defect."""

    def __init__(self, verdict: Verdict | None, *, broken: bool = False) -> None:
        self.verdict = verdict
        self.broken = broken
        self.active: list[str] = []

    def take(self, plan_id: str, then: Callable[[Verdict], None]) -> None:
        """Also looks at what Celery takes to be under way."""
        self.active = [request.id for request in state.active_requests if request.id == plan_id]
        if self.broken:
            raise ZeroDivisionError
        if self.verdict is not None:
            then(self.verdict)


class Watcher:
    """Somebody who sees all events."""

    enabled = True

    def __init__(self, *, broken: bool = False) -> None:
        self.broken = broken
        self.seen: list[tuple[str, dict[str, object]]] = []

    def send(self, kind: str, **fields: object) -> None:
        """Like an event dispatcher's."""
        if self.broken and kind == "task-started":
            raise ConnectionError("no broker")
        self.seen.append((kind, fields))


class Wake:
    """One wake-up, from its message to its end."""

    def __init__(
        self,
        verdict: Verdict | None,
        *,
        sent: bool = True,
        broken: bool = False,
        unheard: bool = False,
        retries: int = 0,
    ) -> None:
        self.watcher, self.steps = Watcher(broken=unheard), Steps(verdict, broken=broken)
        self.retries: list[tuple[object, object, object]] = []
        app = Celery("test", set_as_current=False)
        self.task: Any = app.register_task(RunPlan(self.steps))  # type: ignore[arg-type]
        self.task.retry = self._retry_sent if sent else self._retry_lost
        headers = {"id": "p1", "task": self.task.name, "argsrepr": "a plan", "retries": retries}
        message = SimpleNamespace(
            headers=headers,
            body=b"",
            payload=(["p1"], {}, {}),
            content_type="application/json",
            content_encoding="utf-8",
            delivery_info={},
            properties={},
        )
        self.acknowledged = 0
        request = StepRequest(message, on_ack=self._ack, app=app, task=self.task, eventer=self.watcher)
        request.tell_received()
        pool = TaskPool()
        pool.start()
        request.execute_using_pool(pool)

    @property
    def events(self) -> list[str]:
        """What kinds of events were sent."""
        return [kind for kind, _ in self.watcher.seen]

    def _ack(self, *_: object) -> None:
        self.acknowledged += 1

    def _retry_sent(self, *, exc: object, countdown: object, throw: bool) -> None:
        assert not throw
        self.retries.append((self.task.request.id, exc, countdown))
        assert not self.task.request.called_directly

    def _retry_lost(self, **_: object) -> None:
        raise Reject(ConnectionError("no broker"), requeue=False)


def test_a_retry_is_celerys_own() -> None:
    wake = Wake(Retry(RECORD, 0.5, CAUSE))
    assert wake.retries == [("p1", CAUSE, 0.5)]
    assert wake.events == ["task-received", "task-started", "task-retried"]
    assert wake.task.request.id is None


def test_a_retry_that_cannot_be_sent_leaves_the_parked_plan_to_the_waker() -> None:
    wake = Wake(Retry(RECORD, 0.5, CAUSE), sent=False)
    assert wake.events == ["task-received", "task-started"]
    assert wake.task.request.id is None


def test_a_retry_that_waits_is_still_a_retry_for_flower() -> None:
    assert Wake(Park(RECORD, 1000), retries=1).events == ["task-started"]


def test_flower_hears_nothing_of_a_plan_that_is_parked() -> None:
    assert Wake(Park(RECORD, 1000)).events == ["task-received", "task-started"]


def test_flower_hears_how_a_plan_failed() -> None:
    wake = Wake(Fail(RECORD, CAUSE, 0))
    assert wake.watcher.seen[-1] == (
        "task-failed",
        {"uuid": "p1", "exception": repr(CAUSE), "traceback": ""},
    )


@pytest.mark.parametrize("broken", [False, True])
def test_a_step_is_under_way_for_celery_until_it_ends_however_it_does(*, broken: bool) -> None:
    wake = Wake(None, broken=broken)
    assert wake.steps.active == ["p1"]
    assert wake.acknowledged == 1
    assert "p1" not in state.requests
    assert not [request for request in state.active_requests if request.id == "p1"]


def test_a_wake_up_whose_body_is_no_json_is_told_to_celery_as_such() -> None:
    app = Celery("test", set_as_current=False)
    consumer = SimpleNamespace(hostname="w", event_dispatcher=None, connection_errors=())
    receive = receive_wake_ups(RunPlan(Steps(None)), app, consumer)  # type: ignore[arg-type]
    message = SimpleNamespace(headers={"id": "p1"}, body=b"[[", delivery_info={}, properties={})
    with pytest.raises(DecodeError, match="no JSON"):
        receive(message, None, None, None, [])


def test_a_request_whose_events_cannot_be_sent_is_not_under_way_for_ever() -> None:
    assert Wake(None, unheard=True).acknowledged == 1
    assert "p1" not in state.requests
