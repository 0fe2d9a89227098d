"""urllib3's pools and connections, spoken to directly: a request and its whole answer, and nothing besides.

urllib3 keeps, checks, secures and tunnels the connections. The exchange itself is the standard library's, for
redirects, retries and decoding, which nobody here wants, take three times as long as all the rest.

The read timeout bounds the whole answer, and not each silence within it: an Executor that sends a byte a
second would otherwise hold a step for as long as it likes.
"""

from __future__ import annotations

import http.client
import io
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.proxy import connection_requires_http_tunnel

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

__all__ = ["POOLS", "TooLongError", "Transfer", "TransferPool"]

INTERIM = range(102, 200)
CHUNK_BYTES = 65_536


class TooLongError(Exception):
    """The answer is longer than it may be."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """An answer as it came over the wire."""

    status: int
    headers: Mapping[str, str]
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
        `http.client.HTTPException`, `urllib3.exceptions.HTTPError`, and `TooLongError` past `max_bytes`.
        """
        connection: Any = self._get_conn()
        kept = False
        try:
            if connection.is_closed:
                connection.timeout = connect_s
                self._open(connection)
            connection.sock.settimeout(read_s)
            connection.request(
                method, target, body, headers if self._tunnels else {**headers, **self.proxy_headers}
            )
            with connection.getresponse() as response:
                answer = Transfer(response.status, response.headers, _whole(response, max_bytes))
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


def _whole(response: http.client.HTTPResponse, max_bytes: int) -> bytes:
    if len(set(response.headers.get_all("Content-Length", ()))) > 1:  # which one ends it? (RFC 9110, 8.6)
        raise http.client.HTTPException("several lengths")
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
    """What a socket receives, within the timeout that it has when the reading begins."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        super().__init__()
        self._raw = raw
        self._sock = sock
        timeout_s = sock.gettimeout()
        self._ends_at = None if timeout_s is None else time.monotonic() + timeout_s
        self._begun = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._begun and self._ends_at is not None:
            left_s = self._ends_at - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("the answer took too long")
            self._sock.settimeout(left_s)
        self._begun = True
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer, status line and headers included, that is read within one timeout."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp: io.BufferedReader = io.BufferedReader(_Reader(self.fp.detach(), sock))

    def _read_status(self) -> tuple[str, int, str]:
        """The final status, past interim ones, of which the base class knows 100 only (RFC 9110, 15.2)."""
        version, status, reason = super()._read_status()  # type: ignore[misc]
        while status in INTERIM:
            http.client.parse_headers(self.fp)
            version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, status, reason


class _Exchanges:
    """The standard library's requests and answers, over a connection of urllib3's."""

    response_class = _Response
    putrequest = http.client.HTTPConnection.putrequest
    putheader = http.client.HTTPConnection.putheader

    def request(self, method: str, target: str, body: bytes | None, headers: Mapping[str, str]) -> None:
        http.client.HTTPConnection.request(self, method, target, body, headers)  # type: ignore[arg-type]

    def getresponse(self) -> http.client.HTTPResponse:
        return http.client.HTTPConnection.getresponse(self)  # type: ignore[arg-type]


class _HttpConnection(_Exchanges, HTTPConnection):  # type: ignore[misc]
    pass


class _HttpsConnection(_Exchanges, HTTPSConnection):  # type: ignore[misc]
    pass


class _HttpPool(TransferPool):
    ConnectionCls = _HttpConnection  # type: ignore[assignment]  # it answers with the standard library's


class _HttpsPool(TransferPool, HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection  # type: ignore[assignment]  # the same


POOLS: dict[str, type[TransferPool]] = {"http": _HttpPool, "https": _HttpsPool}
"""By URL scheme, for a urllib3 pool manager."""
