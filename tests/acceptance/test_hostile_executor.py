"""A real worker against an Executor that answers wrongly in every way."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import pytest
from pydantic import SecretStr
from support.hostile import (
    FAILED,
    FINE,
    KINDS,
    NOT_READY,
    REJECTED,
    SERVER,
    TIMEOUT,
    HostileExecutor,
    Wrong,
)
from support.plans import abort_plan

from dispatcher import Dispatcher, ExecutorClientConfig, ExecutorClientError, RawObservation, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.processes import Process, Workers

    from dispatcher import PlanBatch

QUICK = """
max_retries = 1
initial_retry_delay_sec = 0.01
max_retry_delay_sec = 0.02
retry_budget_enabled = false
circuit_breaker_enabled = false
"""
SETTINGS = f"""
[executors.default]
read_timeout_sec = 1.5
{QUICK}
[executors.patient]
read_timeout_sec = 30
{QUICK}
"""
"""The same Executor twice. A busy machine may be late with each answer that does not end by a timeout."""

MAX_GROWTH_MB = 40
"""Less than a round's answers, of which nothing must be kept; what malloc keeps for itself levels off."""

TARGETS = [(call, kind) for kind in KINDS.values() for call in kind.calls]
LARGE = {
    "endless-body",
    "endless-headers",
    "endless-trailer",
    "endless-trailers",
    "gzip-bomb",
    "huge-error",
    "long-header",
    "long-logs",
    "long-traces",
    "many-headers",
    "too-long",
}
"""Kinds of answers of hundreds of kilobytes and more."""

USES_UP_ITS_TIME = "busy-for-ages"

Target: TypeAlias = tuple[str, Wrong]


@pytest.fixture
def hostile() -> Iterator[HostileExecutor]:
    with HostileExecutor() as hostile:
        yield hostile


@pytest.fixture
def dispatcher(redis_url: str) -> Iterator[Dispatcher]:
    executors = dict.fromkeys(("default", "patient"), ExecutorClientConfig())
    with Dispatcher(Settings(redis_url=SecretStr(redis_url), executors=executors)) as dispatcher:
        yield dispatcher


@pytest.fixture
def worker(start: Workers, hostile: HostileExecutor, tmp_path: Path) -> Process:
    config = tmp_path / "settings.toml"
    config.write_text(SETTINGS)
    # glibc would keep what each of its many arenas has held once, which is not our growth
    environment = {"DISPATCHER_CONFIG": str(config), "DISPATCHER_EXECUTORS__PATIENT__BASE_URL": hostile.url}
    return start(hostile.url, "--concurrency", "8", MALLOC_ARENA_MAX="2", **environment)


@pytest.mark.lasts_long
def test_every_plan_ends_as_it_must_no_worker_is_lost_and_no_fault_is_left(
    dispatcher: Dispatcher, hostile: HostileExecutor, worker: Process
) -> None:
    carry_all_out(dispatcher, hostile, "first", TARGETS)
    large = [target for target in TARGETS if target[1].name in LARGE]
    carry_all_out(dispatcher, hostile, "second", large)  # malloc has what it takes for bodies of this size
    before_mb = memory_mb(worker)
    carry_all_out(dispatcher, hostile, "third", large)
    assert memory_mb(worker) - before_mb < MAX_GROWTH_MB
    assert worker.alive()
    assert "Traceback (most" not in worker.output
    assert "defect" not in worker.output
    assert hostile.evil == []


def carry_all_out(dispatcher: Dispatcher, hostile: HostileExecutor, time: str, targets: list[Target]) -> None:
    hurried = [target for target in targets if takes_all_its_time(*target)]
    silent = [target for target in targets if never_ends(*target) and target not in hurried]
    others = [target for target in targets if target not in hurried + silent]
    submitted = [
        (part, submit(dispatcher, part, time, timeout_sec, executor))
        for part, timeout_sec, executor in (
            (hurried, 8.0, "default"),
            (silent, 60.0, "default"),
            (others, 60.0, "patient"),
        )
        if part
    ]
    for part, batch in submitted:
        for (call, kind), handle, result in zip(part, batch, batch.results(120), strict=True):
            check(hostile, call, kind, handle.id, result)


def takes_all_its_time(call: str, kind: Wrong) -> bool:
    """Whether the plan lasts as long as it may, on any machine."""
    return kind.name == USES_UP_ITS_TIME or kind.expected(call) == NOT_READY


def never_ends(call: str, kind: Wrong) -> bool:
    """Whether the answer is given up after the time of a read."""
    return kind.expected(call) == TIMEOUT


def submit(
    dispatcher: Dispatcher, targets: list[Target], time: str, timeout_sec: float, executor: str
) -> PlanBatch:
    plans = [
        abort_plan(
            api=f"/hostile/{call}/{kind.name}/{time}",
            duration_seconds=60 if call == "apply" and kind.expected(call) not in {FINE, SERVER} else 1,
        )
        for call, kind in targets
    ]
    return dispatcher.submit_many(plans, executor=executor, timeout_sec=timeout_sec)


def check(hostile: HostileExecutor, call: str, kind: Wrong, plan_id: str, result: object) -> None:
    """The plan ended as its kind says."""
    context = f"{call} {kind.name}: {result!r}"
    if kind.expected(call) == FINE:
        assert isinstance(result, RawObservation), context
        assert (result.status_code, result.error_rate) == (503, 1.0)
        return
    patience = {"ExecutorTimeoutError"} if takes_all_its_time(call, kind) else set()
    unsure = {"FaultInDoubtError"} if call == "apply" and f"f-{plan_id}" in hostile.faults else set()
    assert type(result).__name__ in {kind.expected(call), *patience, *unsure}, context
    assert plan_id in str(result), context
    if f"f-{plan_id}" in hostile.faults:  # no worker could stop it, because its id is unknown
        assert call == "apply", context
        assert isinstance(result, ExecutorClientError)
        says_so = "may be alive until" in str(result)
        assert says_so or kind.expected(call) in {REJECTED, FAILED, SERVER}, context


def memory_mb(worker: Process) -> float:
    lines = Path(f"/proc/{worker.child.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024
