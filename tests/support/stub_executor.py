"""An Executor that injects nothing, counts what it is asked, and misbehaves on demand."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter, deque
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from support.loopback import LoopbackServer

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.loopback import Answer

UNKNOWN: tuple[int, object] = (404, {"error": "not_found"})


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

        self.instead: dict[tuple[str, str], Callable[[str], tuple[int, object] | None]] = {}
        """The answers to a call (`apply`, `status`, `metrics` or `stop`) about faults on an API, given the
        fault's id. None: the usual answer."""

        self.figures: dict[str, dict[str, object]] = {}
        """What the metrics of faults on one API say otherwise."""

        self.honours_not_after = True
        self.running: dict[str, float] = {}
        """When each fault ends, by this machine's monotonic clock."""

        self.requests: dict[str, dict[str, Any]] = {}
        self.stopped: set[str] = set()
        self.hanging: set[str] = set()
        """APIs whose applies are not answered before `let_go` is set."""

        self.down = False
        """Whether each call is answered with 503."""

        self.health: tuple[int, object] = (200, {"status": "healthy"})
        self.health_checks = 0
        self.lists_faults = True
        self.listings: deque[tuple[int, object]] = deque()
        """The first answers to `GET /v1/faults`."""

        self.lists = 0
        """How often its faults were listed. These calls are not among `calls`."""

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
        if (method, path) == ("GET", "/v1/faults"):
            return self._list()
        self.calls.append((method, path))
        self.called_at.append(time.monotonic())
        self.headers.append(headers)
        self.bodies.append(body)
        if self.down:
            return 503, {"error": "down"}
        if self.answers:
            return self.answers.popleft()
        if method == "POST":
            return self._apply(headers, body)
        return self._about(method, *map(unquote, path.removeprefix("/v1/faults/").split("/")))

    def forget(self, api: str) -> None:
        """Answer 404 to all that is asked of faults on this API, which go on."""
        self.instead |= {(call, api): lambda _: UNKNOWN for call in ("status", "stop")}

    def remember(self, api: str) -> None:
        """Answer truthfully again."""
        for call in ("status", "stop"):
            del self.instead[call, api]

    def applied_at(self, api: str) -> list[float]:
        """When applies to this API have come, by this machine's monotonic clock."""
        pairs = zip(self.bodies, self.called_at, strict=True)
        return [at for body, at in pairs if body is not None and body["api"] == api]

    def refuse(self, api: str, *answers: tuple[int, object]) -> None:
        """Answer the next applies to this API like that."""
        self.refusals[api] = deque(answers)

    def _list(self) -> tuple[int, object]:
        self.lists += 1
        if self.listings:
            return self.listings.popleft()
        if self.down:
            return 503, {"error": "down"}
        if not self.lists_faults:
            return 404, {"error": "not_found"}
        there = [key for key, ends_s in list(self.running.items()) if time.monotonic() < ends_s]
        return 200, {"faults": [{"apply_id": key, "key": key} for key in there]}

    def _apply(self, headers: dict[str, str], body: Any) -> tuple[int, object]:
        key = headers["idempotency-key"]
        if self.refusals.get(body["api"]):
            return self.refusals[body["api"]].popleft()
        if body["api"] in self.hanging:
            self.let_go.wait(60)
        if (instead := self._instead("apply", body["api"], key)) is not None:
            return instead
        not_after = headers.get("not-after") if self.honours_not_after else None
        late = not_after is not None and datetime.now(UTC) > datetime.fromisoformat(not_after)
        if late and key not in self.running:
            return 412, {"error": "too_late"}
        if self.requests.setdefault(key, body) != body:
            return 422, {"error": "key_reused"}
        if key not in self.running:
            self.applied[f"{body['service']}{body['api']}"] += 1
            self.running[key] = time.monotonic() + body["duration_seconds"]
        return 200, {"apply_id": key, "status": "applied"}

    def _about(self, method: str, apply_id: str, part: str = "") -> tuple[int, object]:
        if apply_id not in self.running:
            return UNKNOWN
        api = self.requests.get(apply_id, {}).get("api", "")
        if (instead := self._instead(part or "stop", api, apply_id)) is not None:
            return instead
        if method == "DELETE":
            self.running[apply_id] = 0.0
            self.stopped.add(apply_id)
            return 200, {"apply_id": apply_id, "status": "completed"}
        if part == "status":
            over = time.monotonic() >= self.running[apply_id]
            return 200, {"apply_id": apply_id, "status": "completed" if over else "running"}
        figures = {
            "apply_id": apply_id,
            "status_code": 503,
            "latency_ms": 1.5,
            "error_rate": 1.0,
            "requests": 100,
            "faulted": self.requests[apply_id]["percentage"],
            "unanswered": 0,
            "success_count": 0,
            "error_count": 100,
            "trace_data": {"resourceSpans": []},
            "logs": ["a line"],
        }
        return 200, figures | self.figures.get(api, {})

    def _instead(self, call: str, api: str, apply_id: str) -> tuple[int, object] | None:
        instead = self.instead.get((call, api))
        return None if instead is None else instead(apply_id)
