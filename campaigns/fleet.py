"""Workers of campaigns, how their plans ended, and until when those kept their targets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks.stage.commands import until
from benchmarks.stage.stage import default_executor
from dispatcher import ExecutorClientError, LedgerUnavailableError, PlanState

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dispatcher import Dispatcher, PlanHandle, RawObservation
    from dispatcher.ledger.record import PlanRecord

IMPATIENT = default_executor(
    connection_timeout_sec=1,
    read_timeout_sec=2,
    # Episodes are short: a breaker that stays open for a minute would hide the other acts.
    circuit_breaker_timeout_sec=1,
    circuit_breaker_max_timeout_sec=2,
    circuit_breaker_on_open="defer",
    circuit_breaker_recovery_per_sec=200,
)
"""Settings of workers whose Executor and Redis come and go."""


def outcomes(
    dispatcher: Dispatcher, plan_ids: Iterable[str], within_s: float
) -> list[RawObservation | ExecutorClientError]:
    """How the plans ended. Redis may be away meanwhile."""
    give_up_at = time.monotonic() + within_s
    return [_outcome(dispatcher, plan_id, give_up_at) for plan_id in plan_ids]


def _outcome(dispatcher: Dispatcher, plan_id: str, give_up_at: float) -> RawObservation | ExecutorClientError:
    while True:
        try:
            return dispatcher.handle(plan_id).result(max(0.0, give_up_at - time.monotonic()))
        except LedgerUnavailableError:
            continue
        except ExecutorClientError as error:
            return error


def cancel_once_running(handle: PlanHandle) -> None:
    """Cancel a plan as soon as its fault is accepted."""
    until(lambda: handle.status().state is not PlanState.QUEUED)
    handle.cancel("part of a campaign")


def released_at(record: PlanRecord | None) -> float:
    """When a plan had ended and its target was free, in seconds since 1970. 0 if it has not ended."""
    return 0.0 if record is None else max(record.ended_ms or 0, record.released_ms or 0) / 1000
