"""The figures of all runs, and what is made of them: medians with their spread, ratios, tables, a page."""

from __future__ import annotations

import math
import os
import platform
import re
import statistics
import subprocess
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.stage.figures import Figures, written
from benchmarks.stage.processes import REPOSITORY
from dispatcher.devstack.stack import redis_server

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DOCS", "Line", "Runs", "description", "markdown_table", "rewrite"]

DOCS = REPOSITORY / "docs"


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

    def most(self, figure: str, column: str | None = None) -> float:
        """The largest of all runs, or of all in one column."""
        every = (each for columns in self.figures.values() for each in columns.items())
        return max(
            (run.get(figure, 0.0) for name, runs in every if column in {None, name} for run in runs),
            default=0,
        )


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


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names the rows."""
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def rewrite(part: str, text: str, page: Path = DOCS / "performance.md") -> None:
    """Put `text` between the two marks of `part`."""
    begin, end = f"<!-- {part}: written by the benchmark -->", f"<!-- end of {part} -->"
    before, _, rest = page.read_text("utf-8").partition(begin)
    _, _, after = rest.partition(end)
    page.write_text(f"{before}{begin}\n\n{text.strip()}\n\n{end}{after}", "utf-8")


def description(packages: Sequence[str]) -> str:
    """What it was measured on, as readers need it: nothing that names one particular machine.

    Packages that are not installed are left out.
    """
    server = subprocess.run([redis_server(), "--version"], capture_output=True, text=True, check=True)  # noqa: S603 (ours)
    found = re.search(r"(\w+) server v=([0-9.]+)", server.stdout)
    redis = f"{found[1]} {found[2]}" if found else "an unknown Redis"
    parts = [
        f"{os.cpu_count()} cores ({_field('/proc/cpuinfo', 'model name')})",
        f"{int(_field('/proc/meminfo', 'MemTotal').split()[0]) / 1024**2:.0f} GB of memory",
        f"{platform.system()} {platform.release().partition('-')[0]}",
        f"Python {platform.python_version()}",
        f"{redis} (append-only file, synced every second)",
    ]
    versions = [f"{name} {installed}" for name in packages if (installed := _version(name))]
    return f"Measured on {', '.join(parts)}. Packages: {', '.join(versions)}."


def _version(package: str) -> str:
    """Of an installed package. Empty if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def _field(path: str, name: str) -> str:
    """The first value of a field in one of the kernel's files."""
    found = re.search(rf"^{name}\s*:\s*(.+)$", Path(path).read_text("utf-8"), re.MULTILINE)
    return found[1].strip() if found else "0 unknown"
