"""Effect sizes have the values of the papers that they come from, and their intervals keep their word."""

from __future__ import annotations

import math
import random
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import Effect, Figures, RawObservation, effect_of, wilson_interval

SIMULATIONS = 1500
COUNTS = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
LATENCY = st.floats(0, 1e6)


def figures(errors: int | None = None, requests: int | None = None, **more: Any) -> Figures:
    return Figures(error_count=errors, requests=requests, **more)


def observed(fault: Figures, baseline: Figures | None = None) -> RawObservation:
    return RawObservation(
        execution_id="f1", timestamp=datetime.now(UTC), baseline=baseline, **fault.model_dump()
    )


def effect(fault: Figures, baseline: Figures) -> Effect:
    return effect_of(observed(fault, baseline))


@pytest.mark.parametrize(
    ("errors", "requests", "interval"),
    [
        (81, 263, (0.2553, 0.3662)),
        (15, 148, (0.0624, 0.1605)),
        (0, 20, (0.0, 0.1611)),
        (1, 29, (0.0061, 0.1718)),
    ],
)
def test_the_wilson_interval_is_that_of_newcombes_examples(
    errors: int, requests: int, interval: tuple[float, float]
) -> None:
    assert wilson_interval(errors, requests) == pytest.approx(interval, abs=5e-5)


