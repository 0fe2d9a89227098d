"""The transport to Executors: HTTP by `requests`, over sessions that bound each answer."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import socket
import ssl
import time
from collections import deque
from importlib.metadata import version
from typing import TYPE_CHECKING

import requests
from urllib3.exceptions import HTTPError

from dispatcher.errors import ExecutorConnectionError, ExecutorProtocolError, InvalidSettingsError
from dispatcher.telemetry.traces import W3C
from workers.drivers.answers import Answer, retry_after_s
from workers.drivers.certificates import check_certificates
from workers.drivers.failures import CONNECTION_ROWS
from workers.drivers.sessions import BoundedSession, proxies_of
from workers.drivers.traces import traced_call

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from dispatcher.errors import ExecutorClientError
    from dispatcher.settings.executors import Endpoint

__all__ = ["HttpTransport"]

logger = logging.getLogger(__name__)

USER_AGENT = f"fault-dispatcher/{version('fault-dispatcher')}"
FIRST_FINAL_STATUS = 200
SHORTEST_WAIT_S = 0.001
CHUNK_BYTES = 65_536
MAX_CHUNKS = 100_000
"""How many pieces an answer may come in. Python takes about 4 microseconds for each."""

KINDS: tuple[tuple[type[BaseException], str], ...] = (
    (TimeoutError, "timeout"),
    (requests.Timeout, "timeout"),
    (ssl.SSLEOFError, "broken"),
    (ssl.SSLError, "tls"),
    (socket.gaierror, "dns"),
    (ConnectionRefusedError, "refused"),
)
"""What a failed call may have been caused by, and which row of the table of errors that is."""


class _TooMuchError(Exception):
    """An answer is larger than it may be."""


class HttpTransport:
    """Calls to one server. Safe to share between threads, because each call has a session of its own.

    It follows no redirect, keeps no cookie, and takes no credentials from the environment. It takes a proxy
    from there if that is configured.
    """

    def __init__(self, config: Endpoint, connections: int, reuse_within_s: float = math.inf) -> None:
        """`connections` is how many are kept for reuse, one for each thread that calls.

        One that was idle for `reuse_within_s` is not used again: the server may be about to close it.

        Raises `InvalidSettingsError` for a URL, certificate files or a proxy that cannot be used.
        """
        check_certificates(config)
        self._config = config
        self._base_url = _prepared(config.url)
        self._proxies = proxies_of(config)
        self._max_bytes = config.max_response_bytes
        self._timeouts = (config.connection_timeout_sec, config.read_timeout_sec)
        self._most_sessions = connections
        self._reuse_within_s = reuse_within_s
        self._sessions: deque[tuple[float, BoundedSession]] = deque()
        """With the moment at which each was used last."""

        self._process = os.getpid()
        self._prepared: dict[str, requests.PreparedRequest] = {}
        self._headers = {
            "Accept": "application/json",
            "Accept-Encoding": "identity",
            "User-Agent": USER_AGENT,
        }
        self._token: re.Pattern[bytes] | None = None
        if config.token is not None and config.token.get_secret_value():
            token = config.token.get_secret_value()
            self._headers["Authorization"] = f"Bearer {token}"
            self._token = _spellings(token)

    @property
    def longest_call_s(self) -> float:
        """Connecting, and waiting for the answer, in seconds."""
        return sum(self._timeouts)

    def call(
        self,
        method: str,
        path: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        within_s: float = math.inf,
    ) -> Answer:
        """Send one request and read its answer, regardless of its status. `within_s` caps both timeouts.

        `body` is sent as JSON; bytes are sent as they are. `headers` may have another Content-Type.
        Raises `ExecutorTimeoutError`, `ExecutorConnectionError`, `ExecutorProtocolError` (too long, encoded).
        """
        url = self._base_url + path

        def send() -> Answer:
            return self._send(self._request(method, url, body, headers or {}), within_s)

        return traced_call(method, _shown(url), send)

    def close(self) -> None:
        """Close the connections that are kept."""
        while self._sessions:
            self._sessions.pop()[1].close()

    def _send(self, request: requests.PreparedRequest, within_s: float) -> Answer:
        call = f"{request.method} {_shown(request.url or '')}"
        connect_s, read_s = (max(min(each, within_s), SHORTEST_WAIT_S) for each in self._timeouts)
        try:
            session = self._take_session()
            try:
                with session.exchange(request, (connect_s, read_s)) as response:
                    body = self._read(call, response)
            finally:
                self._give_back(session)
        except (OSError, HTTPError) as exc:  # an error of requests is an OSError
            raise _no_answer(call, exc) from exc
        logger.debug("%s: %d", call, response.status_code)
        kind, date = response.headers.get("Content-Type", ""), response.headers.get("Date", "")
        return Answer(call, response.status_code, body, retry_after_s(response.headers), kind, date)

    def _request(
        self, method: str, url: str, body: object, headers: Mapping[str, str]
    ) -> requests.PreparedRequest:
        """A copy of the method's prepared request: preparing each again would double the cost of a call."""
        prepared = self._prepared.get(method)
        if prepared is None:
            prepared = self._prepared[method] = self._prepare(method)
        request = prepared.copy()
        request.url = url
        for name, value in headers.items():  # `update` costs three times as much
            request.headers[name] = value
        W3C.inject(request.headers)
        if body is not None:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            request.body = content
            request.headers.setdefault("Content-Type", "application/json")
            request.headers["Content-Length"] = str(len(content))
        return request

    def _prepare(self, method: str) -> requests.PreparedRequest:
        """A request without a body, and without a jar of cookies, which each copy would copy."""
        prepared = requests.PreparedRequest()
        prepared.prepare_method(method)
        prepared.prepare_url(self._base_url, None)
        prepared.prepare_headers(self._headers)
        prepared.prepare_body(None, None)
        prepared.prepare_hooks(None)
        return prepared

    def _take_session(self) -> BoundedSession:
        """The session that was used last, unless another call has it; otherwise a new one."""
        if self._process != os.getpid():  # a fork must not share its parent's connections
            self._sessions, self._process = deque(), os.getpid()
        try:
            used_at, session = self._sessions.pop()
        except IndexError:
            return BoundedSession(self._config, self._proxies)
        if time.monotonic() - used_at <= self._reuse_within_s:
            return session
        session.close()
        return BoundedSession(self._config, self._proxies)

    def _give_back(self, session: BoundedSession) -> None:
        if len(self._sessions) < self._most_sessions:
            self._sessions.append((time.monotonic(), session))
        else:
            session.close()

    def _read(self, call: str, response: requests.Response) -> bytes:
        """The body, without the token if the Executor repeats it."""
        if response.status_code < FIRST_FINAL_STATUS:
            return b""  # unread, because another protocol follows
        encoding = response.headers.get("Content-Encoding", "identity")
        if encoding.lower() != "identity":  # it could unfold to any size
            problem = f"is encoded ({encoding[:20]!r}), which was not asked for"
            raise ExecutorProtocolError(f"{call}: the answer {problem}")
        try:
            body = _content(response, self._max_bytes)
        except _TooMuchError as exc:
            raise ExecutorProtocolError(f"{call}: the answer {exc}") from exc
        except ValueError as exc:  # a chunk has a length below 0
            raise requests.ConnectionError(exc) from exc
        return body if self._token is None else self._token.sub(b"[token]", body)


