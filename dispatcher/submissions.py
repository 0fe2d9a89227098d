"""What `Dispatcher.submit` and `submit_many` do, written once for threads and for asyncio.

`Door` checks plans and options before anything is sent. `submitting` is a generator: it yields what must be
sent (`Take`, then `Publish`), and is sent the reply.
"""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatcher.errors import ExecutorClientError, InvalidPlanError
from dispatcher.ledger.record import TAG, Order
from dispatcher.ledger.submission import Submission
from dispatcher.ledger.waits import PAGE
from dispatcher.limits import PLAN_ID, SECONDS_RULE, seconds_in
from dispatcher.models import ConflictPolicy, FaultPlan
from dispatcher.protocols import Protocol
from dispatcher.telemetry.traces import traceparent

if TYPE_CHECKING:
    from dispatcher.settings.settings import Settings

__all__ = ["Door", "Options", "Publish", "Submitting", "Take", "check_plan", "new_batch_id", "submitting"]

ID_BYTES = 8
"""Of chance in an id that the caller has not chosen: short enough to be read, and to fit into a table."""


MOST_TAGS = 16
ID_RULE = "must be letters, digits, '.', '_' and '-', at most 128 long, with a letter or digit first"
TAG_RULE = "must be letters, digits, '.', '_', '-', ':' and '=', at most 64 long"


@dataclass(frozen=True, slots=True)
class Options:
    """What the caller of `submit` or `submit_many` may say of all the plans, checked."""

    executor: str
    timeout_ms: int
    conflict_policy: ConflictPolicy
    expires_ms: int | None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Take:
    """Plans for the ledger to take on. The reply is one outcome for each: see `Ledger.submit`."""

    submissions: Sequence[Submission]


@dataclass(frozen=True, slots=True)
class Publish:
    """Plans whose Celery messages must be sent, each by its id and its title. There is no reply."""

    plans: Sequence[tuple[str, str]]


Submitting = Generator[Take | Publish, Any, list[ExecutorClientError | None]]
"""A submission. It ends with why each plan was refused, None for a plan that was taken."""


