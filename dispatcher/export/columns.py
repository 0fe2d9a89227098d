"""The columns of an exported table. `docs/columns.md` is made from them by `make docs`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["BULKY", "COLUMNS", "Column", "Kind", "columns"]


class Kind(StrEnum):
    """What a column's values are, unless they are null."""

    TEXT = "text"
    WHOLE = "whole number"
    NUMBER = "number"
    TIME = "time (UTC)"
    TEXTS = "list of texts"


@dataclass(frozen=True, slots=True)
class Column:
    """One column."""

    name: str
    kind: Kind
    meaning: str
    unit: str = ""


PLAN = (
    Column("id", Kind.TEXT, "the plan's id"),
    Column("batch", Kind.TEXT, "id of the batch that it was submitted in"),
    Column("tags", Kind.TEXTS, "its tags"),
    Column("executor", Kind.TEXT, "name of its Executor"),
    Column("service", Kind.TEXT, "the service that the fault hits"),
    Column("api", Kind.TEXT, "the path that the fault hits"),
    Column("fault_type", Kind.TEXT, "`delay` or `abort`"),
    Column("protocol", Kind.TEXT, "`http`, or `grpc` if the fault hits gRPC calls only"),
    Column("headers", Kind.TEXTS, "the headers that a request must have to be hit: `x-test-run: 42`"),
    Column("percentage", Kind.WHOLE, "share of the requests that the fault should hit", "%"),
    Column("duration_seconds", Kind.WHOLE, "how long the fault should last", "s"),
    Column("delay_seconds", Kind.NUMBER, "how long the fault holds a request", "s"),
    Column("abort_http_status", Kind.WHOLE, "the status that the fault answers with", "HTTP status"),
    Column("grpc_status", Kind.WHOLE, "the gRPC status that the fault answers with", "1 to 16"),
    Column("start_delay_ms", Kind.WHOLE, "how long a request is held before the fault acts", "ms"),
    Column("start_time", Kind.TIME, "when the fault should begin"),
    Column("takes_effect_sec", Kind.NUMBER, "how long after its apply the fault is in force", "s"),
    Column("min_requests", Kind.WHOLE, "fewer requests than this make no observation", "requests"),
    Column("state", Kind.TEXT, "the plan's state: `observed`, `failed`, `queued` ..."),
    Column("submitted_at", Kind.TIME, "when it was submitted"),
    Column("applied_at", Kind.TIME, "when its fault was applied"),
    Column("plan_ended_at", Kind.TIME, "when the plan ended"),
    Column("cause", Kind.TEXT, "why it waits, or why it ended"),
    Column("error", Kind.TEXT, "class of the error that ended it, see errors.md"),
    Column("error_message", Kind.TEXT, "the error's message"),
)

FIGURES = (
    Column("requests", Kind.WHOLE, "how many requests arrived in the window", "requests"),
    Column("unanswered", Kind.WHOLE, "how many of them got no answer", "requests"),
    Column("status_code", Kind.WHOLE, "the most frequent status among the answers", "HTTP status"),
    Column("latency_ms", Kind.NUMBER, "mean latency", "ms"),
    Column("latency_sd_ms", Kind.NUMBER, "standard deviation of the latency", "ms"),
    Column("latency_p50_ms", Kind.NUMBER, "median latency", "ms"),
    Column("latency_p95_ms", Kind.NUMBER, "95th percentile of the latency", "ms"),
    Column("latency_p99_ms", Kind.NUMBER, "99th percentile of the latency", "ms"),
    Column("error_rate", Kind.NUMBER, "share of errors and of requests without an answer", "0 to 1"),
    Column("error_rate_low", Kind.NUMBER, "lower end of the 95 % interval of the error rate", "0 to 1"),
    Column("error_rate_high", Kind.NUMBER, "upper end of that interval", "0 to 1"),
    Column("success_count", Kind.WHOLE, "requests with an answer that is not an error", "requests"),
    Column("error_count", Kind.WHOLE, "requests with an error status, or no answer", "requests"),
    Column("started_at", Kind.TIME, "when the window of observation began"),
    Column("ended_at", Kind.TIME, "when the window of observation ended"),
)

OBSERVATION = (
    *FIGURES,
    Column("faulted", Kind.WHOLE, "how many requests the fault really hit", "requests"),
    Column("doubts", Kind.TEXTS, "reasons to distrust the observation"),
    Column("execution_id", Kind.TEXT, "the Executor's id of the fault"),
    Column("timestamp", Kind.TIME, "when the observation was collected"),
    Column("trace_id", Kind.TEXT, "the trace of all calls for the plan"),
    Column("truncated", Kind.TEXTS, "which of `logs` and `trace_data` were too long"),
)

BULKY = (
    Column("logs", Kind.TEXTS, "log lines, as the Executor sent them"),
    Column("trace_data", Kind.TEXT, "traces as OpenTelemetry JSON, as the Executor sent them"),
)
"""Columns that are left out unless they are asked for: a value may have megabytes."""


def _windows() -> Iterator[Column]:
    for prefix, when in (("baseline", "before the fault"), ("recovery", "after the fault")):
        for column in FIGURES:
            meaning = f"the same as `{column.name}`, {when}"
            yield replace(column, name=f"{prefix}_{column.name}", meaning=meaning)


COLUMNS = (*PLAN, *OBSERVATION, *_windows())
"""The columns of every table, in their order."""


def columns(*, traces: bool) -> tuple[Column, ...]:
    """The columns of a table with logs and traces, or without."""
    return (*COLUMNS, *BULKY) if traces else COLUMNS
