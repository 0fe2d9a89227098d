"""What the clients of a calibration counted, whether observations say the same, and the table of both."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.stage.program import NOTHING, spread, written
from campaigns.traffic import FIRST_ERROR_STATUS
from dispatcher import RawObservation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime

    from campaigns.calibration.lanes import Lane
    from campaigns.traffic import Request
    from dispatcher import ExecutorClientError

Window = tuple[float, float]
"""When something began and ended, in seconds since 1970."""

ERROR_RATE_WITHIN = 0.01
LATENCY_WITHIN_MS = 2.0
LATENCY_WITHIN_SHARE = 0.1
REQUESTS_WITHIN_SHARE = 0.01
WINDOW_WITHIN_S = 0.3
ROUNDING = 1e-9

MOST_OUTSIDE = 2
LEAST_HELD_SHARE = 34 / 40
"""The least share of plans whose interval of the error rate holds what was set."""

ARRIVES_WITHIN_S = 0.03
"""Less than the time between two requests of a lane."""

DIGITS = (0, 3, 1)
HEADER = ["lane", "%", "share", "counted", "errors", "mean ms", "came through"]
HEADER += ["observed", "errors", "mean ms", "95 % of errors", "verdict"]


@dataclass(frozen=True)
class Dose:
    """What the clients counted in a window."""

    requests: int
    errors: int
    latency_ms: float

    @property
    def error_rate(self) -> float:
        """Share of the requests without a good answer."""
        return self.errors / self.requests if self.requests else 0.0


def dose_of(requests: Iterable[Request], window: Window) -> Dose:
    """What became of the requests that were sent in the window. All of them have ended."""
    began, ended = window
    met = [request for request in requests if began <= request.sent <= ended]
    errors = sum(not request.status or request.status >= FIRST_ERROR_STATUS for request in met)
    latency_ms = sum(request.latency_ms for request in met) / len(met) if met else 0.0
    return Dose(len(met), errors, latency_ms)


@dataclass(frozen=True)
class Row:
    """One plan, what was counted of it, and what was observed."""

    lane: Lane
    percentage: int
    outcome: RawObservation | ExecutorClientError
    dose: Dose | None = None
    """What the clients counted in the window of the observation. None if it has no window."""

    reached: int = 0
    """How many requests reached the service in that window."""

    missed: tuple[str, ...] = ()
    """The figures that are outside."""

    @property
    def held(self) -> bool:
        """Whether the interval of the error rate holds the share that was set."""
        share = self.lane.error_share(self.percentage)
        return isinstance(self.outcome, RawObservation) and holds(self.outcome, share)

    @property
    def cells(self) -> list[str]:
        """As below `HEADER`."""
        share, dose, seen = self.lane.error_share(self.percentage), self.dose, self.outcome
        set_to = [self.lane.name, str(self.percentage), f"{share:.2f}"]
        if not isinstance(seen, RawObservation):
            return [*set_to, *["-"] * 8, f"outside: {type(seen).__name__}: {seen}"]
        counted = (dose.requests, dose.error_rate, dose.latency_ms) if dose else (None, None, None)
        observed = (seen.requests, seen.error_rate, seen.latency_ms)
        interval = f"{_shown(seen.error_rate_low, 3)} to {_shown(seen.error_rate_high, 3)}"
        verdict = f"outside: {', '.join(self.missed)}" if self.missed else "inside"
        words = [*seen.doubts, verdict, *([] if self.held else ["not held"])]
        return [
            *set_to,
            *map(_shown, counted, DIGITS),
            str(self.reached),
            *map(_shown, observed, DIGITS),
            interval,
            ", ".join(words),
        ]


def row_of(
    lane: Lane,
    percentage: int,
    outcome: RawObservation | ExecutorClientError,
    requests: Sequence[Request],
    windows: Mapping[str, Window],
    reached: Callable[[str, Window], int],
    *,
    probed: bool = False,
) -> Row:
    """Compare a plan's outcome with what was counted.

    `windows` says when each fault was really in force, `reached` how many requests reached the service. The
    window of a probe is that of its requests: a part of the real one, whose last request arrives after it.
    """
    if not isinstance(outcome, RawObservation) or not (outcome.started_at and outcome.ended_at):
        return Row(lane, percentage, outcome, missed=("window",))
    claimed = (outcome.started_at.timestamp(), outcome.ended_at.timestamp())
    dose = dose_of(requests, (claimed[0], claimed[1] + (ARRIVES_WITHIN_S if probed else 0.0)))
    real = windows.get(outcome.execution_id, (0.0, 0.0))
    if probed:
        real = max(real[0], claimed[0]), min(real[1], claimed[1])
    missed = misses(outcome, dose, real)
    return Row(lane, percentage, outcome, dose, reached(lane.api, claimed), tuple(missed))


def misses(observation: RawObservation, dose: Dose, window: Window) -> list[str]:
    """The figures of an observation that differ from what was counted. `window` is the real one."""
    latency_within_ms = max(LATENCY_WITHIN_MS, LATENCY_WITHIN_SHARE * dose.latency_ms)
    compared = {
        "requests": (observation.requests, dose.requests, REQUESTS_WITHIN_SHARE * dose.requests),
        "error_rate": (observation.error_rate, dose.error_rate, ERROR_RATE_WITHIN),
        "latency_ms": (observation.latency_ms, dose.latency_ms, latency_within_ms),
        "started_at": (_seconds(observation.started_at), window[0], WINDOW_WITHIN_S),
        "ended_at": (_seconds(observation.ended_at), window[1], WINDOW_WITHIN_S),
    }
    return [
        name
        for name, (seen, real, within) in compared.items()
        if seen is None or abs(seen - real) > within + ROUNDING
    ]


def holds(observation: RawObservation, error_share: float) -> bool:
    """Whether the share of errors that was set is in the interval of the error rate."""
    low, high = observation.error_rate_low, observation.error_rate_high
    return low is not None and high is not None and low - ROUNDING <= error_share <= high + ROUNDING


def summary(rows: Sequence[Row], requests: Sequence[Request]) -> tuple[list[str], int, bool]:
    """What to print below the table, how many plans are outside, and whether that is good enough."""
    outside = sum(bool(row.missed) for row in rows)
    held = sum(row.held for row in rows)
    late = spread([request.late_s for request in requests])
    lines = [
        f"clients sent later than planned by p50 / p95 / max: {late} s",
        f"the interval of the error rate holds the share that was set in {held} of {len(rows)} plans",
    ]
    return lines, outside, outside <= MOST_OUTSIDE and held >= LEAST_HELD_SHARE * len(rows)


def _shown(figure: float | None, digits: int) -> str:
    return NOTHING if figure is None else written(figure, digits)


def _seconds(moment: datetime | None) -> float | None:
    return None if moment is None else moment.timestamp()
