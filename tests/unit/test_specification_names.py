"""`dispatcher.specification` has the source specification's names; its breaker follows the state diagram."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from support.plans import abort_plan

import dispatcher
from dispatcher import Dispatcher, InvalidPlanError, InvalidSettingsError, errors, specification
from dispatcher.specification import (
    CircuitBreaker,
    ExecutorClientConfig,
    HttpExecutorClient,
    HttpExecutorClientWithExtendedAPI,
    IExecutorClient,
)
from workers.breaker.rules import MAX_ASKED

KINDS: dict[type[Exception], set[str]] = {
    specification.TimeoutError: {
        "ExecutorTimeoutError",
        "MetricsNotReadyError",
        "PlanExpiredError",
        "ResultTimeoutError",
    },
    specification.ConnectionError: {
        "CircuitOpenError",
        "ExecutorConnectionError",
        "LedgerRefusedError",
        "LedgerUnavailableError",
    },
    specification.ExecutorClientError: set(errors.__all__),
}


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_specifications_errors_catch_ours(kind: type[Exception]) -> None:
    assert {name for name in errors.__all__ if issubclass(getattr(errors, name), kind)} == KINDS[kind]


def test_every_name_is_ours_and_not_a_copy() -> None:
    ours = set(specification.__all__) & set(dispatcher.__all__)
    assert all(getattr(specification, name) is getattr(dispatcher, name) for name in ours)
    assert specification.IExecutorClient is dispatcher.ExecutorClient


def test_the_clients_implement_the_interface() -> None:
    assert IExecutorClient.__abstractmethods__ == {"apply_and_observe", "check_health"}
    for client in (Dispatcher, HttpExecutorClient, HttpExecutorClientWithExtendedAPI):
        assert issubclass(client, IExecutorClient)
    parameters = inspect.signature(HttpExecutorClientWithExtendedAPI.apply_and_observe).parameters
    assert {name: each.default for name, each in parameters.items() if name not in {"self", "plan"}} == {
        "timeout_sec": 30.0,
        "start_time": None,
    }
    assert "start_time" in inspect.signature(Dispatcher.apply_and_observe).parameters


def test_the_recommenders_side_is_imported_without_the_workers() -> None:
    program = "import dispatcher, sys; print([name for name in sys.modules if name.startswith('workers')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_configuration_builds_its_base_url_from_host_and_port() -> None:
    assert ExecutorClientConfig(executor_host="h", executor_port=1).base_url == "http://h:1"
    assert ExecutorClientConfig(base_url=None).base_url == "http://localhost:8000"
    given = ExecutorClientConfig(executor_host="h", base_url="https://x/")
    assert (given.base_url, given.url) == ("https://x", "https://x")
    assert "base_url" not in ExecutorClientConfig(executor_host="h").model_fields_set


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_a_host_may_be_an_ipv6_address(host: str) -> None:
    assert ExecutorClientConfig(executor_host=host, executor_port=1).base_url == "http://[::1]:1"


@pytest.mark.parametrize("host", ["host:80", "me@host", "host?a", "host#a", "host/a", "", "a b"])
def test_a_host_is_a_name_or_an_address_without_more(host: str) -> None:
    with pytest.raises(InvalidSettingsError, match="executor_host"):
        ExecutorClientConfig(executor_host=host)


def test_what_is_wrong_with_a_configuration_is_said_without_its_values() -> None:
    with pytest.raises(InvalidSettingsError, match="printable ASCII") as caught:
        ExecutorClientConfig(token="pa55word\n")
    assert "pa55word" not in str(caught.value)


def test_the_extended_client_is_for_the_extended_api_only() -> None:
    with pytest.raises(InvalidSettingsError, match="driver must be faults_api, not policy_api"):
        HttpExecutorClientWithExtendedAPI(ExecutorClientConfig(driver="policy_api"))


@pytest.mark.parametrize("client_class", [HttpExecutorClient, HttpExecutorClientWithExtendedAPI])
def test_a_client_says_which_argument_is_wrong(client_class: type[HttpExecutorClient]) -> None:
    with client_class(ExecutorClientConfig()) as client:
        with pytest.raises(InvalidPlanError, match="plan must be a FaultPlan, not dict"):
            client.apply_and_observe({"service": "x"})  # type: ignore[arg-type]
        for seconds in (0, "5", True):
            with pytest.raises(InvalidPlanError, match="timeout_sec must be a number of seconds above 0"):
                client.apply_and_observe(abort_plan(), timeout_sec=seconds)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"failure_threshold": 0}, id="no failures"),
        pytest.param({"timeout_sec": 0}, id="no time"),
        pytest.param({"timeout_sec": float("nan")}, id="not a number"),
    ],
)
def test_a_breaker_refuses_invalid_options(options: dict[str, float]) -> None:
    with pytest.raises(InvalidSettingsError, match="circuit_breaker_"):
        CircuitBreaker(**options)  # type: ignore[arg-type]


def test_a_breaker_that_is_asked_often_without_a_report_keeps_a_bounded_number_of_calls() -> None:
    breaker = CircuitBreaker(clock_ms=lambda: 0.0)
    for _ in range(MAX_ASKED + 10):
        assert breaker.can_attempt()
    assert len(breaker._asked()) == MAX_ASKED


class Diagram(RuleBasedStateMachine):
    """The diagram in section 5.2, with calls one after the other."""

    THRESHOLD, TIMEOUT_SEC = 3, 60.0

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0.0
        self.breaker = CircuitBreaker(self.THRESHOLD, self.TIMEOUT_SEC, clock_ms=lambda: self.now_ms)
        self.failures = 0
        self.open_until_ms: float | None = None

    @property
    def is_open(self) -> bool:
        return self.open_until_ms is not None and self.now_ms < self.open_until_ms

    @rule(succeeds=st.booleans())
    def call(self, *, succeeds: bool) -> None:
        assert self.breaker.can_attempt() is not self.is_open
        if self.is_open:
            return
        if succeeds:
            self.breaker.record_success()
            self.failures, self.open_until_ms = 0, None
            return
        self.breaker.record_failure()
        self.failures += 1
        if self.open_until_ms is not None or self.failures >= self.THRESHOLD:
            self.open_until_ms = self.now_ms + self.TIMEOUT_SEC * 1000

    @rule(seconds=st.sampled_from([0.5, 30.0, 60.0, 600.0]))
    def time_passes(self, seconds: float) -> None:
        self.now_ms += seconds * 1000

    @rule()
    def reset(self) -> None:
        self.breaker.reset()
        self.failures, self.open_until_ms = 0, None

    @invariant()
    def is_open_as_long_as_the_diagram_says(self) -> None:
        if self.is_open:
            assert self.breaker.state == "open"


Diagram.TestCase.settings = settings(max_examples=50, stateful_step_count=20, deadline=None)
test_a_breaker_follows_the_specifications_diagram = Diagram.TestCase


def test_a_half_open_breaker_lets_one_call_through_at_a_time() -> None:
    now_ms = [0.0]
    breaker = CircuitBreaker(1, 60.0, clock_ms=lambda: now_ms[0])
    breaker.record_failure()
    now_ms[0] = 60_000.0
    assert [breaker.can_attempt(), breaker.can_attempt()] == [True, False]
    now_ms[0] = 120_000.0  # the probe was never reported
    assert breaker.can_attempt()
