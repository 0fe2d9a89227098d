"""A plan whose call failed waits in the state RETRY, which neither ends a wait nor replaces a plan's end."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from celery.result import AsyncResult
from pydantic import SecretStr
from support.eventually import eventually
from support.fleet import close_connections
from support.plans import abort_plan
from support.redis_server import RedisServer

from dispatcher import Dispatcher, PlanCancelledError, RawObservation, Settings
from workers.tasks.app import create_worker_app

if TYPE_CHECKING:
    from pathlib import Path

    from support.processes import Workers
    from support.stub_executor import StubExecutor

    from dispatcher import PlanHandle

BUSY = (503, {"error": "busy"})


def delays(seconds: str) -> dict[str, str]:
    """Settings with which every retry waits for this time."""
    names = ("INITIAL_RETRY_DELAY_SEC", "MAX_RETRY_DELAY_SEC")
    jitter = {"DISPATCHER_EXECUTORS__DEFAULT__RETRY_JITTER": "0"}
    return jitter | {f"DISPATCHER_EXECUTORS__DEFAULT__{name}": seconds for name in names}


def celery_state(settings: Settings, handle: PlanHandle) -> str:
    """What Celery's users see."""
    with create_worker_app(settings) as app:
        state = AsyncResult(handle.id, app=app).state
        close_connections(app)
    return str(state)


def test_a_retry_ends_no_wait_of_asyncio(
    dispatcher: Dispatcher, redis_url: str, start: Workers, stub: StubExecutor
) -> None:
    settings = Settings(redis_url=SecretStr(redis_url))
    start(stub.url, **delays("2"))
    stub.refuse("/before", BUSY)
    stub.refuse("/batch", BUSY)
    stub.refuse("/during", BUSY)

    async def scenario() -> None:
        during = await dispatcher.submit_async(abort_plan(api="/during"))
        batch = await dispatcher.submit_many_async([abort_plan(api="/batch"), abort_plan(api="/quick")])
        one, many = asyncio.create_task(during.result_async(60)), asyncio.create_task(batch.results_async(60))
        before = await dispatcher.submit_async(abort_plan(api="/before"))
        await asyncio.to_thread(eventually, lambda: celery_state(settings, before) == "RETRY")
        ended = [await before.result_async(60), await one, *await many]
        assert [type(each) for each in ended] == [RawObservation] * 4

    asyncio.run(scenario())


def test_a_retry_that_is_sent_after_its_plans_end_leaves_that_alone(
    redis_url: str, start: Workers, stub: StubExecutor, tmp_path: Path
) -> None:
    answers = [BUSY]
    stub.hanging.add("/slow")
    stub.instead["apply", "/slow"] = lambda _: answers.pop() if answers else None
    with RedisServer(tmp_path) as broker:
        elsewhere = {"DISPATCHER_BROKER_URL": broker.url, "DISPATCHER_REDIS_TIMEOUT_SEC": "60"}
        worker = start(stub.url, **elsewhere, **delays("20"))
        settings = Settings(redis_url=SecretStr(redis_url), broker_url=SecretStr(broker.url))
        with Dispatcher(settings) as dispatcher:
            handle = dispatcher.submit(abort_plan(api="/slow"))
            eventually(lambda: stub.bodies, within_s=20)
            broker.client.client_pause(60_000, all=False)  # the retry is on its way until the pause ends
            stub.let_go.set()
            eventually(lambda: handle.status().attempts == 1, within_s=20)
            handle.cancel("enough")
            with pytest.raises(PlanCancelledError):
                handle.result(30)
            broker.client.client_unpause()
            eventually(lambda: f"[{handle.id}] retry: " in worker.output, within_s=20)
            assert celery_state(settings, handle) == "REVOKED"
            with pytest.raises(PlanCancelledError):
                dispatcher.handle(handle.id).result(30)
