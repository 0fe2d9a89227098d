"""The source specification's examples and tables, run by its own names against a stub of the Executor."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from support.plans import abort_plan
from support.stub_executor import StubExecutor

from dispatcher import InvalidPlanError
from dispatcher.specification import (
    ConnectionError as SpecifiedConnectionError,
)
from dispatcher.specification import (
    ExecutorClientConfig,
    ExecutorClientError,
    FaultPlan,
    FaultType,
    HttpExecutorClient,
    HttpExecutorClientWithExtendedAPI,
    IExecutorClient,
    RawObservation,
    RetryStrategy,
)
from dispatcher.specification import (
    TimeoutError as SpecifiedTimeoutError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Clients = Callable[..., HttpExecutorClient]

API = "/api/v1/payment/process"
QUICK: dict[str, Any] = {"initial_retry_delay_sec": 0.01, "max_retry_delay_sec": 0.02}


@pytest.fixture
def stub() -> Iterator[StubExecutor]:
    with StubExecutor() as stub:
        yield stub


@pytest.fixture
def client(stub: StubExecutor) -> Iterator[Clients]:
    """Makes clients of the stub, or of another port or host."""
    opened: list[HttpExecutorClient] = []

    def make(kind: type[HttpExecutorClient] = HttpExecutorClient, **config: Any) -> HttpExecutorClient:
        where = {"executor_host": "127.0.0.1", "executor_port": stub.port}
        opened.append(kind(ExecutorClientConfig(**(QUICK | where | config))))
        return opened[-1]

    yield make
    stub.instead.clear()
    for each in opened:
        each.close()


def applies(stub: StubExecutor) -> int:
    return stub.calls.count(("POST", "/v1/faults/apply"))


def test_the_examples_client_observes_the_examples_plan(stub: StubExecutor) -> None:
    config = ExecutorClientConfig(
        executor_host="127.0.0.1",
        executor_port=stub.port,
        max_retries=3,
        retry_strategy=RetryStrategy.EXPONENTIAL_BACKOFF,
        initial_retry_delay_sec=0.5,
        max_retry_delay_sec=10.0,
        default_timeout_sec=30.0,
        connection_timeout_sec=5.0,
        circuit_breaker_enabled=True,
        circuit_breaker_failure_threshold=5,
    )
    plan = FaultPlan(
        service="PaymentService",
        api="/api/v1/payment/process",
        fault_type=FaultType.DELAY,
        delay_seconds=2.5,
        percentage=50,
        duration_seconds=1,
        start_delay_ms=200,
    )
    with HttpExecutorClient(config) as client:
        assert isinstance(client, IExecutorClient)
        observation = client.apply_and_observe(plan)
    assert isinstance(observation, RawObservation)
    fault = observation.execution_id
    assert list(dict.fromkeys(stub.calls)) == [
        ("POST", "/v1/faults/apply"),
        ("GET", f"/v1/faults/{fault}/status"),
        ("GET", f"/v1/faults/{fault}/metrics"),
    ]
    assert stub.bodies[0] == {
        "service": "PaymentService",
        "api": "/api/v1/payment/process",
        "fault_type": "delay",
        "percentage": 50,
        "duration_seconds": 1,
        "fault_config": {"delay_ms": 2500, "start_delay_ms": 200},
    }


def test_the_health_is_asked_for_before_the_first_plan_and_once_in_an_interval(
    stub: StubExecutor, client: Clients
) -> None:
    one = client(HttpExecutorClientWithExtendedAPI)
    for _ in range(2):
        one.apply_and_observe(abort_plan())
    assert one.check_health()
    assert stub.health_checks == 1


@pytest.mark.parametrize("text", [False, True], ids=["a moment", "RFC 3339 text"])
def test_the_fault_begins_at_the_start_time(stub: StubExecutor, client: Clients, *, text: bool) -> None:
    extended = client(HttpExecutorClientWithExtendedAPI)
    assert isinstance(extended, HttpExecutorClientWithExtendedAPI)
    begins = datetime.now(UTC) + timedelta(seconds=0.5)
    plan = abort_plan(start_time=datetime.now(UTC) + timedelta(hours=1))
    extended.apply_and_observe(plan, 30.0, start_time=begins.isoformat() if text else begins)
    assert datetime.now(UTC) >= begins + timedelta(seconds=plan.duration_seconds)
    assert applies(stub) == 1


@pytest.mark.parametrize("start_time", [datetime(2001, 2, 3, tzinfo=UTC), datetime(2040, 2, 3), "soon"])  # noqa: DTZ001
def test_a_start_time_that_is_past_or_has_no_zone_is_refused(
    stub: StubExecutor, client: Clients, start_time: datetime | str
) -> None:
    extended = client(HttpExecutorClientWithExtendedAPI)
    assert isinstance(extended, HttpExecutorClientWithExtendedAPI)
    with pytest.raises(InvalidPlanError, match="start_time"):
        extended.apply_and_observe(abort_plan(), start_time=start_time)
    assert stub.calls == []


@pytest.mark.parametrize(
    ("status", "attempts"),
    [
        pytest.param(400, 1, id="Bad Request"),
        pytest.param(401, 1, id="Unauthorized"),
        pytest.param(404, 1, id="Not Found"),
        pytest.param(500, 3, id="Internal Server Error"),
        pytest.param(503, 3, id="Service Unavailable"),
    ],
)
def test_an_error_of_the_executor_is_retried_if_the_table_says_so(
    stub: StubExecutor, client: Clients, status: int, attempts: int
) -> None:
    stub.instead["apply", API] = lambda _: (status, {"error": "x"})
    with pytest.raises(ExecutorClientError) as caught:
        client(max_retries=2).apply_and_observe(abort_plan(api=API))
    assert not isinstance(caught.value, SpecifiedTimeoutError | SpecifiedConnectionError)
    assert applies(stub) == attempts


def test_an_apply_without_an_answer_in_time_is_a_timeout(stub: StubExecutor, client: Clients) -> None:
    def hangs_once(fault: str) -> None:
        stub.instead.clear()
        stub.let_go.wait(60)

    stub.instead["apply", API] = hangs_once
    with pytest.raises(SpecifiedTimeoutError, match="no answer in time"):
        client(max_retries=0, read_timeout_sec=60).apply_and_observe(abort_plan(api=API), timeout_sec=1.0)
    stub.let_go.set()


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"], ids=["refused", "DNS"])
def test_no_connection_is_a_connection_error(client: Clients, free_tcp_port: int, host: str) -> None:
    nowhere = client(executor_host=host, executor_port=free_tcp_port, max_retries=1)
    with pytest.raises(SpecifiedConnectionError):
        nowhere.apply_and_observe(abort_plan())
    assert nowhere.metrics().connection_errors == 2
    assert not nowhere.check_health()


@pytest.mark.parametrize("strategy", RetryStrategy, ids=lambda strategy: strategy.name)
def test_a_strategy_makes_its_attempts(stub: StubExecutor, client: Clients, strategy: RetryStrategy) -> None:
    stub.instead["apply", API] = lambda _: (503, {})
    with pytest.raises(ExecutorClientError):
        client(retry_strategy=strategy).apply_and_observe(abort_plan(api=API))
    assert applies(stub) == (1 if strategy is RetryStrategy.NONE else 4)


def test_an_open_breaker_is_a_connection_error_and_sends_nothing(stub: StubExecutor, client: Clients) -> None:
    one = client(max_retries=0)
    stub.instead["apply", API] = lambda _: (503, {})
    for _ in range(5):
        with pytest.raises(ExecutorClientError):
            one.apply_and_observe(abort_plan(api=API))
    calls = len(stub.calls)
    with pytest.raises(SpecifiedConnectionError, match="circuit breaker"):
        one.apply_and_observe(abort_plan(api="/another"))
    assert len(stub.calls) == calls
    assert one.metrics().circuit_breaker_opens == 1


def test_without_its_breaker_every_plan_reaches_the_executor(stub: StubExecutor, client: Clients) -> None:
    one = client(max_retries=0, circuit_breaker_enabled=False, circuit_breaker_failure_threshold=1)
    for api in ("/one", "/another"):
        stub.refuse(api, (503, {}))
        with pytest.raises(ExecutorClientError, match="503"):
            one.apply_and_observe(abort_plan(api=api))
    assert one.metrics().circuit_breaker_opens == 0


def test_the_metrics_say_what_the_calls_have_shown(stub: StubExecutor, client: Clients) -> None:
    one = client()
    stub.answers.append((503, {}))
    one.apply_and_observe(abort_plan())
    stub.answers.append((400, {}))
    with pytest.raises(ExecutorClientError):
        one.apply_and_observe(abort_plan())
    metrics = one.metrics()
    assert (metrics.total_requests, metrics.failed_requests) == (len(stub.calls), 2)
    assert (metrics.total_retries, metrics.successful_retries, metrics.bad_request_errors) == (1, 1, 1)
    assert metrics.get_success_rate() == metrics.successful_requests / metrics.total_requests
    assert metrics.get_retry_rate() == 1 / metrics.total_requests


def test_successes_are_logged_for_debugging_retries_for_information_and_failures_as_errors(
    stub: StubExecutor, client: Clients, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, logger="workers.local")
    one = client(max_retries=1)
    stub.answers.append((503, {}))
    one.apply_and_observe(abort_plan())
    stub.answers.append((401, {}))
    with pytest.raises(ExecutorClientError):
        one.apply_and_observe(abort_plan())
    levels = [record.levelname for record in caplog.records if record.name == "workers.local"]
    assert levels == ["INFO", "DEBUG", "ERROR"]
