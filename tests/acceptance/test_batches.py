"""Many plans at once, for threads and for asyncio."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from redis.connection import AbstractConnection
from support.plans import abort_plan

from dispatcher import (
    Dispatcher,
    ExecutorClientConfig,
    InvalidPlanError,
    PlanCancelledError,
    PlanState,
    RawObservation,
    ResultTimeoutError,
    Settings,
)
from dispatcher.settings.executors import ProbeSettings, ServiceSettings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.processes import Process, Workers
    from support.stub_executor import StubExecutor

    from dispatcher import FaultPlan


@pytest.fixture
def worker(start: Workers, stub: StubExecutor) -> Process:
    return start(stub.url)


def plans(count: int) -> Iterator[FaultPlan]:
    """A generator, as `submit_many` takes it."""
    return (abort_plan(api=f"/{number}") for number in range(count))


def test_a_plan_without_an_observer_is_refused_with_the_line_to_add(redis_url: str) -> None:
    probe = ProbeSettings(kind="probe")
    executors = {
        "blind": ExecutorClientConfig(driver="policy_api"),
        "probed": ExecutorClientConfig(driver="policy_api", observer=probe),
    }
    services = {"PaymentService": ServiceSettings(base_url="http://127.0.0.1:1")}
    settings = Settings(redis_url=SecretStr(redis_url), executors=executors, services=services)
    with Dispatcher(settings) as dispatcher:
        with pytest.raises(InvalidPlanError, match=r"add \[executors.blind.observer\]"):
            dispatcher.submit(abort_plan(), executor="blind")
        mixed = [abort_plan(), abort_plan(service="Other"), abort_plan(api="/2")]
        first, second, third = dispatcher.submit_many(mixed, executor="probed")
        with pytest.raises(InvalidPlanError, match=r"add \[services.Other\] with its base_url"):
            second.result(0)
        assert {first.status().state, third.status().state} == {PlanState.QUEUED}
        [blind] = dispatcher.submit_many([abort_plan()], executor="blind")
        with pytest.raises(InvalidPlanError):
            blind.result(0)


@pytest.mark.usefixtures("worker")
def test_every_plan_of_a_batch_is_completed_once(dispatcher: Dispatcher) -> None:
    batch = dispatcher.submit_many(plans(600))
    completed = list(batch.as_completed(60))
    assert len(completed) == len(batch) == 600
    assert {handle.id for handle in completed} == {handle.id for handle in batch}
    assert all(handle.result(0).error_rate == 1.0 for handle in completed)


@pytest.mark.usefixtures("worker")
def test_results_come_in_the_order_of_submission_and_errors_among_them(
    dispatcher: Dispatcher, stub: StubExecutor
) -> None:
    stub.answers.append((400, {}))
    batch = dispatcher.submit_many(plans(10))
    for _ in range(2):  # reading takes nothing away
        results = batch.results(60)
        assert [isinstance(result, RawObservation) for result in results].count(False) == 1
    for handle, result in zip(batch, results, strict=True):
        if isinstance(result, RawObservation):
            assert result.execution_id == handle.id


@pytest.mark.usefixtures("worker")
def test_the_same_plans_in_a_second_batch_complete_there_too(
    dispatcher: Dispatcher, stub: StubExecutor, redis_url: str
) -> None:
    named = ["p1", "p2", "p3"]
    first = dispatcher.submit_many(plans(3), plan_ids=named)
    in_flight = dispatcher.submit_many(plans(3), plan_ids=named)
    results = first.results(60)
    ended = dispatcher.submit_many(plans(3), plan_ids=named)
    with Dispatcher(Settings(redis_url=SecretStr(redis_url))) as other:
        for batch in (in_flight, ended, other.batch(in_flight.id)):
            assert {handle.id for handle in batch.as_completed(10)} == set(named)
            assert batch.results(10) == results
    assert len(stub.applied) == 3


@pytest.mark.usefixtures("worker")
def test_a_refused_plan_does_not_keep_the_others_from_going(dispatcher: Dispatcher) -> None:
    late = abort_plan(start_time="2020-01-01T00:00:00Z")
    first, second, third = dispatcher.submit_many([abort_plan(), late, abort_plan(api="/x")]).results(60)
    assert isinstance(second, InvalidPlanError)
    assert isinstance(first, RawObservation)
    assert isinstance(third, RawObservation)


@pytest.mark.usefixtures("worker")
def test_a_batch_can_be_awaited(dispatcher: Dispatcher) -> None:
    async def scenario() -> tuple[int, float | None]:
        batch = dispatcher.submit_many(plans(20))
        completed = [handle async for handle in batch.as_completed_async(60)]
        single = dispatcher.submit(abort_plan(api="/single"))
        return len(completed), (await single.result_async(60)).error_rate

    assert asyncio.run(scenario()) == (20, 1.0)


def test_awaiting_delays_no_other_task(dispatcher: Dispatcher) -> None:
    async def scenario() -> None:
        handles = [dispatcher.submit(abort_plan(api=f"/{number}")) for number in range(10)]
        waits = [handle.result_async(4) for handle in handles]
        outcomes = await asyncio.gather(*waits, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {ResultTimeoutError}

    asyncio.run(asyncio.wait_for(scenario(), timeout=20))  # half of the time that they take one by one


def test_a_batch_that_takes_too_long_says_how_many_are_missing(dispatcher: Dispatcher) -> None:
    batch = dispatcher.submit_many(plans(3))
    with pytest.raises(ResultTimeoutError, match="3 of 3 plans"):
        batch.results(0.1)


@pytest.mark.usefixtures("worker")
def test_a_batch_can_be_cancelled(dispatcher: Dispatcher, stub: StubExecutor) -> None:
    batch = dispatcher.submit_many([abort_plan(api=f"/{n}", duration_seconds=60) for n in range(20)])
    batch.cancel("changed my mind")
    assert {type(outcome) for outcome in batch.results(60)} == {PlanCancelledError}
    assert all(handle.id in stub.stopped for handle in batch if handle.id in stub.running)


def test_a_thousand_plans_go_in_a_few_writes(dispatcher: Dispatcher, monkeypatch: pytest.MonkeyPatch) -> None:
    writes = 0
    send: Any = AbstractConnection.send_packed_command

    def counted(*args: Any, **options: Any) -> None:
        nonlocal writes
        writes += 1
        send(*args, **options)

    dispatcher.submit(abort_plan(api="/warm-up"))
    monkeypatch.setattr(AbstractConnection, "send_packed_command", counted)
    for number in range(20):
        dispatcher.submit(abort_plan(api=f"/single{number}"))
    assert writes >= 20 * 2  # into the ledger, and to wake a worker
    writes = 0
    dispatcher.submit_many(plans(1000))
    assert 0 < writes <= 20


@pytest.mark.parametrize(
    "option", [{"timeout_sec": 0}, {"expires": -1}, {"executor": "x"}, {"conflict_policy": "x"}]
)
def test_a_wrong_option_is_named(dispatcher: Dispatcher, option: dict[str, object]) -> None:
    with pytest.raises(InvalidPlanError) as caught:
        dispatcher.submit_many(plans(1), **option)  # type: ignore[arg-type]
    assert [name for name, _ in caught.value.problems] == list(option)
