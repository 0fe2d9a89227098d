"""The source specification's names, each usable as it writes them. docs/specification.md says what differs.

    from dispatcher.specification import ExecutorClientConfig, HttpExecutorClient

The clients here carry plans out in the calling process. This module therefore imports `workers`, which
`dispatcher` does not. If plans must survive their process, use `Dispatcher`, an `IExecutorClient` as well.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from pydantic import ValidationError

from dispatcher.errors import (
    ConnectionError,  # noqa: A004 (the specification's name)
    ExecutorClientError,
    InvalidSettingsError,
    TimeoutError,  # noqa: A004 (the specification's name)
)
from dispatcher.interface import ExecutorClient as IExecutorClient
from dispatcher.models import FaultPlan, FaultType
from dispatcher.observations import RawObservation
from dispatcher.one_process import OfOneProcess
from dispatcher.settings.executors import ExecutorClientConfig, RetryStrategy
from dispatcher.settings.validation import problems_of
from dispatcher.submissions import check_plan
from dispatcher.telemetry.metrics import ExecutorClientMetrics
from workers.breaker.local import LocalBreaker
from workers.breaker.rules import BreakerRules
from workers.local import HttpExecutorClient

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from dispatcher.settings.executors import ServiceSettings

__all__ = [
    "CircuitBreaker",
    "ConnectionError",
    "ExecutorClientConfig",
    "ExecutorClientError",
    "ExecutorClientMetrics",
    "FaultPlan",
    "FaultType",
    "HttpExecutorClient",
    "HttpExecutorClientWithExtendedAPI",
    "IExecutorClient",
    "RawObservation",
    "RetryStrategy",
    "TimeoutError",
]

EXTENDED_API = "faults_api"
"""The driver of the API that the specification adds to the Executor (appendix A, way 2)."""


class CircuitBreaker(OfOneProcess, LocalBreaker):
    """The specification's circuit breaker (5.1, 5.2), for calls of your own. Safe to share between threads.

        if not breaker.can_attempt():
            raise ConnectionError("Circuit breaker is OPEN")

    Ask and report from the same thread. The clients have breakers of their own, with more rules.
    """

    def __init__(
        self,
        failure_threshold: int = 5,
        timeout_sec: float = 60.0,
        *,
        clock_ms: Callable[[], float] = lambda: time.monotonic() * 1000,
    ) -> None:
        """It opens after `failure_threshold` failures in a row.

        After `timeout_sec` seconds it lets one call through as a probe, and closes if that succeeds. A
        probe without a report keeps its place for as long. Raises `InvalidSettingsError`.
        """
        try:
            config = ExecutorClientConfig(
                circuit_breaker_failure_threshold=failure_threshold,
                circuit_breaker_timeout_sec=timeout_sec,
                circuit_breaker_max_timeout_sec=timeout_sec,
                circuit_breaker_jitter=0.0,
                circuit_breaker_min_calls=sys.maxsize,
            )
        except ValidationError as exc:
            problems = problems_of(exc)
            message = "; ".join(" ".join(each) for each in problems)
            raise InvalidSettingsError(f"invalid settings: {message}", problems) from exc
        super().__init__("default", BreakerRules.of(config, lease_s=timeout_sec), clock_ms=clock_ms)


class HttpExecutorClientWithExtendedAPI(HttpExecutorClient):
    """The specification's client of the faults API, which also takes a start time (appendix A, way 2)."""

    def __init__(
        self,
        config: ExecutorClientConfig | None = None,
        *,
        redis_url: str | None = None,
        services: Mapping[str, ServiceSettings] | None = None,
        executor: str = "default",
    ) -> None:
        """As for `HttpExecutorClient`. Raises `InvalidSettingsError`, also for a driver but `faults_api`."""
        if config is not None and config.driver != EXTENDED_API:
            problem = f"must be {EXTENDED_API}, not {config.driver}: use HttpExecutorClient"
            raise InvalidSettingsError(f"invalid settings: driver {problem}", [["driver", problem]])
        super().__init__(config, redis_url=redis_url, services=services, executor=executor)

    def apply_and_observe(
        self, plan: FaultPlan, timeout_sec: float | None = 30.0, start_time: datetime | str | None = None
    ) -> RawObservation:
        """Carry the plan out and return what was observed. See `HttpExecutorClient`.

        The fault begins at `start_time` (RFC 3339), which replaces the plan's own. It begins at once if both
        are absent. `timeout_sec` counts from there. Raises `ExecutorClientError`.
        """
        return super().apply_and_observe(check_plan("plan", plan).starting_at(start_time), timeout_sec)
