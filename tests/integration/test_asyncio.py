"""A Dispatcher in asyncio has two connections for each event loop, even after cancellation, loss or close."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import uvloop
from pydantic import SecretStr
from support.ends import end
from support.eventually import eventually
from support.plans import abort_plan

from dispatcher import (
    Dispatcher,
    DispatcherClosedError,
    InvalidPlanError,
    PlanCancelledError,
    PlanUnknownError,
    RecordUnreadableError,
    ResultTimeoutError,
    Settings,
)
from dispatcher.access import _of_environment

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from support.redis_server import RedisServer

    from dispatcher import FaultPlan, PlanHandle

WITHIN_S = 60


@pytest.fixture
def settings(redis_url: str) -> Settings:
    return Settings(redis_url=SecretStr(redis_url), redis_timeout_sec=1)  # checks every 0.5 s


@pytest.fixture
def dispatcher(settings: Settings) -> Iterator[Dispatcher]:
    with Dispatcher(settings) as dispatcher:
        yield dispatcher


async def until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(eventually, condition)


async def submitted(dispatcher: Dispatcher, count: int) -> list[PlanHandle]:
    each = (dispatcher.submit_async(abort_plan(api=f"/{number}")) for number in range(count))
    return list(await asyncio.gather(*each))


async def outcome(handle: PlanHandle, within_s: float = WITHIN_S) -> type[BaseException] | None:
    try:
        await handle.result_async(within_s)
    except Exception as exc:  # noqa: BLE001 (that is the outcome)
        return type(exc)
    return None


def test_three_hundred_awaited_plans_share_a_few_connections(
    dispatcher: Dispatcher, settings: Settings, redis_server: RedisServer
) -> None:
    before = len(redis_server.client.client_list())

    async def scenario() -> None:
        handles = await submitted(dispatcher, 300)
        most: list[int] = []
        waits = [asyncio.create_task(outcome(handle)) for handle in handles]
        await until(lambda: len(redis_server.client.pubsub_channels()) == 300)
        most.append(len(redis_server.client.client_list()) - before)
        await asyncio.to_thread(end, settings, [handle.id for handle in handles])
        assert set(await asyncio.gather(*waits)) == {PlanCancelledError}
        assert most[0] <= 4

    asyncio.run(scenario())


def test_two_loops_one_after_the_other_and_loops_in_threads(
    dispatcher: Dispatcher, settings: Settings, redis_server: RedisServer
) -> None:
    async def scenario(prefix: str) -> None:
        handle = await dispatcher.submit_async(abort_plan(api=prefix))
        waiting = asyncio.create_task(outcome(handle))
        await until(redis_server.client.pubsub_channels)
        await asyncio.to_thread(end, settings, [handle.id])
        assert await waiting is PlanCancelledError

    for prefix in ("/one", "/two"):
        asyncio.run(scenario(prefix))
    uvloop.run(scenario("/uvloop"))
    with ThreadPoolExecutor(3) as threads:
        loops = [threads.submit(asyncio.run, scenario(f"/thread{number}")) for number in range(3)]
        assert [loop.result(WITHIN_S) for loop in loops] == [None] * 3
    eventually(lambda: not redis_server.client.pubsub_channels())  # each loop has closed its connections


def test_a_loop_that_is_not_run_by_asyncio_run_has_no_task_left(dispatcher: Dispatcher) -> None:
    loop = asyncio.new_event_loop()
    handle = loop.run_until_complete(dispatcher.submit_async(abort_plan()))
    with pytest.raises(ResultTimeoutError):
        loop.run_until_complete(handle.result_async(0.05))
    loop.run_until_complete(asyncio.sleep(0.05))
    assert asyncio.all_tasks(loop) == set()
    loop.run_until_complete(dispatcher.aclose())
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def test_a_broken_subscription_loses_no_end(
    dispatcher: Dispatcher, settings: Settings, redis_server: RedisServer
) -> None:
    async def scenario() -> None:
        handles = await submitted(dispatcher, 20)
        waits = [asyncio.create_task(outcome(handle)) for handle in handles]
        await until(lambda: len(redis_server.client.pubsub_channels()) == 20)
        redis_server.client.client_kill_filter(_type="pubsub")
        await asyncio.to_thread(end, settings, [handle.id for handle in handles])
        assert set(await asyncio.gather(*waits)) == {PlanCancelledError}

    asyncio.run(scenario())


def test_a_message_that_does_not_arrive_delays_an_end_by_a_slice(
    dispatcher: Dispatcher, settings: Settings, redis_server: RedisServer
) -> None:
    async def scenario() -> None:
        [quiet, other] = await submitted(dispatcher, 2)
        waiting = [asyncio.create_task(outcome(each)) for each in (quiet, other)]
        await until(lambda: len(redis_server.client.pubsub_channels()) == 2)
        redis_server.client.set(dispatcher._access.results.key(quiet.id), "no result")
        redis_server.client.hset(f"{{dispatcher}}:plan:{quiet.id}", "state", "observed")
        assert await waiting[0] is RecordUnreadableError
        await asyncio.to_thread(end, settings, [other.id])
        assert await waiting[1] is PlanCancelledError

    asyncio.run(scenario())


def test_a_cancelled_wait_frees_its_place_and_disturbs_no_other(
    dispatcher: Dispatcher, settings: Settings, redis_server: RedisServer
) -> None:
    async def scenario() -> None:
        [one, other] = await submitted(dispatcher, 2)
        first, second, third = (asyncio.create_task(outcome(each)) for each in (one, one, other))
        await until(lambda: len(redis_server.client.pubsub_channels()) == 2)
        first.cancel()
        third.cancel()
        await asyncio.wait([first, third])
        session = await dispatcher._access.session()
        assert list(session._listener._watches) == [one.id]
        await asyncio.to_thread(end, settings, [one.id])
        assert await second is PlanCancelledError
        assert not session._listener._watches

    asyncio.run(scenario())


def test_a_cancelled_submission_is_whole_or_was_never_made(
    dispatcher: Dispatcher, redis_server: RedisServer
) -> None:
    async def scenario() -> None:
        await dispatcher.submit_async(abort_plan())
        redis_server.client.delete("dispatcher")
        tasks = [
            asyncio.create_task(dispatcher.submit_async(abort_plan(api=f"/{number}"), plan_id=f"p{number}"))
            for number in range(40)
        ]
        for turn in range(4):
            await asyncio.sleep(0)
            for task in tasks[turn * 5 : turn * 5 + 5]:
                task.cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        assert [getattr(each, "id", None) for each in outcomes[20:]] == [
            f"p{number}" for number in range(20, 40)
        ]
        known = [
            number for number in range(40) if redis_server.client.exists(f"{{dispatcher}}:plan:p{number}")
        ]
        await until(lambda: redis_server.client.llen("dispatcher") == len(known))  # each has its message
        assert (await dispatcher.handle("p39").status_async()).plan.api == "/39"

    asyncio.run(scenario())


@pytest.mark.parametrize("closed_by", ["its own loop", "another thread"])
def test_closing_ends_the_waits_of_all_loops_and_threads(
    settings: Settings, redis_server: RedisServer, closed_by: str
) -> None:
    dispatcher = Dispatcher(settings)
    handle = dispatcher.submit(abort_plan())

    async def scenario() -> None:
        waiting = asyncio.create_task(outcome(handle))
        batch = await dispatcher.submit_many_async([abort_plan(api="/many")])
        both = asyncio.create_task(batch.results_async(WITHIN_S))
        await until(lambda: len(redis_server.client.pubsub_channels()) == 2)
        await (dispatcher.aclose() if closed_by == "its own loop" else asyncio.to_thread(dispatcher.close))
        assert await waiting is DispatcherClosedError
        with pytest.raises(DispatcherClosedError, match="was closed during the call"):
            await both

    with ThreadPoolExecutor(1) as threads:
        in_thread = threads.submit(handle.result, WITHIN_S)
        eventually(lambda: redis_server.client.info("clients")["blocked_clients"] == 1)
        asyncio.run(scenario())
        assert type(in_thread.exception(WITHIN_S)) is DispatcherClosedError


def test_many_plans_may_come_from_an_asynchronous_generator(dispatcher: Dispatcher) -> None:
    async def few() -> AsyncIterator[FaultPlan]:
        for number in range(3):
            yield abort_plan(api=f"/{number}")
            await asyncio.sleep(0)

    async def scenario() -> None:
        batch = await dispatcher.submit_many_async(few())
        assert [handle.id for handle in batch] == [f"{batch.id}-{number}" for number in range(3)]
        assert [handle.plan.api for handle in batch] == ["/0", "/1", "/2"]
        past = abort_plan(start_time="2020-01-01T00:00:00Z")
        mixed = await dispatcher.submit_many_async([abort_plan(api="/x"), past])
        assert [type(handle.refusal) for handle in mixed] == [type(None), InvalidPlanError]
        await batch.cancel_async("enough")
        assert not [handle for handle in batch if await handle.cancel_async() is False]

    asyncio.run(scenario())


def test_a_cancelled_task_cancels_the_plan_that_it_observes(
    dispatcher: Dispatcher, redis_server: RedisServer
) -> None:
    def plans() -> list[str]:
        return [str(key) for key in redis_server.client.keys("{dispatcher}:plan:*")]

    def cancelled() -> list[object]:
        reasons = [redis_server.client.hget(each, "cancelled") for each in plans()]
        return [reason for reason in reasons if reason]

    async def scenario() -> None:
        task = asyncio.create_task(dispatcher.apply_and_observe_async(abort_plan()))
        await until(redis_server.client.pubsub_channels)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert cancelled() == ["its submitter stopped waiting"]
        hasty = asyncio.create_task(dispatcher.apply_and_observe_async(abort_plan(api="/hasty")))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        hasty.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hasty
        assert len(cancelled()) == len(plans()) == 2

    asyncio.run(scenario())


def test_status_plan_and_health_can_be_awaited(dispatcher: Dispatcher, redis_server: RedisServer) -> None:
    health = '{"healthy": true, "checked_at": "2026-01-01T00:00:00Z", "cause": ""}'

    async def scenario() -> None:
        handle = await dispatcher.submit_async(abort_plan(api="/mine"))
        other = dispatcher.handle(handle.id)
        assert (await other.plan_async()).api == other.plan.api == "/mine"
        with pytest.raises(PlanUnknownError):
            await dispatcher.handle("unknown").status_async()
        with pytest.raises(PlanUnknownError):
            await dispatcher.handle("unknown").result_async(WITHIN_S)
        with pytest.raises(ResultTimeoutError, match="is a worker running"):
            await dispatcher.check_health_async(timeout_sec=0.1)
        redis_server.client.rpush("{dispatcher}:health:default", health)
        assert await dispatcher.check_health_async()

    asyncio.run(scenario())


def test_a_pickled_handle_holds_no_password_and_works_with_other_settings(
    settings: Settings, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Dispatcher(Settings(redis_url=SecretStr("redis://user:secret@127.0.0.1:1/0"))) as dispatcher:
        pickled = pickle.dumps(dispatcher.handle("mine"))
        assert b"secret" not in pickled
        assert pickle.loads(pickled)._access is dispatcher._access
    with Dispatcher(settings) as dispatcher:
        dispatcher.submit(abort_plan(), plan_id="mine")
    monkeypatch.setenv("DISPATCHER_REDIS_URL", redis_url)
    _of_environment.cache_clear()
    try:
        assert pickle.loads(pickled).status().id == "mine"
    finally:
        _of_environment().close()
        _of_environment.cache_clear()


FORKS = """
import asyncio, os, signal, sys
from pydantic import SecretStr
from dispatcher import Dispatcher, FaultPlan, ResultTimeoutError, Settings

