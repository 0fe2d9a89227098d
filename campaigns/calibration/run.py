"""Carries out the lanes of a calibration, with their traffic."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from benchmarks.stage.http import serve
from campaigns.calibration.load import Load
from campaigns.calibration.probed import EXECUTOR
from campaigns.calibration.report import row_of
from campaigns.calibration.service import SampleService
from campaigns.calibration.table import RATE_PER_S
from dispatcher import ExecutorClientError, PlanState, RawObservation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Collection, Coroutine, Sequence

    from benchmarks.stage.http import Address
    from campaigns.calibration.load import Request
    from campaigns.calibration.report import Row
    from campaigns.calibration.table import Lane
    from campaigns.calibration.witness import Witness
    from dispatcher import Dispatcher, PlanHandle

__all__ = ["Outcome", "Run"]

TIMEOUT_S = 90.0
WITHIN_S = 600.0
LOOK_EVERY_S = 0.1

Outcome = RawObservation | ExecutorClientError


@dataclass
class Run:
    """One run, and its outcome."""

    dispatcher: Dispatcher
    proxy: Address
    witness: Witness
    stopping: bool
    """Whether each lane has one more plan, the second, which is cancelled in the middle."""

    probed: Collection[str] = ()
    """Names of lanes whose only traffic is the worker's own probe. The witness notes their requests."""

    service: SampleService = field(default_factory=SampleService)
    handles: list[PlanHandle] = field(default_factory=list)
    """Of all plans."""

    requests: list[Request] = field(default_factory=list)
    """Of all lanes."""

    async def rows(self, lanes: Sequence[Lane], service_port: int) -> list[Row]:
        """Carry out all lanes at once, behind the proxy a service on this port."""
        async with await serve(self.service, service_port), in_background(self.witness.run()):
            done = await asyncio.gather(*map(self._carry_out, lanes))
            windows = await self.witness.windows()
        return [
            row_of(
                lane,
                percentage,
                outcome,
                requests,
                windows,
                self.service.arrived,
                probed=lane.name in self.probed,
            )
            for lane, (outcomes, requests) in zip(lanes, done, strict=True)
            for percentage, outcome in zip(lane.percentages, outcomes, strict=True)
        ]

    async def _carry_out(self, lane: Lane) -> tuple[list[Outcome], list[Request]]:
        """The outcomes of a lane's plans, and all requests of its traffic."""
        await asyncio.sleep(lane.waits_s)
        if lane.name in self.probed:
            outcomes = await self._outcomes(lane, EXECUTOR)
            return outcomes, await self.witness.requests(lane.api)
        load = Load(lane, self.proxy, RATE_PER_S)
        async with in_background(load.run()):
            outcomes = await self._outcomes(lane, "default")
        self.requests += load.requests
        return outcomes, load.requests

    async def _outcomes(self, lane: Lane, executor: str) -> list[Outcome]:
        """How the plans of the lane ended, except the one that was cancelled."""
        plans = lane.plans()
        stops = self.stopping and len(plans) > 1
        if stops:
            plans.insert(1, plans[-1])
        submit = partial(self.dispatcher.submit_many, timeout_sec=TIMEOUT_S, executor=executor)
        handles = list(await asyncio.to_thread(submit, plans))
        self.handles += handles
        if stops:
            stopped = handles.pop(1)
            async with in_background(cancel_once_running(stopped)):
                await outcome_of(stopped)
        return [await outcome_of(handle) for handle in handles]


async def outcome_of(handle: PlanHandle) -> Outcome:
    """How the plan ended."""
    try:
        return await handle.result_async(WITHIN_S)
    except ExecutorClientError as error:
        return error


async def cancel_once_running(handle: PlanHandle) -> None:
    """Cancel a plan as soon as its fault is accepted."""
    while (await asyncio.to_thread(handle.status)).state is PlanState.QUEUED:  # noqa: ASYNC110 (Redis)
        await asyncio.sleep(LOOK_EVERY_S)
    await asyncio.to_thread(handle.cancel, "part of the calibration")


@asynccontextmanager
async def in_background(work: Coroutine[object, object, None]) -> AsyncIterator[None]:
    """Work that is cancelled at the end of the context, and may end before. Its defects are raised."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
