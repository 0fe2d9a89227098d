"""The Recommender's side: submit plans, and get their observations."""

from __future__ import annotations

import itertools
import logging
from typing import TYPE_CHECKING, Self, Unpack, cast

from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from dispatcher.batches import GrowingBatch
from dispatcher.errors import PlanUnknownError, RecordUnreadableError, ResultTimeoutError
from dispatcher.export.rows import AT_ONCE, ended, row_of
from dispatcher.handles import Access, PlanBatch, PlanHandle
from dispatcher.history import all_pages, page_of
from dispatcher.interface import ExecutorClient
from dispatcher.ledger.index import carried_out, members
from dispatcher.ledger.ledger import connect, target_of
from dispatcher.ledger.moments import moment_of
from dispatcher.ledger.record import budget_ms
from dispatcher.ledger.waits import AsyncWaiter, Waiter, first_of, pages
from dispatcher.models import ActiveFault, ConflictPolicy, Health, PlanState
from dispatcher.printable import printable
from dispatcher.settings.settings import Settings, load_settings
from dispatcher.submissions import Door, Take, new_batch_id, submitting
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.messages import Publisher
from dispatcher.tasks.results import ResultCodec
from dispatcher.telemetry.metrics import ExecutorClientMetrics, executor_counts
from dispatcher.telemetry.traces import TRACER, describe, describe_plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    from dispatcher.errors import ExecutorClientError
    from dispatcher.export.rows import Row
    from dispatcher.history import Filters, HistoryPage
    from dispatcher.ledger.record import PlanRecord
    from dispatcher.ledger.submission import Submission
    from dispatcher.models import FaultPlan, PlanStatus
    from dispatcher.observations import RawObservation
    from dispatcher.submissions import Publish

__all__ = ["Dispatcher"]

logger = logging.getLogger(__name__)


