"""Carrying out one step of a plan, from top to bottom. Free of Celery and of HTTP libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatcher.errors import InvalidPlanError, LedgerUnavailableError
from dispatcher.models import PlanState
from workers.breaker.rules import UNASKED, Admission
from workers.engine.decisions import Snooze
from workers.engine.execution import Execution
from workers.engine.terminal_errors import failed
from workers.engine.traces import traced

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatcher.ledger.leases import Lease, Leases
    from dispatcher.ledger.record import PlanRecord
    from workers.breaker.shared import SharedBreaker
    from workers.engine.decisions import Decision
    from workers.engine.gateway import Gateway

__all__ = ["PlanExecutor"]

UNCONFIGURED_MS = 60_000
"""Time between two checks of a fault in doubt whose Executor this worker does not know."""

HOLD_BACK_MS = 1000
"""How long an apply waits that could not be announced."""


class PlanExecutor:
    """Carries out steps for one worker process. Its threads share it."""

    def __init__(
        self, leases: Leases, gateways: Mapping[str, Gateway], breakers: Mapping[str, SharedBreaker]
    ) -> None:
        """`gateways` and `breakers` are named as the executors in the configuration."""
        self._leases = leases
        self._gateways = gateways
        self._breakers = breakers

    def execute(self, lease: Lease) -> Execution:
        """Advance the leased plan as far as it goes without waiting."""
        now_ms = lease.time_ms
        record = lease.record._replace(started_ms=now_ms) if lease.first_step else lease.record
        gateway = self._gateways.get(record.executor)
        if gateway is None:
            return Execution(traced(_unconfigured(record, now_ms)))
        breaker = self._breakers[record.executor]
        calls = gateway.calls(record, now_ms, lease.in_flight)
        answer = gateway.ask(record, breaker, breaker.admitted())
        if isinstance(answer, Admission) and gateway.must_announce(record):
            announced = self._announce(lease, record, now_ms)
            if announced is None:
                return Execution(Snooze(record, HOLD_BACK_MS), answer)
            record = announced
        decision = gateway.advance(record, calls, answer)
        admission = answer if isinstance(answer, Admission) else UNASKED
        return Execution(decision, admission, calls.report, calls.counts)

    def _announce(self, lease: Lease, record: PlanRecord, now_ms: int) -> PlanRecord | None:
        """Record that an apply begins which must not be repeated. None if that is not possible now."""
        if record.doubtful:  # an earlier lease was lost before its apply was announced: nothing was sent
            record = record._replace(doubtful_ms=None)
        try:
            announced = self._leases.announce_apply(lease)
        except LedgerUnavailableError:
            return None
        return record._replace(applying_ms=now_ms) if announced else None


def _unconfigured(record: PlanRecord, now_ms: int) -> Decision:
    problem = f"{record.executor} is not in the worker's settings"
    if record.state.final:
        return Snooze(record, UNCONFIGURED_MS)
    error = InvalidPlanError(f"plan {record.id}: executor {problem}", [["executor", problem]])
    doubt = problem if record.applied_for_all_we_know and record.state is not PlanState.COMPLETED else ""
    return failed(record, error, now_ms, doubt=doubt)
