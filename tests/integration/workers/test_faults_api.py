"""The faults API driver: what it sends, and what it makes of the answers."""

from __future__ import annotations

import json
import time
from contextlib import closing, suppress
from typing import TYPE_CHECKING

import pytest
from support.odd_json import ODD
from support.plans import abort_plan, delay_plan
from support.stub_executor import StubExecutor

from dispatcher import (
    ExecutorClientConfig,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    FaultFailedError,
    FaultLostError,
)
from workers.drivers.base import FaultState
from workers.drivers.faults_api import FaultsApiDriver

if TYPE_CHECKING:
    from collections.abc import Iterator

METRICS = {"status_code": 503, "latency_ms": 1.5, "error_rate": 1.0, "trace_data": None, "logs": None}


@pytest.fixture
def stub() -> Iterator[StubExecutor]:
    with StubExecutor() as stub:
        yield stub


@pytest.fixture
def driver(stub: StubExecutor) -> Iterator[FaultsApiDriver]:
    driver = FaultsApiDriver(ExecutorClientConfig(base_url=stub.url), connections=1)
    yield driver
    driver.close()


def test_an_apply_is_what_the_specification_says(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    driver.apply(delay_plan(start_delay_ms=200), "key-1", 5)
    driver.apply(abort_plan(), "key-2", 5)
    assert stub.calls == [("POST", "/v1/faults/apply")] * 2
    assert [headers["idempotency-key"] for headers in stub.headers] == ["key-1", "key-2"]
    assert stub.bodies[0] == {
        "service": "PaymentService",
        "api": "/api/v1/payment/process",
        "fault_type": "delay",
        "percentage": 100,
        "duration_seconds": 1,
        "fault_config": {"delay_ms": 2500, "start_delay_ms": 200},
    }
    assert stub.bodies[1]["fault_config"] == {"http_status": 503}


def test_a_fault_goes_from_running_to_completed_to_observed(
    stub: StubExecutor, driver: FaultsApiDriver
) -> None:
    apply_id = driver.apply(abort_plan(), "key-1", 5)
    assert driver.status(apply_id, 5) is FaultState.RUNNING
    driver.stop(apply_id)
    assert driver.status(apply_id, 5) is FaultState.COMPLETED
    observation = driver.metrics(apply_id, 5)
    assert observation.execution_id == apply_id
    assert (observation.status_code, observation.latency_ms, observation.error_rate) == (503, 1.5, 1.0)
    assert observation.trace_data == {"resourceSpans": []}
    assert observation.logs == ["a line"]
    assert observation.success_count is None


def test_counts_are_taken_where_the_executor_sends_them(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    stub.answers.append((200, METRICS | {"success_count": 7, "error_count": 3, "extra": "ignored"}))
    observation = driver.metrics("f1", 5)
    assert (observation.success_count, observation.error_count) == (7, 3)


@pytest.mark.parametrize(
    ("health", "told"),
    [
        ({"status": "healthy", "contract": "1.3"}, "1.3"),
        ({"status": "healthy", "contract": 2}, "2"),
        ({"status": "healthy", "contract": "9" * 1000}, "9" * 20),
        ({"status": "healthy"}, None),
        (["healthy"], None),
        (b"OK", None),
    ],
)
def test_the_contract_version_is_what_the_health_answer_says(
    stub: StubExecutor, driver: FaultsApiDriver, health: object, told: str | None
) -> None:
    stub.health = (200, health)
    assert driver.contract(5) == told


def test_an_id_with_slashes_and_dots_stays_one_segment(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    stub.answers.extend([(200, {"apply_id": "../a/b?c#d%2F", "status": "applied"}), (200, METRICS)])
    driver.metrics(driver.apply(abort_plan(), "key-1", 5), 5)
    assert stub.calls[1][1] == "/v1/faults/..%2Fa%2Fb%3Fc%23d%252F/metrics"


@pytest.mark.parametrize("apply_id", ["", ".", "..", "x" * 201, None, 7])
def test_an_unusable_id_is_refused(stub: StubExecutor, driver: FaultsApiDriver, apply_id: object) -> None:
    stub.answers.append((200, {"apply_id": apply_id, "status": "applied"}))
    with pytest.raises(ExecutorProtocolError, match="apply_id"):
        driver.apply(abort_plan(), "key-1", 5)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ({"apply_id": "f1", "status": "maybe"}, "f1"),
        ({"apply_id": "f1"}, "f1"),
        ({"apply_id": "..", "status": "maybe"}, ""),
        ({"apply_id": 7, "status": "applied"}, ""),
        (b"<html>", ""),
        ([], ""),
    ],
)
def test_a_broken_answer_to_an_apply_tells_which_fault_may_be_there(
    stub: StubExecutor, driver: FaultsApiDriver, answer: object, named: str
) -> None:
    stub.answers.append((200, answer))
    with pytest.raises(ExecutorProtocolError) as caught:
        driver.apply(abort_plan(), "key-1", 5)
    assert caught.value.apply_id == named


def test_an_answer_about_another_fault_is_a_protocol_error(
    stub: StubExecutor, driver: FaultsApiDriver
) -> None:
    other = {"apply_id": "f2"}
    stub.answers.extend([(200, {"status": "completed"} | other), (200, METRICS | other)])
    with pytest.raises(ExecutorProtocolError, match="is not about fault f1"):
        driver.status("f1", 5)
    with pytest.raises(ExecutorProtocolError, match="is not about fault f1"):
        driver.metrics("f1", 5)


def test_a_fault_that_is_over_needs_no_end_time_and_may_tell_more(
    stub: StubExecutor, driver: FaultsApiDriver
) -> None:
    stub.answers.append((200, {"status": "completed", "start_time": None, "colour": "blue"}))
    assert driver.status("f1", 5) is FaultState.COMPLETED


def test_traces_and_logs_that_are_too_long_are_truncated_and_say_so(stub: StubExecutor) -> None:
    config = ExecutorClientConfig(base_url=stub.url, max_trace_bytes=100, max_log_bytes=50)
    long = METRICS | {"trace_data": {"resourceSpans": [{"n": n} for n in range(100)]}, "logs": ["x" * 20] * 9}
    stub.answers.extend([(200, long), (200, METRICS)])
    driver = FaultsApiDriver(config, connections=1)
    less, whole = driver.metrics("f1", 5), driver.metrics("f1", 5)
    driver.close()
    assert less.truncated == ["trace_data", "logs"]
    assert less.trace_data == {"resourceSpans": [{"n": n} for n in range(10)]}
    assert less.logs == ["x" * 20] * 2
    assert whole.truncated == []


@pytest.mark.parametrize("missing", METRICS)
def test_an_answer_that_misses_a_field_is_a_protocol_error(
    stub: StubExecutor, driver: FaultsApiDriver, missing: str
) -> None:
    stub.answers.append((200, {name: value for name, value in METRICS.items() if name != missing}))
    with pytest.raises(ExecutorProtocolError, match=f"{missing} is required"):
        driver.metrics("f1", 5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status_code", "503"),
        ("latency_ms", None),
        ("latency_ms", -1),
        ("error_rate", 1.01),
        ("logs", "one line"),
        ("logs", [7]),
        ("error_count", -1),
    ],
)
def test_a_field_of_the_wrong_type_or_range_is_a_protocol_error(
    stub: StubExecutor, driver: FaultsApiDriver, name: str, value: object
) -> None:
    stub.answers.append((200, METRICS | {name: value}))
    with pytest.raises(ExecutorProtocolError, match=name):
        driver.metrics("f1", 5)


