"""The one transport to Executors, and the one file that imports requests."""

from __future__ import annotations

import json
import logging
import math
import socket
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies

from dispatcher.errors import (
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorProtocolError,
    InvalidSettingsError,
)
from dispatcher.traces import W3C
from workers.drivers.certificates import check_certificates
from workers.drivers.connections import POOLS, BrokenAnswerError, TooLongError, Transfer
from workers.drivers.strict_json import loads
from workers.failures import CONNECTION_ROWS, status_row
from workers.traces import traced_call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatcher.endpoints import Endpoint
    from workers.drivers.connections import Headers, TransferPool

__all__ = ["Answer", "HttpTransport"]

logger = logging.getLogger(__name__)

USER_AGENT = f"fault-dispatcher/{version('fault-dispatcher')}"
EXCERPT_BYTES = 200
SUCCESS = range(200, 300)
LONGEST_RETRY_AFTER_S = 86_400.0

KINDS: tuple[tuple[type[Exception], str], ...] = (
    (TimeoutError, "timeout"),
    (BlockingIOError, "timeout"),  # the kernel's word for it
    (ssl.SSLEOFError, "broken"),
    (ssl.SSLError, "tls"),
    (socket.gaierror, "dns"),
    (ConnectionRefusedError, "refused"),
)
"""What a failed call may have been caused by, and which row of the table that is."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A complete answer of the Executor."""

    call: str
    """What was asked, as in `GET http://localhost:8000/v1/health`."""

    status: int
    body: bytes
    retry_after_s: float | None = None
    """How long the Executor asks to be left alone, in seconds."""

    @property
    def ok(self) -> bool:
        """Whether the status is one of success."""
        return self.status in SUCCESS

    def json(self) -> Any:
        """The body as JSON. Raises `ExecutorProtocolError`."""
        try:
            return loads(self.body)
        except ValueError as exc:
            raise self.protocol_error(f"is not JSON ({exc})") from exc

    def protocol_error(self, what: str) -> ExecutorProtocolError:
        """An error that shows how the answer begins."""
        excerpt = self.body[:EXCERPT_BYTES].decode("utf-8", "backslashreplace")
        return ExecutorProtocolError(f"{self.call}: the answer {what}; it begins {excerpt!r}")

    def error(self) -> ExecutorClientError:
        """What the specification's table says of an answer that is no success."""
        row = status_row(self.status)
        told = self._message()
        quoted = f": {told!r}" if told else ""
        message = f"{self.call}: {self.status} {row.failure}{quoted}; {row.advice}"
        return row.error(message, self.status, told, self.retry_after_s)

    def _message(self) -> str:
        """The Executor's own words: its `message` or `error` field, else the beginning of the body."""
        try:
            fields = loads(self.body)
        except ValueError:
            fields = None
        if isinstance(fields, dict):
            for name in ("message", "error"):
                if isinstance(fields.get(name), str) and fields[name]:
                    return str(fields[name])[:EXCERPT_BYTES]
        return self.body[:EXCERPT_BYTES].decode("utf-8", "backslashreplace")


