"""The reference Executor with a real Envoy, in front of its sample services."""

from __future__ import annotations

import json
import os
import socket
import stat
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from support.command_line import run_program
from support.envoy_admin import ask_envoy
from support.eventually import eventually
from support.processes import ExecutorProcess

from executor.contract import CONTRACT
from executor.envoy_config import STAT_PREFIX, TARGETS
from executor.limits import MAX_BODY_BYTES

SERVICE = "OrderService"


@pytest.fixture
def api(request: pytest.FixtureRequest) -> str:
    """A target of this test's own."""
    return f"/api/{request.node.name.replace('[', '-').replace(']', '')}"


def abort(api: str, **changes: Any) -> dict[str, Any]:
    fault = {
        "service": SERVICE,
        "api": api,
        "fault_type": "abort",
        "percentage": 100,
        "duration_seconds": 60,
        "fault_config": {"http_status": 503},
    }
    return fault | changes


def call(
    executor: ExecutorProcess, method: str, path: str, body: Any = None, key: str | None = None
) -> requests.Response:
    headers = {} if key is None else {"Idempotency-Key": key}
    return requests.request(method, f"{executor.url}/v1{path}", json=body, headers=headers, timeout=60)


def apply(executor: ExecutorProcess, body: dict[str, Any], key: str | None = None) -> str:
    answer = call(executor, "POST", "/faults/apply", body, key)
    assert answer.json()["status"] == "applied", answer.text
    return str(answer.json()["apply_id"])


def about(executor: ExecutorProcess, apply_id: str, part: str) -> dict[str, Any]:
    answer = call(executor, "GET", f"/faults/{apply_id}/{part}")
    assert answer.ok, answer.text
    return dict(answer.json())


def stop(executor: ExecutorProcess, apply_id: str) -> None:
    assert call(executor, "DELETE", f"/faults/{apply_id}").ok


def current(executor: ExecutorProcess) -> list[str]:
    """The faults that are not over, those of other tests included."""
    return [fault["apply_id"] for fault in call(executor, "GET", "/faults").json()["faults"]]


def send(
    executor: ExecutorProcess, api: str, times: int = 1, service: str = SERVICE, **more: str
) -> Counter[int]:
    """How often each status came back. `more` are headers, with `_` for `-`."""
    headers = {"Host": service} | {name.replace("_", "-"): value for name, value in more.items()}
    with requests.Session() as session:
        answers = [session.get(executor.proxy + api, headers=headers, timeout=60) for _ in range(times)]
    return Counter(answer.status_code for answer in answers)


def observed(executor: ExecutorProcess, apply_id: str) -> dict[str, Any]:
    stop(executor, apply_id)
    eventually(lambda: about(executor, apply_id, "status")["status"] == "completed")
    return about(executor, apply_id, "metrics")


def test_it_is_healthy(executor: ExecutorProcess) -> None:
    assert call(executor, "GET", "/health").json() == {
        "status": "healthy",
        "contract": CONTRACT,
        "capabilities": ["dead_man", "grpc_status", "headers", "http2"],
    }


def test_an_abort_is_on_when_the_apply_is_answered_and_hits_its_target_only(
    executor: ExecutorProcess, api: str
) -> None:
    apply_id = apply(executor, abort(api))
    assert send(executor, api, 20) == {503: 20}
    assert send(executor, f"{api}?query=1") == {503: 1}
    assert send(executor, f"{api}/other") == send(executor, api, service="PaymentService") == {200: 1}
    stop(executor, apply_id)
    assert send(executor, api, 20) == {200: 20}


