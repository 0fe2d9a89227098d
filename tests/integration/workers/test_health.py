"""The health check that the fleet shares, on a fake Redis and on real ones."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from support.fake_driver import FakeDriver

from dispatcher import ExecutorClientConfig, ExecutorServerError, Health
from workers.breaker.rules import BreakerRules, BreakerState
from workers.breaker.shared import SharedBreaker
from workers.health import HealthCheck

if TYPE_CHECKING:
    import redis

KEY = "{dispatcher}:health:default"
DOWN = ExecutorServerError("health: 503", 503, "")


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def breaker(redis_client: redis.Redis) -> SharedBreaker:
    rules = BreakerRules.of(ExecutorClientConfig(), lease_s=35)
    return SharedBreaker(redis_client, "dispatcher", "default", rules)


@pytest.fixture
def check(redis_client: redis.Redis, driver: FakeDriver, breaker: SharedBreaker) -> HealthCheck:
    return check_on(redis_client, driver, breaker)


def check_on(client: redis.Redis, driver: FakeDriver, breaker: SharedBreaker) -> HealthCheck:
    return HealthCheck(client, KEY, driver, breaker, interval_s=60)


def known(client: redis.Redis) -> Health:
    [answer] = client.lrange(KEY, 0, -1)
    return Health.model_validate_json(answer)


def next_interval(client: redis.Redis) -> None:
    client.delete(f"{KEY}:turn")


def test_one_check_is_made_in_an_interval_however_many_workers_there_are(
    redis_client: redis.Redis, driver: FakeDriver, breaker: SharedBreaker
) -> None:
    fleet = [check_on(redis_client, driver, breaker) for _ in range(50)]
    together = threading.Barrier(50)

    def sample(check: HealthCheck) -> float:
        together.wait()
        return check.sample()

    with ThreadPoolExecutor(50) as pool:
        waits = list(pool.map(sample, fleet))
    assert driver.calls == ["health"]
    assert all(55 < wait_s <= 60 for wait_s in waits)
    next_interval(redis_client)
    for check in fleet:
        check.sample()
    assert driver.calls == ["health", "health"]


def test_the_answer_says_why_an_executor_is_not_healthy(
    check: HealthCheck, driver: FakeDriver, redis_client: redis.Redis
) -> None:
    check.sample()
    assert known(redis_client).healthy
    driver.trouble([DOWN])
    next_interval(redis_client)
    check.sample()
    assert (known(redis_client).healthy, known(redis_client).cause) == (False, "health: 503")


def test_the_answer_outlives_its_interval_by_the_longest_check(
    check: HealthCheck, driver: FakeDriver, redis_client: redis.Redis
) -> None:
    check.sample()
    keeps_ms = redis_client.pttl(KEY)
    assert 60_000 + driver.longest_call_s * 1000 < keeps_ms < 60_000 + 2 * driver.longest_call_s * 1000


def test_a_failed_check_counts_towards_opening(
    check: HealthCheck, driver: FakeDriver, breaker: SharedBreaker, redis_client: redis.Redis
) -> None:
    for _ in range(4):
        breaker.record_failure()
    driver.trouble([DOWN])
    check.sample()
    assert breaker.status().state is BreakerState.OPEN


def test_a_good_check_does_not_close_a_breaker(
    check: HealthCheck, breaker: SharedBreaker, redis_client: redis.Redis
) -> None:
    for _ in range(5):
        breaker.record_failure()
    check.sample()
    assert known(redis_client).healthy
    assert breaker.status().state is BreakerState.OPEN
    redis_client.hset("{dispatcher}:breaker:default", "until_ms", 0)
    assert breaker.can_attempt()
    next_interval(redis_client)
    check.sample()
    assert breaker.status().state is BreakerState.HALF_OPEN


def test_a_good_check_does_not_make_up_for_failed_calls(check: HealthCheck, breaker: SharedBreaker) -> None:
    for _ in range(4):
        breaker.record_failure()
    check.sample()
    breaker.record_failure()
    assert breaker.status().state is BreakerState.OPEN
