"""The examples run as they stand."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.processes import ExecutorProcess, Workers

RECOMMENDER = Path(__file__).parents[2] / "examples" / "recommender.py"


def test_the_recommender_finds_a_fault_that_hurts(
    start: Workers, executor: ExecutorProcess, redis_url: str
) -> None:
    start(executor.url)
    done = subprocess.run(
        [sys.executable, str(RECOMMENDER), "--rounds", "3", "--seed", "7"],
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
        env={**os.environ, "DISPATCHER_REDIS_URL": redis_url},
    )
    assert (done.returncode, done.stderr) == (0, "")
    *rounds, last = done.stdout.splitlines()
    harms = [float(line.rpartition(" ")[2]) for line in rounds]
    assert len(harms) == 9
    found = re.fullmatch(r"worst of 9: .+ -> harm ([0-9.]+)", last)
    assert found is not None
    assert float(found[1]) == max(harms) > 0.3