def test_a_fault_with_headers_hits_and_counts_only_requests_that_have_all_of_them(
    executor: ExecutorProcess, api: str
) -> None:
    apply_id = apply(executor, abort(api, headers={"x-test-run": "42", "x-team": "shop"}))
    assert send(executor, api, 20, x_test_run="42", x_team="shop") == {503: 20}
    assert send(executor, api, 20, X_Test_Run="42", X_TEAM="shop") == {503: 20}, "names have no case"
    others: list[dict[str, str]] = [
        {},
        {"x_test_run": "42"},
        {"x_test_run": "4", "x_team": "shop"},
        {"x_test_run": "421", "x_team": "shop"},
        {"x_test_run": "42", "x_team": "SHOP"},
        {"x_test_run": "42,42", "x_team": "shop"},
    ]
    assert [send(executor, api, 5, **each) for each in others] == [{200: 5}] * len(others)
    metrics = observed(executor, apply_id)
    assert (metrics["requests"], metrics["faulted"], metrics["error_rate"]) == (40, 40, 1.0)


def test_the_spared_share_of_the_test_traffic_counts_and_real_users_do_not(
    executor: ExecutorProcess, api: str
) -> None:
    apply_id = apply(executor, abort(api, percentage=30, headers={"x-test-run": "42"}))
    tested = send(executor, api, 300, x_test_run="42")
    assert send(executor, api, 300) == {200: 300}
    metrics = observed(executor, apply_id)
    assert metrics["requests"] == 300
    assert metrics["error_count"] == metrics["faulted"] == tested[503]
    assert 45 <= tested[503] <= 140, "30 % of 300, within 6 standard deviations"


def test_one_target_has_one_fault_even_if_headers_differ(executor: ExecutorProcess, api: str) -> None:
    body = abort(api, headers={"x-test-run": "1"})
    apply_id = apply(executor, body, key=f"{api} 1")
    other = abort(api, headers={"x-test-run": "2"})
    assert call(executor, "POST", "/faults/apply", other).status_code == 409
    assert call(executor, "POST", "/faults/apply", other, key=f"{api} 1").status_code == 422
    assert apply(executor, body, key=f"{api} 1") == apply_id
    stop(executor, apply_id)


def test_a_fault_of_grpc_calls_leaves_plain_requests_alone(executor: ExecutorProcess, api: str) -> None:
    apply_id = apply(executor, abort(api, protocol="grpc", fault_config={"grpc_status": 14}))
    assert send(executor, api, 5) == {200: 5}
    assert observed(executor, apply_id)["requests"] == 0


def test_metrics_are_what_envoy_saw(executor: ExecutorProcess, api: str) -> None:
    apply_id = apply(executor, abort(api))
    send(executor, api, 20)
    metrics = observed(executor, apply_id)
    assert metrics["status_code"] == 503
    assert (metrics["error_rate"], metrics["error_count"], metrics["success_count"]) == (1.0, 20, 0)
    assert metrics["logs"][0] == "20 requests, 20 of them hit: 20 x 503"
    assert len(metrics["logs"]) == 21
    assert 0 < metrics["latency_ms"] < 100


def test_requests_before_and_after_the_fault_do_not_count(executor: ExecutorProcess, api: str) -> None:
    send(executor, api, 5)
    apply_id = apply(executor, abort(api))
    send(executor, api, 3)
    stop(executor, apply_id)
    send(executor, api, 5)
    assert observed(executor, apply_id)["error_count"] == 3


def test_a_share_of_the_requests_is_hit(executor: ExecutorProcess, api: str) -> None:
    apply_id = apply(executor, abort(api, percentage=30))
    statuses = send(executor, api, 1000)
    assert 220 < statuses[503] < 380  # more than five standard deviations on either side
    metrics = observed(executor, apply_id)
    assert metrics["error_rate"] == statuses[503] / 1000
    assert metrics["status_code"] == 200


def test_a_share_of_nothing_observes_the_baseline(executor: ExecutorProcess, api: str) -> None:
    apply_id = apply(executor, abort(api, percentage=0))
    assert send(executor, api, 10) == {200: 10}
    assert observed(executor, apply_id)["success_count"] == 10


def test_a_delay_holds_requests_for_its_time(executor: ExecutorProcess, api: str) -> None:
    apply_id = apply(executor, abort(api, fault_type="delay", fault_config={"delay_ms": 300}))
    send(executor, api, 2)
    metrics = observed(executor, apply_id)
    assert 290 <= metrics["latency_ms"] < 600
    assert metrics["error_rate"] == 0.0


