"""An Executor that takes a repeated apply for a second fault."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
from support.eventually import eventually
from support.plans import abort_plan

from dispatcher import ExecutorTimeoutError

if TYPE_CHECKING:
    from pathlib import Path

    from support.processes import Process, Workers
    from support.stub_executor import StubExecutor

    from dispatcher import Dispatcher

A_SECOND = timedelta(seconds=1)
"""Times are sent in whole seconds, and rather too late than too early."""

SETTINGS = """
[executors.default]
idempotent_apply = false
read_timeout_sec = 0.4
"""


@pytest.fixture
def worker(start: Workers, stub: StubExecutor, tmp_path: Path) -> Process:
    config = tmp_path / "settings.toml"
    config.write_text(SETTINGS)
    return start(stub.url, DISPATCHER_CONFIG=str(config))


@pytest.mark.usefixtures("worker")
def test_an_apply_without_an_answer_is_not_repeated_and_its_target_is_reserved(
    dispatcher: Dispatcher, stub: StubExecutor
) -> None:
    plan = abort_plan(duration_seconds=3)
    stub.hanging.add(plan.api)
    first, second = dispatcher.submit(plan), dispatcher.submit(plan)
    with pytest.raises(ExecutorTimeoutError, match="must not be repeated") as caught:
        first.result(60)
    told = caught.value.message.rpartition("the fault may be alive until ")[2].partition(";")[0]
    over_at, duration = datetime.fromisoformat(told), timedelta(seconds=3)
    assert first.status().submitted_at + duration <= over_at <= datetime.now(UTC) + duration + A_SECOND
    eventually(lambda: "its target is in doubt" in str(second.status().cause))
    with pytest.raises(ExecutorTimeoutError):
        second.result(60)
    assert [method for method, _ in stub.calls] == ["POST", "POST"]
    assert stub.headers[0]["idempotency-key"] != stub.headers[1]["idempotency-key"]
    assert stub.called_at[1] - stub.called_at[0] >= 3
