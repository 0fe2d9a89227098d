"""What can be set for each server that workers call: Executors, services, Prometheus."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr, field_validator, model_validator

from dispatcher.observations import Doubt

__all__ = [
    "MAX_SECONDS",
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

MAX_SECONDS = 31_536_000
"""A year. Longer waits do not fit into every clock and socket."""

Seconds = Annotated[float, Field(gt=0, le=MAX_SECONDS, allow_inf_nan=False)]


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


class Section(BaseModel):
    """A part of the settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Endpoint(Section):
    """A server that workers call over HTTP, and how far it is trusted."""

    base_url: str | None = None
    """`http://host:port`"""

    token: SecretStr | None = None
    """Sent as a bearer token."""

    ca_file: Path | None = None
    """Certificates that the server's may be signed with (PEM), instead of the public ones."""

    client_cert_file: Path | None = None
    """The certificate by which the server knows a worker (PEM)."""

    client_key_file: Path | None = None
    """Its private key, if that is not in the same file."""

    proxies_from_environment: bool = False
    """Whether HTTP_PROXY, HTTPS_PROXY and NO_PROXY apply."""

    connection_timeout_sec: Seconds = 5.0
    read_timeout_sec: Seconds = 30.0
    """What waiting for an answer and reading it may take together."""

    max_response_bytes: int = Field(default=5_000_000, ge=1_000)
    """A longer answer breaks the contract."""

    @field_validator("base_url")
    @classmethod
    def _is_an_http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = urlsplit(value)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ValueError("must be a URL such as http://localhost:8000")
        if url.query or url.fragment or "@" in url.netloc:
            raise ValueError("must have no credentials, query or fragment")
        return value.rstrip("/")

    @field_validator("token")
    @classmethod
    def _fits_into_a_header(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]*", value.get_secret_value()):
            raise ValueError("must be printable ASCII without spaces; does it end with a line break?")
        return value

    @field_validator("ca_file", "client_cert_file", "client_key_file")
    @classmethod
    def _is_a_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError(f"must be a file; there is none at {value}")
        return value

    @model_validator(mode="after")
    def _a_key_has_a_certificate(self) -> Self:
        if self.client_key_file and not self.client_cert_file:
            raise ValueError("client_key_file needs client_cert_file")
        return self

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        return self.base_url or ""


class ServiceSettings(Endpoint):
    """A service that faults hit, for observers that send requests to it."""

    base_url: str = Field()
    """`http://host:port`, to which a plan's `api` is added."""

    host_header: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._:-]+$")
    """The service's name, if `base_url` is a gateway to many."""


class ProbeSettings(Section):
    """An observer that sends requests of its own to the target."""

    kind: Literal["probe"]
    requests_per_sec: int = Field(default=5, ge=1, le=100)
    """How many GETs go to the target in a second, before, during and after the fault."""


class PrometheusSettings(Endpoint):
    """An observer that asks a Prometheus server what it has seen.

    Queries may hold `{service}`, `{api}` and `{seconds}`, the fault's duration.
    """

    kind: Literal["prometheus"]
    base_url: str = Field()
    error_rate_query: str
    """Share of the target's answers that were errors, 0 to 1."""

    latency_query: str
    """Mean latency of the target's answers, in milliseconds."""

    status_query: str | None = None
    """Its largest sample's label `code` is the most frequent status. 0 is observed if there is none."""


Observer = Annotated[ProbeSettings | PrometheusSettings, Field(discriminator="kind")]