def test_a_start_delay_and_its_abort_hit_the_same_requests(executor: ExecutorProcess, api: str) -> None:
    config = {"http_status": 503, "start_delay_ms": 500}
    apply_id = apply(executor, abort(api, percentage=50, fault_config=config))
    with ThreadPoolExecutor(20) as pool:
        answers = list(
            pool.map(
                lambda _: requests.get(executor.proxy + api, headers={"Host": SERVICE}, timeout=60), range(60)
            )
        )
    stop(executor, apply_id)
    assert {answer.status_code for answer in answers} == {200, 503}
    held = [answer.elapsed.total_seconds() > 0.4 for answer in answers]
    assert held == [answer.status_code == 503 for answer in answers]


def test_requests_that_are_still_held_at_the_end_are_waited_for(executor: ExecutorProcess, api: str) -> None:
    apply_id = apply(executor, abort(api, fault_type="delay", fault_config={"delay_ms": 700}))
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(send, executor, api)
        eventually(lambda: held_requests(executor) == 1)
        stop(executor, apply_id)
        assert about(executor, apply_id, "status")["status"] == "running"
        assert call(executor, "GET", f"/faults/{apply_id}/metrics").status_code == 409
        assert apply_id in current(executor)
        assert held.result() == {200: 1}
    assert observed(executor, apply_id)["success_count"] == 1
    assert apply_id not in current(executor)


def test_a_fault_ends_by_itself(executor: ExecutorProcess, api: str) -> None:
    apply_id = apply(executor, abort(api, duration_seconds=1))
    assert about(executor, apply_id, "status")["end_time"] is None
    eventually(lambda: send(executor, api) == {200: 1})
    eventually(lambda: about(executor, apply_id, "status")["status"] == "completed")
    status = about(executor, apply_id, "status")
    began, ended = (datetime.fromisoformat(status[name]) for name in ("start_time", "end_time"))
    assert 1 <= (ended - began).total_seconds() < 1.5


def test_the_same_key_is_the_same_fault(executor: ExecutorProcess, api: str) -> None:
    with ThreadPoolExecutor(10) as pool:
        ids = set(pool.map(lambda _: apply(executor, abort(api), key=api), range(20)))
    assert len(ids) == 1
    stop(executor, ids.pop())


def test_the_same_key_for_another_fault_is_refused(executor: ExecutorProcess, api: str) -> None:
    apply_id = apply(executor, abort(api), key=api)
    answer = call(executor, "POST", "/faults/apply", abort(api, percentage=1), key=api)
    assert (answer.status_code, answer.json()["error"]) == (422, "key_reused")
    stop(executor, apply_id)


def test_a_second_fault_on_a_target_is_refused(executor: ExecutorProcess, api: str) -> None:
    apply_id = apply(executor, abort(api))
    answer = call(executor, "POST", "/faults/apply", abort(api, percentage=1))
    assert answer.status_code == 409
    assert apply_id in answer.json()["message"]
    stop(executor, apply_id)


TWICE = {
    "of the fault": '{"service": "OrderService", "service": "PaymentService"}',
    "within": '{"fault_config": {"http_status": 503, "http_status": 500}}',
    "the same value": '{"percentage": 1, "percentage": 1}',
    "as another escape": '{"percentage": 1, "\\u0070ercentage": 1}',
}


