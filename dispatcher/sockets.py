"""Sockets and connections that cost few system calls."""

from __future__ import annotations

import socket
import ssl
import struct
import sys
from typing import Any

import redis

__all__ = ["Pool", "bound", "redis_client"]


def bound(sock: socket.socket, seconds: float) -> None:
    """Have each read and each write of the socket wait for `seconds` at most.

    By the kernel where it can. With a timeout of its own, Python asks before each read and write whether it
    would block: another system call, and one more time that all threads contend for the interpreter's lock.
    What took too long is a `BlockingIOError` then, else a `TimeoutError`.
    """
    if sys.platform != "linux" or isinstance(sock, ssl.SSLSocket):
        sock.settimeout(seconds)
        return
    if sock.gettimeout() is not None:
        sock.settimeout(None)
    whole, millionths = divmod(max(1, round(seconds * 1_000_000)), 1_000_000)
    timeval = struct.pack("@ll", whole, millionths)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeval)


class _Connection(redis.Connection):
    """A plain connection to Redis whose waits are bounded like this."""

    def _connect(self) -> Any:
        sock = super()._connect()  # type: ignore[no-untyped-call]
        if self.socket_timeout is not None:
            bound(sock, self.socket_timeout)
        return sock


class Pool(redis.ConnectionPool):
    """Also lends connections out unseen: to look whether they are sound takes a system call each time.

    One that Redis has closed meanwhile is found out when it is used: whoever borrows it must try twice, and
    must disconnect it where an answer may be left in it.
    """

    def borrow(self) -> Any:
        """A connection, which may turn out to be broken."""
        try:
            return self._available_connections.pop()
        except IndexError:
            return self.make_connection()

    def give_back(self, connection: Any) -> None:
        """Keep it for others."""
        self._available_connections.append(connection)


def redis_client(url: str, **options: Any) -> redis.Redis:
    """A Redis client for threads, over a `Pool`. It must be told to try again where a connection broke."""
    plain = {"connection_class": _Connection} if url.startswith("redis://") else {}
    return redis.Redis.from_pool(Pool.from_url(url, **plain, **options))
