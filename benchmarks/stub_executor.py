"""An Executor that is never the limit: it injects nothing, and answers from templates.

`python -m benchmarks.stub_executor PORT [TRACE_BYTES]`. It knows no time: a fault is completed whenever
somebody asks. When a target's first apply arrived is part of the `apply_id`, which every observation carries,
so that a measurement needs no journal. The same key has the same fault. With TRACE_BYTES each observation
carries traces of about that size.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time

__all__ = ["applied_at"]

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
APPLIED = b'{"apply_id": "%s", "status": "applied"}'
COMPLETED = b'{"apply_id": "%s", "status": "completed"}'
OBSERVED = b'{"apply_id": "%s", "status_code": 503, "latency_ms": 1.5, "error_rate": 1.0, '
OBSERVED += b'"trace_data": %s, "logs": []}'
COUNTS = b'{"targets": %d, "faults": %d, "observed": %d}'
SPAN = b'{"traceId": "5b8efff798038103d269b633813fc60c", "spanId": "eee19b7ec3c1b174", "name": "GET /pay"}'
TARGET = re.compile(rb'"api": ?"([^"]*)"')


def applied_at(apply_id: str) -> float:
    """When the first apply arrived for this fault's target, in seconds since 1970."""
    return float(apply_id.partition("-")[2])


class StubExecutor:
    """What all connections share."""

    def __init__(self, trace_bytes: int = 0) -> None:
        self._traces = traces(trace_bytes)
        self._by_key: dict[bytes, bytes] = {}
        self._first: dict[bytes, float] = {}
        self._faults = self._observed = 0

    def answer(self, head: bytes, body: bytes) -> bytes:
        """The body of the answer to a request."""
        path = head.split(b" ", 2)[1]
        if path.endswith(b"/apply"):
            return APPLIED % self._apply(header(head, b"idempotency-key"), body)
        if path.endswith(b"/status"):
            return COMPLETED % path.split(b"/")[3]
        if path.endswith(b"/metrics"):
            self._observed += 1
            return OBSERVED % (path.split(b"/")[3], self._traces)
        if path == b"/counts":
            return COUNTS % (len(self._first), self._faults, self._observed)
        return b'{"status": "healthy"}'

    def _apply(self, key: bytes, body: bytes) -> bytes:
        if key in self._by_key:
            return self._by_key[key]
        target = TARGET.search(body)
        first_at = self._first.setdefault(target[1] if target else b"", time.time())
        self._faults += 1
        apply_id = b"f%d-%.6f" % (self._faults, first_at)
        if key:
            self._by_key[key] = apply_id
        return apply_id


class Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self, executor: StubExecutor) -> None:
        self._executor = executor
        self._unread = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (it is TCP)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each request that has arrived whole. Called by asyncio."""
        unread = self._unread + data
        while (end := unread.find(b"\r\n\r\n") + 4) > 3:
            head = unread[:end]
            whole = end + int(header(head, b"content-length") or 0)
            if len(unread) < whole:
                break
            answer = self._executor.answer(head, unread[end:whole])
            self._transport.write(HEAD % (len(answer), answer))
            unread = unread[whole:]
        self._unread = unread


def header(head: bytes, name: bytes) -> bytes:
    """The value of a header, given in lower case. Empty where there is none."""
    at = head.lower().find(b"\r\n%s:" % name)
    return b"" if at < 0 else head[at + len(name) + 3 : head.find(b"\r\n", at + 2)].strip()


def traces(size: int) -> bytes:
    """About `size` bytes of traces, as JSON; `null` for none."""
    return b"[%s]" % b", ".join([SPAN] * max(1, size // (len(SPAN) + 2))) if size else b"null"


async def serve(port: int, trace_bytes: int) -> None:
    """Serve until killed."""
    executor = StubExecutor(trace_bytes)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(executor), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
