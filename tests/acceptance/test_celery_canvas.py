"""Celery's canvas around plans: groups of them work, and what would follow a plan is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from celery import chain, chord, chunks, group, xmap, xstarmap
from support.eventually import eventually
from support.fleet import Fleet
from support.own_tasks import complain, noted, plain, report

from dispatcher import InvalidPlanError
from dispatcher.tasks.messages import RUN_PLAN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery import Celery
    from celery.canvas import Signature
    from celery.result import AsyncResult

    from dispatcher import PlanHandle

TESTS = Path(__file__).parents[1]
REFUSAL = "cannot hold dispatcher.run_plan: wait for the plan's handle, then send the next task"


class Canvas(Fleet):
    """A fleet whose worker runs custom tasks next to plans."""

    def __init__(self, folder: Path) -> None:
        self.notes = folder / "notes"
        environment = {"PYTHONPATH": str(TESTS), "OWN_TASKS_FILE": str(self.notes)}
        super().__init__(folder, "--include", "support.own_tasks", **environment)

    def plan(self, handle: PlanHandle, task_id: str | None = None) -> Signature:
        """The plan as a part of a canvas."""
        return self.app.signature(RUN_PLAN, args=[handle.id], task_id=task_id or handle.id)

    def follower(self, task: Any, way: str) -> Signature:
        return self.app.signature(task.name, args=[way])

    def own(self) -> Signature:
        """A custom task that works."""
        return self.app.signature(report.name, args=[1, "own"])

    def ran(self, way: str) -> list[list[Any]]:
        """Which custom tasks ran for this test, and with what."""
        return [[task, seen] for task, of, seen in noted(self.notes) if of == way]

    def refusal(self, result: AsyncResult) -> str:
        """What the task failed with."""
        eventually(lambda: result.state != "PENDING", within_s=20)
        assert result.state == "FAILURE"
        return str(result.result)

    def ends_as_if_alone(self, handle: PlanHandle) -> bool:
        """Whether the plan ends with its observation, in its handle and in Celery's result."""
        eventually(lambda: handle.id in self.stub.running, within_s=20)
        self.end(handle)
        observation = handle.result(20).model_dump(mode="json")
        task = self.task(handle.id)
        return (task.state, task.result) == ("SUCCESS", observation)


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canvas]:
    with Canvas(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


def test_a_task_of_ones_own_runs_next_to_plans(fleet: Canvas) -> None:
    sent = fleet.app.send_task(report.name, args=[{"a": 1}, "alone"])
    assert sent.get(timeout=20) == {"a": 1}
    assert fleet.ran("alone") == [["report", {"a": 1}]]
    assert fleet.carries_plans_out()


def test_a_plans_own_task_id_gives_its_observation(fleet: Canvas) -> None:
    handle = fleet.submit()
    sent = fleet.app.tasks[RUN_PLAN].apply_async(args=[handle.id], task_id=handle.id)
    observed = sent.get(timeout=20)
    assert observed == handle.result(1).model_dump(mode="json")
    assert observed["error_rate"] == 1.0


def test_a_plan_sent_without_its_id_as_task_id_is_refused(fleet: Canvas) -> None:
    handle = fleet.submit()
    sent = fleet.app.tasks[RUN_PLAN].delay(handle.id)
    with pytest.raises(InvalidPlanError, match=f"is not the plan id {handle.id}"):
        sent.get(timeout=20)
    assert fleet.ends_as_if_alone(handle)


def test_a_plan_is_not_carried_out_where_no_worker_is(fleet: Canvas) -> None:
    handle = fleet.submit()
    with pytest.raises(InvalidPlanError, match="runs in workers only"):
        fleet.app.tasks[RUN_PLAN].apply(args=[handle.id], task_id=handle.id)
    with pytest.raises(InvalidPlanError, match="runs in workers only"):
        fleet.app.tasks[RUN_PLAN](handle.id)
    assert fleet.task(handle.id).state == "PENDING"
    assert fleet.ends_as_if_alone(handle)


def test_a_group_of_plans_gives_their_observations(fleet: Canvas) -> None:
    handles = [fleet.submit() for _ in range(3)]
    sent = group(fleet.plan(handle) for handle in handles).apply_async()
    observed = sent.get(timeout=20)
    assert observed == [handle.result(1).model_dump(mode="json") for handle in handles]


def test_nested_groups_of_plans_give_their_observations(fleet: Canvas) -> None:
    one, two, three = handles = [fleet.submit() for _ in range(3)]
    nested = group(group(fleet.plan(one), fleet.plan(two)), group(group(fleet.plan(three))))
    observed = nested.apply_async().get(timeout=20)
    flat = [each for part in observed for each in (part if isinstance(part, list) else [part])]
    assert flat == [handle.result(1).model_dump(mode="json") for handle in handles]


FOLLOWED: dict[str, Callable[[Canvas, Signature, Signature], AsyncResult]] = {
    "chain": lambda _, plan, next_task: chain(plan, next_task).apply_async(),
    "pipe": lambda _, plan, next_task: (plan | next_task | next_task.clone()).apply_async(),
    "chord": lambda _, plan, next_task: chord([plan], next_task).apply_async(),
    "group and pipe": lambda fleet, plan, next_task: (group(plan, fleet.own()) | next_task).apply_async(),
}


@pytest.mark.parametrize("send", FOLLOWED.values(), ids=FOLLOWED)
@pytest.mark.parametrize("own_id", [True, False], ids=["own id", "another id"])
def test_what_would_follow_a_plan_fails_with_a_sentence_and_the_plan_goes_on(
    fleet: Canvas,
    send: Callable[[Canvas, Signature, Signature], AsyncResult],
    own_id: bool,  # noqa: FBT001
    request: pytest.FixtureRequest,
) -> None:
    handle, way = fleet.submit(), request.node.name
    plan = fleet.plan(handle) if own_id else fleet.app.signature(RUN_PLAN, args=[handle.id])
    last = send(fleet, plan, fleet.follower(report, way))
    assert REFUSAL in fleet.refusal(last)
    assert fleet.ends_as_if_alone(handle)
    assert fleet.ran(way) == []


def test_a_chord_of_two_plans_fails_with_a_sentence_and_both_go_on(fleet: Canvas) -> None:
    handles = [fleet.submit() for _ in range(2)]
    body = chord([fleet.plan(handle) for handle in handles], fleet.follower(report, "two")).apply_async()
    assert REFUSAL in fleet.refusal(body)
    assert all(map(fleet.ends_as_if_alone, handles))
    assert fleet.ran("two") == []


def test_a_link_is_refused_and_never_runs(fleet: Canvas) -> None:
    handle = fleet.submit()
    fleet.plan(handle).apply_async(link=fleet.follower(report, "link"))
    assert fleet.ends_as_if_alone(handle)
    assert f"a link (callback) {REFUSAL}" in fleet.worker.output
    assert fleet.ran("link") == []


def test_a_link_error_is_called_once_with_the_refusal_however_often_the_plan_is_retried(
    fleet: Canvas,
) -> None:
    api = fleet.target()
    fleet.stub.refuse(api, (503, {"error": "busy"}), (503, {"error": "busy"}))
    fleet.stub.hanging.add(api)
    handle = fleet.submit(api=api, start_time="2999-01-01T00:00:00Z")
    fleet.redis.client.hset(f"{{dispatcher}}:plan:{handle.id}", mapping={"due_ms": 0, "lease": "message 0"})
    fleet.plan(handle).apply_async(link_error=fleet.follower(complain, "retried"))
    eventually(lambda: fleet.ran("retried"), within_s=20)
    fleet.stub.hanging.discard(api)
    assert fleet.ends_as_if_alone(handle)
    assert handle.status().attempts == 0
    assert fleet.ran("retried") == [["complain", handle.id]]


def test_a_link_error_of_a_plan_that_fails_is_called_once(fleet: Canvas) -> None:
    api = fleet.target()
    fleet.stub.refuse(api, (400, {"error": "no such service"}))
    handle = fleet.submit(api=api, start_time="2999-01-01T00:00:00Z")
    fleet.redis.client.hset(f"{{dispatcher}}:plan:{handle.id}", mapping={"due_ms": 0, "lease": "message 0"})
    fleet.plan(handle).apply_async(link_error=fleet.follower(complain, "failed"))
    assert "no such service" in fleet.refusal(fleet.task(handle.id))
    eventually(lambda: fleet.ran("failed"), within_s=20)
    assert fleet.app.send_task(report.name, args=[1, "behind"]).get(timeout=20) == 1
    assert fleet.ran("failed") == [["complain", handle.id]]


def test_a_map_and_chunks_of_plans_are_refused_where_they_are_made(fleet: Canvas) -> None:
    run_plan, handle = fleet.app.tasks[RUN_PLAN], fleet.submit()
    arguments: dict[str, list[Any]] = {"map": [[handle.id]], "starmap": [[[handle.id]]], "chunks": [[], 1]}
    for way, given in arguments.items():
        with pytest.raises(InvalidPlanError, match=f"a {way} cannot hold .* Dispatcher.submit_many"):
            getattr(run_plan, way)(*given)
    assert fleet.ends_as_if_alone(handle)


@pytest.mark.parametrize(
    "make",
    [
        lambda plan, app: xmap(plan, ["none", 5], app=app),
        lambda plan, app: xstarmap(plan, [["none"], ["a", "b"]], app=app),
        lambda plan, app: chunks(plan, [["none"], [None]], 1, app=app),
    ],
    ids=["map", "starmap", "chunks"],
)
def test_a_map_that_another_program_sends_ends_with_an_error(
    fleet: Canvas, make: Callable[[Signature, Celery], Signature]
) -> None:
    sent = make(fleet.app.signature(RUN_PLAN), fleet.app).apply_async()
    with pytest.raises(InvalidPlanError, match=r"the id of a submitted plan, as text|not the plan id"):
        sent.get(timeout=20)
    assert fleet.carries_plans_out()


def test_a_map_of_a_submitted_plan_ends_with_an_error_and_the_plan_goes_on(fleet: Canvas) -> None:
    handle = fleet.submit()
    sent = xmap(fleet.app.signature(RUN_PLAN), [handle.id], app=fleet.app).apply_async()
    with pytest.raises(InvalidPlanError, match="submit plans by Dispatcher"):
        sent.get(timeout=20)
    assert fleet.ends_as_if_alone(handle)


def test_results_of_ones_own_tasks_are_kept_as_celery_keeps_them(fleet: Canvas) -> None:
    assert fleet.app.conf.task_ignore_result is False
    assert fleet.app.send_task(plain.name, args=[3]).get(timeout=20) == 3
