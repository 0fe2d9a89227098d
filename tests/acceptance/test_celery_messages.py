"""Messages in the queue that no Dispatcher has sent: wrong ones spoil nothing, odd ones change nothing."""

from __future__ import annotations

import base64
import json
import pickle
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from support.eventually import eventually
from support.fleet import EMBED, Fleet, encoded

from dispatcher import PlanState, RawObservation
from dispatcher.tasks.messages import RUN_PLAN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.stub_executor import StubExecutor

NOT_JSON: list[str | bytes] = ["garbage", "", b"\xff\xfe\x00", "[" * 100_000]
NOT_SHAPED_LIKE_A_MESSAGE = ["null", "5", "[]", "{}", '"text"', "NaN"]
WITHOUT_A_PART = ["body", "properties"]
LATER = "2999-01-01T00:00:00+00:00"


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with Fleet(tmp_path_factory.mktemp("fleet"), "--task-events") as fleet:
        yield fleet


@pytest.fixture
def stub(fleet: Fleet) -> StubExecutor:
    return fleet.stub


def reconnections(fleet: Fleet) -> int:
    return fleet.worker.output.count("Connection to broker lost")


def applies(stub: StubExecutor, plan_id: str) -> int:
    """How often the Executor was asked to apply the plan's fault."""
    keys = [headers.get("idempotency-key") for headers in list(stub.headers)]
    return keys.count(plan_id)


def test_what_is_not_a_message_is_dropped_and_the_worker_goes_on(fleet: Fleet) -> None:
    for text in (*NOT_JSON, *NOT_SHAPED_LIKE_A_MESSAGE):
        fleet.push(text)
    for part in WITHOUT_A_PART:
        fleet.push({name: value for name, value in fleet.message("x", "x").items() if name != part})
        fleet.push(fleet.message("x", "x") | {part: None})
        fleet.push(fleet.message("x", "x") | {part: 5})
    assert fleet.carries_plans_out()


