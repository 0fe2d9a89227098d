"""The one Celery task: an adapter between messages and steps.

Celery's own way from a message to a task is made for tasks of all kinds: it copies their context, keeps a
stack of them, stores states and formats results. A wake-up has one argument, and its step stores the result.
"""

from __future__ import annotations

import logging
import os
import time
from typing import TYPE_CHECKING, Any

from celery import Task
from celery.exceptions import Reject
from celery.worker.request import Request
from celery.worker.state import task_ready, task_reserved, task_scheduled
from kombu.exceptions import DecodeError
from pydantic_core import from_json

from dispatcher.wake_ups import RUN_PLAN
from workers.verdicts import Fail, Finish, Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery import Celery
    from celery.concurrency.base import BasePool
    from celery.worker.consumer import Consumer
    from kombu.transport.virtual import Message

    from dispatcher.errors import ExecutorClientError
    from workers.steps import Steps
    from workers.verdicts import Verdict

__all__ = ["RunPlan", "StepRequest", "receive_wake_ups", "take_in_reserve"]

logger = logging.getLogger(__name__)


class RunPlan(Task):  # type: ignore[misc]  # celery ships no types
    """Advances a plan by one step."""

    name = RUN_PLAN
    max_retries = None  # the retry policy decides
    Strategy = f"{__name__}:receive_wake_ups"

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    def run(self, plan_id: str, *, then: Callable[[Verdict], None]) -> None:
        """See `Steps.take`."""
        self._steps.take(plan_id, then)


class StepRequest(Request):  # type: ignore[misc]  # celery ships no types
    """A wake-up that a worker has received. Celery counts it, and Flower hears of it, as of any request.

    Flower hears that the plan has succeeded once it has, and not after each step. A revoked request is
    carried out all the same: otherwise nobody would end the plan, and its fault. Plans are cancelled.
    """

    def tell_received(self) -> None:
        """Celery leaves this to the strategy. A retry that waits stays one for Flower, with its cause."""
        about = self.request_dict
        if about.get("retries"):
            return
        self.send_event(
            "task-received",
            name=self.name,
            args=self.argsrepr,
            kwargs=self.kwargsrepr,
            root_id=self.root_id,
            parent_id=self.parent_id,
            retries=0,
            eta=about.get("eta"),
            expires=None,
        )

    def execute_using_pool(self, pool: BasePool, **_: Any) -> None:
        """Take the step in one of the pool's threads."""
        pool.apply_async(self._take_step, callback=_nothing_more)

    def _take_step(self) -> None:
        began = time.monotonic()
        try:
            self.on_accepted(os.getpid(), began)
            self.task.run(*self.args, then=lambda verdict: self._tell(verdict, time.monotonic() - began))
        except Exception:  # the pool would pass over it in silence; the waker brings the plan back
            logger.exception("plan %s: a defect in the worker ended a step", self.id)
        finally:
            task_ready(self)

    def _tell(self, verdict: Verdict, took_s: float) -> None:
        match verdict:
            case Finish(observation=observation):
                result = repr(observation.model_dump(mode="json")) if self._watched else ""
                self.send_event("task-succeeded", result=result, runtime=took_s)
            case Fail(error=error):
                self.send_event("task-failed", exception=repr(error), traceback="")
            case Retry(after_s=after_s, cause=cause):
                self._retry(after_s, cause)

    @property
    def _watched(self) -> bool:
        return bool(self.eventer and self.eventer.enabled)

    def _retry(self, after_s: float, cause: ExecutorClientError) -> None:
        """Celery's own retry. Where its message cannot be sent, the waker brings the parked plan back."""
        self.task.push_request(self.request_dict, called_directly=False)
        try:
            self.task.retry(exc=cause, countdown=after_s, throw=False)
        except Reject as exc:
            told = "plan %s: the retry was not sent, the waker will wake it: %s"
            logger.warning(told, self.id, exc, extra={"plan": self.id})
        else:
            self.send_event("task-retried", exception=repr(cause), traceback="")
        finally:
            self.task.pop_request()


def receive_wake_ups(task: RunPlan, app: Celery, consumer: Consumer, **_: Any) -> Callable[..., None]:
    """A Celery strategy: what to do with the task's messages."""
    about = {
        "app": app,
        "task": task,
        "hostname": consumer.hostname,
        "eventer": consumer.event_dispatcher,
        "connection_errors": consumer.connection_errors,
    }

    def receive(
        message: Message,
        body: object,  # noqa: ARG001 (the message has it)
        ack: Callable[..., None],  # noqa: ARG001 (by way of the event loop, a turn of it for each message)
        reject: Callable[..., None],
        callbacks: list[Callable[[Request], None]],
    ) -> None:
        payload = _payload(message)
        options = {"on_ack": message.ack_log_error, "on_reject": reject, **about}
        request = StepRequest(message, body=payload, decoded=True, **options)
        request.tell_received()
        if request.eta is not None:
            consumer.qos.increment_eventually()
            arguments = (request.eta.timestamp(), consumer.apply_eta_task, (request,))
            request._eta_timer_entry = consumer.timer.call_at(*arguments, priority=6)  # noqa: SLF001 (as Celery's own)
            task_scheduled(request)
            return
        task_reserved(request)
        for callback in callbacks:
            callback(request)
        consumer.on_task_request(request)

    return receive


def take_in_reserve(app: Celery, steps: Steps, plan_id: str) -> None:
    """Advance a plan outside of any message, and tell Flower how it ended."""

    def tell(verdict: Verdict) -> None:
        if isinstance(verdict, Fail):
            with app.events.default_dispatcher() as events:
                events.send("task-failed", uuid=plan_id, exception=repr(verdict.error), traceback="")

    steps.take(plan_id, tell)


def _payload(message: Message) -> Any:
    """The message's arguments. Celery accepts only JSON here; this is a quicker reader of it."""
    try:
        return from_json(message.body)
    except ValueError as exc:
        raise DecodeError(f"the body of a wake-up is no JSON: {exc}") from exc


def _nothing_more(_: object) -> None:
    """A step has told everybody itself."""
