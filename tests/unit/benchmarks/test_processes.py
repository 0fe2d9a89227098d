"""The processes of benchmarks."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from support.eventually import eventually

from benchmarks.stage.commands import Command
from benchmarks.stage.processes import Process

if TYPE_CHECKING:
    from pathlib import Path

BEGINS_ANOTHER = (
    "import subprocess, time; "
    "print(subprocess.Popen(['sleep', '60'], start_new_session=True).pid, flush=True); time.sleep(60)"
)


def test_a_process_may_be_bound_to_a_core(tmp_path: Path) -> None:
    last = max(os.sched_getaffinity(0))
    process = Process(Command(["sleep", "60"], core=last), tmp_path / "log")
    process.start()
    try:
        assert [os.sched_getaffinity(each.pid) for each in process.family()] == [{last}]
    finally:
        process.kill()


def test_a_kill_ends_a_session_and_leaves_what_began_one_of_its_own(tmp_path: Path) -> None:
    process = Process(Command([sys.executable, "-c", BEGINS_ANOTHER]), tmp_path / "log")
    process.start()
    other = int(eventually(lambda: (tmp_path / "log").read_text("utf-8")))
    try:
        assert other in [each.pid for each in process.family()]
        process.kill()
        os.kill(other, 0)  # raises unless it goes on
    finally:
        os.kill(other, 9)
