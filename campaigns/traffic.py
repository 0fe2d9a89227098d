"""Clients that send at a fixed rate whether answers come or not, and a service for them."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

Address = tuple[str, int]

FIRST_ERROR_STATUS = 400
END = b"\r\n\r\n"
LENGTH = b"\r\ncontent-length:"

SO_TIMESTAMPNS = 35
"""Linux's, which Python does not name: socket(7)."""

TIMESPEC = struct.Struct("@ll")
CONTROL_BYTES = socket.CMSG_SPACE(TIMESPEC.size)


Service = Callable[[str, str], Awaitable[int]]
"""The status that a request is answered with, by its path and query. Cancelled if the client gives up."""


@asynccontextmanager
async def serving(service: Service, port: int = 0) -> AsyncIterator[Address]:
    """The address of a server on a loopback port; 0 is any free one. It ends with the context."""

    async def answer(request: web.BaseRequest) -> web.Response:
        return web.Response(status=await service(request.path, request.query_string))

    server = web.Server(answer, handler_cancellation=True, access_log=None)
    runner = web.ServerRunner(server, shutdown_timeout=0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, backlog=1024).start()
        yield runner.addresses[0]
    finally:
        await runner.cleanup()


@dataclass(slots=True)
class Request:
    """One request, as its client saw it."""

    late_s: float
    """How much later than planned it was sent."""

    sent: float
    """When it was sent, in seconds since 1970."""

    latency_ms: float = 0.0
    """How long its client waited: for an answer by the kernel's clock, otherwise by a steady one."""

    status: int | None = None
    """0 if it has no answer. None while its client waits."""

    path: str = ""

    @property
    def answered(self) -> float:
        """When its answer was complete, or its client gave up, in seconds since 1970."""
        return self.sent + self.latency_ms / 1000


@dataclass
class Clients:
    """The traffic to one service behind a proxy."""

    proxy: Address
    service: str
    targets: Iterator[str]
    """The target of each request, with its query."""

    rate_per_s: float
    patience_s: float
    """When the clients give up."""

    requests: list[Request] = field(default_factory=list)
    """In the order of sending."""

    _idle: list[Connection] = field(default_factory=list)

    async def run(self) -> None:
        """Send until cancelled, then wait until every request has come to its end."""
        loop = asyncio.get_running_loop()
        planned = loop.time()
        async with asyncio.TaskGroup() as waiting:
            with suppress(asyncio.CancelledError):
                for target in self.targets:
                    waiting.create_task(self._request(target, planned))
                    planned += 1 / self.rate_per_s
                    await asyncio.sleep(max(0.0, planned - loop.time()))
        for connection in self._idle:
            connection.close()

    async def _request(self, target: str, planned: float) -> None:
        loop = asyncio.get_running_loop()
        begun, request = loop.time(), Request(0.0, time.time(), path=target.partition("?")[0])
        self.requests.append(request)
        text = f"GET {target} HTTP/1.1\r\nhost: {self.service}\r\n\r\n".encode()
        try:
            connection = await self._connection()
            begun, request.sent = loop.time(), time.time()
            request.late_s = begun - planned
            status = await connection.ask(text, self.patience_s)
        except OSError:
            request.latency_ms, request.status = (loop.time() - begun) * 1000, 0
            return
        waited_s = connection.answered - request.sent if status else loop.time() - begun
        request.latency_ms, request.status = waited_s * 1000, status
        if connection.usable:
            self._idle.append(connection)

    async def _connection(self) -> Connection:
        """One that is idle, or a new one. Raises `OSError`."""
        while self._idle:
            connection = self._idle.pop()
            if connection.usable:
                return connection
        return await Connection.to(self.proxy)


class Connection:
    """A client's kept-alive connection: one request at a time.

    The kernel notes when an answer arrives, so that it does not matter when this process wakes up.
    """

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._received = b""
        self._answer: asyncio.Future[int] | None = None
        self.answered = 0.0
        """When the last answer was complete, in seconds since 1970. Without an answer: when this ended."""

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
