"""The log of a real worker, for people and for programs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from support.command_line import DISPATCHER
from support.eventually import eventually
from support.plans import abort_plan
from support.processes import Process

from dispatcher import Dispatcher, ExecutorRejectedError
from workers.engine.traces import own_trace_id

if TYPE_CHECKING:
    from pathlib import Path

    from support.processes import Workers
    from support.stub_executor import StubExecutor

QUICK = {"DISPATCHER_EXECUTORS__DEFAULT__INITIAL_RETRY_DELAY_SEC": "0.05"}
DEBUG = ("--loglevel", "DEBUG")


def objects(text: str) -> list[dict[str, Any]]:
    """Each line, which must be JSON."""
    return [json.loads(line) for line in text.splitlines()]


def carry_out(dispatcher: Dispatcher, stub: StubExecutor) -> None:
    """A plan that is tried again and observed, and one that fails."""
    stub.answers.append((503, {}))
    dispatcher.submit(abort_plan(), plan_id="good").result(60)
    stub.answers.append((401, {"message": "who\nare you?"}))
    with pytest.raises(ExecutorRejectedError):
        dispatcher.submit(abort_plan(), plan_id="bad").result(60)


def test_every_line_is_json_and_decisions_have_their_levels_and_fields(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    worker = start(stub.url, *DEBUG, DISPATCHER_LOGS__FORMAT="json", **QUICK)
    carry_out(dispatcher, stub)
    eventually(lambda: "plan bad: failed" in worker.output)
    worker.stop()
    lines = objects(worker.output)
    assert all({"time", "level", "logger", "message"} <= set(line) for line in lines)
    decisions = [line for line in lines if line["logger"] == "workers.engine.engine"]
    told = [(line["level"], line["plan"], line.get("apply_id"), line["attempt"]) for line in decisions]
    assert told == [
        ("INFO", "good", None, 1),
        ("DEBUG", "good", "good", 2),
        ("DEBUG", "good", "good", 1),
        ("ERROR", "bad", None, 1),
    ]
    assert {line["executor"] for line in decisions} == {"default"}
    assert all(0 < line["duration_ms"] < 20_000 for line in decisions)
    traces = {f"{own_trace_id(plan_id):032x}" for plan_id in ("good", "bad")}
    assert {line["trace_id"] for line in decisions} == traces
    of_libraries = [line["message"] for line in lines if line.get("plan") == "good" and line not in decisions]
    assert any("/v1/faults/good/status" in message for message in of_libraries)


def test_lines_of_text_end_with_the_fields(
    dispatcher: Dispatcher, start: Workers, stub: StubExecutor
) -> None:
    worker = start(stub.url, **QUICK)
    carry_out(dispatcher, stub)
    eventually(lambda: "plan bad: failed" in worker.output)
    retry, failure = [line for line in worker.output.splitlines() if " plan=" in line]
    assert "INFO/MainProcess] plan good: attempt 1 failed" in retry
    assert " plan=good executor=default attempt=1 duration_ms=" in retry
    assert "ERROR/MainProcess] plan bad: failed with ExecutorRejectedError" in failure
    assert failure.endswith(f" trace_id={own_trace_id('bad'):032x}")


@pytest.mark.parametrize("processes", [1, 2])
def test_the_command_starts_workers_that_log_in_the_given_format(
    processes: int, redis_url: str, stub: StubExecutor, tmp_path: Path
) -> None:
    address = {"DISPATCHER_REDIS_URL": redis_url, "DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": stub.url}
    command = [DISPATCHER, "worker", "--processes", str(processes), "--log-format", "json"]
    with Process(command, tmp_path / "log", address) as worker:
        worker.wait_until(lambda: worker.output.count(" ready.") == processes)
        worker.stop()
    told = [line["message"] for line in objects(worker.output)]
    assert sum(message.endswith("stops, once its steps are done") for message in told) == processes
