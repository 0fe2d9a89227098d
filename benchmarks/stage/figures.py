"""Figures, and how they are summed up."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Figures", "quantile", "spread", "written"]

Figures = dict[str, float]
"""What a measurement has found: names and values."""

NOTHING = "-"


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
