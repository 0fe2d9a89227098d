"""A session of `requests` whose answers are bounded as a whole, in time and in size.

The timeout of requests bounds each silence within an answer. An Executor that sends a byte a second could
hold a thread forever. Here the timeout bounds the whole answer, because the connections' sockets enforce it.
"""

from __future__ import annotations

import io
import math
import re
import time
from http.client import HTTPException
from http.client import HTTPResponse as PlainResponse
from typing import TYPE_CHECKING, Any

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies, prepend_scheme_if_needed, select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.util import parse_url

from dispatcher.errors import InvalidSettingsError

if TYPE_CHECKING:
    from urllib3.connectionpool import HTTPConnectionPool
    from urllib3.response import HTTPResponse

    from dispatcher.settings.executors import Endpoint

__all__ = ["BoundedSession", "proxies_of"]

MAX_HEAD_BYTES = 65_536 + io.DEFAULT_BUFFER_SIZE
"""How many bytes status line and headers may take, with what is read ahead."""

MAX_FRAMING = 2
"""How many bytes may arrive for each one that `max_response_bytes` allows; the others frame chunks."""

TOLERANCE_S = 0.02
"""By how much an answer may exceed its timeout."""

DIGITS = re.compile(r"[0-9]+")

INTERIM = range(102, 200)
"""Statuses of answers before the final one. http.client skips 100 itself, and 101 changes the protocol."""


def proxies_of(config: Endpoint) -> dict[str, str]:
    """The environment's proxies for this server by URL scheme, if the configuration asks for them.

    Raises `InvalidSettingsError` for a proxy that cannot be used. The error does not show it, because it may
    hold a password.
    """
    if not config.proxies_from_environment:
        return {}
    proxies = get_environ_proxies(config.url)
    proxy = select_proxy(config.url, proxies)
    if proxy and not _is_usable(proxy):
        problem = "needs a proxy that is a URL such as http://host:port, or none"
        raise InvalidSettingsError(
            f"invalid settings: proxies_from_environment {problem}", [["proxies_from_environment", problem]]
        )
    return proxies


def _is_usable(proxy: str) -> bool:
    try:
        url = parse_url(prepend_scheme_if_needed(proxy, "http"))
    except (ValueError, TypeError):  # TypeError: it has a password, but no host
        return False
    return url.scheme in {"http", "https"} and bool(url.host)


class BoundedSession(requests.Session):
    """One connection to one server. It keeps no cookie, and takes nothing from the environment."""

    def __init__(self, config: Endpoint, proxies: dict[str, str]) -> None:
        """`proxies` are those of `proxies_of`."""
        super().__init__()
        self.trust_env = False
        self.proxies.update(proxies)
        self.verify = str(config.ca_file) if config.ca_file else True
        if config.client_cert_file:
            certificate, key = str(config.client_cert_file), config.client_key_file
            self.cert = (certificate, str(key)) if key else certificate
        self._adapter = _Adapter(MAX_HEAD_BYTES + MAX_FRAMING * config.max_response_bytes)
        self.mount("https://", self._adapter)
        self.mount("http://", self._adapter)

    def exchange(self, request: requests.PreparedRequest, timeout: tuple[float, float]) -> requests.Response:
        """Send the request; its answer, of which the body is unread. Raises `OSError`, `HTTPError`.

        `Session.send` would look for cookies, redirects and hooks besides, of which there are none.
        """
        return self._adapter.send(
            request, stream=True, timeout=timeout, verify=self.verify, cert=self.cert, proxies=self.proxies
        )