def plan(api):
    fields = {"service": "Shop", "fault_type": "abort", "abort_http_status": 503, "percentage": 100}
    return FaultPlan(api=api, duration_seconds=1, **fields)

async def ask(name):
    ids = [f"{name}-{number}" for number in range(20)]
    handles = await asyncio.gather(*(dispatcher.submit_async(plan("/" + each), plan_id=each) for each in ids))
    assert [(await handle.status_async()).plan.api for handle in handles] == ["/" + each for each in ids]
    try:
        await handles[0].result_async(0.1)
    except ResultTimeoutError:
        pass

dispatcher = Dispatcher(Settings(redis_url=SecretStr(sys.argv[1])))
asyncio.run(ask("parent"))
child = os.fork()
if child == 0:
    signal.alarm(30)
    asyncio.run(ask("child"))
    dispatcher.close()
    os._exit(0)
print("failed:", os.waitpid(child, 0)[1])
asyncio.run(ask("again"))
dispatcher.close()
"""


def test_a_child_has_its_own_loop_connections_and_thread(redis_url: str) -> None:
    ran = subprocess.run(
        [sys.executable, "-W", "ignore:This process:DeprecationWarning", "-c", FORKS, redis_url],
        cwd=Path(__file__).parents[2],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (ran.stdout, ran.stderr) == ("failed: 0\n", "")


ODD_IDS = ["\ud800", "a b", "", "x" * 129, None, 5, b"abc", ["a"]]


@pytest.mark.parametrize("odd", ODD_IDS, ids=lambda odd: repr(odd)[:8])
def test_an_id_that_no_plan_can_have_is_unknown_and_spoils_no_other_wait(
    dispatcher: Dispatcher, odd: Any
) -> None:
    async def scenario() -> None:
        handle = await dispatcher.submit_async(abort_plan())
        waits = asyncio.create_task(handle.result_async(0.5))
        for find in (dispatcher.handle, dispatcher.batch):
            with pytest.raises(PlanUnknownError, match="is unknown"):
                find(odd)
        assert (await handle.status_async()).id == handle.id
        with pytest.raises(ResultTimeoutError):
            await waits

    asyncio.run(scenario())


@pytest.mark.parametrize("reason", [None, 5, b"x", "\ud800", "a\nb"], ids=repr)
def test_any_reason_halts_and_cancels(dispatcher: Dispatcher, reason: Any) -> None:
    handle = dispatcher.submit(abort_plan())
    assert handle.cancel(reason)
    assert dispatcher.halt(reason) == 1
    assert dispatcher.halted() is not None
    dispatcher.resume()
