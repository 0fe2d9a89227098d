"""An observer that sends requests of its own to the target: before the fault, during it, and after it."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dispatcher.errors import FaultUnobservedError, InvalidPlanError
from dispatcher.observations import Doubt, RawObservation
from workers.observers.base import Phase
from workers.observers.baseline import refuse_unfit
from workers.observers.request import Load, ProbeRequest
from workers.observers.seen import Seen
from workers.observers.tally import Tally
from workers.observers.target import Slot, Target

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dispatcher.ledger.record import PlanRecord
    from dispatcher.settings.observers import ProbeSettings, ServiceSettings
    from workers.observers.tally import Probe

__all__ = ["ProbeObserver"]

LOOK_S = 1.0
"""How long a look sends requests, in seconds."""

ERROR_RATE_TOLERANCE = 0.05
"""A healthy target's error rate is above its baseline's by no more than that."""

LATENCY_FACTOR, LATENCY_TOLERANCE_MS = 2.0, 50.0
"""Its mean latency is at most its baseline's times the factor, or above it by no more than the tolerance."""


class ProbeObserver:
    """Sends requests to a target at a fixed rate. See `Observer`."""

    every_s: float | None = LOOK_S

    def __init__(self, settings: ProbeSettings, services: Mapping[str, ServiceSettings]) -> None:
        """`services` are the addresses of the targets, by the names that plans use.

        Raises `InvalidSettingsError` for certificate files that cannot be used.
        """
        self._settings = settings
        self._services = services
        self._loads = {name: Load.of(settings, service) for name, service in services.items()}
        longest = {name: _longest_request_s(settings, service) for name, service in services.items()}
        self._targets = {
            name: Target(name, service, self._loads[name].concurrency, longest[name])
            for name, service in services.items()
        }
        self.longest_look_s = LOOK_S + max(longest.values(), default=0.0)

    def sample(self, record: PlanRecord, phase: Phase, now_ms: int, within_s: float) -> str:
        """Send one second's requests. Raises `InvalidPlanError` for a service that is not configured, and
        `FaultUnobservedError` if more than half of the baseline's requests failed."""
        began = time.monotonic()
        service, plan = self._service(record), record.plan
        request = ProbeRequest.of(self._settings, service, plan.api)
        rate = self._loads[plan.service].requests_per_sec
        counts = _window(record, phase)
        slots = [
            Slot(now_ms + round(offset_s * 1000), began + offset_s, began + offset_s + request.timeout_s)
            for offset_s in _offsets(rate, within_s)
            if counts[0] <= now_ms + offset_s * 1000 <= counts[1]
        ]
        if not slots:
            return record.seen
        ends_at = began + min(within_s, self.longest_look_s)
        probes = self._targets[plan.service].look(request, slots, ends_at)
        if phase is Phase.BEFORE:
            refuse_unfit(probes, plan, request)
        return _with(Seen.of(record.seen), phase, probes).to_text()

    def settled(self, record: PlanRecord, now_ms: int) -> bool:
        """Whether the last look after the fault found the target healthy, or `recovery_timeout_sec` has
        passed since the fault was surely gone.

        The error rate of a healthy target is at most 0.05 above the baseline's. Its mean latency is at most
        twice the baseline's, or at most 50 ms above it."""
        gone_ms = _gone_ms(record)
        load = self._loads.get(record.plan.service)
        if gone_ms is None or load is None:
            return True
        return _is_healthy(Seen.of(record.seen)) or now_ms >= gone_ms + load.recovery_timeout_s * 1000

    def observation(self, record: PlanRecord, now_ms: int, within_s: float) -> RawObservation:
        """What the requests met. Raises `FaultUnobservedError` if none was sent while the fault was in
        force."""
        del within_s
        seen = Seen.of(record.seen)
        during = seen.within(*_window(record, Phase.DURING))
        if not during.requests:
            raise FaultUnobservedError("no probe was sent while the fault was in force")
        tallies = {Phase.BEFORE: seen.before, Phase.DURING: during, Phase.AFTER: seen.after}
        return RawObservation(
            execution_id=record.apply_id or record.id,
            timestamp=datetime.fromtimestamp(now_ms / 1000, UTC),
            baseline=seen.before.figures(),
            recovery=seen.after.figures(),
            doubts=tuple(_doubts(seen, during)),
            logs=[f"{phase} the fault: {tally}" for phase, tally in tallies.items()],
            **during.fields(),
        )

    def close(self) -> None:
        """Let go of all connections."""
        for target in self._targets.values():
            target.close()

    def _service(self, record: PlanRecord) -> ServiceSettings:
        name = record.plan.service
        if name not in self._services:
            problem = f"is not configured: add [services.{name}] to the worker's settings"
            raise InvalidPlanError(f"service {name} {problem}", [["service", problem]])
        return self._services[name]


def _longest_request_s(settings: ProbeSettings, service: ServiceSettings) -> float:
    apis = ["", *service.apis]
    return max(ProbeRequest.of(settings, service, api).timeout_s for api in apis)


def _offsets(requests_per_sec: int, within_s: float) -> list[float]:
    """When the requests of a look are sent, in seconds from its begin: one at once, the others at the rate.

    If there is little time, they are fewer, so that half of it is left for the answers.
    """
    count = max(1, math.ceil(min(LOOK_S, within_s / 2) * requests_per_sec))
    return [number / requests_per_sec for number in range(count)]


def _window(record: PlanRecord, phase: Phase) -> tuple[float, float]:
    """When a request must be sent to count for the phase, in ms on the server's clock. It may be empty."""
    begin_ms, end_ms, gone_ms = record.in_force_ms, _end_ms(record), _gone_ms(record)
    if phase is Phase.BEFORE:
        return (math.inf, 0) if record.doubtful else (0, math.inf)
    if begin_ms is None or end_ms is None or gone_ms is None:
        return math.inf, 0
    return (begin_ms, end_ms) if phase is Phase.DURING else (gone_ms, math.inf)


def _end_ms(record: PlanRecord) -> int | None:
    """When the fault ended, or is planned to end."""
    return record.planned_end_ms if record.over_ms is None else record.over_ms


def _gone_ms(record: PlanRecord) -> int | None:
    """When its end has surely arrived at the target."""
    end_ms = _end_ms(record)
    return None if end_ms is None else end_ms + record.takes_effect_ms


def _with(seen: Seen, phase: Phase, probes: Sequence[Probe]) -> Seen:
    look = Tally.of(probes)
    match phase:
        case Phase.BEFORE:
            return seen.seen_before(look)
        case Phase.DURING:
            return seen.seen_during(look)
    return seen.seen_after(look)


def _is_healthy(seen: Seen) -> bool:
    """Whether the last look after the fault found the target as it was before, or about so."""
    last, before = seen.last, seen.before
    if not last.requests or last.error_rate > before.error_rate + ERROR_RATE_TOLERANCE:
        return False
    longest_ms = max(before.mean_ms * LATENCY_FACTOR, before.mean_ms + LATENCY_TOLERANCE_MS)
    return not before.requests or last.mean_ms <= longest_ms


def _doubts(seen: Seen, during: Tally) -> Iterator[Doubt]:
    if seen.before.errors:
        yield Doubt.BASELINE_UNHEALTHY
    if seen.last.requests and not _is_healthy(seen):
        yield Doubt.NOT_RECOVERED
    if during.incomplete:
        yield Doubt.INCOMPLETE
