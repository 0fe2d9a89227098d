"""An Executor without metrics: the policy API of the reference Executor, and who observes its faults."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
import requests
from support.eventually import eventually
from support.plans import abort_plan, delay_plan

from dispatcher import Dispatcher, InvalidPlanError, PlanCancelledError

if TYPE_CHECKING:
    from pathlib import Path

    from support.processes import ExecutorProcess, Process, Workers

SETTINGS = """
[executors.default]
driver = "policy_api"

[executors.default.observer]
kind = "probe"
requests_per_sec = 10

[services.OrderService]
base_url = "{proxy}"
host_header = "OrderService"
"""


@pytest.fixture
def worker(start: Workers, executor: ExecutorProcess, tmp_path: Path) -> Process:
    config = tmp_path / "settings.toml"
    config.write_text(SETTINGS.format(proxy=executor.proxy))
    return start(executor.url, DISPATCHER_CONFIG=str(config))


@pytest.mark.usefixtures("worker")
def test_an_abort_is_seen_by_the_probes_and_is_gone_afterwards(
    dispatcher: Dispatcher, executor: ExecutorProcess
) -> None:
    plan = abort_plan(service="OrderService", api="/api/probed", percentage=100, duration_seconds=3)
    handle = dispatcher.submit(plan)
    observation = handle.result(60)
    assert observation.status_code == 503
    assert observation.requests is not None
    assert 1 <= observation.requests <= 30  # fewer on a busy machine
    assert (observation.error_count, observation.success_count) == (observation.requests, 0)
    assert (observation.error_rate, observation.unanswered, observation.faulted) == (1.0, 0, None)
    before, during, after = observation.logs
    assert before.startswith("before the fault: 10 requests (10 x 200)")
    count = observation.requests
    assert during.startswith(f"during the fault: {count} requests ({count} x 503)")
    assert re.match(r"after the fault: (\d+) requests \(\1 x 200\)", after)
    assert observation.baseline is not None
    assert observation.recovery is not None
    assert (observation.baseline.error_rate, observation.recovery.error_rate) == (0.0, 0.0)
    name = f"plan-{handle.id}"
    assert observation.execution_id == name
    assert requests.get(f"{executor.url}/v1/policies/{name}", timeout=60).status_code == 404


@pytest.mark.usefixtures("worker")
def test_a_delay_is_seen_in_the_latency(dispatcher: Dispatcher) -> None:
    plan = delay_plan(service="OrderService", api="/api/slow", delay_seconds=0.4, duration_seconds=2)
    observation = dispatcher.submit(plan).result(60)
    assert (observation.error_rate, observation.status_code) == (0.0, 200)
    assert observation.latency_ms is not None
    assert 400 <= observation.latency_ms < 700


def test_more_plans_are_looked_at_than_a_worker_has_threads(
    dispatcher: Dispatcher, start: Workers, executor: ExecutorProcess, tmp_path: Path
) -> None:
    config = tmp_path / "settings.toml"
    config.write_text(SETTINGS.format(proxy=executor.proxy))
    log = start(executor.url, "--concurrency", "2", DISPATCHER_CONFIG=str(config))
    plans = [
        delay_plan(service="OrderService", api=f"/api/slow{number}", delay_seconds=1, duration_seconds=10)
        for number in range(3)
    ]
    for handle in [dispatcher.submit(plan) for plan in plans]:
        observation = handle.result(90)
        assert observation.requests is not None
        assert observation.latency_ms is not None
        assert 1 <= observation.requests <= 100
        assert observation.latency_ms >= 990
    assert "its lease was lost" not in log.output


@pytest.mark.usefixtures("worker")
def test_a_cancelled_plan_leaves_no_policy_behind(dispatcher: Dispatcher, executor: ExecutorProcess) -> None:
    plan = abort_plan(service="OrderService", api="/api/cancelled", duration_seconds=60)
    handle = dispatcher.submit(plan)
    policy = f"{executor.url}/v1/policies/plan-{handle.id}"
    eventually(lambda: requests.get(policy, timeout=60).status_code == 200)
    handle.cancel("enough")
    with pytest.raises(PlanCancelledError):
        handle.result(60)
    assert requests.get(policy, timeout=60).status_code == 404


@pytest.mark.usefixtures("worker")
def test_a_service_that_no_worker_can_probe_is_never_hit(
    dispatcher: Dispatcher, executor: ExecutorProcess
) -> None:
    handle = dispatcher.submit(abort_plan(service="PaymentService", api="/api/unseen"))
    with pytest.raises(InvalidPlanError, match=r"add \[services.PaymentService\]"):
        handle.result(60)
    policy = f"{executor.url}/v1/policies/plan-{handle.id}"
    assert requests.get(policy, timeout=60).status_code == 404
