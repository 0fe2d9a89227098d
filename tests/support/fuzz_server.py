"""A server that answers each request with the bytes that it is given, and closes the connection."""

from __future__ import annotations

import socketserver

from support.loopback import ThreadingServer


class FuzzServer(ThreadingServer):
    """`answer` is what the next request gets."""

    def __init__(self) -> None:
        self.answer = b""
        fuzz = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                self.request.recv(65_536)
                self.request.sendall(fuzz.answer)

        super().__init__(Handler)
