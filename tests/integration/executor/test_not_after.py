"""An apply that comes too late begins no fault, and the Executor lists the faults that it has."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
import requests
from support.eventually import SET_BACK_MS, eventually
from support.processes import ExecutorProcess

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SERVICE = "OrderService"
SET_BACK = timedelta(milliseconds=SET_BACK_MS)


@pytest.fixture
def api(request: pytest.FixtureRequest) -> str:
    """A target of this test's own."""
    return "/api/" + "".join(each if each.isalnum() else "-" for each in request.node.name)


def moment(from_now_s: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=from_now_s)).isoformat(timespec="milliseconds")


def utc(from_now_s: float) -> str:
    return moment(from_now_s).replace("+00:00", "Z")


def apply(
    executor: ExecutorProcess, api: str, not_after: str | None, key: str | None = None
) -> requests.Response:
    fault: dict[str, Any] = {
        "service": SERVICE,
        "api": api,
        "fault_type": "abort",
        "percentage": 100,
        "duration_seconds": 60,
        "fault_config": {"http_status": 503},
    }
    headers = {"Not-After": not_after, "Idempotency-Key": key}
    given = {name: value for name, value in headers.items() if value is not None}
    return requests.post(f"{executor.url}/v1/faults/apply", json=fault, headers=given, timeout=60)


def stop(executor: ExecutorProcess, answer: requests.Response) -> None:
    requests.delete(f"{executor.url}/v1/faults/{answer.json()['apply_id']}", timeout=60)


def answers_with(executor: ExecutorProcess, api: str) -> int:
    return requests.get(executor.proxy + api, headers={"Host": SERVICE}, timeout=60).status_code


def listed(executor: ExecutorProcess) -> list[dict[str, Any]]:
    answer = requests.get(f"{executor.url}/v1/faults", timeout=60)
    assert answer.ok, answer.text
    return list(answer.json()["faults"])


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ExecutorProcess]:
    """An Executor whose Envoy a test may pause."""
    with ExecutorProcess(tmp_path / "executor.log", traffic_rps=0) as executor:
        yield executor
        os.kill(executor.envoy_pid, signal.SIGCONT)


def test_an_apply_that_comes_in_time_begins_its_fault(executor: ExecutorProcess, api: str) -> None:
    answer = apply(executor, api, utc(60))
    assert answer.json()["status"] == "applied"
    assert answers_with(executor, api) == 503
    stop(executor, answer)


@pytest.mark.parametrize("write", [pytest.param(utc, id="with Z"), pytest.param(moment, id="with an offset")])
def test_an_apply_that_comes_too_late_begins_no_fault(
    executor: ExecutorProcess, api: str, write: Any
) -> None:
    answer = apply(executor, api, write(-0.01), key=api)
    assert (answer.status_code, answer.json()["error"]) == (412, "precondition_failed")
    assert "Not-After" in answer.json()["message"]
    assert answers_with(executor, api) == 200
    again = apply(executor, api, None, key=api)
    assert again.json()["status"] == "applied"
    stop(executor, again)


def test_a_fault_that_exists_is_named_however_late_it_is(executor: ExecutorProcess, api: str) -> None:
    first = apply(executor, api, utc(60), key=api)
    again = apply(executor, api, utc(-60), key=api)
    assert (again.status_code, again.json()) == (200, first.json())
    stop(executor, first)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("soon", id="a word"),
        pytest.param("1900000000", id="a number"),
        pytest.param("2030-01-31T12:00:00.000", id="a moment without an offset"),
        pytest.param("Thu, 31 Jan 2030 12:00:00 GMT", id="a date as in other headers"),
    ],
)
def test_what_is_not_a_moment_is_refused(executor: ExecutorProcess, api: str, text: str) -> None:
    answer = apply(executor, api, text)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_input")
    assert "not-after: a moment is written as" in answer.json()["message"]
    assert answers_with(executor, api) == 200


def test_an_apply_whose_time_passes_while_envoy_is_paused_begins_no_fault(own: ExecutorProcess) -> None:
    """The first one waits for Envoy, and the second one for the first."""
    os.kill(own.envoy_pid, signal.SIGSTOP)
    last = datetime.now(UTC) + timedelta(seconds=0.5)
    not_after = last.isoformat(timespec="milliseconds")
    with ThreadPoolExecutor(2) as pool:
        applied = [pool.submit(apply, own, api, not_after) for api in ("/api/a", "/api/b")]
        eventually(lambda: datetime.now(UTC) > last + SET_BACK)
        os.kill(own.envoy_pid, signal.SIGCONT)
        assert [each.result().status_code for each in applied] == [412, 412]
    assert [answers_with(own, api) for api in ("/api/a", "/api/b")] == [200, 200]
    assert listed(own) == []


def test_the_list_has_each_fault_that_is_in_force(own: ExecutorProcess) -> None:
    assert listed(own) == []
    with_key, without = apply(own, "/api/a", None, key="k1"), apply(own, "/api/b", None)
    faults = {fault["apply_id"]: fault for fault in listed(own)}
    assert [faults[answer.json()["apply_id"]]["key"] for answer in (with_key, without)] == ["k1", None]
    fault = faults[with_key.json()["apply_id"]]
    assert (fault["service"], fault["api"], fault["status"]) == (SERVICE, "/api/a", "running")
    assert datetime.fromisoformat(fault["start_time"]) <= datetime.now(UTC) + SET_BACK
    stop(own, with_key)
    assert [fault["key"] for fault in listed(own)] == [None]


def test_an_executor_that_is_not_ready_lists_nothing(own: ExecutorProcess) -> None:
    os.kill(own.envoy_pid, signal.SIGSTOP)
    answer = requests.get(f"{own.url}/v1/faults", timeout=60)
    assert (answer.status_code, answer.json()["error"]) == (503, "unavailable")
