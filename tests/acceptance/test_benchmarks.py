"""The benchmarks still run. What they measure is not looked at here."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_comparison_of_queues_carries_out_every_plan() -> None:
    command = [sys.executable, "-m", "benchmarks.queues", "--smoke"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    print(done.stdout, done.stderr)
    assert done.stdout.count("observed=20 missing=0") == 2
    last = r"queues: throughput_ratio=[0-9.]+ makespan_ratio=nan lag_p95_ms=nan submit_per_s=nan"
    assert re.fullmatch(last, done.stdout.splitlines()[-1])


def test_growth_is_measured() -> None:
    command = [sys.executable, "-m", "benchmarks.growth", "--smoke"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)
    print(done.stdout, done.stderr)
    assert done.stdout.count("missing=0") == 1
    assert done.returncode == 0
