"""Every request that arrives while a fault is in force counts, and is judged when it ends."""

from __future__ import annotations

import os
import signal
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Self

import pytest
import requests
from support.eventually import eventually
from support.loopback import Answer, LoopbackServer
from support.processes import ExecutorProcess
from support.raw_server import RawServer

if TYPE_CHECKING:
    from collections.abc import Iterator

SLOW, BROKEN = "SlowService", "BrokenService"
GIVES_UP_S = 0.3
CUT_SHORT = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n0123456789"


class SlowTarget(LoopbackServer):
    """A service that answers once it may, and says how many requests wait for that."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.waiting = 0
        self._changing = threading.Lock()

    def __exit__(self, *exc_info: object) -> None:
        self.may_answer.set()
        super().__exit__(*exc_info)

    def answer_bytes(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        self._change(+1)
        self.may_answer.wait()
        self._change(-1)
        return 200, b"", "text/plain"

    def _change(self, by: int) -> None:
        with self._changing:
            self.waiting += by


class BrokenTarget(RawServer):
    """A service that closes the connection in the middle of each answer."""

    def __init__(self) -> None:
        super().__init__(CUT_SHORT)


class Stage:
    """The reference Executor in front of a slow and a broken service, and its clients."""

    def __init__(self, executor: ExecutorProcess, slow: SlowTarget) -> None:
        self.executor, self.slow = executor, slow
        self._pool = ThreadPoolExecutor(64)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.slow.may_answer.set()
        self._pool.shutdown()

    def apply(self, api: str, service: str = SLOW, **changes: Any) -> str:
        fault = {
            "service": service,
            "api": api,
            "fault_type": "abort",
            "percentage": 0,
            "duration_seconds": 60,
            "fault_config": {"http_status": 503},
        }
        answer = self.call("POST", "/apply", fault | changes)
        assert answer.json()["status"] == "applied", answer.text
        return str(answer.json()["apply_id"])

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> requests.Response:
        url = f"{self.executor.url}/v1/faults{path}"
        return requests.request(method, url, json=body, headers=headers, timeout=60)

    def stop(self, apply_id: str) -> dict[str, Any]:
        return eventually(lambda: self._stopped(apply_id))

    def _stopped(self, apply_id: str) -> dict[str, Any]:
        """Nothing while Envoy has not confirmed it."""
        answer = self.call("DELETE", f"/{apply_id}")
        assert answer.ok, answer.text
        return dict(answer.json()) if answer.status_code == 200 else {}

    def metrics(self, apply_id: str) -> dict[str, Any]:
        return eventually(lambda: self._settled(apply_id))

    def _settled(self, apply_id: str) -> dict[str, Any]:
        answer = self.call("GET", f"/{apply_id}/metrics")
        assert answer.status_code in {200, 409}, answer.text
        return dict(answer.json()) if answer.ok else {}

    def send(self, api: str, times: int = 1, timeout_s: float = 60, service: str = SLOW) -> list[Any]:
        """So many clients at once; futures of statuses, None for no answer."""
        return [self._pool.submit(self._ask, api, timeout_s, service) for _ in range(times)]

    def _ask(self, api: str, timeout_s: float, service: str) -> int | None:
        headers = {"Host": service, "X-Request-Id": "11111111-2222-4333-8444-555555555555"}
        with suppress(requests.RequestException):
            return requests.get(self.executor.proxy + api, headers=headers, timeout=timeout_s).status_code
        return None


@pytest.fixture(scope="module")
def slow() -> Iterator[SlowTarget]:
    with SlowTarget() as target:
        yield target


@pytest.fixture(scope="module")
def behind(slow: SlowTarget, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExecutorProcess]:
    """An Executor that waits for as long as a test may take."""
    log = tmp_path_factory.mktemp("executor") / "executor.log"
    with BrokenTarget() as broken, executor_before(slow, broken, log, 600) as process:
        yield process


def executor_before(slow: SlowTarget, broken: RawServer, log: Any, wait_s: float) -> ExecutorProcess:
    options = ["--service", f"{SLOW}=127.0.0.1:{slow.port}", "--service", f"{BROKEN}=127.0.0.1:{broken.port}"]
    return ExecutorProcess(log, *options, "--wait-for-answers-sec", str(wait_s), traffic_rps=0)


@pytest.fixture
def stage(behind: ExecutorProcess, slow: SlowTarget) -> Iterator[Stage]:
    slow.may_answer.clear()
    with Stage(behind, slow) as it:
        yield it


@pytest.fixture
def api(request: pytest.FixtureRequest) -> str:
    """A target of this test's own."""
    return "/" + "".join(each if each.isalnum() else "-" for each in request.node.name)


def results(clients: list[Any]) -> Counter[int | None]:
    return Counter(client.result() for client in clients)


def test_without_requests_there_are_no_figures(stage: Stage, api: str) -> None:
    metrics = stage.metrics(stage.apply(api, duration_seconds=1))
    figures = ["status_code", "latency_ms", "error_rate", "latency_sd_ms", "latency_p50_ms", "latency_p99_ms"]
    assert [metrics[name] for name in figures] == [None] * len(figures)
    counts = ["requests", "faulted", "unanswered", "unfinished", "success_count", "error_count"]
    assert [metrics[name] for name in counts] == [0] * len(counts)


