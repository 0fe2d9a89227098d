"""From the Recommender to the observation: nothing here is simulated."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
from support.plans import abort_plan, delay_plan

if TYPE_CHECKING:
    from support.processes import ExecutorProcess, Process, Workers

    from dispatcher import Dispatcher

PAY = "/api/v1/payment/process"


def known(figure: float | None) -> float:
    assert figure is not None
    return figure


@pytest.fixture
def fleet(start: Workers, executor: ExecutorProcess) -> list[Process]:
    return [start(executor.url), start(executor.url)]


@pytest.mark.usefixtures("fleet")
def test_observations_fit_their_plans(dispatcher: Dispatcher) -> None:
    handles = {
        "baseline": dispatcher.submit(delay_plan(percentage=0, duration_seconds=3, api="/api/baseline")),
        "delay": dispatcher.submit(delay_plan(delay_seconds=0.3, percentage=50, duration_seconds=5)),
        "outage": dispatcher.submit(abort_plan(service="OrderService", duration_seconds=3)),
        "errors": dispatcher.submit(
            abort_plan(service="InventoryService", percentage=30, duration_seconds=6)
        ),
        "late": dispatcher.submit(
            abort_plan(api="/api/late", abort_http_status=500, start_delay_ms=150, duration_seconds=3)
        ),
    }
    seen = {name: handle.result(60) for name, handle in handles.items()}
    assert seen["baseline"].error_rate == 0.0
    assert known(seen["delay"].latency_ms) > known(seen["baseline"].latency_ms) + 75
    assert (seen["outage"].error_rate, seen["outage"].status_code) == (1.0, 503)
    assert 0.15 <= known(seen["errors"].error_rate) <= 0.45
    assert (seen["late"].error_rate, seen["late"].status_code) == (1.0, 500)
    assert known(seen["late"].latency_ms) >= 140
    for observation in seen.values():
        assert known(observation.requests) > 50
        assert observation.logs
        assert isinstance(observation.trace_data, dict)
        assert observation.trace_data["resourceSpans"]


def test_twenty_plans_at_once_need_one_thread(
    dispatcher: Dispatcher, start: Workers, executor: ExecutorProcess
) -> None:
    start(executor.url, "--concurrency", "1")
    begun = time.monotonic()
    plans = [abort_plan(api=f"/api/target{number}", duration_seconds=3) for number in range(20)]
    handles = [dispatcher.submit(plan) for plan in plans]
    observations = [handle.result(60) for handle in handles]
    assert time.monotonic() - begun < 20 * 3 / 2  # half of the time that they would take one after the other
    assert {observation.error_rate for observation in observations} == {1.0}
