"""What the demo accepts as an observation that fits its plan."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from support.plans import abort_plan, delay_plan

from dispatcher import FaultPlan, RawObservation
from dispatcher.cli.demo import fits

BASELINE_MS = 2.0


def observed(**changes: Any) -> RawObservation:
    fields = {
        "execution_id": "f1",
        "timestamp": datetime.now(UTC),
        "status_code": 200,
        "latency_ms": 2.0,
        "error_rate": 0.0,
        "requests": 200,
    }
    return RawObservation.model_validate(fields | changes)


@pytest.mark.parametrize(
    ("plan", "changes"),
    [
        (abort_plan(), {"status_code": 503, "error_rate": 1.0}),
        (abort_plan(percentage=30), {"error_rate": 0.15}),
        (abort_plan(percentage=30), {"error_rate": 0.45}),
        (delay_plan(delay_seconds=0.3, percentage=50), {"latency_ms": 150}),
        (delay_plan(percentage=0), {}),
        (abort_plan(start_delay_ms=100), {"status_code": 503, "error_rate": 1.0, "latency_ms": 100}),
    ],
)
def test_what_the_plan_should_cause_fits(plan: FaultPlan, changes: dict[str, Any]) -> None:
    assert fits(plan, observed(**changes), BASELINE_MS) is None


@pytest.mark.parametrize(
    ("plan", "changes", "told"),
    [
        (abort_plan(), {"requests": 0, "error_rate": None, "latency_ms": None}, "no request"),
        (abort_plan(), {"requests": None}, "no request"),
        (abort_plan(), {"error_rate": None}, "not observed"),
        (abort_plan(), {"latency_ms": None}, "not observed"),
        (abort_plan(), {"status_code": 503, "error_rate": 0.99}, "error rate"),
        (abort_plan(), {"status_code": 500, "error_rate": 1.0}, "status 500"),
        (abort_plan(percentage=30), {"error_rate": 0.14}, "error rate"),
        (abort_plan(percentage=30), {"error_rate": 0.46}, "error rate"),
        (delay_plan(delay_seconds=0.3, percentage=50), {"latency_ms": 100}, "mean latency"),
        (delay_plan(delay_seconds=0.3, percentage=50), {"latency_ms": 150, "error_rate": 0.01}, "error rate"),
        (abort_plan(start_delay_ms=100), {"status_code": 503, "error_rate": 1.0}, "mean latency"),
    ],
)
def test_anything_else_is_reported(plan: FaultPlan, changes: dict[str, Any], told: str) -> None:
    misfit = fits(plan, observed(**changes), BASELINE_MS)
    assert misfit is not None
    assert told in misfit
