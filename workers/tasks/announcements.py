"""What Celery's users see of plans: events, signals and states of what happens outside of a task's body.

docs/celery.md has the table of every signal, event and state.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionInfo
from celery import signals
from celery.exceptions import Reject, Retry
from celery.utils.saferepr import saferepr

from dispatcher.errors import PlanCancelledError
from workers.tasks.run_plan import bare

if TYPE_CHECKING:
    from celery.apps.worker import Worker

    from dispatcher.ledger.leases import Lease
    from workers.engine import decisions
    from workers.tasks.run_plan import RunPlan

__all__ = ["CeleryAnnouncer"]

LONGEST_RESULT = 1024
"""Characters of a result or an error in an event, as in Celery's own events."""

logger = logging.getLogger(__name__)


class CeleryAnnouncer:
    """Announces by Celery's own means, as its request does for a body. See `Announcer`."""

    def __init__(self, worker: Worker, task: RunPlan) -> None:
        self._worker = worker
        self._task = task

    def observed(self, plan_id: str, decision: decisions.Complete) -> None:
        """Send `task-succeeded`."""
        if self._watched:
            result = saferepr(decision.observation.model_dump(mode="json"), maxlen=LONGEST_RESULT)
            self._send("task-succeeded", uuid=plan_id, result=result, runtime=_seconds(decision.record))

    def failed(self, decision: decisions.Fail) -> None:
        """Send the signal and the event of a failed, or revoked, task."""
        plan_id, error = decision.record.id, bare(decision.error)
        if isinstance(error, PlanCancelledError):
            request = {"id": plan_id, "args": (plan_id,), "kwargs": {}}
            signals.task_revoked.send(
                self._task, request=request, terminated=False, signum=None, expired=False
            )
            self._send("task-revoked", uuid=plan_id, terminated=False, signum=None, expired=False)
            return
        einfo = _info(error)
        signals.task_failure.send(
            self._task,
            task_id=plan_id,
            exception=error,
            args=(plan_id,),
            kwargs={},
            traceback=None,
            einfo=einfo,
        )
        message = saferepr(error, maxlen=LONGEST_RESULT)
        self._send("task-failed", uuid=plan_id, exception=message, traceback=einfo.traceback[:LONGEST_RESULT])

    def retry(self, lease: Lease, decision: decisions.Retry) -> None:
        """Send Celery's retry, as `self.retry` in a body does."""
        plan_id, task, error = lease.plan_id, self._task, bare(decision.cause)
        routing = {"exchange": "", "routing_key": task.app.conf.task_default_queue}
        task.push_request(
            id=plan_id,
            root_id=plan_id,
            args=(plan_id,),
            kwargs={},
            retries=decision.record.retries,
            called_directly=False,
            delivery_info=routing,
        )
        try:
            task.retry(exc=error, countdown=decision.after_s)
        except Retry as retry:
            self._retried(plan_id, error, retry)
        except Reject as exc:
            logger.warning("plan %s: its retry could not be sent, it begins later: %s", plan_id, exc)
        finally:
            task.pop_request()

    def _retried(self, plan_id: str, error: Exception, retry: Retry) -> None:
        info = _info(error)
        signals.task_retry.send(self._task, request=self._task.request, reason=retry, einfo=info)
        self._send("task-retried", uuid=plan_id, exception=repr(error), traceback=info.traceback)

    @property
    def _watched(self) -> bool:
        """Whether events of tasks are sent. Celery enables those of workers apart."""
        events = self._events
        return bool(events and events.enabled and (not events.groups or "task" in events.groups))

    @property
    def _events(self) -> Any:
        """The consumer's, which is absent while it reconnects."""
        consumer = self._worker.consumer
        return None if consumer is None else consumer.event_dispatcher

    def _send(self, kind: str, **fields: Any) -> None:
        try:
            if self._watched:
                self._events.send(kind, **fields)
        except Exception as exc:  # noqa: BLE001 (a watcher must not hold a plan up)
            logger.debug("the event %s was not sent: %s", kind, exc)


def _info(error: Exception) -> Any:
    """The error as Celery passes it around."""
    try:
        raise error
    except type(error):
        return ExceptionInfo()


def _seconds(record: Any) -> float:
    """How long the plan has taken, as far as its record says."""
    return max(0, (record.due_ms or 0) - (record.started_ms or 0)) / 1000