class Dispatcher(ExecutorClient):
    """Hands fault plans to the worker fleet.

    Safe to share between threads. Use it as a context manager, or call `close`.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        """Settings come from `DISPATCHER_CONFIG` and `DISPATCHER_*` variables if none are given.

        Raises `InvalidSettingsError`. Nothing is sent yet.
        """
        self._settings = settings or load_settings()
        self._celery = make_celery(self._settings)
        self._door = Door(self._settings)
        self._ledger = connect(self._settings)
        self._publisher = Publisher(self._celery)
        self._warned_of: set[str] = set()
        self._access = Access(
            self._ledger,
            ResultCodec(self._celery),
            Waiter(self._settings),
            AsyncWaiter(self._settings),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections. Plans that were submitted go on."""
        self._access.waiter.close()
        self._ledger.close()
        self._publisher.close()
        self._celery.close()

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
        if refusal is not None:
            raise refusal
        return self.handle(submission.plan_id)

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

        Raises `InvalidPlanError` (an option, an id, something that is no plan) or `LedgerUnavailableError` if
        nothing was submitted. Raises `PartlySubmittedError` if plans were submitted before such an error, or
        before one that the iterable raised.
        """
        options = self._door.options(timeout_sec, expires, executor, conflict_policy, tags)
        with GrowingBatch(new_batch_id(), self._access) as growing:
            for page in growing.pages(self._door.many(plans, growing.id, options, plan_ids)):
                growing.answered(self._submit(page))
        batch = growing.batch()
        describe(batch=batch.id, executor=executor, plans=len(batch))
        return batch

    def batch(self, batch_id: str) -> PlanBatch:
        """A batch that was submitted here or anywhere else, in the order of submission.

        Plans that were refused are not in it. It is known until the last of its plans' records has expired.
        Raises `PlanUnknownError`, `LedgerUnavailableError`.
        """
        ids = carried_out(members(self._ledger, batch_id), self._ledger.try_all)
        if not ids:
            message = (
                f"batch {printable(batch_id)} is unknown: its id is wrong, or its plans' records have expired"
            )
            raise PlanUnknownError(message)
        return PlanBatch(batch_id, [self.handle(plan_id) for plan_id in ids], self._access)

    def history(self, *, limit: int | None = None, **filters: Unpack[Filters]) -> Iterator[PlanStatus]:
        """The plans whose records exist, ended ones and those in flight, the newest first; `limit` at most.

        `filters`: see `Filters`. Records are kept for `result_expires_sec` after the end of their plans. The
        iterator reads page by page; it leaves `unreadable` plans out, with a warning.

        Raises `InvalidSettingsError` (a filter), `LedgerUnavailableError`.
        """
        return all_pages(self.history_page, limit, filters)

    def history_rows(self, *, limit: int | None = None, **filters: Unpack[Filters]) -> Iterator[Row]:
        """The plans of `history` and what was observed, as a table: docs/columns.md has its columns.

        What was not seen is None. Raises `InvalidSettingsError`, `LedgerUnavailableError`.
        """
        plans = self.history(limit=limit, **filters)
        while page := list(itertools.islice(plans, AT_ONCE)):
            yield from map(row_of, carried_out(ended(self._access.results, page), self._ledger.try_all))

    def history_page(
        self, *, cursor: str | None = None, limit: int = 100, **filters: Unpack[Filters]
    ) -> HistoryPage:
        """The next `limit` plans of `history`, behind the `cursor` that the page before has returned.

        Raises `InvalidSettingsError` (a filter, the cursor or the limit), `LedgerUnavailableError`.
        """
        reading = page_of(self._ledger, self._access.results, filters, cursor, limit)
        page = carried_out(reading, self._ledger.try_all)
        for error in page.unreadable:
            self._warn_of(error)
        return page

    def handle(self, plan_id: str) -> PlanHandle:
        """A handle on a plan that was submitted here or anywhere else. Nothing is checked yet."""
        return PlanHandle(plan_id, self._access)

    def apply_and_observe(
        self, plan: FaultPlan, timeout_sec: float = 30.0, start_time: datetime | str | None = None
    ) -> RawObservation:
        """Submit the plan and wait for its observation (specification 5.1 and appendix A).

        `timeout_sec` bounds the wait for a worker, and again what the plan takes beyond its fault's own
        time. Raises what ended the plan, or `ResultTimeoutError` if no worker ends it; the
        plan is cancelled then. `start_time` replaces the plan's own, and the times count from it.
        """
        plan = plan.starting_at(start_time)
        handle = self.submit(plan, timeout_sec=timeout_sec, expires=timeout_sec)
        wait_sec = timeout_sec + budget_ms(plan, round(timeout_sec * 1000)) / 1000
        if plan.start_time is not None:
            wait_sec += max(0.0, plan.start_time.timestamp() - self._ledger.now_ms() / 1000)
        try:
            return handle.result(wait_sec)
        except (ResultTimeoutError, KeyboardInterrupt):
            handle.cancel("its submitter stopped waiting")
            raise

    def check_health(self, executor: str = "default", timeout_sec: float = 30.0) -> bool:
        """Whether the Executor is up (specification 5.1). See `health`."""
        return self.health(executor, timeout_sec).healthy

    def health(self, executor: str = "default", timeout_sec: float = 30.0) -> Health:
        """What the fleet knows of the Executor, from a check that is `health_check_interval_sec` old at most.

        Waits for `timeout_sec` seconds if no check has been made yet. Raises `InvalidPlanError` (no such
        executor), `LedgerUnavailableError`, and `ResultTimeoutError` if no worker checks it.
        """
        self._door.options(timeout_sec, executor=executor)
        check = first_of(self._ledger.health_key(executor), timeout_sec)
        found = self._access.waiter.wait(check, timeout_sec)
        if found is None:
            message = f"no worker checked executor {executor} within {timeout_sec:g} s: is a worker running?"
            raise ResultTimeoutError(message)
        try:
            return Health.model_validate_json(found)
        except ValidationError as exc:
            message = f"the last check of executor {executor} cannot be read: another version has made it"
            raise RecordUnreadableError(message) from exc

    def metrics(self, executor: str = "default") -> ExecutorClientMetrics:
        """What all workers' calls to the Executor have shown so far (specification 5.2).

        Raises `InvalidPlanError` (no such executor), `LedgerUnavailableError`.
        """
        self._door.options(executor=executor)
        [counts] = executor_counts(self._ledger, [executor])
        return ExecutorClientMetrics.of(counts)

    def active(self) -> list[ActiveFault]:
        """The faults in flight and those in doubt, the oldest first.

        `unreadable` plans are left out, with a warning.
        """
        now_ms = self._ledger.now_ms()
        records = self._readable([*self._ledger.in_flight(), *self._ledger.in_doubt()])
        running = [record for record in records if record.state is PlanState.RUNNING or record.doubt]
        return sorted((_active(record, now_ms) for record in running), key=lambda fault: -fault.age_seconds)

    def release(self, service: str, api: str, reason: str, executor: str = "default") -> list[str]:
        """Free a target whose faults are in doubt, because you know that they are over; ids of their plans.

        Workers no longer look at these faults. The next plan for the target may begin.
        Raises `InvalidPlanError` if no such executor is configured.
        """
        self._door.options(executor=executor)
        return self._ledger.release(target_of(executor, service, api), printable(reason))

    def in_flight(self, limit: int | None = None) -> list[PlanStatus]:
        """The plans that have not ended, those on which a worker must act soonest first; `limit` at most.

        Plans that are `unreadable` are left out, with a warning.
        """
        records = self._readable(self._ledger.in_flight(limit))
        return [record.status() for record in records if not record.state.final]

    def unreadable(self, limit: int | None = None) -> list[RecordUnreadableError]:
        """The plans in flight that this version cannot read, of all or of the first `limit` of `in_flight`.

        They can be cancelled by their ids. Workers of this version do not stop their faults.
        """
        records = self._records(self._ledger.in_flight(limit))
        return [record for record in records if isinstance(record, RecordUnreadableError)]

    def count_in_flight(self) -> int:
        """How many plans have not ended."""
        return self._ledger.count_in_flight()

    def server_time(self) -> datetime:
        """The time by which plans are carried out: the Redis server's."""
        return moment_of(self._ledger.now_ms())

    def halt(self, reason: str) -> int:
        """Stop everything: refuse new plans until `resume`, and cancel all that are in flight; how many.

        Returns at once; `active` is empty once the last fault is stopped, except for plans that are
        `unreadable`. Works on a Redis whose memory is full, too.
        """
        reason = printable(reason)
        self._ledger.halt(reason)
        cancelled: set[str] = set()
        for only_begun in (True, False):  # faults that run are stopped before plans that wait
            for page in pages(self._ledger.in_flight()):
                answers = self._ledger.cancel(page, f"halted: {reason}", only_begun=only_begun)
                cancelled.update(plan_id for plan_id, done in zip(page, answers, strict=True) if done)
        return len(cancelled)

    def resume(self) -> bool:
        """Take plans again. False if the dispatcher was not halted."""
        return self._ledger.resume()

    def halted(self) -> str | None:
        """Why the dispatcher is halted. None if it is not."""
        return self._ledger.halted()

    def _readable(self, plan_ids: Sequence[str]) -> Iterator[PlanRecord]:
        """The plans that this version can read. Warns of each other one, once."""
        for record in self._records(plan_ids):
            if not isinstance(record, RecordUnreadableError):
                yield record
            else:
                self._warn_of(record)

    def _warn_of(self, error: RecordUnreadableError) -> None:
        """Once for each plan."""
        if error.plan_id not in self._warned_of:
            self._warned_of.add(error.plan_id)
            logger.warning("%s", error)

    def _records(self, plan_ids: Sequence[str]) -> Iterator[PlanRecord | RecordUnreadableError]:
        for page in pages(plan_ids):
            yield from (record for record in self._ledger.try_read(page) if record is not None)

    def _submit(self, page: Sequence[Submission]) -> list[ExecutorClientError | None]:
        """Submit the plans; for each, why it was refused."""
        step, reply = submitting(self._door, page), None
        while True:
            try:
                request = step.send(reply)
            except StopIteration as stop:
                return cast("list[ExecutorClientError | None]", stop.value)
            reply = self._sent(request)

    def _sent(self, request: Take | Publish) -> list[bool | ExecutorClientError] | None:
        if isinstance(request, Take):
            return self._ledger.submit(request.submissions)
        self._publisher.send(request.plans)
        return None


def _active(record: PlanRecord, now_ms: int) -> ActiveFault:
    applied_ms = record.applied_ms or now_ms
    return ActiveFault.model_validate(
        {
            "plan_id": record.id,
            "apply_id": record.apply_id,
            "executor": record.executor,
            "service": record.plan.service,
            "api": record.plan.api,
            "age_seconds": max(0, now_ms - applied_ms) / 1000,
            "ends_at": (applied_ms + budget_ms(record.plan, 0)) / 1000,
            "doubt": record.doubt,
        }
    )
