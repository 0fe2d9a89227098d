"""The time that a driver's method has for all its calls together."""

from __future__ import annotations

import time

__all__ = ["Deadline"]


class Deadline:
    """Begins when it is made."""

    def __init__(self, within_s: float) -> None:
        """`within_s` may be infinite."""
        self._ends_s = time.monotonic() + within_s

    @property
    def left_s(self) -> float:
        """What is left, in seconds: 0 if the time is used up."""
        return max(self._ends_s - time.monotonic(), 0.0)
