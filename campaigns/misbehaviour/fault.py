"""The course of a fault under a misdeed, as functions of the time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from campaigns.misbehaviour.acts import Act, Misdeed

REQUESTS_PER_S = 50
LATENCY_MS = 12.5
ERROR_STATUS = 503
MANY_LOG_LINES = 3_000
NEVER = float("inf")

UNFORTHCOMING = {Act.REMOVED, Act.NO_WINDOW}
"""Acts of an Executor that never says when a fault ended."""

FORGETFUL = {Act.LOST, Act.RESTARTED}
COUNTS = ("requests", "faulted", "success_count", "error_count", "unanswered")


@dataclass
class StubFault:
    """One fault. Times are in seconds since 1970."""

    apply_id: str
    misdeed: Misdeed
    percentage: int
    duration_s: float
    applied: float
    stopped: float | None = None
    """When the first stop arrived."""

    @property
    def turn(self) -> float:
        """When the misdeed begins, if it begins in the middle."""
        return self.applied + self.duration_s * self.misdeed.after_share

    @property
    def began(self) -> float:
        """When the fault was in force first."""
        return self.applied + (self.misdeed.seconds if self.misdeed.act is Act.LATE else 0.0)

    @property
    def ended(self) -> float:
        """When the fault was no longer in force."""
        own = self._ended_by_itself
        match self.misdeed.act:
            case Act.UNSTOPPABLE | Act.STOP_IGNORED | Act.LOST:
                return own
            case Act.STOP_SLOW if self.stopped is not None:
                return min(own, self.stopped + self.misdeed.seconds)
        return own if self.stopped is None else min(own, self.stopped)

    @property
    def _ended_by_itself(self) -> float:
        planned = self.began + self.duration_s
        match self.misdeed.act:
            case Act.EARLY_END | Act.REMOVED | Act.RESTARTED | Act.FAILED:
                return self.turn
            case Act.FROZEN | Act.TOO_LONG:
                return planned + self.misdeed.seconds
            case Act.ENDLESS | Act.UNSTOPPABLE:
                return NEVER
        return planned

    @property
    def _paused_s(self) -> float:
        """How long a pause lasts, after which the fault is on again."""
        return min(self.misdeed.seconds, self.duration_s * (1 - self.misdeed.after_share) * 0.8)

    def silent_until(self, now: float) -> float:
        """Until when the Executor answers nothing about the fault."""
        return self.ended if self.misdeed.act is Act.FROZEN and self.turn <= now else now

    def forgotten(self, now: float) -> bool:
        """Whether the Executor does not know the fault any more."""
        return self.misdeed.act in FORGETFUL and now >= self.turn

    def status(self, now: float) -> dict[str, Any]:
        """The answer about its status."""
        failed = self.misdeed.act is Act.FAILED and now >= self.turn
        state = "failed" if failed else "completed" if now >= self.ended else "running"
        return {"apply_id": self.apply_id, "status": state, **self._window(now)}

    def _window(self, now: float) -> dict[str, str]:
        """What the Executor says of its times."""
        times: dict[str, float] = {}
        if self.misdeed.act is not Act.NO_WINDOW and now >= self.began:
            late = self.misdeed.act is Act.RESUMED and now >= self.turn + self._paused_s
            times["start_time"] = self.turn + self._paused_s if late else self.began
        if self.misdeed.act not in UNFORTHCOMING and now >= self.ended:
            times["end_time"] = self.ended
        return {name: datetime.fromtimestamp(at, UTC).isoformat() for name, at in times.items()}

    def not_ready(self, now: float) -> bool:
        """Whether its metrics are yet to come."""
        late = self.misdeed.act is Act.METRICS_LATE and now < self.ended + self.misdeed.seconds
        return now < self.ended or late or self.misdeed.act is Act.METRICS_NEVER

    def metrics(self) -> dict[str, Any]:
        """The answer about its metrics, once it is over."""
        figures = self._figures(self._requests, self._faulted)
        match self.misdeed.act:
            case Act.NO_COUNTS:
                figures = {name: value for name, value in figures.items() if name not in COUNTS}
            case Act.ALL_ZERO:
                figures = {"status_code": 0, "latency_ms": 0.0, "error_rate": 0.0}
            case Act.CONTRADICTION:
                figures["error_rate"] = 0.0
        lines = MANY_LOG_LINES if self.misdeed.act is Act.TRUNCATED else 1
        window = self._window(self.ended)
        return {
            "apply_id": self.apply_id,
            "trace_data": None,
            "logs": ["a line"] * lines,
            **figures,
            **window,
        }

    def truth(self) -> dict[str, Any]:
        """What a true observation says, and when the fault was really over, if it ever is."""
        figures = self._figures(self._requests, self._faulted)
        over = None if self.ended == NEVER else self.ended
        return {"requests": figures["requests"], "error_rate": figures["error_rate"], "ended": over}

    @property
    def _requests(self) -> int:
        match self.misdeed.act:
            case Act.NO_REQUESTS:
                return 0
            case Act.FEW_REQUESTS:
                return 4
        lasted_s = self.duration_s if self.ended == NEVER else self.ended - self.began
        return round(REQUESTS_PER_S * max(0.0, lasted_s))

    @property
    def _faulted(self) -> int:
        share = self.percentage / 100
        match self.misdeed.act:
            case Act.NOT_FAULTED:
                return 0
            case Act.PAUSED | Act.RESUMED:
                share *= 1 - self._paused_s / self.duration_s
        return round(self._requests * share)

    def _figures(self, requests: int, faulted: int) -> dict[str, Any]:
        if not requests:
            return {"status_code": None, "latency_ms": None, "error_rate": None} | dict.fromkeys(COUNTS, 0)
        return {
            "status_code": ERROR_STATUS if faulted * 2 > requests else 200,
            "latency_ms": LATENCY_MS,
            "error_rate": faulted / requests,
            "requests": requests,
            "faulted": faulted,
            "success_count": requests - faulted,
            "error_count": faulted,
            "unanswered": 0,
        }
