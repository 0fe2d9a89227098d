"""The short form of the chaos campaign."""

from __future__ import annotations

import pytest
from support.command_line import run_within

LONG_S = 180


@pytest.mark.lasts_long
@pytest.mark.timeout(LONG_S + 20)
def test_nothing_is_lost_doubled_stranded_or_wrong_while_everything_is_killed_at_random() -> None:
    size = ["--plans", "100", "--kills", "4", "--redis-kills", "1", "--workers", "2", "--for-seconds", "14"]
    done = run_within(LONG_S, "campaigns.chaos", *size)
    print(done.stdout, done.stderr)  # the seed, should it fail
    assert done.stdout.splitlines()[-1] == "campaign: plans=100 lost=0 doubled=0 stranded=0 wrong=0"
    assert done.returncode == 0
