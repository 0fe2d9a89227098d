"""The histogram of latencies against the latencies themselves."""

from __future__ import annotations

import statistics
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.telemetry.latency import ACCURACY, FLOOR_US, Latencies, fields_of

if TYPE_CHECKING:
    from collections.abc import Iterable

SECONDS = st.floats(min_value=FLOOR_US / 1e6, max_value=3600)
ROUNDING = 1e-9
SHARES = (0.0, 0.5, 0.95, 0.99, 1.0)


def counted(latencies: Iterable[float]) -> Counter[str]:
    """The fields to which each of them was added."""
    fields: Counter[str] = Counter()
    for each in latencies:
        fields.update(fields_of(each))
    return fields


def exact_ms(latencies: list[float], share: float) -> float:
    """What `statistics` says, which knows whole percents."""
    if share in {0.0, 1.0}:
        return 1000 * (max if share else min)(latencies)
    return 1000 * statistics.quantiles(latencies, n=100, method="inclusive")[round(share * 100) - 1]


@pytest.mark.parametrize("share", SHARES)
@given(latencies=st.lists(SECONDS, min_size=2, max_size=300))
def test_any_quantile_is_within_one_percent(latencies: list[float], share: float) -> None:
    found = Latencies.of(counted(latencies)).quantile_ms(share)
    assert found == pytest.approx(exact_ms(latencies, share), rel=ACCURACY + ROUNDING)


@given(parts=st.lists(st.lists(SECONDS, max_size=30), max_size=5))
def test_histograms_are_merged_by_adding_their_fields(parts: list[list[float]]) -> None:
    together = counted(latency for part in parts for latency in part)
    assert sum(map(counted, parts), Counter()) == together
    assert Latencies.of(together).count == sum(map(len, parts))


@given(latencies=st.lists(SECONDS, min_size=1, max_size=100))
def test_the_mean_is_exact_to_the_microsecond(latencies: list[float]) -> None:
    assert Latencies.of(counted(latencies)).mean_ms == pytest.approx(
        1000 * statistics.fmean(latencies), abs=0.0006
    )


@given(latencies=st.lists(SECONDS, max_size=100), bounds=st.lists(SECONDS, max_size=5))
def test_how_many_do_not_exceed_a_bound_is_right_except_close_to_it(
    latencies: list[float], bounds: list[float]
) -> None:
    for bound, found in zip(bounds, Latencies.of(counted(latencies)).at_most(bounds), strict=True):
        fewest, most = (sum(each <= bound * factor for each in latencies) for factor in (0.989, 1.011))
        assert fewest <= found <= most


def test_the_slow_ones_among_many_quick_ones_are_not_blurred() -> None:
    latencies = Latencies.of(counted([0.002] * 980 + [30.0] * 20))
    assert latencies.quantile_ms(0.95) == pytest.approx(2.0, rel=ACCURACY)
    assert latencies.quantile_ms(0.99) == pytest.approx(30_000, rel=ACCURACY)


@pytest.mark.parametrize("took_s", [0.0, 1e-9, -0.001])
def test_what_is_quicker_than_a_clock_measures_is_in_the_first_bucket(took_s: float) -> None:
    assert fields_of(took_s)["latency:0"] == 1


def test_a_histogram_stays_small() -> None:
    hour = next(name for name in fields_of(3600.0) if name.startswith("latency:"))
    assert int(hour.removeprefix("latency:")) < 1000


def test_without_latencies_there_is_nothing_to_report() -> None:
    none = Latencies.of({"apply:connection": 3})
    assert (none.count, none.mean_ms, none.quantile_ms(0.99), none.at_most([1.0])) == (0, 0.0, 0.0, [0])


def test_a_single_latency_is_every_quantile() -> None:
    single = Latencies.of(fields_of(0.25))
    assert [single.quantile_ms(share) for share in SHARES] == [pytest.approx(250, rel=ACCURACY)] * len(SHARES)
