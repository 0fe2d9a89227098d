"""An observer that asks a Prometheus server what it has seen of the target."""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from pydantic import BaseModel, Field, ValidationError

from dispatcher.errors import FaultLostError
from dispatcher.observations import RawObservation
from workers.drivers.transport import HttpTransport

if TYPE_CHECKING:
    from dispatcher.ledger.record import PlanRecord
    from dispatcher.settings.executors import PrometheusSettings
    from workers.observers.base import Phase

__all__ = ["PrometheusObserver"]

STATUS = re.compile(r"[1-9][0-9][0-9]", re.ASCII)


class _Labels(BaseModel):
    code: str = ""


class _Sample(BaseModel):
    metric: _Labels
    value: tuple[float, float] = Field(strict=False)  # the number comes as text


class _Data(BaseModel):
    result: list[_Sample] = Field(fail_fast=True)


class _QueryAnswer(BaseModel):
    data: _Data


class PrometheusObserver:
    """Asks once, when the fault is over (Prometheus HTTP API, instant queries). See `Observer`."""

    every_s: float | None = None

    def __init__(self, settings: PrometheusSettings, connections: int) -> None:
        """`connections` is how many threads will ask at once.

        Raises `InvalidSettingsError` for certificate files that cannot be used.
        """
        self._settings = settings
        self._transport = HttpTransport(settings, connections)
        self.longest_look_s = 3 * self._transport.longest_call_s

    def sample(self, record: PlanRecord, phase: Phase, within_s: float) -> str:
        """Prometheus looks by itself."""
        del phase, within_s
        return record.seen

    def observation(self, record: PlanRecord, within_s: float) -> RawObservation:
        """What the queries return for the time of the fault. Raises `FaultLostError` if they return
        nothing."""
        settings = self._settings
        error_rate = self._number(settings.error_rate_query, record, within_s)
        return RawObservation(
            execution_id=record.apply_id or record.id,
            timestamp=datetime.now(UTC),
            status_code=self._status(record, within_s),
            latency_ms=max(0.0, self._number(settings.latency_query, record, within_s)),
            error_rate=min(max(error_rate, 0.0), 1.0),
        )

    def close(self) -> None:
        """Let go of all connections."""
        self._transport.close()

    def _number(self, query: str, record: PlanRecord, within_s: float) -> float:
        samples = self._ask(query, record, within_s)
        if len(samples) != 1:
            message = f"{len(samples)} samples and not one: {_filled(query, record)}"
            raise FaultLostError(f"the target was not observed: a query gave {message}")
        value = samples[0].value[1]
        if not math.isfinite(value):
            raise FaultLostError(
                f"the target was not observed: a query gave {value}: {_filled(query, record)}"
            )
        return value

    def _status(self, record: PlanRecord, within_s: float) -> int:
        if self._settings.status_query is None:
            return 0
        samples = self._ask(self._settings.status_query, record, within_s)
        codes = [(each.value[1], each.metric.code) for each in samples]
        code = max(codes, default=(0.0, ""))[1]
        return int(code) if STATUS.fullmatch(code) else 0

    def _ask(self, query: str, record: PlanRecord, within_s: float) -> list[_Sample]:
        ended_s = ((record.applied_ms or 0) + record.plan.duration_seconds * 1000) / 1000
        parameters: dict[str, Any] = {"query": _filled(query, record), "time": f"{ended_s:.3f}"}
        answer = self._transport.call("GET", f"/api/v1/query?{urlencode(parameters)}", within_s=within_s)
        if not answer.ok:
            raise answer.error()
        try:
            return _QueryAnswer.model_validate(answer.json()).data.result
        except ValidationError as exc:
            raise answer.protocol_error("is no instant vector") from exc


def _filled(query: str, record: PlanRecord) -> str:
    """The query for this plan, whose names cannot break out of a string in it."""
    plan = record.plan
    for name, value in (
        ("service", plan.service),
        ("api", plan.api),
        ("seconds", str(plan.duration_seconds)),
    ):
        query = query.replace(f"{{{name}}}", value.replace("\\", "\\\\").replace('"', '\\"'))
    return query
