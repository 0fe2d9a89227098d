"""The faults API: `POST /v1/faults/apply`, then status and metrics (specification, appendix A, way 2)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, Field, ValidationError

from dispatcher.errors import ExecutorProtocolError, FaultFailedError, FaultLostError
from dispatcher.models import FaultPlan, FaultType
from dispatcher.observations import RawObservation
from dispatcher.settings.validation import problems_of
from workers.drivers.base import Driver, FaultState
from workers.drivers.contract import SPOKEN, version_of
from workers.drivers.transport import HttpTransport
from workers.drivers.truncate import truncate_json, truncate_lines

if TYPE_CHECKING:
    from dispatcher.settings.executors import ExecutorClientConfig
    from workers.drivers.answers import Answer

__all__ = ["FaultsApiDriver"]

NOT_FOUND = 404
CANNOT_STOP = 405  # an Executor without this extension

MAX_ID_LENGTH = 200
LONGEST_REASON = 200

T = TypeVar("T", bound=BaseModel)

Count = Annotated[int, Field(ge=0, le=2**53)]
"""Beyond that, JSON's readers differ (RFC 8259, section 6)."""


class ApplyAnswer(BaseModel):
    """`FaultApplyResponse`"""

    apply_id: str = ""
    status: Literal["applied", "failed"]
    message: str = ""


class StatusAnswer(BaseModel):
    """`FaultStatusResponse`"""

    apply_id: str | None = None
    status: Literal["running", "completed", "failed"]
    error_msg: str = ""


class MetricsAnswer(BaseModel):
    """`FaultMetricsResponse`, and the two counts that an Executor may add."""

    apply_id: str | None = None
    status_code: int = Field(ge=0, le=999)
    latency_ms: float = Field(ge=0, allow_inf_nan=False)
    error_rate: float = Field(ge=0, le=1)
    trace_data: Any
    logs: list[str] | None = Field(fail_fast=True)
    success_count: Count | None = None
    error_count: Count | None = None


class FaultsApiDriver(Driver):
    """Speaks the faults API. See `Driver` for what each method does and raises."""

    speaks = SPOKEN

    def __init__(self, config: ExecutorClientConfig, connections: int) -> None:
        """`connections` is how many threads will call at once."""
        self._transport = HttpTransport(config, connections)
        self._max_trace_bytes = config.max_trace_bytes
        self._max_log_bytes = config.max_log_bytes
        self.longest_call_s = self._transport.longest_call_s

    def apply(self, plan: FaultPlan, key: str, within_s: float) -> str:
        headers = {"Idempotency-Key": key}
        answer = self._transport.call("POST", "/v1/faults/apply", apply_body(plan), headers, within_s)
        try:
            applied = _read(answer, ApplyAnswer)
        except ExecutorProtocolError as exc:
            raise ExecutorProtocolError(exc.message, _named_fault(answer)) from exc
        if applied.status == "failed":
            raise _fault_failed(answer, applied.message)
        if not _usable(applied.apply_id):
            raise answer.protocol_error("has no usable apply_id")
        return applied.apply_id

    def status(self, apply_id: str, within_s: float) -> FaultState:
        answer = self._about(apply_id, "status", within_s)
        status = _read(answer, StatusAnswer)
        _check_id(answer, status.apply_id, apply_id)
        if status.status == "failed":
            raise _fault_failed(answer, status.error_msg)
        return FaultState(status.status)

    def metrics(self, apply_id: str, within_s: float) -> RawObservation:
        answer = self._about(apply_id, "metrics", within_s)
        metrics = _read(answer, MetricsAnswer)
        _check_id(answer, metrics.apply_id, apply_id)
        trace_data, less_traces = truncate_json(metrics.trace_data, self._max_trace_bytes)
        logs, fewer_logs = truncate_lines(metrics.logs or [], self._max_log_bytes)
        observation = RawObservation(
            execution_id=apply_id,
            timestamp=datetime.now(UTC),
            status_code=metrics.status_code,
            latency_ms=metrics.latency_ms,
            error_rate=metrics.error_rate,
            success_count=metrics.success_count,
            error_count=metrics.error_count,
            logs=logs,
            truncated=["trace_data"] * less_traces + ["logs"] * fewer_logs,
        )
        return observation.model_copy(update={"trace_data": trace_data})  # JSON, and costly to check again

    def health(self, within_s: float) -> None:
        answer = self._transport.call("GET", "/v1/health", within_s=within_s)
        if not answer.ok:
            raise answer.error()

    def contract(self, within_s: float) -> str | None:
        return version_of(self._transport.call("GET", "/v1/health", within_s=within_s))

    def stop(self, apply_id: str) -> bool:
        answer = self._transport.call("DELETE", _path(apply_id))
        if answer.status == CANNOT_STOP:
            return False
        if not answer.ok and answer.status != NOT_FOUND:
            raise answer.error()
        return True

    def close(self) -> None:
        self._transport.close()

    def _about(self, apply_id: str, part: str, within_s: float) -> Answer:
        answer = self._transport.call("GET", f"{_path(apply_id)}/{part}", within_s=within_s)
        if answer.status == NOT_FOUND:
            raise FaultLostError(f"{answer.call}: the Executor does not know the fault; did it restart?")
        return answer


def apply_body(plan: FaultPlan) -> dict[str, Any]:
    """The plan as `FaultApplyRequest`."""
    config: dict[str, int] = {}
    if plan.fault_type is FaultType.DELAY and plan.delay_seconds is not None:
        config["delay_ms"] = round(plan.delay_seconds * 1000)
    if plan.fault_type is FaultType.ABORT and plan.abort_http_status is not None:
        config["http_status"] = plan.abort_http_status
    if plan.start_delay_ms:
        config["start_delay_ms"] = plan.start_delay_ms
    return {
        "service": plan.service,
        "api": plan.api,
        "fault_type": plan.fault_type,
        "percentage": plan.percentage,
        "duration_seconds": plan.duration_seconds,
        "fault_config": config,
    }


def _read(answer: Answer, model: type[T]) -> T:
    """The answer as what the contract says it is. Unknown fields are passed over."""
    if not answer.ok:
        raise answer.error()
    try:
        return model.model_validate(answer.json(), strict=True)
    except ValidationError as exc:
        message = "; ".join(f"{field} {problem}" for field, problem in problems_of(exc))
        raise answer.protocol_error(f"breaks the contract ({message})") from exc


def _fault_failed(answer: Answer, reason: str) -> FaultFailedError:
    message = repr(reason[:LONGEST_REASON]) if reason else "no reason given"
    return FaultFailedError(f"{answer.call}: the fault failed: {message}")


def _path(apply_id: str) -> str:
    return f"/v1/faults/{quote(apply_id, safe='')}"


def _check_id(answer: Answer, message: str | None, asked: str) -> None:
    """Raises `ExecutorProtocolError` for an answer about another fault."""
    if message not in {None, asked}:
        raise answer.protocol_error(f"is not about fault {asked}")


def _usable(apply_id: object) -> bool:
    """Whether it can become one segment of a path: never empty, huge, or a dot segment."""
    if not isinstance(apply_id, str) or apply_id in {".", ".."}:
        return False
    return 0 < len(apply_id) <= MAX_ID_LENGTH and apply_id.isprintable()


def _named_fault(answer: Answer) -> str:
    """The id in an answer that is wrong in other ways. Empty where there is none."""
    try:
        fields = answer.json()
    except ExecutorProtocolError:
        return ""
    apply_id = fields.get("apply_id") if isinstance(fields, dict) else None
    return apply_id if isinstance(apply_id, str) and _usable(apply_id) else ""
