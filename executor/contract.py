"""The faults API: what comes in and what goes out (specification, appendix A, way 2)."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    JsonValue,
    WithJsonSchema,
    model_validator,
)

__all__ = [
    "CAPABILITIES",
    "CONTRACT",
    "ApiPath",
    "FaultApplied",
    "FaultApply",
    "FaultConfig",
    "FaultList",
    "FaultMetrics",
    "FaultStatus",
    "Health",
    "Int",
    "ListedFault",
    "Moment",
    "NotAfter",
    "Refusal",
]


CONTRACT = "1.3"
"""The version of this contract. Its major number changes if a client would break."""

ApiPath = Annotated[str, Field(pattern=r"^/[!\"$->@-~]*$", max_length=2048)]
"""Printable ASCII except the space, # and ?."""


def _whole(value: object) -> object:
    """12.0 is an integer too (JSON Schema, 6.1.1)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Int = Annotated[int, BeforeValidator(_whole)]

HeaderName = Annotated[str, Field(pattern=r"^[a-z0-9!#$%&'*+.^_`|~-]{1,64}$")]
"""In lower case (RFC 9110, section 5.1)."""

HeaderValue = Annotated[str, Field(pattern=r"^[!-~]([ -~]{0,254}[!-~])?$")]
Headers = Annotated[
    dict[HeaderName, HeaderValue],
    Field(min_length=1, max_length=8, json_schema_extra={"additionalProperties": False}),
]
Protocol = Literal["http", "grpc"]

CAPABILITIES = ("dead_man", "grpc_status", "headers", "http2")
"""What this Executor can do beyond the basics of the contract."""

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)


def _rfc_3339(value: object) -> object:
    if not (isinstance(value, str) and RFC_3339.fullmatch(value)):
        raise ValueError("a moment is written as 2030-01-31T12:00:00.000Z (RFC 3339)")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_rfc_3339)]
"""A date and time with its offset from UTC (RFC 3339)."""

NotAfter = Annotated[Moment | None, WithJsonSchema({"type": "string", "format": "date-time"})]


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, use_attribute_docstrings=True)


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class FaultConfig(_Request):
    """What the fault does, in the units of the contract."""

    delay_ms: Annotated[Int, Field(ge=1, le=60_000)] | None = None
    """How long each affected request is held, in milliseconds. Delay faults only."""

    http_status: Annotated[Int, Field(ge=400, le=599)] | None = None
    """What each affected request is answered with. Abort faults of protocol `http` only."""

    grpc_status: Annotated[Int, Field(ge=1, le=16)] | None = None
    """The gRPC status that each affected call is answered with. Abort faults of protocol `grpc` only. Since
    contract 1.3, with the capability `grpc_status`."""

    start_delay_ms: Int = Field(default=0, ge=0, le=60_000)
    """How long each affected request is held before the fault acts on it, in milliseconds."""


OWN_FIELDS = ("delay_ms", "http_status", "grpc_status")
"""Fields of the configuration, one for each kind of fault."""


def _one_config_for_each_type(schema: dict[str, Any]) -> None:
    """What the validator below asks for, in the words of JSON Schema."""
    null = {"type": "null"}
    grpc = {"properties": {"protocol": {"const": "grpc"}}, "required": ["protocol"]}
    http = {"properties": {"protocol": {"const": "http"}}}
    schema["oneOf"] = [
        {
            "properties": {
                "fault_type": {"const": fault_type},
                "fault_config": {
                    "required": [wanted],
                    "properties": dict.fromkeys(OWN_FIELDS, null) | {wanted: bounds},
                },
            },
        }
        | ({"allOf": [protocol]} if protocol else {})
        for fault_type, protocol, wanted, bounds in (
            ("delay", None, "delay_ms", {"type": "integer", "minimum": 1, "maximum": 60_000}),
            ("abort", http, "http_status", {"type": "integer", "minimum": 400, "maximum": 599}),
            ("abort", grpc, "grpc_status", {"type": "integer", "minimum": 1, "maximum": 16}),
        )
    ]


class FaultApply(_Request):
    """`FaultApplyRequest`"""

    model_config = ConfigDict(json_schema_extra=_one_config_for_each_type)

    service: str = Field(min_length=1, max_length=253)
    api: ApiPath
    """The path of the requests that are hit, exactly, without the query."""

    fault_type: Literal["delay", "abort"]
    percentage: Int = Field(ge=0, le=100)
    duration_seconds: Int = Field(ge=1, le=86_400)
    fault_config: FaultConfig
    protocol: Protocol = "http"
    """`http`: any request is hit. `grpc`: only gRPC calls are hit and counted, and an abort has a
    `grpc_status`. Since contract 1.3, with the capability `grpc_status`."""

    headers: Headers | None = None
    """Only requests with all of these headers are hit and counted, each with exactly this value. Since
    contract 1.3, with the capability `headers`."""

    @model_validator(mode="after")
    def _config_fits_the_type(self) -> Self:
        wanted = "delay_ms"
        if self.fault_type == "abort":
            wanted = "grpc_status" if self.protocol == "grpc" else "http_status"
        kind = f"{self.fault_type} faults of protocol {self.protocol}"
        for name in OWN_FIELDS:
            given = getattr(self.fault_config, name) is not None
            if name == wanted and not given:
                raise ValueError(f"fault_config.{name} is required for {kind}")
            if name != wanted and given:
                raise ValueError(f"fault_config.{name} does not belong to {kind}")
        return self

    @property
    def held_ms(self) -> int:
        """How long an affected request is held in all."""
        return self.fault_config.start_delay_ms + (self.fault_config.delay_ms or 0)


class FaultApplied(_Answer):
    """`FaultApplyResponse`"""

    apply_id: str
    status: Literal["applied", "failed"]
    message: str = ""


class FaultStatus(_Answer):
    """`FaultStatusResponse`"""

    apply_id: str
    status: Literal["running", "completed", "failed"]
    """`running` until the fault is removed from the data plane and holds no request any more."""

    start_time: datetime
    """When the fault came into force in the data plane."""

    end_time: datetime | None = None
    """When the fault was removed from the data plane. Requests that it holds may still follow."""

    error_msg: str = ""
    doubt: str = ""
    """Why the window is not known exactly: the Executor was restarted, for example. Since contract 1.2."""


class ListedFault(_Answer):
    """A fault that the Executor has at this moment."""

    apply_id: str
    key: str | None
    """The `Idempotency-Key` of its apply. Null if there was none."""

    service: str
    api: str
    status: Literal["running"] = "running"
    start_time: datetime


class FaultList(_Answer):
    """All faults that the Executor has at this moment. A fault that is absent is over."""

    faults: list[ListedFault]


class FaultMetrics(_Answer):
    """`FaultMetricsResponse`, and what is behind its figures.

    Every request counts that arrived at the target while the fault was in force. It is judged when it ends.
    Figures that no request backs are null, and never 0. Fields of contract 1.1 may be absent or null.
    """

    apply_id: str
    status_code: int | None
    """The most frequent status among the answers."""

    latency_ms: float | None
    """Mean latency. A request without an answer counts for as long as it was held."""

    error_rate: float | None
    """`error_count` divided by `requests`: 0 to 1."""

    success_count: int
    """How many requests got an answer with a status below 400, and as gRPC calls with gRPC status 0."""

    error_count: int
    """How many requests got a status of 400 or more, a gRPC status other than 0, or no answer."""

    requests: int | None = None
    """How many requests arrived: `success_count` plus `error_count`. Since contract 1.1."""

    faulted: int | None = None
    """How many of them the fault really hit. Since contract 1.1."""

    unanswered: int | None = None
    """How many got no complete answer: the client gave up, or the connection broke. Since contract 1.1."""

    unfinished: int | None = None
    """How many of the unanswered were under way when the Executor stopped waiting. Since contract 1.1."""

    latency_sd_ms: float | None = None
    """Standard deviation of the latency (of a sample). Null for fewer than 2 requests. Since contract 1.1."""

    latency_p50_ms: float | None = None
    """Median of the latency. Since contract 1.1."""

    latency_p95_ms: float | None = None
    """95th percentile of the latency. Since contract 1.1."""

    latency_p99_ms: float | None = None
    """99th percentile of the latency. Since contract 1.1."""

    start_time: datetime | None = None
    """When the fault came into force, as in its status. Since contract 1.1."""

    end_time: datetime | None = None
    """When the fault was removed, as in its status. Since contract 1.1."""

    doubt: str = ""
    """Why the window is not known exactly, as in its status. Since contract 1.2."""

    trace_data: JsonValue
    logs: list[str]


class Health(_Answer):
    """Whether faults can be injected."""

    status: Literal["healthy", "unhealthy"]
    contract: str = Field(default=CONTRACT, pattern=r"^\d+\.\d+$")
    """Which version of this contract the Executor keeps. An extension."""

    capabilities: list[str] = Field(default=[*CAPABILITIES])
    """What the Executor can do beyond the basics. Since contract 1.3; absent is none of it.

    `headers`: a fault hits and counts only requests with the headers of its apply. `grpc_status`: it keeps
    `protocol` and `grpc_status`. `http2`: it hits HTTP/2 as it hits HTTP/1.1. `dead_man`: all faults end by
    themselves within seconds if the Executor dies or hangs. Others may follow: ignore unknown names.
    """


class Refusal(_Answer):
    """Why a request was refused."""

    error: str
    message: str
