"""urllib3's pools and connections, spoken to directly: a request and its whole answer, and nothing besides.

urllib3 makes, secures and tunnels the connections, and llhttp (by httptools) reads the answers. What else the
usual clients do for an exchange (redirects, retries, decoding, a parser made for mail) takes far longer.

The read timeout bounds the whole answer, and not each silence within it: an Executor that sends a byte a
second would otherwise hold a step for as long as it likes.
"""

from __future__ import annotations

import select
import socket
import ssl
import struct
import sys
import time
import weakref
from collections import deque
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.proxy import connection_requires_http_tunnel

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["POOLS", "BrokenAnswerError", "Headers", "TooLongError", "Transfer", "TransferPool"]

CHUNK_BYTES = 65_536
LONGEST_HEAD = 65_536
"""Bytes that headers may take."""

MOST_AROUND = 10
"""Bytes that may come besides for each one of the body. Chunks of one byte take six."""

MOST_HEADERS = 100


class BrokenAnswerError(Exception):
    """What came over the wire is no HTTP, or only the beginning of an answer."""


class TooLongError(Exception):
    """The answer is longer than it may be."""


class Headers:
    """An answer's headers, whose names have no case."""

    def __init__(self, values: dict[str, str]) -> None:
        """Names in lower case."""
        self._values = values

    def get(self, name: str, default: str | None = None) -> Any:
        """The value of a header; several of one name are one, with commas between (RFC 9110, 5.3)."""
        return self._values.get(name.lower(), default)


@dataclass(frozen=True, slots=True)
class Transfer:
    """An answer as it came over the wire."""

    status: int
    headers: Headers
    body: bytes


class TransferPool(HTTPConnectionPool):
    """Kept connections to one server, which may be behind a proxy. Threads may share it."""

    def __init__(self, host: str, port: int | None = None, *, maxsize: int = 1, **options: Any) -> None:
        super().__init__(host, port, maxsize=maxsize, **options)
        self._most = maxsize
        self._idle: deque[Any] = deque()
        weakref.finalize(self, _close_all, self._idle)

    def transfer(
        self,
        method: str,
        target: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        connect_s: float,
        read_s: float,
        max_bytes: int,
    ) -> Transfer:
        """Send a request and read its answer. `target` is its path, or its URL where a proxy is to know it.

        `connect_s` bounds the connecting, `read_s` the whole answer, both in seconds. Raises `OSError`,
        `BrokenAnswerError`, `urllib3.exceptions.HTTPError`, `ValueError` for a line break in what is sent,
        and `TooLongError` past `max_bytes`.
        """
        if self.proxy_headers and not self._tunnels:
            headers = {**headers, **self.proxy_headers}
        request = _request(method, target, headers, body)
        connection = self._borrow()
        kept = False
        try:
            if connection.is_closed:
                connection.timeout = connect_s
                self._open(connection)
            bound(connection.sock, read_s)
            connection.sock.sendall(request)
            answer = _receive(connection.sock, read_s, max_bytes)
            kept = answer.keeps_connection and len(self._idle) < self._most
        finally:
            if kept:
                self._idle.append(connection)
            else:
                connection.close()
        return Transfer(answer.status, Headers(answer.headers), bytes(answer.body))

    def close(self) -> None:
        """Let go of the kept connections."""
        _close_all(self._idle)
        super().close()

    def _borrow(self) -> Any:
        """The connection that was used last, unless the server has closed it meanwhile; else a new one."""
        try:
            connection = self._idle.pop()
        except IndexError:
            return self._new_conn()
        if _has_ended(connection.sock):
            connection.close()
        return connection

    def _open(self, connection: Any) -> None:
        if self._tunnels:
            self._prepare_proxy(connection)
        else:
            connection.connect()

    @property
    def _tunnels(self) -> bool:
        """Whether a proxy only passes bytes on."""
        return connection_requires_http_tunnel(self.proxy, self.proxy_config, self.scheme)


def _close_all(connections: deque[Any]) -> None:
    while connections:
        connections.pop().close()


