"""Real worker processes on a real Redis, against an Executor that counts what it is asked."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from celery import Celery
from celery.result import AsyncResult
from support.eventually import eventually
from support.plans import abort_plan

from dispatcher import (
    Dispatcher,
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    FaultFailedError,
    InvalidPlanError,
    PlanCancelledError,
    PlanExpiredError,
    PlanState,
    ResultTimeoutError,
)
from dispatcher.ledger.ledger import Submission
from dispatcher.ledger.record import Order

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.processes import Process, Workers
    from support.redis_server import RedisServer
    from support.stub_executor import StubExecutor

    from dispatcher import PlanHandle

QUICK_RETRIES = {
    "DISPATCHER_EXECUTORS__DEFAULT__INITIAL_RETRY_DELAY_SEC": "0.05",
    "DISPATCHER_EXECUTORS__DEFAULT__MAX_RETRY_DELAY_SEC": "0.05",
}


@pytest.fixture
def worker(start: Workers, stub: StubExecutor) -> Process:
    return start(stub.url, **QUICK_RETRIES)


@pytest.fixture
def plain_celery(redis_url: str) -> Iterator[Celery]:
    """An application of another program, which reads results."""
    with Celery(backend=redis_url, set_as_current=False) as app:
        app.conf.result_backend_transport_options = {"global_keyprefix": "{dispatcher}:"}
        yield app
        app.backend.result_consumer.stop()  # `close` leaves both connections to the garbage collector
        app.backend.client.connection_pool.disconnect()


def test_the_fleet_checks_an_executor_once_and_callers_learn_the_outcome(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    with pytest.raises(ResultTimeoutError, match="is a worker running"):
        dispatcher.check_health(timeout_sec=0.1)
    with pytest.raises(InvalidPlanError, match="one of the configured executors: default"):
        dispatcher.check_health("elsewhere")
    workers = [start(stub.url) for _ in range(2)]
    assert all(dispatcher.check_health(timeout_sec=60) for _ in range(50))
    assert all(worker.alive() for worker in workers)
    assert stub.health_checks == 1


def test_callers_learn_why_an_executor_is_not_healthy(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    stub.health = (503, {"message": "no data plane"})
    start(stub.url, DISPATCHER_EXECUTORS__DEFAULT__HEALTH_CHECK_INTERVAL_SEC="0.2")
    assert not dispatcher.check_health(timeout_sec=60)
    assert "no data plane" in dispatcher.health().cause
    stub.health = (200, {"status": "healthy"})
    eventually(dispatcher.check_health)


@pytest.mark.usefixtures("worker")
def test_anyone_with_plain_celery_can_read_an_observation(
    dispatcher: Dispatcher, plain_celery: Celery
) -> None:
    handle = dispatcher.submit(abort_plan())
    observed = AsyncResult(handle.id, app=plain_celery).get(timeout=60)
    assert observed == handle.result(1).model_dump(mode="json")
    assert (observed["error_rate"], observed["status_code"]) == (1.0, 503)
    assert handle.status().state is PlanState.OBSERVED


@pytest.mark.usefixtures("worker")
def test_anyone_with_plain_celery_gets_the_typed_error(
    dispatcher: Dispatcher, stub: StubExecutor, plain_celery: Celery
) -> None:
    stub.answers.append((400, {"error": "invalid_input", "message": "no such api"}))
    handle = dispatcher.submit(abort_plan())
    with pytest.raises(ExecutorRejectedError, match="no such api"):
        AsyncResult(handle.id, app=plain_celery).get(timeout=60)
    with pytest.raises(ExecutorRejectedError) as caught:
        handle.result(1)
    assert (caught.value.status, caught.value.executor_message) == (400, "no such api")


@pytest.mark.usefixtures("worker")
def test_a_handle_survives_its_process(dispatcher: Dispatcher) -> None:
    plan_id = dispatcher.submit(abort_plan(), plan_id="mine").id
    with Dispatcher(dispatcher._access.settings) as another:
        assert another.handle(plan_id).result(60).error_rate == 1.0


@pytest.mark.usefixtures("worker")
def test_many_may_wait_for_one_plan(dispatcher: Dispatcher) -> None:
    handle = dispatcher.submit(abort_plan())
    with ThreadPoolExecutor(8) as pool:
        observations = list(pool.map(lambda _: handle.result(60), range(8)))
    assert len({observation.execution_id for observation in observations}) == 1


@pytest.mark.usefixtures("worker")
def test_the_same_plan_submitted_twice_is_applied_once(dispatcher: Dispatcher, stub: StubExecutor) -> None:
    for _ in range(3):
        dispatcher.submit(abort_plan(), plan_id="mine")
    assert dispatcher.handle("mine").result(60).error_rate == 1.0
    assert list(stub.applied.values()) == [1]


@pytest.mark.usefixtures("worker")
def test_a_transient_trouble_is_retried_with_the_same_key(dispatcher: Dispatcher, stub: StubExecutor) -> None:
    stub.answers.extend([(503, {"error": "busy"}), (429, {}), (500, b"")])
    handle = dispatcher.submit(abort_plan())
    assert handle.result(60).error_rate == 1.0
    applies = [
        headers["idempotency-key"]
        for headers, (method, _) in zip(stub.headers, stub.calls, strict=True)
        if method == "POST"
    ]
    assert applies == [handle.id] * 4
    assert list(stub.applied.values()) == [1]


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([(200, b"<html>")] * 4, ExecutorProtocolError),
        ([(200, {"status": "applied"})] * 4, ExecutorProtocolError),
        ([(200, {"status": "failed", "message": "no data plane"})], FaultFailedError),
        ([(302, {})], ExecutorRejectedError),
    ],
)
@pytest.mark.usefixtures("worker")
def test_an_executor_that_misbehaves_ends_the_plan_with_a_typed_error(
    dispatcher: Dispatcher, stub: StubExecutor, answers: list[tuple[int, object]], error: type[Exception]
) -> None:
    stub.answers.extend(answers)
    with pytest.raises(error):
        dispatcher.submit(abort_plan()).result(60)


def test_an_executor_out_of_reach_ends_the_plan_after_its_retries(
    dispatcher: Dispatcher, start: Workers, free_tcp_port: int
) -> None:
    worker = start(f"http://127.0.0.1:{free_tcp_port}", **QUICK_RETRIES)
    with pytest.raises(ExecutorConnectionError, match="connection refused") as caught:
        dispatcher.submit(abort_plan()).result(60)
    assert caught.value.reason == "refused"
    eventually(lambda: worker.output.count("failed, again in") == 3)
    assert "Traceback" not in worker.output


def test_a_running_fault_holds_no_thread(dispatcher: Dispatcher, start: Workers, stub: StubExecutor) -> None:
    start(stub.url, "--concurrency", "1")
    handles = [dispatcher.submit(abort_plan(api=f"/{n}", duration_seconds=600)) for n in range(20)]
    eventually(lambda: len(stub.running) == 20)
    dispatcher.halt("that is enough")
    for handle in handles:
        with pytest.raises(PlanCancelledError):
            handle.result(60)
    assert set(stub.applied.values()) == {1}


def test_a_plan_ends_although_its_worker_is_killed(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    first = start(stub.url)
    handle = dispatcher.submit(abort_plan(duration_seconds=2))
    eventually(lambda: handle.status().state is PlanState.RUNNING)
    first.kill()
    start(stub.url)
    assert handle.result(60).error_rate == 1.0
    assert list(stub.applied.values()) == [1]


@pytest.mark.usefixtures("worker")
def test_a_plan_ends_although_its_wake_up_was_lost(
    dispatcher: Dispatcher, redis_server: RedisServer, stub: StubExecutor
) -> None:
    dispatcher._ledger.submit(
        [Submission("lost", Order(plan=abort_plan(), executor="default", timeout_ms=30_000))]
    )
    assert dispatcher.handle("lost").result(60).error_rate == 1.0


@pytest.mark.usefixtures("worker")
def test_a_duplicated_wake_up_changes_nothing(dispatcher: Dispatcher, stub: StubExecutor) -> None:
    handle = dispatcher.submit(abort_plan())
    for _ in range(20):
        dispatcher._access.celery.send_task(
            "dispatcher.run_plan", args=[handle.id], task_id=handle.id, ignore_result=True
        )
    assert handle.result(60).error_rate == 1.0
    paths = dict.fromkeys(path.rsplit("/", 1)[1] for _, path in stub.calls)
    assert list(paths) == ["apply", "status", "metrics"]
    assert list(stub.applied.values()) == [1]


@pytest.mark.usefixtures("worker")
def test_a_plan_begins_within_a_tenth_of_a_second_of_its_start_time(
    dispatcher: Dispatcher, stub: StubExecutor
) -> None:
    def late(handle: PlanHandle) -> timedelta:
        handle.result(60)
        status = handle.status()
        assert status.applied_at is not None
        return status.applied_at - (status.plan.start_time or status.submitted_at)

    dispatcher.submit(abort_plan(api="/warm-up")).result(60)
    handles = []
    for number, ahead_s in enumerate((0.6, 0.8, 1.1, 1.7, 3.0)):
        start_time = datetime.now(UTC) + timedelta(seconds=ahead_s)
        handles.append(dispatcher.submit(abort_plan(api=f"/{number}", start_time=start_time)))
    scheduled = [late(handle) for handle in handles]
    prompt = [late(dispatcher.submit(abort_plan(api=f"/prompt{number}"))) for number in range(3)]
    assert min(scheduled) >= timedelta(0)
    assert max(scheduled) < max(
        timedelta(seconds=0.1), 3 * max(prompt)
    )  # which take longer on a busy machine


def test_a_plan_that_no_worker_starts_in_time_is_never_applied(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor, redis_server: RedisServer
) -> None:
    handle = dispatcher.submit(abort_plan(), expires=60)
    redis_server.client.hincrby(f"{{dispatcher}}:plan:{handle.id}", "expires_ms", -60_000)
    start(stub.url)
    with pytest.raises(PlanExpiredError):
        handle.result(60)
    assert stub.calls == []


def test_waiting_for_a_plan_ends_with_the_time_given_and_the_plan_goes_on(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    handle = dispatcher.submit(abort_plan())
    with pytest.raises(ResultTimeoutError, match="queued"):
        handle.result(0.1)
    start(stub.url)
    assert handle.result(60).error_rate == 1.0


@pytest.mark.usefixtures("worker")
def test_apply_and_observe_is_the_specifications_call(dispatcher: Dispatcher) -> None:
    begins = datetime.now(UTC) + timedelta(seconds=1)
    later = abort_plan(start_time=begins + timedelta(hours=1))
    assert dispatcher.apply_and_observe(later, timeout_sec=30.0, start_time=begins).error_rate == 1.0
    assert datetime.now(UTC) >= begins + timedelta(seconds=later.duration_seconds)


def test_flower_sees_one_row_a_plan_that_succeeds_once(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    start(stub.url, "--task-events", **QUICK_RETRIES)
    stub.answers.append((503, {}))
    with listening(dispatcher._access.celery) as seen:
        eventually(lambda: "worker-heartbeat" in kinds(seen))
        handle = dispatcher.submit(abort_plan())
        handle.result(60)
        eventually(lambda: "task-succeeded" in kinds(seen))
    assert kinds(seen).count("task-succeeded") == kinds(seen).count("task-retried") == 1
    assert {event["uuid"] for event in seen if "uuid" in event} == {handle.id}
    assert next(event["args"] for event in seen if "args" in event) == str(abort_plan())
    assert "503" in str(next(event["exception"] for event in seen if event["type"] == "task-retried"))
    assert "'error_rate': 1.0" in str(next(event["result"] for event in seen if "result" in event))


@contextmanager
def listening(app: Celery) -> Iterator[list[dict[str, object]]]:
    """All events of the workers, as Flower sees them."""
    seen: list[dict[str, object]] = []
    with app.connection() as connection:
        receiver = app.events.Receiver(connection, handlers={"*": seen.append})
        thread = threading.Thread(target=receiver.capture, kwargs={"limit": None, "timeout": None})
        thread.start()
        try:
            yield seen
        finally:
            receiver.should_stop = True
            thread.join()


def kinds(events: list[dict[str, object]]) -> list[object]:
    return [event["type"] for event in events]