class HttpTransport:
    """Calls to one server over a pool of kept-alive connections. Safe to share between threads.

    Calls go straight to the adapter: no redirect is followed, no cookie kept, no credentials are taken from
    the environment, and a proxy only where that is configured.
    """

    def __init__(self, config: Endpoint, connections: int) -> None:
        """`connections` is how many are kept for reuse, one for each thread that calls.

        Raises `InvalidSettingsError` for certificate files that cannot be used.
        """
        check_certificates(config)
        self._base_url = str(requests.Request("GET", config.url).prepare().url).rstrip("/")
        self._timeouts = (config.connection_timeout_sec, config.read_timeout_sec)
        self._max_bytes = config.max_response_bytes
        self._headers = {
            "Host": urlsplit(self._base_url).netloc,
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": USER_AGENT,
        }
        self._secret = b""
        if config.token is not None and config.token.get_secret_value():
            self._secret = config.token.get_secret_value().encode()
            self._headers["Authorization"] = f"Bearer {self._secret.decode()}"
        self._server = _Server(config, connections)
        self._pool = self._server.pool
        self._target = self._server.target

    @property
    def longest_call_s(self) -> float:
        """Connecting, and waiting for the answer, in seconds."""
        return sum(self._timeouts)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: dict[str, str] | None = None,
        within_s: float = math.inf,
    ) -> Answer:
        """Send one request and read its answer, whatever its status. `within_s` caps both timeouts.

        `body` is sent as JSON; bytes are sent as they are.
        Raises `ExecutorTimeoutError`, `ExecutorConnectionError`, `ExecutorProtocolError` (too long).
        """
        url = self._base_url + path
        return traced_call(method, url, lambda: self._send(method, path, body, headers or {}, within_s))

    def _send(self, method: str, path: str, body: object, headers: dict[str, str], within_s: float) -> Answer:
        name = f"{method} {self._base_url}{path}"
        sent, content = self._content(body, headers)
        connect_s, read_s = (min(timeout_s, within_s) for timeout_s in self._timeouts)
        try:
            answer = self._pool.transfer(
                method,
                self._target + path,
                sent,
                content,
                connect_s=connect_s,
                read_s=read_s,
                max_bytes=self._max_bytes,
            )
        except TooLongError as exc:
            told = f"{name}: the answer is longer than max_response_bytes ({self._max_bytes})"
            raise ExecutorProtocolError(told) from exc
        except (OSError, BrokenAnswerError, urllib3.exceptions.HTTPError) as exc:
            raise _no_answer(name, exc) from exc
        logger.debug("%s: %d", name, answer.status)
        return Answer(name, answer.status, self._read(answer, name), _retry_after_s(answer.headers))

    def _content(self, body: object, headers: dict[str, str]) -> tuple[dict[str, str], bytes | None]:
        """What is sent: headers, among them the span that the call is made in, and body."""
        sent = self._headers | headers
        W3C.inject(sent)
        if body is None:
            return sent, None
        sent["Content-Type"] = "application/json"
        return sent, body if isinstance(body, bytes) else json.dumps(body).encode()

    def _read(self, answer: Transfer, name: str) -> bytes:
        encoding = answer.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":  # it could unfold to any size
            told = f"{name}: the answer is encoded ({encoding[:20]!r}), which was not asked for"
            raise ExecutorProtocolError(told)
        if self._secret and self._secret in answer.body:  # an Executor that repeats it would spread it
            return answer.body.replace(self._secret, b"[token]")
        return answer.body

    def close(self) -> None:
        """Close the pooled connections."""
        self._pool.close()
        self._server.close()


class _Server(HTTPAdapter):
    """What requests knows of connecting to one server: certificates, proxies, the pool."""

    def __init__(self, config: Endpoint, connections: int) -> None:
        super().__init__(pool_connections=1, pool_maxsize=connections)
        self.poolmanager.pool_classes_by_scheme = POOLS
        request = requests.Request("GET", config.url).prepare()
        proxies = get_environ_proxies(config.url) if config.proxies_from_environment else None
        verify = str(config.ca_file) if config.ca_file else True
        cert = _client_certificate(config)
        try:
            pool = self.get_connection_with_tls_context(request, verify, proxies, cert)
        except requests.RequestException as exc:
            problem = f"cannot be used: {exc}"
            told = f"invalid settings: proxies_from_environment {problem}"
            raise InvalidSettingsError(told, [["proxies_from_environment", problem]]) from exc
        self.pool = cast("TransferPool", pool)
        self.target = self.request_url(request, proxies).rstrip("/")
        """What goes before a path in a request's first line: the URL, where a proxy is to know it."""

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        manager.pool_classes_by_scheme = POOLS
        return manager


def _no_answer(call: str, exc: Exception) -> ExecutorClientError:
    kind = _kind(exc)
    row = CONNECTION_ROWS[kind]
    message = f"{call}: {row.failure}; {row.advice}"
    return row.error(message, kind) if row.error is ExecutorConnectionError else row.error(message)


def _retry_after_s(headers: Headers) -> float | None:
    """`Retry-After`: seconds, or a date, held against the Executor's own clock (RFC 9110, 10.2.3)."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return min(float(value), LONGEST_RETRY_AFTER_S)
    try:
        until = parsedate_to_datetime(value)
        date = headers.get("Date")
        now = parsedate_to_datetime(date) if date else datetime.now(UTC)
        wait_s = (until - now).total_seconds()
    except (ValueError, TypeError):  # TypeError: one of them has no zone
        return None
    return min(max(wait_s, 0.0), LONGEST_RETRY_AFTER_S)


def _kind(exc: Exception) -> str:
    """Which row of the table a failed call is. The reason hides in a chain of wrapped errors.

    A TLS connection that ends may have carried the request; one that fails in another way has not.
    """
    for link in _chain(exc):
        for cause, kind in KINDS:
            if isinstance(link, cause):
                return kind
    return "broken"


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """`exc` and all that it wraps: causes, contexts, urllib3's `reason`, errors among the arguments."""
    waiting, seen = [exc], set()
    while waiting:
        link = waiting.pop(0)
        if id(link) in seen:
            continue
        seen.add(id(link))
        yield link
        inner = (link.__cause__, link.__context__, getattr(link, "reason", None), *link.args)
        waiting.extend(each for each in inner if isinstance(each, BaseException))


def _client_certificate(config: Endpoint) -> str | tuple[str, str] | None:
    if config.client_cert_file is None:
        return None
    certificate = str(config.client_cert_file)
    return (certificate, str(config.client_key_file)) if config.client_key_file else certificate
