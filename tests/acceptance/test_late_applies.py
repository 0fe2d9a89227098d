"""Applies without an answer, faults that outlive their plans, and faults of which no plan knows."""

from __future__ import annotations

import json
import threading
import time
from typing import TYPE_CHECKING

import pytest
from support.eventually import eventually
from support.fleet import Fleet, FleetOfExecutors
from support.plans import abort_plan

from dispatcher import (
    ExecutorProtocolError,
    ExecutorServerError,
    ExecutorTimeoutError,
    PlanCancelledError,
    PlanState,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.stub_executor import StubExecutor

    from dispatcher import PlanHandle

SERVICE = abort_plan().service
GIVEN_UP_AFTER_S = 0.8
"""Connecting included. An apply that arrives later begins no fault on an Executor that honours Not-After."""

IMPATIENT = {
    "read_timeout_sec": GIVEN_UP_AFTER_S / 2,
    "connection_timeout_sec": GIVEN_UP_AFTER_S / 2,
    "max_retries": 0,
    "circuit_breaker_enabled": False,
    "retry_budget_enabled": False,
}
EXECUTORS = {
    "default": IMPATIENT,
    "keeps_no_time": IMPATIENT,
    "lists": IMPATIENT,
    "slow_plane": IMPATIENT | {"takes_effect_sec": 1},
    "retried": IMPATIENT | {"max_retries": 100},
    "healthy": {"health_check_interval_sec": 0.3},
}
LISTING = {"lists", "healthy"}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with FleetOfExecutors(tmp_path_factory.mktemp("fleet"), EXECUTORS) as fleet:
        for name, stub in fleet.stubs.items():
            stub.lists_faults = name in LISTING
            stub.honours_not_after = name == "default"
        yield fleet


@pytest.fixture
def let_go() -> Iterator[threading.Event]:
    """What applies wait for that are not carried out yet."""
    let_go = threading.Event()
    yield let_go
    let_go.set()


def hold(stub: StubExecutor, api: str, let_go: threading.Event) -> list[str]:
    """Carry out applies to the API once they are let go, but those of other plans at once.

    The keys of those that came.
    """
    keys: list[str] = []

    def wait(key: str) -> None:
        keys.append(key)
        if key == keys[0]:
            let_go.wait(60)

    stub.instead["apply", api] = wait
    return keys


@pytest.mark.parametrize(
    ("executor", "begins"),
    [
        pytest.param("default", False, id="one that honours Not-After"),
        pytest.param("keeps_no_time", True, id="one that keeps keys only"),
        pytest.param("lists", True, id="one that lists its faults"),
        pytest.param("slow_plane", True, id="one whose faults take effect late"),
    ],
)
def test_an_apply_that_is_carried_out_after_its_plan_has_failed_leaves_no_fault(
    fleet: Fleet, let_go: threading.Event, executor: str, *, begins: bool
) -> None:
    stub, api = fleet.stubs[executor], fleet.target()
    keys = hold(stub, api, let_go)
    handle = fleet.submit(executor, timeout_sec=3, api=api, duration_seconds=60)
    following = fleet.submit(executor, timeout_sec=60, api=api)
    with pytest.raises(ExecutorTimeoutError, match="it is unknown whether its fault is over"):
        handle.result(30)
    [fault] = [each for each in fleet.dispatcher.active() if each.plan_id == handle.id]
    assert fault.doubt
    assert set(keys) == {handle.id}
    first, *_ = stub.applied_at(api)
    eventually(lambda: time.monotonic() > first + GIVEN_UP_AFTER_S)
    let_go.set()
    assert following.result(30).error_rate == 1.0
    assert (handle.id in stub.stopped, handle.id in stub.running) == (begins, begins)
    assert stub.applied[f"{SERVICE}{api}"] == 1 + begins
    assert fleet.dispatcher.active() == []


def test_a_plan_that_is_cancelled_while_its_apply_has_no_answer_has_its_fault_stopped(
    fleet: Fleet, let_go: threading.Event
) -> None:
    stub, api = fleet.stubs["retried"], fleet.target()
    keys = hold(stub, api, let_go)
    handle = fleet.submit("retried", api=api, duration_seconds=60)
    eventually(lambda: keys)
    handle.cancel("seen enough")
    with pytest.raises(PlanCancelledError, match="seen enough"):
        handle.result(30)
    let_go.set()
    eventually(lambda: handle.id in stub.stopped, within_s=20)
    eventually(lambda: fleet.dispatcher.active() == [], within_s=20)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        pytest.param((503, {"error": "busy"}), ExecutorServerError, id="503"),
        pytest.param((200, {"status": "accepted"}), ExecutorProtocolError, id="nonsense"),
    ],
)
def test_an_apply_that_was_carried_out_although_its_answer_is_an_error_is_stopped(
    fleet: Fleet, answer: tuple[int, object], error: type[Exception]
) -> None:
    stub, api = fleet.stubs["keeps_no_time"], fleet.target()

    def carry_out(key: str) -> tuple[int, object] | None:
        """The first apply begins its fault. The next one names it."""
        if key in stub.running:
            return None
        stub.running[key] = time.monotonic() + 60
        stub.requests[key] = stub.bodies[-1]
        return answer

    stub.instead["apply", api] = carry_out
    handle = fleet.submit("keeps_no_time", api=api, duration_seconds=60)
    with pytest.raises(error):
        handle.result(30)
    eventually(lambda: handle.id in stub.stopped, within_s=20)
    eventually(lambda: fleet.dispatcher.active() == [], within_s=20)