class ExecutorClientConfig(Endpoint):
    """One Executor: where it is, and how patiently it is called (specification 5.1)."""

    driver: str = "faults_api"
    """The Executor's API: the name of an entry point in the group `fault_dispatcher.drivers`."""

    driver_options: dict[str, JsonValue] = {}
    """What a driver from elsewhere wants to know."""

    observer: Observer | None = None
    """What observes the target, if the Executor has no metrics."""

    idempotent_apply: bool = True
    """Whether the Executor takes a second apply with the same key for the first one. If not, an apply without
    an answer is never repeated."""

    executor_host: str = Field(default="localhost", pattern=r"^[^\s/]+$")
    executor_port: int = Field(default=8000, ge=1, le=65535)
    base_url: str | None = None
    """`http://host:port`, instead of `executor_host` and `executor_port`."""

    max_retries: int = Field(default=3, ge=0, le=100)
    """Retries of one call after its first attempt."""

    retry_strategy: RetryStrategy = RetryStrategy.EXPONENTIAL_BACKOFF
    initial_retry_delay_sec: Seconds = 0.5
    max_retry_delay_sec: Seconds = 10.0
    retry_jitter: float = Field(default=0.5, ge=0, le=1)
    """Share of each delay that is left to chance: 0 none, 0.5 equal jitter, 1 full jitter."""

    default_timeout_sec: Seconds = 30.0
    """What a plan may take beyond its fault's own time before it is given up."""

    takes_effect_sec: float = Field(default=0.0, ge=0, le=600, allow_inf_nan=False)
    """How long after an apply its fault is in force, and after a stop or its end is gone, in seconds.

    `dispatcher conformance --measure-effect` measures it.
    """

    check_interval_sec: Seconds = 10.0
    """Between two looks at a fault that runs, at least. More if many faults run at once."""

    min_requests: int = Field(default=1, ge=0)
    """Fewer requests than this during a fault make no observation: the plan ends with `FaultUnobservedError`."""

    on_doubt: dict[Doubt, OnDoubt] = {}
    """For each doubt: `keep` the observation (the default), or `fail` the plan."""

    stop_confirmation_sec: Seconds = 15.0
    """How long an answer is waited for that says that a fault is over. Then the plan ends with
    `FaultInDoubtError`, and its target stays reserved."""

    health_check_interval_sec: Seconds = 60.0
    """How long one answer about the Executor's health holds for the whole fleet."""

    circuit_breaker_enabled: bool = True
    circuit_breaker_failure_threshold: int = Field(default=5, ge=1)
    """Failures one after the other that open the breaker."""

    circuit_breaker_timeout_sec: Seconds = 60.0
    """How long it stays open before a probe is let through. Doubles with each probe that fails."""

    circuit_breaker_max_timeout_sec: Seconds = 600.0
    """The longest that it stays open, `Retry-After` included."""

    circuit_breaker_jitter: float = Field(default=0.1, ge=0, le=1)
    """By how much of itself the time may be longer, at random."""

    circuit_breaker_half_open_probes: int = Field(default=1, ge=1)
    """The most probes under way at a time, over the whole fleet."""

    circuit_breaker_success_threshold: int = Field(default=1, ge=1)
    """Probes that must succeed before the breaker closes."""

    circuit_breaker_failure_rate: float = Field(default=0.5, gt=0, le=1)
    """Share of failures in the window that opens the breaker."""

    circuit_breaker_window_sec: float = Field(default=60.0, ge=1, le=MAX_SECONDS, allow_inf_nan=False)
    circuit_breaker_min_calls: int = Field(default=20, ge=1)
    """Calls in the window before any share of them opens the breaker."""

    circuit_breaker_slow_call_sec: Seconds | None = None
    """A call that takes this long is slow. None: no call is."""

    circuit_breaker_slow_call_rate: float = Field(default=0.8, gt=0, le=1)
    """Share of slow calls in the window that opens the breaker."""

    circuit_breaker_on_open: OnOpen = OnOpen.FAIL
    circuit_breaker_max_defer_sec: Seconds = 3600.0
    """The longest that a plan is put off before it expires, if it has no `expires` of its own."""

    circuit_breaker_recovery_per_sec: Seconds = 50.0
    """How many of the plans that waited for the breaker come back in a second."""

    retry_budget_enabled: bool = True
    retry_budget_ratio: float = Field(default=0.1, ge=0, le=1)
    """Retries that one call which succeeds pays for. The budget is the whole fleet's."""

    retry_budget_reserve: int = Field(default=10, ge=1)
    """The most retries that are saved up, and how many there are at first."""

    retry_budget_per_sec: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Retries that come for nothing, so that a quiet fleet has some as well."""

    max_trace_bytes: int = Field(default=2_000_000, ge=0)
    """What an observation keeps of the traces, as JSON."""

    max_log_bytes: int = Field(default=200_000, ge=0)
    """What an observation keeps of the log lines, as JSON."""

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

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        return self.base_url or f"http://{self.executor_host}:{self.executor_port}"
