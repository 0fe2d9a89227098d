"""What a Recommender gets back: figures that were really seen, or None for what was not."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field, JsonValue

from dispatcher.limits import no_bare_number

__all__ = ["Doubt", "Figures", "RawObservation"]

Moment = Annotated[AwareDatetime, BeforeValidator(no_bare_number)]


class Doubt(StrEnum):
    """A reason to distrust an observation. docs/recommender.md says what each means for a search."""

    LATE = "late"
    SHORT = "short"
    LONG = "long"
    WINDOW_UNKNOWN = "window_unknown"
    FEW_REQUESTS = "few_requests"
    COUNT_UNKNOWN = "count_unknown"
    DILUTED = "diluted"
    WRONG_DOSE = "wrong_dose"
    OVERLAPPED = "overlapped"
    TRUNCATED = "truncated"
    INCOMPLETE = "incomplete"
    BASELINE_UNHEALTHY = "baseline_unhealthy"
    NOT_RECOVERED = "not_recovered"

    @property
    def meaning(self) -> str:
        """The reason in words, without a full stop."""
        return MEANINGS[self]


MEANINGS = {
    Doubt.LATE: "the fault began later than planned",
    Doubt.SHORT: "the fault was in force for less than its planned duration",
    Doubt.LONG: "the fault was in force for more than its planned duration",
    Doubt.WINDOW_UNKNOWN: "the time in force is not known exactly, or the figures are of another time",
    Doubt.FEW_REQUESTS: "so few requests came that the interval of the error rate is wider than 0.2",
    Doubt.COUNT_UNKNOWN: "the Executor does not say how many requests it saw",
    Doubt.DILUTED: "the figures may include requests that the plan's headers or protocol leave alone",
    Doubt.WRONG_DOSE: "the fault hit far fewer requests, or far more, than its percentage says",
    Doubt.OVERLAPPED: "another plan's fault was on the same target meanwhile",
    Doubt.TRUNCATED: "traces or log lines were too long, and a part of them is missing",
    Doubt.INCOMPLETE: "requests were still under way at the end, or Prometheus warned of its data (see logs)",
    Doubt.BASELINE_UNHEALTHY: "a part of the requests before the fault failed, too",
    Doubt.NOT_RECOVERED: "the target did not become healthy again in time after the fault",
}


class Figures(BaseModel, frozen=True):
    """What requests to a target met in one window of time. Each figure is None if it was not seen."""

    requests: int | None = Field(default=None, ge=0)
    """How many requests arrived in the window."""

    unanswered: int | None = Field(default=None, ge=0)
    """How many of them got no answer: the client gave up, or the connection broke. These are errors."""

    status_code: int | None = Field(default=None, ge=100, le=599)
    """The most frequent HTTP status among the answers."""

    latency_ms: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Mean latency in milliseconds. An unanswered request counts for as long as it was held."""

    latency_sd_ms: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Standard deviation of the latency, in milliseconds."""

    latency_p50_ms: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Median latency in milliseconds."""

    latency_p95_ms: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """95th percentile of the latency, in milliseconds."""

    latency_p99_ms: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """99th percentile of the latency, in milliseconds."""

    error_rate: float | None = Field(default=None, ge=0, le=1)
    """Share of the requests that got an error status or no answer, 0 to 1."""

    error_rate_low: float | None = Field(default=None, ge=0, le=1)
    """Lower end of the 95 % interval of the error rate (E. B. Wilson, 1927)."""

    error_rate_high: float | None = Field(default=None, ge=0, le=1)
    """Upper end of that interval."""

    success_count: int | None = Field(default=None, ge=0)
    """How many requests got an answer that is not an error."""

    error_count: int | None = Field(default=None, ge=0)
    """How many requests got an error status, or no answer."""

    started_at: Moment | None = None
    """When the window began, by the clock of the Executor or observer."""

    ended_at: Moment | None = None
    """When the window ended, by the same clock."""


class RawObservation(Figures, frozen=True):
    """What was seen of the target while the fault was in force (specification 5.1, appendix A)."""

    execution_id: str
    """The Executor's id of the fault (its `apply_id`)."""

    timestamp: Moment
    """When the observation was collected."""

    faulted: int | None = Field(default=None, ge=0)
    """How many requests the fault really hit."""

    baseline: Figures | None = None
    """The same figures from before the fault, if something observed them."""

    recovery: Figures | None = None
    """The same figures from after the fault, if something observed them."""

    doubts: tuple[Doubt, ...] = ()
    """Reasons to distrust the observation. Empty: everything went as planned."""

    trace_data: JsonValue = None
    """Traces of the target's requests as OpenTelemetry JSON, as the Executor sent them."""

    logs: list[str] = Field(default_factory=list)
    """Log lines, as the Executor sent them."""

    truncated: list[Literal["trace_data", "logs"]] = Field(default_factory=list)
    """Which of these were too long, and were truncated."""

    trace_id: str | None = Field(default=None, pattern=r"^[0-9a-f]{32}$")
    """The trace that all calls for the plan belonged to (W3C Trace Context): 32 hexadecimal digits."""

    def to_record(self) -> dict[str, JsonValue]:
        """The observation as one flat row of JSON values, for a scorer, a table or a file.

        It has the same keys each time: the fields by their names, and those of `baseline` and `recovery` with
        `baseline_` and `recovery_` in front. What was not seen is None. `logs` has lines of every level, so
        there is no `error_logs`: a scorer would take each of them for an error.
        """
        record: dict[str, JsonValue] = self.model_dump(mode="json", exclude={"baseline", "recovery"})
        for name, figures in (("baseline", self.baseline), ("recovery", self.recovery)):
            seen = (figures or Figures()).model_dump(mode="json")
            record |= {f"{name}_{key}": value for key, value in seen.items()}
        return record
