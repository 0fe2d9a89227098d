"""An Executor that dies, hangs or is restarted: its faults end, traffic goes on, and it knows what it did."""

from __future__ import annotations

import os
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import requests
from support.command_line import run_program
from support.envoy_admin import ask_envoy
from support.eventually import eventually
from support.processes import ExecutorProcess
from support.service import Service

from executor.control_plane import TTL_S
from executor.envoy import LOST_WRITES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SERVICE = "OrderService"
SLACK_S = 2.0
"""For machines that are busy."""


@pytest.fixture
def service() -> Iterator[Service]:
    """It outlives every Executor."""
    with Service() as service:
        service.let_go.set()
        yield service


@pytest.fixture
def start(tmp_path: Path, service: Service) -> Iterator[Callable[[], ExecutorProcess]]:
    """Starts one Executor after the other, with the same folder. All that is left ends with the test."""
    started: list[ExecutorProcess] = []

    def one() -> ExecutorProcess:
        executor = ExecutorProcess(
            tmp_path / f"{len(started)}.log",
            *("--service", f"{SERVICE}=127.0.0.1:{service.port}", "--state-dir", str(tmp_path / "s")),
            traffic_rps=0,
            sample=False,
        )
        started.append(executor)
        return executor

    yield one
    for executor in started:
        executor.kill()
        with suppress(ProcessLookupError):
            os.kill(executor.envoy_pid, signal.SIGKILL)


def apply(executor: ExecutorProcess, api: str, seconds: int) -> str:
    body: dict[str, Any] = {
        "service": SERVICE,
        "api": api,
        "fault_type": "abort",
        "percentage": 100,
        "duration_seconds": seconds,
        "fault_config": {"http_status": 503},
    }
    answer = requests.post(
        f"{executor.url}/v1/faults/apply", json=body, headers={"Idempotency-Key": api}, timeout=60
    )
    assert answer.json()["status"] == "applied", answer.text
    return str(answer.json()["apply_id"])


def about(executor: ExecutorProcess, apply_id: str, part: str) -> dict[str, Any]:
    answer = requests.get(f"{executor.url}/v1/faults/{apply_id}/{part}", timeout=60)
    assert answer.ok, answer.text
    return dict(answer.json())


def status_of(executor: ExecutorProcess, api: str) -> int:
    return requests.get(executor.proxy + api, headers={"Host": SERVICE}, timeout=10).status_code


def lasted_s(status: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(status[name]) for name in ("start_time", "end_time"))
    return (ended - began).total_seconds()


def seconds_until_ok(executor: ExecutorProcess, api: str) -> float:
    began = time.monotonic()
    eventually(lambda: status_of(executor, api) == 200)
    return time.monotonic() - began


def test_a_fault_ends_and_traffic_goes_on_if_the_executor_is_killed(
    start: Callable[[], ExecutorProcess],
) -> None:
    executor = start()
    apply(executor, "/api/x", 60)
    assert status_of(executor, "/api/x") == 503
    executor.kill()
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(seconds_until_ok, executor, "/api/x")
        others = [status_of(executor, "/api/other") for _ in range(50)]
        assert ended.result() < TTL_S + SLACK_S
    assert set(others) == {200}


def test_a_fault_ends_although_the_executor_hangs_and_it_knows_that_afterwards(
    start: Callable[[], ExecutorProcess],
) -> None:
    executor = start()
    apply_id = apply(executor, "/api/x", 60)
    os.kill(executor.pid, signal.SIGSTOP)
    assert seconds_until_ok(executor, "/api/x") < TTL_S + SLACK_S
    os.kill(executor.pid, signal.SIGCONT)
    eventually(lambda: about(executor, apply_id, "status")["status"] == "failed")
    status = about(executor, apply_id, "status")
    assert "lapsed after" in status["error_msg"]
    assert "did not renew it" in status["doubt"]
    assert lasted_s(status) < TTL_S + SLACK_S
    assert status_of(executor, "/api/x") == 200


def test_an_executor_that_is_restarted_at_once_goes_on_with_its_faults(
    start: Callable[[], ExecutorProcess],
) -> None:
    first = start()
    apply_id = apply(first, "/api/x", 60)
    assert status_of(first, "/api/x") == 503
    first.kill()
    second = start()
    assert (second.envoy_pid, second.proxy) == (first.envoy_pid, first.proxy)
    status = about(second, apply_id, "status")
    if status["status"] == "running":  # the restart took less than the faults' time to live
        assert "restarted" in status["doubt"]
        assert status_of(second, "/api/x") == 503
        assert apply(second, "/api/x", 60) == apply_id, "the same key is the same fault"
        requests.delete(f"{second.url}/v1/faults/{apply_id}", timeout=60)
        assert about(second, apply_id, "metrics")["error_count"] == 2
    else:
        assert "lapsed after" in status["error_msg"]
    assert status_of(second, "/api/x") == 200


def test_a_fault_whose_time_passed_meanwhile_is_complete_with_its_figures_and_a_doubt(
    start: Callable[[], ExecutorProcess],
) -> None:
    first = start()
    apply_id = apply(first, "/api/x", 1)
    assert [status_of(first, "/api/x") for _ in range(3)] == [503] * 3
    first.kill()
    assert seconds_until_ok(first, "/api/x") < TTL_S + SLACK_S
    second = start()
    eventually(lambda: about(second, apply_id, "status")["status"] == "completed")
    assert about(second, apply_id, "status")["doubt"]
    metrics = about(second, apply_id, "metrics")
    assert metrics["error_count"] == metrics["faulted"] >= 3
    assert 1 <= lasted_s(metrics) < TTL_S + SLACK_S


