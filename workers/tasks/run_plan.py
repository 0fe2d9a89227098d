"""The one Celery task, `dispatcher.run_plan(plan_id)`: an adapter between a message and an attempt."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from billiard.einfo import ExceptionWithTraceback
from celery import Task
from celery.exceptions import InvalidTaskError, Reject
from celery.worker import state
from celery.worker.request import Request

from dispatcher.errors import ExecutorClientError, InvalidPlanError, PlanCancelledError, PlanUnknownError
from dispatcher.ledger.leases import Denial, Lease, Named
from dispatcher.limits import PLAN_ID
from dispatcher.printable import printable
from dispatcher.tasks.messages import RUN_PLAN
from workers.engine.decisions import Fail, Retry

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.engine.engine import Engine

__all__ = ["PlanRequest", "RunPlan"]

DENIALS = {
    Denial.OVER: "the plan has ended",
    Denial.ELSEWHERE: "another worker is carrying out the plan",
    Denial.WAITS: "the plan waits for its start or its target",
    Denial.UNREADABLE: "the plan is set aside, another version wrote it",
    None: "the plan waits in the ledger",
}

NO_MESSAGE = -1
"""The number of retries that no message has: asks for a plan, and never for its lease."""

NO_FOLLOWERS = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
"""What a request has that nothing follows: Celery begins no more for it."""

logger = logging.getLogger(__name__)


class PlanRequest(Request):  # type: ignore[misc]  # celery ships no types
    """A message for `run_plan`. Its body returns when the plan is parked, which is not yet a success.

    `task-succeeded` is sent once the plan has ended. A retry that waits stays in the state RETRY.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """Raises `InvalidTaskError` if the id or the number of retries is none."""
        super().__init__(*args, **options)
        self.id.encode()  # results are stored under it
        self.retries: int = self.request_dict.get("retries") or 0
        """How many messages were sent for the plan before this one."""

        if not self.id or type(self.retries) is not int or self.retries < 0:
            problem = f"id {self.id!r} and retries {self.retries!r} must be a text and a whole number"
            raise InvalidTaskError(f"a message for {RUN_PLAN} is wrong: {problem}")
        self.request_dict["retries"] = self.retries
        self.request_dict["ignore_result"] = True  # what the body returns is not the plan's result
        self.expires = None  # the plan has an expiry of its own
        self.request_dict.pop("expires", None)

    @property
    def named(self) -> Named | None:
        """The plan that should be claimed ahead. None if the task's body has to look at the message first."""
        if self.eta is None and self.args == [self.id] and PLAN_ID.fullmatch(self.id):
            return Named(self.id, self.retries)
        return None

    def revoked(self) -> bool:
        """False, because the ledger has what is cancelled. Celery would call a plan REVOKED that goes on."""
        if self.has_revoked_stamp:
            self.task.cancel(self.id)
        return False

    @property
    def has_revoked_stamp(self) -> bool:
        """Whether `revoke_by_stamped_headers` has named one of the message's stamps."""
        stamps = self.request_dict.get("stamps")
        if not isinstance(stamps, dict):
            return False
        return any(
            stamp in _listed(state.revoked_stamps[header])
            for header, value in stamps.items()
            if header in state.revoked_stamps
            for stamp in _listed(value)
        )

    def terminate(self, pool: Any, signal: Any = None) -> None:  # noqa: ARG002 (the base class's)
        """Cancel the plan. A thread cannot be ended."""
        self.task.cancel(self.id)

    def send_received(self) -> None:
        """Send `task-received`, except for a retry: it would hide the state RETRY while the retry waits."""
        if self.retries == 0:
            ids = {"root_id": self.root_id, "parent_id": self.parent_id}
            about = {"name": self.name, "args": self.argsrepr, "kwargs": self.kwargsrepr}
            self.send_event("task-received", **about, **ids, retries=0, eta=None, expires=None)

    def send_event(self, type: str, **fields: Any) -> None:  # noqa: A002 (the base class's)
        if type != "task-succeeded" and self.eventer and self.eventer.enabled:
            self.eventer.send(type, uuid=self.id, **fields)

    def on_failure(self, exc_info: Any, *args: Any, **options: Any) -> None:
        """Let go of frames that hold what they raised. Only the collector of cycles would free them."""
        super().on_failure(exc_info, *args, **options)
        raised = exc_info.exception
        raised = raised.exc if isinstance(raised, ExceptionWithTraceback) else raised
        raised.with_traceback(None)

    def on_accepted(self, pid: int, time_accepted: float) -> None:
        """Kombu's event loop starts at most 10 tasks with an eta in a turn, and may sleep before the next."""
        super().on_accepted(pid, time_accepted)
        if self.eta is not None and self.task.hub is not None:
            self.task.hub.call_soon(_nothing)


