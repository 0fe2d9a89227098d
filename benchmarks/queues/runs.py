"""The figures of all runs: medians with their spread, and ratios."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.stage.program import Figures, written

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass
class Runs:
    """The figures of every run: by row, then by column, in the order of the rounds."""

    figures: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)

    def add(self, row: str, column: str, figures: Figures) -> None:
        """Add a run."""
        self.figures.setdefault(row, {}).setdefault(column, []).append(figures)

    def values(self, row: str, column: str, figure: str) -> list[float]:
        """Of all rounds that have this figure."""
        runs = self.figures.get(row, {}).get(column, [])
        return [run[figure] for run in runs if not math.isnan(run.get(figure, math.nan))]

    def median(self, row: str, column: str, figure: str) -> float:
        """The median of all rounds. Not a number if there was none."""
        found = self.values(row, column, figure)
        return statistics.median(found) if found else math.nan

    def ratio(self, row: str, figure: str, column: str, other: str) -> float:
        """One column's figure over another's: the median of the ratios of all rounds in which both ran."""
        pairs = zip(self.values(row, column, figure), self.values(row, other, figure), strict=False)
        ratios = [mine / theirs for mine, theirs in pairs if theirs]
        return statistics.median(ratios) if ratios else math.nan

    def most(self, figure: str) -> float:
        """The largest of all runs. 0 if no run has the figure."""
        every = (run for columns in self.figures.values() for runs in columns.values() for run in runs)
        return max((run.get(figure, 0.0) for run in every), default=0.0)


@dataclass(frozen=True)
class Line:
    """One line of a table: some figures of one row."""

    title: str
    row: str
    figures: Sequence[str]
    digits: int = 0

    def cells(self, runs: Runs, columns: Sequence[str]) -> list[str]:
        """The title, and the medians in each column."""
        return [self.title, *(self.cell(runs, column) for column in columns)]

    def cell(self, runs: Runs, column: str) -> str:
        """Medians; after the first one by how much rounds differ from it, at most, if there were several."""
        medians = [runs.median(self.row, column, figure) for figure in self.figures]
        text = " / ".join(written(median, self.digits) for median in medians)
        values = runs.values(self.row, column, self.figures[0])
        if len(values) < 2 or not medians[0]:
            return text
        return f"{text} ± {max(abs(value / medians[0] - 1) for value in values):.0%}"
