"""What the calls of one step add to the fleet's metrics. See `dispatcher.telemetry.metrics` for the keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatcher.errors import (
    CircuitOpenError,
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
    FaultFailedError,
    FaultLostError,
    FaultUnobservedError,
    InvalidPlanError,
    LedgerUnavailableError,
    MetricsNotReadyError,
)
from dispatcher.models import PlanState
from dispatcher.telemetry.latency import fields_of
from dispatcher.telemetry.metrics import RETRIES, RETRIES_SUCCEEDED, CallKind, CallOutcome

if TYPE_CHECKING:
    from dispatcher.ledger.record import PlanRecord

__all__ = ["measured", "repeated"]

NOT_SENT = (CircuitOpenError, InvalidPlanError, LedgerUnavailableError)

OUTCOMES: tuple[tuple[type[Exception], CallOutcome], ...] = (
    (FaultFailedError, CallOutcome.ANSWERED),
    (FaultLostError, CallOutcome.ANSWERED),
    (FaultUnobservedError, CallOutcome.ANSWERED),
    (MetricsNotReadyError, CallOutcome.ANSWERED),
    (ExecutorRejectedError, CallOutcome.REJECTED),
    (ExecutorServerError, CallOutcome.SERVER),
    (ExecutorProtocolError, CallOutcome.PROTOCOL),
    (ExecutorTimeoutError, CallOutcome.TIMEOUT),
    (ExecutorConnectionError, CallOutcome.CONNECTION),
)
"""What a call that raised one of these has come to."""


def measured(kind: CallKind, error: Exception | None, took_s: float, *, retry: bool) -> dict[str, int]:
    """What to add for a call that raised `error`, or returned, after this many seconds.

    `retry` says that it repeated one that had failed. Nothing if nothing was sent.
    """
    if isinstance(error, NOT_SENT):
        return {}
    outcome = _outcome(error)
    counts = {f"{kind}:{outcome}": 1}
    if outcome.measured:
        counts |= fields_of(took_s)
    if retry:
        counts[RETRIES] = 1
    if retry and outcome is CallOutcome.ANSWERED:
        counts[RETRIES_SUCCEEDED] = 1
    return counts


def repeated(record: PlanRecord) -> CallKind | None:
    """Which call the plan's next step repeats, if its last one failed. A step repeats one call at most."""
    if record.attempts == 0:
        return None
    if record.error is not None:
        return CallKind.STOP
    if record.apply_id is None:
        return CallKind.APPLY
    return CallKind.STATUS if record.state is PlanState.RUNNING else CallKind.METRICS


def _outcome(error: Exception | None) -> CallOutcome:
    if error is None:
        return CallOutcome.ANSWERED
    found = (outcome for kind, outcome in OUTCOMES if isinstance(error, kind))
    return next(found, CallOutcome.DEFECT)
