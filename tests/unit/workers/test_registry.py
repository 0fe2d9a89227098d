"""Drivers by name."""

from __future__ import annotations

from importlib.metadata import EntryPoint, EntryPoints
from typing import TYPE_CHECKING

import pytest
from support.fake_driver import FakeDriver

from dispatcher import ExecutorClientConfig, InvalidSettingsError
from workers.drivers import registry
from workers.drivers.faults_api import FaultsApiDriver
from workers.drivers.policy_api import PolicyApiDriver
from workers.drivers.registry import GROUP, open_driver
from workers.engine.gateway import open_gateway

if TYPE_CHECKING:
    from workers.drivers.base import Driver


def make(config: ExecutorClientConfig, connections: int) -> FakeDriver:
    """A driver from elsewhere."""
    if "longest" not in config.driver_options:
        problem = "needs longest"
        raise InvalidSettingsError(problem, [["driver_options", problem]])
    return FakeDriver(longest_call_s=float(str(config.driver_options["longest"])))


def opened(**config: object) -> Driver:
    return open_driver("go", ExecutorClientConfig.model_validate(config), connections=1)


@pytest.fixture
def vendor(monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that brings a driver is installed."""
    there = EntryPoints([EntryPoint("vendor", f"{__name__}:make", GROUP)])
    monkeypatch.setattr(registry, "entry_points", there.select)
    monkeypatch.setattr(EntryPoint, "load", lambda _: make)


def test_the_projects_own_drivers_are_found_by_name() -> None:
    assert isinstance(opened(), FaultsApiDriver)
    assert isinstance(opened(driver="policy_api"), PolicyApiDriver)


@pytest.mark.usefixtures("vendor")
def test_a_driver_from_another_package_gets_its_options() -> None:
    assert opened(driver="vendor", driver_options={"longest": 7}).longest_call_s == 7


@pytest.mark.usefixtures("vendor")
def test_options_that_a_driver_refuses_are_named_with_their_executor() -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        opened(driver="vendor")
    assert caught.value.lines == ["executors.go.driver_options: needs longest"]


@pytest.mark.parametrize(
    ("driver", "near"),
    [("faults_api", ", which knows none"), ("policy_api", "; did you mean namespace?")],
)
def test_an_option_that_a_driver_does_not_know_is_named_with_its_executor(driver: str, near: str) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        opened(driver=driver, driver_options={"namespaces": "shop"})
    unknown = f"executors.go.driver_options.namespaces: is not an option of the driver {driver}"
    assert caught.value.lines == [unknown + near]


def test_an_unknown_driver_is_refused_with_those_that_are_there() -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        opened(driver="grpc")
    assert caught.value.lines == [
        "executors.go.driver: must be an installed driver, not 'grpc': faults_api, policy_api"
    ]


def test_an_executor_without_metrics_is_refused_without_an_observer() -> None:
    config = ExecutorClientConfig(driver="policy_api")
    with pytest.raises(InvalidSettingsError, match=r"executors\.go\.observer is required"):
        open_gateway("go", config, {}, connections=1, poll_ms=500)
