"""Breakers that share their state in Redis, behind one interface: ours, pybreaker's and purgatory's."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import pybreaker
import redis
from purgatory import AsyncCircuitBreakerFactory, AsyncRedisUnitOfWork
from purgatory.domain.model import OpenedState
from pydantic import SecretStr

from benchmarks.engine.steps import ScriptedDriver, Steps
from dispatcher import CircuitOpenError, ExecutorClientConfig, ExecutorServerError, Settings
from dispatcher.ledger.connection import impatient_client
from workers.breaker.rules import BreakerRules
from workers.breaker.shared import SharedBreaker
from workers.engine.decisions import Fail

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DOWN", "Contender", "InStep", "OnItsOwn", "Purgatory", "Pybreaker", "Worker"]

DOWN = ExecutorServerError("down", 503, "")
OPEN_S = 60
PLANS_AT_ONCE = 20


class Worker(Protocol):
    """A breaker as one worker has it."""

    took_s: float
    """How long the last attempt took, the call included."""

    def attempt(self, call: Callable[[], None]) -> bool:
        """Make the call, which may raise `DOWN`, if the breaker lets it through. Returns whether it did."""
        ...


class Contender(Protocol):
    """A way to share a breaker."""

    name: str

    def worker(self, threshold: int) -> Worker:
        """One more worker, whose breaker opens after `threshold` failures in a row."""
        ...

    def time_passes(self) -> None:
        """The time of an open breaker is over."""
        ...


class StepWorker:
    """A worker of ours: each attempt is the first step of a plan."""

    def __init__(self, url: str, **config: Any) -> None:
        self.took_s = 0.0
        self._driver = ScriptedDriver()
        executor = ExecutorClientConfig.model_validate(config)
        self._steps = Steps(Settings(redis_url=SecretStr(url)), executor, self._driver)
        self._plans: list[str] = []

    def attempt(self, call: Callable[[], None]) -> bool:
        if not self._plans:
            self._plans = self._steps.submit(PLANS_AT_ONCE)
        plan_id = self._plans.pop()
        self._driver.on_apply = call
        begun = time.perf_counter()
        [decision] = self._steps.begin([plan_id])
        self.took_s = time.perf_counter() - begun
        return not (isinstance(decision, Fail) and isinstance(decision.error, CircuitOpenError))


class Ours:
    """What both forms of ours have in common."""

    def __init__(self, url: str) -> None:
        self._url = url

    def time_passes(self) -> None:
        with redis.Redis.from_url(self._url) as client:
            client.hset("{dispatcher}:breaker:default", "until_ms", 0)


class InStep(Ours):
    """Ours, as the workers use it."""

    name = "dispatcher"

    def worker(self, threshold: int) -> StepWorker:
        return StepWorker(
            self._url, circuit_breaker_failure_threshold=threshold, circuit_breaker_min_calls=10**6
        )

    def unguarded(self) -> StepWorker:
        """A worker that uses no breaker at all."""
        return StepWorker(self._url, circuit_breaker_enabled=False, retry_budget_enabled=False)


class ContextWorker:
    """A breaker of ours as a context manager."""

    def __init__(self, breaker: SharedBreaker) -> None:
        self.took_s = 0.0
        self._breaker = breaker

    def attempt(self, call: Callable[[], None]) -> bool:
        begun = time.perf_counter()
        try:
            with suppress(ExecutorServerError), self._breaker:
                call()
        except CircuitOpenError:
            return False
        finally:
            self.took_s = time.perf_counter() - begun
        return True


class OnItsOwn(Ours):
    """Ours, outside of any step."""

    name = "(on its own)"

    def worker(self, threshold: int) -> ContextWorker:
        config = {"circuit_breaker_failure_threshold": threshold, "circuit_breaker_min_calls": 10**6}
        rules = BreakerRules.of(ExecutorClientConfig.model_validate(config), lease_s=110)
        client = impatient_client(Settings(redis_url=SecretStr(self._url)))
        return ContextWorker(SharedBreaker(client, "own", "default", rules))


class PybreakerWorker:
    """A worker with a breaker object of its own, because each lets only one thread in at a time."""

    def __init__(self, breaker: pybreaker.CircuitBreaker) -> None:
        self.took_s = 0.0
        self._breaker = breaker

    def attempt(self, call: Callable[[], None]) -> bool:
        begun = time.perf_counter()
        try:
            with suppress(ExecutorServerError):
                self._breaker.call(call)
        except pybreaker.CircuitBreakerError:
            return False
        finally:
            self.took_s = time.perf_counter() - begun
        return True


class Pybreaker:
    """pybreaker's `CircuitRedisStorage`."""

    name = "pybreaker"

    def __init__(self, url: str) -> None:
        self._url = url

    def worker(self, threshold: int) -> PybreakerWorker:
        storage = pybreaker.CircuitRedisStorage(
            pybreaker.STATE_CLOSED, redis.Redis.from_url(self._url), namespace="peer"
        )
        # By default the call that opens the breaker raises the error of a call that was not let through.
        return PybreakerWorker(
            pybreaker.CircuitBreaker(threshold, OPEN_S, state_storage=storage, throw_new_error_on_trip=False)
        )

    def time_passes(self) -> None:
        past = datetime.now(UTC) - timedelta(seconds=2 * OPEN_S)
        with redis.Redis.from_url(self._url) as client:
            client.set("peer:pybreaker:opened_at", int(past.timestamp()))


class PurgatoryWorker:
    """A worker with an event loop of its own, because purgatory works with asyncio's Redis only."""

    def __init__(self, url: str, threshold: int) -> None:
        self.took_s = 0.0
        self._loop = asyncio.new_event_loop()
        self._factory = AsyncCircuitBreakerFactory(threshold, OPEN_S, uow=AsyncRedisUnitOfWork(url))
        self._loop.run_until_complete(self._factory.initialize())

    def attempt(self, call: Callable[[], None]) -> bool:
        return self._loop.run_until_complete(self._attempt(call))

    async def _attempt(self, call: Callable[[], None]) -> bool:
        begun = time.perf_counter()
        try:
            breaker = await self._factory.get_breaker("peer")
            with suppress(ExecutorServerError):
                async with breaker:
                    call()
        except OpenedState:
            return False
        finally:
            self.took_s = time.perf_counter() - begun
        return True


class Purgatory:
    """purgatory's `AsyncRedisUnitOfWork`."""

    name = "purgatory"

    def __init__(self, url: str) -> None:
        self._url = url

    def worker(self, threshold: int) -> PurgatoryWorker:
        return PurgatoryWorker(self._url, threshold)

    def time_passes(self) -> None:
        with redis.Redis.from_url(self._url, decode_responses=True) as client:
            stored = json.loads(str(client.get("cbr::peer")))
            stored["opened_at"] -= 2 * OPEN_S
            client.set("cbr::peer", json.dumps(stored))
