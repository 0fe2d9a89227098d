"""The table of a calibration, and what it comes to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.stage.program import spread, written
from campaigns.calibration.dose import Dose, Window, common, dose_of, holds, misses
from dispatcher import RawObservation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from campaigns.calibration.lanes import Lane
    from campaigns.traffic import Request
    from dispatcher import ExecutorClientError

MOST_OUTSIDE = 2
LEAST_HELD_SHARE = 34 / 40
"""The least share of plans whose interval of the error rate holds what was set."""

ARRIVES_WITHIN_S = 0.03
"""Less than the time between two requests of a lane."""

HEAD = (
    f"{'':<32} {'set':>10} | {'counted':^22} {'came':>7} | {'observed':^22} {'95 % of errors':<14} | doubts\n"
    f"{'lane':<32} {'%':>3} {'share':>6} | {'n':>4} {'errors':>6} {'mean ms':>10} {'through':>7} "
    f"| {'n':>4} {'errors':>6} {'mean ms':>10} {'':<14} | verdict"
)


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

    def __str__(self) -> str:
        share = self.lane.error_share(self.percentage)
        head = f"{self.lane.name:<32} {self.percentage:>3} {share:>6.2f} |"
        if not isinstance(self.outcome, RawObservation):
            return f"{head} outside: {type(self.outcome).__name__}: {self.outcome}"
        seen = self.outcome
        observed = (
            f"{_shown(seen.requests, 0):>4} {_shown(seen.error_rate, 3):>6} {_shown(seen.latency_ms, 1):>10}"
        )
        interval = f"{_shown(seen.error_rate_low, 3)} to {_shown(seen.error_rate_high, 3)}"
        verdict = f"outside: {', '.join(self.missed)}" if self.missed else "inside"
        words = [*seen.doubts, verdict, *([] if self.held else ["not held"])]
        counted = f"{'-' if self.dose is None else str(self.dose):<22} {self.reached:>7}"
        return f"{head} {counted} | {observed} {interval:<14} | {', '.join(words)}"


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
    missed = misses(outcome, dose, common(real, claimed) if probed else real)
    return Row(lane, percentage, outcome, dose, reached(lane.api, claimed), tuple(missed))


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
    return "None" if figure is None else written(figure, digits)
