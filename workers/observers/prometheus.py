"""An observer that asks a Prometheus server what it has seen of the target."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import urlencode

from pydantic import BaseModel, Field, ValidationError

from dispatcher.effects import wilson_interval
from dispatcher.errors import (
    ExecutorClientError,
    ExecutorRejectedError,
    FaultUnobservedError,
    MetricsNotReadyError,
)
from dispatcher.ledger.moments import moment_of
from dispatcher.ledger.record import budget_ms
from dispatcher.observations import Doubt, Figures, RawObservation
from workers.drivers.transport import HttpTransport
from workers.observers.promql import filled
from workers.observers.servers_clock import TOLERATED_SHARE, ServersClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from dispatcher.ledger.record import PlanRecord
    from dispatcher.settings.observers import PrometheusSettings
    from workers.observers.base import Phase

__all__ = ["PrometheusObserver"]

STATUS = re.compile(r"[1-5][0-9][0-9]", re.ASCII)
ROUNDING = 1e-9
"""By how much the quotient of equal floats may miss 1."""

MOST_BEYOND_S = 0.2
"""How much of a window may be outside of the fault's time: Executors round its moments."""

MOST = 2.0**53
"""No target gets more requests."""

PERCENTILES = ("latency_p50", "latency_p95", "latency_p99")
CALLS = 3
"""An observation takes no longer than so many of the longest calls, however many queries there are."""


class _Labels(BaseModel):
    code: str = ""


class _Sample(BaseModel):
    metric: _Labels
    value: tuple[float, float] = Field(strict=False)  # the number comes as text


class _Data(BaseModel):
    result: list[_Sample] = Field(fail_fast=True)


class _QueryAnswer(BaseModel):
    status: Literal["success"] = "success"
    data: _Data
    warnings: list[str] = Field(default=[])
    partial: bool = Field(default=False, validation_alias="isPartial")
    """VictoriaMetrics lacks the data of a node."""


@dataclass(frozen=True, slots=True)
class _Window:
    """What time the queries are about."""

    end_ms: int
    seconds: int

    @classmethod
    def of_fault(cls, record: PlanRecord) -> Self:
        """When the fault was in force, and requests that it had hit were answered.

        Services count a request once it is answered. Until the fault has held its first one to the end, only
        those that it spares are counted. At most `MOST_BEYOND_S`, and `TOLERATED_SHARE` of it, is outside.
        Raises `FaultUnobservedError` if there is less than a second of it.
        """
        begin_ms, end_ms = record.in_force_ms, record.over_ms or record.surely_until_ms
        if begin_ms is None or end_ms is None or end_ms <= begin_ms:
            raise FaultUnobservedError("the target was not observed: the fault was never in force")
        hits = record.plan.percentage > 0
        held_ms = budget_ms(record.plan, 0) - record.plan.duration_seconds * 1000 if hits else 0
        answered_s = (end_ms - begin_ms - held_ms) / 1000
        seconds = math.floor(answered_s + min(TOLERATED_SHARE * answered_s, MOST_BEYOND_S))
        if seconds < 1:
            lasted_s, held_s = (end_ms - begin_ms) / 1000, held_ms / 1000
            held = f", and held each request for {held_s:g} s" if held_ms else ""
            raise FaultUnobservedError(
                f"the target was not observed: the fault was in force for {lasted_s:g} s{held}; Prometheus "
                "is asked about whole seconds of the rest: set duration_seconds to more"
            )
        return cls(end_ms, seconds)

    def before(self, record: PlanRecord) -> _Window:
        """A window of the same length that ends before the apply that may have begun the fault."""
        begin_ms = self.end_ms - self.seconds * 1000
        may_begin_ms = (record.began_ms, record.sent_ms, record.applied_ms)
        return _Window(min(begin_ms, *(each for each in may_begin_ms if each is not None)), self.seconds)

    @property
    def moments(self) -> dict[str, datetime]:
        """Its begin and end, as fields of `Figures`."""
        begin_ms = self.end_ms - self.seconds * 1000
        return {"started_at": moment_of(begin_ms), "ended_at": moment_of(self.end_ms)}