HEADERS: dict[str, dict[str, Any]] = {
    "no text as the task's name": {"task": ["a", "list"]},
    "a number as the task's name": {"task": 5},
    "an unknown task": {"task": "no.such.task"},
    "another app's task": {"task": "celery.accumulate"},
    "a number as id": {"id": 5},
    "null as id": {"id": None},
    "a list as id": {"id": ["x"]},
    "an object as id": {"id": {"x": 1}},
    "an empty id": {"id": ""},
    "an id that is not Unicode": {"id": "\ud800"},
    "an id of 100 kB": {"id": "x" * 100_000},
    "retries in words": {"retries": "many"},
    "a negative number of retries": {"retries": -1},
    "half a retry": {"retries": 1.5},
    "true as retries": {"retries": True},
    "a list of retries": {"retries": [1]},
    "an object as retries": {"retries": {"a": 1}},
    "more retries than Redis can count": {"retries": 10**30},
    "an eta in words": {"eta": "tomorrow"},
    "a number as eta": {"eta": 5},
    "an expiry in words": {"expires": "tomorrow"},
    "a list as expiry": {"expires": []},
    "a number as time limits": {"timelimit": 5},
    "three time limits": {"timelimit": [1, 2, 3]},
    "time limits in words": {"timelimit": ["a", "b"]},
    "a number as shadow": {"shadow": 5},
    "a list as shadow": {"shadow": [{}]},
    "a list as group": {"group": [{}]},
    "a number as stamps": {"stamped_headers": 5, "stamps": 5},
    "a number as representation": {"argsrepr": 5, "kwargsrepr": [{}]},
    "an unknown compression": {"compression": "unknown"},
    "a compression that was not used": {"compression": "application/x-gzip"},
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_a_message_with_wrong_headers_spoils_nothing_and_costs_no_reconnection(
    fleet: Fleet, headers: dict[str, Any]
) -> None:
    before = reconnections(fleet)
    task_id = headers.get("id", "no-plan")
    fleet.push(fleet.message(task_id, task_id, **headers))
    assert_goes_on(fleet)
    assert reconnections(fleet) == before


@pytest.mark.parametrize("header", ["id", "task"])
def test_a_message_without_a_header_spoils_nothing(fleet: Fleet, header: str) -> None:
    before, message = reconnections(fleet), fleet.message("no-plan", "no-plan")
    del message["headers"][header]
    fleet.push(message)
    assert_goes_on(fleet)
    assert reconnections(fleet) == before


@pytest.mark.parametrize("headers", [None, [], {}], ids=["null", "a list", "none"])
def test_a_message_whose_headers_are_none_spoils_nothing(fleet: Fleet, headers: object) -> None:
    before = reconnections(fleet)
    fleet.push(fleet.message("no-plan", "no-plan") | {"headers": headers})
    assert_goes_on(fleet)
    assert reconnections(fleet) == before


BODIES: dict[str, dict[str, Any]] = {
    "invalid base64": {"body": "%%%"},
    "no body": {"body": ""},
    "a number": {"body": encoded(5)},
    "an object": {"body": encoded({"a": 1})},
    "two parts": {"body": encoded([["x"], {}])},
    "four parts": {"body": encoded([["x"], {}, EMBED, {}])},
    "a text as arguments": {"body": encoded(["x", {}, EMBED])},
    "a number as arguments": {"body": encoded([5, {}, EMBED])},
    "a list as keywords": {"body": encoded([["x"], [], EMBED])},
    "null as keywords": {"body": encoded([["x"], None, EMBED])},
    "a list as callbacks": {"body": encoded([["x"], {}, [1]])},
    "no UTF-8": {"body": encoded(b'[["\xff"],{},{}]')},
    "endless nesting": {"body": encoded(b"[" * 100_000)},
    "5 MB": {"body": encoded([["x" * 5_000_000], {}, EMBED])},
    "an unknown content type": {"content-type": "application/unknown"},
    "a number as content type": {"content-type": 5},
    "pickle": {
        "body": encoded(pickle.dumps([["x"], {}, EMBED])),
        "content-type": "application/x-python-serialize",
        "content-encoding": "binary",
    },
}


@pytest.mark.parametrize("parts", BODIES.values(), ids=BODIES)
def test_a_message_with_a_wrong_body_spoils_nothing_and_costs_no_reconnection(
    fleet: Fleet, parts: dict[str, Any]
) -> None:
    before = reconnections(fleet)
    fleet.push(fleet.message("no-plan", "no-plan") | parts)
    assert_goes_on(fleet)
    assert reconnections(fleet) == before


def test_a_message_of_celerys_first_protocol_is_answered_like_any_other(fleet: Fleet) -> None:
    body = {"task": RUN_PLAN, "id": "protocol-1", "args": ["protocol-1"], "kwargs": {}}
    fleet.push(fleet.message("protocol-1") | {"headers": {}, "body": encoded(body)})
    assert "plan protocol-1 is unknown" in fleet.failure("protocol-1")


def test_a_compressed_message_is_read(fleet: Fleet) -> None:
    body = json.dumps([["compressed"], {}, EMBED]).encode()
    message = fleet.message("compressed", compression="application/x-gzip")
    fleet.push(message | {"body": base64.b64encode(zlib.compress(body)).decode()})
    assert "plan compressed is unknown" in fleet.failure("compressed")


WRONG: dict[str, dict[str, Any]] = {
    "no arguments": {"args": []},
    "two arguments": {"args": ["one", "two"]},
    "a number": {"args": [5]},
    "true": {"args": [True]},
    "null": {"args": [None]},
    "an empty text": {"args": [""]},
    "a list": {"args": [["one"]]},
    "a plan as an object": {"args": [{"service": "PaymentService", "api": "/pay", "fault_type": "abort"}]},
    "a plan as keywords": {"kwargs": {"service": "PaymentService", "api": "/pay"}},
    "the id twice": {"args": ["one"], "kwargs": {"plan_id": "one"}},
    "another keyword": {"kwargs": {"id": "one"}},
    "a path": {"args": ["../one"]},
    "a line break": {"args": ["one\n"]},
    "no Unicode": {"args": ["\ud800"]},
    "1 MB": {"args": ["x" * 1_000_000]},
}


@pytest.mark.parametrize("message", WRONG.values(), ids=WRONG)
def test_wrong_arguments_end_as_a_failure_that_says_what_is_wanted(
    fleet: Fleet, message: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    sent = fleet.app.send_task(RUN_PLAN, task_id=request.node.name, **message)
    failure = fleet.failure(sent.id)
    assert failure.startswith("InvalidPlanError: dispatcher.run_plan: plan_id must be the only argument")
    assert "Submit plans by Dispatcher.submit" in failure
    assert len(failure) < 300


def test_an_unknown_plan_ends_as_a_failure_that_names_it(fleet: Fleet) -> None:
    for message in ({"args": ["unknown-1"]}, {"kwargs": {"plan_id": "unknown-1"}}):
        fleet.app.send_task(RUN_PLAN, task_id="unknown-1", **message)
        assert fleet.failure("unknown-1").startswith("PlanUnknownError: plan unknown-1 is unknown")
        fleet.redis.client.delete("celery-task-meta-unknown-1")


def test_another_task_id_than_the_plans_ends_as_a_failure_and_the_plan_goes_on(
    fleet: Fleet, stub: StubExecutor
) -> None:
    handle = fleet.running()
    sent = fleet.app.send_task(RUN_PLAN, args=[handle.id])
    assert f"task id {sent.id} is not the plan id {handle.id}" in fleet.failure(sent.id)
    steering = fleet.app.send_task(RUN_PLAN, args=[handle.id], task_id="\x1b[31m")
    assert r"task id \x1b[31m is not the plan id" in fleet.failure(steering.id)
    fleet.end(handle)
    assert isinstance(handle.result(20), RawObservation)
    assert applies(stub, handle.id) == 1


def test_wrong_arguments_under_a_plans_own_id_leave_its_result_alone(fleet: Fleet) -> None:
    handle = fleet.running()
    for arguments in ([handle.id, "more"], [], [5], ["another-plan"]):
        fleet.app.send_task(RUN_PLAN, args=arguments, task_id=handle.id, ignore_result=False)
    eventually(lambda: fleet.answered(handle) == 5, within_s=20)
    assert fleet.worker.output.count(f"plan {handle.id}: a message for it is wrong, and is dropped") == 4
    assert fleet.task(handle.id).state == "PENDING"
    fleet.end(handle)
    assert handle.result(20).error_rate == 1.0
    assert fleet.task(handle.id).state == "SUCCESS"


OPTIONS: dict[str, dict[str, Any]] = {
    "an expiry that has passed": {"expires": 0.001},
    "time limits": {"time_limit": 1, "soft_time_limit": 1},
    "a priority": {"priority": 9},
    "a wish to store what the task returns": {"ignore_result": False},
    "another serializer's name": {"serializer": "json", "compression": "zlib"},
    "custom headers": {"headers": {"mine": "x"}},
    "a reply queue": {"reply_to": "nowhere"},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_options_of_a_message_change_nothing_for_its_plan(
    fleet: Fleet, stub: StubExecutor, options: dict[str, Any]
) -> None:
    handle = fleet.running()
    fleet.app.send_task(RUN_PLAN, args=[handle.id], task_id=handle.id, **options)
    eventually(lambda: fleet.answered(handle) == 2, within_s=20)
    assert fleet.task(handle.id).state == "PENDING"
    fleet.end(handle)
    assert handle.result(20).error_rate == 1.0
    assert fleet.task(handle.id).state == "SUCCESS"
    assert applies(stub, handle.id) == 1


def test_a_message_with_an_eta_does_not_hold_its_plan_up(fleet: Fleet, stub: StubExecutor) -> None:
    handle = fleet.submit()
    fleet.push(fleet.message(handle.id, handle.id, eta=LATER))
    eventually(lambda: handle.status().state is PlanState.RUNNING, within_s=20)
    fleet.end(handle)
    assert handle.result(20).error_rate == 1.0
    assert applies(stub, handle.id) == 1


def test_a_plan_whose_message_expires_in_the_queue_is_carried_out_all_the_same(fleet: Fleet) -> None:
    handle = fleet.submit(start_time=LATER)
    plan_key = f"{{dispatcher}}:plan:{handle.id}"
    eventually(lambda: fleet.redis.client.hget(plan_key, "lease") == "parked")  # its own message has come
    fleet.redis.client.hset(plan_key, mapping={"due_ms": 0, "lease": "message 0"})
    fleet.push(fleet.message(handle.id, handle.id, expires="2001-01-01T00:00:00+00:00"))
    eventually(lambda: handle.status().state is PlanState.RUNNING, within_s=20)
    fleet.end(handle)
    assert handle.result(20).error_rate == 1.0


def test_a_message_for_an_ended_plan_leaves_its_end_alone(fleet: Fleet, stub: StubExecutor) -> None:
    handle = fleet.running()
    fleet.end(handle)
    observation = handle.result(20)
    before = fleet.answered(handle)
    for retries in (0, 1, 7):
        fleet.push(fleet.message(handle.id, handle.id, retries=retries))
    eventually(lambda: fleet.answered(handle) == before + 3, within_s=20)
    assert fleet.dispatcher.handle(handle.id).result(1) == observation
    assert fleet.task(handle.id).state == "SUCCESS"
    assert applies(stub, handle.id) == 1


def test_a_message_for_a_cancelled_plan_leaves_its_state_alone(fleet: Fleet) -> None:
    handle = fleet.running()
    handle.cancel("enough")
    eventually(lambda: fleet.task(handle.id).state == "REVOKED", within_s=20)
    before = fleet.answered(handle)
    for arguments in ([handle.id], [], [5]):
        fleet.app.send_task(RUN_PLAN, args=arguments, task_id=handle.id, ignore_result=False)
    eventually(lambda: fleet.answered(handle) == before + 3, within_s=20)
    assert fleet.task(handle.id).state == "REVOKED"


def test_duplicates_of_a_retrys_message_begin_one_attempt(fleet: Fleet, stub: StubExecutor) -> None:
    api = fleet.target()
    stub.refuse(api, (503, {"error": "busy"}), (503, {"error": "busy"}))
    handle = fleet.submit(api=api)
    for retries in (1, 1, 1, 2, 2, 3):
        fleet.push(fleet.message(handle.id, handle.id, retries=retries))
    eventually(lambda: handle.status().state is PlanState.RUNNING, within_s=20)
    for retries in (0, 1, 2, 3):
        fleet.push(fleet.message(handle.id, handle.id, retries=retries))
    fleet.end(handle)
    assert handle.result(20).error_rate == 1.0
    assert applies(stub, handle.id) == 3
    assert stub.applied[f"PaymentService{api}"] == 1


def assert_goes_on(fleet: Fleet) -> None:
    """A plan behind anything in the queue begins, and nothing is left there."""
    handle = fleet.running()
    assert fleet.redis.client.llen("dispatcher") == 0
    assert fleet.worker.alive()
    fleet.end(handle)
