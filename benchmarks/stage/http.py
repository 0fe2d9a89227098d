"""A server and a client for GET requests. They cost little, so that they measure little of themselves."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["Address", "Connection", "Service", "serve"]

Address = tuple[str, int]

ANSWER = b"HTTP/1.1 %d Answer\r\ncontent-length: 0\r\n\r\n"
END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"

SO_TIMESTAMPNS = 35
"""Linux's, which Python does not name: socket(7)."""

TIMESPEC = struct.Struct("@ll")
CONTROL_BYTES = socket.CMSG_SPACE(TIMESPEC.size)


class Service(Protocol):
    """Answers requests."""

    def __call__(self, path: str, query: str) -> Awaitable[int]:
        """The status of the answer. Cancelled if the client gives up."""
        ...


async def serve(service: Service, port: int = 0) -> asyncio.Server:
    """A server on a loopback port; 0 is any free one."""
    loop = asyncio.get_running_loop()
    return await loop.create_server(lambda: _Served(service), "127.0.0.1", port, backlog=1024)


class _Served(asyncio.Protocol):
    """One kept-alive connection to the server. A client sends no request before it has an answer."""

    _transport: asyncio.Transport

    def __init__(self, service: Service) -> None:
        self._service = service
        self._unread = b""
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # it is TCP

    def data_received(self, data: bytes) -> None:
        self._unread += data
        if END in self._unread:
            target = self._unread.split(b" ", 2)[1].decode()
            self._unread = b""
            self._task = asyncio.ensure_future(self._answer(target))

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        if self._task is not None:
            self._task.cancel()

    async def _answer(self, target: str) -> None:
        path, _, query = target.partition("?")
        self._transport.write(ANSWER % await self._service(path, query))


class Connection:
    """A client's kept-alive connection: one request at a time.

    The kernel notes when an answer arrives, so that it does not matter when this process wakes up.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._received = b""
        self._answer: asyncio.Future[int] | None = None
        self.answered = 0.0
        """When the last answer was complete, or its client gave up, in seconds since 1970."""

        self.usable = True
        """Whether it can take another request."""

    @classmethod
    async def to(cls, address: Address) -> Connection:
        """A new connection. Raises `OSError`."""
        loop = asyncio.get_running_loop()
        connecting = socket.socket()
        connecting.setblocking(False)
        connecting.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        await loop.sock_connect(connecting, address)
        connection = cls(connecting)
        loop.add_reader(connecting, connection._readable)
        return connection

    async def ask(self, request: bytes, within_s: float) -> int:
        """The answer's status. 0 if none comes in time, or the connection ends; then it is closed."""
        self._answer = asyncio.get_running_loop().create_future()
        self._socket.send(request)  # it always fits into an idle connection
        try:
            async with asyncio.timeout(within_s):
                return await self._answer
        except TimeoutError:
            self.close()
            return 0

    def close(self) -> None:
        """Give up."""
        self._close(time.time())

    def _readable(self) -> None:
        try:
            data, control, _, _ = self._socket.recvmsg(65_536, CONTROL_BYTES)
        except BlockingIOError:
            return
        except ConnectionError:
            data, control = b"", []
        arrived = arrival(control)
        if not data:
            self._close(arrived)
            return
        self._received += data
        head, end, body = self._received.partition(END)
        if end and len(body) >= int(head.lower().partition(LENGTH)[2].split(b"\r\n")[0] or 0):
            self._received = b""
            self._ended(int(head.split(b" ", 2)[1]), arrived)

    def _close(self, now: float) -> None:
        self.usable = False
        asyncio.get_running_loop().remove_reader(self._socket)
        self._socket.close()
        self._ended(0, now)

    def _ended(self, status: int, now: float) -> None:
        self.answered = now
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)


def arrival(control: list[tuple[int, int, bytes]]) -> float:
    """When the kernel got the data, in seconds since 1970. Now, if it does not say."""
    for level, kind, data in control:
        if (level, kind) == (socket.SOL_SOCKET, SO_TIMESTAMPNS):
            seconds, nanoseconds = TIMESPEC.unpack(data)
            return float(seconds + nanoseconds / 1e9)
    return time.time()
