"""The faults API: `POST /v1/faults/apply`, then status and metrics (specification, appendix A, way 2)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote

from pydantic import BaseModel, ValidationError

from dispatcher.capabilities import CAPABILITIES_OF_DRIVERS
from dispatcher.errors import (
    ExecutorProtocolError,
    ExecutorRejectedError,
    FaultFailedError,
    FaultLostError,
    MetricsNotReadyError,
)
from dispatcher.models import FaultPlan, FaultType
from dispatcher.observations import Doubt, RawObservation
from dispatcher.protocols import Protocol
from dispatcher.settings.validation import problems_of
from workers.drivers.base import Driver, FaultState, FaultStatus, ListedFault, StopOutcome
from workers.drivers.contract import SPOKEN, capabilities_of, check_well, says_one_of, version_of
from workers.drivers.deadline import Deadline
from workers.drivers.fault_answers import (
    ApplyAnswer,
    FaultsAnswer,
    MetricsAnswer,
    StatusAnswer,
    StopAnswer,
    usable_id,
)
from workers.drivers.lists import sign_of_more
from workers.drivers.moments import rfc3339
from workers.drivers.options import DriverOptions, read_options
from workers.drivers.transport import HttpTransport
from workers.drivers.truncate import truncate_json, truncate_lines

if TYPE_CHECKING:
    from dispatcher.settings.executors import ExecutorClientConfig
    from workers.drivers.answers import Answer

__all__ = ["FaultsApiDriver"]

OK = 200
NOT_FOUND = 404
CAME_TOO_LATE = 412
"""The answer to an apply after its `Not-After`, a condition that does not hold (RFC 9110, 15.5.13)."""

NO_SUCH_METHOD = {404, 405, 501}
CANNOT_STOP = {405, 501}  # an Executor without this extension
NOT_READY = {202, 204, 409, 425}
"""Answers to a request of metrics that are not there yet. 404 is one of them if the fault is known."""

NOT_YET = {"collecting", "in_progress", "incomplete", "not_ready", "pending", "processing", "running"}
"""Statuses of metrics that are not complete yet. Figures next to them are not believed."""

NOT_FIGURES = {"apply_id", "start_time", "started_at", "end_time", "ended_at"}
FIGURES = MetricsAnswer.model_fields.keys() - NOT_FIGURES

LONGEST_REASON = 200

T = TypeVar("T", bound=BaseModel)


class FaultsApiDriver(Driver):
    """The driver of the faults API. See `Driver` for what each method does and raises. It has no options."""

    speaks = SPOKEN
    supports = CAPABILITIES_OF_DRIVERS["faults_api"]

    def __init__(self, config: ExecutorClientConfig, connections: int) -> None:
        """`connections` is how many threads will call at once."""
        read_options(config, DriverOptions)
        self._transport = HttpTransport(config, connections)
        self._max_trace_bytes = config.max_trace_bytes
        self._max_log_bytes = config.max_log_bytes
        self._lists: bool | None = None
        """Whether the Executor can list its faults. None: it was not asked yet."""

        self.longest_call_s = self._transport.longest_call_s

    def apply(self, plan: FaultPlan, key: str, within_s: float, not_after: datetime) -> str:
        headers = {"Idempotency-Key": key, "Not-After": rfc3339(not_after)}
        answer = self._transport.call("POST", "/v1/faults/apply", apply_body(plan), headers, within_s)
        if answer.status == CAME_TOO_LATE:
            raise _too_late(answer, headers["Not-After"])
        try:
            applied = _read(answer, ApplyAnswer)
        except ExecutorProtocolError as exc:
            raise ExecutorProtocolError(exc.message, _named_fault(answer)) from exc
        if applied.status == "failed":
            raise _fault_failed(answer, applied.message)
        if not usable_id(applied.apply_id):
            raise answer.protocol_error("has no usable apply_id")
        return applied.apply_id

    def status(self, apply_id: str, within_s: float) -> FaultStatus:
        answer = self._transport.call("GET", f"{_path(apply_id)}/status", within_s=within_s)
        if answer.status == NOT_FOUND:
            raise FaultLostError(f"{answer.call}: the Executor does not know the fault; did it restart?")
        status = _read(answer, StatusAnswer)
        _check_id(answer, status.apply_id, apply_id)
        if status.status == "failed":
            raise _fault_failed(answer, status.error_msg)
        state = FaultState(status.status)
        return FaultStatus(state, status.began, status.ended if state is FaultState.COMPLETED else None)

    def metrics(self, apply_id: str, within_s: float) -> RawObservation:
        """A 404 is followed by a look at the status, which says whether the fault is unknown as well."""
        deadline = Deadline(min(within_s, self.longest_call_s))
        answer = self._transport.call("GET", f"{_path(apply_id)}/metrics", within_s=within_s)
        if answer.status == NOT_FOUND:
            self.status(apply_id, deadline.left_s)
        if answer.status in NOT_READY | {NOT_FOUND} or _has_no_figures(answer):
            words = f" ({answer.words!r})" if answer.words else ""
            raise MetricsNotReadyError(f"{answer.call}: {answer.status}, no metrics yet{words}")
        metrics = _read(answer, MetricsAnswer)
        _check_id(answer, metrics.apply_id, apply_id)
        return self._observation(apply_id, metrics)

    def faults(self, within_s: float) -> list[ListedFault] | None:
        """Those that are not over. An Executor that never listed any is not asked again."""
        if self._lists is False:
            return None
        answer = self._transport.call("GET", "/v1/faults", within_s=within_s)
        if answer.status in NO_SUCH_METHOD:
            self._lists = self._lists or False
            return None
        listed = _read(answer, FaultsAnswer)
        if sign := sign_of_more(answer.json(), len(listed.faults)):
            raise answer.protocol_error(f"is a part of a longer list ({sign})")
        self._lists = True
        return [ListedFault(each.apply_id, each.key) for each in listed.faults if each.status == "running"]

    def health(self, within_s: float) -> None:
        answer = self._transport.call("GET", "/v1/health", within_s=within_s)
        if not answer.ok:
            raise answer.error()
        check_well(answer)

    def capabilities(self, within_s: float) -> frozenset[str]:
        """Those in the answer to `GET /v1/health`. None if there is no such page, or it has no such field."""
        answer = self._transport.call("GET", "/v1/health", within_s=within_s)
        if answer.status in NO_SUCH_METHOD:
            return frozenset()
        if not answer.ok:
            raise answer.error()
        return capabilities_of(answer)

    def contract(self, within_s: float) -> str | None:
        return version_of(self._transport.call("GET", "/v1/health", within_s=within_s))

    def stop(self, apply_id: str) -> StopOutcome:
        """OVER only if a 200 says that the fault is completed or failed."""
        answer = self._transport.call("DELETE", _path(apply_id))
        if answer.status in CANNOT_STOP:
            return StopOutcome.UNSUPPORTED
        if not answer.ok and answer.status != NOT_FOUND:
            raise answer.error()
        over = answer.status == OK and _says_over(answer, apply_id)
        return StopOutcome.OVER if over else StopOutcome.UNCONFIRMED

    def close(self) -> None:
        self._transport.close()

    def _observation(self, apply_id: str, metrics: MetricsAnswer) -> RawObservation:
        trace_data, less_traces = truncate_json(metrics.trace_data, self._max_trace_bytes)
        said = [f"the Executor doubts the window: {metrics.doubt}"] if metrics.doubt else []
        logs, fewer_logs = truncate_lines([*said, *(metrics.logs or [])], self._max_log_bytes)
        truncated = ["trace_data"] * less_traces + ["logs"] * fewer_logs
        doubts = {
            Doubt.WINDOW_UNKNOWN: bool(metrics.doubt),
            Doubt.COUNT_UNKNOWN: metrics.total is None,
            Doubt.TRUNCATED: bool(truncated),
            Doubt.INCOMPLETE: bool(metrics.unfinished),
        }
        observation = RawObservation(
            execution_id=apply_id,
            timestamp=datetime.now(UTC),
            **metrics.figures(),
            started_at=metrics.began,
            ended_at=metrics.ended,
            doubts=tuple(doubt for doubt, holds in doubts.items() if holds),
            logs=logs,
            truncated=truncated,
        )
        return observation.model_copy(update={"trace_data": trace_data})  # JSON, and costly to check again


def apply_body(plan: FaultPlan) -> dict[str, Any]:
    """The plan as `FaultApplyRequest`."""
    config: dict[str, int] = {}
    if plan.fault_type is FaultType.DELAY and plan.delay_seconds is not None:
        config["delay_ms"] = round(plan.delay_seconds * 1000)
    if plan.fault_type is FaultType.ABORT and plan.abort_http_status is not None:
        config["http_status"] = plan.abort_http_status
    if plan.grpc_status is not None:
        config["grpc_status"] = plan.grpc_status
    if plan.start_delay_ms:
        config["start_delay_ms"] = plan.start_delay_ms
    optional: dict[str, Any] = {}
    if plan.protocol is not Protocol.HTTP:
        optional["protocol"] = plan.protocol
    if plan.headers is not None:
        optional["headers"] = dict(plan.headers)
    return {
        "service": plan.service,
        "api": plan.api,
        "fault_type": plan.fault_type,
        "percentage": plan.percentage,
        "duration_seconds": plan.duration_seconds,
        "fault_config": config,
        **optional,
    }


def _read(answer: Answer, model: type[T]) -> T:
    """The answer as the contract defines it. Unknown fields are ignored."""
    if not answer.ok:
        raise answer.error()
    try:
        return model.model_validate(answer.json(), strict=True)
    except ValidationError as exc:
        problems = "; ".join(" ".join(each).removeprefix("(whole) ") for each in problems_of(exc))
        raise answer.protocol_error(f"breaks the contract ({problems})") from exc


def _has_no_figures(answer: Answer) -> bool:
    """Whether a success is empty, or an object such as `{"status": "pending"}`, or says that it is not final.

    Raises `FaultFailedError`.
    """
    if not answer.ok:
        return False
    if not answer.body.strip():
        return True
    fields = answer.json()
    if not isinstance(fields, dict):
        return False
    status = fields.get("status")
    if status == "failed":
        raise _fault_failed(answer, str(fields.get("error_msg") or ""))
    if says_one_of(status, NOT_YET):
        return True
    if FIGURES & fields.keys():
        return False
    return not fields.keys() - {"apply_id"} or isinstance(status, str)


def _too_late(answer: Answer, not_after: str) -> ExecutorRejectedError:
    message = (
        f"{answer.call}: {answer.status}, the apply came after its Not-After ({not_after}) by the Executor's "
        "clock, and began nothing; was it held up, or do the clocks of Executor and workers differ?"
    )
    return ExecutorRejectedError(message, answer.status, answer.words)


def _fault_failed(answer: Answer, reason: str | None) -> FaultFailedError:
    message = repr(reason[:LONGEST_REASON]) if reason else "no reason given"
    return FaultFailedError(f"{answer.call}: the fault failed: {message}")


def _path(apply_id: str) -> str:
    return f"/v1/faults/{quote(apply_id, safe='')}"


def _check_id(answer: Answer, message: str | None, asked: str) -> None:
    """Raises `ExecutorProtocolError` for an answer about another fault."""
    if message not in {None, asked}:
        raise answer.protocol_error(f"is not about fault {asked}")


def _says_over(answer: Answer, apply_id: str) -> bool:
    """Whether the answer to a stop says that this fault is completed or failed."""
    try:
        return _read(answer, StopAnswer).apply_id in {None, apply_id}
    except ExecutorProtocolError:
        return False


def _named_fault(answer: Answer) -> str:
    """The id in an answer that is wrong in other ways. Empty if there is none."""
    try:
        fields = answer.json()
    except ExecutorProtocolError:
        return ""
    apply_id = fields.get("apply_id") if isinstance(fields, dict) else None
    return apply_id if isinstance(apply_id, str) and usable_id(apply_id) else ""
