"""A plan as the ledger keeps it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from dispatcher.models import FaultPlan, PlanState, PlanStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["PlanRecord"]


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """One plan's row in the ledger. Times are milliseconds since 1970 on the Redis server's clock."""

    id: str
    plan: FaultPlan
    executor: str
    timeout_ms: int
    submitted_ms: int
    due_ms: int
    state: PlanState = PlanState.QUEUED
    attempts: int = 0
    expires_ms: int | None = None
    started_ms: int | None = None
    applied_ms: int | None = None
    ended_ms: int | None = None
    apply_id: str | None = None
    cause: str | None = None

    @classmethod
    def from_fields(cls, plan_id: str, fields: Mapping[str, str]) -> Self:
        """The record in a ledger hash."""

        def moment(name: str) -> int | None:
            return int(fields[name]) if name in fields else None

        return cls(
            id=plan_id,
            plan=FaultPlan.model_validate_json(fields["plan"]),
            executor=fields["executor"],
            timeout_ms=int(fields["timeout_ms"]),
            submitted_ms=int(fields["submitted_ms"]),
            due_ms=int(fields["due_ms"]),
            state=PlanState(fields["state"]),
            attempts=int(fields["attempts"]),
            expires_ms=moment("expires_ms"),
            started_ms=moment("started_ms"),
            applied_ms=moment("applied_ms"),
            ended_ms=moment("ended_ms"),
            apply_id=fields.get("apply_id"),
            cause=fields.get("cause") or None,
        )

    @property
    def deadline_ms(self) -> int | None:
        """When the plan is given up: its fault's own time and `timeout_ms` after its first step."""
        if self.started_ms is None:
            return None
        return self.started_ms + budget_ms(self.plan, self.timeout_ms)

    def applied(self, apply_id: str) -> Self:
        """The record once the Executor has accepted the fault."""
        return replace(self, state=PlanState.RUNNING, apply_id=apply_id, attempts=0, cause=None)

    def looked_at(self) -> Self:
        """The record once the Executor has said that the fault is still there."""
        return replace(self, attempts=0, cause=None)

    def completed(self) -> Self:
        """The record once the Executor has said that the fault is over."""
        return replace(self, state=PlanState.COMPLETED, attempts=0, cause=None)

    def observed(self) -> Self:
        """The record once the observation is in."""
        return replace(self, state=PlanState.OBSERVED, attempts=0, cause=None)

    def failed_once_more(self, cause: Exception) -> Self:
        """The record after a failed call that will be tried again."""
        return replace(self, attempts=self.attempts + 1, cause=str(cause))

    def ended(self, state: PlanState, cause: Exception) -> Self:
        """The record once the plan has ended without an observation."""
        return replace(self, state=state, cause=str(cause))

    def status(self) -> PlanStatus:
        """The record as the Recommender sees it."""
        return PlanStatus(
            id=self.id,
            plan=self.plan,
            executor=self.executor,
            state=self.state,
            apply_id=self.apply_id,
            attempts=self.attempts,
            cause=self.cause,
            submitted_at=_datetime(self.submitted_ms),
            applied_at=_datetime(self.applied_ms),
            next_step_at=None if self.state.final else _datetime(self.due_ms),
            ended_at=_datetime(self.ended_ms),
        )


def budget_ms(plan: FaultPlan, timeout_ms: int) -> int:
    """What a plan may take from its first step to its end: its fault's own time and `timeout_ms`."""
    return plan.start_delay_ms + plan.duration_seconds * 1000 + timeout_ms


def _datetime(ms: int | None) -> datetime | None:
    return None if ms is None else datetime.fromtimestamp(ms / 1000, UTC)
