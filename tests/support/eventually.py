"""The one place where a test waits for a real process."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

GENEROUS_S = 60.0
"""Longer than anything takes that is waited for here, on a machine whose cores are all busy."""

LOOK_EVERY_S = 0.02

SET_BACK_MS = 50
"""A machine's clock, which is its Redis server's, may be set back by less than this at any time."""

AT_ONCE_S = 1.0
"""What is due at once is so within this time, even if the clock is set back in between."""


def eventually(condition: Callable[[], T], within_s: float = GENEROUS_S) -> T:
    """What `condition` returns, as soon as that is true. Fails after `within_s` seconds.

    Give `within_s` only if it is what the test is about.
    """
    give_up_at = time.monotonic() + within_s
    while not (value := condition()):
        assert time.monotonic() < give_up_at, f"not within {within_s} s"
        time.sleep(LOOK_EVERY_S)
    return value