class Door:
    """Checks what comes in, against the configuration."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._knows_the_broker = settings.broker_url is None

    def options(
        self,
        timeout_sec: float | None = None,
        expires: float | None = None,
        executor: str = "default",
        conflict_policy: ConflictPolicy | str | None = None,
        tags: Iterable[str] = (),
    ) -> Options:
        """The options, checked. Raises `InvalidPlanError`."""
        given = {"timeout_sec": timeout_sec, "expires": expires}
        seconds = {name: seconds_in(value) for name, value in given.items()}
        problems = [
            [name, SECONDS_RULE] for name in given if given[name] is not None and seconds[name] is None
        ]
        if not isinstance(executor, str) or executor not in self._settings.executors:
            known = ", ".join(sorted(self._settings.executors))
            problems.append(["executor", f"must be one of the configured executors: {known}"])
        if conflict_policy is not None and conflict_policy not in list(ConflictPolicy):
            problems.append(["conflict_policy", f"must be one of {', '.join(ConflictPolicy)}"])
        tags = _listed("tags", tags)
        problems += [["tags", problem] for problem in _problems_of(tags)]
        if problems:
            message = "; ".join(f"{field} {problem}" for field, problem in problems)
            raise InvalidPlanError(f"invalid plan: {message}", problems)
        default_sec = self._settings.executors[executor].default_timeout_sec
        return Options(
            executor,
            round((seconds["timeout_sec"] or default_sec) * 1000),
            ConflictPolicy(conflict_policy or ConflictPolicy.QUEUE),
            None if seconds["expires"] is None else round(seconds["expires"] * 1000),
            tuple(dict.fromkeys(tags)),
        )

    def one(self, plan: FaultPlan, plan_id: str | None, options: Options) -> Submission:
        """One plan under its own id. Raises `InvalidPlanError` if the id or the plan is not one."""
        self._check_broker()
        if plan_id is not None:
            _check_id("plan_id", plan_id)
        plan = check_plan("plan", plan)
        return _submission(plan, plan_id or secrets.token_hex(ID_BYTES), options, "", traceparent())

    def many(
        self,
        plans: Iterable[FaultPlan],
        batch: str,
        options: Options,
        plan_ids: Iterable[str] | None = None,
        *,
        start: int = 0,
        size: int = PAGE,
    ) -> Iterator[list[Submission]]:
        """The plans of a batch from number `start` on, in pages of what one call to Redis should carry.

        With `plan_ids`, and if `plans` is a list, all is read and checked before the first page. Another
        iterable is read page by page. Raises `InvalidPlanError`.
        """
        self._check_broker()
        if plan_ids is not None:
            pairs: Iterable[tuple[FaultPlan, str]] = _paired(plans, plan_ids)
        else:
            numbered = enumerate(_checked(plans, start), start)
            pairs = ((plan, f"{batch}-{number}") for number, plan in numbered)
        parent = traceparent()
        submissions = (_submission(plan, plan_id, options, batch, parent) for plan, plan_id in pairs)
        while page := list(itertools.islice(submissions, size)):
            yield page

    def _check_broker(self) -> None:
        """Before the ledger has a plan: its message could not be sent. Raises `InvalidSettingsError`."""
        if not self._knows_the_broker:
            self._settings.check_broker()
            self._knows_the_broker = True

    def why_refused(self, submission: Submission) -> ExecutorClientError | None:
        """Why the plan could not be applied, or could have no observation. None if it could."""
        executor, plan = submission.order.executor, submission.order.plan
        needs = plan.needs
        if needs and (incapable := self._settings.why_incapable(executor, needs)) is not None:
            return incapable
        problem = self._settings.why_unobservable(executor, plan.service, grpc=plan.protocol is Protocol.GRPC)
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
    return Submission(plan_id, order, options.expires_ms, batch, parent, options.tags)


def _paired(plans: Iterable[FaultPlan], plan_ids: Iterable[str]) -> list[tuple[FaultPlan, str]]:
    """Each plan with its id: all of them, so that nothing is submitted if one is wrong.

    Reads no further than to the first that is missing.
    """
    missing: Any = object()
    pairs: list[tuple[FaultPlan, str]] = []
    known: set[str] = set()
    for pair in itertools.zip_longest(_checked(plans), _iterator("plan_ids", plan_ids), fillvalue=missing):
        plan, plan_id = pair
        number = len(pairs) + 1
        if missing in pair:
            few, many = ("ids", "plans") if plan_id is missing else ("plans", "ids")
            raise _wrong(
                "plan_ids", f"must be one for each plan: there are {number - 1} {few}, and more {many}"
            )
        _check_id(f"plan_ids, number {number}", plan_id)
        if plan_id in known:
            raise _wrong("plan_ids", f"must differ: {plan_id} is there twice")
        known.add(plan_id)
        pairs.append((plan, plan_id))
    return pairs


def _checked(plans: Iterable[FaultPlan], start: int = 0) -> Iterator[FaultPlan]:
    """The plans. Raises `InvalidPlanError` for an item that is not a plan.

    A list is checked at once, any other iterable item by item.
    """
    numbered = enumerate(_iterator("plans", plans), start + 1)
    checked = (check_plan(f"plan {number}", plan) for number, plan in numbered)
    return iter(list(checked)) if isinstance(plans, Sequence) else checked


def check_plan(name: str, plan: object) -> FaultPlan:
    """The plan. Raises `InvalidPlanError` for what is none, which it calls `name`.

    A plan may be wrong although it was made: pydantic's `model_copy(update=...)` checks nothing.
    """
    if not isinstance(plan, FaultPlan):
        raise _wrong(name, f"must be a FaultPlan, not {type(plan).__name__}")
    fields = {field: plan.__dict__[field] for field in FaultPlan.model_fields if field in plan.__dict__}
    try:
        checked = FaultPlan.model_validate(fields)
    except InvalidPlanError as exc:
        raise exc.saying(exc.message.replace("invalid plan", f"invalid {name}", 1)) from None
    return plan if checked.__dict__ == fields else checked


def _check_id(name: str, plan_id: object) -> None:
    if not (isinstance(plan_id, str) and PLAN_ID.fullmatch(plan_id)):
        raise _wrong(name, ID_RULE)


def _problems_of(tags: list[str]) -> Iterator[str]:
    if len(tags) > MOST_TAGS:
        yield f"must be at most {MOST_TAGS}"
    for number, tag in enumerate(tags, 1):
        if not (isinstance(tag, str) and TAG.fullmatch(tag)):
            yield f"{TAG_RULE}: number {number} is not"


def _listed(name: str, values: Iterable[str]) -> list[str]:
    return list(itertools.islice(_iterator(name, values), MOST_TAGS + 1))


def _iterator(name: str, values: Iterable[Any]) -> Iterator[Any]:
    """Raises `InvalidPlanError` for a single text, too: its letters are never meant."""
    if isinstance(values, str | bytes) or not isinstance(values, Iterable):
        raise _wrong(name, f"must be a list or another iterable, not {type(values).__name__}")
    return iter(values)


def _wrong(name: str, problem: str) -> InvalidPlanError:
    return InvalidPlanError(f"invalid plan: {name} {problem}", [[name, problem]])