@pytest.mark.parametrize("body", TWICE.values(), ids=TWICE)
@pytest.mark.parametrize("path", ["/v1/faults/apply", "/v1/policies"])
def test_a_body_with_a_key_twice_is_refused(executor: ExecutorProcess, path: str, body: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = requests.post(executor.url + path, data=body, headers=headers, timeout=60)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_input")
    assert "is there more than once" in answer.json()["message"]


def test_stopping_twice_is_stopping(executor: ExecutorProcess, api: str) -> None:
    apply_id = apply(executor, abort(api))
    stop(executor, apply_id)
    stop(executor, apply_id)


def test_what_is_unknown_is_not_found(executor: ExecutorProcess, api: str) -> None:
    for method, path in [
        ("GET", "/faults/x/status"),
        ("GET", "/faults/x/metrics"),
        ("DELETE", "/faults/x"),
        ("GET", "/nowhere"),
    ]:
        answer = call(executor, method, path)
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
    unknown_service = call(executor, "POST", "/faults/apply", abort(api, service="UnknownService"))
    assert unknown_service.status_code == 404
    assert "UnknownService" in unknown_service.json()["message"]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (abort("/api", percentage=101), "percentage"),
        (abort("/api", fault_config={"http_status": 42}), "fault_config.http_status"),
        (abort("/api", fault_config={}), "fault_config.http_status"),
        ([], "body"),
        ("{", "body"),
    ],
)
def test_an_invalid_request_names_the_field(executor: ExecutorProcess, body: object, named: str) -> None:
    answer = call(executor, "POST", "/faults/apply", body)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_input")
    assert named in answer.json()["message"]