class RunPlan(Task):  # type: ignore[misc]  # celery ships no types
    """Makes an attempt of the plan. What a worker does later for the plan needs no message."""

    name = RUN_PLAN
    Request = PlanRequest
    ignore_result = True  # the ledger stores states and results: what a body stores late could replace an end
    store_errors_even_if_ignored = False
    max_retries = None  # the retry policy decides
    acks_late = False
    send_events = False  # the request sends them, in an order that keeps RETRY visible
    throws = (ExecutorClientError,)  # what ends a plan is logged once, without a traceback
    typing = False  # `run` says what is wrong, for senders by name, too

    engine: Engine | None = None
    """Set while a worker runs."""

    hub: Any = None
    """The worker's event loop, if it has one."""

    cancel: Callable[[str], None] = staticmethod(lambda _: None)
    """Cancels a plan by its id. Set while a worker runs."""

    def apply_async(self, *args: Any, **options: Any) -> Any:
        """Send a message. `get` waits for the plan's result, although the body's own is ignored."""
        sent = super().apply_async(*args, **options)
        sent.ignored = False
        return sent

    def apply(self, *args: Any, **options: Any) -> Any:  # noqa: ARG002 (the base class's)
        """Raises `InvalidPlanError`: plans are carried out by workers."""
        raise _in_workers_only()

    def map(self, it: Any) -> Any:  # noqa: ARG002 (the base class's)
        """Raises `InvalidPlanError`: each plan has a message of its own."""
        raise _one_by_one("map")

    def starmap(self, it: Any) -> Any:  # noqa: ARG002 (the base class's)
        """Raises `InvalidPlanError`: each plan has a message of its own."""
        raise _one_by_one("starmap")

    def chunks(self, it: Any, n: int) -> Any:  # noqa: ARG002 (the base class's)
        """Raises `InvalidPlanError`: each plan has a message of its own."""
        raise _one_by_one("chunks")

    def run(self, *args: Any, **kwargs: Any) -> str:
        """Make the attempt of the plan whose id is the only argument; the outcome, in words.

        Raises `InvalidPlanError`, `PlanUnknownError`, and what ended the plan; `celery.exceptions.Retry`.
        """
        if self.engine is None:
            raise self._stored(_in_workers_only())
        try:
            plan_id = self._plan_id(args, kwargs)
        except InvalidPlanError as exc:
            if not self._has_a_plan(self.engine):
                raise self._stored(exc) from None
            logger.warning("plan %s: a message for it is wrong, and is dropped: %s", self.request.id, exc)
            return "the message is wrong, the plan goes on"
        if _followers(self.request):
            self._refuse_followers(plan_id)
        lease = self.engine.collect(Named(plan_id, self.request.retries))
        if lease is Denial.UNKNOWN:
            message = f"plan {plan_id} is unknown: its id is wrong, or its record has expired"
            raise self._stored(PlanUnknownError(message))
        if not isinstance(lease, Lease):
            return DENIALS[lease]
        if not self.engine.enter(lease):
            return "the plan waits for a free thread of its Executor"
        return self._attempt(self.engine, lease)

    def _attempt(self, engine: Engine, lease: Lease) -> str:
        try:
            execution, standing = engine.attempt(lease)
        finally:
            engine.leave(lease)
        decision = execution.decision
        if standing is None:
            return f"the plan is {decision.record.state}"
        if standing.lost or standing.cancelled:
            return "the plan is in other hands, or cancelled"
        if isinstance(decision, Retry):
            return self._retry(bare(decision.cause), decision.after_s)
        assert isinstance(decision, Fail)  # noqa: S101 (for the type checker)
        if isinstance(decision.error, PlanCancelledError):
            engine.announcer.failed(decision)  # Celery would store FAILURE for any error
            return "the plan is cancelled"
        raise bare(decision.error)

    def _retry(self, cause: ExecutorClientError, after_s: float) -> str:
        try:
            raise self.retry(exc=cause, countdown=after_s, throw=False)  # one frame less to copy
        except Reject as exc:
            logger.warning("plan %s: its retry could not be sent, it begins later: %s", self.request.id, exc)
            return "the plan is retried without a message"

    def _plan_id(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
        """The id of the plan. Raises `InvalidPlanError`."""
        plan_id = _only_argument(args, kwargs)
        if self.request.id != plan_id:
            raise self._misaddressed(plan_id)
        return plan_id

    def _stored(self, error: ExecutorClientError) -> ExecutorClientError:
        """The error, stored as the failure of this message and of what was to follow. It ends no plan."""
        if not self.request.called_directly:
            self.backend.mark_as_failure(self.request.id, error, request=self.request)
            self.request.update(NO_FOLLOWERS)
        return error

    def _has_a_plan(self, engine: Engine) -> bool:
        """Whether the task's id is a plan's, so that the task's result is that plan's."""
        if not _is_plan_id(self.request.id):
            return False
        return engine.collect(Named(self.request.id, NO_MESSAGE)) is not Denial.UNKNOWN

    def _misaddressed(self, plan_id: str) -> InvalidPlanError:
        canvas = _followers(self.request) or ("group" if self.request.group else "")
        task_id = "none" if self.request.id is None else printable(self.request.id)
        problem = (
            f"a {canvas} cannot hold {RUN_PLAN}: wait for the plan's handle, then send the next task"
            if canvas
            else f"task id {task_id} is not the plan id {plan_id}: submit plans by Dispatcher.submit"
        )
        return InvalidPlanError(f"{RUN_PLAN}: {problem}", [["plan_id", problem]])

    def _refuse_followers(self, plan_id: str) -> None:
        """End what was to follow the plan with an error. The plan goes on, with a result of its own."""
        error = self._misaddressed(plan_id)
        logger.warning("plan %s: %s", plan_id, error)
        self.backend.mark_as_failure(plan_id, error, request=self.request, store_result=False)
        for follower in self.request.chain or ():
            task_id = follower.get("options", {}).get("task_id")
            if task_id is not None:
                self.backend.mark_as_failure(task_id, error)
        self.request.update(NO_FOLLOWERS)


def bare(error: ExecutorClientError) -> ExecutorClientError:
    """The error without its causes and tracebacks, which Celery would format at length."""
    return error.saying(error.message)


def _in_workers_only() -> InvalidPlanError:
    return InvalidPlanError(f"{RUN_PLAN} runs in workers only: submit plans by Dispatcher.submit")


def _one_by_one(canvas: str) -> InvalidPlanError:
    return InvalidPlanError(f"a {canvas} cannot hold {RUN_PLAN}: submit plans by Dispatcher.submit_many")


def _only_argument(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The id of a plan. Raises `InvalidPlanError`."""
    given = [*args, *kwargs.values()]
    if len(given) == 1 and set(kwargs) <= {"plan_id"} and _is_plan_id(given[0]):
        return str(given[0])
    problem = "must be the only argument: the id of a submitted plan, as text"
    raise InvalidPlanError(
        f"{RUN_PLAN}: plan_id {problem}. Submit plans by Dispatcher.submit", [["plan_id", problem]]
    )


def _is_plan_id(given: object) -> bool:
    return isinstance(given, str) and PLAN_ID.fullmatch(given) is not None


def _followers(request: Any) -> str:
    """What Celery is to run after the task. Empty if nothing."""
    names = {"chain": "chain", "chord": "chord", "callbacks": "link (callback)", "errbacks": "link_error"}
    return next((words for name, words in names.items() if getattr(request, name)), "")


def _listed(stamps: Any) -> list[Any]:
    """Celery writes one stamp as it is, and several as a list."""
    return list(stamps) if isinstance(stamps, list | tuple | set) else [stamps]


def _nothing() -> None:
    """A turn of the event loop is all it takes."""
