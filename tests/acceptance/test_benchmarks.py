"""The benchmarks still run. Times are not looked at here, because other programs use this machine too."""

from __future__ import annotations

import re

import pytest
from support.command_line import run_printed


@pytest.mark.lasts_long
def test_the_comparison_of_queues_carries_out_every_plan() -> None:
    size = ["--plans", "20", "--rounds", "1", "--contenders", "ours,taskiq"]
    done = run_printed("benchmarks.queues", "--only", "throughput", *size)
    carried_out = re.findall(r"^throughput (ours|taskiq): .* missing=0$", done.stdout, re.MULTILINE)
    assert carried_out == ["ours", "taskiq"]
    assert re.fullmatch(
        r"queues: throughput_ratio=[0-9.]+ makespan_ratio=nan .*", done.stdout.splitlines()[-1]
    )


def test_growth_is_measured() -> None:
    done = run_printed("benchmarks.queues", "--only", "in_flight", "--plans", "20")
    assert "missing@20=0" in done.stdout
    assert "missing@40=0" in done.stdout


def test_a_plan_costs_no_more_round_trips_calls_and_messages_than_before() -> None:
    done = run_printed("benchmarks.guard", "--plans", "200")
    assert " http_calls=3 messages=1 " in done.stdout.splitlines()[-1]
    assert done.returncode == 0


def test_two_hundred_awaited_plans_need_few_connections() -> None:
    done = run_printed("benchmarks.loads.awaiting", "--plans", "200")
    line = re.fullmatch(r"awaiting: plans=200 connections=(\d+) .*", done.stdout.splitlines()[-1])
    assert line is not None
    assert int(line[1]) <= 10


@pytest.mark.lasts_long
def test_retries_leave_nothing_behind_in_a_worker() -> None:
    done = run_printed("benchmarks.loads.retries", "--seconds", "1", "--burst", "20", "--retries", "80")
    line = done.stdout.splitlines()[-1]
    assert " retries=80 " in line
    assert line.endswith(" scheduled=0 prefetch_grown=0")


def test_many_faults_at_once_begin_and_end() -> None:
    done = run_printed("benchmarks.loads.executor_load", "--faults", "40")
    assert re.fullmatch(r"executor-load: faults=40 applies_per_s=.* wrong=0", done.stdout.splitlines()[-1])
    assert done.returncode == 0


def test_the_history_of_many_plans_is_read_and_its_index_measured() -> None:
    done = run_printed("benchmarks.loads.history", "--plans", "1000", "--turns", "4", "--burst", "100")
    last = r"history: plans=1000 first_page_ms=\d+ submit_ratio=\d\.\d\d"
    assert re.fullmatch(last, done.stdout.splitlines()[-1])
