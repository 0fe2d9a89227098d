"""What the Executor accepts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from executor.contract import FaultApply, Moment

ABORT: dict[str, Any] = {
    "service": "OrderService",
    "api": "/api/orders",
    "fault_type": "abort",
    "percentage": 30,
    "duration_seconds": 5,
    "fault_config": {"http_status": 503},
}


def test_a_fault_as_in_the_contract_is_accepted() -> None:
    assert FaultApply.model_validate(ABORT).held_ms == 0
    held = {"fault_type": "delay", "fault_config": {"delay_ms": 2500, "start_delay_ms": 200}}
    assert FaultApply.model_validate(ABORT | held).held_ms == 2700


@pytest.mark.parametrize(
    "change",
    [
        {"headers": {"x-test-run": "42"}},
        {"headers": {f"x-{number}": "x" * 256 for number in range(8)}},
        {"headers": None},
        {"protocol": "http"},
        {"protocol": "grpc", "fault_config": {"grpc_status": 14}},
        {"protocol": "grpc", "fault_type": "delay", "fault_config": {"delay_ms": 5}},
    ],
)
def test_the_optional_fields_are_accepted_and_survive_a_restart(change: dict[str, Any]) -> None:
    fault = FaultApply.model_validate(ABORT | change)
    assert FaultApply.model_validate(fault.model_dump(mode="json")) == fault


@pytest.mark.parametrize(
    "change",
    [
        {"service": ""},
        {"api": "orders"},
        {"api": "/a?b"},
        {"fault_type": "explode"},
        {"percentage": 101},
        {"percentage": "30"},
        {"percentage": 30.5},
        {"duration_seconds": 0},
        {"duration_seconds": 1.5},
        {"fault_config": {}},
        {"fault_config": {"http_status": 399}},
        {"fault_config": {"http_status": 503, "delay_ms": 1}},
        {"fault_config": {"http_status": 503, "start_delay_ms": -1}},
        {"fault_type": "delay"},
        {"headers": {}},
        {"headers": {"X-Test-Run": "42"}},
        {"headers": {":path": "/a"}},
        {"headers": {"a b": "42"}},
        {"headers": {"x-test-run": 42}},
        {"headers": {"x-test-run": ""}},
        {"headers": {"x-test-run": " 42"}},
        {"headers": {"x-test-run": "42\n"}},
        {"headers": {"x-test-run": "x" * 257}},
        {"headers": {f"x-{number}": "42" for number in range(9)}},
        {"protocol": "grpc"},
        {"protocol": "http2"},
        {"protocol": None},
        {"fault_config": {"grpc_status": 14}},
        {"protocol": "grpc", "fault_config": {"grpc_status": 0}},
        {"protocol": "grpc", "fault_config": {"grpc_status": 17}},
        {"protocol": "grpc", "fault_config": {"grpc_status": 14, "http_status": 503}},
        {"protocol": "grpc", "fault_type": "delay", "fault_config": {"grpc_status": 14, "delay_ms": 5}},
    ],
)
def test_anything_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FaultApply.model_validate(ABORT | change)


@pytest.mark.parametrize(
    "text", ["2030-01-31T12:00:00.250Z", "2030-01-31T13:00:00.25+01:00", "2030-01-31T12:00:00.250000000Z"]
)
def test_a_moment_is_a_date_and_time_with_an_offset(text: str) -> None:
    assert TypeAdapter(Moment).validate_python(text) == datetime(2030, 1, 31, 12, 0, 0, 250_000, UTC)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "soon",
        "1900000000",
        "2030-01-31",
        "2030-01-31 12:00:00.000Z",
        "2030-01-31T12:00:00.000",
        "2030-01-32T12:00:00.000Z",
        "2030-01-31T12:00:00.000Z and more",
    ],
)
def test_anything_else_is_not_a_moment(text: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Moment).validate_python(text)
