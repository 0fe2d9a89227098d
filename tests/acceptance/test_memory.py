"""What many retries leave behind in a worker, in numbers of objects."""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from support.eventually import eventually
from support.fleet import Fleet
from support.own_tasks import live_objects

from dispatcher import PlanState

if TYPE_CHECKING:
    from collections.abc import Iterator

TESTS = Path(__file__).parents[1]
PLANS = 40
OF_A_STEP = ["Lease", "StepCalls", "Execution", "_Item"]
COPIES = ["Traceback", "_Frame", "_Code"]
"""Billiard's copies of tracebacks, each of which has thousands of tuples."""

FEW = 5
"""What is under way at any moment."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    options = ["--include", "support.own_tasks", "--concurrency", "2"]
    environment = {
        "PYTHONPATH": str(TESTS),
        "DISPATCHER_EXECUTORS__DEFAULT__CIRCUIT_BREAKER_ENABLED": "false",
    }
    with Fleet(tmp_path_factory.mktemp("fleet"), *options, **environment) as fleet:
        yield fleet


def live(fleet: Fleet, names: list[str], *, collect: bool) -> dict[str, int]:
    """How many objects of these classes the worker has. See `live_objects`."""
    counts: dict[str, int] = fleet.app.send_task(live_objects.name, args=[names, collect]).get(timeout=20)
    return counts


def fail_once(fleet: Fleet, count: int) -> None:
    """Carry out plans whose first applies fail, up to their faults' begin."""
    handles = []
    for _ in range(count):
        api = fleet.target()
        fleet.stub.refusals[api] = deque([(503, {"error": "down"})])
        handles.append(fleet.submit(api=api, duration_seconds=60))
    eventually(lambda: all(each.status().state is PlanState.RUNNING for each in handles), within_s=30)


def test_a_retry_leaves_nothing_that_only_the_collector_would_free(fleet: Fleet) -> None:
    fail_once(fleet, 2)
    names = [*OF_A_STEP, *COPIES]
    live(fleet, names, collect=False)
    fail_once(fleet, PLANS)
    left = live(fleet, names, collect=False)
    assert max(left.values()) <= FEW, left


def test_a_retry_leaves_nothing_at_all(fleet: Fleet) -> None:
    names = ["Request", "Retry", "Entry", "Message", "Signature", "Future", "PlanRecord", *OF_A_STEP, *COPIES]
    fail_once(fleet, PLANS)
    before = live(fleet, names, collect=True)
    fail_once(fleet, PLANS)
    after = live(fleet, names, collect=True)
    assert all(after[name] <= before[name] + FEW for name in names), (before, after)