def test_sigterm_ends_all_faults_and_leaves_envoy_to_the_next_executor(
    start: Callable[[], ExecutorProcess],
) -> None:
    first = start()
    apply_id = apply(first, "/api/x", 60)
    assert first.stop() == 0
    assert status_of(first, "/api/x") == 200
    second = start()
    assert second.envoy_pid == first.envoy_pid
    assert about(second, apply_id, "status")["status"] == "completed"


def test_an_envoy_that_died_meanwhile_fails_its_faults(start: Callable[[], ExecutorProcess]) -> None:
    first = start()
    apply_id = apply(first, "/api/x", 60)
    first.kill()
    os.kill(first.envoy_pid, signal.SIGKILL)
    second = start()
    status = about(second, apply_id, "status")
    assert (status["status"], status["error_msg"]) == ("failed", "Envoy ended while the Executor was away")
    assert status_of(second, "/api/x") == 200


def test_an_envoy_whose_executor_was_killed_before_it_noted_it_is_ended(
    start: Callable[[], ExecutorProcess], tmp_path: Path
) -> None:
    first = start()
    first.kill()
    (tmp_path / "s" / "envoy.json").unlink()
    second = start()
    assert second.envoy_pid != first.envoy_pid
    assert not Path(f"/proc/{first.envoy_pid}").exists()
    assert status_of(second, "/api/x") == 200


def test_a_folder_has_one_executor_at_a_time(start: Callable[[], ExecutorProcess], tmp_path: Path) -> None:
    start()
    done = run_program("executor", "--sample", "--port", "0", "--state-dir", str(tmp_path / "s"))
    assert done.returncode == 1
    assert done.stderr == (
        f"error: the Executor does not start: another Executor uses the folder {tmp_path / 's'}\n"
    )


def test_an_executor_with_a_copy_of_a_folder_leaves_the_envoy_of_that_folder_alone(
    start: Callable[[], ExecutorProcess], service: Service, tmp_path: Path
) -> None:
    executor = start()
    apply_id = apply(executor, "/api/x", 60)
    shutil.copytree(tmp_path / "s", tmp_path / "copy", ignore=shutil.ignore_patterns("*.sock"))
    options = ["--service", f"{SERVICE}=127.0.0.1:{service.port}", "--state-dir", str(tmp_path / "copy")]
    with ExecutorProcess(tmp_path / "copy.log", *options, traffic_rps=0, sample=False) as other:
        assert other.envoy_pid != executor.envoy_pid
        other.stop()
        os.kill(other.envoy_pid, signal.SIGKILL)
    assert status_of(executor, "/api/x") == 503
    assert about(executor, apply_id, "status")["status"] == "running"


@pytest.mark.parametrize("removed", [False, True], ids=["cut", "removed"])
def test_figures_of_a_log_that_something_has_cut_or_removed_are_in_doubt_and_later_ones_are_not(
    start: Callable[[], ExecutorProcess], tmp_path: Path, *, removed: bool
) -> None:
    executor = start()
    first = apply(executor, "/api/x", 60)
    assert status_of(executor, "/api/x") == 503
    log = tmp_path / "s" / "access.log"
    eventually(lambda: log.stat().st_size)
    about(executor, first, "status")  # which reads the log
    log.unlink() if removed else os.truncate(log, 0)
    eventually(lambda: "was cut, damaged or removed" in about(executor, first, "status")["doubt"])
    eventually(log.exists)
    assert requests.delete(f"{executor.url}/v1/faults/{first}", timeout=60).json()["status"] == "completed"
    second = apply(executor, "/api/y", 60)
    assert status_of(executor, "/api/y") == 503
    assert requests.delete(f"{executor.url}/v1/faults/{second}", timeout=60).json()["status"] == "completed"
    metrics = about(executor, second, "metrics")
    assert (metrics["requests"], metrics["doubt"]) == (1, "")


def test_figures_of_a_log_with_a_damaged_line_are_in_doubt(
    start: Callable[[], ExecutorProcess], tmp_path: Path
) -> None:
    executor = start()
    fault = apply(executor, "/api/x", 60)
    with (tmp_path / "s" / "access.log").open("a", encoding="utf-8") as log:
        log.write(
            '{"kind": "Downst{"kind": "DownstreamEnd"}\n'
        )  # as a disk that was full for a moment leaves it
    eventually(lambda: "was cut, damaged or removed" in about(executor, fault, "status")["doubt"])


def test_envoy_counts_what_it_cannot_write(start: Callable[[], ExecutorProcess], tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "access.log").symlink_to("/dev/full")
    executor = start()
    assert status_of(executor, "/api/x") == 200
    eventually(lambda: int(ask_envoy(executor.admin, f"/stats?filter=^{LOST_WRITES}$").rpartition(":")[2]))


def test_a_folder_with_a_broken_file_is_a_line(tmp_path: Path) -> None:
    (tmp_path / "faults.sqlite3").write_text("no database, although it has some length" * 100, "utf-8")
    done = run_program("executor", "--sample", "--port", "0", "--state-dir", str(tmp_path))
    assert done.returncode == 1
    assert "error: the Executor does not start: " in done.stderr
    assert "faults.sqlite3" in done.stderr
    assert "Traceback" not in done.stderr
