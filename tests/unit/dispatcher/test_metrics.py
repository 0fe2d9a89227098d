"""The specification's metrics, from what was counted."""

from __future__ import annotations

import dataclasses

import pytest

from dispatcher import ExecutorClientMetrics
from dispatcher.telemetry.latency import fields_of
from dispatcher.telemetry.metrics import CallKind, CallOutcome, ExecutorCounts

SPECIFIED = [  # section 5.2
    "total_requests",
    "successful_requests",
    "failed_requests",
    "timeout_errors",
    "connection_errors",
    "bad_request_errors",
    "total_retries",
    "successful_retries",
    "circuit_breaker_opens",
    "circuit_breaker_half_opens",
    "avg_latency_ms",
    "p95_latency_ms",
    "p99_latency_ms",
]
COUNTED = {
    "apply:answered": "70",
    "status:answered": "20",
    "stop:rejected": "1",
    "apply:server": "2",
    "metrics:protocol": "3",
    "apply:timeout": "1",
    "status:connection": "2",
    "apply:defect": "1",
    "retries": "25",
    "retries_succeeded": "5",
    "latency_us": "4000",
    "latency:200": "4",
}


def test_it_has_the_fields_of_the_specification_and_starts_from_zero() -> None:
    assert [field.name for field in dataclasses.fields(ExecutorClientMetrics)] == SPECIFIED
    assert set(dataclasses.astuple(ExecutorClientMetrics())) == {0}


def test_counts_become_the_fields_of_the_specification() -> None:
    counts = ExecutorCounts.of(COUNTED, {"state": "half_open", "opens": "3", "half_opens": "2"})
    told = ExecutorClientMetrics.of(counts)
    assert (told.total_requests, told.successful_requests, told.failed_requests) == (100, 90, 10)
    assert (told.timeout_errors, told.connection_errors, told.bad_request_errors) == (1, 2, 1)
    assert (told.total_retries, told.successful_retries) == (25, 5)
    assert (told.circuit_breaker_opens, told.circuit_breaker_half_opens) == (3, 2)
    assert told.avg_latency_ms == 1.0
    assert told.get_success_rate() == 0.9
    assert told.get_retry_rate() == 0.25
    assert told.to_dict()["success_rate"] == 0.9


def test_quantiles_are_read_from_the_histogram() -> None:
    told = ExecutorClientMetrics.of(ExecutorCounts.of(fields_of(1.5), {}))
    assert told.p95_latency_ms == pytest.approx(1500, rel=0.01)
    assert told.p99_latency_ms == pytest.approx(1500, rel=0.01)


def test_without_requests_both_rates_are_zero() -> None:
    assert ExecutorClientMetrics().get_success_rate() == 0.0
    assert ExecutorClientMetrics().get_retry_rate() == 0.0


def test_of_an_executor_without_calls_all_is_zero_and_the_breaker_closed() -> None:
    counts = ExecutorCounts.of({}, {})
    assert ExecutorClientMetrics.of(counts) == ExecutorClientMetrics()
    assert counts.breaker_state == "closed"
    assert set(counts.requests) == {(kind, outcome) for kind in CallKind for outcome in CallOutcome}


def test_it_does_not_change_once_it_was_read() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        ExecutorClientMetrics().total_requests = 1  # type: ignore[misc]
