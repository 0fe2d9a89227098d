"""The short forms of the campaigns."""

from __future__ import annotations

import re

import pytest
from support.command_line import run_printed

LONG_S = 180


@pytest.mark.lasts_long
@pytest.mark.timeout(LONG_S + 20)
def test_nothing_is_lost_doubled_stranded_or_wrong_while_everything_is_killed_at_random() -> None:
    size = ["--plans", "100", "--kills", "4", "--redis-kills", "1", "--workers", "2", "--for-seconds", "14"]
    done = run_printed("campaigns.chaos", *size, within_s=LONG_S)
    assert done.stdout.splitlines()[-1] == "campaign: plans=100 lost=0 doubled=0 stranded=0 wrong=0"
    assert done.returncode == 0


def test_a_calibration_carries_out_its_plan() -> None:
    done = run_printed("campaigns.calibration", "--smoke")
    assert done.stdout.splitlines()[-1].startswith("calibration: plans=1 outside=")


def test_misbehaviour_is_noticed() -> None:
    done = run_printed("campaigns.misbehaviour", "--plans", "40")
    assert done.stdout.splitlines()[-1] == "misbehaviour: plans=40 unnoticed=0"
    assert done.returncode == 0


@pytest.mark.lasts_long
def test_no_fault_outlives_a_kill_of_everything_that_could_end_it() -> None:
    done = run_printed("campaigns.dead_man", "--rounds", "1")
    line = done.stdout.splitlines()[-1]
    assert re.fullmatch(r"dead-man: rounds=1 max_outlived_s=[0-9.]+ failed_requests=0 unresolved=0", line)
    assert done.returncode == 0
