"""Breakers that share their state in Redis, behind one interface: ours, pybreaker's and purgatory's."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import pybreaker
import redis
from purgatory import AsyncCircuitBreakerFactory, AsyncRedisUnitOfWork
from purgatory.domain.model import OpenedState
from pydantic import SecretStr

from benchmarks.engine.steps import ScriptedDriver, Steps
from dispatcher import CircuitOpenError, ExecutorClientConfig, ExecutorServerError, Settings
from workers.engine.decisions import Fail

DOWN = ExecutorServerError("down", 503, "")
OPEN_S = 60
PLANS_AT_ONCE = 20

Call = Callable[[], None]
"""A call to an Executor. It raises `DOWN` if that is down."""

Worker = Callable[[Call], bool]
"""Makes the call if its breaker lets it through, and returns whether it did."""


class Contender(ABC):
    """A way to share a breaker."""

    name: ClassVar[str]

    def __init__(self, url: str) -> None:
        """By the Redis at `url`."""
        self._url = url

    @abstractmethod
    def worker(self, threshold: int) -> Worker:
        """One more worker, whose breaker opens after `threshold` failures in a row."""

    @abstractmethod
    def time_passes(self) -> None:
        """The time of an open breaker is over."""


class Ours(Contender):
    """Ours, as the workers use it: each attempt is the first step of a plan."""

    name = "dispatcher"

    def worker(self, threshold: int) -> Worker:
        return self._worker(circuit_breaker_failure_threshold=threshold, circuit_breaker_min_calls=10**6)

    def unguarded(self) -> Worker:
        """A worker that uses no breaker at all."""
        return self._worker(circuit_breaker_enabled=False, retry_budget_enabled=False)

    def _worker(self, **config: Any) -> Worker:
        driver, plans = ScriptedDriver(), list[str]()
        executor = ExecutorClientConfig.model_validate(config)
        steps = Steps(Settings(redis_url=SecretStr(self._url)), executor, driver)

        def attempt(call: Call) -> bool:
            if not plans:
                plans.extend(steps.submit(PLANS_AT_ONCE))
            driver.on_apply = call
            [decision] = steps.begin([plans.pop()])
            return not (isinstance(decision, Fail) and isinstance(decision.error, CircuitOpenError))

        return attempt

    def time_passes(self) -> None:
        with redis.Redis.from_url(self._url) as client:
            client.hset("{dispatcher}:breaker:default", "until_ms", 0)


class Pybreaker(Contender):
    """pybreaker's `CircuitRedisStorage`. Each worker has an object, which lets in one thread at a time."""

    name = "pybreaker"

    def worker(self, threshold: int) -> Worker:
        client = redis.Redis.from_url(self._url)
        storage = pybreaker.CircuitRedisStorage(pybreaker.STATE_CLOSED, client, namespace="peer")
        # By default the call that opens the breaker raises the error of a call that was not let through.
        breaker = pybreaker.CircuitBreaker(
            threshold, OPEN_S, state_storage=storage, throw_new_error_on_trip=False
        )

        def attempt(call: Call) -> bool:
            try:
                with suppress(ExecutorServerError):
                    breaker.call(call)
            except pybreaker.CircuitBreakerError:
                return False
            return True

        return attempt

    def time_passes(self) -> None:
        past = datetime.now(UTC) - timedelta(seconds=2 * OPEN_S)
        with redis.Redis.from_url(self._url) as client:
            client.set("peer:pybreaker:opened_at", int(past.timestamp()))


class Purgatory(Contender):
    """purgatory's `AsyncRedisUnitOfWork`. It needs asyncio, so each worker has an event loop."""

    name = "purgatory"

    def worker(self, threshold: int) -> Worker:
        loop = asyncio.new_event_loop()
        factory = AsyncCircuitBreakerFactory(threshold, OPEN_S, uow=AsyncRedisUnitOfWork(self._url))
        loop.run_until_complete(factory.initialize())

        async def attempt(call: Call) -> bool:
            breaker = await factory.get_breaker("peer")
            try:
                with suppress(ExecutorServerError):
                    async with breaker:
                        call()
            except OpenedState:
                return False
            return True

        return lambda call: loop.run_until_complete(attempt(call))

    def time_passes(self) -> None:
        with redis.Redis.from_url(self._url, decode_responses=True) as client:
            stored = json.loads(str(client.get("cbr::peer")))
            stored["opened_at"] -= 2 * OPEN_S
            client.set("cbr::peer", json.dumps(stored))


CONTENDERS: list[type[Contender]] = [Ours, Pybreaker, Purgatory]