class PrometheusObserver:
    """Asks once the fault is over (Prometheus HTTP API, instant queries). See `Observer`."""

    every_s: float | None = None

    def __init__(self, settings: PrometheusSettings, connections: int) -> None:
        """`connections` is how many threads will ask at once.

        Raises `InvalidSettingsError` for certificate files that cannot be used.
        """
        self._settings = settings
        self._transport = HttpTransport(settings, connections)
        self.longest_look_s = CALLS * self._transport.longest_call_s

    def sample(self, record: PlanRecord, phase: Phase, now_ms: int, within_s: float) -> str:
        """Prometheus measures by itself."""
        del phase, now_ms, within_s
        return record.seen

    def settled(self, record: PlanRecord, now_ms: int) -> bool:
        """True, because nothing is measured after the fault."""
        del record, now_ms
        return True

    def observation(self, record: PlanRecord, now_ms: int, within_s: float) -> RawObservation:
        """What the queries return for the time of the fault.

        Raises `MetricsNotReadyError` until the last scrape of that time has surely been made. Raises
        `FaultUnobservedError` if a query returns no number, or one that cannot be right.
        """
        window = _Window.of_fault(record)
        self._wait_for_scrape(window, now_ms)
        began = time.monotonic()
        ends_at = began + min(within_s, self.longest_look_s)
        warnings: list[str] = []
        clock = ServersClock(lambda: now_ms / 1000 + time.monotonic() - began)

        def asking(about: _Window) -> _Asking:
            return _Asking(self._settings, self._transport, record, about, ends_at, warnings, clock)

        try:
            during = _figures(asking(window))
        except _NoDataError as exc:
            raise FaultUnobservedError(str(exc)) from exc
        wrong_clock = clock.problem(window.seconds)
        baseline = self._baseline(lambda: asking(window.before(record)))
        return RawObservation(
            execution_id=record.apply_id or record.id,
            timestamp=moment_of(now_ms),
            baseline=baseline,
            doubts=tuple(
                doubt
                for doubt, applies in (
                    (Doubt.WINDOW_UNKNOWN, bool(wrong_clock)),
                    (Doubt.COUNT_UNKNOWN, during.requests is None),
                    (Doubt.DILUTED, bool(record.plan.needs)),
                    (Doubt.INCOMPLETE, bool(warnings)),
                    (Doubt.BASELINE_UNHEALTHY, baseline is not None and bool(baseline.error_rate)),
                )
                if applies
            ),
            logs=[*warnings, *wrong_clock],
            **dict(during),
        )

    def close(self) -> None:
        """Let go of all connections."""
        self._transport.close()

    def _wait_for_scrape(self, window: _Window, now_ms: int) -> None:
        left_ms = window.end_ms + self._settings.scrape_interval_sec * 1000 - now_ms
        if left_ms > 0:
            message = "Prometheus has not scraped all of the fault's time yet (scrape_interval_sec)"
            raise MetricsNotReadyError(f"{message}: ask again in {left_ms / 1000:.1f} s")

    def _baseline(self, asking: Callable[[], _Asking]) -> Figures | None:
        """None if Prometheus knows nothing of the time before the fault, or is not to be asked."""
        if not self._settings.baseline:
            return None
        try:
            return _figures(asking())
        except _NoDataError:
            return None


class _NoDataError(Exception):
    """A query gave nothing, or NaN."""


