"""A proxy in front of an Executor that changes what goes through it."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Self

import requests

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True)
class Exchange:
    """A request, and the answer that it has got."""

    method: str
    path: str
    status: int
    body: bytes

    def with_body(self, body: bytes) -> Exchange:
        return replace(self, body=body)


@dataclass
class Meddler:
    """`keep_back` names request headers that do not get through, `swallow` methods that do not."""

    upstream: str
    meddle: Callable[[Exchange], Exchange] = lambda exchange: exchange
    keep_back: frozenset[str] = frozenset()
    swallow: dict[str, int] = field(default_factory=dict)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def exchange(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Exchange:
        if method in self.swallow:
            return Exchange(method, path, self.swallow[method], b"{}")
        passed = {
            name: value
            for name, value in headers.items()
            if name.lower() not in self.keep_back | {"host", "content-length", "connection"}
        }
        answer = requests.request(method, self.upstream + path, headers=passed, data=body, timeout=10)
        return self.meddle(Exchange(method, path, answer.status_code, answer.content))


def _handler(meddler: Meddler) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            done = meddler.exchange(self.command, self.path, dict(self.headers.items()), body)
            self.send_response(done.status)
            self.send_header("Content-Length", str(len(done.body)))
            self.end_headers()
            self.wfile.write(done.body)

        do_POST = do_DELETE = do_GET  # noqa: N815 (the base class looks for these names)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    return Handler
