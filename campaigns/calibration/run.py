"""Carries out the lanes of a calibration, with their traffic."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from campaigns.calibration.lanes import PROBED, RATE_PER_S, answer_s
from campaigns.calibration.report import row_of
from campaigns.fleet import cancel_once_running
from campaigns.traffic import Clients, serving
from dispatcher import ExecutorClientError, RawObservation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Sequence

    from campaigns.calibration.lanes import Lane
    from campaigns.calibration.report import Row, Window
    from campaigns.calibration.witness import Witness
    from campaigns.traffic import Address, Request
    from dispatcher import Dispatcher, PlanHandle

TIMEOUT_S = 90.0
WITHIN_S = 600.0

Outcome = RawObservation | ExecutorClientError


class SampleService:
    """Answers `GET /path?ms=20` with 200 after 20 ms, and counts arrivals."""

    def __init__(self) -> None:
        self._arrivals: defaultdict[str, list[float]] = defaultdict(list)

    async def __call__(self, path: str, query: str) -> int:
        """See `Service`."""
        self._arrivals[path].append(time.time())
        await asyncio.sleep(answer_s(query))
        return 200

    def arrived(self, path: str, window: Window) -> int:
        """How many requests for the path arrived in the window."""
        began, ended = window
        return sum(began <= at <= ended for at in self._arrivals[path])


@dataclass
class Run:
    """One run, and its outcome."""

    dispatcher: Dispatcher
    proxy: Address
    witness: Witness
    slow: bool
    """Whether the data plane is slow.

    Then each lane has one more plan, the second, which is cancelled in the middle. Lanes that may be probed
    have no other traffic than the worker's probe, and the witness notes their requests.
    """

    service: SampleService = field(default_factory=SampleService)
    handles: list[PlanHandle] = field(default_factory=list)
    """Of all plans."""

    requests: list[Request] = field(default_factory=list)
    """Of all lanes."""

    async def rows(self, lanes: Sequence[Lane], service_port: int) -> list[Row]:
        """Carry out all lanes at once, behind the proxy a service on this port."""
        async with serving(self.service, service_port), in_background(self.witness.run()):
            done = await asyncio.gather(*map(self._carry_out, lanes))
            windows = await self.witness.windows()
        return [
            row_of(
                lane, percentage, outcome, requests, windows, self.service.arrived, probed=self._probes(lane)
            )
            for lane, (outcomes, requests) in zip(lanes, done, strict=True)
            for percentage, outcome in zip(lane.percentages, outcomes, strict=True)
        ]

    def _probes(self, lane: Lane) -> bool:
        return self.slow and lane.may_be_probed

    async def _carry_out(self, lane: Lane) -> tuple[list[Outcome], list[Request]]:
        """The outcomes of a lane's plans, and all requests of its traffic."""
        await asyncio.sleep(lane.waits_s)
        if self._probes(lane):
            outcomes = await self._outcomes(lane, PROBED)
            return outcomes, await self.witness.requests(lane.api)
        target = itertools.repeat(lane.target)
        clients = Clients(self.proxy, lane.service, target, RATE_PER_S, lane.patience_s)
        async with in_background(clients.run()):
            outcomes = await self._outcomes(lane, "default")
        self.requests += clients.requests
        return outcomes, clients.requests

    async def _outcomes(self, lane: Lane, executor: str) -> list[Outcome]:
        """How the plans of the lane ended, except the one that was cancelled."""
        plans = lane.plans()
        stops = self.slow and len(plans) > 1
        if stops:
            plans.insert(1, plans[-1])
        submit = partial(self.dispatcher.submit_many, timeout_sec=TIMEOUT_S, executor=executor)
        handles = list(await asyncio.to_thread(submit, plans))
        self.handles += handles
        if stops:
            stopped = handles.pop(1)
            await asyncio.to_thread(cancel_once_running, stopped)
            await outcome_of(stopped)
        return [await outcome_of(handle) for handle in handles]


async def outcome_of(handle: PlanHandle) -> Outcome:
    """How the plan ended."""
    try:
        return await handle.result_async(WITHIN_S)
    except ExecutorClientError as error:
        return error


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
