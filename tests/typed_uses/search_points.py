"""Make plans of an optimiser's points."""

from datetime import UTC, datetime
from typing import assert_type

from dispatcher import FaultPlan, FaultType


def run() -> FaultPlan:
    point = {"service": "A", "api": "/x", "delay_ms": 200.0, "percentage": 0.3}
    plan = FaultPlan.from_point(point, percentage_is="share", duration_seconds=30)
    assert_type(plan, FaultPlan)
    assert_type(plan.fault_type, FaultType)
    assert_type(FaultPlan.explain_point(point, percentage_is="share", duration_seconds=30), list[str])
    later = plan.starting_at(datetime(2030, 1, 31, 12, tzinfo=UTC))
    assert_type(later, FaultPlan)
    assert_type(later.start_time, datetime | None)
    return later