@pytest.mark.parametrize("answer", [[], "running", None, {"status": "paused"}, {}])
def test_a_status_that_is_none_is_a_protocol_error(
    stub: StubExecutor, driver: FaultsApiDriver, answer: object
) -> None:
    stub.answers.append((200, answer))
    with pytest.raises(ExecutorProtocolError):
        driver.status("f1", 5)


def test_a_failed_fault_says_why(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    stub.answers.append((200, {"status": "failed", "message": "no data plane"}))
    stub.answers.append((200, {"status": "failed", "error_msg": "data plane gone"}))
    with pytest.raises(FaultFailedError, match="no data plane"):
        driver.apply(abort_plan(), "key-1", 5)
    with pytest.raises(FaultFailedError, match="data plane gone"):
        driver.status("f1", 5)


def test_an_unknown_fault_is_lost(driver: FaultsApiDriver) -> None:
    with pytest.raises(FaultLostError):
        driver.status("nobody", 5)
    with pytest.raises(FaultLostError):
        driver.metrics("nobody", 5)


def test_an_unknown_service_is_a_rejection(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    stub.answers.append((404, {"error": "not_found", "message": "no such service"}))
    with pytest.raises(ExecutorRejectedError, match="no such service"):
        driver.apply(abort_plan(), "key-1", 5)


@pytest.mark.parametrize(("status", "over"), [(200, True), (204, True), (404, True), (405, False)])
def test_a_stop_says_whether_the_fault_is_over(
    stub: StubExecutor, driver: FaultsApiDriver, status: int, *, over: bool
) -> None:
    stub.answers.append((status, {}))
    assert driver.stop("f1") is over
    assert stub.calls == [("DELETE", "/v1/faults/f1")]


def test_a_stop_that_fails_says_so(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    stub.answers.append((503, {}))
    with pytest.raises(ExecutorServerError):
        driver.stop("f1")


@pytest.mark.parametrize("field", ["trace_data", "logs"])
@pytest.mark.parametrize("name", ODD)
def test_odd_metrics_of_5_mb_cost_seconds_of_cpu_at_most(stub: StubExecutor, name: str, field: str) -> None:
    written = json.dumps({key: value for key, value in METRICS.items() if key != field}).encode()
    stub.answers.append((200, written[:-1] + b', "%b": %b}' % (field.encode(), ODD[name])))
    config = ExecutorClientConfig(base_url=stub.url, max_response_bytes=5_100_000)
    with closing(FaultsApiDriver(config, connections=1)) as driver:
        begun_s = time.thread_time()
        with suppress(ExecutorProtocolError):
            assert len(driver.metrics("f1", 60).model_dump_json()) < 2_500_000
        assert time.thread_time() - begun_s < 3
