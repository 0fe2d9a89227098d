"""Clients that send at a fixed rate whether answers come or not, and note what came of each request."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.stage.http import Address, Connection

if TYPE_CHECKING:
    from campaigns.calibration.table import Lane

__all__ = ["Load", "Request"]


@dataclass(slots=True)
class Request:
    """One request, as its client saw it."""

    late_s: float
    """How much later than planned it was sent."""

    sent: float
    """When it was sent, in seconds since 1970."""

    latency_ms: float = 0.0
    """How long its client waited."""

    status: int | None = None
    """0 if the client gave up. None while it waits."""


@dataclass
class Load:
    """The traffic of a lane."""

    lane: Lane
    proxy: Address
    rate_per_s: float
    requests: list[Request] = field(default_factory=list)
    """In the order of sending."""

    _idle: list[Connection] = field(default_factory=list)

    async def run(self) -> None:
        """Send until cancelled, then wait until every request has come to its end."""
        loop = asyncio.get_running_loop()
        planned = loop.time()
        async with asyncio.TaskGroup() as waiting:
            with suppress(asyncio.CancelledError):
                while True:
                    waiting.create_task(self._request(planned))
                    planned += 1 / self.rate_per_s
                    await asyncio.sleep(max(0.0, planned - loop.time()))
        for connection in self._idle:
            connection.close()

    async def _request(self, planned: float) -> None:
        connection = self._idle.pop() if self._idle else await Connection.to(self.proxy)
        request = Request(asyncio.get_running_loop().time() - planned, time.time())
        self.requests.append(request)
        request.status = await connection.ask(self._text(), self.lane.patience_s)
        request.latency_ms = (connection.answered - request.sent) * 1000
        if connection.usable:
            self._idle.append(connection)

    def _text(self) -> bytes:
        target = f"{self.lane.api}?ms={self.lane.answer_ms}"
        return f"GET {target} HTTP/1.1\r\nhost: {self.lane.service}\r\n\r\n".encode()
