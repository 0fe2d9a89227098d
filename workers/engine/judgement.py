"""Judges an observation before its plan ends with it: what was not seen is None, a doubt, or an error.

    of the observation          from
    requests                    the Executor, otherwise its successes and errors
    error_rate_low, ..._high    errors and requests (E. B. Wilson, 1927)
    started_at, ended_at        the observation, or the record, or as planned (then `window_unknown`)
    doubts                      those of the driver or observer, and those that are found here

An observation without a request has neither an error rate nor a latency, even if the Executor sends them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from dispatcher.effects import wilson_interval
from dispatcher.errors import ExecutorProtocolError, FaultUnobservedError
from dispatcher.ledger.moments import moment_of
from dispatcher.observations import Doubt, Figures, RawObservation
from dispatcher.settings.executors import OnDoubt

if TYPE_CHECKING:
    from dispatcher.ledger.record import PlanRecord
    from dispatcher.settings.executors import ExecutorClientConfig

__all__ = ["judge"]

LEAST_TOLERANCE = timedelta(seconds=0.5)
TOLERATED_SHARE = 0.05
"""Of the fault's duration, and of the requests that it should hit. A window is as planned if it is off by no
more than the larger of the two."""

WIDEST_INTERVAL = 0.2
"""Of an error rate that says something."""

DEVIATIONS = 4
"""Standard deviations of a binomial count. A larger difference is not chance (1 in 16,000)."""

FEW = 3
"""Requests that may be hit or missed at the edges of the window."""

ORDER = tuple(Doubt)

OF_A_REQUEST = (
    "status_code",
    "latency_ms",
    "latency_sd_ms",
    "latency_p50_ms",
    "latency_p95_ms",
    "latency_p99_ms",
    "error_rate",
    "error_rate_low",
    "error_rate_high",
)
"""The figures that do not exist without a request."""


@dataclass(frozen=True, slots=True)
class _Window:
    """When the fault was in force. Each end is None if not even a plan says it."""

    started_at: datetime | None
    ended_at: datetime | None
    late_by: timedelta
    lasted: timedelta | None
    """For how long the fault was in force. None unless both ends are the real ones."""

    told: bool
    """Whether the Executor says both ends."""


def judge(
    record: PlanRecord,
    observation: RawObservation,
    config: ExecutorClientConfig,
    *,
    overlapped: bool = False,
) -> RawObservation:
    """The observation with its intervals, its window and all doubts, each once and in the order of `Doubt`.

    `overlapped`: another plan's fault was on the same target meanwhile. Raises `FaultUnobservedError` if the
    fault was never in force, if fewer requests came than `min_requests`, or for a doubt that `on_doubt` says
    `fail` of. Raises `ExecutorProtocolError` if there are more errors than requests, and if another plan's
    fault has the same id.
    """
    if record.twin is not None:
        raise _of_either(record)
    observation = _counted(record, observation)
    window = _window(record, observation, by_executor=config.observer is None)
    if window.lasted is not None and window.lasted <= timedelta(0):
        raise _never_in_force(record)
    _check_requests(record, observation, config)
    doubts = _doubts(record, observation, window)
    if overlapped:
        doubts.add(Doubt.OVERLAPPED)
    kept = tuple(sorted(doubts, key=ORDER.index))
    if config.on_doubt:
        _check_doubts(record, kept, config)
    return observation.model_copy(
        update={"started_at": window.started_at, "ended_at": window.ended_at, "doubts": kept}
    )


def _of_either(record: PlanRecord) -> ExecutorProtocolError:
    return ExecutorProtocolError(
        f"plan {record.id}: its fault has the id {record.apply_id}, and so has that of plan {record.twin}: "
        "the figures may be of either; does the Executor repeat ids after a restart?"
    )


def _counted(record: PlanRecord, observation: RawObservation) -> RawObservation:
    """With intervals for the error rates of the fault, of its baseline and of its recovery."""
    changes = _counts(record, observation)
    if observation.baseline is not None:
        counts = _counts(record, observation.baseline)
        changes["baseline"] = observation.baseline.model_copy(update=counts)
    if observation.recovery is not None:
        counts = _counts(record, observation.recovery)
        changes["recovery"] = observation.recovery.model_copy(update=counts)
    return observation.model_copy(update=changes)


def _counts(record: PlanRecord, figures: Figures) -> dict[str, Any]:
    """What the counts say, and what there cannot be without requests."""
    requests, errors = figures.requests, figures.error_count
    if requests is None and errors is not None and figures.success_count is not None:
        requests = errors + figures.success_count
    if requests == 0:
        return {"requests": 0} | dict.fromkeys(OF_A_REQUEST)
    if requests is None:
        return {}
    if errors is not None and errors > requests:
        message = f"plan {record.id}: {errors} errors of {requests} requests were observed, which cannot be"
        raise ExecutorProtocolError(message, record.apply_id or "")
    if errors is None and figures.error_rate is not None:
        errors = round(figures.error_rate * requests)
    if errors is None:
        return {}
    rate = errors / requests if figures.error_rate is None else figures.error_rate
    low, high = wilson_interval(errors, requests)
    return {"requests": requests, "error_rate": rate, "error_rate_low": low, "error_rate_high": high}


def _window(record: PlanRecord, observation: RawObservation, *, by_executor: bool) -> _Window:
    """The real window as far as it is known, and what is planned of the rest.

    `by_executor` says that the Executor made the observation. An observer's window is that of its requests.
    """
    duration = timedelta(seconds=record.plan.duration_seconds)
    planned = moment_of(None if record.applied_ms is None else record.applied_ms + record.takes_effect_ms)
    real_start = (observation.started_at if by_executor else None) or moment_of(record.began_ms)
    real_end = (observation.ended_at if by_executor else None) or moment_of(record.over_ms)
    late_by = timedelta(0) if real_start is None or planned is None else real_start - planned
    in_force = planned if real_start is None else real_start + _not_in_force_yet(record, late_by)
    end = real_end or (None if in_force is None else in_force + duration)
    lasted = None if real_end is None or in_force is None else real_end - in_force
    if real_start is None and lasted is not None and lasted >= duration:
        lasted = None  # an end in time says nothing of a begin that is unknown
    started_at, ended_at = observation.started_at or real_start or planned, observation.ended_at or end
    told = real_start is not None and real_end is not None
    return _Window(started_at, ended_at, late_by, lasted, told)


def _not_in_force_yet(record: PlanRecord, late_by: timedelta) -> timedelta:
    """How much of a window that began when the Executor took the fault passed before it was in force.

    No more than the time that a fault takes to be in force, because the Executor's clock may be slow."""
    return min(max(-late_by, timedelta(0)), timedelta(milliseconds=record.takes_effect_ms))


