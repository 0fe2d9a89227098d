"""What can be set for each Executor."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import AddressValueError, IPv6Address
from typing import Self

from pydantic import Field, JsonValue, field_validator, model_validator

from dispatcher.capabilities import Capability
from dispatcher.limits import MAX_SECONDS
from dispatcher.observations import Doubt
from dispatcher.settings.endpoints import Endpoint, Float, Int, Seconds, Section
from dispatcher.settings.observers import Observer, ProbeSettings, PrometheusSettings, ServiceSettings

__all__ = [
    "Endpoint",
    "ExecutorClientConfig",
    "OnDoubt",
    "OnOpen",
    "ProbeSettings",
    "PrometheusSettings",
    "RetryStrategy",
    "Seconds",
    "Section",
    "ServiceSettings",
]


class RetryStrategy(StrEnum):
    """How the delay before a retry grows with the attempt (specification 5.2)."""

    NONE = "none"
    """No retry: the first failure is final."""

    LINEAR_BACKOFF = "linear"
    """`initial * attempt`"""

    EXPONENTIAL_BACKOFF = "exp"
    """`initial * 2 ** (attempt - 1)`"""


class OnOpen(StrEnum):
    """What becomes of a plan that is not applied yet while the breaker is open."""

    FAIL = "fail"
    """It ends with `CircuitOpenError`."""

    DEFER = "defer"
    """It waits until the Executor is back."""


class OnDoubt(StrEnum):
    """What becomes of an observation that has a doubt."""

    KEEP = "keep"
    """The plan ends with the observation, and the doubt is in its `doubts`."""

    FAIL = "fail"
    """The plan ends with `FaultUnobservedError`, which names the doubt."""


class ExecutorClientConfig(Endpoint):
    """One Executor: where it is, and how patiently it is called (specification 5.1)."""

    driver: str = "faults_api"
    """The Executor's API: the name of an entry point in the group `fault_dispatcher.drivers`."""

    driver_options: dict[str, JsonValue] = Field(default={}, repr=False)
    """What the driver wants to know. Texts are not shown, because an option may be a secret."""

    capabilities: tuple[Capability, ...] | None = None
    """What the Executor can do beyond the basics: `headers`, `grpc_status`. Its health is asked if absent."""

    observer: Observer | None = None
    """What observes the target, if the Executor has no metrics."""

    idempotent_apply: bool = True
    """Whether the Executor takes a second apply with the same key for the first one. If not, an apply without
    an answer is never repeated."""

    executor_host: str = Field(default="localhost", pattern=r"^[^\s/?#@]+$")
    """Host name or address of the Executor."""

    executor_port: Int = Field(default=8000, ge=1, le=65535)
    """Its TCP port."""

    base_url: str | None = None
    """`http://host:port`, instead of `executor_host` and `executor_port`. Made of these two if absent."""

    max_retries: Int = Field(default=3, ge=0, le=100)
    """Retries of one call after its first attempt."""

    retry_strategy: RetryStrategy = RetryStrategy.EXPONENTIAL_BACKOFF
    """How the delay grows with the attempt: not at all without retries, by the same amount, or doubled."""

    initial_retry_delay_sec: Seconds = 0.5
    """The delay before the first retry."""

    max_retry_delay_sec: Seconds = 10.0
    """The longest delay before a retry."""

    retry_jitter: Float = Field(default=0.5, ge=0, le=1)
    """Share of each delay that is left to chance: 0 none, 0.5 equal jitter, 1 full jitter."""

    default_timeout_sec: Seconds = 30.0
    """What a plan may take beyond its fault's own time before it is given up."""

    takes_effect_sec: Float = Field(default=0.0, ge=0, le=600, allow_inf_nan=False)
    """How long after an apply its fault is in force, and after a stop or its end is gone, in seconds.

    `dispatcher conformance --measure-effect` measures it.
    """

    check_interval_sec: Seconds = 10.0
    """Between two looks at a fault that runs, at least. More if many faults run at once."""

    min_requests: Int = Field(default=1, ge=0)
    """Fewer requests than this during a fault make no observation: the plan ends with
    `FaultUnobservedError`."""

    on_doubt: dict[Doubt, OnDoubt] = Field(default={})
    """For each doubt: `keep` the observation (the default), or `fail` the plan."""

    apply_not_after_sec: Seconds = 10.0
    """How long after it was sent an apply may begin its fault, on an Executor that keeps `Not-After`."""

    stop_confirmation_sec: Seconds = 15.0
    """How long an answer is waited for that says that a fault is over. Then the plan ends with
    `FaultInDoubtError`, and its target stays reserved."""

    health_check_interval_sec: Seconds = 60.0
    """How long one answer about the Executor's health holds for the whole fleet."""

    circuit_breaker_enabled: bool = True
    """Whether the fleet leaves an Executor alone that fails too often."""

    circuit_breaker_failure_threshold: Int = Field(default=5, ge=1)
    """Failures one after the other that open the breaker."""

    circuit_breaker_timeout_sec: Seconds = 60.0
    """How long it stays open before a probe is let through. Doubles with each probe that fails."""

    circuit_breaker_max_timeout_sec: Seconds = 600.0
    """The longest that it stays open, `Retry-After` included."""

    circuit_breaker_jitter: Float = Field(default=0.1, ge=0, le=1)
    """By how much of itself the time may be longer, at random."""

    circuit_breaker_half_open_probes: Int = Field(default=1, ge=1)
    """The most probes under way at a time, over the whole fleet."""

    circuit_breaker_success_threshold: Int = Field(default=1, ge=1)
    """Probes that must succeed before the breaker closes."""

    circuit_breaker_failure_rate: Float = Field(default=0.5, gt=0, le=1)
    """Share of failures in the window that opens the breaker."""

    circuit_breaker_window_sec: Float = Field(default=60.0, ge=1, le=MAX_SECONDS, allow_inf_nan=False)
    """The window of time over which shares of failures and of slow calls are counted."""

    circuit_breaker_min_calls: Int = Field(default=20, ge=1)
    """Calls in the window before any share of them opens the breaker."""

    circuit_breaker_slow_call_sec: Seconds | None = None
    """A call that takes this long is slow. None: no call is."""

    circuit_breaker_slow_call_rate: Float = Field(default=0.8, gt=0, le=1)
    """Share of slow calls in the window that opens the breaker."""

    circuit_breaker_on_open: OnOpen = OnOpen.FAIL
    """What becomes of a plan that is not applied yet while the breaker is open: it ends, or it waits."""

    circuit_breaker_max_defer_sec: Seconds = 3600.0
    """The longest that a plan is deferred before it expires, if it has no `expires` of its own."""

    circuit_breaker_recovery_per_sec: Seconds = 50.0
    """How many of the plans that waited for the breaker come back in a second."""

    retry_budget_enabled: bool = True
    """Whether retries are limited over the whole fleet."""

    retry_budget_ratio: Float = Field(default=0.1, ge=0, le=1)
    """Retries that one call which succeeds pays for. The budget is the whole fleet's."""

    retry_budget_reserve: Int = Field(default=10, ge=1)
    """The most retries that are saved up, and how many there are at first."""

    retry_budget_per_sec: Float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Retries that come for nothing, so that a quiet fleet has some as well."""

    max_trace_bytes: Int = Field(default=2_000_000, ge=0)
    """What an observation keeps of the traces, as JSON."""

    max_log_bytes: Int = Field(default=200_000, ge=0)
    """What an observation keeps of the log lines, as JSON."""

    @field_validator("executor_host")
    @classmethod
    def _is_a_host(cls, value: str) -> str:
        try:
            return str(IPv6Address(value.strip("[]"))) if ":" in value else value
        except AddressValueError as exc:
            raise ValueError("must be a host name or an address, without a port") from exc

    @model_validator(mode="after")
    def _base_url_of_host_and_port(self) -> Self:
        """Not by assignment, because the model is frozen, and the field would count as set."""
        if self.base_url is None:
            host = f"[{self.executor_host}]" if ":" in self.executor_host else self.executor_host
            self.__dict__["base_url"] = f"http://{host}:{self.executor_port}"
        return self

    @model_validator(mode="after")
    def _delays_are_in_order(self) -> Self:
        if self.initial_retry_delay_sec > self.max_retry_delay_sec:
            raise ValueError("initial_retry_delay_sec must not exceed max_retry_delay_sec")
        return self

    @model_validator(mode="after")
    def _open_times_are_in_order(self) -> Self:
        if self.circuit_breaker_timeout_sec > self.circuit_breaker_max_timeout_sec:
            raise ValueError("circuit_breaker_timeout_sec must not exceed circuit_breaker_max_timeout_sec")
        return self
