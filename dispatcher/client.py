"""The Recommender's side: submit plans, and get their observations."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Self, cast

from opentelemetry.trace import SpanKind
from pydantic import ValidationError

from dispatcher.errors import RecordUnreadableError, ResultTimeoutError
from dispatcher.handles import Access, PlanBatch, PlanHandle
from dispatcher.interface import ExecutorClient
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
    from dispatcher.ledger.ledger import Submission
    from dispatcher.ledger.record import PlanRecord
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
    ) -> PlanHandle:
        """Hand the plan over. It is durable, and will end, once this has returned.

        `plan_id` makes submitting repeatable: the same plan under the same id is one plan. `timeout_sec` is
        what the plan may take beyond its fault's own time (the Executor's `default_timeout_sec` if absent).
        `expires` is how many seconds it may wait for a worker and its target (no limit if absent); past that
        it ends with `PlanExpiredError` and is never applied. `executor` is a name from the configuration.
        `conflict_policy` says what to do if another plan has the target: `queue` (if absent), `reject` or
        `allow`.

        Raises `InvalidPlanError`, `PlanConflictError`, `DispatchHaltedError`, `LedgerUnavailableError`.
        """
        options = self._door.options(timeout_sec, expires, executor, conflict_policy)
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
        timeout_sec: float | None = None,
        expires: float | None = None,
        executor: str = "default",
        conflict_policy: ConflictPolicy | str | None = None,
    ) -> PlanBatch:
        """Hand many plans over, some hundred with each call to Redis. `plans` may be a generator.

        The options are those of `submit`. A plan that is refused does not keep the others from going: its
        handle in the batch has ended, and its `result` raises why.

        Raises `InvalidPlanError` (an option), `LedgerUnavailableError` (some of the plans may have gone).
        """
        options, batch = self._door.options(timeout_sec, expires, executor, conflict_policy), new_batch_id()
        handles: list[PlanHandle] = []
        for page in self._door.many(plans, batch, options):
            for submission, refusal in zip(page, self._submit(page), strict=True):
                handles.append(PlanHandle(submission.plan_id, self._access, refusal))
        describe(batch=batch, executor=executor, plans=len(handles))
        return PlanBatch(batch, handles, self._access)

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
            elif record.plan_id not in self._warned_of:
                self._warned_of.add(record.plan_id)
                logger.warning("%s", record)

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
