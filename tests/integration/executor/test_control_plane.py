"""The control plane and a real Envoy: what is taken, refused, renewed and dropped."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

import aiohttp
import pytest

from executor.contract import FaultApply, FaultConfig
from executor.control_plane import TTL_S, ControlPlane, RefusedError
from executor.envoy import Envoy
from executor.faults import Fault
from executor.routes import RouteTable, runtime_layer
from executor.sample_service import sample_service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


def abort(api: str, status: int = 503) -> Fault:
    """`status` may be one that the contract would refuse."""
    request = FaultApply.model_construct(
        service="S",
        api=api,
        fault_type="abort",
        percentage=100,
        duration_seconds=60,
        fault_config=FaultConfig.model_construct(http_status=status),
    )
    return Fault(request, None, datetime.now(UTC))


class Plane:
    """An Envoy with its control plane, in front of a sample service."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sample = sample_service()
        self.table = RouteTable(["S"])

    async def __aenter__(self) -> Self:
        await self._sample.start()
        self.envoy = Envoy(self._folder, {"S": self._sample.address}, ("127.0.0.1", 0), outlives=False)
        self.control = ControlPlane(self.envoy.files.control)
        await self.control.start(self.table.configuration([]), runtime_layer([]))
        await self.envoy.start()
        await self.control.taken()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.envoy.stop()
        await self.control.stop()
        await self._sample.stop()

    async def publish(self, *faults: Fault) -> None:
        await self.control.publish(self.table.configuration(faults), runtime_layer(faults))

    async def status_of(self, path: str) -> int:
        url = f"http://{self.envoy.proxy[0]}:{self.envoy.proxy[1]}{path}"
        async with aiohttp.ClientSession() as session, session.get(url, headers={"Host": "S"}) as answer:
            return answer.status

    async def statuses(self, path: str) -> AsyncIterator[int]:
        while True:
            yield await self.status_of(path)
            await asyncio.sleep(0.02)


def test_refused_routes_are_an_error_and_leave_the_faults_as_they_were(tmp_path: Path) -> None:
    async def scenario() -> list[int]:
        async with Plane(tmp_path) as plane:
            good, bad = abort("/api/good"), abort("/api/bad", 9999)
            await plane.publish(good)
            with pytest.raises(RefusedError, match="HttpStatus"):
                await plane.publish(good, bad)
            found = [await plane.status_of(path) for path in ("/api/good", "/api/bad")]
            await plane.publish()
            return [*found, await plane.status_of("/api/good")]

    assert asyncio.run(scenario()) == [503, 200, 200]


def test_a_fault_is_dropped_by_envoy_itself_unless_it_is_renewed(tmp_path: Path) -> None:
    async def scenario() -> tuple[float, float]:
        async with Plane(tmp_path) as plane:
            clock = asyncio.get_running_loop().time
            await plane.publish(abort("/api/x"))
            began = clock()
            async for status in plane.statuses("/api/x"):
                if status == 200:
                    break
                if clock() < began + TTL_S / 2:
                    await plane.control.renew()
                    renewed = clock()
            return renewed - began, clock() - renewed

    renewed_for, lasted = asyncio.run(scenario())
    assert renewed_for > TTL_S / 3
    assert TTL_S - 0.5 < lasted < TTL_S + 2


def test_an_envoy_whose_control_plane_ends_drops_the_faults_and_goes_on(tmp_path: Path) -> None:
    async def scenario() -> set[int]:
        async with Plane(tmp_path) as plane:
            await plane.publish(abort("/api/x"))
            assert await plane.status_of("/api/x") == 503
            await plane.control.stop()
            other = set()
            async for status in plane.statuses("/api/x"):
                other.add(await plane.status_of("/api/other"))
                if status == 200:
                    return other
        return set()

    assert asyncio.run(scenario()) == {200}
