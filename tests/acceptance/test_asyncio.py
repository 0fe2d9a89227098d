"""asyncio with real workers: what is awaited survives a restart of Redis, and comes soon."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from support.eventually import eventually
from support.plans import abort_plan

from dispatcher import Dispatcher, PlanCancelledError, RawObservation, Settings

if TYPE_CHECKING:
    from support.processes import Workers
    from support.redis_server import RedisServer
    from support.stub_executor import StubExecutor


def test_two_hundred_awaited_plans_survive_a_restart_of_redis(
    own_redis: RedisServer, start: Workers, stub: StubExecutor
) -> None:
    start(stub.url, DISPATCHER_REDIS_URL=own_redis.url)

    async def scenario() -> None:
        async with Dispatcher(Settings(redis_url=SecretStr(own_redis.url))) as dispatcher:
            plans = (abort_plan(api=f"/{number}", duration_seconds=3) for number in range(200))
            handles = await asyncio.gather(*map(dispatcher.submit_async, plans))
            waits = [asyncio.create_task(handle.result_async(100)) for handle in handles]
            await asyncio.to_thread(eventually, lambda: len(stub.running) == 200)
            own_redis.client.save()
            own_redis.kill()
            await asyncio.to_thread(own_redis.start)
            observations = await asyncio.gather(*waits)
            assert [each.execution_id for each in observations] == [handle.id for handle in handles]

    asyncio.run(scenario())


def test_one_plan_is_observed_and_others_are_cancelled_without_blocking(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    start(stub.url)

    async def scenario() -> None:
        assert await dispatcher.check_health_async()
        observed, batch = await asyncio.gather(
            dispatcher.apply_and_observe_async(abort_plan(api="/one")),
            dispatcher.submit_many_async(abort_plan(api=f"/{n}", duration_seconds=60) for n in range(20)),
        )
        assert isinstance(observed, RawObservation)
        await batch.cancel_async("changed my mind")
        assert {type(outcome) for outcome in await batch.results_async(60)} == {PlanCancelledError}
        single = await dispatcher.submit_async(abort_plan(api="/single", duration_seconds=60))
        assert await single.cancel_async()
        with pytest.raises(PlanCancelledError):
            await single.result_async(60)

    asyncio.run(scenario())
