"""Figures of requests must not contradict each other."""

from __future__ import annotations

from itertools import pairwise
from typing import Protocol

__all__ = ["CountedFigures", "check_figures", "total_of"]

RATE_TOLERANCE = 0.01
"""By how much an error rate may differ from its counts: Executors round it."""

MOST = 2**53
"""Beyond that, JSON's readers differ (RFC 8259, section 6)."""

COUNTS = ("requests", "faulted", "unanswered", "success_count", "error_count")
PERCENTILES = ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms")


class CountedFigures(Protocol):
    """Figures of one window of time. None is what was not seen."""

    @property
    def requests(self) -> int | None: ...

    @property
    def unanswered(self) -> int | None: ...

    @property
    def success_count(self) -> int | None: ...

    @property
    def error_count(self) -> int | None: ...

    @property
    def error_rate(self) -> float | None: ...


def total_of(figures: CountedFigures) -> int | None:
    """How many requests there were. None if neither this nor both counts are known."""
    if figures.requests is not None:
        return figures.requests
    if figures.success_count is None or figures.error_count is None:
        return None
    return figures.success_count + figures.error_count


def check_figures(figures: CountedFigures) -> None:
    """Raises `ValueError`, which names the fields, for figures that contradict each other."""
    for name in COUNTS:
        if (getattr(figures, name, None) or 0) > MOST:
            raise ValueError(f"{name} is more than {MOST}, which no count of requests can be")
    total = total_of(figures)
    for part in COUNTS[1:]:
        _check_order(figures, part, "requests", total)
    _check_order(figures, "unanswered", "error_count", figures.error_count)
    if figures.success_count is not None and figures.error_count is not None:
        counted = figures.success_count + figures.error_count
        if counted != total:
            raise ValueError(f"success_count and error_count make {counted}, and requests is {total}")
    _check_rate(figures, total)
    known = [name for name in PERCENTILES if getattr(figures, name, None) is not None]
    for name, next_name in pairwise(known):
        _check_order(figures, name, next_name, getattr(figures, next_name))


def _check_rate(figures: CountedFigures, total: int | None) -> None:
    """`unanswered` are errors. Without a total, a count of 0 still says which rate it must be."""
    if figures.error_rate is None:
        return
    least, most, shown = 0.0, 1.0, ""
    if total and figures.error_count is not None:
        least = most = figures.error_count / total
        shown = f"error_count says {figures.error_count} of {total}"
    elif total and figures.unanswered:
        least, shown = figures.unanswered / total, f"unanswered says {figures.unanswered} of {total}"
    elif total is None and figures.error_count == 0:
        most, shown = 0.0, "error_count is 0"
    elif total is None and figures.success_count == 0:
        least, shown = 1.0, "success_count is 0"
    if not least - RATE_TOLERANCE <= figures.error_rate <= most + RATE_TOLERANCE:
        raise ValueError(f"error_rate is {figures.error_rate:g}, and {shown}")


def _check_order(figures: CountedFigures, name: str, limit_name: str, limit: float | None) -> None:
    """Raises `ValueError` if the field exceeds its limit. What is unknown fits."""
    value = getattr(figures, name, None)
    if value is not None and limit is not None and value > limit:
        raise ValueError(f"{name} is {value:g}, and {limit_name} is only {limit:g}")
