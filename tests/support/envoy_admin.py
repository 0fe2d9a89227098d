"""Envoy's admin interface, which listens on a Unix socket."""

from __future__ import annotations

import http.client
import socket


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("envoy", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def ask_envoy(admin: str, path: str) -> str:
    """What it answers to a GET. `admin` is its socket."""
    connection = _Connection(admin)
    try:
        connection.request("GET", path)
        return connection.getresponse().read().decode()
    finally:
        connection.close()
