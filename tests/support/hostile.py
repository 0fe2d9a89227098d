"""An Executor that answers wrongly in every way that we could think of.

It takes faults as the contract says, and keeps each until it is stopped. What is wrong is part of a plan's
API: `/hostile/<call>/<kind>` gets that kind of answer to that call, and good ones to all others.
"""

from __future__ import annotations

import functools
import gzip
import json
import re
import socket
import socketserver
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

from support.loopback import ThreadingServer

if TYPE_CHECKING:
    from collections.abc import Callable

    Write = Callable[[socket.socket, bytes], None]

T = TypeVar("T")

CALLS = ("apply", "status", "metrics")
FINE = "fine"
PROTOCOL, CONNECTION, TIMEOUT = "ExecutorProtocolError", "ExecutorConnectionError", "ExecutorTimeoutError"
REJECTED, SERVER = "ExecutorRejectedError", "ExecutorServerError"
FAILED, LOST = "FaultFailedError", "FaultLostError"
NOT_READY = "MetricsNotReadyError"


def not_ready_or(error: str) -> dict[str, str]:
    """For answers that mean, to a request of metrics, that there are none yet."""
    return {"apply": error, "status": error, "metrics": NOT_READY, "stop": error}


HUGE = 6_000_000


@dataclass(frozen=True)
class Wrong:
    """One kind of wrong answer, and what must become of it."""

    name: str
    write: Write
    expects: str | dict[str, str]
    """The error's class, or fine; for each call where they differ."""

    calls: tuple[str, ...] = CALLS
    """To which calls it is an answer."""

    unread: bool = False
    """Whether only the body is wrong: calls that do not read it are fine."""

    def expected(self, call: str) -> str:
        if call == "stop" and (self.unread or self.name in {"status-404", "status-405", "status-501"}):
            return FINE
        return self.expects if isinstance(self.expects, str) else self.expects[call]


def head(status: str = "200 OK", *lines: str) -> bytes:
    """It closes the connection, and says so, or the next call might still take it."""
    return "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *lines, "", ""]).encode("latin-1")


def whole(body: bytes, status: str = "200 OK", *lines: str) -> bytes:
    return head(status, f"Content-Length: {len(body)}", *lines) + body


PARTS: list[Callable[[], object]] = []
"""What makes the large parts of answers."""


def beforehand(make: Callable[[], T]) -> Callable[[], T]:
    """Have `make` called once, before there are readers: to make a large part uses up their patience."""
    made = functools.cache(make)
    PARTS.append(made)
    return made


def raw(answer: bytes) -> Write:
    return lambda connection, _: connection.sendall(answer)


def around(make: Callable[[bytes], bytes]) -> Write:
    """The good body in a wrong wrapping."""
    return lambda connection, good: connection.sendall(make(good))


def changed(**fields: Any) -> Write:
    """The good answer with other fields."""
    return changed_by(lambda: fields)


def changed_by(fields: Callable[[], dict[str, Any]]) -> Write:
    """The good answer with other fields, which are large."""
    written = beforehand(lambda: (fields(), json.dumps(fields()).encode()[1:-1]))

    def make(good: bytes) -> bytes:
        wrong, text = written()
        others = {name: value for name, value in json.loads(good).items() if name not in wrong}
        return whole(b"{%b}" % b", ".join(filter(None, [text, json.dumps(others).encode()[1:-1]])))

    return around(make)


def without(name: str) -> Write:
    return around(
        lambda good: whole(json.dumps({k: v for k, v in json.loads(good).items() if k != name}).encode())
    )


def reset(after: bytes = b"") -> Write:
    def write(connection: socket.socket, _: bytes) -> None:
        connection.sendall(after)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.close()

    return write


def drip(begin: bytes, drop: bytes, every_s: float = 0.05) -> Write:
    def write(connection: socket.socket, _: bytes) -> None:
        connection.sendall(begin)
        connection.settimeout(every_s)
        while True:
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                connection.sendall(drop)

    return write


def late(wait_s: float) -> Write:
    def write(connection: socket.socket, good: bytes) -> None:
        threading.Event().wait(wait_s)
        connection.sendall(whole(good))

    return write


def flood(begin: bytes, piece: bytes) -> Write:
    def write(connection: socket.socket, _: bytes) -> None:
        connection.sendall(begin)
        while True:
            connection.sendall(piece)

    return write


def chunked(body: bytes) -> bytes:
    return b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)


