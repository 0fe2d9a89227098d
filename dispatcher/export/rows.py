"""One row for each plan, with the same keys each time. What is absent is None."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatcher.errors import ExecutorClientError, PlanUnknownError, RecordUnreadableError
from dispatcher.headers import lines_of
from dispatcher.ledger.exchanges import asking, exchanging
from dispatcher.ledger.ledger import record_of
from dispatcher.observations import Figures, RawObservation

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dispatcher.ledger.exchanges import Exchange
    from dispatcher.ledger.ledger import Ledger
    from dispatcher.models import PlanStatus
    from dispatcher.tasks.stored_results import StoredResults

__all__ = ["AT_ONCE", "Ended", "Row", "ended", "row_of", "rows_of"]

Row = dict[str, object]

AT_ONCE = 50
"""How many plans one round trip reads: a result may have megabytes of traces."""

FROM_PLAN = (
    "service",
    "api",
    "fault_type",
    "percentage",
    "duration_seconds",
    "delay_seconds",
    "abort_http_status",
    "grpc_status",
    "start_delay_ms",
    "start_time",
    "takes_effect_sec",
    "min_requests",
)


@dataclass(frozen=True, slots=True)
class Ended:
    """A plan, and how it has ended, if it has."""

    plan_id: str
    status: PlanStatus | None
    """None if its record is unknown or cannot be read."""

    outcome: RawObservation | ExecutorClientError | None


def rows_of(
    ledger: Ledger,
    results: StoredResults,
    plan_ids: Sequence[str],
    refused: Mapping[str, ExecutorClientError],
) -> Exchange[list[Row]]:
    """A row for each plan, in this order. Those in `refused` have only their error."""
    rows: dict[str, Row] = {each: row_of(Ended(each, None, error)) for each, error in refused.items()}
    asked = [each for each in plan_ids if each not in refused]
    for start in range(0, len(asked), AT_ONCE):
        page = asked[start : start + AT_ONCE]
        replies = yield from exchanging([["HGETALL", ledger.plan_key(each)] for each in page])
        found = [_status(each, reply) for each, reply in zip(page, replies, strict=True)]
        known = yield from ended(results, [each for each in found if not isinstance(each, Ended)])
        unknown = [each for each in found if isinstance(each, Ended)]
        rows |= {each.plan_id: row_of(each) for each in (*known, *unknown)}
    return [rows[each] for each in plan_ids]


def ended(results: StoredResults, plans: Sequence[PlanStatus]) -> Exchange[list[Ended]]:
    """The plans with their results."""
    final = [plan for plan in plans if plan.state.final]
    keys = [results.key(plan.id) for plan in final]
    [stored] = (yield from asking([["MGET", *keys]])) if keys else [[]]
    outcomes = {plan.id: _outcome(results, plan.id, text) for plan, text in zip(final, stored, strict=True)}
    return [Ended(plan.id, plan, outcomes.get(plan.id)) for plan in plans]


def row_of(plan: Ended) -> Row:
    """The row: values of all columns, those that are bulky included."""
    return dict(_of_plan(plan)) | dict(_of_outcome(plan.outcome))


def _status(plan_id: str, reply: object) -> PlanStatus | Ended:
    record = record_of(plan_id, reply)
    if record is None:
        error = PlanUnknownError(f"plan {plan_id} is unknown: its record has expired")
        return Ended(plan_id, None, error)
    return Ended(plan_id, None, record) if isinstance(record, RecordUnreadableError) else record.status()


def _of_plan(plan: Ended) -> Iterator[tuple[str, object]]:
    yield "id", plan.plan_id
    status = plan.status
    if status is None:
        return
    yield "batch", status.batch
    yield "tags", list(status.tags)
    yield "executor", status.executor
    yield "protocol", str(status.plan.protocol)
    yield "headers", None if status.plan.headers is None else lines_of(status.plan.headers)
    for name in FROM_PLAN:
        yield name, getattr(status.plan, name)
    yield "state", str(status.state)
    yield "submitted_at", status.submitted_at
    yield "applied_at", status.applied_at
    yield "plan_ended_at", status.ended_at
    yield "cause", status.cause


def _of_outcome(outcome: RawObservation | ExecutorClientError | None) -> Iterator[tuple[str, object]]:
    if isinstance(outcome, ExecutorClientError):
        yield "error", type(outcome).__name__
        yield "error_message", outcome.message
    elif outcome is not None:
        for name, value in outcome:
            if name in {"baseline", "recovery"}:
                yield from _figures(name, value)
            elif name == "doubts":
                yield name, [str(doubt) for doubt in outcome.doubts]
            elif name == "trace_data":
                yield name, None if value is None else json.dumps(value, ensure_ascii=False)
            else:
                yield name, value


def _figures(prefix: str, figures: Figures | None) -> Iterator[tuple[str, object]]:
    for name, value in figures or Figures():
        yield f"{prefix}_{name}", value


def _outcome(
    results: StoredResults, plan_id: str, stored: str | None
) -> RawObservation | ExecutorClientError:
    if stored is None:
        return PlanUnknownError(f"the result of plan {plan_id} is unknown: it has expired, or was forgotten")
    try:
        return results.decode(plan_id, stored)
    except ExecutorClientError as error:
        return error
