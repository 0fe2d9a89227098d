"""The one connection over which all tasks of an event loop send commands (`AsyncLine`)."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dispatcher.errors import CLOSED, DispatcherClosedError

if TYPE_CHECKING:
    import redis.asyncio

    from dispatcher.ledger.exchanges import Send

__all__ = ["AsyncLine"]

MOST_COMMANDS = 200
"""The most commands of several tasks in one round trip: while replies are read, the loop is held up."""


@dataclass(frozen=True, slots=True)
class _Request:
    send: Send
    replies: asyncio.Future[list[Any]]


class AsyncLine:
    """Sends the commands that wait in one round trip, then those that came meanwhile.

    One background task does all I/O. A task that is cancelled withdraws its commands if they have not been
    sent. Otherwise they are carried out, and the replies are dropped. Other tasks are not disturbed.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._waiting: deque[_Request] = deque()
        self._sender: asyncio.Task[None] | None = None

    async def send(self, send: Send) -> list[Any]:
        """The replies to the commands, each perhaps a `redis.ResponseError`.

        Raises `redis.RedisError` if there are none, `DispatcherClosedError` if the line is closed meanwhile.
        """
        request = _Request(send, asyncio.get_running_loop().create_future())
        self._waiting.append(request)
        if self._sender is None or self._sender.done():
            self._sender = asyncio.create_task(self._send_all())
        return await request.replies

    async def aclose(self) -> None:
        """End the calls that wait, and close the connection. The next call opens another."""
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])
        self._fail_all([])  # the task may have been cancelled before its first step
        await self._client.aclose()

    async def _send_all(self) -> None:
        page: list[_Request] = []
        try:
            while page := self._next_page():
                await self._exchange(page)
        finally:
            self._fail_all(page)  # the loop ends, or the line is closed

    def _fail_all(self, page: list[_Request]) -> None:
        for request in [*page, *self._waiting]:
            _fail(request, DispatcherClosedError(CLOSED))
        self._waiting.clear()

    def _next_page(self) -> list[_Request]:
        page: list[_Request] = []
        count = 0
        while self._waiting and (not page or count + len(self._waiting[0].send.commands) <= MOST_COMMANDS):
            request = self._waiting.popleft()
            if not request.replies.done():
                page.append(request)
                count += len(request.send.commands)
        return page

    async def _exchange(self, page: list[_Request]) -> None:
        try:
            replies = await self._replies(page)
        except Exception as exc:  # noqa: BLE001 (each task raises it)
            for request in page:
                _fail(request, exc)
            return
        for request in page:
            own, replies = replies[: len(request.send.commands)], replies[len(request.send.commands) :]
            if not request.replies.done():
                request.replies.set_result(own)

    async def _replies(self, page: list[_Request]) -> list[Any]:
        if any(request.send.anew for request in page):
            await self._client.connection_pool.disconnect(inuse_connections=False)
        async with self._client.pipeline(transaction=False) as pipe:
            for request in page:
                for command in request.send.commands:
                    pipe.execute_command(*command)
            replies: list[Any] = await pipe.execute(raise_on_error=False)
            return replies


def _fail(request: _Request, error: Exception) -> None:
    if not request.replies.done():
        request.replies.set_exception(error)
