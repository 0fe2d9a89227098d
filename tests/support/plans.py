"""Plans for tests that care about little of them."""

from __future__ import annotations

from typing import Any

from dispatcher import FaultPlan
from dispatcher.ledger.record import PlanRecord


def abort_plan(**changes: Any) -> FaultPlan:
    fields = {
        "service": "PaymentService",
        "api": "/api/v1/payment/process",
        "fault_type": "abort",
        "abort_http_status": 503,
        "percentage": 100,
        "duration_seconds": 1,
    }
    return FaultPlan(**(fields | changes))


def delay_plan(**changes: Any) -> FaultPlan:
    fields = {"fault_type": "delay", "delay_seconds": 2.5, "abort_http_status": None}
    return abort_plan(**(fields | changes))


def plan_record(plan_id: str, **changes: Any) -> PlanRecord:
    """A plan as the ledger has it that was just submitted."""
    fields: dict[str, Any] = {"plan": abort_plan(), "executor": "default", "timeout_ms": 30_000}
    return PlanRecord(plan_id, **(fields | {"submitted_ms": 1, "due_ms": 1} | changes))
