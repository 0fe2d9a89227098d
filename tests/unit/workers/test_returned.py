"""What a driver of another package returns is checked before anything believes it."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest
from support.fake_driver import FakeDriver
from support.plans import plan_record

from dispatcher import ExecutorClientConfig, ExecutorProtocolError, RawObservation
from dispatcher.observations import Figures
from workers.drivers.base import FaultState, FaultStatus
from workers.engine.decisions import Complete, Decision, Fail, Snooze
from workers.engine.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Callable

NOW = 1_900_000_000_000
MOMENT = datetime(2030, 3, 17, tzinfo=UTC)
SEEN: dict[str, Any] = {
    "execution_id": "f1",
    "timestamp": MOMENT,
    "requests": 100,
    "success_count": 50,
    "error_count": 50,
    "error_rate": 0.5,
    "latency_ms": 1.5,
}
RUNNING = plan_record("p1", submitted_ms=NOW - 2_000, due_ms=NOW, started_ms=NOW - 2_000).applied(
    "f1", NOW - 1_000
)
COMPLETED = RUNNING.completed()
WITHOUT_END: list[Any] = []
WITHOUT_END.append(WITHOUT_END)


def advance(driver: FakeDriver, record: Any) -> Decision:
    gateway = Gateway.of("default", ExecutorClientConfig(), cast("Any", driver), poll_ms=500)
    return gateway.advance(record, gateway.calls(record, NOW), None)


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def end_with(driver: FakeDriver) -> Callable[[object], Decision]:
    """How a plan ends whose driver returns this as its observation."""

    def end(returned: object) -> Decision:
        driver.metrics = lambda *_: returned  # type: ignore[method-assign,assignment]
        return advance(driver, COMPLETED)

    return end


def seen(**changes: Any) -> RawObservation:
    """An observation whose fields pydantic has not checked."""
    return RawObservation(**SEEN).model_copy(update=changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"latency_ms": math.nan}, ["latency_ms"]),
        ({"latency_p95_ms": math.inf}, ["latency_p95_ms"]),
        ({"latency_ms": -1.0}, ["latency_ms"]),
        ({"error_rate": 50.0}, ["error_rate"]),
        ({"status_code": "many"}, ["status_code"]),
        ({"status_code": 0}, ["status_code"]),
        ({"requests": -1, "error_rate": "0,5"}, ["requests", "error_rate"]),
        ({"timestamp": datetime(2030, 3, 17)}, ["timestamp"]),  # noqa: DTZ001 (it has no zone)
        ({"started_at": datetime(2030, 3, 17)}, ["started_at"]),  # noqa: DTZ001 (it has no zone)
        ({"ended_at": "soon"}, ["ended_at"]),
        ({"doubts": ("tired",)}, ["doubts.0"]),
        ({"logs": None}, ["logs"]),
        ({"logs": ["\ud800"]}, ["logs"]),
        ({"trace_data": {"a": [math.nan]}}, ["trace_data"]),
        ({"trace_data": object()}, ["trace_data"]),
        ({"trace_data": WITHOUT_END}, ["trace_data"]),
        ({"baseline": Figures().model_copy(update={"latency_ms": math.nan})}, ["baseline.latency_ms"]),
        ({"recovery": {"requests": "no"}}, ["recovery.requests"]),
    ],
)
def test_an_observation_with_wrong_fields_ends_its_plan_with_their_names(
    end_with: Callable[[object], Decision], changes: dict[str, Any], named: list[str]
) -> None:
    decision = end_with(seen(**changes))
    assert isinstance(decision, Fail)
    assert type(decision.error) is ExecutorProtocolError
    assert "plan p1: FakeDriver.metrics returned an observation with wrong fields" in decision.error.message
    assert all(name in decision.error.message for name in named)
    assert decision.error.message.isprintable()
    assert not decision.doubt


@pytest.mark.parametrize("returned", [None, SEEN, {}, [], 0.5], ids=str)
def test_what_is_not_an_observation_ends_its_plan(
    end_with: Callable[[object], Decision], returned: object
) -> None:
    decision = end_with(returned)
    assert isinstance(decision, Fail)
    assert type(decision.error) is ExecutorProtocolError
    assert f"returned no observation, but {type(returned).__name__}" in decision.error.message


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"error_rate": 0.0}, "error_rate is 0, and error_count says 50 of 100"),
        ({"success_count": 10}, "success_count and error_count make 60, and requests is 100"),
        ({"faulted": 101}, "faulted is 101, and requests is only 100"),
        ({"unanswered": 51}, "unanswered is 51, and error_count is only 50"),
        ({"latency_p50_ms": 9.0, "latency_p99_ms": 2.0}, "latency_p50_ms is 9, and latency_p99_ms is only 2"),
        ({"baseline": Figures(requests=1, error_count=2)}, "baseline error_count is 2"),
        ({"requests": 10**30, "success_count": None, "error_count": None}, "requests is more than"),
    ],
)
def test_figures_that_contradict_each_other_end_the_plan_of_any_driver(
    end_with: Callable[[object], Decision], changes: dict[str, Any], why: str
) -> None:
    decision = end_with(seen(**changes))
    assert isinstance(decision, Fail)
    assert type(decision.error) is ExecutorProtocolError
    assert why in decision.error.message


def test_an_observation_that_lacks_fields_ends_its_plan(end_with: Callable[[object], Decision]) -> None:
    decision = end_with(RawObservation.model_construct(execution_id="f1"))  # type: ignore[call-arg]
    assert isinstance(decision, Fail)
    assert "timestamp is required" in decision.error.message


def test_an_observation_arrives_as_its_driver_returned_it(end_with: Callable[[object], Decision]) -> None:
    trace = {"resourceSpans": [{"text": "NaN and Infinity"}]}
    decision = end_with(seen(trace_data=trace, baseline=Figures(requests=1), logs=["a"]))
    assert isinstance(decision, Complete)
    observation = decision.observation
    assert (observation.trace_data, observation.baseline, observation.logs) == (
        trace,
        Figures(requests=1),
        ["a"],
    )
    assert (observation.error_rate, observation.latency_ms) == (0.5, 1.5)


def test_an_observation_was_collected_by_the_clock_of_the_ledger(
    end_with: Callable[[object], Decision],
) -> None:
    decision = end_with(seen(timestamp=datetime(1999, 1, 1, tzinfo=UTC)))  # by the clock of a worker
    assert isinstance(decision, Complete)
    assert 0 <= decision.observation.timestamp.timestamp() * 1000 - NOW < 60_000


@pytest.mark.parametrize(
    "returned",
    [
        None,
        "completed",
        FaultState.COMPLETED,
        FaultStatus("completed"),  # type: ignore[arg-type]  # text instead of a state
        FaultStatus(FaultState.COMPLETED, started_at=datetime(2030, 3, 17)),  # noqa: DTZ001 (it has no zone)
        FaultStatus(FaultState.COMPLETED, ended_at=1_900_000_000.0),  # type: ignore[arg-type]
    ],
    ids=["none", "text", "a state", "a state in text", "no zone", "a number"],
)
def test_what_is_not_a_status_ends_the_plan_and_its_fault(driver: FakeDriver, returned: Any) -> None:
    driver.status = lambda *_: returned  # type: ignore[method-assign]
    decision = advance(driver, RUNNING)
    assert isinstance(decision, Fail)
    assert type(decision.error) is ExecutorProtocolError
    assert "FakeDriver.status returned" in decision.error.message
    assert driver.calls == ["stop"]
    assert not decision.doubt


def test_a_stop_does_not_believe_a_status_of_another_type(driver: FakeDriver) -> None:
    driver.status = lambda *_: None  # type: ignore[method-assign,assignment]
    driver.stop_says = "over"  # type: ignore[assignment]  # text instead of an outcome
    decision = advance(driver, RUNNING._replace(cancelled="enough"))
    assert not isinstance(decision, Complete | Fail)
    assert not isinstance(decision, Snooze) or decision.record.error is not None
