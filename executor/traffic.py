"""Sends a steady stream of requests through Envoy to every target that has a fault, or to what calls it.

They have the headers of the fault. None is a gRPC call.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import aiohttp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from executor.contract import FaultApply
    from executor.envoy_config import Address

__all__ = ["Traffic"]

MAX_IN_FLIGHT = 1000
TIMEOUT_S = 120.0

logger = logging.getLogger(__name__)


class Traffic:
    """`rps` requests a second to each target: an open loop, which delayed answers do not slow down."""

    def __init__(
        self,
        rps: float,
        proxy: Address,
        faults: Callable[[], Iterable[FaultApply]],
        called_through: Mapping[tuple[str, str], tuple[str, str]],
    ) -> None:
        """`faults` says which (service, path) to drive, with which headers, and is asked at each beat.

        One in `called_through` gets its requests from another target, which calls it.
        """
        self._interval_s = 1 / rps
        self._base_url = f"http://{proxy[0]}:{proxy[1]}"
        self._faults = faults
        self._called_through = called_through
        self._in_flight: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Send until cancelled."""
        loop = asyncio.get_running_loop()
        next_beat = loop.time()
        connector = aiohttp.TCPConnector(limit=MAX_IN_FLIGHT)
        timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
        async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
            try:
                while True:
                    self._beat(session)
                    next_beat = max(next_beat + self._interval_s, loop.time() - 1)
                    await asyncio.sleep(next_beat - loop.time())
            finally:
                for task in self._in_flight:
                    task.cancel()
                await asyncio.gather(*self._in_flight, return_exceptions=True)

    def _beat(self, session: aiohttp.ClientSession) -> None:
        for fault in self._faults():
            target = fault.service, fault.api
            service, path = self._called_through.get(target, target)
            if len(self._in_flight) >= MAX_IN_FLIGHT:
                logger.warning("%d requests are in flight: no more are sent", MAX_IN_FLIGHT)
                return
            task = asyncio.create_task(self._send(session, path, {**(fault.headers or {}), "Host": service}))
            self._in_flight.add(task)
            task.add_done_callback(self._in_flight.discard)

    async def _send(self, session: aiohttp.ClientSession, path: str, headers: Mapping[str, str]) -> None:
        try:
            async with session.get(self._base_url + path, headers=headers) as answer:
                await answer.read()
        except (aiohttp.ClientError, TimeoutError) as exc:
            logger.info("%s %s: %s", headers["Host"], path, exc)
