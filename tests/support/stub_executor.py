"""An Executor that injects nothing, counts what it is asked, and misbehaves on demand."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from support.loopback import LoopbackServer

if TYPE_CHECKING:
    from support.loopback import Answer


class StubExecutor(LoopbackServer):
    """Answers as the faults API on a free loopback port. `answers` come first, one a call."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, str]] = []
        self.called_at: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.bodies: list[Any] = []
        self.applied: Counter[str] = Counter()
        self.answers: deque[tuple[int, object]] = deque()
        self.refusals: dict[str, deque[tuple[int, object]]] = {}
        """The same for applies to one API."""

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

    def __exit__(self, *exc_info: object) -> None:
        self.let_go.set()
        super().__exit__(*exc_info)

    def answer_bytes(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        status, answer = self.answer(method, path, headers, json.loads(body) if body else None)
        return (
            status,
            answer if isinstance(answer, bytes) else json.dumps(answer).encode(),
            "application/json",
        )

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

    def refuse(self, api: str, *answers: tuple[int, object]) -> None:
        """Answer the next applies to this API like that."""
        self.refusals[api] = deque(answers)

    def _apply(self, key: str, body: Any) -> tuple[int, object]:
        if self.refusals.get(body["api"]):
            return self.refusals[body["api"]].popleft()
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
