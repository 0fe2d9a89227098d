"""What operators ask of a Dispatcher: faults in flight, doubts, figures, and the emergency halt."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatcher.arguments import count_in
from dispatcher.errors import RecordUnreadableError
from dispatcher.ledger.ledger import target_of
from dispatcher.ledger.moments import moment_of
from dispatcher.ledger.record import budget_ms
from dispatcher.ledger.waits import pages
from dispatcher.models import ActiveFault, PlanState
from dispatcher.printable import printable
from dispatcher.records import Records
from dispatcher.telemetry.metrics import ExecutorClientMetrics, executor_counts

if TYPE_CHECKING:
    from datetime import datetime

    from dispatcher.ledger.record import PlanRecord
    from dispatcher.models import PlanStatus

__all__ = ["Operations"]


class Operations(Records):
    """The part of `Dispatcher` that operators use: it is about all plans in flight."""

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

        Plans that are `unreadable` are left out, with a warning. Raises `InvalidSettingsError` (the limit),
        `LedgerUnavailableError`.
        """
        records = self._readable(self._ledger.in_flight(_checked(limit)))
        return [record.status() for record in records if not record.state.final]

    def unreadable(self, limit: int | None = None) -> list[RecordUnreadableError]:
        """The plans in flight that this version cannot read, of all or of the first `limit` of `in_flight`.

        They can be cancelled by their ids. Workers of this version do not stop their faults.
        """
        records = self._records(self._ledger.in_flight(_checked(limit)))
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


def _checked(limit: int | None) -> int | None:
    return None if limit is None else count_in("limit", limit)


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
