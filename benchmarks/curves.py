"""Figures that grow with something."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.figures import written
from benchmarks.page import markdown_table

if TYPE_CHECKING:
    from benchmarks.figures import Figures

__all__ = ["Curve"]


@dataclass
class Curve:
    """What grows, and how the figures grow with it."""

    title: str
    unit: str
    columns: dict[str, tuple[str, int]]
    """Of the table: title of a column, to the figure's name and the number of its digits."""

    drawn: tuple[str, str]
    """The columns that are drawn."""

    points: list[tuple[int, Figures]] = field(default_factory=list)

    def table(self) -> str:
        """The points as Markdown."""
        rows = [
            [f"{size:,}", *(written(figures[name], digits) for name, digits in self.columns.values())]
            for size, figures in self.points
        ]
        return markdown_table([self.unit, *self.columns], rows)

    def add(self, size: int, figures: Figures) -> None:
        """Add a point and print it."""
        self.points.append((size, figures))
        shown = " ".join(f"{name}={value:.4g}" for name, value in figures.items())
        print(f"{self.title}: {size:,} {self.unit}: {shown}", flush=True)