def test_clients_that_give_up_during_a_delay_got_no_answer(stage: Stage, api: str) -> None:
    apply_id = stage.apply(api, fault_type="delay", percentage=100, fault_config={"delay_ms": 60_000})
    assert results(stage.send(api, 5, GIVES_UP_S)) == {None: 5}
    assert stage.stop(apply_id)["status"] == "completed"
    metrics = stage.metrics(apply_id)
    assert (metrics["requests"], metrics["unanswered"], metrics["faulted"]) == (5, 5, 5)
    assert (metrics["success_count"], metrics["error_count"], metrics["error_rate"]) == (0, 5, 1.0)
    assert metrics["status_code"] is None
    assert GIVES_UP_S * 900 <= metrics["latency_ms"] < 30_000


def test_clients_that_give_up_on_a_slow_service_got_no_answer(stage: Stage, api: str) -> None:
    apply_id = stage.apply(api)
    assert results(stage.send(api, 3, GIVES_UP_S)) == {None: 3}
    stage.stop(apply_id)
    metrics = stage.metrics(apply_id)
    assert (metrics["requests"], metrics["unanswered"], metrics["faulted"]) == (3, 3, 0)
    assert metrics["logs"][0] == "3 requests, 0 of them hit: 3 unanswered"


def test_requests_that_are_under_way_at_the_end_are_waited_for(stage: Stage, api: str) -> None:
    apply_id = stage.apply(api, percentage=50)
    clients = stage.send(api, 40)
    eventually(lambda: stage.slow.waiting + sum(client.done() for client in clients) == 40)
    assert stage.stop(apply_id)["status"] == "completed"
    refused = stage.call("GET", f"/{apply_id}/metrics")
    assert (refused.status_code, refused.json()["error"]) == (409, "conflict")
    assert "are under way" in refused.json()["message"]
    stage.slow.may_answer.set()
    statuses = results(clients)
    metrics = stage.metrics(apply_id)
    assert (metrics["requests"], metrics["unanswered"]) == (40, 0)
    assert (metrics["faulted"], metrics["error_count"]) == (statuses[503], statuses[503])
    assert metrics["error_rate"] == statuses[503] / 40


def test_a_request_that_arrived_before_the_fault_does_not_count(stage: Stage, api: str) -> None:
    earlier = stage.send(api)
    eventually(lambda: stage.slow.waiting == 1)
    apply_id = stage.apply(api)
    stage.slow.may_answer.set()
    assert results(earlier) == {200: 1}
    assert results(stage.send(f"{api}?a=b", 2)) == {200: 2}
    assert results(stage.send(f"{api}/other")) == {200: 1}
    stage.stop(apply_id)
    assert results(stage.send(api)) == {200: 1}
    metrics = stage.metrics(apply_id)
    assert (metrics["requests"], metrics["success_count"]) == (2, 2)
    assert (metrics["latency_p50_ms"] > 0, metrics["latency_sd_ms"] >= 0) == (True, True)


def test_requests_whose_answer_broke_off_are_unanswered(stage: Stage, api: str) -> None:
    apply_id = stage.apply(api, BROKEN)
    assert results(stage.send(api, 2, service=BROKEN)) == {None: 2}
    stage.stop(apply_id)
    metrics = stage.metrics(apply_id)
    assert (metrics["requests"], metrics["unanswered"], metrics["error_rate"]) == (2, 2, 1.0)


def test_the_window_is_the_one_in_which_envoy_had_the_fault(stage: Stage, api: str) -> None:
    before = datetime.now(UTC) - timedelta(milliseconds=1)
    apply_id = stage.apply(api)
    applied = datetime.now(UTC)
    status = stage.stop(apply_id)
    stopped = datetime.now(UTC)
    start, end = (datetime.fromisoformat(status[name]) for name in ("start_time", "end_time"))
    assert before <= start <= applied <= end <= stopped
    metrics = stage.metrics(apply_id)
    assert (metrics["start_time"], metrics["end_time"]) == (status["start_time"], status["end_time"])


def test_requests_that_are_under_way_for_too_long_count_as_unanswered_once(
    slow: SlowTarget, tmp_path: Any, api: str
) -> None:
    slow.may_answer.clear()
    with (
        BrokenTarget() as broken,
        executor_before(slow, broken, tmp_path / "executor.log", 0.2) as executor,
        Stage(executor, slow) as stage,
    ):
        apply_id = stage.apply(api)
        clients = stage.send(api, 3)
        eventually(lambda: slow.waiting == 3)
        stage.stop(apply_id)
        metrics = stage.metrics(apply_id)
        assert (metrics["requests"], metrics["unanswered"], metrics["unfinished"]) == (3, 3, 3)
        assert metrics["latency_ms"] >= 200
        slow.may_answer.set()
        assert results(clients) == {200: 3}
        again = stage.metrics(apply_id)
        assert again | {"trace_data": None} == metrics | {"trace_data": None}  # spans come as requests end


def test_requests_that_envoy_takes_with_it_are_unanswered(slow: SlowTarget, tmp_path: Any, api: str) -> None:
    slow.may_answer.clear()
    with (
        BrokenTarget() as broken,
        executor_before(slow, broken, tmp_path / "executor.log", 600) as executor,
        Stage(executor, slow) as stage,
    ):
        apply_id = stage.apply(api)
        clients = stage.send(api, 2)
        eventually(lambda: slow.waiting == 2)
        other = stage.apply(f"{api}-other")
        stage.stop(other)
        stage.metrics(other)  # Envoy has written what came before, which a kill would take along
        assert stage.call("GET", f"/{apply_id}/status").json()["status"] == "running"
        os.kill(executor.envoy_pid, signal.SIGKILL)
        eventually(lambda: stage.call("GET", f"/{apply_id}/status").json()["status"] == "failed")
        assert results(clients) == {None: 2}
        metrics = stage.metrics(apply_id)
        assert (metrics["requests"], metrics["unanswered"]) == (2, 2)
