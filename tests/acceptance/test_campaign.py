"""The short form of the chaos campaign."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(200)
def test_nothing_is_lost_doubled_stranded_or_wrong_while_everything_is_killed_at_random() -> None:
    size = ["--plans", "150", "--kills", "6", "--redis-kills", "1", "--workers", "2", "--for-seconds", "20"]
    command = [sys.executable, "-m", "benchmarks.chaos_campaign", *size]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=180, check=False)
    print(done.stdout, done.stderr)  # the seed, should it fail
    assert done.stdout.splitlines()[-1] == "campaign: plans=150 lost=0 doubled=0 stranded=0 wrong=0"
    assert done.returncode == 0