def _doubts(record: PlanRecord, observation: RawObservation, window: _Window) -> set[Doubt]:
    """Those of the observation, and what is to doubt in the window and in the counts."""
    doubts = set(observation.doubts)
    duration = timedelta(seconds=record.plan.duration_seconds)
    tolerance = max(LEAST_TOLERANCE, TOLERATED_SHARE * duration)
    if window.late_by > tolerance:
        doubts.add(Doubt.LATE)
    if window.lasted is not None and window.lasted < duration - tolerance:
        doubts.add(Doubt.SHORT)
    if window.lasted is not None and window.lasted > duration + tolerance:
        doubts.add(Doubt.LONG)
    if not window.told:
        doubts.add(Doubt.WINDOW_UNKNOWN)
    if observation.requests is None:
        doubts.add(Doubt.COUNT_UNKNOWN)
    elif _says_little(observation):
        doubts.add(Doubt.FEW_REQUESTS)
    if _is_wrong_dose(record, observation):
        doubts.add(Doubt.WRONG_DOSE)
    if observation.truncated:
        doubts.add(Doubt.TRUNCATED)
    return doubts


def _is_wrong_dose(record: PlanRecord, observation: RawObservation) -> bool:
    """Whether the fault hit a share of the requests that is not chance, and is well off the plan's."""
    if observation.faulted is None or not observation.requests:
        return False
    share = record.plan.percentage / 100
    expected = observation.requests * share
    chance = DEVIATIONS * math.sqrt(expected * (1 - share))
    return abs(observation.faulted - expected) > max(chance, TOLERATED_SHARE * expected, FEW)


def _says_little(observation: RawObservation) -> bool:
    low, high = observation.error_rate_low, observation.error_rate_high
    if low is None or high is None:
        return not observation.requests
    return high - low > WIDEST_INTERVAL


def _never_in_force(record: PlanRecord) -> FaultUnobservedError:
    return FaultUnobservedError(
        f"plan {record.id}: its fault on {_target(record)} ended before it was in force; see the "
        "Executor's log, and submit it as a new plan"
    )


def _check_requests(record: PlanRecord, observation: RawObservation, config: ExecutorClientConfig) -> None:
    fewest = config.min_requests if record.plan.min_requests is None else record.plan.min_requests
    requests = observation.requests
    if requests is not None and requests < fewest:
        met = {0: "no request", 1: "1 request"}.get(requests, f"{requests} requests")
        raise FaultUnobservedError(
            f"plan {record.id}: {met} met its fault on {_target(record)}, and min_requests is {fewest}; "
            "send requests to it meanwhile, or lower min_requests"
        )


def _check_doubts(record: PlanRecord, doubts: tuple[Doubt, ...], config: ExecutorClientConfig) -> None:
    fatal = [doubt for doubt in doubts if config.on_doubt.get(doubt) is OnDoubt.FAIL]
    if fatal:
        reasons = "; ".join(f"{doubt} ({doubt.meaning})" for doubt in fatal)
        raise FaultUnobservedError(
            f"plan {record.id}: its observation of {_target(record)} is in doubt, and the setting on_doubt "
            f"says fail: {reasons}"
        )


def _target(record: PlanRecord) -> str:
    return f"{record.plan.service} {record.plan.api}"
