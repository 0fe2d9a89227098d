"""A server that answers every connection with the same bytes, even if they are not HTTP."""

from __future__ import annotations

import socketserver
import threading
from typing import TYPE_CHECKING

from support.loopback import ThreadingServer

if TYPE_CHECKING:
    import socket
    import ssl

DROP_EVERY_S = 0.05
GIVEN_UP_WITHIN_S = 10.0
"""A drip never ends. So much longer than its patience may a client take for it if all cores are busy."""


class RawServer(ThreadingServer):
    """`answer` None accepts connections and never says a word. `drip` follows it bit by bit, without end.

    With `tls` it uses TLS.
    """

    def __init__(self, answer: bytes | None, *, drip: bytes = b"", tls: ssl.SSLContext | None = None) -> None:
        self.drops = 0
        self.received: list[bytes] = []
        self._answer = answer
        self._drip = drip
        self._tls = tls
        self._closed = threading.Event()
        server = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                server.talk(self.request)

        super().__init__(Handler)
        if tls is not None:
            self.url = f"https://127.0.0.1:{self.port}"

    def __exit__(self, *exc_info: object) -> None:
        self._closed.set()
        super().__exit__()

    def talk(self, connection: socket.socket) -> None:
        """Say on this connection what there is to say."""
        if self._tls is None:
            self._say(connection)
            return
        with self._tls.wrap_socket(connection, server_side=True) as secured:
            self.opened(secured)
            self._say(secured)

    def _say(self, connection: socket.socket) -> None:
        request = connection.recv(65_536)
        self.received.append(request)
        if self._answer is None:
            self._closed.wait()
            return
        connection.sendall(self._answer)
        while self._drip and not self._closed.wait(DROP_EVERY_S):
            connection.sendall(self._drip)
            self.drops += 1
