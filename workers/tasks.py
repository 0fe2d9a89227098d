"""The one Celery task: an adapter between a message and a step."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from celery.exceptions import Reject
from celery.worker.request import Request

from dispatcher.celery_app import RUN_PLAN
from dispatcher.errors import ExecutorClientError
from workers.verdicts import Fail, Finish, Retry

if TYPE_CHECKING:
    from celery import Celery, Task

    from workers.steps import Steps

__all__ = ["StepRequest", "add_run_plan", "take_in_reserve"]

PARKED = "parked"
"""What a delivery returns that has not ended its plan."""

logger = logging.getLogger(__name__)


class StepRequest(Request):  # type: ignore[misc]  # celery ships no types
    """A plan's wake-up. Tells Flower that the plan has succeeded once it has, and not after each step."""

    def revoked(self) -> bool:
        """Never: a revoked task would leave a plan, and its fault, that nobody ends. Plans are cancelled."""
        return False

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 (the base class's name)
        if type == "task-succeeded" and fields.get("result") == repr(PARKED):
            return
        super().send_event(type, **fields)


def add_run_plan(app: Celery, steps: Steps) -> None:
    """Register the task that advances a plan by one step."""

    @app.task(  # type: ignore[untyped-decorator]  # celery ships no types
        name=RUN_PLAN,
        bind=True,
        max_retries=None,  # the retry policy decides
        throws=(ExecutorClientError,),  # how a plan ends is no fault of the worker
        Request=f"{StepRequest.__module__}:{StepRequest.__qualname__}",
    )
    def run_plan(self: Task, plan_id: str) -> Any:
        match steps.take(plan_id):
            case Finish(observation=observation):
                return observation.model_dump(mode="json")
            case Fail(error=error):
                raise error
            case Retry(after_s=after_s, cause=cause):
                return _retry(self, after_s, cause)
        return PARKED


def take_in_reserve(app: Celery, steps: Steps, plan_id: str) -> None:
    """Advance a plan outside of any task, and tell Flower how it ended."""
    verdict = steps.take(plan_id)
    if isinstance(verdict, Fail):
        with app.events.default_dispatcher() as events:
            events.send("task-failed", uuid=plan_id, exception=repr(verdict.error), traceback="")


def _retry(task: Task, after_s: float, cause: ExecutorClientError) -> str:
    """Celery's own retry. Where its message cannot be sent, the waker brings the parked plan back."""
    try:
        raise task.retry(exc=cause, countdown=after_s)
    except Reject as exc:
        told = "plan %s: the retry was not sent, the waker will wake it: %s"
        logger.warning(told, task.request.id, exc, extra={"plan": task.request.id})
        return PARKED