def _has_ended(sock: socket.socket) -> bool:
    """Whether an idle connection has something to say, which can only be that it has ended."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _request(method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *map(": ".join, headers.items())]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([*lines, "", ""])
    if head.count("\n") + head.count("\r") != 2 * (len(lines) + 1):
        raise ValueError("there is a line break in what is sent")
    return head.encode("latin-1") + (body or b"")


def _receive(sock: socket.socket, read_s: float, max_bytes: int) -> _Answer:
    """Read the whole answer, for no longer than `read_s` seconds, which bound the socket already."""
    ends_at = time.monotonic() + read_s
    answer = _Answer()
    while not answer.complete:
        data = sock.recv(CHUNK_BYTES)
        answer.feed(data)
        if len(answer.body) > max_bytes:
            raise TooLongError
        if not answer.complete:
            left_s = ends_at - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("the answer took too long")
            bound(sock, left_s)
    return answer


class _Answer:
    """An answer as far as it has come. llhttp calls the methods that begin with `on`."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.complete = False
        self.keeps_connection = False
        self._parser = HttpResponseParser(self)  # which holds it in turn, until it is complete
        self._received = 0

    def feed(self, data: bytes) -> None:
        """Take in what was received. Nothing means that the connection has ended.

        Raises `BrokenAnswerError`.
        """
        if data:
            self._parse(data)
        else:
            self._end()
        if self.complete:
            del self._parser

    def on_message_begin(self) -> None:
        self.keeps_connection = False  # if this is the second one

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:  # a trailer, or of a second answer
            return
        if len(self.headers) == MOST_HEADERS:
            raise BrokenAnswerError("too many headers")
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        status = self._parser.get_status_code()
        if self.status:
            return
        if HTTPStatus.CONTINUE <= status < HTTPStatus.OK and status != HTTPStatus.SWITCHING_PROTOCOLS:
            self.headers = {}  # of an interim answer; the real one follows (RFC 9110, 15.2)
        else:
            self.status = status

    def on_body(self, data: bytes) -> None:
        if not self.complete:
            self.body += data

    def on_message_complete(self) -> None:
        if self.status and not self.complete:
            self.complete = True
            self.keeps_connection = self._parser.should_keep_alive()

    def _parse(self, data: bytes) -> None:
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except HttpParserUpgrade:  # who asked for that?
            self.complete = True
        except HttpParserError as exc:
            if not self.complete:
                raise BrokenAnswerError(str(exc)) from exc
            self.keeps_connection = False  # more came than was asked for
        if not self.complete and self._received > LONGEST_HEAD + MOST_AROUND * len(self.body):
            raise BrokenAnswerError("there is too much around its body")

    def _end(self) -> None:
        """Where an answer does not say how long it is, it ends with its connection (RFC 9112, 6.3)."""
        sized = "content-length" in self.headers or "transfer-encoding" in self.headers
        if sized or not self.status:
            raise BrokenAnswerError("the connection ended before the answer did")
        self.complete = True


class _HttpsPool(TransferPool, HTTPSConnectionPool):
    pass


POOLS: dict[str, type[TransferPool]] = {"http": TransferPool, "https": _HttpsPool}
"""By URL scheme, for a urllib3 pool manager."""


def bound(sock: socket.socket, seconds: float) -> None:
    """Have each read and each write of the socket wait for `seconds` at most.

    By the kernel where it can. With a timeout of its own, Python asks before each read and write whether it
    would block: another system call, and one more time that all threads contend for the interpreter's lock.
    What took too long is a `BlockingIOError` then, else a `TimeoutError`.
    """
    if sys.platform != "linux" or isinstance(sock, ssl.SSLSocket):
        sock.settimeout(seconds)
        return
    if sock.gettimeout() is not None:
        sock.settimeout(None)
    whole, millionths = divmod(max(1, round(seconds * 1_000_000)), 1_000_000)
    timeval = struct.pack("@ll", whole, millionths)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)
