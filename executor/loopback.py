"""A small HTTP server on a free loopback port, or on a Unix socket."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

__all__ = ["LoopbackServer"]


class LoopbackServer:
    """Answers every request below `path` with `answer`."""

    def __init__(self, path: str, answer: Callable[[web.Request], Awaitable[web.Response]]) -> None:
        app = web.Application(client_max_size=16 * 1024**2)
        app.router.add_route("*", path + "{rest:.*}", answer)
        self._runner = web.AppRunner(app, access_log=None)
        self.address = ("127.0.0.1", 0)
        """Its address, once it has started."""

    async def start(self) -> None:
        """Begin to listen."""
        await self._runner.setup()
        await web.TCPSite(self._runner, *self.address).start()
        host, port = self._runner.addresses[0][:2]
        self.address = (host, port)

    async def start_on(self, socket: Path) -> None:
        """Begin to listen on a Unix socket, which may be left from before."""
        await asyncio.to_thread(socket.unlink, missing_ok=True)
        await self._runner.setup()
        await web.UnixSite(self._runner, str(socket)).start()

    async def stop(self) -> None:
        """End."""
        await self._runner.cleanup()
