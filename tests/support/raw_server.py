"""A server that answers every connection with the same bytes, whatever HTTP would say to them."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import ssl


class RawServer:
    """`answer` None accepts connections and never says a word. `drip` follows it bit by bit, without end.

    With `tls` it speaks TLS.
    """

    def __init__(self, answer: bytes | None, *, drip: bytes = b"", tls: ssl.SSLContext | None = None) -> None:
        self._answer = answer
        self._drip = drip
        self._tls = tls
        self.drops = 0
        self.received: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._closed = threading.Event()
        self._open: list[socket.socket] = []
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _serve(self) -> None:
        try:
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                if self._answer is not None:
                    self._talk(connection, self._answer)
        except OSError:
            return

    def _talk(self, connection: socket.socket, answer: bytes) -> None:
        try:
            if self._tls is not None:
                connection = self._tls.wrap_socket(connection, server_side=True)
                self._open.append(connection)
            self.received.append(connection.recv(65_536))
            connection.sendall(answer)
            self._drip_into(connection)
        except OSError:  # the other side does not trust us, or has had enough
            pass
        finally:
            connection.close()

    def _drip_into(self, connection: socket.socket) -> None:
        while self._drip and not self._closed.wait(0.05):
            connection.sendall(self._drip)
            self.drops += 1
