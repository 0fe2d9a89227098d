"""The Recommender's side: submit plans, and get their observations, in threads and in asyncio."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Self

from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from dispatcher.access import Access
from dispatcher.batches import GrowingBatch, pages_of, submit_all
from dispatcher.errors import (
    ExecutorClientError,
    InvalidSettingsError,
    RecordUnreadableError,
    ResultTimeoutError,
)
from dispatcher.handles import PlanHandle
from dispatcher.interface import ExecutorClient
from dispatcher.ledger.exchanges import drive
from dispatcher.ledger.record import budget_ms
from dispatcher.ledger.waits import first_of
from dispatcher.models import ConflictPolicy, Health
from dispatcher.one_process import OfOneProcess
from dispatcher.operations import Operations
from dispatcher.settings.settings import Settings, load_settings
from dispatcher.submissions import Take, check_plan, new_batch_id, submitting
from dispatcher.telemetry.traces import TRACER, describe, describe_plan

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable, Sequence
    from datetime import datetime

    from dispatcher.ledger.submission import Submission
    from dispatcher.models import FaultPlan
    from dispatcher.observations import RawObservation
    from dispatcher.plan_batch import PlanBatch
    from dispatcher.submissions import Publish

__all__ = ["Dispatcher"]

STOPPED_WAITING = "its submitter stopped waiting"
NOT_CANCELLED = "a plan that is no longer awaited was not cancelled: %s"

logger = logging.getLogger(__name__)


class Dispatcher(OfOneProcess, Operations, ExecutorClient):
    """Hands fault plans to the worker fleet.

    Safe to share between threads, and between event loops. All tasks of an event loop share two connections
    to Redis, however many plans they await. Use it as a context manager (`with`, or `async with`), or call
    `close` or `aclose`. A copy is the same Dispatcher; it cannot be pickled, as handles and batches can.
    """

    instead = "make one in each process, and send handles, or the ids of plans"

    def __init__(self, settings: Settings | None = None) -> None:
        """Settings come from `DISPATCHER_CONFIG` and `DISPATCHER_*` variables if none are given.

        Raises `InvalidSettingsError`. Nothing is sent yet.
        """
        super().__init__(Access(load_settings() if settings is None else _checked(settings)))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def close(self) -> None:
        """Close all connections. Plans that were submitted go on.

        Calls that wait meanwhile, in other threads or in event loops, raise `DispatcherClosedError`.
        """
        self._access.close()

    async def aclose(self) -> None:
        """`close`, for asyncio."""
        await self._access.aclose()

    @TRACER.start_as_current_span("submit", kind=SpanKind.PRODUCER)
    def submit(
        self,
        plan: FaultPlan,
        *,
        plan_id: str | None = None,
        timeout_sec: float | None = None,
        expires: float | None = None,
        executor: str = "default",
        conflict_policy: ConflictPolicy | str | None = None,
        tags: Iterable[str] = (),
    ) -> PlanHandle:
        """Hand the plan over. It is durable, and will end, once this has returned.

        `plan_id` makes submitting repeatable: the same plan under the same id is one plan. `timeout_sec` is
        what the plan may take beyond its fault's own time (the Executor's `default_timeout_sec` if absent).
        `expires` is how many seconds it may wait for a worker and its target (no limit if absent); past that
        it ends with `PlanExpiredError` and is never applied. `executor` is a name from the configuration.
        `conflict_policy` says what to do if another plan has the target: `queue` (if absent), `reject` or
        `allow`. `tags` are up to 16 words by which `history` finds the plan: letters, digits and `. _ - : =`,
        at most 64 long. A plan that is known already keeps its tags.

        Raises `InvalidPlanError`, `PlanConflictError`, `DispatchHaltedError`, `LedgerUnavailableError`.
        """
        options = self._door.options(timeout_sec, expires, executor, conflict_policy, tags)
        submission = self._door.one(plan, plan_id, options)
        describe_plan(submission.plan_id, executor, plan)
        [refusal] = self._submit([submission])
        return self._taken(submission, refusal)

    @TRACER.start_as_current_span("submit", kind=SpanKind.PRODUCER)
    async def submit_async(
        self,
        plan: FaultPlan,
        *,
        plan_id: str | None = None,
        timeout_sec: float | None = None,
        expires: float | None = None,
        executor: str = "default",
        conflict_policy: ConflictPolicy | str | None = None,
        tags: Iterable[str] = (),
    ) -> PlanHandle:
        """`submit`, for asyncio. What many tasks submit at once goes in a few round trips.

        If the task is cancelled, the plan is submitted or it is not: never in part. With a `plan_id` the call
        can be repeated. Raises `DispatcherClosedError` too.
        """
        session = await self._access.session()
        await session.turns.mine()
        options = self._door.options(timeout_sec, expires, executor, conflict_policy, tags)
        submission = self._door.one(plan, plan_id, options)
        describe_plan(submission.plan_id, executor, plan)
        return self._taken(submission, await session.submit(submission))

    @TRACER.start_as_current_span("submit", kind=SpanKind.PRODUCER)
    def submit_many(
        self,
        plans: Iterable[FaultPlan],
        *,
        plan_ids: Iterable[str] | None = None,
        timeout_sec: float | None = None,
        expires: float | None = None,
        executor: str = "default",
        conflict_policy: ConflictPolicy | str | None = None,
        tags: Iterable[str] = (),
    ) -> PlanBatch:
        """Hand many plans over, some hundred with each call to Redis. `plans` may be a generator.

        The options are those of `submit`. A plan that is refused does not keep the others from going: its
        handle in the batch has ended, and its `result` raises why.

        `plan_ids` has an id for each plan. The same plans under the same ids are the same plans: they belong
        to both batches, and both complete. With `plan_ids`, or if `plans` is a list, all is read and checked
        before the first plan is submitted. Another iterable is read page by page, and submitted meanwhile.

        Raises `InvalidPlanError` (an option, an id, something that is not a plan) or `LedgerUnavailableError`
        if nothing was submitted. Raises `PartlySubmittedError` if plans were submitted before such an error,
        or before one that the iterable raised.
        """
        options = self._door.options(timeout_sec, expires, executor, conflict_policy, tags)
        with GrowingBatch(new_batch_id(), self._access) as growing:
            for page in self._door.many(plans, growing.id, options, plan_ids):
                growing.ask(page)
                if (trouble := growing.answered(self._submit(page))) is not None:
                    raise trouble
        return _described(growing.batch(), executor)

    @TRACER.start_as_current_span("submit", kind=SpanKind.PRODUCER)
    async def submit_many_async(
        self,
        plans: Iterable[FaultPlan] | AsyncIterable[FaultPlan],
        *,
        plan_ids: Iterable[str] | None = None,
        timeout_sec: float | None = None,
        expires: float | None = None,
        executor: str = "default",
        conflict_policy: ConflictPolicy | str | None = None,
        tags: Iterable[str] = (),
    ) -> PlanBatch:
        """`submit_many`, for asyncio. `plans` may be an asynchronous iterable: each goes as it comes.

        With `plan_ids`, an asynchronous iterable is read to its end first. If the task is cancelled, some of
        the plans may have gone.
        """
        options = self._door.options(timeout_sec, expires, executor, conflict_policy, tags)
        session = await self._access.session()
        with GrowingBatch(new_batch_id(), self._access) as growing:
            pages = pages_of(self._door, plans, growing.id, options, plan_ids)
            if (trouble := await submit_all(session, pages, growing)) is not None:
                raise trouble
        return _described(growing.batch(), executor)

    def apply_and_observe(
        self, plan: FaultPlan, timeout_sec: float = 30.0, start_time: datetime | str | None = None
    ) -> RawObservation:
        """Submit the plan and wait for its observation (specification 5.1 and appendix A).

        `timeout_sec` bounds the wait for a worker, and again what the plan takes beyond its fault's own
        time. Raises what ended the plan, or `ResultTimeoutError` if no worker ends it; the
        plan is cancelled then. `start_time` replaces the plan's own, and the times count from it.
        """
        plan = check_plan("plan", plan).starting_at(start_time)
        timeout_sec = self._seconds(timeout_sec)
        handle = self.submit(plan, timeout_sec=timeout_sec, expires=timeout_sec)
        try:
            now_ms = self._ledger.now_ms() if plan.start_time else 0
            return handle.result(_wait_sec(plan, timeout_sec, now_ms))
        except BaseException as exc:  # Ctrl-C, and what the program's own handlers of signals raise
            if isinstance(exc, ResultTimeoutError) or not isinstance(exc, ExecutorClientError):
                _cancel(handle)
            raise

    async def apply_and_observe_async(
        self, plan: FaultPlan, timeout_sec: float = 30.0, start_time: datetime | str | None = None
    ) -> RawObservation:
        """`apply_and_observe`, for asyncio. If the task is cancelled, so is the plan."""
        plan = check_plan("plan", plan).starting_at(start_time)
        timeout_sec = self._seconds(timeout_sec)
        session = await self._access.session()
        submitting_it = asyncio.ensure_future(
            self.submit_async(plan, timeout_sec=timeout_sec, expires=timeout_sec)
        )
        try:
            handle = await asyncio.shield(submitting_it)
            now_ms = await session.exchange(self._ledger.asking_the_time()) if plan.start_time else 0
            return await handle.result_async(_wait_sec(plan, timeout_sec, now_ms))
        except (ResultTimeoutError, asyncio.CancelledError):
            await asyncio.shield(asyncio.ensure_future(_withdraw(submitting_it)))
            raise

    def check_health(self, executor: str = "default", timeout_sec: float = 30.0) -> bool:
        """Whether the Executor is up (specification 5.1). See `health`."""
        return self.health(executor, timeout_sec).healthy

    async def check_health_async(self, executor: str = "default", timeout_sec: float = 30.0) -> bool:
        """`check_health`, for asyncio."""
        return (await self.health_async(executor, timeout_sec)).healthy

    def health(self, executor: str = "default", timeout_sec: float = 30.0) -> Health:
        """What the fleet knows of the Executor, from a check that is `health_check_interval_sec` old at most.

        Waits for `timeout_sec` seconds if no check has been made yet. Raises `InvalidPlanError` (no such
        executor), `LedgerUnavailableError`, and `ResultTimeoutError` if no worker checks it.
        """
        timeout_sec = self._seconds(timeout_sec, executor)
        check = first_of(self._ledger.health_key(executor), timeout_sec)
        return _health(executor, timeout_sec, self._access.waiter.wait(check, timeout_sec))

    async def health_async(self, executor: str = "default", timeout_sec: float = 30.0) -> Health:
        """`health`, for asyncio."""
        timeout_sec = self._seconds(timeout_sec, executor)
        check = first_of(self._ledger.health_key(executor), timeout_sec)
        session = await self._access.session()
        return _health(executor, timeout_sec, await session.wait(check, timeout_sec))

    def _seconds(self, timeout_sec: object, executor: str = "default") -> float:
        """The time of a call that waits, checked with the name of its Executor. Raises `InvalidPlanError`."""
        given: Any = 0 if timeout_sec is None else timeout_sec  # 0 is refused
        self._door.options(given, executor=executor)
        return float(given)

    def _submit(self, page: Sequence[Submission]) -> list[ExecutorClientError | None]:
        """Submit the plans; for each, why it was refused."""
        return drive(submitting(self._door, page), self._sent)

    def _sent(self, request: Take | Publish) -> list[bool | ExecutorClientError] | bool:
        if isinstance(request, Take):
            return self._ledger.submit(request.submissions)
        return self._access.publisher.send(request.plans)

    def _taken(self, submission: Submission, refusal: ExecutorClientError | None) -> PlanHandle:
        """The handle of a plan that was submitted by itself. Raises why it was refused."""
        if refusal is not None:
            raise refusal
        return self._handle_of(submission, None)

    def _handle_of(self, submission: Submission, refusal: ExecutorClientError | None) -> PlanHandle:
        return PlanHandle(submission.plan_id, self._access, refusal, submission.order.plan)


def _checked(settings: object) -> Settings:
    if not isinstance(settings, Settings):
        problem = f"must be a Settings object, not {type(settings).__name__}"
        raise InvalidSettingsError(f"invalid settings: settings {problem}", [["settings", problem]])
    return settings


def _described(batch: PlanBatch, executor: str) -> PlanBatch:
    """The batch, which the current span names."""
    describe(batch=batch.id, executor=executor, plans=len(batch))
    return batch


def _wait_sec(plan: FaultPlan, timeout_sec: float, now_ms: int) -> float:
    """How long to wait for the plan's end; `now_ms` counts if the plan has a time to start at."""
    wait_sec = timeout_sec + budget_ms(plan, round(timeout_sec * 1000)) / 1000
    if plan.start_time is not None:
        wait_sec += max(0.0, plan.start_time.timestamp() - now_ms / 1000)
    return wait_sec


def _health(executor: str, timeout_sec: float, found: str | None) -> Health:
    if found is None:
        message = f"no worker checked executor {executor} within {timeout_sec:g} s: is a worker running?"
        raise ResultTimeoutError(message)
    try:
        return Health.model_validate_json(found)
    except ValidationError as exc:
        message = f"the last check of executor {executor} cannot be read: another version has made it"
        raise RecordUnreadableError(message) from exc


def _cancel(handle: PlanHandle) -> None:
    """Cancel a plan that is no longer awaited. No error: its caller raises another one."""
    try:
        handle.cancel(STOPPED_WAITING)
    except ExecutorClientError as exc:
        logger.warning(NOT_CANCELLED, exc)


async def _withdraw(submitting_it: asyncio.Future[PlanHandle]) -> None:
    """`_cancel`, for asyncio, of a plan that is being submitted, or was."""
    try:
        handle = await submitting_it
        await handle.cancel_async(STOPPED_WAITING)
    except ExecutorClientError as exc:
        logger.warning(NOT_CANCELLED, exc)
