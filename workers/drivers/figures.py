"""Figures of requests must not contradict each other."""

from __future__ import annotations

from typing import Protocol

__all__ = ["CountedFigures", "check_figures"]

RATE_TOLERANCE = 0.01
"""By how much an error rate may differ from its counts: Executors round it."""

MOST = 2**53
"""Beyond that, JSON's readers differ (RFC 8259, section 6)."""

PARTS = ("faulted", "unanswered", "success_count", "error_count")
"""The counts that are a part of all requests."""


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

    @property
    def latency_p50_ms(self) -> float | None: ...

    @property
    def latency_p95_ms(self) -> float | None: ...

    @property
    def latency_p99_ms(self) -> float | None: ...


def check_figures(figures: CountedFigures) -> None:
    """Raises `ValueError`, which names the fields, for figures that contradict each other.

    It runs for each observation, so that it makes few calls.
    """
    total, success, errors = figures.requests, figures.success_count, figures.error_count
    counted = None if success is None or errors is None else success + errors
    total = counted if total is None else total
    if total is not None:
        if total > MOST:
            raise ValueError(f"requests is more than {MOST}, which no count of requests can be")
        for name in PARTS:
            value = getattr(figures, name, None)
            if value is not None and value > total:
                raise ValueError(f"{name} is {value:g}, and requests is only {total:g}")
    if figures.unanswered is not None and errors is not None and figures.unanswered > errors:
        raise ValueError(f"unanswered is {figures.unanswered}, and error_count is only {errors}")
    if counted is not None and counted != total:
        raise ValueError(f"success_count and error_count make {counted}, and requests is {total}")
    rate = figures.error_rate
    if rate is not None and (not total or errors is None or abs(rate - errors / total) > RATE_TOLERANCE):
        _check_rate(figures, rate, total)
    if figures.latency_p50_ms is not None or figures.latency_p95_ms is not None:
        _check_percentiles(figures)


def _check_rate(figures: CountedFigures, rate: float, total: int | None) -> None:
    """`unanswered` are errors. Without a total, a count of 0 still says which rate it must be."""
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
    if not least - RATE_TOLERANCE <= rate <= most + RATE_TOLERANCE:
        raise ValueError(f"error_rate is {rate:g}, and {shown}")


def _check_percentiles(figures: CountedFigures) -> None:
    last_name, last = "", 0.0
    for name in ("latency_p50_ms", "latency_p95_ms", "latency_p99_ms"):
        value = getattr(figures, name)
        if value is None:
            continue
        if last_name and last > value:
            raise ValueError(f"{last_name} is {last:g}, and {name} is only {value:g}")
        last_name, last = name, value
