"""The faults API: what comes in and what goes out (specification, appendix A, way 2)."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

__all__ = ["FaultApplied", "FaultApply", "FaultConfig", "FaultMetrics", "FaultStatus", "Health", "Refusal"]


class _Request(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True)


class FaultConfig(_Request):
    """What the fault does, in the units of the contract."""

    delay_ms: Annotated[int, Field(ge=1, le=60_000)] | None = None
    """How long each affected request is held, in milliseconds. Delay faults only."""

    http_status: Annotated[int, Field(ge=400, le=599)] | None = None
    """What each affected request is answered with. Abort faults only."""

    start_delay_ms: int = Field(default=0, ge=0, le=60_000)
    """How long each affected request is held before the fault acts on it, in milliseconds."""


class FaultApply(_Request):
    """`FaultApplyRequest`"""

    service: str = Field(min_length=1, max_length=253)
    api: str = Field(pattern=r"^/[^\s?#]*$", max_length=2048)
    """The path of the requests that are hit, exactly, without the query."""

    fault_type: Literal["delay", "abort"]
    percentage: int = Field(ge=0, le=100)
    duration_seconds: int = Field(ge=1, le=86_400)
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


class FaultApplied(BaseModel):
    """`FaultApplyResponse`"""

    apply_id: str
    status: Literal["applied", "failed"]
    message: str = ""


class FaultStatus(BaseModel):
    """`FaultStatusResponse`"""

    apply_id: str
    status: Literal["running", "completed", "failed"]
    start_time: datetime
    end_time: datetime | None = None
    error_msg: str = ""


class FaultMetrics(BaseModel):
    """`FaultMetricsResponse`, and the two counts behind its error rate."""

    apply_id: str
    status_code: int
    """The most frequent status, 0 where no request was seen."""

    latency_ms: float
    error_rate: float
    success_count: int
    error_count: int
    trace_data: JsonValue
    logs: list[str]


class Health(BaseModel):
    """Whether faults can be injected."""

    status: Literal["healthy", "unhealthy"]


class Refusal(BaseModel):
    """Why a request was refused."""

    error: str
    message: str
