"""Why a plan ends without an observation, and what its error says."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dispatcher.errors import (
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorRejectedError,
    ExecutorTimeoutError,
    FaultFailedError,
    InvalidPlanError,
    PlanCancelledError,
    PlanConflictError,
    PlanExpiredError,
)
from dispatcher.models import PlanState
from workers.engine.decisions import Fail

if TYPE_CHECKING:
    from dispatcher.ledger.record import PlanRecord

__all__ = ["cancelled", "defect", "failed", "given_up", "has_passed", "hindrance", "may_have_arrived"]


def failed(record: PlanRecord, error: ExecutorClientError, now_ms: int, *, over: bool = False) -> Fail:
    """The end of a plan. Its error says which plan it was, and until when the fault may be alive.

    `over` says that the fault is known to be over.
    """
    over = over or record.state is PlanState.COMPLETED
    alive_ms = 0 if over else record.alive_ms(now_ms)
    message = error.message if record.id in error.message else f"plan {record.id}: {error.message}"
    if alive_ms > 0:
        until = datetime.fromtimestamp(math.ceil((now_ms + alive_ms) / 1000), UTC)
        message = f"{message}; the fault may be alive until {until.isoformat()}"
    error = error.saying(message)
    return Fail(record.ended(error), error, alive_ms)


def defect(record: PlanRecord, exc: Exception, now_ms: int) -> Fail:
    """The end of a plan that a defect in the worker ends. Its fault may have been applied."""
    error = ExecutorClientError(f"plan {record.id}: a defect in the worker: {exc!r}")
    return failed(record.in_doubt(now_ms), error, now_ms)


def cancelled(record: PlanRecord) -> PlanCancelledError | None:
    """Why the plan was cancelled, if it was."""
    if record.cancelled is None:
        return None
    why = f": {record.cancelled}" if record.cancelled else ""
    return PlanCancelledError(f"plan {record.id} was cancelled{why}")


def hindrance(record: PlanRecord, now_ms: int, *, idempotent: bool) -> ExecutorClientError | None:
    """Why a plan that is not known to be applied must not be applied any more. None if it may be.

    `idempotent` says whether an apply that may have arrived can be sent again.
    """
    if record.apply_id is not None:
        return None
    if record.doubtful and record.applying_ms is not None and not idempotent:
        why = f" ({record.failure})" if record.failure else ""
        message = f"its apply has no answer{why} and must not be repeated (idempotent_apply = false)"
        return ExecutorTimeoutError(f"plan {record.id}: {message}")
    if record.in_the_way is not None:
        message = f"{record.plan.service} {record.plan.api} is held by plan {record.in_the_way}"
        return PlanConflictError(message, record.in_the_way)
    if record.started_ms is not None and has_passed(record.expires_ms, record.started_ms):
        why = f": {record.cause}" if record.cause else ""
        return PlanExpiredError(f"plan {record.id} was not begun in time; it was never applied{why}")
    if has_passed(record.deadline_ms, now_ms):
        return given_up(record, "it could not be applied in time")
    return None


def given_up(record: PlanRecord, why: str) -> ExecutorTimeoutError:
    """The end of a plan whose budget is used up."""
    budget = f"{record.timeout_ms / 1000:g} s beyond its fault's own time"
    last = f"; the last call failed: {record.failure}" if record.failure else ""
    return ExecutorTimeoutError(f"plan {record.id}: {why} ({budget}){last}")


def has_passed(moment_ms: int | None, now_ms: int) -> bool:
    """Whether it is time. Never, if there is no such moment."""
    return moment_ms is not None and now_ms >= moment_ms


def may_have_arrived(error: ExecutorClientError) -> bool:
    """Whether the Executor may have carried out an apply that failed like this."""
    if isinstance(error, ExecutorConnectionError):
        return error.reason == "broken"
    return not isinstance(error, ExecutorRejectedError | FaultFailedError | InvalidPlanError)
