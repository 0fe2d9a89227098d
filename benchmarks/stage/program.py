"""What all programs share: options, bounds, tables and the last line."""

from __future__ import annotations

import math
import random
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import typer
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

Figures = dict[str, float]
"""What a measurement has found: names and values."""

NOTHING = "-"


@dataclass(frozen=True)
class Bound:
    """A figure that has to be reached."""

    name: str
    value: float
    at_least: float = -math.inf
    at_most: float = math.inf

    @property
    def held(self) -> bool:
        """Whether the figure is within the bound. One that is missing is not."""
        return self.at_least <= self.value <= self.at_most

    def __str__(self) -> str:
        limits = {"at least": self.at_least, "at most": self.at_most}
        wanted = " and ".join(f"{how} {limit:g}" for how, limit in limits.items() if math.isfinite(limit))
        return f"{self.name}: {self.value:.3g}, {wanted}"


def run(main: Callable[..., None], about: str | None) -> None:
    """Run a program. Its options are the parameters of `main`; `about` is its help."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(help=about)(main)
    app()


def seeded(seed: int | None) -> random.Random:
    """Chance that repeats with the same seed, which is printed. None: any seed."""
    chosen = random.SystemRandom().randrange(10**6) if seed is None else seed
    print(f"seed {chosen}", flush=True)
    return random.Random(chosen)  # noqa: S311 (chaos is not a secret)


def any_broken(bounds: Iterable[Bound]) -> bool:
    """Print the bounds that are broken; whether there is one."""
    broken = [bound for bound in bounds if not bound.held]
    for bound in broken:
        print(f"BOUND BROKEN: {bound}")
    return bool(broken)


def at_most(found: Figures, most: Mapping[str, float]) -> list[Bound]:
    """The bounds of some figures."""
    return [Bound(name, found[name], at_most=limit) for name, limit in most.items()]


def conclude(name: str, line: str, bounds: Iterable[Bound]) -> NoReturn:
    """Print the last line, after the bounds that are broken. Exits with 1 if there is one."""
    code = int(any_broken(bounds))
    print(f"{name}: {line}", flush=True)
    sys.exit(code)


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table whose first column names the rows."""
    table = Table(*header)
    for row in rows:
        table.add_row(*row)
    Console(width=170).print(table)


def shown(figures: Mapping[str, float], **digits: int) -> str:
    """Figures as in a last line. `digits` are those after the point; the others have none."""
    return " ".join(f"{name}={value:.{digits.get(name, 0)}f}" for name, value in figures.items())


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of the values do not exceed. Not a number if there are no values."""
    ranked = sorted(values)
    return ranked[min(len(ranked) - 1, int(len(ranked) * share))] if ranked else math.nan


def spread(values: Sequence[float]) -> str:
    """Median, 95th percentile and maximum, as text."""
    return " / ".join(written(quantile(values, share), 2) for share in (0.5, 0.95, 1))


def written(value: float, digits: int) -> str:
    """The number as text, with so many digits after the point."""
    return NOTHING if math.isnan(value) else f"{value:,.{digits}f}"
