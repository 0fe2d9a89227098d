"""An Executor without sockets, processes and time of its own, which keeps the contract of the faults API."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from datetime import datetime
from statistics import mode
from typing import TYPE_CHECKING, Any

from support.fake_faults import FakeFault, FakePlane, FakeTime, Ways

from conformance.outside import Outage
from conformance.subject import Subject
from dispatcher.errors import ExecutorConnectionError, ExecutorTimeoutError
from workers.drivers.answers import Answer, parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

TOKEN = "right"
LIMIT = 100
CAPABILITIES = ("dead_man", "grpc_status", "headers", "http2")
JSON = "application/json"


@dataclass(frozen=True)
class Call:
    """What a client asks."""

    method: str
    path: str
    body: Any
    headers: Mapping[str, str]

    @property
    def kind(self) -> str:
        """`health`, `apply`, `status`, `metrics`, `stop`, `list`, `stop-all` or `unknown`."""
        *_, last = self.path.split("/")
        kinds = {
            ("GET", "health"): "health",
            ("POST", "apply"): "apply",
            ("GET", "status"): "status",
            ("GET", "metrics"): "metrics",
            ("GET", "faults"): "list",
            ("POST", "stop-all"): "stop-all",
        }
        return "stop" if self.method == "DELETE" else kinds.get((self.method, last), "unknown")


@dataclass(frozen=True)
class Reply:
    """An answer before it is JSON. Text as a body is sent as it is."""

    status: int
    body: Any
    content_type: str = JSON


def refusal(status: int, error: str) -> Reply:
    return Reply(status, {"error": error, "message": f"{error}, because a test asked for it"})


class FakeExecutor:
    """Does as `ways` says. `meddle` changes its answers, and `takes` names bodies that it takes unseen."""

    def __init__(
        self,
        ways: Ways | None = None,
        meddle: Callable[[Call, Reply, FakeExecutor], Reply] | None = None,
        takes: Callable[[Any], bool] | None = None,
    ) -> None:
        self.ways = ways or Ways()
        self.time = FakeTime()
        self.plane = FakePlane(self.ways, self.time)
        self._meddle, self._takes = meddle, takes or (lambda _: False)
        self._lock = threading.RLock()
        self._away: type[ExecutorConnectionError | ExecutorTimeoutError] | None = None
        self._count = 0

    def subject(self, **changes: Any) -> Subject:
        """What the checks need to know of it, with all options given."""
        known: dict[str, Any] = {
            "has_token": True,
            "service": "PaymentService",
            "prefix": "/conformance",
            "traffic": self.plane,
            "kill": Outage(self.kill, self.start),
            "hang": Outage(self.hang, self.resume),
            "max_active_faults": LIMIT,
            "clock": self.time,
            "threads": 1,
        }
        return Subject(_Client(self, TOKEN), _Client(self, None), **known | changes)

    def kill(self) -> None:
        self._away = ExecutorConnectionError
        self.plane.leave(lapses=self.ways.lapses_if_killed, answers=self.ways.goes_on_without_executor)

    def hang(self) -> None:
        self._away = ExecutorTimeoutError
        self.plane.leave(lapses=self.ways.lapses_if_it_hangs, answers=self.ways.goes_on_if_it_hangs)

    def start(self) -> None:
        self._away = None
        self.plane.come_back(restarted=True)

    def resume(self) -> None:
        self._away = None
        self.plane.come_back(restarted=False)

    def answer(self, call: Call) -> Answer:
        with self._lock:
            self.time.sleep(0.001)
            if self._away is not None:
                raise self._away("it is away")
            reply = self._reply(call)
            if self._meddle is not None:
                reply = self._meddle(call, reply, self)
        body = reply.body if isinstance(reply.body, str) else json.dumps(reply.body)
        line = f"{call.method} http://fake{call.path}"
        return Answer(line, reply.status, body.encode(), content_type=reply.content_type)

    def running(self) -> list[FakeFault]:
        now_s = self.time.steady_s()
        return [each for each in self.plane.faults.values() if each.end_s > now_s]  # as `FakeFault.running`

    def _reply(self, call: Call) -> Reply:
        if call.kind == "health":
            return Reply(200, {"status": "healthy", "contract": "1.2", "capabilities": [*CAPABILITIES]})
        if not self._allowed(call.headers.get("Authorization")):
            return refusal(401, "unauthorized")
        if call.kind == "apply":
            return self._apply(call)
        if call.kind in {"list", "stop-all"}:
            running = self.running()
            self._end(running if call.kind == "stop-all" and self.ways.stop_all_ends else [])
            return Reply(200, {"faults": [listed(each) for each in running]})
        parts = call.path.removeprefix("/v1/faults/").split("/")
        fault = self.plane.faults.get(parts[0])
        if fault is None or call.kind == "unknown":
            return refusal(404, "not_found")
        return {"status": self._status, "metrics": self._metrics, "stop": self._stop}[call.kind](fault)

    def _allowed(self, given: str | None) -> bool:
        if given is None:
            return self.ways.takes_no_token
        return given == f"Bearer {TOKEN}" or self.ways.takes_any_token

    def _apply(self, call: Call) -> Reply:
        if self._takes(call.body):
            body = call.body if isinstance(call.body, dict) else {}
            return self._begin(body, None)
        if not isinstance(call.body, dict) or _is_wrong(call.body):
            return refusal(400, "invalid_input")
        if len(json.dumps(call.body)) > self.ways.largest:
            return refusal(413, "too_large")
        key = call.headers.get("Idempotency-Key") if self.ways.knows_keys else None
        late = self._is_late(call)
        known = None if late and self.ways.late_before_keys else self._known(key)
        if known is not None:
            known.key_uses += 1
            same = known.body == call.body or not self.ways.compares_keys
            return _applied(known) if same else refusal(422, "key_reused")
        if late:
            if self.ways.begins_late == ("with a key" if key else "without a key"):
                self._begin(call.body, key)
            return refusal(412, "too_late")
        return self._taken(call.body, key)

    def _is_late(self, call: Call) -> bool:
        not_after = call.headers.get("Not-After")
        if not_after is None:
            return False
        late = self.time.now() > datetime.fromisoformat(not_after)
        return self.ways.refuses_late if late else self.ways.refuses_in_time

    def _known(self, key: str | None) -> FakeFault | None:
        """The fault of this key."""
        if key is None:
            return None
        faults = self.plane.faults.values() if self.ways.keys_outlive_faults else self.running()
        usable = (each for each in faults if each.key_uses < self.ways.most_uses_of_a_key)
        return next((each for each in usable if each.key == key), None)

    def _taken(self, body: dict[str, Any], key: str | None) -> Reply:
        target = body["service"], body["api"]
        running = self.running()
        faults = self.plane.faults.values() if not self.ways.frees_targets else running
        if self.ways.refuses_conflicts and any(each.target == target for each in faults):
            return refusal(409, "conflict")
        if len(running) >= self.ways.limit:
            return refusal(429, "too_many_faults")
        if self.ways.forgets_ended:
            now_s = self.time.steady_s()
            self.plane.faults = {k: each for k, each in self.plane.faults.items() if each.running(now_s)}
        return self._begin(body, key)

    def _begin(self, body: dict[str, Any], key: str | None) -> Reply:
        running = self.running()
        self.time.sleep(self.ways.slow_apply_s if len(running) > 30 else 0)
        if len(running) >= self.ways.most_running:
            running[0].end_s = self.time.steady_s()
        self._count += 1
        lasts = body.get("duration_seconds")
        lasts_s = self.ways.lasts * lasts if isinstance(lasts, int) else 1.0
        now_s, apply_id = self.time.steady_s(), f"f-{self._count}"
        end_s = now_s + lasts_s if self.ways.ends_faults else float("inf")
        fault = FakeFault(apply_id, key, body, now_s, end_s)
        self.plane.add(fault)
        return _applied(fault)

    def _status(self, fault: FakeFault) -> Reply:
        running = fault.running(self.time.steady_s())
        status = "running" if running else ("failed" if fault.error else "completed")
        fields = {"apply_id": fault.apply_id, "status": status, "error_msg": fault.error}
        return Reply(200, fields | self._window(fault))

    def _window(self, fault: FakeFault) -> dict[str, Any]:
        over = not fault.running(self.time.steady_s())
        end = self.time.at(fault.end_s).isoformat() if over else None
        return {"start_time": self.time.at(fault.begin_s).isoformat(), "end_time": end, "doubt": fault.doubt}

    def _metrics(self, fault: FakeFault) -> Reply:
        if fault.running(self.time.steady_s()):
            return refusal(409, "conflict")
        count, errors = len(fault.statuses), sum(each >= 400 for each in fault.statuses)
        figures: dict[str, Any] = {
            "apply_id": fault.apply_id,
            "status_code": mode(fault.statuses) if count else None,
            "latency_ms": 2.0 if count else None,
            "error_rate": errors / count if count else None,
            "requests": count,
            "faulted": fault.faulted,
            "unanswered": 0,
            "success_count": count - errors,
            "error_count": errors,
            "trace_data": None,
            "logs": [],
        }
        return Reply(200, figures | self._window(fault))

    def _stop(self, fault: FakeFault) -> Reply:
        if self.ways.stops_faults:
            self._end(self.running() if self.ways.stops_all_targets else [fault])
        return self._status(fault)

    def _end(self, faults: list[FakeFault]) -> None:
        now_s = self.time.steady_s()
        for each in faults:
            if each.running(now_s):
                each.end_s, each.stopped = now_s, True


class _Client:
    """`token` goes with each call, unless a header says otherwise."""

    def __init__(self, executor: FakeExecutor, token: str | None) -> None:
        self._executor = executor
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def call(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        try:
            parsed = parse_json(body) if isinstance(body, bytes) else body
        except ValueError:
            parsed = body
        return self._executor.answer(Call(method, path, parsed, self._headers | dict(headers or {})))


def listed(fault: FakeFault) -> dict[str, Any]:
    service, api = fault.target
    return {"apply_id": fault.apply_id, "key": fault.key, "service": service, "api": api, "status": "running"}


def _applied(fault: FakeFault) -> Reply:
    return Reply(200, {"apply_id": fault.apply_id, "status": "applied"})


def _is_wrong(body: dict[str, Any]) -> bool:
    config, kind = body.get("fault_config"), body.get("fault_type")
    if not isinstance(config, dict) or not all(
        isinstance(body.get(name), str) for name in ("service", "api")
    ):
        return True
    aborts = {"http": ("http_status", 400, 599), "grpc": ("grpc_status", 1, 16)}
    abort = aborts[body.get("protocol", "http")]
    name, least, most = abort if kind == "abort" else ("delay_ms", 1, 60_000)
    return not (
        kind in {"abort", "delay"}
        and _whole(config.get(name), least, most)
        and _whole(body.get("percentage"), 0, 100)
        and _whole(body.get("duration_seconds"), 1, 86_400)
    )


def _whole(value: object, least: int, most: int) -> bool:
    return isinstance(value, int) and least <= value <= most
