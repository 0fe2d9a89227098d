"""The plans that all benchmarks submit: each has a target of its own, which names its number."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from dispatcher import FaultPlan, RawObservation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dispatcher import Dispatcher

WITHIN_S = 120.0

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


def carry_out(dispatcher: Dispatcher, plans: Iterable[FaultPlan]) -> list[str]:
    """Submit plans together and wait for them. Returns their ids. Raises if one has no observation."""
    batch = dispatcher.submit_many(plans)
    for result in batch.results(WITHIN_S):
        if not isinstance(result, RawObservation):
            raise result
    return [handle.id for handle in batch.handles]


def paced(count: int, per_s: float) -> Iterator[int]:
    """Numbers, each at its time, whether or not the caller is done with those before."""
    begun = time.monotonic()
    for number in range(count):
        time.sleep(max(0.0, begun + number / per_s - time.monotonic()))
        yield number
