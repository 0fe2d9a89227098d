"""Celery's revoke and terminate cancel plans, however they are sent, and leave other tasks to Celery."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
from celery.result import GroupResult
from support.eventually import eventually
from support.fleet import Fleet
from support.plans import abort_plan

from dispatcher import PlanCancelledError, PlanState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatcher import PlanHandle


LATE_RETRIES = {
    "DISPATCHER_EXECUTORS__DEFAULT__INITIAL_RETRY_DELAY_SEC": "20",
    "DISPATCHER_EXECUTORS__DEFAULT__MAX_RETRY_DELAY_SEC": "20",
}


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet"), **LATE_RETRIES) as fleet:
        yield fleet


def assert_cancelled(fleet: Fleet, *handles: PlanHandle) -> None:
    """The plans end as cancelled, for their handles and for Celery's users; their faults are stopped."""
    for handle in handles:
        with pytest.raises(PlanCancelledError, match=f"plan {handle.id} was cancelled: revoked"):
            handle.result(20)
        task = fleet.task(handle.id)
        assert (task.state, type(task.result)) == ("REVOKED", PlanCancelledError)
        assert handle.id in fleet.stub.stopped or handle.id not in fleet.stub.running


def celery(fleet: Fleet, *arguments: str) -> str:
    """What `celery --app workers.app ...` prints."""
    command = [sys.executable, "-m", "celery", "--app", "workers.app", *arguments]
    environment = os.environ | fleet.environment
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def asked(fleet: Fleet, command: str, **arguments: Any) -> str:
    """The worker's answer to a control command."""
    [answer] = fleet.app.control.broadcast(command, arguments, reply=True, limit=1, timeout=20)
    [words] = answer.values()
    return str(words)


def test_the_control_command_terminate_cancels_a_plan(fleet: Fleet) -> None:
    handle = fleet.running()
    printed = celery(fleet, "control", "terminate", "SIGKILL", handle.id)
    assert f"plans cancelled: {handle.id}; other tasks revoked: none" in printed
    assert_cancelled(fleet, handle)
    assert handle.id in fleet.stub.stopped


def test_a_result_can_be_revoked_and_terminated_by_any_signal(fleet: Fleet) -> None:
    handle = fleet.running()
    fleet.task(handle.id).revoke(terminate=True, signal="SIGKILL")
    assert_cancelled(fleet, handle)
    assert handle.id in fleet.stub.stopped
    assert fleet.worker.alive()


def test_a_result_waits_until_its_revocation_is_answered(fleet: Fleet) -> None:
    handle = fleet.running()
    fleet.task(handle.id).revoke(wait=True, timeout=1)
    assert handle.status().next_step_at is None or handle.status().cause is None
    assert_cancelled(fleet, handle)


def test_a_group_of_plans_is_revoked_as_one(fleet: Fleet) -> None:
    handles = [fleet.running() for _ in range(3)]
    GroupResult("group", [fleet.task(handle.id) for handle in handles], app=fleet.app).revoke()
    assert_cancelled(fleet, *handles)


def test_of_many_ids_the_plans_are_cancelled_and_the_rest_is_left_to_celery(fleet: Fleet) -> None:
    ended = fleet.running()
    fleet.end(ended)
    observation = ended.result(20)
    running = [fleet.running() for _ in range(3)]
    waiting = fleet.submit(api=running[0].status().plan.api)
    ids = ["no-plan", *(handle.id for handle in running), "nor this", ended.id, waiting.id]
    answer = asked(fleet, "revoke", task_id=ids)
    assert "other tasks revoked: no-plan, nor this" in answer
    assert all(handle.id in answer for handle in (*running, waiting))
    assert_cancelled(fleet, *running, waiting)
    [revoked] = fleet.app.control.inspect(limit=1, timeout=20).revoked().values()
    assert {"no-plan", "nor this"} <= set(revoked)
    assert not {handle.id for handle in (*running, ended, waiting)} & set(revoked)
    assert ended.result(1) == observation
    assert fleet.task(ended.id).state == "SUCCESS"


WRONG: dict[str, dict[str, Any]] = {
    "no id": {},
    "null": {"task_id": None},
    "a number": {"task_id": 5},
    "nothing": {"task_id": []},
    "odd ids": {"task_id": [5, None, {"a": 1}, "\ud800", ""]},
    "an unknown signal": {"task_id": ["no-plan"], "terminate": True, "signal": "SIGNOTHING"},
    "an invalid argument": {"task_id": ["no-plan"], "nonsense": 1},
}


@pytest.mark.parametrize("arguments", WRONG.values(), ids=WRONG)
def test_a_wrong_revocation_harms_nothing(fleet: Fleet, arguments: dict[str, Any]) -> None:
    fleet.app.control.broadcast("revoke", arguments)
    assert fleet.app.control.ping(limit=1, timeout=20)
    assert "Unrecoverable" not in fleet.worker.output
    assert fleet.carries_plans_out()


def test_a_plan_that_waits_for_its_start_is_cancelled_and_never_applied(fleet: Fleet) -> None:
    handle = fleet.submit(start_time="2999-01-01T00:00:00Z")
    fleet.app.control.revoke(handle.id)
    assert_cancelled(fleet, handle)
    assert handle.id not in fleet.stub.running


