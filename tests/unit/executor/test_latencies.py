"""Figures of latencies are those of all of them."""

from __future__ import annotations

import statistics

from hypothesis import given
from hypothesis import strategies as st

from executor.latencies import Latencies

MANY = st.lists(st.floats(0, 86_400_000), min_size=2, max_size=200)


def of(values: list[float]) -> Latencies:
    found = Latencies()
    for value in values:
        found.add(value)
    return found


def close(found: float | None, right: float, share: float) -> bool:
    return found is not None and abs(found - right) <= share * right + 1e-3


def test_figures_without_a_latency_are_none() -> None:
    nothing = Latencies()
    assert (nothing.mean_ms, nothing.sd_ms, nothing.percentile_ms(50)) == (None, None, None)


def test_a_single_latency_has_no_deviation() -> None:
    one = of([20.0])
    assert (one.mean_ms, one.sd_ms) == (20.0, None)


@given(MANY)
def test_mean_and_deviation_are_exact(values: list[float]) -> None:
    found = of(values)
    assert close(found.mean_ms, statistics.fmean(values), 1e-9)
    assert close(found.sd_ms, statistics.stdev(values), 1e-6)


@given(MANY, st.sampled_from([50, 95, 99]))
def test_percentiles_are_right_within_half_a_per_cent(values: list[float], percentile: int) -> None:
    right = sorted(values)[int(percentile / 100 * (len(values) - 1))]
    assert close(of(values).percentile_ms(percentile), right, 0.006)
