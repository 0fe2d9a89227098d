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
    FaultUnobservedError,
    InvalidPlanError,
    PlanCancelledError,
    PlanConflictError,
    PlanExpiredError,
)
from dispatcher.models import PlanState
from dispatcher.printable import printable
from dispatcher.stored_errors import as_known
from workers.engine.decisions import Fail

if TYPE_CHECKING:
    from dispatcher.ledger.record import PlanRecord

__all__ = ["cancelled", "defect", "failed", "given_up", "has_passed", "hindrance", "may_have_arrived"]


NO_REFUSAL = {101, 303}
"""Answers without success to an apply that may have been carried out.

A server that sends a 303 has done what was asked for (RFC 9110, 15.4.4).
"""

LONGEST_DEFECT = 1_000
"""Characters that are kept of what a driver raised."""

FIRST_LOOK_MS = 1_000
"""How long after the plan's end a fault in doubt is looked at again."""


def failed(record: PlanRecord, error: ExecutorClientError, now_ms: int, *, doubt: str = "") -> Fail:
    """The end of a plan. Its error says which plan it was.

    `doubt` says why it is unknown whether its fault is over. Empty: the fault is over, or never began.
    """
    error.with_traceback(None)  # whose frames may hold it
    error = as_known(error)
    message = error.message if record.id in error.message else f"plan {record.id}: {error.message}"
    if doubt:
        alive_ms = record.alive_ms(now_ms)
        if alive_ms > 0:
            until = datetime.fromtimestamp(math.ceil((now_ms + alive_ms) / 1000), UTC)
            message = f"{message}; the fault may be alive until {until.isoformat()}"
        if doubt not in message:
            message = f"{message}; it is unknown whether its fault is over: {doubt}"
    error = error.saying(message)
    gone_in_ms = 0 if doubt else record.gone_in_ms(now_ms)
    return Fail(record.ended(error), error, gone_in_ms, doubt, FIRST_LOOK_MS if doubt else 0)


def defect(record: PlanRecord, exc: BaseException, now_ms: int) -> Fail:
    """The end of a plan that a defect in the worker ends. Its fault may have been applied."""
    error = ExecutorClientError(f"plan {record.id}: a defect in the worker: {_in_words(exc)}")
    if record.state is not PlanState.COMPLETED:
        record = record if record.apply_id else record.in_doubt(now_ms)
        return failed(record, error, now_ms, doubt="a defect in the worker met it")
    return failed(record, error, now_ms)


def _in_words(exc: BaseException) -> str:
    """What a driver raised, which may be anything."""
    try:
        words = printable(repr(exc))
    except Exception:  # noqa: BLE001 (of a class of another package)
        words = type(exc).__name__
    return words if len(words) <= LONGEST_DEFECT else f"{words[:LONGEST_DEFECT]}..."


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
        message = f"{message}; {record.cause}" if record.cause else message
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
    if isinstance(error, ExecutorRejectedError):
        return error.status in NO_REFUSAL
    return not isinstance(error, FaultFailedError | FaultUnobservedError | InvalidPlanError)
