"""The plans that all benchmarks submit: each has a target of its own, which names its number."""

from __future__ import annotations

import json
from typing import Any

from dispatcher import FaultPlan

SERVICE = "Target"


def plan(number: int, duration_s: int = 1, prefix: str = "/plan") -> FaultPlan:
    """Plan `number`. Its target's path begins with `prefix`, by which an Executor may distinguish plans."""
    return FaultPlan.model_validate(
        {
            "service": SERVICE,
            "api": api(number, prefix),
            "fault_type": "abort",
            "abort_http_status": 503,
            "percentage": 100,
            "duration_seconds": duration_s,
        }
    )


def body(number: int, duration_s: int = 1) -> dict[str, Any]:
    """The same plan as a request to the Executor."""
    fields: dict[str, Any] = json.loads(plan(number, duration_s).model_dump_json(exclude_none=True))
    return fields | {"fault_config": {"http_status": fields.pop("abort_http_status")}}


def api(number: int, prefix: str = "/plan") -> str:
    """Path of the target of plan `number`."""
    return f"{prefix}/{number}"


def number_of(path: str) -> int:
    """The number of the plan whose target has this path."""
    return int(path.rpartition("/")[2])
