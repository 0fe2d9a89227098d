"""Real servers of the test's own, on free loopback ports."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import sys
import threading
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK_EVERY_S = 0.01


class ThreadingServer(socketserver.ThreadingTCPServer):
    """A thread for each connection. Its connections and threads end with this context manager."""

    request_queue_size = 128

    def __init__(self, handler: Callable[[Any, Any, Self], socketserver.BaseRequestHandler]) -> None:
        self._open: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), handler)
        self.port = int(self.server_address[1])
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self.serve_forever, args=(LOOK_EVERY_S,), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.shutdown()
        self._thread.join()
        for connection in list(self._open):
            with contextlib.suppress(OSError):  # it has just been closed
                connection.shutdown(socket.SHUT_RDWR)
        self.server_close()  # waits for the threads

    def opened(self, connection: socket.socket) -> None:
        """End this connection, too."""
        self._open.add(connection)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.opened(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing if the client has had enough. Anything else is a defect of the test's own."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class LoopbackServer:
    """Answers with what `answer_bytes` makes of a request, from its context on."""

    url: str
    port: int
    peers: set[tuple[str, int]]
    """The other ends of the connections on which requests have come."""

    def __enter__(self) -> Self:
        self.peers = set()
        self._server = ThreadingServer(_handler(self))
        self._server.__enter__()
        self.port, self.url = self._server.port, self._server.url
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.__exit__()

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

        do_POST = do_DELETE = do_PUT = do_HEAD = do_GET  # noqa: N815 (the base class looks for these names)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    return Handler
