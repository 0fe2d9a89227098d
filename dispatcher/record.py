"""A plan as the ledger keeps it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from pydantic import BaseModel, ConfigDict

from dispatcher import errors
from dispatcher.models import ConflictPolicy, FaultPlan, PlanState, PlanStatus

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatcher.errors import ExecutorClientError

__all__ = ["Order", "PlanRecord", "budget_ms"]

END_STATES: dict[type[Exception], PlanState] = {
    errors.PlanCancelledError: PlanState.CANCELLED,
    errors.PlanExpiredError: PlanState.EXPIRED,
}
"""Where a plan stands that ends with one of these errors."""


class Order(BaseModel):
    """What was submitted. As text it tells whether two submissions are the same."""

    model_config = ConfigDict(frozen=True)

    plan: FaultPlan
    executor: str = "default"
    timeout_ms: int
    """What the plan may take beyond its fault's own time."""

    conflict_policy: ConflictPolicy = ConflictPolicy.QUEUE

    def to_json(self) -> str:
        """The order as text."""
        return self.model_dump_json(exclude_none=True, exclude_defaults=True)


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
    released_ms: int | None = None
    """Until when it keeps its target, where it ended while its fault might be alive."""

    apply_id: str | None = None
    cause: str | None = None
    cancelled: str | None = None
    """Why it was cancelled, once it was."""

    error: ExecutorClientError | None = None
    """What it will end with, once its fault is stopped."""

    doubtful: bool = False
    """Whether an apply may have reached the Executor whose answer nobody has."""

    in_the_way: str | None = None
    """The plan that holds the target, for a step of a plan that does not wait for it."""

    @classmethod
    def from_fields(cls, plan_id: str, fields: Mapping[str, str], in_the_way: str = "") -> Self:
        """The record in a ledger hash."""

        def moment(name: str) -> int | None:
            return int(fields[name]) if name in fields else None

        order = Order.model_validate_json(fields["order"])
        return cls(
            id=plan_id,
            plan=order.plan,
            executor=order.executor,
            timeout_ms=order.timeout_ms,
            submitted_ms=int(fields["submitted_ms"]),
            due_ms=int(fields["due_ms"]),
            state=PlanState(fields["state"]),
            attempts=int(fields.get("attempts", 0)),
            expires_ms=moment("expires_ms"),
            started_ms=moment("started_ms"),
            applied_ms=moment("applied_ms"),
            ended_ms=moment("ended_ms"),
            released_ms=moment("released_ms"),
            apply_id=fields.get("apply_id"),
            cause=fields.get("cause") or None,
            cancelled=fields.get("cancelled"),
            error=errors.from_json(fields["error"]) if "error" in fields else None,
            doubtful=fields.get("doubtful") == "1",
            in_the_way=in_the_way or None,
        )

    @property
    def deadline_ms(self) -> int | None:
        """When the plan is given up: its fault's own time and `timeout_ms` after its first step."""
        if self.started_ms is None:
            return None
        return self.started_ms + budget_ms(self.plan, self.timeout_ms)

    @property
    def fault_ends_ms(self) -> int | None:
        """When the Executor itself ends the fault, and the requests that it holds are answered."""
        if self.applied_ms is None:
            return None
        return self.applied_ms + budget_ms(self.plan, 0)

    def applied(self, apply_id: str) -> Self:
        """The record once the Executor has accepted the fault."""
        return replace(
            self, state=PlanState.RUNNING, apply_id=apply_id, doubtful=False, attempts=0, cause=None
        )

    def looked_at(self) -> Self:
        """The record once the Executor has said that the fault is still there."""
        return replace(self, attempts=0, cause=None)

    def completed(self) -> Self:
        """The record once the Executor has said that the fault is over."""
        return replace(self, state=PlanState.COMPLETED, attempts=0, cause=None)

    def observed(self) -> Self:
        """The record once the observation is in."""
        return replace(self, state=PlanState.OBSERVED, attempts=0, cause=None)

    def failed_once_more(self, cause: Exception, *, doubtful: bool = False) -> Self:
        """The record after a failed call that will be tried again."""
        doubtful = self.doubtful or doubtful
        return replace(self, attempts=self.attempts + 1, cause=str(cause), doubtful=doubtful)

    def ending(self, error: ExecutorClientError) -> Self:
        """The record once it is clear what the plan ends with, but its fault is not yet stopped."""
        return replace(self, error=error)

    def ended(self, error: Exception) -> Self:
        """The record once the plan has ended without an observation."""
        state = END_STATES.get(type(error), PlanState.FAILED)
        return replace(self, state=state, cause=str(error))

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
