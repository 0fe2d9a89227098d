"""Medians, ratios and tables of the runs of all contenders."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.figures import Figures, written

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CPU_ROWS", "ROWS", "Row", "Runs"]


@dataclass
class Runs:
    """The figures of every run: by measurement, then by contender, in the order of the rounds."""

    names: Sequence[str]
    """Of the contenders: ours, the one that ratios are against, and the others."""

    figures: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)

    def add(self, measurement: str, name: str, figures: Figures) -> None:
        """Add a run."""
        self.figures.setdefault(measurement, {}).setdefault(name, []).append(figures)

    def median(self, measurement: str, name: str, figure: str) -> float:
        """The median of all runs. Not a number if there was none."""
        runs = self.figures.get(measurement, {}).get(name, [])
        found = [run[figure] for run in runs if figure in run]
        return statistics.median(found) if found else math.nan

    def ratio(self, measurement: str, figure: str, name: str | None = None) -> float:
        """The figure over the rival's, the median of all rounds in which both ran. Ours without a `name`."""
        runs = self.figures.get(measurement, {})
        pairs = zip(runs.get(name or self.names[0], []), runs.get(self.names[1], []), strict=False)
        ratios = [
            mine[figure] / theirs[figure] for mine, theirs in pairs if figure in mine and figure in theirs
        ]
        return statistics.median(ratios) if ratios else math.nan

    def most(self, figure: str, name: str | None = None) -> float:
        """The largest of all runs, or of all of one contender."""
        by_name = (each for measured in self.figures.values() for each in measured.items())
        every = (run for who, runs in by_name if name in {None, who} for run in runs)
        return max((run[figure] for run in every if figure in run), default=0.0)


@dataclass(frozen=True)
class Row:
    """One row of a table: some figures of one measurement."""

    title: str
    measurement: str
    figures: Sequence[str]
    digits: int = 0
    scale: float = 1.0
    ratio: bool = False
    """Show the figure over the rival's."""

    otherwise: str = ""
    """The measurement for contenders that took no part in the first one."""

    def measured(self, runs: Runs) -> bool:
        """Whether there is anything to show."""
        return self.measurement in runs.figures

    def cells(self, runs: Runs) -> list[str]:
        """One for each contender."""
        return [self.title, *(self._cell(runs, name) for name in runs.names)]

    def _cell(self, runs: Runs, name: str) -> str:
        if self.ratio:
            return written(runs.ratio(self.measurement, self.figures[0], name), 2)
        took_part = name in runs.figures.get(self.measurement, {})
        measurement = self.measurement if took_part else self.otherwise
        values = [runs.median(measurement, name, figure) * self.scale for figure in self.figures]
        return " / ".join(written(value, self.digits) for value in values)


ROWS = [
    Row("4,000 plans of 1 s at once: plans/s", "throughput", ["per_s"]),
    Row("... over Taskiq's", "throughput", ["per_s"], ratio=True),
    Row("... plans not back after two minutes", "throughput", ["missing"]),
    Row("4,000 plans of 10 s at once: time, s", "burst", ["took_s"], 1),
    Row("... over the limit of 10 s, s", "burst", ["over_limit_s"], 1),
    Row("... over Taskiq's", "burst", ["took_s"], ratio=True),
    Row("lag after the fault's end, p50 / p95 / p99, ms", "lag", ["p50_ms", "p95_ms", "p99_ms"]),
    Row("plans submitted in a second", "submit_rate", ["per_s"]),
    Row("CPU of a plan of 1 s, ms", "throughput", ["cpu_ms"], 2),
    Row("CPU of a plan of 10 s, ms", "burst", ["cpu_ms"], 2),
    Row("worker memory of a plan in flight, KB", "memory", ["worker_kb_a_plan"], 2, otherwise="burst"),
    Row("kill -9 of a worker, 1,000 in flight: ended / lost so far", "kill", ["ended", "lost"]),
    Row("... how late, p50 / p95 / max, s", "kill", ["late_p50_s", "late_p95_s", "late_max_s"], 2),
    Row("... faults applied twice", "kill", ["doubled"]),
]

CPU_ROWS = [
    Row("workers", "throughput", ["share_workers"], scale=100),
    Row("Redis", "throughput", ["share_redis"], scale=100),
    Row("submitter", "throughput", ["share_submitter"], scale=100),
    Row("stub Executor", "throughput", ["share_executor"], scale=100),
    Row("everything else on the machine", "throughput", ["share_others"], scale=100),
]
