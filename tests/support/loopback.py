"""A real HTTP server of the test's own, on a free loopback port."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class LoopbackServer:
    """Answers with what `answer_bytes` makes of a request, from its context on."""

    url: str
    port: int
    peers: set[tuple[str, int]]
    """The other ends of the connections on which requests have come."""

    def __enter__(self) -> Self:
        self.peers = set()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer_bytes(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """Header names are lower-case."""
        raise NotImplementedError


Answer = tuple[int, bytes, str]
"""Status, body, content type."""


def _handler(server: LoopbackServer) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer, or each call waits for a delayed acknowledgement

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.peers.add(self.client_address)
            status, answer, kind = server.answer_bytes(self.command, self.path, headers, body)
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        do_POST = do_DELETE = do_PUT = do_GET  # noqa: N815 (the base class looks for these names)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    return Handler
