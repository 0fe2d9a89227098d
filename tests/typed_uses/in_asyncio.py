"""Await plans in asyncio."""

import asyncio
from typing import assert_type

from dispatcher import Dispatcher, FaultPlan, PlanHandle, RawObservation


async def run(dispatcher: Dispatcher, plan: FaultPlan) -> list[RawObservation]:
    handle = dispatcher.submit(plan)
    assert_type(await handle.result_async(timeout=90), RawObservation)
    batch = dispatcher.submit_many([plan, plan])
    ended: list[PlanHandle] = []
    async for each in batch.as_completed_async(timeout=90):
        assert_type(each, PlanHandle)
        ended.append(each)
    observations = await asyncio.gather(*(each.result_async() for each in ended))
    assert_type(observations, list[RawObservation])
    return observations
