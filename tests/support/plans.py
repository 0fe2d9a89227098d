"""Plans for tests that care about little of them."""

from __future__ import annotations

from typing import Any

from dispatcher import FaultPlan


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
