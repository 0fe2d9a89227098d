"""An Executor that is never the limit: it injects nothing, and answers from templates.

`python -m benchmarks.stage.stub_executor PORT [TRACE_BYTES [DELAY_MS]]`. It has no clock for faults: each is
completed as soon as it is asked for. The time at which a target's first apply arrived is part of the
`apply_id`, which every observation carries, so that a measurement needs no journal. The same key has the
same fault. With TRACE_BYTES each observation carries traces of about that size. With DELAY_MS each answer
takes that long. The first apply of a target whose path begins with `/fails-once` is answered with 503. `GET
/retries` lists when each such answer was sent and when the next apply arrived. `GET /counts` has the numbers
of faults, of those without an observation yet, and of those on a target that had one already.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time

HEAD = b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
OK = b"200 OK"
UNAVAILABLE = b"503 Service Unavailable"
DOWN = b'{"error": "unavailable", "message": "fails once"}'
FAILS_ONCE = b"/fails-once"
APPLIED = b'{"apply_id": "%s", "status": "applied"}'
COMPLETED = b'{"apply_id": "%s", "status": "completed"}'
OBSERVED = b'{"apply_id": "%s", "status_code": 503, "latency_ms": 1.5, "error_rate": 1.0, '
OBSERVED += b'"trace_data": %s, "logs": []}'
COUNTS = b'{"faults": %d, "in_flight": %d, "doubled": %d}'
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
        self._refused: dict[bytes, float] = {}
        self._retries: list[tuple[float, float]] = []
        self._faults = self._observed = 0

    def answer(self, head: bytes, body: bytes) -> tuple[bytes, bytes]:
        """Status and body of the answer to a request."""
        path = head.split(b" ", 2)[1]
        if path.endswith(b"/apply"):
            return self._apply(header(head, b"idempotency-key"), body)
        return OK, self._get(path)

    def _get(self, path: bytes) -> bytes:
        if path.endswith(b"/status"):
            return COMPLETED % path.split(b"/")[3]
        if path.endswith(b"/metrics"):
            self._observed += 1
            return OBSERVED % (path.split(b"/")[3], self._traces)
        if path == b"/counts":
            faults = self._faults
            return COUNTS % (faults, faults - self._observed, faults - len(self._first))
        if path == b"/retries":
            return json.dumps(self._retries).encode()
        return b'{"status": "healthy"}'

    def _apply(self, key: bytes, body: bytes) -> tuple[bytes, bytes]:
        if key in self._by_key:
            return OK, APPLIED % self._by_key[key]
        found, now = TARGET.search(body), time.time()
        target = found[1] if found else b""
        if target.startswith(FAILS_ONCE):
            if target not in self._refused:
                self._refused[target] = now
                return UNAVAILABLE, DOWN
            self._retries.append((self._refused[target], now))
        first_at = self._first.setdefault(target, now)
        self._faults += 1
        apply_id = b"f%d-%.6f" % (self._faults, first_at)
        if key:
            self._by_key[key] = apply_id
        return OK, APPLIED % apply_id


class Connection(asyncio.Protocol):
    """One kept-alive connection."""

    def __init__(self, executor: StubExecutor, delay_s: float) -> None:
        self._executor = executor
        self._delay_s = delay_s
        self._unread = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 (it is TCP)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each complete request. Called by asyncio."""
        unread = self._unread + data
        while (end := unread.find(b"\r\n\r\n") + 4) > 3:
            head = unread[:end]
            whole = end + int(header(head, b"content-length") or 0)
            if len(unread) < whole:
                break
            status, answer = self._executor.answer(head, unread[end:whole])
            self._send(HEAD % (status, len(answer), answer))
            unread = unread[whole:]
        self._unread = unread

    def _send(self, answer: bytes) -> None:
        if self._delay_s:
            asyncio.get_running_loop().call_later(self._delay_s, self._transport.write, answer)
        else:
            self._transport.write(answer)


def header(head: bytes, name: bytes) -> bytes:
    """The value of a header, given in lower case. Empty if it is absent."""
    at = head.lower().find(b"\r\n%s:" % name)
    return b"" if at < 0 else head[at + len(name) + 3 : head.find(b"\r\n", at + 2)].strip()


def traces(size: int) -> bytes:
    """About `size` bytes of traces, as JSON; `null` for none."""
    return b"[%s]" % b", ".join([SPAN] * max(1, size // (len(SPAN) + 2))) if size else b"null"


async def serve(port: int, trace_bytes: int, delay_ms: float) -> None:
    """Serve until killed."""
    executor = StubExecutor(trace_bytes)
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(executor, delay_ms / 1000), "127.0.0.1", port, backlog=1024
    )
    await server.serve_forever()


if __name__ == "__main__":
    port, trace_bytes, delay_ms, *_ = [*map(int, sys.argv[1:]), 0, 0]
    asyncio.run(serve(port, trace_bytes, delay_ms))
