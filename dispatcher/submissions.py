"""What `Dispatcher.submit` and `submit_many` do, written once for threads and for asyncio.

`Door` checks plans and options before anything is sent. `submitting` is a generator: it yields what is to be
sent (`Take`, then `Publish`), and is sent the reply.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatcher.errors import ExecutorClientError, InvalidPlanError
from dispatcher.ledger.ledger import Submission
from dispatcher.ledger.record import PLAN_ID, Order
from dispatcher.ledger.waits import PAGE
from dispatcher.models import ConflictPolicy
from dispatcher.settings.executors import MAX_SECONDS
from dispatcher.telemetry.traces import traceparent

if TYPE_CHECKING:
    from dispatcher.models import FaultPlan
    from dispatcher.settings.settings import Settings

__all__ = ["Door", "Options", "Publish", "Submitting", "Take", "new_batch_id", "submitting"]

ID_BYTES = 8
"""Of chance in an id that the caller has not chosen: short enough to be read, and to fit into a table."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller of `submit` or `submit_many` may say of all the plans, checked."""

    executor: str
    timeout_ms: int
    conflict_policy: ConflictPolicy
    expires_ms: int | None


@dataclass(frozen=True, slots=True)
class Take:
    """Plans for the ledger to take on. The reply is one outcome for each: see `Ledger.submit`."""

    submissions: Sequence[Submission]


@dataclass(frozen=True, slots=True)
class Publish:
    """Plans whose Celery messages are to be sent, each by its id and its title. There is no reply."""

    plans: Sequence[tuple[str, str]]


Submitting = Generator[Take | Publish, Any, list[ExecutorClientError | None]]
"""A submission. It ends with why each plan was refused, None for a plan that was taken."""


class Door:
    """Checks what comes in, against the configuration."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def options(
        self,
        timeout_sec: float | None = None,
        expires: float | None = None,
        executor: str = "default",
        conflict_policy: ConflictPolicy | str | None = None,
    ) -> Options:
        """The options, checked. Raises `InvalidPlanError`."""
        problems = [
            [name, f"must be a number of seconds above 0, and at most {MAX_SECONDS}"]
            for name, seconds in (("timeout_sec", timeout_sec), ("expires", expires))
            if seconds is not None and not 0 < seconds <= MAX_SECONDS
        ]
        if executor not in self._settings.executors:
            known = ", ".join(sorted(self._settings.executors))
            problems.append(["executor", f"must be one of the configured executors: {known}"])
        if conflict_policy is not None and conflict_policy not in set(ConflictPolicy):
            problems.append(["conflict_policy", f"must be one of {', '.join(ConflictPolicy)}"])
        if problems:
            message = "; ".join(f"{field} {problem}" for field, problem in problems)
            raise InvalidPlanError(f"invalid plan: {message}", problems)
        default_sec = self._settings.executors[executor].default_timeout_sec
        return Options(
            executor,
            round((timeout_sec or default_sec) * 1000),
            ConflictPolicy(conflict_policy or ConflictPolicy.QUEUE),
            None if expires is None else round(expires * 1000),
        )

    def one(self, plan: FaultPlan, plan_id: str | None, options: Options) -> Submission:
        """One plan under its own id. Raises `InvalidPlanError` if that is no id."""
        if plan_id is not None and not PLAN_ID.fullmatch(plan_id):
            problem = "must be letters, digits, '.', '_' and '-', at most 128 long"
            raise InvalidPlanError(f"invalid plan: plan_id {problem}", [["plan_id", problem]])
        return _submission(plan, plan_id or secrets.token_hex(ID_BYTES), options, "", traceparent())

    def many(
        self, plans: Iterable[FaultPlan], batch: str, options: Options, *, start: int = 0
    ) -> Iterator[list[Submission]]:
        """The plans of a batch from number `start` on, in pages of what one call to Redis should carry."""
        parent = traceparent()
        submissions = (
            _submission(plan, f"{batch}-{number}", options, batch, parent)
            for number, plan in enumerate(plans, start)
        )
        while page := list(itertools.islice(submissions, PAGE)):
            yield page

    def why_refused(self, submission: Submission) -> InvalidPlanError | None:
        """Why the plan could have no observation. None if it could."""
        order = submission.order
        problem = self._settings.why_unobservable(order.executor, order.plan.service)
        if problem is None:
            return None
        return InvalidPlanError(f"invalid plan: executor {problem}", [["executor", problem]])


def new_batch_id() -> str:
    """An id that no other batch has."""
    return secrets.token_hex(ID_BYTES)


def submitting(door: Door, page: Sequence[Submission]) -> Submitting:
    """Hand the plans to the ledger, then send the Celery messages of those that are new to it."""
    refusals: list[ExecutorClientError | None] = [door.why_refused(each) for each in page]
    taken = [each for each, refusal in zip(page, refusals, strict=True) if refusal is None]
    outcomes = (yield Take(taken)) if taken else []
    new = [each for each, outcome in zip(taken, outcomes, strict=True) if outcome is True]
    if new:
        yield Publish([(each.plan_id, str(each.order.plan)) for each in new])
    rest = iter(outcomes)
    found = [next(rest) if refusal is None else refusal for refusal in refusals]
    return [each if isinstance(each, ExecutorClientError) else None for each in found]


def _submission(plan: FaultPlan, plan_id: str, options: Options, batch: str, parent: str) -> Submission:
    order = Order(
        plan=plan,
        executor=options.executor,
        timeout_ms=options.timeout_ms,
        conflict_policy=options.conflict_policy,
    )
    return Submission(plan_id, order, options.expires_ms, batch, parent)
