"""Bounds in time and number on the connections to the API, whose server has none for a slow client."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["MAX_WAITING", "Connections"]

MAX_WAITING = 2_000
"""How many connections may be without a request at a time. One more ends the oldest of them."""


class Connections:
    """The connections to one server.

    `http` is uvicorn's HTTP protocol with a bound: a connection is cut unless the head of a request arrives
    in time after it was opened, and after each answer. A client that does not take its answer is cut, too.
    """

    def __init__(self, request_within_s: float, max_waiting: int = MAX_WAITING) -> None:
        """`request_within_s`: how long a connection may be without a request."""
        self._request_within_s = request_within_s
        self._max_waiting = max_waiting
        self._open: dict[_Ends, _Connection] = {}
        self._waiting: dict[_Ends, None] = {}
        """Those without a request, the oldest first."""

        connections = self

        class Http(_Connection):
            def __init__(self, **given: Any) -> None:
                super().__init__(connections, H11Protocol(**given))

        self.http: type[asyncio.Protocol] = Http
        """For `uvicorn.Config`."""

    def watched(self, app: ASGIApp) -> ASGIApp:
        """The application. Its work on a request does not count as time of the connection."""

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            ends = _ends(scope.get("client"), scope.get("server"))
            connection = self._open.get(ends)
            if connection is None:
                await app(scope, receive, send)
                return
            connection.requests += 1
            self._has_request(ends, connection)

            async def send_in_time(message: Message) -> None:
                connection.expect_within(self._request_within_s)
                await send(message)
                connection.expect_within(None)

            try:
                await app(scope, receive, send_in_time)
            finally:
                connection.requests -= 1
                if not connection.requests:
                    self._waits(ends, connection)

        return watched

    def opened(self, ends: _Ends, connection: _Connection) -> None:
        """A client has connected."""
        self._open[ends] = connection
        self._waits(ends, connection)
        if len(self._waiting) > self._max_waiting:
            oldest = next(iter(self._waiting))
            del self._waiting[oldest]
            self._open[oldest].cut()

    def closed(self, ends: _Ends, connection: _Connection) -> None:
        """It has gone."""
        if self._open.get(ends) is connection:
            del self._open[ends]
            self._has_request(ends, connection)

    def _waits(self, ends: _Ends, connection: _Connection) -> None:
        if self._open.get(ends) is connection:
            self._waiting[ends] = None
            connection.expect_within(self._request_within_s)

    def _has_request(self, ends: _Ends, connection: _Connection) -> None:
        self._waiting.pop(ends, None)
        connection.expect_within(None)


_Ends = tuple[object, object]
"""Address and port of the client, and those at which it was accepted."""


class _Connection(asyncio.Protocol):
    """One connection. All that arrives goes to uvicorn's protocol."""

    def __init__(self, connections: Connections, served: asyncio.Protocol) -> None:
        self._connections = connections
        self._served = served
        self._ends: _Ends = (None, None)
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.requests = 0
        """How many requests it serves. A client can send the next one early."""

    def expect_within(self, seconds: float | None) -> None:
        """Cut the connection after this many seconds. None: cut it no longer."""
        if self._timer is not None:
            self._timer.cancel()
        loop = asyncio.get_running_loop()
        self._timer = None if seconds is None else loop.call_later(seconds, self.cut)

    def cut(self) -> None:
        """End it at once, with all that is not sent yet."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (a TCP connection)
        self._transport = transport
        self._ends = _ends(transport.get_extra_info("peername"), transport.get_extra_info("sockname"))
        self._served.connection_made(transport)
        self._connections.opened(self._ends, self)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._connections.closed(self._ends, self)
        self._served.connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self._served.data_received(data)

    def eof_received(self) -> bool | None:
        """See `asyncio.Protocol`."""
        return self._served.eof_received()

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._served.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self._served.resume_writing()


def _ends(client: Any, server: Any) -> _Ends:
    """The first two parts of each: IPv6 has more."""
    return tuple(client or ())[:2], tuple(server or ())[:2]