def test_a_body_that_is_too_large_is_refused_whether_its_length_is_declared_or_not(
    executor: ExecutorProcess,
) -> None:
    url, size = f"{executor.url}/v1/faults/apply", MAX_BODY_BYTES + 1
    for body in (b" " * size, (b" " * 100_000 for _ in range(size // 100_000 + 1))):
        answer = requests.post(url, data=body, headers={"Content-Type": "application/json"}, timeout=60)
        assert (answer.status_code, answer.json()["error"]) == (413, "too_large")
        assert str(MAX_BODY_BYTES) in answer.json()["message"]


@pytest.mark.parametrize(
    ("length", "piece", "end"),
    [
        (f"Content-Length: {40 * MAX_BODY_BYTES}", b"%s", b""),
        ("Transfer-Encoding: chunked", f"{MAX_BODY_BYTES:x}\r\n%s\r\n".encode(), b"0\r\n\r\n"),
    ],
)
def test_a_client_that_sends_all_of_a_body_that_is_too_large_gets_its_answer(
    executor: ExecutorProcess, length: str, piece: bytes, end: bytes
) -> None:
    head = f"POST /v1/faults/apply HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n{length}\r\n\r\n"
    url = urlsplit(executor.url)
    with socket.create_connection((url.hostname, url.port), timeout=60) as client:
        client.sendall(head.encode() + piece % (b" " * MAX_BODY_BYTES) * 40 + end)
        assert client.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_a_body_of_the_most_bytes_is_read(executor: ExecutorProcess, api: str) -> None:
    body = json.dumps(abort(api)).encode().ljust(MAX_BODY_BYTES)
    url = f"{executor.url}/v1/faults/apply"
    answer = requests.post(url, data=body, headers={"Content-Type": "application/json"}, timeout=60)
    assert answer.json()["status"] == "applied"
    stop(executor, answer.json()["apply_id"])


def test_an_apply_beyond_the_most_faults_is_asked_to_come_again(tmp_path: Path) -> None:
    with ExecutorProcess(tmp_path / "executor.log", "--max-active-faults", "1", traffic_rps=0) as executor:
        apply_id = apply(executor, abort("/api/a"))
        answer = call(executor, "POST", "/faults/apply", abort("/api/b"))
        assert (answer.status_code, answer.json()["error"]) == (429, "too_many_faults")
        stop(executor, apply_id)
        apply(executor, abort("/api/b"))


def test_all_faults_are_stopped_at_once(tmp_path: Path) -> None:
    with ExecutorProcess(tmp_path / "executor.log", traffic_rps=0) as executor:
        applied = {apply(executor, abort(f"/api/{n}")) for n in range(3)}
        answer = call(executor, "POST", "/faults/stop-all").json()
        assert {fault["apply_id"] for fault in answer["faults"]} == applied
        assert [send(executor, f"/api/{n}") for n in range(3)] == [{200: 1}] * 3
        assert {about(executor, each, "status")["status"] for each in applied} == {"completed"}
        assert call(executor, "POST", "/faults/stop-all").json() == {"faults": []}


def test_two_hundred_applies_at_once_are_few_changes_of_the_routes(tmp_path: Path) -> None:
    with ExecutorProcess(tmp_path / "executor.log", traffic_rps=0) as executor:
        with ThreadPoolExecutor(50) as pool:
            list(pool.map(lambda n: apply(executor, abort(f"/api/{n}")), range(200)))
        assert routes_taken(executor) < 100
        assert len(call(executor, "POST", "/faults/stop-all").json()["faults"]) == 200
        assert send(executor, "/api/7") == {200: 1}


def test_only_its_owner_can_use_the_admin_interface(executor: ExecutorProcess) -> None:
    assert stat.S_IMODE(Path(executor.admin).stat().st_mode) == 0o600


def test_traces_are_opentelemetry_json(executor: ExecutorProcess, api: str) -> None:
    apply_id = apply(executor, abort(api))
    trace_id, span_id = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    headers = {"Host": SERVICE, "traceparent": f"00-{trace_id}-{span_id}-01"}
    requests.get(executor.proxy + api, headers=headers, timeout=60)
    stop(executor, apply_id)

    def spans() -> list[dict[str, Any]]:
        [resource] = about(executor, apply_id, "metrics")["trace_data"]["resourceSpans"]
        return list(resource["scopeSpans"][0]["spans"])

    [span] = eventually(spans)
    assert (span["traceId"], span["parentSpanId"]) == (trace_id, span_id)
    assert {"key": "http.status_code", "value": {"stringValue": "503"}} in span["attributes"]


def test_nothing_is_left_of_an_executor_that_was_killed(tmp_path: Path) -> None:
    with ExecutorProcess(tmp_path / "executor.log", traffic_rps=0) as executor:
        apply(executor, abort("/api"))
        executor.kill()
    eventually(lambda: not_listening(executor))


def test_nothing_is_left_of_an_executor_that_was_ended(tmp_path: Path) -> None:
    with ExecutorProcess(tmp_path / "executor.log", traffic_rps=10) as executor:
        apply(executor, abort("/api"))
        assert executor.stop() == 0
    assert not_listening(executor)
    assert "Traceback" not in executor.output


@pytest.mark.parametrize("killed", ["Envoy", "its parent"])
def test_an_envoy_that_ends_fails_its_faults_and_is_started_again(tmp_path: Path, killed: str) -> None:
    with ExecutorProcess(tmp_path / "executor.log", traffic_rps=0) as executor:
        apply_id = apply(executor, abort("/api/x"))
        parent = int(
            Path(f"/proc/{executor.envoy_pid}/stat").read_text("utf-8").rpartition(")")[2].split()[1]
        )
        os.kill(executor.envoy_pid if killed == "Envoy" else parent, 9)
        eventually(lambda: about(executor, apply_id, "status")["status"] == "failed")
        assert "Envoy" in about(executor, apply_id, "status")["error_msg"]
        assert "shortly before" in about(executor, apply_id, "status")["doubt"]
        eventually(lambda: call(executor, "GET", "/health").ok)
        assert send(executor, "/api/x") == {200: 1}
        apply(executor, abort("/api/x"))
        assert send(executor, "/api/x") == {503: 1}


def test_a_token_is_asked_for(tmp_path: Path) -> None:
    with ExecutorProcess(tmp_path / "executor.log", traffic_rps=0, token="pa55") as executor:
        answer = call(executor, "GET", "/faults/x/status")
        assert (answer.status_code, answer.json()["error"]) == (401, "unauthorized")
        assert call(executor, "GET", "/health").ok
        allowed = requests.get(
            f"{executor.url}/v1/faults/x/status", headers={"Authorization": "Bearer pa55"}, timeout=30
        )
        assert allowed.status_code == 404


def test_a_token_that_it_makes_is_in_its_file_only(tmp_path: Path) -> None:
    file = tmp_path / "token"
    options = ["--host", "0.0.0.0", "--token-file", str(file)]
    with ExecutorProcess(tmp_path / "executor.log", *options, traffic_rps=0) as executor:
        token = file.read_text("utf-8").strip()
        assert call(executor, "GET", "/faults").status_code == 401
        headers = {"Authorization": f"Bearer {token}"}
        assert requests.get(f"{executor.url}/v1/faults", headers=headers, timeout=30).ok
        assert token not in executor.output
        assert token.encode() not in Path(f"/proc/{executor.envoy_pid}/environ").read_bytes()


def test_clients_that_never_finish_a_request_hold_up_no_other(executor: ExecutorProcess, api: str) -> None:
    address = ("127.0.0.1", int(executor.url.rpartition(":")[2]))
    with ExitStack() as connections:
        for number in range(1_000):
            slow = connections.enter_context(socket.create_connection(address, timeout=60))
            slow.sendall(b"POST /v1/faults/apply HTTP/1.1\r\nContent-Le"[: number % 50])
        apply_id = apply(executor, abort(api))
        assert send(executor, api) == {503: 1}
        stop(executor, apply_id)


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        ([], 2, "give --service or --sample"),
        (["--sample", "--port", "x"], 2, "'x' is not a port"),
        (["--sample", "--traffic-rps", "-1"], 2, "is not a rate"),
        (["--sample", "--wait-for-answers-sec", "nan"], 2, "is not a number of seconds from 0 to 3600"),
        (["--service", "broken"], 2, "'broken' is not NAME=HOST:PORT"),
        (["--sample", "--port", "TAKEN"], 1, "Address already in use"),
        (["--sample", "--port", "0", "--proxy-port", "TAKEN"], 1, "Envoy ended"),
        (["--sample", "--port", "0", "--state-dir", "/dev/null/x"], 1, "/dev/null"),
        (["--sample", "--max-active-faults", "0"], 2, "is not a number from 1 to 100000"),
        (
            ["--sample", "--host", "0.0.0.0"],
            1,
            "lets in other machines, and no token is set: give --token-file",
        ),
        (["--service", "A=127.0.0.1:1", "--service", "A=127.0.0.1:2"], 2, "A is more than one service"),
        (["--service", "OrderService=127.0.0.1:1", "--sample"], 2, "OrderService is more than one service"),
        (["--sample", "--token-file", "/dev/null"], 1, "/dev/null holds no token"),
        (["--sample", "--request-within-sec", "0"], 2, "is not a number of seconds from 0.1 to 3600"),
        (
            ["--sample", "--port", "0", "--state-dir", "/tmp/" + 100 * "x"],
            1,
            "the path is too long for Unix sockets",
        ),
    ],
)
def test_what_is_wrong_with_its_options_is_said_in_a_line(
    executor: ExecutorProcess, options: list[str], code: int, told: str
) -> None:
    taken = executor.url.rsplit(":", 1)[1]
    done = run_program("executor", *(taken if each == "TAKEN" else each for each in options))
    assert done.returncode == code
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def routes_taken(executor: ExecutorProcess) -> int:
    """How often Envoy has taken routes."""
    name = f"http.{STAT_PREFIX}.rds.{TARGETS}.update_success"
    return int(ask_envoy(executor.admin, f"/stats?filter={name}").rpartition(": ")[2])


def held_requests(executor: ExecutorProcess) -> int:
    name = f"http.{STAT_PREFIX}.fault.active_faults"
    return int(ask_envoy(executor.admin, f"/stats?filter={name}").rpartition(": ")[2] or 0)


def not_listening(executor: ExecutorProcess) -> bool:
    try:
        requests.get(executor.proxy, timeout=1)
    except requests.ConnectionError:
        return True
    return False


def test_a_header_that_is_sent_twice_matches_by_one_of_its_values(
    executor: ExecutorProcess, api: str
) -> None:
    host, port = executor.proxy.removeprefix("http://").split(":")

    def status(*values: str) -> int:
        lines = "".join(f"x-run: {value}\r\n" for value in values)
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            head = f"GET {api} HTTP/1.1\r\nHost: {SERVICE}\r\nConnection: close\r\n{lines}\r\n"
            connection.sendall(head.encode())
            return int(connection.recv(4096).split()[1])

    apply(executor, abort(api, headers={"x-run": "1"}))
    assert [status("1"), status("1", "2"), status("2", "1")] == [503] * 3
    assert 503 not in [status("1,2"), status("2"), status()]
