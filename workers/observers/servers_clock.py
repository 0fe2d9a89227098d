"""The clock of a server that is asked about a window of time on another clock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatcher.errors import FaultUnobservedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.drivers.answers import Answer

__all__ = ["TOLERATED_SHARE", "ServersClock"]

TOLERATED_S = 0.5
TOLERATED_SHARE = 0.05
"""Of the window. The clock may be wrong by no more than the larger of the two."""


class ServersClock:
    """By how much the clock of Prometheus differs from that of Redis, which gives the time of the queries."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """`now_s` is the present on the Redis server's clock, in seconds since 1970."""
        self._now_s = now_s
        self._ahead_s = 0.0

    def call(self, call: Callable[[], Answer]) -> Answer:
        """Make a call, and compare the clocks by its answer, which gives whole seconds."""
        began_s = self._now_s()
        answer = call()
        sent_at = answer.sent_at
        if sent_at is not None:
            sent_s = sent_at.timestamp()
            self._ahead_s = max(0.0, sent_s - self._now_s()) + min(0.0, sent_s + 1 - began_s)
        return answer

    def problem(self, seconds: int) -> list[str]:
        """Why the figures of a window of this length are in doubt, in a line. Empty if they are not.

        Raises `FaultUnobservedError` if they are mostly of another time.
        """
        off_s = abs(self._ahead_s)
        if off_s <= max(TOLERATED_S, TOLERATED_SHARE * seconds):
            return []
        where = "ahead of" if self._ahead_s > 0 else "behind"
        problem = f"the clock of Prometheus is {off_s:.1f} s or more {where} that of Redis"
        if off_s > seconds / 2:
            raise FaultUnobservedError(
                f"the target was not observed: {problem}, and the window has {seconds} s; set both "
                "clocks, by NTP for example"
            )
        return [f"{problem}: the window of the figures is off by as much"]
