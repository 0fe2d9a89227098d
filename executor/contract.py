"""The faults API: what comes in and what goes out (specification, appendix A, way 2)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue, model_validator

__all__ = [
    "CONTRACT",
    "ApiPath",
    "FaultApplied",
    "FaultApply",
    "FaultConfig",
    "FaultMetrics",
    "FaultStatus",
    "Health",
    "Int",
    "Refusal",
]


CONTRACT = "1.0"
"""The version of this contract. Its major number changes if a client would break."""

ApiPath = Annotated[str, Field(pattern=r"^/[!\"$->@-~]*$", max_length=2048)]
"""Printable ASCII but for the space, # and ?."""


def _whole(value: object) -> object:
    """12.0 is an integer too (JSON Schema, 6.1.1)."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


Int = Annotated[int, BeforeValidator(_whole)]


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, use_attribute_docstrings=True)


class _Answer(BaseModel):
    model_config = ConfigDict(use_attribute_docstrings=True)


class FaultConfig(_Request):
    """What the fault does, in the units of the contract."""

    delay_ms: Annotated[Int, Field(ge=1, le=60_000)] | None = None
    """How long each affected request is held, in milliseconds. Delay faults only."""

    http_status: Annotated[Int, Field(ge=400, le=599)] | None = None
    """What each affected request is answered with. Abort faults only."""

    start_delay_ms: Int = Field(default=0, ge=0, le=60_000)
    """How long each affected request is held before the fault acts on it, in milliseconds."""


def _one_config_for_each_type(schema: dict[str, Any]) -> None:
    """What the validator below asks for, in the words of JSON Schema."""
    null = {"type": "null"}
    schema["oneOf"] = [
        {
            "properties": {
                "fault_type": {"const": fault_type},
                "fault_config": {
                    "required": [wanted],
                    "properties": {wanted: bounds, other: null},
                },
            }
        }
        for fault_type, wanted, other, bounds in (
            ("delay", "delay_ms", "http_status", {"type": "integer", "minimum": 1, "maximum": 60_000}),
            ("abort", "http_status", "delay_ms", {"type": "integer", "minimum": 400, "maximum": 599}),
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

    @model_validator(mode="after")
    def _config_fits_the_type(self) -> Self:
        wanted, other = (
            ("delay_ms", "http_status") if self.fault_type == "delay" else ("http_status", "delay_ms")
        )
        if getattr(self.fault_config, wanted) is None:
            raise ValueError(f"fault_config.{wanted} is required for {self.fault_type} faults")
        if getattr(self.fault_config, other) is not None:
            raise ValueError(f"fault_config.{other} does not belong to {self.fault_type} faults")
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
    start_time: datetime
    end_time: datetime | None = None
    error_msg: str = ""


class FaultMetrics(_Answer):
    """`FaultMetricsResponse`, and the two counts behind its error rate."""

    apply_id: str
    status_code: int
    """The most frequent status, 0 if no request was seen."""

    latency_ms: float
    error_rate: float
    success_count: int
    error_count: int
    trace_data: JsonValue
    logs: list[str]


class Health(_Answer):
    """Whether faults can be injected."""

    status: Literal["healthy", "unhealthy"]
    contract: str = Field(default=CONTRACT, pattern=r"^\d+\.\d+$")
    """Which version of this contract the Executor keeps. An extension."""


class Refusal(_Answer):
    """Why a request was refused."""

    error: str
    message: str