def text(body: str) -> Write:
    return raw(whole(body.encode("utf-8", "surrogatepass")))


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n"
CHUNKED = "Transfer-Encoding: chunked"
GZIP = "Content-Encoding: gzip"
BOMB = beforehand(lambda: gzip.compress(b" " * 200_000_000))
STATUSES = [
    Wrong(f"status-{line.split()[0]}", raw(whole(b'{"message": "no"}', line)), expects)
    for line, expects in (
        ("300 Multiple Choices", REJECTED),
        ("304 Not Modified", REJECTED),
        ("400 Bad Request", REJECTED),
        ("401 Unauthorized", REJECTED),
        ("402 Payment Required", REJECTED),
        ("403 Forbidden", REJECTED),
        ("405 Method Not Allowed", REJECTED),
        ("409 Conflict", not_ready_or(REJECTED)),
        ("425 Too Early", not_ready_or(REJECTED)),
        ("410 Gone", REJECTED),
        ("418 I'm a teapot", REJECTED),
        ("422 Unprocessable", REJECTED),
        ("431 Too Large", REJECTED),
        ("500 Oops", SERVER),
        ("501 Not Implemented", SERVER),
        ("502 Bad Gateway", SERVER),
        ("504 Gateway Timeout", SERVER),
        ("599 Unknown", SERVER),
        ("999 Beyond", SERVER),
    )
]
ANSWERS = [
    Wrong(
        "status-404",
        raw(whole(b"404 page not found", "404 Not Found")),
        {"apply": REJECTED, "status": LOST, "metrics": NOT_READY, "stop": FINE},
    ),
    Wrong("status-202", raw(whole(b"{}", "202 Accepted")), not_ready_or(PROTOCOL), unread=True),
    Wrong("status-204", raw(head("204 No Content")), not_ready_or(PROTOCOL), unread=True),
    Wrong("redirect", raw(whole(b"", "302 Found", "Location: /v1/health")), REJECTED),
    Wrong("redirect-for-ever", raw(whole(b"", "301 Moved", "Location: /v1/faults/apply")), REJECTED),
    Wrong("busy", raw(whole(b"{}", "429 Busy", "Retry-After: 1")), SERVER),
    Wrong("busy-for-ages", raw(whole(b"{}", "503 Busy", "Retry-After: 99999999999999999999")), SERVER),
    Wrong("busy-until", raw(whole(b"{}", "503 Busy", "Retry-After: Sun, 06 Nov 1994 08:49:37 GMT")), SERVER),
    Wrong("busy-nonsense", raw(whole(b"{}", "503 Busy", "Retry-After: \xff, 31 Foo")), SERVER),
    Wrong("html-error", raw(whole(b"<html>" + b"x" * 9_000, "502 Bad Gateway")), SERVER),
    Wrong("escapes", raw(whole(b'{"message": "\\u001b[31m\\nTraceback"}', "400 Bad Request")), REJECTED),
    Wrong("huge-error", raw(whole(b"x" * HUGE, "500 Oops")), PROTOCOL),
]
HEADERS = [
    Wrong("no-length", around(lambda good: head("200 OK", "Connection: close") + good), FINE),
    Wrong("long-length", around(lambda good: head("200 OK", "Content-Length: 99999") + good), CONNECTION),
    Wrong(
        "short-length", around(lambda good: head("200 OK", "Content-Length: 9") + good), PROTOCOL, unread=True
    ),
    Wrong("length-below-0", around(lambda good: head("200 OK", "Content-Length: -5") + good), CONNECTION),
    Wrong("length-in-words", around(lambda good: head("200 OK", "Content-Length: many") + good), CONNECTION),
    Wrong("huge-length", around(lambda good: head("200 OK", f"Content-Length: {10**30}") + good), CONNECTION),
    Wrong("two-lengths", around(lambda good: whole(good, "200 OK", "Content-Length: 3")), CONNECTION),
    Wrong(
        "length-and-chunks",
        around(lambda good: head("200 OK", CHUNKED, "Content-Length: 3") + chunked(good)),
        CONNECTION,
    ),
    Wrong(
        "many-headers",
        around(lambda good: whole(good, "200 OK", *[f"X-{n}: y" for n in range(10_000)])),
        CONNECTION,
    ),
    Wrong(
        "long-header", around(lambda good: whole(good, "200 OK", "X-Long: " + "y" * 1_000_000)), CONNECTION
    ),
    Wrong("no-colon", around(lambda good: whole(good, "200 OK", "nonsense")), CONNECTION),
    Wrong("nul-header", around(lambda good: whole(good, "200 OK", "X-Nul: \x00")), FINE),
    Wrong("html-type", around(lambda good: whole(good, "200 OK", "Content-Type: text/html")), FINE),
    Wrong(
        "odd-charset",
        around(lambda good: whole(good, "200 OK", "Content-Type: application/json; charset=klingon")),
        FINE,
    ),
    Wrong("gzip", around(lambda good: whole(gzip.compress(good), "200 OK", GZIP)), PROTOCOL),
    Wrong("gzip-garbage", around(lambda good: whole(good, "200 OK", "Content-Encoding: gzip")), PROTOCOL),
    Wrong("gzip-bomb", around(lambda _: whole(BOMB(), "200 OK", GZIP)), PROTOCOL),
    Wrong("cookies", around(lambda good: whole(good, "200 OK", "Set-Cookie: a=b; Domain=evil")), FINE),
    Wrong("upgrade", raw(head("101 Switching Protocols", "Upgrade: h2c") + b"PRI * HTTP/2.0\r\n"), REJECTED),
]
FRAMES = [
    Wrong("nothing", raw(b""), CONNECTION),
    Wrong("reset", reset(), CONNECTION),
    Wrong("reset-in-headers", reset(b"HTTP/1.1 200 OK\r\nContent-"), CONNECTION),
    Wrong("reset-in-body", reset(head("200 OK", "Content-Length: 100") + b"{"), CONNECTION),
    Wrong("half-a-line", raw(b"HTTP/1.1 20"), CONNECTION),
    Wrong("garbage", raw(bytes(range(256)) * 10), CONNECTION),
    Wrong("http-0.9", around(lambda good: good), CONNECTION),
    Wrong("http-2", raw(b"\x00\x00\x12\x04\x00\x00\x00\x00\x00"), CONNECTION),
    Wrong("ssh", raw(b"SSH-2.0-OpenSSH_9.2\r\n"), CONNECTION),
    Wrong("status-in-words", raw(b"HTTP/1.1 abc OK\r\n\r\n"), CONNECTION),
    Wrong("bad-chunk-size", raw(head("200 OK", CHUNKED) + b"zz\r\n{}\r\n0\r\n\r\n"), CONNECTION),
    Wrong("chunks-that-stop", raw(head("200 OK", CHUNKED) + b"5\r\n{"), CONNECTION),
    Wrong("huge-chunk", raw(head("200 OK", CHUNKED) + b"f" * 30 + b"\r\n{"), CONNECTION),
    Wrong("two-answers", around(lambda good: whole(good) + whole(b'{"apply_id": "f-evil"}')), FINE),
    Wrong("continues", around(lambda good: INTERIM + whole(good)), FINE),
]
BODIES = [
    Wrong(name, write, not_ready_or(PROTOCOL) if name in {"empty", "object"} else PROTOCOL, unread=True)
    for name, write in {
        "empty": text(""),
        "null": text("null"),
        "list": text("[]"),
        "word": text('"applied"'),
        "number": text("42"),
        "object": text("{}"),
        "html": text("<html>proxy</html>"),
        "half": around(lambda good: whole(good[: len(good) // 2])),
        "twice": around(lambda good: whole(good + good)),
        "nan": changed(error_rate=float("nan"), status=float("nan")),
        "infinity": around(lambda good: whole(good.replace(b"{", b'{"x": Infinity, ', 1))),
        "large-float": around(lambda good: whole(good.replace(b"{", b'{"x": 1e999, ', 1))),
        "large-integer": around(lambda good: whole(good.replace(b"{", b'{"x": %s, ' % (b"9" * 10_000), 1))),
        "duplicate": around(lambda good: whole(good.replace(b"{", b'{"apply_id": "f-evil", ', 1))),
        "half-character": around(lambda good: whole(good.replace(b"{", b'{"x": "\\ud800", ', 1))),
        "deep": around(
            lambda good: whole(good.replace(b"{", b'{"x": %s%s, ' % (b"[" * 9_000, b"]" * 9_000), 1))
        ),
        "latin-1": around(lambda good: whole(good.replace(b"{", b'{"x": "\xe9", ', 1))),
        "utf-16": around(lambda good: whole(good.decode().encode("utf-16"))),
        "comments": around(lambda good: whole(b"// hello\n" + good)),
        "single-quotes": around(lambda good: whole(good.replace(b'"', b"'"))),
        "status-list": changed(status=["applied"], error_rate=[]),
        "status-unknown": changed(status="paused", error_rate="half"),
        "status-upper": changed(status="APPLIED", error_rate=-1),
        "status-null": changed(status=None, error_rate="none"),
        "status-true": changed(status=True, error_rate=True),
        "id-of-another": changed(apply_id="f-other/../x", status="unknown"),
    }.items()
] + [
    Wrong("bom", around(lambda good: whole(b"\xef\xbb\xbf" + good)), FINE),
    Wrong("extra", changed(colour="blue", nested={"a": [1, 2]}), FINE),
    Wrong("blanks", around(lambda good: whole(b"\n\t " + good + b" " * 9_000)), FINE),
]
IDS = [
    Wrong(f"id-{name}", changed(apply_id=apply_id), PROTOCOL, calls=("apply",), unread=True)
    for name, apply_id in {
        "empty": "",
        "dot": ".",
        "dots": "..",
        "long": "x" * 10_000,
        "null": None,
        "number": 7,
        "list": ["f"],
        "newline": "f\r\nX-Evil: 1",
        "nul": "f\x00",
    }.items()
]
OUT_OF_RANGE: dict[str, dict[str, Any]] = {
    "status-1000": {"status_code": 1000},
    "status-text": {"status_code": "503"},
    "status-half": {"status_code": 503.5},
    "latency-below-0": {"latency_ms": -1},
    "latency-text": {"latency_ms": "fast"},
    "rate-above-1": {"error_rate": 1.01},
    "rate-true": {"error_rate": True},
    "logs-text": {"logs": "one line"},
    "logs-numbers": {"logs": [1]},
    "count-below-0": {"error_count": -1},
    "more-faulted": {"requests": 1, "faulted": 2},
    "counts-that-differ": {"requests": 3, "success_count": 1, "error_count": 1},
    "percentiles-that-fall": {"latency_p50_ms": 2, "latency_p95_ms": 1},
}
FIELDS = [
    Wrong("apply-failed", changed(status="failed", message="no data plane"), FAILED, calls=("apply",)),
    Wrong("status-failed", changed(status="failed", error_msg="gone"), FAILED, calls=("status",)),
    Wrong("end-missing", without("end_time"), FINE, calls=("status",)),
    Wrong(
        "end-nonsense", changed(end_time="yesterday", start_time=-1), PROTOCOL, calls=("status", "metrics")
    ),
    Wrong("other-fault", changed(apply_id="f-other"), PROTOCOL, calls=("status", "metrics"), unread=True),
    *[
        Wrong(f"metrics-{name}", changed(**fields), PROTOCOL, calls=("metrics",))
        for name, fields in OUT_OF_RANGE.items()
    ],
    *[
        Wrong(f"no-{name}", without(name), PROTOCOL, calls=("metrics",))
        for name in ("status_code", "latency_ms", "error_rate", "trace_data", "logs")
    ],
    Wrong("long-logs", changed_by(lambda: {"logs": ["line " * 20] * 30_000}), FINE, calls=("metrics",)),
    Wrong(
        "long-traces",
        changed_by(lambda: {"trace_data": {"resourceSpans": [{"n": n} for n in range(200_000)]}}),
        FINE,
        calls=("metrics",),
    ),
    Wrong("null-logs", changed(logs=None, trace_data=None), FINE, calls=("metrics",)),
    Wrong("too-long", changed_by(lambda: {"logs": ["x" * HUGE]}), PROTOCOL, calls=("metrics",)),
]
TIMES = [
    Wrong("silence", drip(b"", b""), TIMEOUT),
    Wrong("dripping-headers", drip(b"HTTP/1.1 200 OK\r\nX-Long: ", b"x"), TIMEOUT),
    Wrong("dripping-body", drip(head("200 OK", "Content-Length: 100000"), b" "), TIMEOUT),
    Wrong("dripping-chunks", drip(head("200 OK", CHUNKED), b"1\r\n \r\n"), TIMEOUT),
    Wrong("continues-for-ever", drip(b"", INTERIM), TIMEOUT),
    Wrong("hangs-after-headers", drip(head("200 OK", "Content-Length: 100"), b""), TIMEOUT),
    Wrong("endless-body", flood(head("200 OK", "Connection: close"), b" " * 65_536), PROTOCOL),
    Wrong("endless-headers", flood(b"HTTP/1.1 200 OK\r\n", b"X-More: y\r\n" * 1_000), CONNECTION),
    Wrong(
        "endless-trailers",
        flood(head("200 OK", CHUNKED) + b"2\r\n{}\r\n0\r\n", b"X-More: %b\r\n" % (b"y" * 60_000)),
        CONNECTION,
    ),
    Wrong(
        "endless-trailer",
        flood(head("200 OK", CHUNKED) + b"2\r\n{}\r\n0\r\nX-More: ", b"y" * 65_536),
        CONNECTION,
    ),
    Wrong("slow", late(0.1), FINE),
]
KINDS = {each.name: each for each in [*STATUSES, *ANSWERS, *HEADERS, *FRAMES, *BODIES, *IDS, *FIELDS, *TIMES]}


@dataclass
class HostileExecutor:
    """`faults` are those that are on: apply id to the plan's API."""

    faults: dict[str, str] = field(default_factory=dict)
    seen: dict[str, str] = field(default_factory=dict)
    """Apply ids by idempotency key, with the API."""

    stopped: set[str] = field(default_factory=set)
    apis: dict[str, str] = field(default_factory=dict)
    evil: list[str] = field(default_factory=list)
    """Requests that no honest client would send."""

    def __enter__(self) -> Self:
        for make in PARTS:
            make()
        self._server = ThreadingServer(_handler(self))
        self._server.__enter__()
        self.url = self._server.url
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._server.__exit__()

    def answer(self, method: str, path: str, key: str, body: bytes) -> tuple[str, str, bytes]:
        """Which call it is, about which API, and the good answer."""
        if (method, path) == ("POST", "/v1/faults/apply"):
            api = json.loads(body)["api"]
            apply_id = f"f-{key}"
            self.apis[apply_id] = self.faults[apply_id] = api
            return "apply", api, json.dumps({"apply_id": apply_id, "status": "applied"}).encode()
        if path == "/v1/health":
            return "health", "", b'{"status": "healthy"}'
        if (method, path) == ("GET", "/v1/faults"):
            there = [{"apply_id": each, "key": each.removeprefix("f-")} for each in list(self.faults)]
            return "faults", "", json.dumps({"faults": there}).encode()
        found = re.fullmatch(r"/v1/faults/([A-Za-z0-9._-]+)(?:/(status|metrics))?", path)
        if found is None or found[1] not in self.apis:
            if not re.fullmatch(r"/v1/faults/[A-Za-z0-9._~%-]+(/status|/metrics)?", path):
                self.evil.append(path)
            return "unknown", "", b"{}"
        return self._about(method, found[1], found[2] or "stop")

    def _about(self, method: str, apply_id: str, call: str) -> tuple[str, str, bytes]:
        fields: dict[str, Any] = {"apply_id": apply_id}
        if method == "DELETE":
            self.faults.pop(apply_id, None)
            self.stopped.add(apply_id)
            fields |= {"status": "completed"}
        elif call == "status":
            times = {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-01T00:00:01Z"}
            fields |= {"status": "completed"} | times
            wrong = wrong_for("status", self.apis[apply_id])
            if wrong is None or wrong.expected("status") == FINE:
                self.faults.pop(apply_id, None)
        else:
            fields |= {"status_code": 503, "latency_ms": 1.5, "error_rate": 1.0}
            fields |= {"trace_data": {"resourceSpans": []}, "logs": ["a line"]}
        return call, self.apis[apply_id], json.dumps(fields).encode()


def wrong_for(call: str, api: str) -> Wrong | None:
    """What the API says should be wrong with this call."""
    _, _, told = api.partition("/hostile/")
    named, _, kind = told.partition("/")
    return KINDS[kind.partition("/")[0]] if named == call else None


def _handler(executor: HostileExecutor) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while line := self.rfile.readline():
                method, path, _ = line.decode().split()
                headers: dict[str, str] = {}
                while header := self.rfile.readline().decode().strip():
                    name, _, value = header.partition(": ")
                    headers[name.lower()] = value
                body = self.rfile.read(int(headers.get("content-length", 0)))
                key = headers.get("idempotency-key", "")
                call, api, good = executor.answer(method, path, key, body)
                wrong = wrong_for(call, api)
                if wrong is not None:
                    wrong.write(self.connection, good)
                    return
                self.connection.sendall(whole(good, "200 OK", "Content-Type: application/json"))

    return Handler
