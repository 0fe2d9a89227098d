"""The client without a queue, against a stub, and against the reference Executor."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from support.eventually import eventually
from support.plans import abort_plan
from support.processes import Process
from support.stub_executor import UNKNOWN, StubExecutor

from dispatcher import (
    CircuitOpenError,
    Dispatcher,
    ExecutorClient,
    ExecutorClientConfig,
    ExecutorClientMetrics,
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorServerError,
    ExecutorTimeoutError,
    FaultInDoubtError,
    FaultLostError,
    FaultUnobservedError,
    InvalidPlanError,
)
from dispatcher.settings.executors import ProbeSettings, ServiceSettings
from workers.local import HttpExecutorClient

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import redis
    from support.processes import ExecutorProcess

    from dispatcher import Settings

    Clients = Callable[..., HttpExecutorClient]

API = "/api/v1/watched"
QUICK = {"initial_retry_delay_sec": 0.01, "max_retry_delay_sec": 0.02, "connection_timeout_sec": 1.0}


@pytest.fixture
def stub() -> Iterator[StubExecutor]:
    with StubExecutor() as stub:
        yield stub


@pytest.fixture
def client() -> Iterator[Clients]:
    opened: list[HttpExecutorClient] = []

    def make(url: str, redis_url: str | None = None, **config: object) -> HttpExecutorClient:
        made = ExecutorClientConfig.model_validate({"base_url": url} | QUICK | config)
        opened.append(HttpExecutorClient(made, redis_url=redis_url))
        return opened[-1]

    yield make
    for each in opened:
        each.close()


def test_a_plan_is_applied_waited_for_and_observed(stub: StubExecutor, client: Clients) -> None:
    direct = client(stub.url)
    assert isinstance(direct, ExecutorClient)
    begun = time.monotonic()
    observation = direct.apply_and_observe(abort_plan(), timeout_sec=10)
    assert time.monotonic() - begun >= 1.0
    assert (observation.status_code, observation.error_rate) == (503, 1.0)
    [fault] = stub.running
    paths = ["/v1/faults/apply", f"/v1/faults/{fault}/status", f"/v1/faults/{fault}/metrics"]
    assert list(dict.fromkeys(path for _, path in stub.calls)) == paths


def test_the_reference_executor_is_observed_without_a_queue(
    executor: ExecutorProcess, client: Clients
) -> None:
    direct = client(executor.url)
    assert direct.check_health()
    with pytest.raises(FaultUnobservedError, match="no request met its fault"):
        direct.apply_and_observe(abort_plan(api="/api/local"))
    observation = direct.apply_and_observe(abort_plan(api="/api/local", min_requests=0))
    assert observation.execution_id.startswith("f-")
    assert (observation.requests, observation.error_rate) == (0, None)


def test_the_policy_api_is_observed_by_probes_without_a_queue(executor: ExecutorProcess) -> None:
    probe = ProbeSettings(kind="probe")
    config = ExecutorClientConfig(base_url=executor.url, driver="policy_api", observer=probe)
    services = {"OrderService": ServiceSettings(base_url=executor.proxy, host_header="OrderService")}
    with HttpExecutorClient(config, services=services) as direct:
        plan = abort_plan(service="OrderService", api="/api/local-policy", duration_seconds=3)
        observation = direct.apply_and_observe(plan)  # of a fault that outlasts a slow apply
        assert observation.error_rate == 1.0
        with pytest.raises(InvalidPlanError, match=r"services.PaymentService"):
            direct.apply_and_observe(abort_plan())


def test_a_transient_trouble_is_tried_again_under_the_same_key(stub: StubExecutor, client: Clients) -> None:
    stub.answers.extend([(503, {}), (500, {})])
    assert client(stub.url).apply_and_observe(abort_plan()).error_rate == 1.0
    keys = {headers.get("idempotency-key") for headers in stub.headers}
    assert len(keys - {None}) == 1
    assert stub.applied.total() == 1


def test_a_trouble_that_lasts_ends_with_its_error(client: Clients, free_tcp_port: int) -> None:
    with pytest.raises(ExecutorConnectionError, match="connection refused"):
        client(f"http://127.0.0.1:{free_tcp_port}").apply_and_observe(abort_plan())


def test_nonsense_at_the_status_stops_the_fault(stub: StubExecutor, client: Clients) -> None:
    direct = client(stub.url)
    stub.answers.extend([(200, {"apply_id": "f1", "status": "applied"}), (200, b"what?")])
    stub.running["f1"] = 1e12
    with pytest.raises(ExecutorProtocolError):
        direct.apply_and_observe(abort_plan())
    assert stub.stopped == {"f1"}


def test_a_fault_that_lasts_longer_than_its_budget_is_stopped(stub: StubExecutor, client: Clients) -> None:
    stub.answers.append((200, {"apply_id": "f1", "status": "applied"}))
    stub.running["f1"] = 1e12
    with pytest.raises(ExecutorTimeoutError, match="lasted longer than planned"):
        client(stub.url).apply_and_observe(abort_plan(), timeout_sec=0.5)
    assert stub.stopped == {"f1"}


def loses_it(stub: StubExecutor) -> None:
    stub.forget(API)


def cannot_stop_it(stub: StubExecutor) -> None:
    stub.instead["stop", API] = lambda _: (202, {})
    stub.instead["status", API] = lambda fault: (200, {"apply_id": fault, "status": "running"})


@pytest.mark.parametrize(
    ("executor", "why"),
    [
        pytest.param(loses_it, "the Executor does not know fault", id="loses it"),
        pytest.param(cannot_stop_it, "the Executor still has fault", id="only accepts its stop"),
    ],
)
def test_a_fault_of_which_no_answer_says_that_it_is_over_is_in_doubt(
    stub: StubExecutor, client: Clients, executor: Callable[[StubExecutor], None], why: str
) -> None:
    stub.lists_faults = False
    executor(stub)
    direct = client(stub.url, stop_confirmation_sec=0.3, check_interval_sec=0.2)
    begun = time.monotonic()
    with pytest.raises(FaultInDoubtError, match=why) as caught:
        direct.apply_and_observe(abort_plan(api=API), timeout_sec=0.5)
    assert time.monotonic() - begun < 10
    assert caught.value.apply_id in stub.running
    assert "the fault may be alive until" in caught.value.message or "lasted longer" in caught.value.message


def test_a_lost_fault_that_is_absent_from_the_executors_list_is_over(
    stub: StubExecutor, client: Clients
) -> None:
    def forget(fault: str) -> tuple[int, object]:
        stub.running.pop(fault, None)
        return UNKNOWN

    stub.instead["status", API] = forget
    direct = client(stub.url, check_interval_sec=0.1)
    with pytest.raises(FaultLostError, match="did it restart"):
        direct.apply_and_observe(abort_plan(api=API, duration_seconds=60))
    assert stub.lists == 1


def test_an_apply_that_was_carried_out_although_its_answer_is_an_error_is_stopped(
    stub: StubExecutor, client: Clients
) -> None:
    stub.lists_faults = stub.honours_not_after = False

    def busy(fault: str) -> tuple[int, object] | None:
        """The first apply begins its fault. The next one names it."""
        if fault in stub.running:
            return None
        stub.running[fault] = time.monotonic() + 60
        stub.requests[fault] = stub.bodies[-1]
        return 503, {"error": "busy"}

    stub.instead["apply", API] = busy
    direct = client(stub.url, max_retries=0, takes_effect_sec=1)
    with pytest.raises(ExecutorServerError, match="busy"):
        direct.apply_and_observe(abort_plan(api=API, duration_seconds=60))
    assert stub.stopped == set()
    direct.close()
    assert stub.stopped == set(stub.running)
    assert len(stub.stopped) == 1


def test_a_fault_in_doubt_is_stopped_once_more_before_the_next_plan_for_its_target(
    stub: StubExecutor, client: Clients
) -> None:
    stub.lists_faults = False
    stub.answers.append((503, {}))
    direct = client(stub.url, max_retries=0)
    with pytest.raises(ExecutorServerError):
        direct.apply_and_observe(abort_plan(api=API))
    direct.apply_and_observe(abort_plan(api="/another"))
    assert [body["api"] for body in stub.bodies if body] == [API, "/another"]
    direct.apply_and_observe(abort_plan(api=API))
    assert [body["api"] for body in stub.bodies if body] == [API, "/another", API, API]
    keys = [headers.get("idempotency-key") for headers in stub.headers if "idempotency-key" in headers]
    assert keys[0] == keys[2] != keys[3]


def test_a_fault_that_takes_effect_late_is_longer_and_one_without_requests_unobserved(
    stub: StubExecutor, client: Clients
) -> None:
    stub.figures[API] = {"requests": 0, "faulted": 0, "success_count": 0, "error_count": 0}
    direct = client(stub.url, takes_effect_sec=1)
    with pytest.raises(FaultUnobservedError, match="no request met its fault"):
        direct.apply_and_observe(abort_plan(api=API))
    [sent] = stub.requests.values()
    assert sent["duration_seconds"] == 2


def test_its_breaker_opens_and_lets_no_more_calls_through(stub: StubExecutor, client: Clients) -> None:
    direct = client(stub.url, circuit_breaker_failure_threshold=2, max_retries=0)
    stub.instead["apply", API] = lambda _: (503, {})
    for _ in range(2):
        with pytest.raises(ExecutorServerError):
            direct.apply_and_observe(abort_plan(api=API))
    calls = len(stub.calls)
    with pytest.raises(CircuitOpenError) as caught:
        direct.apply_and_observe(abort_plan(api="/another"))
    assert (caught.value.retry_after_s or 0) > 50
    assert len(stub.calls) == calls


def test_with_a_redis_its_breaker_is_the_one_of_the_fleet(
    stub: StubExecutor, client: Clients, redis_url: str, real_redis: redis.Redis
) -> None:
    config = {"circuit_breaker_failure_threshold": 1, "max_retries": 0}
    one, other = (client(stub.url, redis_url, **config) for _ in range(2))
    stub.answers.append((503, {}))
    with pytest.raises(ExecutorServerError):
        one.apply_and_observe(abort_plan())
    with pytest.raises(CircuitOpenError):
        other.apply_and_observe(abort_plan())
    assert real_redis.hget("{dispatcher}:breaker:default", "state") == "open"


def test_its_calls_are_counted_in_the_process(stub: StubExecutor, client: Clients) -> None:
    direct = client(stub.url)
    assert direct.metrics() == ExecutorClientMetrics()
    stub.answers.append((503, {}))
    direct.apply_and_observe(abort_plan())
    told = direct.metrics()
    assert (told.total_requests, told.failed_requests) == (len(stub.calls), 1)
    assert (told.total_retries, told.successful_retries) == (1, 1)
    assert told.get_success_rate() == 1 - 1 / len(stub.calls)
    assert 0 < told.avg_latency_ms <= told.p95_latency_ms <= told.p99_latency_ms
    assert client(stub.url).metrics() == ExecutorClientMetrics()  # each client's are its own


def test_its_breakers_changes_are_counted_in_the_process(stub: StubExecutor, client: Clients) -> None:
    times = {"circuit_breaker_timeout_sec": 0.2, "circuit_breaker_max_timeout_sec": 0.4}
    direct = client(stub.url, circuit_breaker_failure_threshold=1, circuit_breaker_on_open="defer", **times)
    stub.answers.append((503, {}))
    direct.apply_and_observe(abort_plan())
    told = direct.metrics()
    assert (told.circuit_breaker_opens, told.circuit_breaker_half_opens) == (1, 1)


def test_with_a_redis_its_calls_count_among_those_of_the_fleet(
    stub: StubExecutor, client: Clients, redis_url: str, settings: Settings
) -> None:
    one, other = (client(stub.url, redis_url, circuit_breaker_failure_threshold=1) for _ in range(2))
    one.apply_and_observe(abort_plan())
    calls = len(stub.calls)
    stub.answers.extend([(200, {"apply_id": "f1", "status": "applied"}), (200, b"what?")])
    stub.running["f1"] = 1e12
    with pytest.raises(ExecutorProtocolError):
        other.apply_and_observe(abort_plan())
    with Dispatcher(settings) as dispatcher:
        fleet = dispatcher.metrics()
    assert one.metrics().total_requests == calls
    assert other.metrics().total_requests == 3  # apply, status and stop
    assert (fleet.total_requests, fleet.failed_requests) == (calls + 3, 1)
    assert fleet.circuit_breaker_opens == one.metrics().circuit_breaker_opens == 1


def test_while_its_redis_is_away_it_counts_for_itself(
    stub: StubExecutor, client: Clients, free_tcp_port: int
) -> None:
    config = {"circuit_breaker_failure_threshold": 1, "max_retries": 0}
    direct = client(stub.url, f"redis://127.0.0.1:{free_tcp_port}/0", **config)
    stub.answers.append((503, {}))
    with pytest.raises(ExecutorServerError):
        direct.apply_and_observe(abort_plan())
    assert (direct.metrics().total_requests, direct.metrics().circuit_breaker_opens) == (1, 1)


def test_a_plan_that_the_breaker_defers_is_carried_out_once_it_may_be(
    stub: StubExecutor, client: Clients
) -> None:
    times = {"circuit_breaker_timeout_sec": 0.2, "circuit_breaker_max_timeout_sec": 0.4}
    direct = client(stub.url, circuit_breaker_failure_threshold=1, circuit_breaker_on_open="defer", **times)
    stub.answers.append((503, {}))
    assert direct.apply_and_observe(abort_plan()).error_rate == 1.0
    assert [method for method, _ in stub.calls].count("POST") == 2
    assert stub.applied.total() == 1


def test_the_health_is_asked_for_once_in_an_interval(stub: StubExecutor, client: Clients) -> None:
    direct = client(stub.url)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda n: direct.apply_and_observe(abort_plan(api=f"/{n}")), range(4)))
    assert direct.check_health()
    assert stub.health_checks == 1
    stub.down = True
    assert not client(stub.url, health_check_interval_sec=0.001).check_health()


def test_a_plan_for_later_waits_and_one_for_the_past_is_refused(stub: StubExecutor, client: Clients) -> None:
    direct = client(stub.url)
    later = datetime.now(UTC) + timedelta(seconds=0.5)
    direct.apply_and_observe(abort_plan(start_time=later))
    assert datetime.now(UTC) >= later + timedelta(seconds=1)
    with pytest.raises(InvalidPlanError, match="start_time has passed"):
        direct.apply_and_observe(abort_plan(start_time=later))


@pytest.mark.parametrize("timeout_sec", [0, -1, 1e308, float("inf"), float("nan")])
def test_an_invalid_timeout_is_refused(stub: StubExecutor, client: Clients, timeout_sec: float) -> None:
    with pytest.raises(InvalidPlanError, match="timeout_sec"):
        client(stub.url).apply_and_observe(abort_plan(), timeout_sec)
    assert stub.calls == []


PROGRAM = """
import sys
from dispatcher import ExecutorClientConfig, FaultPlan
from workers.local import HttpExecutorClient
plan = FaultPlan.model_validate_json(sys.argv[2])
HttpExecutorClient(ExecutorClientConfig(base_url=sys.argv[1])).apply_and_observe(plan)
"""


def test_ctrl_c_stops_the_fault(stub: StubExecutor, tmp_path: Path) -> None:
    plan = json.dumps(abort_plan(duration_seconds=60).model_dump(mode="json", exclude_none=True))
    with Process([sys.executable, "-c", PROGRAM, stub.url, plan], tmp_path / "log") as process:
        eventually(lambda: stub.running)
        process.send_signal(signal.SIGINT)
        process.wait()
    assert process.output.splitlines()[-1] == "KeyboardInterrupt"
    assert stub.stopped == set(stub.running)


def test_a_retry_is_logged_with_its_plan(
    stub: StubExecutor, client: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    stub.answers.append((503, {}))
    with caplog.at_level(logging.INFO, logger="workers.local"):
        client(stub.url).apply_and_observe(abort_plan())
    assert "503 service unavailable" in caplog.text


def test_threads_share_one_client(stub: StubExecutor, client: Clients) -> None:
    direct, barrier = client(stub.url), threading.Barrier(4)

    def carry_out(number: int) -> float | None:
        barrier.wait(5)
        return direct.apply_and_observe(abort_plan(api=f"/{number}")).error_rate

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(carry_out, range(4))) == [1.0] * 4