@pytest.mark.parametrize(
    ("fault", "baseline", "interval"),
    [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((6, 7), (2, 7), (0.0582, 0.8062)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((0, 10), (0, 20), (-0.1611, 0.2775)),
        ((10, 10), (0, 20), (0.6791, 1.0)),
    ],
)
def test_the_interval_of_a_difference_is_that_of_newcombes_examples(
    fault: tuple[int, int], baseline: tuple[int, int], interval: tuple[float, float]
) -> None:
    found = effect(figures(*fault), figures(*baseline))
    assert found.error_rate_difference == pytest.approx(fault[0] / fault[1] - baseline[0] / baseline[1])
    assert (found.error_rate_difference_low, found.error_rate_difference_high) == pytest.approx(
        interval, abs=5e-5
    )


@pytest.mark.parametrize(("errors", "requests"), [(0, 0), (1, 0), (-1, 5), (6, 5)])
def test_counts_that_make_no_rate_have_no_interval(errors: int, requests: int) -> None:
    with pytest.raises(ValueError, match="no error rate"):
        wilson_interval(errors, requests)


@given(COUNTS)
def test_a_wilson_interval_holds_the_rate_and_is_a_part_of_0_to_1(counts: tuple[int, int]) -> None:
    low, high = wilson_interval(*counts)
    assert 0 <= low <= counts[0] / counts[1] <= high <= 1
    assert low < high


@given(COUNTS)
def test_a_wilson_interval_is_the_mirror_of_that_of_the_successes(counts: tuple[int, int]) -> None:
    errors, requests = counts
    low, high = wilson_interval(errors, requests)
    assert wilson_interval(requests - errors, requests) == pytest.approx((1 - high, 1 - low))


@given(COUNTS, st.integers(2, 10))
def test_more_requests_make_it_narrower_and_more_errors_move_it_up(
    counts: tuple[int, int], times: int
) -> None:
    errors, requests = counts
    low, high = wilson_interval(errors, requests)
    narrow_low, narrow_high = wilson_interval(errors * times, requests * times)
    assert narrow_high - narrow_low < high - low
    if errors < requests:
        more_low, more_high = wilson_interval(errors + 1, requests)
        assert more_low > low
        assert more_high > high or high == 1


@given(COUNTS, COUNTS)
def test_the_interval_of_a_difference_holds_it_and_is_a_part_of_minus_1_to_1(
    fault: tuple[int, int], baseline: tuple[int, int]
) -> None:
    found = effect(figures(*fault), figures(*baseline))
    assert found.error_rate_difference is not None
    assert found.error_rate_difference_low is not None
    assert found.error_rate_difference_high is not None
    assert -1 <= found.error_rate_difference_low <= found.error_rate_difference + 1e-12
    assert found.error_rate_difference - 1e-12 <= found.error_rate_difference_high <= 1


@given(LATENCY, LATENCY, LATENCY, LATENCY, st.integers(0, 1000), st.integers(0, 1000))
def test_the_interval_of_a_latency_ratio_holds_it_or_neither_end_is_known(
    mean: float, deviation: float, mean_before: float, deviation_before: float, count: int, count_before: int
) -> None:
    found = effect(
        figures(requests=count, latency_ms=mean, latency_sd_ms=deviation),
        figures(requests=count_before, latency_ms=mean_before, latency_sd_ms=deviation_before),
    )
    low, high = found.latency_ratio_low, found.latency_ratio_high
    assert (low is None) == (high is None)
    if low is not None and high is not None:
        assert found.latency_ratio is not None
        assert 0 <= low <= found.latency_ratio <= high < math.inf
    if not mean_before:
        assert found.latency_ratio is None
    if min(count, count_before) < 2:
        assert low is None


def test_wilson_intervals_hold_the_true_rate_in_95_of_100_simulations() -> None:
    draw = random.Random(18)
    for rate, requests in ((0.01, 400), (0.1, 60), (0.5, 30), (0.9, 100)):
        held = 0
        for _ in range(SIMULATIONS):
            low, high = wilson_interval(_errors(draw, rate, requests), requests)
            held += low <= rate <= high
        assert 0.925 <= held / SIMULATIONS <= 0.985, (rate, requests)


def _errors(draw: random.Random, rate: float, requests: int) -> int:
    return sum(draw.random() < rate for _ in range(requests))


def test_intervals_of_differences_hold_the_true_one_in_95_of_100_simulations() -> None:
    draw = random.Random(18)
    for rate, before in ((0.5, 0.02), (0.1, 0.1), (0.95, 0.0)):
        held = 0
        for _ in range(SIMULATIONS):
            found = effect(figures(_errors(draw, rate, 80), 80), figures(_errors(draw, before, 60), 60))
            assert found.error_rate_difference_low is not None
            assert found.error_rate_difference_high is not None
            held += found.error_rate_difference_low <= rate - before <= found.error_rate_difference_high
        assert 0.925 <= held / SIMULATIONS <= 0.985, (rate, before)


def _latencies(draw: random.Random, median_ms: float, spread: float, requests: int) -> Figures:
    seen = [draw.lognormvariate(math.log(median_ms), spread) for _ in range(requests)]
    mean = sum(seen) / requests
    deviation = math.sqrt(sum((each - mean) ** 2 for each in seen) / (requests - 1))
    return figures(requests=requests, latency_ms=mean, latency_sd_ms=deviation)


def test_intervals_of_latency_ratios_hold_the_true_one_in_95_of_100_simulations() -> None:
    draw = random.Random(18)
    for times, spread in ((1.0, 0.3), (40.0, 0.5), (1.2, 0.7)):
        held = 0
        for _ in range(SIMULATIONS):
            found = effect(_latencies(draw, 5 * times, spread, 80), _latencies(draw, 5, spread, 60))
            assert found.latency_ratio_low is not None
            assert found.latency_ratio_high is not None
            held += found.latency_ratio_low <= times <= found.latency_ratio_high
        assert 0.925 <= held / SIMULATIONS <= 0.975, (times, spread)


def test_what_cannot_be_known_is_none() -> None:
    assert effect_of(observed(figures(5, 10, latency_ms=3.0))) == Effect()
    assert effect(figures(), figures()) == Effect()
    assert effect(figures(5, 10), figures()) == Effect()
    assert effect(figures(error_rate=0.75), figures(error_rate=0.25)) == Effect(error_rate_difference=0.5)
    assert effect(figures(latency_ms=8.0), figures(latency_ms=2.0)) == Effect(latency_ratio=4.0)
    assert effect(figures(latency_ms=8.0), figures(latency_ms=0.0)) == Effect()
    assert effect(figures(latency_ms=0.0), figures(latency_ms=2.0)) == Effect(latency_ratio=0.0)
    assert effect(figures(requests=9, latency_ms=8.0, latency_sd_ms=1.0), figures(latency_ms=2.0)) == Effect(
        latency_ratio=4.0
    )


def test_figures_that_no_interval_fits_have_none() -> None:
    wild = figures(requests=2, latency_ms=1e-300, latency_sd_ms=1e300)
    assert effect(wild, wild) == Effect(latency_ratio=1.0)
    tiny = figures(requests=2, latency_ms=5e-324, latency_sd_ms=0.0)
    assert effect(figures(requests=2, latency_ms=1e300, latency_sd_ms=0.0), tiny) == Effect()


def test_a_baseline_from_elsewhere_counts_if_the_observation_has_none() -> None:
    fault, own, other = figures(5, 10), figures(0, 10), figures(10, 10)
    assert effect_of(observed(fault), other).error_rate_difference == -0.5
    assert effect_of(observed(fault, own), other).error_rate_difference == 0.5
    assert effect_of(observed(fault), observed(own)).error_rate_difference == 0.5
