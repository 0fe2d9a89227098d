"""Settings: the TOML file that `DISPATCHER_CONFIG` names, if any, then `DISPATCHER_*` variables over it.

Nothing else is read: no file of the working directory, and no variable of another program.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import (
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    field_validator,
)
from pydantic_core import core_schema
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from dispatcher.capabilities import CAPABILITIES_OF_DRIVERS, refusal
from dispatcher.limits import MAX_SECONDS
from dispatcher.settings.endpoints import Float, Int
from dispatcher.settings.executors import (
    ExecutorClientConfig,
    ProbeSettings,
    Seconds,
    Section,
    ServiceSettings,
)
from dispatcher.settings.files import config_file
from dispatcher.settings.sources import Sources
from dispatcher.settings.urls import (
    REDIS_PORT,
    address_of,
    check_redis_url,
    is_broker,
    redis_options,
    split_url,
    why_no_broker,
)
from dispatcher.settings.validation import as_a_part, invalid_settings, outermost
from dispatcher.settings.variables import PREFIX, KnownVariables, warn_of_unknown_variables

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pydantic import GetCoreSchemaHandler
    from pydantic_core import CoreSchema

    from dispatcher.capabilities import Capability
    from dispatcher.errors import CapabilityMissingError

__all__ = ["WITHOUT_METRICS", "LogFormat", "Settings", "load_settings"]

WITHOUT_METRICS = {"policy_api"}
"""Drivers of Executors that inject faults and report nothing of their effect."""

NOT_GRPC = "observes by a probe, which sends no gRPC calls"
OVER_REDIS = ("redis", "rediss")
ExecutorName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$")]


class WorkerSettings(Section):
    """What one worker process does at once."""

    threads: Int = Field(default=16, ge=1, le=1000)
    """Steps that one worker process carries out at once. A waiting plan takes none."""

    poll_interval_sec: Seconds = 0.5
    """The longest time between two looks at a fault that lasts longer than planned; it begins at 20 ms."""

    lease_sec: Float = Field(default=6.0, ge=1, le=600)
    """How long a killed worker holds its plans up, at most. A worker renews its leases every third of it."""

    executor_share: Float = Field(default=0.5, gt=0, le=1)
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
    """All settings. Read them with `load_settings`, whose errors also say where each wrong value is from.

    Raises `InvalidSettingsError`, which names every wrong field and shows no value.
    """

    model_config: ClassVar[SettingsConfigDict] = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
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

    result_expires_sec: Int = Field(default=86_400, ge=1, le=MAX_SECONDS)
    """How long an ended plan and its result are kept."""

    redis_timeout_sec: Float = Field(default=5.0, ge=0.1, le=MAX_SECONDS, allow_inf_nan=False)
    """How long one Redis command may take, connecting included."""

    worker: WorkerSettings = WorkerSettings()
    logs: LogSettings = LogSettings()
    executors: dict[ExecutorName, ExecutorClientConfig] = Field(
        default={"default": ExecutorClientConfig()}, min_length=1
    )
    services: dict[str, ServiceSettings] = {}
    """The addresses of services that faults hit; observers send requests to them."""

    def why_unobservable(self, executor: str, service: str, *, grpc: bool = False) -> str | None:
        """Why a plan for this service could have no observation, and what to add to the settings.

        `grpc`: whether it hits gRPC calls only.
        """
        config = self.executors[executor]
        if config.driver in WITHOUT_METRICS and config.observer is None:
            message = f"has no metrics: add [executors.{executor}.observer] with kind"
            return f'{message} = "probe" or "prometheus" to the settings'
        if isinstance(config.observer, ProbeSettings) and grpc:
            return f'{NOT_GRPC}: set [executors.{executor}.observer] to kind = "prometheus" in the settings'
        if isinstance(config.observer, ProbeSettings) and service not in self.services:
            return f"probes {service}: add [services.{service}] with its base_url to the settings"
        return None

    def why_incapable(self, executor: str, needs: Iterable[Capability]) -> CapabilityMissingError | None:
        """The error for a plan that needs what the Executor cannot do, as far as the settings say so.

        What they leave open is asked of the Executor's health by the worker, before it applies the plan.
        """
        config = self.executors[executor]
        known = CAPABILITIES_OF_DRIVERS.get(config.driver)
        for can, why in (
            (known, f"the API of its driver {config.driver} has no such field"),
            (
                config.capabilities,
                f"the capabilities of [executors.{executor}] in the settings do not have it",
            ),
        ):
            missing = () if can is None else [each for each in needs if each not in can]
            if missing:
                return refusal(executor, missing, why)
        return None

    @field_validator("redis_url")
    @classmethod
    def _is_a_redis_url(cls, value: SecretStr) -> SecretStr:
        check_redis_url(value.get_secret_value())
        return value

    @field_validator("broker_url")
    @classmethod
    def _is_a_url(cls, value: SecretStr | None) -> SecretStr | None:
        urls = value.get_secret_value().split(";") if value else []
        schemes = [split_url(url).scheme for url in urls]
        if not all(schemes):
            raise ValueError("must be a URL such as amqp://127.0.0.1:5672//, or several with ; between them")
        for url, scheme in zip(urls, schemes, strict=True):
            if scheme in OVER_REDIS:
                check_redis_url(url)
            elif not is_broker(scheme):
                raise ValueError("must begin with a broker that Celery knows, such as amqp:// or redis://")
        return value or None

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """See pydantic. `outermost` comes around all other validators, those of derived classes included."""
        return core_schema.no_info_wrap_validator_function(outermost, handler(source))

    @property
    def broker_shares_redis(self) -> bool:
        """Whether the messages are in the same Redis as the ledger."""
        return self.broker_url is None or self.broker_url == self.redis_url

    def check_broker(self) -> None:
        """Raises `InvalidSettingsError` if a package that the broker needs is not installed.

        For programs that send or receive messages. Others only read the ledger.
        """
        urls = self.broker_url.get_secret_value().split(";") if self.broker_url else []
        for scheme in (split_url(url).scheme for url in urls):
            problem = None if scheme in OVER_REDIS else why_no_broker(scheme)
            if problem is not None:
                raise invalid_settings([["broker_url", problem]])

    @property
    def redis_address(self) -> str:
        """Redis's address without its password: `redis://127.0.0.1:6379/0`."""
        url = self.redis_url.get_secret_value()
        address, database = address_of(url, REDIS_PORT), redis_options(url).get("db")
        return address if database is None else f"{address[: -len(split_url(url).path) or None]}/{database}"

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (see `KnownVariables`)
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (no .env file is read)
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 (nor a folder of secrets)
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = config_file()
        values = InitSettingsSource(settings_cls, init_kwargs={} if file is None else file.values)
        return init_settings, KnownVariables(settings_cls), values


def load_settings() -> Settings:
    """Settings from file and environment.

    Raises `InvalidSettingsError`, which names each wrong value with its line in the file, or its variable.
    Warns of variables that begin with `DISPATCHER_` and are not settings.
    """
    warn_of_unknown_variables(Settings)
    try:
        with as_a_part():
            return Settings()
    except ValidationError as exc:
        problems = Sources(Settings).problems_of(exc)
    raise invalid_settings(problems)
