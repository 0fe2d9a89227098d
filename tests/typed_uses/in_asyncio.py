"""Submit and await plans in asyncio."""

import asyncio
from collections.abc import AsyncIterator
from typing import assert_type

from dispatcher import (
    Dispatcher,
    ExecutorClientError,
    FaultPlan,
    PlanBatch,
    PlanHandle,
    PlanStatus,
    RawObservation,
)


async def run(plan: FaultPlan, more: AsyncIterator[FaultPlan]) -> list[RawObservation]:
    async with Dispatcher() as dispatcher:
        handle = await dispatcher.submit_async(plan, plan_id="monday-1", tags=["night"])
        assert_type(handle, PlanHandle)
        assert_type(handle.plan, FaultPlan)
        assert_type(await handle.status_async(), PlanStatus)
        assert_type(await handle.result_async(timeout=90), RawObservation)
        assert_type(await handle.cancel_async("enough"), bool)
        assert_type(await dispatcher.apply_and_observe_async(plan), RawObservation)
        batch = await dispatcher.submit_many_async([plan, plan], plan_ids=["monday-2", "monday-3"])
        assert_type(batch, PlanBatch)
        assert_type(await batch.results_async(timeout=90), list[RawObservation | ExecutorClientError])
        ended: list[PlanHandle] = []
        async for each in (await dispatcher.submit_many_async(more)).as_completed_async(timeout=90):
            assert_type(each, PlanHandle)
            ended.append(each)
        observations = await asyncio.gather(*(each.result_async() for each in ended))
        assert_type(observations, list[RawObservation])
        return observations
