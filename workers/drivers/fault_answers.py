"""What an Executor answers in the faults API, and the figures that its metrics hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from workers.drivers.figures import check_figures
from workers.drivers.moments import Moment

if TYPE_CHECKING:
    from datetime import datetime

__all__ = [
    "ApplyAnswer",
    "FaultsAnswer",
    "ListedAnswer",
    "MetricsAnswer",
    "StatusAnswer",
    "StopAnswer",
    "usable_id",
]

MAX_ID_LENGTH = 200
Count = Annotated[int, Field(ge=0, le=2**53)]
"""Beyond that, JSON's readers differ (RFC 8259, section 6)."""

Milliseconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class ApplyAnswer(BaseModel):
    """`FaultApplyResponse`"""

    apply_id: str = ""
    status: Literal["applied", "failed"]
    message: str | None = None


class _Window(BaseModel):
    """When a fault was in force, under the names of the contract or under those of an observation."""

    start_time: Moment = None
    started_at: Moment = None
    end_time: Moment = None
    ended_at: Moment = None

    @property
    def began(self) -> datetime | None:
        """None if the Executor does not say."""
        return self.start_time or self.started_at

    @property
    def ended(self) -> datetime | None:
        """None if the Executor does not say."""
        return self.end_time or self.ended_at

    @model_validator(mode="after")
    def _ends_after_it_begins(self) -> Self:
        for name, other in (("start_time", "started_at"), ("end_time", "ended_at")):
            one, two = getattr(self, name), getattr(self, other)
            if one and two and one != two:
                raise ValueError(f"{name} and {other} differ")
        if self.began and self.ended and self.ended < self.began:
            raise ValueError("end_time is before start_time")
        return self


class StatusAnswer(_Window):
    """`FaultStatusResponse`"""

    apply_id: str | None = None
    status: Literal["running", "completed", "failed"]
    error_msg: str | None = None


class StopAnswer(BaseModel):
    """An answer to a stop that says that the fault is over."""

    apply_id: str | None = None
    status: Literal["completed", "failed"]


class ListedAnswer(BaseModel):
    """A fault in the Executor's list."""

    apply_id: str
    key: str | None = None
    status: Literal["running", "completed", "failed"] = "running"

    @field_validator("apply_id")
    @classmethod
    def _fits_into_a_path(cls, value: str) -> str:
        if not usable_id(value):
            raise ValueError("must be text that can be one segment of a path")
        return value


class FaultsAnswer(BaseModel):
    """The Executor's list of faults."""

    faults: list[ListedAnswer] = Field(fail_fast=True)


class MetricsAnswer(_Window):
    """`FaultMetricsResponse`, and what an Executor may add. Null is what it did not see."""

    apply_id: str | None = None
    status_code: int | None
    latency_ms: Milliseconds | None
    error_rate: float | None = Field(ge=0, le=1)
    trace_data: Any
    logs: list[str] | None = Field(fail_fast=True)
    success_count: Count | None = None
    error_count: Count | None = None
    requests: Count | None = None
    faulted: Count | None = None
    unanswered: Count | None = None
    unfinished: Count | None = None
    latency_sd_ms: Milliseconds | None = None
    latency_p50_ms: Milliseconds | None = None
    latency_p95_ms: Milliseconds | None = None
    latency_p99_ms: Milliseconds | None = None
    doubt: str | None = None
    """Why the Executor does not know the window exactly."""

    @field_validator("status_code")
    @classmethod
    def _is_an_http_status(cls, value: int | None) -> int | None:
        if not value:  # 0 is how Executors without null say that there was no answer
            return None
        if not 100 <= value <= 599:  # noqa: PLR2004 (RFC 9110, section 15)
            raise ValueError("must be from 100 to 599, or 0 or null if there was no answer")
        return value

    @property
    def total(self) -> int | None:
        """How many requests arrived. None if neither this nor both counts are there."""
        if self.requests is not None:
            return self.requests
        if self.success_count is None or self.error_count is None:
            return None
        return self.success_count + self.error_count

    @model_validator(mode="after")
    def _one_count_follows_from_two(self) -> Self:
        if self.requests is not None:
            if self.error_count is None and self.success_count is not None:
                self.error_count = max(0, self.requests - self.success_count)
            elif self.success_count is None and self.error_count is not None:
                self.success_count = max(0, self.requests - self.error_count)
        return self

    @model_validator(mode="after")
    def _figures_fit(self) -> Self:
        check_figures(self)
        if None not in {self.unfinished, self.unanswered} and (self.unfinished or 0) > (self.unanswered or 0):
            raise ValueError(f"unfinished is {self.unfinished}, and unanswered is only {self.unanswered}")
        return self

    def figures(self) -> dict[str, Any]:
        """What an observation says of the requests. Without requests, there is no latency and no rate.

        Without a count, a program in Go that saw nothing sends zeros only.
        """
        counts: dict[str, Any] = {
            "requests": self.total,
            "faulted": self.faulted,
            "unanswered": self.unanswered,
            "success_count": self.success_count,
            "error_count": self.error_count,
        }
        names = ("latency_ms", "latency_sd_ms", "latency_p50_ms", "latency_p95_ms", "latency_p99_ms")
        rates = {name: getattr(self, name) for name in ("status_code", "error_rate", *names)}
        nothing = self.total == 0 or (self.total is None and not any(rates.values()))
        return counts if nothing else counts | rates


def usable_id(apply_id: object) -> bool:
    """Whether it can become one segment of a path: never empty, huge, or a dot segment."""
    if not isinstance(apply_id, str) or apply_id in {".", ".."}:
        return False
    return 0 < len(apply_id) <= MAX_ID_LENGTH and apply_id.isprintable()
