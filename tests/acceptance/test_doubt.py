"""A fault is over only once an answer says so: what becomes of its plan, and of its target, until then."""

from __future__ import annotations

import itertools
import json
import time
from typing import TYPE_CHECKING

import pytest
from support.eventually import eventually
from support.fleet import Fleet, FleetOfExecutors
from support.plans import abort_plan
from support.stub_executor import UNKNOWN

from dispatcher import (
    FaultInDoubtError,
    FaultLostError,
    PlanCancelledError,
    PlanConflictError,
    PlanState,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from dispatcher import PlanHandle

SERVICE = abort_plan().service
CONFIRMED_WITHIN_S = 0.6
SLACK_S = 6.0
"""For steps, calls and processes on a busy machine."""

QUICK = {
    "circuit_breaker_enabled": False,
    "retry_budget_enabled": False,
    "check_interval_sec": 0.2,
    "stop_confirmation_sec": CONFIRMED_WITHIN_S,
}
EXECUTORS = {"default": QUICK, "patient": QUICK | {"stop_confirmation_sec": 20}, "lists": QUICK}


@pytest.fixture(scope="module")
def whole_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with FleetOfExecutors(tmp_path_factory.mktemp("fleet"), EXECUTORS) as fleet:
        for name, stub in fleet.stubs.items():
            stub.lists_faults = name == "lists"
        yield fleet


@pytest.fixture
def fleet(whole_fleet: Fleet) -> Iterator[Fleet]:
    """No target is in doubt before a test, nor after it."""
    yield whole_fleet
    for fault in whole_fleet.dispatcher.active():
        if fault.doubt:
            whole_fleet.dispatcher.release(fault.service, fault.api, "the test is over", fault.executor)


def cancelled(fleet: Fleet, handle: PlanHandle) -> None:
    handle.cancel("seen enough")
    fleet.stub.forget(handle.status().plan.api)


def lost(fleet: Fleet, handle: PlanHandle) -> None:
    fleet.stub.forget(handle.status().plan.api)


def lost_and_stopped_in_vain(fleet: Fleet, handle: PlanHandle) -> None:
    api = handle.status().plan.api
    fleet.stub.instead["stop", api] = lambda _: (202, {})
    fleet.stub.instead["status", api] = lambda _: UNKNOWN


def in_doubt(fleet: Fleet, way: Callable[[Fleet, PlanHandle], None] = lost) -> PlanHandle:
    """A plan that has ended, while its fault goes on."""
    handle = fleet.running()
    way(fleet, handle)
    with pytest.raises(FaultInDoubtError):
        handle.result(30)
    return handle


def levels(fleet: Fleet) -> tuple[int, dict[str, dict[str, str]]]:
    """Exit code and findings of the doctor."""
    done = fleet.cli("doctor", "--json")
    return done.returncode, {each["what"]: each for each in map(json.loads, done.stdout.splitlines())}


@pytest.mark.parametrize(
    ("way", "why"),
    [
        pytest.param(cancelled, "was cancelled: seen enough", id="cancelled"),
        pytest.param(lost, "the Executor does not know the fault", id="lost"),
        pytest.param(lost_and_stopped_in_vain, "does not know the fault", id="lost, and its stop accepted"),
    ],
)
def test_a_fault_that_the_executor_says_nothing_of_ends_its_plan_in_doubt(
    fleet: Fleet, way: Callable[[Fleet, PlanHandle], None], why: str
) -> None:
    handle = fleet.running()
    begun = time.monotonic()
    way(fleet, handle)
    with pytest.raises(FaultInDoubtError) as caught:
        handle.result(30)
    assert CONFIRMED_WITHIN_S <= time.monotonic() - begun < CONFIRMED_WITHIN_S + SLACK_S
    assert caught.value.apply_id == handle.id
    assert why in caught.value.message
    assert f"it is unknown whether its fault {handle.id} is over" in caught.value.message
    assert "the fault may be alive until" in caught.value.message
    status = handle.status()
    assert (status.state, status.next_step_at) == (PlanState.FAILED, None)
    [fault] = fleet.dispatcher.active()
    assert (fault.plan_id, fault.apply_id, fault.api) == (handle.id, handle.id, status.plan.api)
    assert fault.doubt == f"the Executor does not know fault {handle.id}"
    assert not handle.cancel()


def test_a_target_in_doubt_takes_no_plan_until_a_person_releases_it(fleet: Fleet) -> None:
    handle = in_doubt(fleet)
    api = handle.status().plan.api
    begun = time.monotonic()
    waiting = [fleet.submit(api=api, timeout_sec=1) for _ in range(2)]
    patient = fleet.submit(api=api, timeout_sec=60)
    with pytest.raises(PlanConflictError) as refused:
        fleet.submit(api=api, conflict_policy="reject")
    assert refused.value.holder == handle.id
    for each in waiting:
        with pytest.raises(PlanConflictError, match="dispatcher release frees it") as caught:
            each.result(30)
        assert caught.value.holder == handle.id
    assert 1 <= time.monotonic() - begun < 1 + SLACK_S
    code, findings = levels(fleet)
    assert (code, findings["faults in doubt"]["level"]) == (1, "error")
    assert f"{SERVICE} {api} since plan {handle.id}" in findings["faults in doubt"]["message"]
    assert "dispatcher release SERVICE PATH" in findings["faults in doubt"]["fix"]
    assert fleet.stub.applied[f"{SERVICE}{api}"] == 1
    done = fleet.cli("release", SERVICE, api, "--reason", "its pods are new")
    fleet.stub.remember(api)  # not before: a worker would free the target by itself
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{SERVICE} {api} is free again; it was in doubt since plan {handle.id}\n"
    assert patient.result(30).error_rate == 1.0
    code, findings = levels(fleet)
    assert (code, findings["faults in doubt"]["level"]) == (0, "ok")
    assert fleet.dispatcher.active() == []
    with pytest.raises(FaultInDoubtError):
        handle.result(1)


def test_plans_that_wait_for_a_target_end_within_their_own_time_once_it_is_in_doubt(fleet: Fleet) -> None:
    holder = fleet.running()
    api = holder.status().plan.api
    waiting = [fleet.submit(api=api, timeout_sec=timeout_sec) for timeout_sec in (2, 1, 1)]
    eventually(lambda: all("holds" in (each.status().cause or "") for each in waiting))
    lost(fleet, holder)
    with pytest.raises(FaultInDoubtError):
        holder.result(30)
    begun = time.monotonic()
    for each in waiting:
        with pytest.raises(PlanConflictError, match=f"held by plan {holder.id}"):
            each.result(30)
    assert time.monotonic() - begun < 2 + SLACK_S


def test_a_plan_that_shares_its_target_leaves_it_reserved_too(fleet: Fleet) -> None:
    beside = fleet.submit(conflict_policy="allow", duration_seconds=60)
    eventually(lambda: beside.status().state is PlanState.RUNNING)
    lost(fleet, beside)
    with pytest.raises(FaultInDoubtError):
        beside.result(30)
    with pytest.raises(PlanConflictError):
        fleet.submit(api=beside.status().plan.api, conflict_policy="reject")


def test_what_is_not_in_doubt_cannot_be_released(fleet: Fleet) -> None:
    running = fleet.running()
    api = running.status().plan.api
    for target in (api, "/quiet"):
        done = fleet.cli("release", SERVICE, target, "--reason", "why not")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"{SERVICE} {target} was not in doubt at executor default\n"
        done = fleet.cli("release", SERVICE, target, "--reason", "why not", "--json")
        assert (done.returncode, json.loads(done.stdout)) == (1, {"version": 1, "released": []})
    with pytest.raises(PlanConflictError):
        fleet.submit(api=api, conflict_policy="reject")
    assert fleet.cli("release", SERVICE, api, "--reason", "", "--executor", "unknown").returncode == 2
    fleet.end(running)
    assert running.result(30).error_rate == 1.0


def test_a_release_is_for_one_target_and_scripts_learn_whose_fault_held_it(fleet: Fleet) -> None:
    first, second = in_doubt(fleet), in_doubt(fleet)
    done = fleet.cli("release", SERVICE, first.status().plan.api, "--reason", "looked at it", "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"version": 1, "released": [first.id]})
    assert [fault.plan_id for fault in fleet.dispatcher.active()] == [second.id]


@pytest.mark.parametrize("over", ["completed", "failed"])
def test_a_target_frees_itself_once_the_executor_says_that_the_fault_is_over(fleet: Fleet, over: str) -> None:
    handle = in_doubt(fleet)
    api = handle.status().plan.api
    following = fleet.submit(api=api, timeout_sec=60)
    fleet.stub.remember(api)
    answer = (200, {"apply_id": handle.id, "status": over})
    fleet.stub.instead["status", api] = lambda fault: answer if fault == handle.id else None
    fleet.stub.instead["stop", api] = lambda fault: UNKNOWN if fault == handle.id else None
    assert following.result(30).error_rate == 1.0
    assert fleet.dispatcher.active() == []
    eventually(lambda: f"plan {handle.id}: its fault is over" in fleet.worker.output)
    asked = len(fleet.stub.calls)
    assert fleet.submit().result(30).error_rate == 1.0
    assert not any(handle.id in path for _, path in fleet.stub.calls[asked:])


def test_a_fault_in_doubt_is_looked_at_ever_less_often(fleet: Fleet) -> None:
    handle = in_doubt(fleet)
    key, doubts = f"{{dispatcher}}:plan:{handle.id}", "{dispatcher}:doubts"

    def looks() -> int:
        return int(fleet.redis.client.hget(key, "attempts") or 0)

    pauses_ms = []
    for _ in range(4):
        before = looks()
        fleet.redis.client.zadd(doubts, {handle.id: 0})
        eventually(lambda before=before: looks() > before)  # type: ignore[misc]
        due_ms = fleet.redis.client.zscore(doubts, handle.id)
        assert due_ms is not None
        pauses_ms.append(due_ms - fleet.dispatcher.server_time().timestamp() * 1000)
    assert all(later > 1.5 * earlier for earlier, later in itertools.pairwise(pauses_ms))


@pytest.mark.parametrize("code", [202, 404])
def test_a_stop_is_over_only_once_the_status_says_so(fleet: Fleet, code: int) -> None:
    stub = fleet.stubs["patient"]
    handle = fleet.submit("patient", duration_seconds=60)
    eventually(lambda: handle.status().state is PlanState.RUNNING)
    api = handle.status().plan.api
    following = fleet.submit("patient", api=api)
    ends: list[float] = []

    def stop(fault: str) -> tuple[int, object]:
        """The fault goes on for a while after the first stop."""
        if not ends:
            ends.append(time.monotonic() + 1.5)
            stub.running[fault] = ends[0]
        return code, {"apply_id": fault, "status": "running"}

    stub.instead["stop", api] = stop
    handle.cancel("seen enough")
    with pytest.raises(PlanCancelledError, match="seen enough"):
        handle.result(30)
    assert time.monotonic() >= ends[0]
    assert following.result(30).error_rate == 1.0
    first, second = stub.applied_at(api)
    assert first < ends[0] <= second


def test_a_lost_fault_is_over_at_once_if_the_executor_lists_its_faults_without_it(fleet: Fleet) -> None:
    stub = fleet.stubs["lists"]
    handle = fleet.submit("lists", duration_seconds=60)
    eventually(lambda: handle.status().state is PlanState.RUNNING)
    api = handle.status().plan.api
    del stub.running[handle.id]  # it has restarted
    with pytest.raises(FaultLostError, match="did it restart"):
        handle.result(30)
    assert fleet.dispatcher.active() == []
    next_one = fleet.submit("lists", api=api, conflict_policy="reject")
    assert next_one.result(30).error_rate == 1.0


def test_a_lost_fault_that_is_still_listed_is_in_doubt(fleet: Fleet) -> None:
    stub = fleet.stubs["lists"]
    handle = fleet.submit("lists", duration_seconds=60)
    eventually(lambda: handle.status().state is PlanState.RUNNING)
    stub.forget(handle.status().plan.api)
    with pytest.raises(FaultInDoubtError):
        handle.result(30)
    stub.running[handle.id] = 0.0
    eventually(lambda: fleet.dispatcher.active() == [], within_s=20)


def test_a_halt_and_a_cancel_leave_faults_in_doubt_to_the_workers(fleet: Fleet) -> None:
    handle, running = in_doubt(fleet), fleet.running()
    api = handle.status().plan.api
    assert not handle.cancel("again")
    assert fleet.dispatcher.halt("fire drill") == 1
    with pytest.raises(PlanCancelledError, match="fire drill"):
        running.result(30)
    [fault] = fleet.dispatcher.active()
    assert fault.plan_id == handle.id
    fleet.stub.remember(api)
    eventually(lambda: fleet.dispatcher.active() == [], within_s=20)
    assert handle.id in fleet.stub.stopped
    assert fleet.dispatcher.resume()
    assert fleet.submit(api=api).result(30).error_rate == 1.0


def test_a_plan_that_is_being_stopped_ends_for_its_first_reason_though_it_is_cancelled_and_all_is_halted(
    fleet: Fleet,
) -> None:
    stub = fleet.stubs["patient"]
    handle = fleet.submit("patient", duration_seconds=60)
    eventually(lambda: handle.status().state is PlanState.RUNNING)
    api = handle.status().plan.api
    stub.forget(api)
    eventually(lambda: ("DELETE", f"/v1/faults/{handle.id}") in stub.calls)
    assert handle.cancel("seen enough")
    assert fleet.dispatcher.halt("fire drill") == 1
    assert handle.status().state is PlanState.RUNNING
    stub.running[handle.id] = 0.0
    stub.remember(api)
    with pytest.raises(FaultLostError):
        handle.result(30)
    assert fleet.dispatcher.active() == []
    fleet.dispatcher.resume()


def test_a_full_redis_keeps_no_target_in_doubt(fleet: Fleet) -> None:
    handle = in_doubt(fleet)
    api = handle.status().plan.api
    following = fleet.submit(api=api, timeout_sec=60)
    fleet.redis.client.config_set("maxmemory", 1)
    try:
        fleet.stub.remember(api)
        eventually(lambda: handle.id in fleet.stub.stopped, within_s=20)
        eventually(lambda: all(each.doubt is None for each in fleet.dispatcher.active()), within_s=20)
        eventually(lambda: len(fleet.stub.applied_at(api)) == 2, within_s=20)
    finally:
        fleet.redis.client.config_set("maxmemory", 0)
    assert following.result(30).error_rate == 1.0
    assert fleet.worker.alive()
