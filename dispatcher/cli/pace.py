"""How fast plans end, by what was counted in the last minute."""

from __future__ import annotations

import math
from collections import deque

__all__ = ["Pace", "duration"]

WINDOW_S = 60.0


class Pace:
    """Counts of ended plans over time."""

    def __init__(self) -> None:
        self._counts: deque[tuple[float, int]] = deque()

    def note(self, at_s: float, ended: int) -> None:
        """So many plans had ended at this moment of a monotonic clock, in seconds."""
        if self._counts and ended < self._counts[-1][1]:
            self._counts.clear()  # the counts are lost: Redis was emptied
        self._counts.append((at_s, ended))
        while len(self._counts) > 2 and at_s - self._counts[1][0] >= WINDOW_S:  # noqa: PLR2004 (one to compare)
            self._counts.popleft()

    @property
    def per_s(self) -> float | None:
        """Plans that end in a second. None before the second look."""
        if not self._counts or self._counts[-1][0] <= self._counts[0][0]:
            return None
        (first_s, first), (last_s, last) = self._counts[0], self._counts[-1]
        return (last - first) / (last_s - first_s)

    def words(self, in_flight: int) -> str:
        """The pace, and how long the plans in flight take at it."""
        per_s = self.per_s
        if per_s is None:
            return "pace not known yet"
        if per_s == 0:
            since_s = self._counts[-1][0] - self._counts[0][0]
            return f"none ended in the last {duration(since_s)}"
        pace = f"{per_s:.1f} a second" if per_s >= 1 else f"{per_s * 60:.1f} a minute"
        return f"{pace} end" + (f", about {duration(in_flight / per_s)} left" if in_flight else "")


def duration(seconds: float) -> str:
    """Such as `40 s`, `3 min` or `2.5 h`."""
    if seconds < 100:  # noqa: PLR2004 (two digits)
        return f"{math.ceil(seconds)} s"
    if seconds < 100 * 60:
        return f"{math.ceil(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
