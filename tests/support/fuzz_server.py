"""A server that answers each request with whatever bytes it is given, and closes the connection."""

from __future__ import annotations

import socketserver
import threading
from typing import Self


class FuzzServer:
    """`answer` is what the next request gets."""

    def __init__(self) -> None:
        self.answer = b""
        fuzz = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.recv(65_536)
                self.request.sendall(fuzz.answer)

        self._server = socketserver.TCPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