def _prepared(url: str) -> str:
    """The base URL as requests sends it. Raises `InvalidSettingsError`, which does not show it."""
    try:
        return str(requests.Request("GET", url).prepare().url).rstrip("/")
    except requests.RequestException as exc:
        problem = "must be a URL with a valid host, such as http://localhost:8000"
        raise InvalidSettingsError(f"invalid settings: base_url {problem}", [["base_url", problem]]) from exc


def _content(response: requests.Response, max_bytes: int) -> bytes:
    """The whole body. Raises `_TooMuchError`."""
    length = response.headers.get("Content-Length", "")
    if length.isdecimal() and int(length) <= max_bytes:  # one read costs less than an iterator
        return bytes(response.raw.read(decode_content=False))
    return b"".join(_bounded(response.iter_content(CHUNK_BYTES), max_bytes))


def _bounded(chunks: Iterable[bytes], max_bytes: int) -> Iterator[bytes]:
    """These chunks, if they are neither too many nor too long. Raises `_TooMuchError`."""
    left = max_bytes
    for number, chunk in enumerate(chunks):
        left -= len(chunk)
        if left < 0:
            raise _TooMuchError(f"is longer than max_response_bytes ({max_bytes})")
        if number == MAX_CHUNKS:
            raise _TooMuchError(f"comes in more than {MAX_CHUNKS:,} pieces")
        yield chunk


def _shown(url: str) -> str:
    """Without the query, which may hold a secret."""
    return url.partition("?")[0]


def _spellings(token: str) -> re.Pattern[bytes]:
    """The token as it is, and with characters escaped as JSON allows: `\\/` and `\\u002f` are a slash."""
    return re.compile("".join(map(_spelling, token)).encode())


def _spelling(character: str) -> str:
    plain = re.escape(character)
    short = rf"|\\{plain}" if character in '"\\/' else ""
    return rf"(?:{plain}|\\u00(?i:{ord(character):02x}){short})"


def _no_answer(call: str, exc: Exception) -> ExecutorClientError:
    kind = _kind(exc)
    row = CONNECTION_ROWS[kind]
    message = f"{call}: {row.failure}; {row.advice}"
    return row.error(message, kind) if row.error is ExecutorConnectionError else row.error(message)


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
