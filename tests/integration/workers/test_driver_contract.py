"""What every driver must do: the fake one, the faults API on a stub, and on the reference Executor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.eventually import eventually
from support.fake_driver import FakeDriver
from support.plans import abort_plan
from support.stub_executor import StubExecutor

from dispatcher import ExecutorClientConfig, ExecutorRejectedError, FaultLostError
from workers.drivers.base import Driver, FaultState
from workers.drivers.faults_api import FaultsApiDriver

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAN = abort_plan(duration_seconds=60)


@pytest.fixture(params=["fake", "stub", "reference"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    match request.param:
        case "fake":
            yield FakeDriver()
        case "stub":
            with StubExecutor() as stub:
                yield from driver_at(stub.url)
        case "reference":
            yield from driver_at(request.getfixturevalue("executor").url)


def driver_at(url: str) -> Iterator[Driver]:
    driver = FaultsApiDriver(ExecutorClientConfig(base_url=url), connections=1)
    yield driver
    driver.close()


@pytest.fixture
def apply_id(driver: Driver, request: pytest.FixtureRequest) -> Iterator[str]:
    applied = driver.apply(PLAN, request.node.name, 5)
    yield applied
    driver.stop(applied)


def test_an_applied_fault_is_running(driver: Driver, apply_id: str) -> None:
    assert driver.status(apply_id, 5) is FaultState.RUNNING


def test_the_same_key_is_the_same_fault(
    driver: Driver, apply_id: str, request: pytest.FixtureRequest
) -> None:
    assert driver.apply(PLAN, request.node.name, 5) == apply_id


def test_the_same_key_for_another_fault_is_rejected(
    driver: Driver, apply_id: str, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(ExecutorRejectedError) as caught:
        driver.apply(abort_plan(percentage=1), request.node.name, 5)
    assert caught.value.status == 422


def test_a_stopped_fault_is_completed_and_has_metrics(driver: Driver, apply_id: str) -> None:
    driver.stop(apply_id)
    eventually(lambda: driver.status(apply_id, 5) is FaultState.COMPLETED)
    assert driver.metrics(apply_id, 5).execution_id == apply_id


def test_an_executor_that_is_up_is_healthy(driver: Driver) -> None:
    driver.health(5)


def test_a_contract_version_that_is_told_is_one_that_the_driver_speaks(driver: Driver) -> None:
    told = driver.contract(5)
    assert told is None or told == driver.speaks


def test_stopping_twice_is_stopping(driver: Driver, apply_id: str) -> None:
    driver.stop(apply_id)
    driver.stop(apply_id)


def test_an_unknown_fault_is_lost_and_needs_no_stopping(driver: Driver) -> None:
    with pytest.raises(FaultLostError):
        driver.status("nobody", 5)
    with pytest.raises(FaultLostError):
        driver.metrics("nobody", 5)
    driver.stop("nobody")
