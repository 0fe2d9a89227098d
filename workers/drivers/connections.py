"""urllib3's pools and connections, spoken to directly: a request and its whole answer, and nothing besides.

urllib3 keeps, checks, secures and tunnels the connections, and the standard library reads the answers. What
else both do for an exchange (redirects, retries, decoding, a parser made for mail) takes far longer.

The read timeout bounds the whole answer, and not each silence within it: an Executor that sends a byte a
second would otherwise hold a step for as long as it likes.
"""

from __future__ import annotations

import http.client
import io
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.proxy import connection_requires_http_tunnel

from dispatcher.sockets import bound

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

__all__ = ["POOLS", "Headers", "TooLongError", "Transfer", "TransferPool"]

INTERIM = {100, *range(102, 200)}
NO_BODY = {101, 204, 304}
CHUNK_BYTES = 65_536
LONGEST_LINE = 65_536
MOST_HEADERS = 100


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
    """Kept connections to one server, which may be behind a proxy."""

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
        `http.client.HTTPException`, `urllib3.exceptions.HTTPError`, `ValueError` for a line break in what is
        sent, and `TooLongError` past `max_bytes`.
        """
        request = _request(
            method, target, headers if self._tunnels else {**headers, **self.proxy_headers}, body
        )
        connection: Any = self._get_conn()
        kept = False
        try:
            if connection.is_closed:
                connection.timeout = connect_s
                self._open(connection)
            bound(connection.sock, read_s)
            connection.sock.sendall(request)
            with _Response(connection.sock, read_s, method) as response:
                response.begin()
                answer = Transfer(response.status, response.fields, _whole(response, max_bytes))
            kept = not response.will_close
            return answer
        finally:
            if not kept:
                connection.close()
            self._put_conn(connection)

    def _open(self, connection: Any) -> None:
        if self._tunnels:
            self._prepare_proxy(connection)
        else:
            connection.connect()

    @property
    def _tunnels(self) -> bool:
        """Whether a proxy only passes bytes on."""
        return connection_requires_http_tunnel(self.proxy, self.proxy_config, self.scheme)


def _request(method: str, target: str, headers: Mapping[str, str], body: bytes | None) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", *map(": ".join, headers.items())]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    head = "\r\n".join([*lines, "", ""])
    if head.count("\n") + head.count("\r") != 2 * (len(lines) + 1):
        raise ValueError("there is a line break in what is sent")
    return head.encode("latin-1") + (body or b"")


def _whole(response: _Response, max_bytes: int) -> bytes:
    if response.length is not None and response.length <= max_bytes:
        return response.read()
    body = bytearray()
    while chunk := response.read(CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise TooLongError
    if response.length:
        raise http.client.IncompleteRead(b"", response.length)
    return bytes(body)


class _Reader(io.RawIOBase):
    """What a socket receives, within `read_s` seconds from now on."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, read_s: float) -> None:
        super().__init__()
        self._raw = raw
        self._sock = sock
        self._ends_at = time.monotonic() + read_s
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._begun:
            left_s = self._ends_at - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("the answer took too long")
            bound(self._sock, left_s)
        self._begun = True
        return self._sock.recv_into(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer, status line and headers included, that is read within one timeout."""

    def __init__(self, sock: socket.socket, read_s: float, method: str) -> None:
        super().__init__(sock, method=method)
        self.fp: io.BufferedReader = io.BufferedReader(_Reader(self.fp.detach(), sock, read_s))
        self.fields = Headers({})

    def begin(self) -> None:
        """Read up to the body, past interim answers (RFC 9110, 15.2), and what ends it (RFC 9112, 6.3)."""
        version, status, self.reason = self._read_status()  # type: ignore[attr-defined]
        self.fields = self._read_fields()
        while status in INTERIM:
            version, status, self.reason = self._read_status()  # type: ignore[attr-defined]
            self.fields = self._read_fields()
        if not version.startswith("HTTP/1."):
            raise http.client.UnknownProtocol(version)
        self.status = self.code = status
        self.version = 10 if version == "HTTP/1.0" else 11
        self.headers = self.msg = cast("Any", self.fields)
        self.chunked = self.fields.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        digits = self.fields.get("content-length", "")
        self.length = int(digits) if digits.isdecimal() and digits.isascii() and not self.chunked else None
        if status in NO_BODY:
            self.length = 0
        unbounded = self.length is None and not self.chunked
        self.will_close = unbounded or self._check_close()  # type: ignore[attr-defined]

    def _read_fields(self) -> Headers:
        values: dict[str, str] = {}
        name = ""
        for _ in range(MOST_HEADERS + 1):
            line = self.fp.readline(LONGEST_LINE + 1)
            if len(line) > LONGEST_LINE:
                raise http.client.LineTooLong("header line")
            if line in {b"\r\n", b"\n", b""}:
                return Headers(values)
            text = line.decode("latin-1").strip()
            if line[:1] in b" \t":  # the last line goes on (RFC 9112, 5.2)
                values[name] = f"{values.get(name, '')} {text}"
                continue
            name, _, value = text.partition(":")
            name, value = name.lower(), value.strip()
            if name == "content-length" and values.get(name, value) != value:
                raise http.client.HTTPException("several lengths: which one ends it? (RFC 9110, 8.6)")
            values[name] = (
                f"{values[name]}, {value}" if name in values and name != "content-length" else value
            )
        raise http.client.HTTPException("too many headers")


class _HttpsPool(TransferPool, HTTPSConnectionPool):
    pass


POOLS: dict[str, type[TransferPool]] = {"http": TransferPool, "https": _HttpsPool}
"""By URL scheme, for a urllib3 pool manager."""
