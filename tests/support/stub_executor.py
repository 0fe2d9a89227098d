"""An Executor that injects nothing, counts what it is asked, and misbehaves on demand."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import unquote


class StubExecutor:
    """Answers as the faults API on a free loopback port. `answers` come first, one a call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.called_at: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        self.applied: Counter[str] = Counter()
        self.answers: deque[tuple[int, object]] = deque()
        self.running: dict[str, float] = {}
        self.requests: dict[str, object] = {}
        self.stopped: set[str] = set()
        self.hanging: set[str] = set()
        """APIs whose applies are not answered before `let_go` is set."""

        self.down = False
        """Whether each call is answered with 503."""

        self.health: tuple[int, object] = (200, {"status": "healthy"})
        self.health_checks = 0
        self.let_go = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.let_go.set()
        self._server.shutdown()
        self._server.server_close()

    def answer(self, method: str, path: str, headers: dict[str, str], body: Any) -> tuple[int, object]:
        if path == "/v1/health":
            self.health_checks += 1
            return (503, {}) if self.down else self.health
        self.calls.append((method, path))
        self.called_at.append(time.monotonic())
        self.headers.append(headers)
        self.bodies.append(body)
        if self.down:
            return 503, {"error": "down"}
        if self.answers:
            return self.answers.popleft()
        if method == "POST":
            return self._apply(headers["idempotency-key"], body)
        return self._about(method, *map(unquote, path.removeprefix("/v1/faults/").split("/")))

    def _apply(self, key: str, body: Any) -> tuple[int, object]:
        if body["api"] in self.hanging:
            self.let_go.wait(60)
        if self.requests.setdefault(key, body) != body:
            return 422, {"error": "key_reused"}
        if key not in self.running:
            self.applied[f"{body['service']}{body['api']}"] += 1
            self.running[key] = time.monotonic() + body["duration_seconds"]
        return 200, {"apply_id": key, "status": "applied"}

    def _about(self, method: str, apply_id: str, part: str = "") -> tuple[int, object]:
        if apply_id not in self.running:
            return 404, {"error": "not_found"}
        if method == "DELETE":
            self.running[apply_id] = 0.0
            self.stopped.add(apply_id)
            return 200, {}
        if part == "status":
            over = time.monotonic() >= self.running[apply_id]
            return 200, {"apply_id": apply_id, "status": "completed" if over else "running"}
        return 200, {
            "apply_id": apply_id,
            "status_code": 503,
            "latency_ms": 1.5,
            "error_rate": 1.0,
            "trace_data": {"resourceSpans": []},
            "logs": ["a line"],
        }


def _handler(stub: StubExecutor) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one packet an answer, or each call waits for a delayed acknowledgement

        def do_GET(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = stub.answer(self.command, self.path, headers, body)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_POST = do_DELETE = do_GET  # noqa: N815 (the base class looks for these names)

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    return Handler
