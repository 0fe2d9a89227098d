"""Numbers of seconds that real time changes while a test looks at them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable

CLOCKS_DIFFER_S = 0.01
"""Clocks of servers count in milliseconds."""


class Stopwatch:
    """Started when it is made, which is before what is measured begins.

    What it expects is exact except for the time that has passed until then: compare with it at once.
    """

    def __init__(self) -> None:
        self._started = time.monotonic()

    def left_of(self, seconds: float) -> float:
        """What is left of a time that has begun meanwhile, in seconds. To compare with `==`."""
        return self._between(seconds - self._passed_s(), seconds)

    def grown_from(self, *seconds: float) -> float:
        """How long ago something is that was so many seconds ago meanwhile. To compare with `==`.

        Several things are added up, and each has grown by itself.
        """
        return self._between(sum(seconds), sum(seconds) + len(seconds) * self._passed_s())

    def _passed_s(self) -> float:
        return time.monotonic() - self._started

    def _between(self, low: float, high: float) -> float:
        approx: Callable[..., object] = pytest.approx
        return cast("float", approx((low + high) / 2, rel=0, abs=(high - low) / 2 + CLOCKS_DIFFER_S))
