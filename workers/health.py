"""Whether the Executors are up: one check of each in an interval, however many workers there are.

answer  list    {prefix}:health:<executor>        one element, what the last check has found (`Health`)
turn    string  {prefix}:health:<executor>:turn   who has checked in this interval
"""

from __future__ import annotations

import logging
import random
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import redis

from dispatcher.errors import ExecutorClientError, LedgerUnavailableError
from dispatcher.models import Health
from workers.breaker.rules import Outcome, Report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from workers.breaker.rules import Breaker
    from workers.drivers.base import Driver

__all__ = ["HealthCheck", "HealthMonitor", "check"]

RETRY_REDIS_S = 5.0
MARGIN_S = 5.0

logger = logging.getLogger(__name__)


class HealthCheck:
    """The check of one Executor, in turns with all other workers. Safe to share between threads."""

    def __init__(
        self,
        client: redis.Redis,
        key: str,
        driver: Driver,
        breaker: Breaker,
        *,
        interval_s: float,
        follow_up: Callable[[], object] | None = None,
    ) -> None:
        """The answer is stored under `key`. `interval_s` is the time between two checks, in seconds.

        `follow_up` is called after each check that finds the Executor healthy.
        """
        self._client = client
        self._key = key
        self._follow_up = follow_up
        self._turn_key = f"{key}:turn"
        self._driver = driver
        self._breaker = breaker
        self._interval_ms = max(1, round(interval_s * 1000))
        self._keep_ms = self._interval_ms + round((driver.longest_call_s + MARGIN_S) * 1000)

    def sample(self) -> float:
        """Check the Executor if it is time to. How many seconds to wait before the next check.

        Raises `redis.RedisError`.
        """
        if self._client.set(self._turn_key, self._breaker.executor, nx=True, px=self._interval_ms):
            health = check(self._driver, self._breaker)
            self._store(health)
            if health.healthy and self._follow_up is not None:
                self._follow_up()
        return max(0, self._client.pttl(self._turn_key)) / 1000

    def _store(self, health: Health) -> None:
        with self._client.pipeline() as pipe:
            pipe.delete(self._key)
            pipe.rpush(self._key, health.model_dump_json())
            pipe.pexpire(self._key, self._keep_ms)
            pipe.execute()


def check(driver: Driver, breaker: Breaker) -> Health:
    """Ask the Executor. A failure counts for its breaker; a success does not close it."""
    admission = breaker.peek()
    error: ExecutorClientError | None = None
    try:
        driver.health(driver.longest_call_s)
    except ExecutorClientError as exc:
        logger.warning("executor %s is not healthy: %s", breaker.executor, exc)
        error = exc
    report = Report.of(error)
    if admission is not None and report.outcome is Outcome.FAILURE:
        breaker.record(admission, report)
    return Health(healthy=error is None, cause=str(error or ""), checked_at=datetime.now(UTC))


class HealthMonitor:
    """Looks after the Executors, each from a thread of its own, as long as the worker process lives."""

    def __init__(self, checks: Iterable[HealthCheck]) -> None:
        self._stopped = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=[check], name="health", daemon=True) for check in checks
        ]

    def start(self) -> None:
        """Start all threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stop all threads. A check that is under way is not interrupted."""
        self._stopped.set()

    def _run(self, check: HealthCheck) -> None:
        while not self._stopped.is_set():
            try:
                wait_s = check.sample()
            except (redis.RedisError, LedgerUnavailableError) as exc:
                logger.warning("the health check waits for Redis: %s", exc)
                wait_s = RETRY_REDIS_S
            except BaseException:  # a driver may raise anything
                logger.exception("the health check stumbled")
                wait_s = RETRY_REDIS_S
            self._stopped.wait(wait_s + random.uniform(0.01, 0.2))  # noqa: S311 (not all at once)
