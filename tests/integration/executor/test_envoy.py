"""Envoy as a child: what it does with routes that it refuses."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import aiohttp
import pytest

from executor.contract import FaultApply, FaultConfig
from executor.envoy import Envoy, EnvoyError
from executor.faults import Fault
from executor.sample_service import sample_service

if TYPE_CHECKING:
    from pathlib import Path


def abort(api: str, status: int) -> Fault:
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


async def status_of(envoy: Envoy, path: str) -> int:
    url = f"http://{envoy.proxy[0]}:{envoy.proxy[1]}{path}"
    async with aiohttp.ClientSession() as session, session.get(url, headers={"Host": "S"}) as answer:
        return answer.status


def test_refused_routes_are_an_error_and_leave_the_faults_as_they_were(tmp_path: Path) -> None:
    async def scenario() -> tuple[int, int, int]:
        sample = sample_service()
        await sample.start()
        envoy = Envoy(tmp_path, {"S": sample.address}, ("127.0.0.1", 0), ("127.0.0.1", 1))
        await envoy.start()
        try:
            good, bad = abort("/api/good", 503), abort("/api/bad", 9999)
            await envoy.inject([good])
            with pytest.raises(EnvoyError, match="refused"):
                await envoy.inject([good, bad])
            after = await status_of(envoy, "/api/good"), await status_of(envoy, "/api/bad")
            await envoy.inject([])
            return *after, await status_of(envoy, "/api/good")
        finally:
            await envoy.stop()
            await sample.stop()

    assert asyncio.run(scenario()) == (503, 200, 200)
