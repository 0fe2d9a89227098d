"""The benchmarks still run. Times are not looked at here, because other programs use this machine too."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import pytest
from support.command_line import run_within
from support.eventually import GENEROUS_S

if TYPE_CHECKING:
    import subprocess

ROOT = Path(__file__).parents[2]


class Run(Protocol):
    """Runs a benchmark, which is a module, to its end."""

    def __call__(self, module: str, *options: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(ROOT)

    def run(module: str, *options: str) -> subprocess.CompletedProcess[str]:
        done = run_within(2 * GENEROUS_S, module, *options)
        print(done.stdout, done.stderr)
        return done

    return run


@pytest.mark.lasts_long
def test_the_comparison_of_queues_carries_out_every_plan(run: Run) -> None:
    size = ["--plans", "20", "--rounds", "1", "--contenders", "ours", "taskiq"]
    done = run("benchmarks.queues", "--only", "throughput", *size)
    carried_out = re.findall(r"^throughput (ours|taskiq): .* missing=0$", done.stdout, re.MULTILINE)
    assert carried_out == ["ours", "taskiq"]
    assert re.fullmatch(
        r"queues: throughput_ratio=[0-9.]+ makespan_ratio=nan .*", done.stdout.splitlines()[-1]
    )


def test_growth_is_measured(run: Run) -> None:
    done = run("benchmarks.queues", "--only", "in_flight", "--plans", "20")
    assert "missing@20=0" in done.stdout
    assert "missing@40=0" in done.stdout


def test_a_plan_costs_no_more_round_trips_calls_and_messages_than_before(run: Run) -> None:
    done = run("benchmarks.guard", "--plans", "200")
    assert " http_calls=3 messages=1 " in done.stdout.splitlines()[-1]
    assert done.returncode == 0


def test_two_hundred_awaited_plans_need_few_connections(run: Run) -> None:
    done = run("benchmarks.awaiting", "--plans", "200")
    line = re.fullmatch(r"awaiting: plans=200 connections=(\d+) .*", done.stdout.splitlines()[-1])
    assert line is not None
    assert int(line[1]) <= 10


@pytest.mark.lasts_long
def test_retries_leave_nothing_behind_in_a_worker(run: Run) -> None:
    done = run("benchmarks.retries", "--seconds", "1", "--burst", "20", "--retries", "80")
    line = done.stdout.splitlines()[-1]
    assert " retries=80 " in line
    assert line.endswith(" scheduled=0 prefetch_grown=0")


def test_a_calibration_carries_out_its_plan(run: Run) -> None:
    done = run("campaigns.calibration", "--smoke")
    assert done.stdout.splitlines()[-1].startswith("calibration: plans=1 outside=")


def test_misbehaviour_is_noticed(run: Run) -> None:
    done = run("campaigns.misbehaviour", "--plans", "40")
    assert done.stdout.splitlines()[-1] == "misbehaviour: plans=40 unnoticed=0"
    assert done.returncode == 0


@pytest.mark.lasts_long
def test_no_fault_outlives_a_kill_of_everything_that_could_end_it(run: Run) -> None:
    done = run("campaigns.dead_man", "--rounds", "1")
    line = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"dead-man: rounds=1 max_outlived_s=[0-9.]+ failed_requests=0 unresolved=0", line)
    assert done.returncode == 0


def test_many_faults_at_once_begin_and_end(run: Run) -> None:
    done = run("benchmarks.executor_load", "--faults", "40")
    assert re.fullmatch(r"executor-load: faults=40 applies_per_s=.* wrong=0", done.stdout.splitlines()[-1])
    assert done.returncode == 0


def test_the_history_of_many_plans_is_read_and_its_index_measured(run: Run) -> None:
    done = run("benchmarks.history", "--plans", "1000", "--turns", "4", "--burst", "100")
    last = r"history: plans=1000 first_page_ms=\d+ submit_ratio=\d\.\d\d"
    assert re.fullmatch(last, done.stdout.splitlines()[-1])
