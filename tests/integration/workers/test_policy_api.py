"""The policy driver against the existing control plane, traps included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.control_plane import ControlPlane
from support.plans import abort_plan, delay_plan
from support.stub_executor import StubExecutor

from dispatcher import (
    ExecutorClientConfig,
    ExecutorClientError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    FaultFailedError,
)
from workers.drivers.base import FaultState
from workers.drivers.policy_api import PolicyApiDriver, policy_body, policy_name

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def driver(plane: ControlPlane) -> Iterator[PolicyApiDriver]:
    yield from driver_at(plane.url)


@pytest.fixture
def stub() -> Iterator[StubExecutor]:
    """Answers whatever a test wants."""
    with StubExecutor() as stub:
        yield stub


@pytest.fixture
def at_stub(stub: StubExecutor) -> Iterator[PolicyApiDriver]:
    yield from driver_at(stub.url)


def driver_at(url: str) -> Iterator[PolicyApiDriver]:
    driver = PolicyApiDriver(ExecutorClientConfig(base_url=url, driver="policy_api"), connections=1)
    yield driver
    driver.close()


def test_a_plan_becomes_one_policy_of_whole_numbers(plane: ControlPlane, driver: PolicyApiDriver) -> None:
    driver.apply(delay_plan(start_delay_ms=200, delay_seconds=2.5, percentage=30), "p1", 5)
    driver.apply(abort_plan(), "p2", 5)
    assert plane.posted[0] == {
        "metadata": {"name": "plan-p1", "version": "v1"},
        "spec": {
            "selector": {"service": "PaymentService"},
            "rules": [
                {
                    "match": {"path": {"exact": "/api/v1/payment/process"}},
                    "fault": {
                        "percentage": 30,
                        "duration_seconds": 1,
                        "start_delay_ms": 200,
                        "delay": {"fixed_delay_ms": 2500},
                    },
                }
            ],
        },
    }
    fault = plane.posted[1]["spec"]["rules"][0]["fault"]
    assert fault == {"percentage": 100, "duration_seconds": 1, "abort": {"httpStatus": 503}}


def test_a_policy_is_running_until_its_time_is_over(plane: ControlPlane, driver: PolicyApiDriver) -> None:
    name = driver.apply(abort_plan(duration_seconds=10), "p1", 5)
    assert driver.status(name, 5) is FaultState.RUNNING
    plane.pass_(9.0)
    assert driver.status(name, 5) is FaultState.RUNNING
    plane.pass_(1.1)
    assert driver.status(name, 5) is FaultState.COMPLETED


def test_a_policy_that_somebody_deletes_is_over(plane: ControlPlane, driver: PolicyApiDriver) -> None:
    name = driver.apply(abort_plan(duration_seconds=10), "p1", 5)
    plane.policies.clear()
    assert driver.status(name, 5) is FaultState.COMPLETED


def test_a_policy_is_always_deleted_at_the_end_also_when_it_has_gone(
    plane: ControlPlane, driver: PolicyApiDriver
) -> None:
    name = driver.apply(abort_plan(), "p1", 5)
    plane.pass_(1.1)
    driver.status(name, 5)
    assert plane.calls[-1] == ("DELETE", "/v1/policies/plan-p1")


def test_a_stopped_policy_is_off_and_stopping_it_again_is_success(
    plane: ControlPlane, driver: PolicyApiDriver
) -> None:
    name = driver.apply(abort_plan(duration_seconds=10), "p1", 5)
    assert driver.stop(name)
    assert plane.there() == []
    assert driver.stop(name)
    assert driver.stop("plan-never-was")


def test_an_apply_that_is_repeated_is_one_policy_whose_time_begins_anew(
    plane: ControlPlane, driver: PolicyApiDriver
) -> None:
    driver.apply(abort_plan(duration_seconds=10), "p1", 5)
    plane.pass_(8)
    name = driver.apply(abort_plan(duration_seconds=10), "p1", 5)
    plane.pass_(8)
    assert driver.status(name, 5) is FaultState.RUNNING
    assert plane.there() == [name] == [driver.id_of("p1")]


def test_a_404_of_a_path_is_not_the_404_of_a_policy(plane: ControlPlane, driver: PolicyApiDriver) -> None:
    name = driver.apply(abort_plan(duration_seconds=10), "p1", 5)
    plane.proxied_404 = True
    with pytest.raises(ExecutorRejectedError, match="404 page not found"):
        driver.status(name, 5)
    with pytest.raises(ExecutorRejectedError, match="404 page not found"):
        driver.stop(name)
    with pytest.raises(ExecutorRejectedError):
        driver.apply(abort_plan(), "p2", 5)
    with pytest.raises(ExecutorRejectedError):
        driver.health(5)


@pytest.mark.parametrize(
    "body",
    [
        {"error": "not_found", "message": "no such path"},
        {"error": "not_found", "details": {"resource": "service"}},
        {"error": "not_found", "details": "policy"},
        ["not_found"],
    ],
)
def test_a_404_that_speaks_of_no_policy_is_none(
    stub: StubExecutor, at_stub: PolicyApiDriver, body: object
) -> None:
    stub.answers.append((404, body))
    with pytest.raises(ExecutorRejectedError):
        at_stub.status("plan-p1", 5)


def test_it_is_healthy(driver: PolicyApiDriver) -> None:
    driver.health(5)


def test_its_api_has_no_versions(driver: PolicyApiDriver) -> None:
    assert (driver.speaks, driver.contract(5)) == (None, None)


def test_it_has_no_metrics(driver: PolicyApiDriver) -> None:
    with pytest.raises(FaultFailedError, match="no metrics"):
        driver.metrics("plan-p1", 5)


@pytest.mark.parametrize("body", [b"", b"created", [], {}, {"spec": None}, {"metadata": {"name": "plan-p2"}}])
def test_a_created_policy_that_is_not_ours_is_a_protocol_error_and_ours_is_named(
    stub: StubExecutor, at_stub: PolicyApiDriver, body: object
) -> None:
    stub.answers.append((201, body))
    with pytest.raises(ExecutorProtocolError):
        at_stub.apply(abort_plan(), "p1", 5)


@pytest.mark.parametrize("body", [b"", [], {}, {"metadata": "plan-p1"}, {"metadata": {"name": "plan-p2"}}])
def test_a_policy_that_is_not_the_one_asked_for_is_a_protocol_error(
    stub: StubExecutor, at_stub: PolicyApiDriver, body: object
) -> None:
    stub.answers.append((200, body))
    with pytest.raises(ExecutorProtocolError):
        at_stub.status("plan-p1", 5)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"error": "invalid_input", "message": "percentage is too large"}, "percentage is too large"),
        ({"error": "invalid request body: EOF"}, "invalid request body: EOF"),
    ],
)
def test_a_refusal_tells_the_control_planes_words(
    stub: StubExecutor, at_stub: PolicyApiDriver, body: object, told: str
) -> None:
    stub.answers.append((400, body))
    with pytest.raises(ExecutorRejectedError, match=told):
        at_stub.apply(abort_plan(), "p1", 5)


def test_a_control_plane_that_is_down_is_a_server_error(stub: StubExecutor, at_stub: PolicyApiDriver) -> None:
    stub.down = True
    with pytest.raises(ExecutorServerError):
        at_stub.status("plan-p1", 5)
    with pytest.raises(ExecutorServerError):
        at_stub.stop("plan-p1")


IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)


@given(st.lists(IDS, unique=True, min_size=2, max_size=20))
def test_every_plan_id_has_a_name_of_its_own_that_can_be_deleted(ids: list[str]) -> None:
    names = [policy_name(each) for each in ids]
    assert len(set(names)) == len(ids)
    for name in names:
        assert name.replace("-", "").isalnum()
        assert name == name.lower()
        assert len(name) <= 63
        assert name not in {"status", "."}


@given(st.integers(100, 30_000), st.integers(0, 100), st.integers(1, 86_400))
def test_every_number_that_is_sent_is_whole_and_no_policy_is_for_ever(
    delay_ms: int, percentage: int, duration: int
) -> None:
    def numbers(value: Any) -> Iterator[object]:
        if isinstance(value, dict):
            for each in value.values():
                yield from numbers(each)
        elif isinstance(value, list):
            for each in value:
                yield from numbers(each)
        elif not isinstance(value, str):
            yield value

    plan = delay_plan(delay_seconds=delay_ms / 1000, percentage=percentage, duration_seconds=duration)
    body = policy_body(plan, "plan-p1")
    assert all(type(number) is int for number in numbers(body))
    fault = body["spec"]["rules"][0]["fault"]
    assert fault["duration_seconds"] > 0
    assert fault["delay"]["fixed_delay_ms"] == delay_ms


def test_the_drivers_errors_are_typed_whatever_is_on_the_other_side(free_tcp_port: int) -> None:
    [driver] = driver_at(f"http://127.0.0.1:{free_tcp_port}")
    for call in (
        lambda: driver.apply(abort_plan(), "p1", 1),
        lambda: driver.status("plan-p1", 1),
        lambda: driver.stop("plan-p1"),
        lambda: driver.health(1),
    ):
        with pytest.raises(ExecutorClientError):
            call()