def is_observed(fleet: Fleet, handle: PlanHandle) -> None:
    fleet.end(handle)
    assert handle.result(30).error_rate == 1.0


def is_cancelled(fleet: Fleet, handle: PlanHandle) -> None:
    handle.cancel()
    with pytest.raises(PlanCancelledError):
        handle.result(30)


@pytest.mark.parametrize(
    "ends",
    [pytest.param(is_observed, id="observed"), pytest.param(is_cancelled, id="cancelled")],
)
def test_a_fault_that_outlives_its_plan_is_stopped_by_the_health_check(
    fleet: Fleet, ends: Callable[[Fleet, PlanHandle], None]
) -> None:
    stub = fleet.stubs["healthy"]
    handle = fleet.submit("healthy", duration_seconds=60)
    eventually(lambda: handle.status().state is PlanState.RUNNING)
    ends(fleet, handle)
    stub.stopped.discard(handle.id)
    stub.running[handle.id] = time.monotonic() + 600
    lists = stub.lists
    eventually(lambda: stub.lists >= lists + 2)
    assert handle.id not in stub.stopped  # the list may have been made before the plan's end
    fleet.redis.client.hincrby(f"{{dispatcher}}:plan:{handle.id}", "ended_ms", -5_000)
    eventually(lambda: handle.id in stub.stopped, within_s=20)
    eventually(lambda: f"of plan {handle.id}, which has ended, was still there" in fleet.worker.output)


def test_faults_of_plans_in_flight_and_of_unknown_plans_are_left_alone_and_the_doctor_names_unknown_ones(
    fleet: Fleet,
) -> None:
    stub = fleet.stubs["healthy"]
    handle = fleet.submit("healthy", duration_seconds=60)
    eventually(lambda: handle.status().state is PlanState.RUNNING)
    foreign = {"another-fleet-s-plan", "no plan's name"}
    stub.running |= dict.fromkeys(foreign, time.monotonic() + 600)
    try:
        lists = stub.lists
        eventually(lambda: stub.lists >= lists + 3)
        assert not stub.stopped & {handle.id, *foreign}
        done = fleet.cli("doctor", "--json")
    finally:
        for each in foreign:
            del stub.running[each]
    findings = {each["what"]: each for each in map(json.loads, done.stdout.splitlines())}
    finding = findings["faults of healthy"]
    assert finding["level"] == "warning"
    assert finding["message"].startswith("2 belong to no plan of this fleet: ")
    assert all(each in finding["message"] for each in foreign)
    assert handle.id not in finding["message"]
    assert "faults of default" not in findings
    fleet.end(handle)
    assert handle.result(30).error_rate == 1.0