class _Adapter(HTTPAdapter):
    """Reaches one server, over connections that bound each answer to `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=1)
        self._max_bytes = max_bytes
        self._pool: HTTPConnectionPool | None = None

    def request_url(self, request: requests.PreparedRequest, proxies: Any) -> str:
        """What the request line names. See `HTTPAdapter`, which looks for a proxy even if there are none."""
        path = str(request.path_url)
        return str(super().request_url(request, proxies)) if proxies or path.startswith("//") else path

    def build_response(self, req: requests.PreparedRequest, resp: HTTPResponse) -> requests.Response:
        """The answer as `requests` has it. See `HTTPAdapter`, whose answers have cookies, too.

        The headers are urllib3's own. They ignore case as those of requests do, which would be a copy.
        """
        response = requests.Response()
        response.status_code, response.headers = resp.status, resp.headers  # type: ignore[assignment]  # see above
        response.raw, response.request, response.connection = resp, req, self
        return response

    def get_connection_with_tls_context(self, *args: Any, **options: Any) -> HTTPConnectionPool:
        """The pool of connections to the server. See `HTTPAdapter`, which looks it up for every call."""
        if self._pool is None:
            self._pool = super().get_connection_with_tls_context(*args, **options)
            self._pool.ConnectionCls = _HttpsConnection if self._pool.scheme == "https" else _HttpConnection
            self._pool.conn_kw["max_bytes"] = self._max_bytes
        return self._pool


class _Response(PlainResponse):
    """Skips interim answers (RFC 9110, 15.2), and refuses malformed headers, which urllib3 only logs."""

    def begin(self) -> None:
        """See `http.client.HTTPResponse`."""
        super().begin()
        while self.status in INTERIM:
            self.headers = None  # type: ignore[assignment]  # as in a new response
            super().begin()
        if self.headers.defects or not self._is_delimited():
            raise HTTPException("the answer has malformed headers")

    def _is_delimited(self) -> bool:
        """Whether the headers agree on the end of the answer (RFC 9112, 6.3).

        An answer without a length ends with its connection.
        """
        lengths = self.headers.get_all("Content-Length", [])
        codings = self.headers.get_all("Transfer-Encoding", [])
        if codings:
            return not lengths and [coding.strip().lower() for coding in codings] == ["chunked"]
        return not lengths or (len(lengths) == 1 and DIGITS.fullmatch(lengths[0].strip()) is not None)


class _HttpConnection(HTTPConnection):
    """Its timeout bounds a whole answer. The head may have `MAX_HEAD_BYTES`, the rest `max_bytes`."""

    response_class = _Response

    def __init__(self, *args: Any, max_bytes: int, **options: Any) -> None:
        self._max_bytes = max_bytes
        super().__init__(*args, **options)

    @property
    def sock(self) -> Any:
        """The connected socket, within bounds. None if there is none."""
        return self._bounded

    @sock.setter
    def sock(self, sock: Any) -> None:
        self._bounded = None if sock is None else _BoundedSocket(sock)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        """See `HTTPConnection`."""
        sock = self.sock  # which an answer may take from the connection
        response = super().getresponse()
        sock.allow(self._max_bytes)
        return response


class _HttpsConnection(_HttpConnection, HTTPSConnection):
    """The same over TLS."""


class _BoundedSocket:
    """A connected socket whose timeout bounds all that it sends and receives until the next `settimeout`."""

    def __init__(self, sock: Any) -> None:
        self._sock = sock
        self._wait_s = math.inf
        self.settimeout(sock.gettimeout())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def settimeout(self, seconds: float) -> None:
        self._ends_at = time.monotonic() + seconds
        self.allow(MAX_HEAD_BYTES)

    def allow(self, max_bytes: int) -> None:
        """Receive so many more bytes at most."""
        self._left_bytes = max_bytes

    def sendall(self, data: bytes) -> None:
        self._limit_wait()
        self._sock.sendall(data)

    def makefile(self, mode: str) -> io.BufferedReader:
        return io.BufferedReader(_Received(self, self._sock.makefile(mode, buffering=0)))

    def receive(self, source: io.RawIOBase, buffer: Any) -> int | None:
        """Fill the buffer, as far as time and size allow. Raises `TimeoutError`, `OSError`."""
        self._limit_wait()
        count = source.readinto(buffer)
        self._left_bytes -= count or 0
        if self._left_bytes < 0:
            raise OSError("the answer has too much around its content")
        return count

    def _limit_wait(self) -> None:
        left_s = self._ends_at - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("the answer took too long")
        if not left_s <= self._wait_s <= left_s + TOLERANCE_S:  # a system call, and other threads go first
            self._wait_s = left_s
            self._sock.settimeout(left_s)


class _Received(io.RawIOBase):
    """What a bounded socket receives, for a buffered reader."""

    def __init__(self, sock: _BoundedSocket, source: io.RawIOBase) -> None:
        self._sock = sock
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        return self._sock.receive(self._source, buffer)

    def close(self) -> None:
        self._source.close()
        super().close()
