"""Settings: the TOML file that `DISPATCHER_CONFIG` names, if any, then `DISPATCHER_*` variables over it.

Nothing else is read: no file of the working directory, and no variable of another program.
"""

from __future__ import annotations

import os
import re
import tomllib
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import (
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)
from redis.connection import parse_url

from dispatcher.errors import InvalidSettingsError
from dispatcher.settings.executors import (
    MAX_SECONDS,
    ExecutorClientConfig,
    ProbeSettings,
    Seconds,
    Section,
    ServiceSettings,
)
from dispatcher.settings.validation import problems_of
from dispatcher.settings.variables import KnownVariables, warn_of_unknown_variables

__all__ = ["WITHOUT_METRICS", "LogFormat", "Settings", "load_settings"]

PREFIX = "DISPATCHER_"
WITHOUT_METRICS = {"policy_api"}
"""Drivers of Executors that inject faults and report nothing of their effect."""

CERTIFICATE_CHECKS = {"required", "optional", "none"}
"""How far the certificate of a Redis is checked, in redis-py's words."""

ExecutorName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$")]


class WorkerSettings(Section):
    """What one worker process does at once."""

    threads: int = Field(default=16, ge=1, le=1000)
    """Steps that one worker process carries out at once. A waiting plan takes none."""

    poll_interval_sec: Seconds = 0.5
    """Between two looks at a fault that lasts longer than planned."""

    lease_sec: float = Field(default=6.0, ge=1, le=600)
    """How long a killed worker holds its plans up, at most. A worker renews its leases every third of it."""

    executor_share: float = Field(default=0.5, gt=0, le=1)
    """The part of the threads that one Executor may take while others are configured."""


class LogFormat(StrEnum):
    """What a worker's log lines are."""

    TEXT = "text"
    """For people: Celery's lines, with the fields of the step at their end."""

    JSON = "json"
    """For programs: one object a line."""


class LogSettings(Section):
    """What workers log."""

    format: LogFormat = LogFormat.TEXT
    """Lines for people, or one JSON object a line."""


def _key_prefix(fields: dict[str, Any]) -> str:
    return str(fields["key_prefix"])


class Settings(BaseSettings):
    """All settings. Read them with `load_settings`, whose errors people can use."""

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        validate_default=True,
        use_attribute_docstrings=True,
    )

    redis_url: SecretStr = SecretStr("redis://127.0.0.1:6379/0")
    """Broker, ledger and result backend. A secret, because it may hold a password.

    `rediss://` is over TLS: the server's certificate is verified against the public authorities, or those in
    the file that `?ssl_ca_certs=` names.
    """

    broker_url: SecretStr | None = None
    """The broker that carries Celery's messages, any that Celery supports. `redis_url` if absent."""

    key_prefix: str = Field(default="dispatcher", pattern=r"^[A-Za-z0-9._-]+$")
    """Names this fleet: fleets with other prefixes share nothing, though they share a Redis."""

    queue: str = Field(default_factory=_key_prefix, pattern=r"^[A-Za-z0-9._-]+$")
    """The Celery queue of its messages. `key_prefix` if absent."""

    result_expires_sec: int = Field(default=86_400, ge=1, le=MAX_SECONDS)
    """How long an ended plan and its result are kept."""

    redis_timeout_sec: float = Field(default=5.0, ge=0.1, le=MAX_SECONDS, allow_inf_nan=False)
    """How long one Redis command may take, connecting included."""

    worker: WorkerSettings = WorkerSettings()
    logs: LogSettings = LogSettings()
    executors: dict[ExecutorName, ExecutorClientConfig] = Field(
        default={"default": ExecutorClientConfig()}, min_length=1
    )
    services: dict[str, ServiceSettings] = {}
    """The addresses of services that faults hit; observers send requests to them."""

    def why_unobservable(self, executor: str, service: str) -> str | None:
        """Why a plan for this service could have no observation, and what to add to the settings."""
        config = self.executors[executor]
        if config.driver in WITHOUT_METRICS and config.observer is None:
            message = f"has no metrics: add [executors.{executor}.observer] with kind"
            return f'{message} = "probe" or "prometheus" to the settings'
        if isinstance(config.observer, ProbeSettings) and service not in self.services:
            return f"probes {service}: add [services.{service}] with its base_url to the settings"
        return None

    @field_validator("redis_url")
    @classmethod
    def _is_a_redis_url(cls, value: SecretStr) -> SecretStr:
        url = urlsplit(value.get_secret_value())
        if url.scheme not in {"redis", "rediss"} or not url.hostname:
            raise ValueError("must be a URL such as redis://127.0.0.1:6379/0")
        if parse_url(value.get_secret_value()).get("ssl_cert_reqs", "required") not in CERTIFICATE_CHECKS:  # type: ignore[no-untyped-call]
            raise ValueError("must have required, optional or none as its ssl_cert_reqs, if any")
        return value

    @property
    def broker_shares_redis(self) -> bool:
        """Whether the messages are in the same Redis as the ledger."""
        return self.broker_url is None or self.broker_url == self.redis_url

    @property
    def redis_address(self) -> str:
        """Redis's address without its password: `redis://127.0.0.1:6379/0`."""
        url = urlsplit(self.redis_url.get_secret_value())
        return f"{url.scheme}://{url.hostname}:{url.port or 6379}{url.path}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (see `KnownVariables`)
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (no .env file is read)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (nor a folder of secrets)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls, toml_file=_config_file())
        return init_settings, KnownVariables(settings_cls), toml


def load_settings() -> Settings:
    """Settings from file and environment. Raises `InvalidSettingsError`.

    Warns of variables that begin with `DISPATCHER_` and are not settings.
    """
    warn_of_unknown_variables(Settings, PREFIX)
    try:
        return Settings()
    except ValidationError as exc:
        problems = problems_of(exc)
    except tomllib.TOMLDecodeError as exc:
        problems = [[str(_config_file()), f"is not valid TOML: {exc}"]]
    except SettingsError as exc:
        field = re.search(r'field "(\w+)"', str(exc))
        name = "(whole)" if field is None else PREFIX + field[1].upper()
        problems = [[name, "must be JSON; or set a variable for each field, with __ between the names"]]
    message = "; ".join(f"{field} {problem}" for field, problem in problems)
    raise InvalidSettingsError(f"invalid settings: {message}", problems)


def _config_file() -> Path | None:
    named = os.environ.get(f"{PREFIX}CONFIG")
    if named is not None and not Path(named).is_file():
        raise InvalidSettingsError(f"invalid settings: {PREFIX}CONFIG names {named}, which is not a file")
    return None if named is None else Path(named)