@dataclass(frozen=True, slots=True)
class _Asking:
    """All queries about one window. A failure names the setting of its query."""

    settings: PrometheusSettings
    transport: HttpTransport
    record: PlanRecord
    window: _Window
    ends_at: float
    warnings: list[str]
    clock: ServersClock

    def number(self, figure: str, low: float, high: float = math.inf) -> float | None:
        """What the query for `figure` returns. None if there is no such query.

        Raises `_NoDataError` if it is nothing or NaN, and `FaultUnobservedError` if it is not a single number
        from `low` to `high`.
        """
        samples = self.samples(figure)
        if samples is None:
            return None
        if len(samples) > 1:
            raise FaultUnobservedError(f"{self._named(figure)} gave {len(samples)} samples and not one")
        if not samples or math.isnan(samples[0].value[1]):
            came = "nan" if samples else "0 samples and not one"
            advice = "had the target requests, and did the fault last for two scrapes?"
            raise _NoDataError(f"{self._named(figure)} gave {came}; {advice}")
        value = samples[0].value[1]
        nearest = min(max(value, low), high)
        if abs(value - nearest) > ROUNDING or not math.isfinite(value):
            raise FaultUnobservedError(f"{self._named(figure)} gave {value:g}, which no {figure} can be")
        return nearest

    def check_order(self, percentiles: dict[str, float | None]) -> None:
        """Raises `FaultUnobservedError` unless they rise: one of the queries has another unit or target."""
        known = [(figure, value) for figure, value in percentiles.items() if value is not None]
        for (figure, value), (next_figure, limit) in pairwise(known):
            if value > limit:
                raise FaultUnobservedError(
                    f"{self._named(figure)} gave {value:g}, and {next_figure}_query only {limit:g}"
                )

    def samples(self, figure: str) -> list[_Sample] | None:
        """The instant vector that the query for `figure` returns. None if there is no such query."""
        query = getattr(self.settings, f"{figure}_query")
        if query is None:
            return None
        plan = self.record.plan
        text = filled(query, plan.service, plan.api, self.window.seconds)
        try:
            return self._answer(text, figure)
        except ExecutorRejectedError as error:
            message = f"{self._named(figure)} was refused by Prometheus: {error.executor_message!r}"
            raise error.saying(f"{message} (status {error.status})") from error
        except ExecutorClientError as error:
            raise error.saying(f"{self._named(figure)}: {error.message}") from error

    def _answer(self, query: str, figure: str) -> list[_Sample]:
        parameters: dict[str, Any] = {"query": query, "time": f"{self.window.end_ms / 1000:.3f}"}
        within_s = max(0.0, self.ends_at - time.monotonic())
        path = f"/api/v1/query?{urlencode(parameters)}"
        answer = self.clock.call(lambda: self.transport.call("GET", path, within_s=within_s))
        if not answer.ok:
            raise answer.error()
        try:
            content = _QueryAnswer.model_validate(answer.json())
        except ValidationError as exc:
            raise answer.protocol_error("is not an instant vector") from exc
        warnings = [*content.warnings, *["the answer is partial (isPartial)"] * content.partial]
        self.warnings.extend(f"{figure}_query: Prometheus warns: {each}" for each in warnings)
        return content.data.result

    def _named(self, figure: str) -> str:
        section = f"executors.{self.record.executor}.observer"
        return f"the target was not observed: {figure}_query of [{section}]"


def _figures(asking: _Asking) -> Figures:
    rate = asking.number("error_rate", 0.0, 1.0)
    count = asking.number("requests", 0.0, MOST)
    requests = None if count is None else round(count)
    fields: dict[str, Any] = {
        "requests": requests,
        "error_rate": rate,
        "latency_ms": asking.number("latency", 0.0),
        "status_code": _status(asking.samples("status")),
        **{f"{each}_ms": asking.number(each, 0.0) for each in PERCENTILES},
        **asking.window.moments,
    }
    if requests is None and fields["error_rate"] == fields["latency_ms"] == 0:
        return Figures(**asking.window.moments)  # no answer takes no time: a query adds 0 if there is no data
    asking.check_order({each: fields[f"{each}_ms"] for each in PERCENTILES})
    if requests and rate is not None:
        fields["error_rate_low"], fields["error_rate_high"] = wilson_interval(
            round(rate * requests), requests
        )
    return Figures(**fields)


def _status(samples: list[_Sample] | None) -> int | None:
    """The `code` of the largest sample. None if there is none, or it is not a status."""
    codes = [(each.value[1], each.metric.code) for each in samples or [] if each.value[1] > 0]
    code = max(codes, default=(0.0, ""))[1]
    return int(code) if STATUS.fullmatch(code) else None
