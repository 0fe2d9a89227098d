"""The specification's formulas, and the share of chance on top."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import ExecutorClientConfig, RetryStrategy
from workers.engine.retry import RetryPolicy

EXACT = {"max_retries": 10, "retry_jitter": 0.0}


def policy(**fields: object) -> RetryPolicy:
    return RetryPolicy.of(ExecutorClientConfig.model_validate(fields))


def test_exponential_delays_are_those_of_the_specification() -> None:
    exact = policy(**EXACT)
    delays = [exact.delay_s(attempt, 0.5) for attempt in range(1, 8)]
    assert delays == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]


def test_linear_delays_are_those_of_the_specification() -> None:
    exact = policy(**EXACT, retry_strategy="linear")
    assert [exact.delay_s(attempt, 0.5) for attempt in range(1, 5)] == [0.5, 1.0, 1.5, 2.0]


def test_none_never_retries() -> None:
    assert policy(retry_strategy="none").delay_s(1, 0.5) is None


def test_the_default_retries_three_times() -> None:
    default = policy()
    assert [default.delay_s(attempt, 0.0) is None for attempt in (1, 3, 4)] == [False, False, True]


@given(
    attempt=st.integers(1, 100),
    draw=st.floats(0, 1),
    jitter=st.floats(0, 1),
    strategy=st.sampled_from([RetryStrategy.LINEAR_BACKOFF, RetryStrategy.EXPONENTIAL_BACKOFF]),
)
def test_a_delay_never_exceeds_the_cap_nor_loses_more_than_its_jitter(
    attempt: int, draw: float, jitter: float, strategy: RetryStrategy
) -> None:
    shaken = RetryPolicy(strategy, max_retries=100, initial_s=0.5, cap_s=10.0, jitter=jitter)
    exact = RetryPolicy(strategy, max_retries=100, initial_s=0.5, cap_s=10.0, jitter=0.0)
    whole, delay = exact.delay_s(attempt, 0.0), shaken.delay_s(attempt, draw)
    assert whole is not None
    assert delay is not None
    assert whole * (1 - jitter) <= delay <= whole <= 10.0


@pytest.mark.parametrize(("draw", "share"), [(0.0, 1.0), (0.5, 0.75), (1.0, 0.5)])
def test_equal_jitter_is_the_default(draw: float, share: float) -> None:
    assert policy().delay_s(2, draw) == 1.0 * share
