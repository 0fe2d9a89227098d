"""Connections whose read timeout bounds the whole answer, and not each silence within it.

An Executor that sends a byte a second would otherwise hold a step for as long as it likes.
"""

from __future__ import annotations

import http.client
import io
import time
from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

if TYPE_CHECKING:
    import socket

__all__ = ["POOLS"]

INTERIM = range(102, 200)


class _Reader(io.RawIOBase):
    """What a socket receives, within the timeout that it has when the reading begins."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket) -> None:
        super().__init__()
        self._raw = raw
        self._sock = sock
        timeout_s = sock.gettimeout()
        self._ends_at = None if timeout_s is None else time.monotonic() + timeout_s

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if self._ends_at is not None:
            left_s = self._ends_at - time.monotonic()
            if left_s <= 0:
                raise TimeoutError("the answer took too long")
            self._sock.settimeout(left_s)
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


class _ClosesWhatItRefuses:
    """An answer whose headers are refused is closed at once, and not when its memory is collected."""

    _begun: _Response | None = None

    def response_class(self, *args: Any, **options: Any) -> _Response:
        self._begun = _Response(*args, **options)
        return self._begun

    def getresponse(self) -> Any:
        try:
            return super().getresponse()  # type: ignore[misc]
        except BaseException:
            if self._begun is not None:
                self._begun.close()
            raise
        finally:
            self._begun = None


class _HttpConnection(_ClosesWhatItRefuses, HTTPConnection):  # type: ignore[misc]
    pass


class _HttpsConnection(_ClosesWhatItRefuses, HTTPSConnection):  # type: ignore[misc]
    pass


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _HttpConnection


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _HttpsConnection


POOLS: dict[str, type[HTTPConnectionPool]] = {"http": _HttpPool, "https": _HttpsPool}
"""By URL scheme, for a urllib3 pool manager."""
