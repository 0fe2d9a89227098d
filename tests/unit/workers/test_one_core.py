from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.eventually import eventually
from workers.one_core import MARGIN, Look, choose

if TYPE_CHECKING:
    from collections.abc import Iterator

CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set()

BUSY_PROCESS = """
import sys, threading
from workers.one_core import OneCore
core = OneCore()
core.start()
threading.Thread(target=lambda: [None for _ in iter(int, 1)], daemon=True).start()
sys.stdin.readline()
core.stop()
print("stopped", flush=True)
sys.stdin.readline()
"""

shares = st.floats(0, 1)


@given(st.dictionaries(st.integers(0, 63), shares, min_size=1))
def test_a_process_that_is_everywhere_goes_where_others_do_least(others: dict[int, float]) -> None:
    assert others[choose(None, others)] == min(others.values())


@given(st.dictionaries(st.integers(0, 63), shares, min_size=1), st.data())
def test_it_moves_only_where_that_is_worth_it(others: dict[int, float], data: st.DataObject) -> None:
    core = data.draw(st.sampled_from(sorted(others)))
    chosen = choose(core, others)
    worth_it = others[core] - min(others.values()) > MARGIN
    assert others[chosen] == min(others.values()) if worth_it else chosen == core


def test_processes_that_start_together_do_not_all_go_to_the_first_core() -> None:
    assert {choose(None, {0: 0.0, 1: 0.0}) for _ in range(100)} == {0, 1}


def test_its_own_time_is_not_held_against_its_core() -> None:
    before, now = Look(10.0, 5.0, {0: 3.0, 1: 4.0}), Look(12.0, 6.5, {0: 5.0, 1: 4.5})
    assert now.others_since(before, 0) == {0: 0.25, 1: 0.25}
    assert now.others_since(before, None) == {0: 1.0, 1: 0.25}


@pytest.mark.skipif(not CORES, reason="there is no /proc/stat")
def test_a_core_that_the_system_does_not_tell_of_cannot_be_looked_at() -> None:
    with pytest.raises(KeyError, match="cpu9999"):
        Look.now({9999})


@pytest.fixture
def busy() -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", BUSY_PROCESS]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


@pytest.mark.skipif(len(CORES) < 2, reason="there is but one core")
def test_all_threads_of_a_busy_process_are_on_one_core_until_it_stops(busy: subprocess.Popen[str]) -> None:
    assert busy.stdin is not None
    assert busy.stdout is not None
    eventually(lambda: len(allowed(busy.pid)) == 1 and len(*allowed(busy.pid)) == 1, within_s=20)
    busy.stdin.write("stop\n")
    busy.stdin.flush()
    assert busy.stdout.readline() == "stopped\n"
    assert allowed(busy.pid) == {frozenset(CORES)}


def allowed(pid: int) -> set[frozenset[int]]:
    """The cores that the threads of a process may use."""
    threads = Path(f"/proc/{pid}/task").iterdir()
    return {frozenset(os.sched_getaffinity(int(thread.name))) for thread in threads}
