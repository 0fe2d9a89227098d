"""What can be set for the observers of faults, and for the services that they look at."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, field_validator

from dispatcher.settings.endpoints import Endpoint, Float, Seconds, Section
from dispatcher.settings.validation import no_switch

__all__ = [
    "ApiSettings",
    "LoadSettings",
    "Observer",
    "ProbeSettings",
    "PrometheusSettings",
    "RequestSettings",
    "ServiceSettings",
]

HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
HEADER_VALUE = re.compile(r"[!-~]([ -~]*[!-~])?")
STATUS = re.compile(r"[1-5]([0-9][0-9]|xx)", re.ASCII)
PATH = re.compile(r"/[!\"$-~]*")  # printable ASCII except the space and #; a query is allowed

RESERVED = {"connection", "content-length", "host", "transfer-encoding"}
"""Headers that say how a request is sent. `host_header` sets the service's name."""


def _status(value: str) -> str:
    if not STATUS.fullmatch(value):
        raise ValueError('must be a status such as 200, or a class of them such as "2xx"')
    return value


Status = Annotated[str, BeforeValidator(str, json_schema_input_type=str | int), AfterValidator(_status)]


class RequestSettings(Section):
    """How a probe asks, and what it counts as success. An API's settings come before its service's, and those
    before the observer's."""

    method: Literal["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"] | None = None
    """HTTP method of the requests. GET if no section says another."""

    headers: dict[str, SecretStr] = Field(default={})
    """Headers of the requests, such as Authorization. Values may be secrets: no message or log shows them."""

    body: SecretStr | None = None
    """Content of the requests, sent in UTF-8. Its type is application/json unless `headers` has another."""

    expected_statuses: Annotated[tuple[Status, ...], Field(min_length=1)] | None = None
    """Which answers are not errors: `[200, 404]`, `["2xx"]`. `["2xx", "3xx"]` if no section says others."""

    request_timeout_sec: Seconds | None = None
    """How long a request is held, in seconds. Then it counts as unanswered. 35 if no section says another."""

    @field_validator("headers")
    @classmethod
    def _fit_into_a_request(cls, headers: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for number, (name, value) in enumerate(headers.items(), 1):
            if not HEADER_NAME.fullmatch(name):  # a whole line, with a secret in it, may be in its place
                raise ValueError(f"must have names as in RFC 9110, and name {number} is none")
            if name.lower() in RESERVED:
                raise ValueError(f"must not have {name!r}; the service's name is its host_header")
            if not HEADER_VALUE.fullmatch(value.get_secret_value()):
                raise ValueError(f"must have values of printable ASCII, and that of {name!r} is none")
        return headers


class LoadSettings(RequestSettings):
    """How many requests a probe sends. A service's settings come before the observer's."""

    # The bounds come before the validator, or pydantic leaves them out of the JSON Schema.
    requests_per_sec: Annotated[int, Field(ge=1, le=100), BeforeValidator(no_switch)] | None = None
    """How many requests go to a target in a second. 5 if no section says another number."""

    concurrency: Annotated[int, Field(ge=1, le=1000), BeforeValidator(no_switch)] | None = None
    """The most requests that a worker has under way to a service. Others wait, and their latency includes the
    wait. If no section says another number, it is `requests_per_sec` times `request_timeout_sec`, and 100 to
    1,000: the requests of one plan never wait for one another."""

    recovery_timeout_sec: Seconds | None = None
    """How long after a fault its target may take to become healthy, in seconds. 30 if no section says another
    time."""


class ApiSettings(RequestSettings):
    """How one API of a service is probed."""

    path: str | None = Field(default=None, repr=False)
    """The path that is called instead: `/users/{id}` is not the path of a real user, and `/users/42` may be.
    A query is not shown, because it may hold a secret."""

    @field_validator("path")
    @classmethod
    def _is_a_path(cls, value: str | None) -> str | None:
        if value is not None and not PATH.fullmatch(value):
            raise ValueError("must be a path such as /users/42?full=1: no spaces, no #")
        return value


class ServiceSettings(Endpoint, LoadSettings):
    """A service that faults hit, for observers that send requests to it."""

    base_url: str = Field()
    """`http://host:port`, to which a plan's `api` is added."""

    host_header: str | None = Field(default=None, pattern=r"^[A-Za-z0-9._:-]+$")
    """The service's name, if `base_url` is a gateway to many."""

    apis: dict[str, ApiSettings] = Field(default={})
    """What differs for single APIs, by the path that plans use."""


class ProbeSettings(LoadSettings):
    """An observer that sends requests of its own to the target."""

    kind: Literal["probe"]
    """Which observer this is."""


class PrometheusSettings(Endpoint):
    """An observer that asks a Prometheus server what it has seen.

    Queries may hold `{service}`, `{api}` and `{seconds}`, the real length of the window in whole seconds.
    In a regular expression, `{service_regex}` and `{api_regex}` match exactly the service and the API.
    """

    kind: Literal["prometheus"]
    """Which observer this is."""

    base_url: str = Field()
    """`http://host:port` of the Prometheus server."""

    error_rate_query: str
    """Share of the target's answers that were errors, 0 to 1."""

    latency_query: str
    """Mean latency of the target's answers, in milliseconds."""

    status_query: str | None = None
    """Its largest sample's label `code` is the most frequent status. Without it the status is None."""

    requests_query: str | None = None
    """How many requests the target got. Without it the observation has the doubt `count_unknown`."""

    latency_p50_query: str | None = None
    """Median latency, in milliseconds."""

    latency_p95_query: str | None = None
    """95th percentile of the latency, in milliseconds."""

    latency_p99_query: str | None = None
    """99th percentile of the latency, in milliseconds."""

    baseline: bool = False
    """Whether the queries are also asked for a window of the same length that ends as the fault is applied.

    A fault of another plan may be in that window if plans for a target follow one another closely.
    """

    scrape_interval_sec: Float = Field(default=15.0, ge=0, le=600, allow_inf_nan=False)
    """How often Prometheus scrapes the target, in seconds. It is asked this long after the window's end."""


Observer = Annotated[ProbeSettings | PrometheusSettings, Field(discriminator="kind")]
