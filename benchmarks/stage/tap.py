"""A tap on a line: it passes all bytes on, and counts them and the round trips that they make up."""

from __future__ import annotations

import asyncio
import threading
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable

CHUNK = 65_536


class Tap:
    """Listens on `port`, for clients of the server at port `upstream`. A thread, until the context ends."""

    port: int
    round_trips = 0
    """How often a client has sent something after an answer. Requests that are sent together are one."""

    asked_bytes = 0
    answered_bytes = 0

    def __init__(self, upstream: int) -> None:
        self._upstream = upstream
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tap", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        opening = asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self._server = asyncio.run_coroutine_threadsafe(opening, self._loop).result(5)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _serve(self, asking: asyncio.StreamReader, answer: asyncio.StreamWriter) -> None:
        answering, ask = await asyncio.open_connection("127.0.0.1", self._upstream)
        answered_since = True  # whether the server has answered since the client last sent something

        def asked(size: int) -> None:
            nonlocal answered_since
            self.asked_bytes += size
            self.round_trips += answered_since
            answered_since = False

        def answered(size: int) -> None:
            nonlocal answered_since
            self.answered_bytes += size
            answered_since = True

        with suppress(asyncio.CancelledError):  # the tap ends
            await asyncio.gather(_pass_on(asking, ask, asked), _pass_on(answering, answer, answered))

    async def _end(self) -> None:
        self._server.close()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pass_on(
    source: asyncio.StreamReader, sink: asyncio.StreamWriter, note: Callable[[int], None]
) -> None:
    """Pass bytes on until one side closes, then close the other."""
    with closing(sink), suppress(ConnectionError):
        while data := await source.read(CHUNK):
            note(len(data))
            sink.write(data)
            await sink.drain()
