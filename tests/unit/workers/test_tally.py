"""A tally says what its requests met, however they were added up and stored."""

from __future__ import annotations

import random
import statistics
from datetime import UTC, datetime
from functools import reduce
from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher.effects import wilson_interval
from dispatcher.errors import FaultUnobservedError
from dispatcher.telemetry.latency import ACCURACY
from workers.observers.seen import MAX_LENGTH, MAX_PARTS, Seen
from workers.observers.tally import Probe, Tally

BEGIN_MS = 1_700_000_000_000
probes = st.builds(
    Probe,
    planned_ms=st.integers(BEGIN_MS, BEGIN_MS + 86_150_000),
    latency_us=st.integers(10, 40_000_000),
    outcome=st.sampled_from(["200", "404", "503", "999", "timeout", "refused", "unreadable"]),
    expected=st.booleans(),
    incomplete=st.booleans(),
)


def percentile(values: list[float], share: float) -> float:
    """As `numpy.percentile` has it."""
    ordered = sorted(values)
    rank = share * (len(ordered) - 1)
    low = ordered[int(rank)]
    return low + (ordered[min(int(rank) + 1, len(ordered) - 1)] - low) * (rank - int(rank))


@given(st.lists(st.lists(probes, max_size=8), max_size=6), st.randoms())
def test_tallies_are_added_in_any_order_without_loss(looks: list[list[Probe]], chance: random.Random) -> None:
    whole = Tally.of([probe for look in looks for probe in look])
    tallies = [Tally.of(look) for look in looks]
    chance.shuffle(tallies)
    assert reduce(add, tallies, Tally()) == whole


@given(st.lists(probes, min_size=1, max_size=60))
def test_the_figures_are_those_of_the_requests(sent: list[Probe]) -> None:
    figures = Tally.of(sent).figures()
    assert figures is not None
    latencies = [each.latency_us / 1000 for each in sent]
    answered: list[int | None] = [int(each.outcome) for each in sent if "200" <= each.outcome <= "599"]
    errors = sum(not each.expected for each in sent)
    assert figures.requests == len(sent)
    assert figures.unanswered == sum(each.outcome in {"timeout", "refused"} for each in sent)
    assert (figures.error_count, figures.success_count) == (errors, len(sent) - errors)
    assert figures.error_rate == errors / len(sent)
    assert (figures.error_rate_low, figures.error_rate_high) == wilson_interval(errors, len(sent))
    assert figures.latency_ms == pytest.approx(statistics.fmean(latencies))
    assert figures.status_code in (statistics.multimode(answered) or [None])
    if len(sent) == 1:
        assert figures.latency_sd_ms is None
    else:
        assert figures.latency_sd_ms == pytest.approx(statistics.stdev(latencies), rel=1e-9, abs=1e-6)
    for share, seen in (
        (0.5, figures.latency_p50_ms),
        (0.95, figures.latency_p95_ms),
        (0.99, figures.latency_p99_ms),
    ):
        assert seen == pytest.approx(percentile(latencies, share), rel=ACCURACY)
    moments = sorted(each.planned_ms / 1000 for each in sent)
    assert figures.started_at == datetime.fromtimestamp(moments[0], UTC)
    assert figures.ended_at == datetime.fromtimestamp(moments[-1], UTC)


def test_without_a_request_there_are_no_figures() -> None:
    assert Tally.of([]).figures() is None
    assert str(Tally.of([])) == "0 requests"


@given(st.lists(probes, max_size=20), st.lists(st.lists(probes, min_size=1, max_size=5), max_size=MAX_PARTS))
def test_what_was_seen_comes_back_as_it_was_written(before: list[Probe], looks: list[list[Probe]]) -> None:
    seen = Seen().seen_before(Tally.of(before))
    for look in looks:
        seen = seen.seen_during(Tally.of(look)).seen_after(Tally.of(look))
    assert Seen.of(seen.to_text()) == seen


def test_nothing_seen_yet_is_an_empty_text() -> None:
    assert Seen.of("") == Seen()


@pytest.mark.parametrize("text", ["{}", '{"before": 1}', "garbage"], ids=["another version's", "odd", "none"])
def test_a_text_that_another_version_wrote_is_an_error(text: str) -> None:
    with pytest.raises(FaultUnobservedError, match="another version"):
        Seen.of(text)


def second(number: int, chance: random.Random, requests: int = 20) -> Tally:
    """One measurement: requests with latencies from 1 ms to 30 s, spread evenly on a logarithmic scale."""
    return Tally.of(
        [
            Probe(
                BEGIN_MS + number * 1000 + at * 1000 // requests,
                round(10 ** chance.uniform(3, 7.5)),
                chance.choice(["200", "404", "500", "503", "timeout"]),
                expected=chance.random() < 0.5,
            )
            for at in range(requests)
        ]
    )


def test_the_text_of_a_long_fault_is_short_and_loses_nothing() -> None:
    chance = random.Random(7)
    looks = [second(number, chance) for number in range(150)]
    seen = Seen().seen_before(looks[0])
    for look in looks:
        text = seen.seen_during(look).to_text()
        assert len(text) <= MAX_LENGTH
        seen = Seen.of(text)
    assert seen.within(BEGIN_MS, BEGIN_MS + 150_000) == reduce(add, looks)


@given(looks=st.integers(1, 80), early=st.integers(0, 5), late=st.integers(0, 3))
def test_what_is_outside_of_the_real_window_does_not_count(looks: int, early: int, late: int) -> None:
    chance = random.Random(7)
    tallies = [second(number, chance, requests=2) for number in range(looks)]
    seen = reduce(Seen.seen_during, tallies, Seen())
    begin_ms, end_ms = BEGIN_MS + late * 1000, BEGIN_MS + (looks - early) * 1000
    counted = seen.within(begin_ms, end_ms)
    if counted.first_ms is not None and counted.last_ms is not None:
        assert begin_ms <= counted.first_ms
        assert counted.last_ms <= end_ms
    inside = max(0, looks - early - late)
    assert counted.requests <= 2 * inside
    if not early and not late:
        assert counted == reduce(add, tallies)
    assert counted.requests >= inside, "at least half of what is inside counts"
