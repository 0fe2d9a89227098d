"""How large an effect an observation shows: the usual effect sizes, each with its 95 % interval.

E. B. Wilson, Probable inference, the law of succession, and statistical inference (1927)
R. G. Newcombe, Interval estimation for the difference between independent proportions (1998), method 10
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatcher.observations import Figures, RawObservation

__all__ = ["Z_95", "Effect", "effect_of", "wilson_interval"]

Z_95 = 1.959964
"""The 97.5th percentile of the normal distribution: 95 % of it is within this many standard deviations."""

FEWEST_REQUESTS = 2
"""A standard deviation of fewer says nothing."""

LARGEST_EXPONENT = 700.0
"""`math.exp` of more overflows."""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fault changed against its baseline. Each part is None if it cannot be known."""

    error_rate_difference: float | None = None
    """Error rate under the fault minus that of the baseline, -1 to 1."""

    error_rate_difference_low: float | None = None
    """Lower end of its 95 % interval. Needs the counts of errors and requests, of both."""

    error_rate_difference_high: float | None = None
    """Upper end of that interval."""

    latency_ratio: float | None = None
    """Mean latency under the fault over that of the baseline: 2 is twice as slow."""

    latency_ratio_low: float | None = None
    """Lower end of its 95 % interval. Needs standard deviations and two requests, of both."""

    latency_ratio_high: float | None = None
    """Upper end of that interval."""


def wilson_interval(errors: int, requests: int) -> tuple[float, float]:
    """The 95 % interval of an error rate, from `errors` among `requests` (Wilson's score interval).

    It holds for few requests and for rates of 0 and 1, too. Raises `ValueError` if there are no requests, or
    more errors than requests.
    """
    if not 0 <= errors <= requests or requests == 0:
        raise ValueError(f"{errors} errors among {requests} requests have no error rate")
    rate, weight = errors / requests, Z_95**2 / requests
    centre = (rate + weight / 2) / (1 + weight)
    half = Z_95 * math.sqrt(rate * (1 - rate) / requests + weight / (4 * requests)) / (1 + weight)
    low = 0.0 if errors == 0 else max(0.0, centre - half)
    high = 1.0 if errors == requests else min(1.0, centre + half)
    return low, high


def effect_of(observation: RawObservation, baseline: Figures | None = None) -> Effect:
    """The effect sizes of a fault: error-rate difference and latency ratio, each with its interval.

    They compare it with its own `baseline`. Without one they compare it with the argument, such as the
    observation of a plan with `percentage=0`.
    """
    before = observation.baseline or baseline
    if before is None:
        return Effect()
    difference_low, difference_high = _difference_interval(observation, before)
    ratio_low, ratio_high = _ratio_interval(observation, before)
    return Effect(
        error_rate_difference=_difference(_error_rate(observation), _error_rate(before)),
        error_rate_difference_low=difference_low,
        error_rate_difference_high=difference_high,
        latency_ratio=_ratio(observation.latency_ms, before.latency_ms),
        latency_ratio_low=ratio_low,
        latency_ratio_high=ratio_high,
    )


def _counts(figures: Figures) -> tuple[int, int] | None:
    """Errors and requests, if both are known and make a rate."""
    errors, requests = figures.error_count, figures.requests
    return None if errors is None or not requests or errors > requests else (errors, requests)


def _error_rate(figures: Figures) -> float | None:
    """From the counts, because the interval is made of them; otherwise as it was observed."""
    counts = _counts(figures)
    return figures.error_rate if counts is None else counts[0] / counts[1]


def _difference(fault: float | None, before: float | None) -> float | None:
    return None if fault is None or before is None else fault - before


def _difference_interval(fault: Figures, before: Figures) -> tuple[float, float] | tuple[None, None]:
    """Newcombe's hybrid score interval, from the Wilson interval of each rate."""
    counts, counts_before = _counts(fault), _counts(before)
    if counts is None or counts_before is None:
        return None, None
    rate, rate_before = counts[0] / counts[1], counts_before[0] / counts_before[1]
    (low, high), (low_before, high_before) = wilson_interval(*counts), wilson_interval(*counts_before)
    difference = rate - rate_before
    return (
        max(-1.0, difference - math.hypot(rate - low, high_before - rate_before)),
        min(1.0, difference + math.hypot(high - rate, rate_before - low_before)),
    )


def _ratio(fault: float | None, before: float | None) -> float | None:
    ratio = math.inf if fault is None or not before else fault / before
    return ratio if math.isfinite(ratio) else None


def _ratio_interval(fault: Figures, before: Figures) -> tuple[float, float] | tuple[None, None]:
    """By the delta method, on the logarithm of the ratio of the means."""
    ratio = _ratio(fault.latency_ms, before.latency_ms)
    error, error_before = _relative_error_of_mean(fault), _relative_error_of_mean(before)
    if not ratio or error is None or error_before is None:
        return None, None
    half = min(Z_95 * math.hypot(error, error_before), LARGEST_EXPONENT)
    low, high = ratio / math.exp(half), ratio * math.exp(half)
    return (low, high) if half < LARGEST_EXPONENT and math.isfinite(high) else (None, None)


def _relative_error_of_mean(figures: Figures) -> float | None:
    """The standard error of the mean latency, over the mean."""
    mean, deviation, requests = figures.latency_ms, figures.latency_sd_ms, figures.requests
    if not mean or deviation is None or requests is None or requests < FEWEST_REQUESTS:
        return None
    return deviation / mean / math.sqrt(requests)
