"""What every driver must do: a fake one, that of the faults API, and that of policies."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from support.control_plane import ControlPlane
from support.eventually import eventually
from support.fake_driver import FakeDriver
from support.plans import abort_plan
from support.stub_executor import StubExecutor

from dispatcher import ExecutorClientConfig, ExecutorRejectedError, FaultFailedError, FaultLostError
from workers.drivers.base import Driver, FaultState, ListedFault, StopOutcome
from workers.drivers.faults_api import FaultsApiDriver
from workers.drivers.policy_api import PolicyApiDriver

if TYPE_CHECKING:
    from collections.abc import Iterator

PLAN = abort_plan(duration_seconds=60)
SOON = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.fixture(params=["fake", "stub", "reference", "policies"])
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    match request.param:
        case "fake":
            yield FakeDriver(lists=True, checks_not_after=True)
        case "stub":
            with StubExecutor() as stub:
                yield from driver_at(stub.url)
        case "reference":
            yield from driver_at(request.getfixturevalue("executor").url)
        case "policies":
            with ControlPlane() as plane:
                yield from policy_driver_at(plane.url)


def driver_at(url: str) -> Iterator[Driver]:
    driver = FaultsApiDriver(ExecutorClientConfig(base_url=url), connections=1)
    yield driver
    driver.close()


def policy_driver_at(url: str) -> Iterator[Driver]:
    driver = PolicyApiDriver(ExecutorClientConfig(base_url=url, driver="policy_api"), connections=1)
    yield driver
    driver.close()


@pytest.fixture
def apply_id(driver: Driver, request: pytest.FixtureRequest) -> Iterator[str]:
    applied = driver.apply(PLAN, request.node.name, 5, SOON)
    yield applied
    driver.stop(applied)


def test_an_applied_fault_is_running(driver: Driver, apply_id: str) -> None:
    assert driver.status(apply_id, 5).state is FaultState.RUNNING


def test_the_same_key_is_the_same_fault(
    driver: Driver, apply_id: str, request: pytest.FixtureRequest
) -> None:
    assert driver.apply(PLAN, request.node.name, 5, SOON) == apply_id


def test_the_same_key_for_another_fault_is_rejected(
    driver: Driver, apply_id: str, request: pytest.FixtureRequest
) -> None:
    if isinstance(driver, PolicyApiDriver):
        return  # a policy replaces the one of its name
    with pytest.raises(ExecutorRejectedError) as caught:
        driver.apply(abort_plan(percentage=1), request.node.name, 5, SOON)
    assert caught.value.status == 422


def test_an_apply_that_comes_too_late_begins_nothing(driver: Driver) -> None:
    if isinstance(driver, PolicyApiDriver):
        return  # the API cannot check it
    with pytest.raises(ExecutorRejectedError) as caught:
        driver.apply(abort_plan(api="/late"), "late", 5, datetime.now(UTC) - timedelta(seconds=1))
    assert caught.value.status == 412


def test_a_stopped_fault_is_completed(driver: Driver, apply_id: str) -> None:
    driver.stop(apply_id)
    eventually(lambda: driver.status(apply_id, 5).state is FaultState.COMPLETED)


def test_a_stopped_fault_has_metrics_if_the_executor_has_any(driver: Driver, apply_id: str) -> None:
    driver.stop(apply_id)
    eventually(lambda: driver.status(apply_id, 5).state is FaultState.COMPLETED)
    if isinstance(driver, PolicyApiDriver):
        with pytest.raises(FaultFailedError):
            driver.metrics(apply_id, 5)
    else:
        assert driver.metrics(apply_id, 5).execution_id == apply_id


def test_an_executor_that_is_up_is_healthy(driver: Driver) -> None:
    driver.health(5)


def test_a_contract_version_that_is_named_is_one_that_the_driver_knows(driver: Driver) -> None:
    named = driver.contract(5)
    assert named is None or named == driver.speaks


def test_a_running_fault_is_listed_under_its_key_and_an_ended_one_is_not(driver: Driver) -> None:
    applied = driver.apply(abort_plan(api="/listed", duration_seconds=60), "listed", 5, SOON)
    assert ListedFault(applied, "listed") in (driver.faults(5) or [])
    driver.stop(applied)
    eventually(lambda: ListedFault(applied, "listed") not in (driver.faults(5) or []))


def test_a_stop_that_says_over_is_the_fault_s_end(driver: Driver, apply_id: str) -> None:
    if driver.stop(apply_id) is StopOutcome.OVER:
        assert driver.status(apply_id, 5).state is FaultState.COMPLETED


def test_stopping_twice_is_stopping(driver: Driver, apply_id: str) -> None:
    driver.stop(apply_id)
    driver.stop(apply_id)


def test_an_unknown_fault_is_lost_and_a_stop_of_it_confirms_nothing(driver: Driver) -> None:
    if isinstance(driver, PolicyApiDriver):
        return  # its ids are names of ours, and an absent one is over
    with pytest.raises(FaultLostError):
        driver.status("unknown", 5)
    with pytest.raises(FaultLostError):
        driver.metrics("unknown", 5)
    if not isinstance(driver, FakeDriver):
        assert driver.stop("unknown") is StopOutcome.UNCONFIRMED
