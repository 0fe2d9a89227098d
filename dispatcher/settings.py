"""Settings: a TOML file, then `DISPATCHER_*` environment variables over it.

The file is the one that `DISPATCHER_CONFIG` names, else `config/default.toml` below the working
directory where there is one; without either, the same defaults as in that file hold.
"""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from dispatcher.errors import InvalidSettingsError
from dispatcher.problems import problems_of

__all__ = ["ExecutorClientConfig", "OnOpen", "RetryStrategy", "Settings", "load_settings"]

PREFIX = "DISPATCHER_"
DEFAULT_FILE = Path("config/default.toml")

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
ExecutorName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$")]


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


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ExecutorClientConfig(_Section):
    """One Executor: where it is, and how patiently it is called (specification 5.1)."""

    driver: Literal["faults_api"] = "faults_api"
    """Which API the Executor speaks."""

    executor_host: str = Field(default="localhost", pattern=r"^[^\s/]+$")
    executor_port: int = Field(default=8000, ge=1, le=65535)
    base_url: str | None = None
    """`http://host:port`, instead of `executor_host` and `executor_port`."""

    token: SecretStr | None = None
    """Sent as a bearer token."""

    max_retries: int = Field(default=3, ge=0, le=100)
    """Retries of one call after its first attempt."""

    retry_strategy: RetryStrategy = RetryStrategy.EXPONENTIAL_BACKOFF
    initial_retry_delay_sec: Seconds = 0.5
    max_retry_delay_sec: Seconds = 10.0
    retry_jitter: float = Field(default=0.5, ge=0, le=1)
    """Share of each delay that is left to chance: 0 none, 0.5 equal jitter, 1 full jitter."""

    default_timeout_sec: Seconds = 30.0
    """What a plan may take beyond its fault's own time before it is given up."""

    connection_timeout_sec: Seconds = 5.0
    read_timeout_sec: Seconds = 30.0
    """What waiting for an answer and reading it may take together."""

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

    circuit_breaker_window_sec: float = Field(default=60.0, ge=1, allow_inf_nan=False)
    circuit_breaker_min_calls: int = Field(default=20, ge=1)
    """Calls in the window before any share of them opens the breaker."""

    circuit_breaker_slow_call_sec: Seconds | None = None
    """A call that takes this long is slow. None: no call is."""

    circuit_breaker_slow_call_rate: float = Field(default=0.8, gt=0, le=1)
    """Share of slow calls in the window that opens the breaker."""

    circuit_breaker_on_open: OnOpen = OnOpen.FAIL
    circuit_breaker_max_defer_sec: Seconds = 3600.0
    """The longest that a plan is put off before it expires, where it has no `expires` of its own."""

    circuit_breaker_recovery_per_sec: Seconds = 50.0
    """How many of the plans that waited for the breaker come back in a second."""

    retry_budget_enabled: bool = True
    retry_budget_ratio: float = Field(default=0.1, ge=0, le=1)
    """Retries that one call which succeeds pays for. The budget is the whole fleet's."""

    retry_budget_reserve: int = Field(default=10, ge=1)
    """The most retries that are saved up, and how many there are at first."""

    retry_budget_per_sec: float = Field(default=0.1, ge=0, allow_inf_nan=False)
    """Retries that come for nothing, so that a quiet fleet has some as well."""

    max_response_bytes: int = Field(default=5_000_000, ge=1_000)

    @field_validator("base_url")
    @classmethod
    def _is_an_http_url(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = urlsplit(value)
        if url.scheme not in {"http", "https"} or not url.hostname:
            raise ValueError("must be a URL such as http://localhost:8000")
        if url.query or url.fragment or url.username:
            raise ValueError("must have no credentials, query or fragment")
        return value.rstrip("/")

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


class WorkerSettings(_Section):
    """What one worker process does at once."""

    threads: int = Field(default=8, ge=1, le=1000)
    poll_interval_sec: Seconds = 0.5
    """Between two looks at a fault that lasts longer than planned."""


class WakerSettings(_Section):
    """How due plans are woken."""

    max_sleep_sec: float = Field(default=0.5, gt=0, le=2)
    """The longest sleep between two looks while there are plans."""

    idle_sleep_sec: float = Field(default=2.0, gt=0, le=2)
    """The longest sleep while there are none."""

    batch: int = Field(default=500, ge=1)
    patience_sec: Seconds = 1.0
    """A plan that was woken but not taken up is woken again after this long, doubling each time."""

    max_patience_sec: Seconds = 30.0


class Settings(BaseSettings):
    """All settings. Read them with `load_settings`, whose errors people can use."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True, validate_default=True
    )

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """Broker, ledger and result backend. A secret, for it may hold a password."""

    key_prefix: str = Field(default="dispatcher", pattern=r"^[A-Za-z0-9._-]+$")
    queue: str = Field(default="dispatcher", pattern=r"^[A-Za-z0-9._-]+$")
    result_expires_sec: int = Field(default=86_400, ge=1)
    redis_timeout_sec: Seconds = 5.0
    worker: WorkerSettings = WorkerSettings()
    waker: WakerSettings = WakerSettings()
    executors: dict[ExecutorName, ExecutorClientConfig] = Field(
        default={"default": ExecutorClientConfig()}, min_length=1
    )

    @field_validator("redis_url")
    @classmethod
    def _is_a_redis_url(cls, value: SecretStr) -> SecretStr:
        url = urlsplit(value.get_secret_value())
        if url.scheme not in {"redis", "rediss"} or not url.hostname:
            raise ValueError("must be a URL such as redis://127.0.0.1:6379/0")
        return value

    @property
    def redis_address(self) -> str:
        """Where Redis is, without its password: `redis://127.0.0.1:6379/0`."""
        url = urlsplit(self.redis_url.get_secret_value())
        return f"{url.scheme}://{url.hostname}:{url.port or 6379}{url.path}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (no .env file is read)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (nor a folder of secrets)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, toml_file=_config_file())
        return init_settings, env_settings, toml


def load_settings() -> Settings:
    """Settings from file and environment. Raises `InvalidSettingsError`."""
    try:
        _refuse_unknown_variables()
        return Settings()
    except ValidationError as exc:
        problems = problems_of(exc)
    except ValueError as exc:  # the file is no TOML, or a variable no JSON
        problems = [["(whole)", str(exc)]]
    told = "; ".join(f"{field} {problem}" for field, problem in problems)
    raise InvalidSettingsError(f"invalid settings: {told}", problems)


def _config_file() -> Path | None:
    named = os.environ.get(f"{PREFIX}CONFIG")
    if named is None:
        return DEFAULT_FILE if DEFAULT_FILE.is_file() else None
    if not Path(named).is_file():
        raise InvalidSettingsError(f"invalid settings: {PREFIX}CONFIG names {named}, which is no file")
    return Path(named)


def _refuse_unknown_variables() -> None:
    """A misspelt variable would otherwise be passed over in silence."""
    known = {name.upper() for name in Settings.model_fields} | {"CONFIG"}
    for variable in os.environ:
        section = variable.removeprefix(PREFIX).split("__", maxsplit=1)[0]
        if variable.startswith(PREFIX) and section.upper() not in known:
            raise InvalidSettingsError(f"invalid settings: there is no setting for {variable}")
