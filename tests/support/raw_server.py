"""A server that answers every connection with the same bytes, whatever HTTP would say to them."""

from __future__ import annotations

import socket
import threading
from typing import Self


class RawServer:
    """`answer` None accepts connections and never says a word."""

    def __init__(self, answer: bytes | None) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._serve, daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
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
                    connection.recv(65_536)
                    connection.sendall(self._answer)
                    connection.close()
        except OSError:
            return