def test_a_plan_that_waits_for_its_retry_is_cancelled_and_never_applied(fleet: Fleet) -> None:
    api = fleet.target()
    fleet.stub.refuse(api, (503, {"error": "busy"}))
    handle = fleet.submit(api=api)
    eventually(lambda: handle.status().attempts == 1, within_s=20)
    eventually(lambda: fleet.task(handle.id).state == "RETRY", within_s=20)
    fleet.app.control.revoke(handle.id, terminate=True)
    assert_cancelled(fleet, handle)
    assert handle.id not in fleet.stub.running


def test_a_plan_in_the_middle_of_its_apply_is_cancelled_and_its_fault_stopped(fleet: Fleet) -> None:
    api = fleet.target()
    fleet.stub.hanging.add(api)
    handle = fleet.submit(api=api, duration_seconds=60)
    eventually(lambda: any(body and body["api"] == api for body in fleet.stub.bodies), within_s=20)
    asked(fleet, "revoke", task_id=handle.id, terminate=True)
    assert fleet.task(handle.id).state != "REVOKED"  # its fault may run
    fleet.stub.let_go.set()
    assert_cancelled(fleet, handle)
    assert fleet.stub.stopped >= {handle.id}
    fleet.stub.let_go.clear()


def test_a_message_that_comes_after_the_revocation_begins_nothing(fleet: Fleet) -> None:
    handle = fleet.submit(start_time="2999-01-01T00:00:00Z")
    fleet.app.control.revoke(handle.id)
    assert_cancelled(fleet, handle)
    fleet.push(fleet.message(handle.id, handle.id))
    assert fleet.carries_plans_out()
    assert handle.status().state is PlanState.CANCELLED
    assert handle.id not in fleet.stub.running


def test_revoking_twice_is_revoking_once(fleet: Fleet) -> None:
    handle = fleet.running()
    for _ in range(2):
        fleet.app.control.revoke(handle.id)
    assert_cancelled(fleet, handle)
    assert handle.id in asked(fleet, "revoke", task_id=handle.id)
    assert_cancelled(fleet, handle)
    assert [path for method, path in fleet.stub.calls if method == "DELETE" and handle.id in path] != []


STAMPED = {"stamped_headers": ["team"], "stamps": {"team": ["payments"]}}


def first_message(fleet: Fleet, handle: PlanHandle, **headers: Any) -> None:
    """Let the plan begin with a message that has these headers."""
    fleet.redis.client.hset(f"{{dispatcher}}:plan:{handle.id}", mapping={"due_ms": 0, "lease": "message 0"})
    fleet.push(fleet.message(handle.id, handle.id, **headers))


def test_a_revoked_stamp_cancels_the_plan_whose_message_has_it(fleet: Fleet) -> None:
    handle, other = (fleet.submit(start_time="2999-01-01T00:00:00Z") for _ in range(2))
    eventually(lambda: fleet.answered(other), within_s=20)
    asked(fleet, "revoke_by_stamped_headers", headers={"team": ["payments"]})
    first_message(fleet, handle, **STAMPED)
    first_message(fleet, other, stamped_headers=["team"], stamps={"team": ["other", 5]})
    assert_cancelled(fleet, handle)
    assert handle.id not in fleet.stub.running
    eventually(lambda: other.status().state is PlanState.RUNNING, within_s=20)
    other.cancel()


def test_a_revoked_stamp_with_terminate_cancels_the_plan_whose_body_runs(fleet: Fleet) -> None:
    api = fleet.target()
    fleet.stub.hanging.add(api)
    handle = fleet.submit(api=api, start_time="2999-01-01T00:00:00Z")
    eventually(lambda: fleet.answered(handle), within_s=20)
    first_message(fleet, handle, stamped_headers=["who"], stamps={"who": "me"})
    eventually(lambda: any(body and body["api"] == api for body in fleet.stub.bodies), within_s=20)
    assert "revoked" in asked(fleet, "revoke_by_stamped_headers", headers={"who": ["me"]}, terminate=True)
    fleet.stub.let_go.set()
    assert_cancelled(fleet, handle)
    fleet.stub.let_go.clear()


@pytest.mark.parametrize("stamps", [5, "x", [1], {"team": 5}, {"team": None}, {"team": {"a": 1}}], ids=str)
def test_odd_stamps_of_a_message_harm_nothing(fleet: Fleet, stamps: Any) -> None:
    asked(fleet, "revoke_by_stamped_headers", headers={"team": ["payments"]})
    handle = fleet.submit(start_time="2999-01-01T00:00:00Z")
    eventually(lambda: fleet.answered(handle), within_s=20)
    first_message(fleet, handle, stamped_headers=["team"], stamps=stamps)
    eventually(lambda: handle.status().state is PlanState.RUNNING, within_s=20)
    handle.cancel()


def test_an_id_that_is_revoked_before_its_plan_is_submitted_cancels_the_plan(fleet: Fleet) -> None:
    assert "other tasks revoked: too-late" in asked(fleet, "revoke", task_id="too-late")
    handle = fleet.dispatcher.submit(abort_plan(api=fleet.target()), plan_id="too-late")
    assert_cancelled(fleet, handle)
    assert handle.status().state is PlanState.CANCELLED
    assert handle.id not in fleet.stub.running
