"""A plan on its way into the ledger, and how the ledger answers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatcher.errors import (
    DispatchHaltedError,
    ExecutorClientError,
    InvalidPlanError,
    PlanConflictError,
)

if TYPE_CHECKING:
    from dispatcher.ledger.record import Order

__all__ = ["Submission", "outcome_of", "target_of"]


@dataclass(frozen=True, slots=True)
class Submission:
    """A plan on its way into the ledger."""

    plan_id: str
    order: Order
    expires_after_ms: int | None = None
    batch: str = ""
    traceparent: str = ""
    """The span that submits it (W3C Trace Context). It is not part of what is submitted."""

    tags: tuple[str, ...] = ()
    """Words to find it by. They are not part of what is submitted: a known plan keeps its tags."""

    @property
    def target(self) -> str:
        """What it wants for itself."""
        return target_of(self.order.executor, self.order.plan.service, self.order.plan.api)

    @property
    def arguments(self) -> list[str | int]:
        """What the script `submit` gets of it."""
        plan = self.order.plan
        starts_ms = None if plan.start_time is None else math.floor(plan.start_time.timestamp() * 1000)
        return [
            self.plan_id,
            self.order.to_json(),
            self.target,
            self.order.conflict_policy,
            self.batch,
            " ".join(self.tags),
            "" if self.expires_after_ms is None else self.expires_after_ms,
            "" if starts_ms is None else starts_ms,
        ]


def target_of(executor: str, service: str, api: str) -> str:
    """The name of what plans reserve."""
    return f"{executor}:{service}:{api}"


def outcome_of(submission: Submission, what: str, more: str = "") -> bool | ExecutorClientError:
    """The script's answer: True for a new plan, False for a known one, otherwise why it was refused."""
    plan_id = submission.plan_id
    match what:
        case "new":
            return True
        case "known":
            return False
        case "taken":
            return PlanConflictError(f"plan id {plan_id} belongs to another plan: choose another id", plan_id)
        case "conflict":
            plan = submission.order.plan
            target = f"{plan.service} {plan.api}"
            return PlanConflictError(f"{target} is held by plan {more}: wait until it has ended", more)
        case "halted":
            return DispatchHaltedError(f"the dispatcher is halted ({more}): resume it, then submit again")
    problem = "has passed: choose a later time, or none to start at once"
    return InvalidPlanError(f"invalid plan: start_time {problem}", [["start_time", problem]])
