"""An observer that sends requests of its own to the target: before the fault, during it, and after it."""

from __future__ import annotations

import math
from itertools import groupby
from typing import TYPE_CHECKING

from dispatcher.errors import FaultUnobservedError, InvalidPlanError
from dispatcher.ledger.moments import moment_of
from dispatcher.ledger.record import budget_ms
from dispatcher.observations import Doubt, RawObservation
from dispatcher.protocols import Protocol
from workers.observers.base import Phase
from workers.observers.baseline import refuse_unfit
from workers.observers.pace import Pace, Slot, send_all
from workers.observers.request import Load, ProbeRequest
from workers.observers.seen import Seen
from workers.observers.tally import Tally
from workers.observers.target import HttpTarget

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from dispatcher.ledger.record import PlanRecord
    from dispatcher.settings.observers import ProbeSettings, ServiceSettings
    from workers.observers.tally import Probe
    from workers.observers.target import Target

__all__ = ["ProbeObserver"]

LOOK_S = 1.0
"""How long a measurement sends requests, in seconds; also the length of a part of a longer one."""

LONGEST_SENDING_S = 31.0
"""The longest time that a measurement during the fault sends, while requests are unanswered."""

LATE_MS = 500
"""If a measurement during the fault begins this late, its plan has waited for a thread of the worker."""

CROWDED_S = 10.0
"""For this long no measurement of the worker goes on after its second, so that each plan has its turn."""

ANSWER_S = 1.0
"""What is left of a measurement's time for the last answers, beyond what the fault holds them."""

ERROR_RATE_TOLERANCE = 0.05
"""A healthy target's error rate is above its baseline's by no more than that."""

LATENCY_FACTOR, LATENCY_TOLERANCE_MS = 2.0, 50.0
"""Its mean latency is at most its baseline's times the factor, or above it by no more than the tolerance."""

EDGE_SHARE = 0.05
"""The largest part of the fault's duration, at its end, in which no request is sent.

A request that is sent so late may reach the target after the fault. Most arrive within the mean latency that
was measured before it.
"""


class ProbeObserver:
    """Sends requests to a target at a fixed rate. See `Observer`."""

    every_s: float | None = LOOK_S

    def __init__(
        self,
        settings: ProbeSettings,
        services: Mapping[str, ServiceSettings],
        open_target: Callable[[str, ServiceSettings, int, float], Target] = HttpTarget,
    ) -> None:
        """`services` are the addresses of the targets, by the names that plans use. See `HttpTarget` for the
        arguments of `open_target`.

        Raises `InvalidSettingsError` for certificate files that cannot be used.
        """
        self._settings = settings
        self._services = services
        self._loads = {name: Load.of(settings, service) for name, service in services.items()}
        self._targets = {
            name: open_target(name, services[name], load.concurrency, load.longest_request_s)
            for name, load in self._loads.items()
        }
        longest_s = max((load.longest_request_s for load in self._loads.values()), default=0.0)
        self.longest_look_s = LONGEST_SENDING_S + longest_s
        self._crowded_until = -math.inf

    def sample(self, record: PlanRecord, phase: Phase, now_ms: int, within_s: float) -> str:
        """Send one second's requests. During the fault it goes on while some are without an answer, for
        `LONGEST_SENDING_S` at most. It ends with the fault, or if a plan waits for a thread.

        Raises `InvalidPlanError` for a service that is not configured and for gRPC calls, and
        `FaultUnobservedError` if more than half of the baseline's requests failed."""
        plan, seen = record.plan, Seen.of(record.seen)
        request = ProbeRequest.of(self._settings, self._service(record), plan.api, plan.headers)
        target = self._targets[plan.service]
        began = target.now()
        if phase is Phase.DURING and _is_late(record, seen, now_ms):
            self._crowded_until = began + CROWDED_S
        sends_s = min(LOOK_S, within_s / 2)
        pace = self._pace(record, phase, now_ms, seen, _sends_at_most_s(record, phase, sends_s, within_s))
        slots = _slots(pace, began, request.timeout_s, _latest_ms(record, phase, seen))
        ends_at = began + min(within_s, self.longest_look_s)
        line = target.line(request, ends_at)
        last = send_all(line, slots, began + sends_s, ends_at, lambda: target.now() >= self._crowded_until)
        if last is None:
            return record.seen
        probes = line.probes()
        if phase is Phase.BEFORE:
            refuse_unfit(probes, plan, request)
        ended_ms = now_ms + round((target.now() - began) * 1000)
        return _with(seen, phase, probes, last.follower_ms, ended_ms).to_text()

    def settled(self, record: PlanRecord, now_ms: int) -> bool:
        """Whether the last measurement found the target healthy, or `recovery_timeout_sec` has
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
            timestamp=moment_of(now_ms),
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

    def _pace(
        self, record: PlanRecord, phase: Phase, now_ms: int, seen: Seen, sends_at_most_s: float
    ) -> Pace:
        begin_ms, _ = _window(record, phase)
        due_ms = max(begin_ms, now_ms)
        if phase is Phase.DURING:
            due_ms = max(begin_ms, seen.next_ms or 0)
        end_ms = _latest_ms(record, phase, seen)
        rate = self._loads[record.plan.service].requests_per_sec
        return Pace(rate, now_ms, due_ms, min(end_ms, now_ms + sends_at_most_s * 1000))

    def _service(self, record: PlanRecord) -> ServiceSettings:
        name = record.plan.service
        if record.plan.protocol is Protocol.GRPC:
            problem = "is grpc, and a probe sends no gRPC calls: observe by the Executor or by Prometheus"
            raise InvalidPlanError(f"protocol {problem}", [["protocol", problem]])
        if name not in self._services:
            problem = f"is not configured: add [services.{name}] to the worker's settings"
            raise InvalidPlanError(f"service {name} {problem}", [["service", problem]])
        return self._services[name]


def _sends_at_most_s(record: PlanRecord, phase: Phase, sends_s: float, within_s: float) -> float:
    """How long a measurement may send if requests remain without an answer. Usually it has `sends_s`."""
    if phase is not Phase.DURING:
        return sends_s
    held_s = budget_ms(record.plan, 0) / 1000 - record.plan.duration_seconds
    return max(sends_s, min(LONGEST_SENDING_S, within_s - held_s - ANSWER_S))


def _is_late(record: PlanRecord, seen: Seen, now_ms: int) -> bool:
    """Whether a measurement during the fault begins late, although the one before it has ended."""
    due_ms = max(record.in_force_ms or now_ms, seen.next_ms or 0, seen.looked_ms or 0)
    return now_ms - due_ms > LATE_MS


def _slots(pace: Pace, began: float, timeout_s: float, latest_ms: float) -> Iterator[Slot]:
    """The slots of a measurement that began at `began`. From `latest_ms` on, none is sent any more."""
    latest_at = began + (latest_ms - pace.now_ms) / 1000
    for sent_ms, following_ms in pace.moments():
        at = began + (sent_ms - pace.now_ms) / 1000
        yield Slot(round(sent_ms), round(following_ms), at, at + timeout_s, latest_at)


def _window(record: PlanRecord, phase: Phase) -> tuple[float, float]:
    """From when and before when a request must be sent to count for the phase, in ms on the server's clock.

    It may be empty.
    """
    begin_ms, end_ms, gone_ms = record.in_force_ms, _end_ms(record), _gone_ms(record)
    if phase is Phase.BEFORE:
        return (math.inf, 0) if record.doubtful else (0, math.inf)
    if begin_ms is None or end_ms is None or gone_ms is None:
        return math.inf, 0
    return (begin_ms, end_ms) if phase is Phase.DURING else (gone_ms, math.inf)


def _latest_ms(record: PlanRecord, phase: Phase, seen: Seen) -> float:
    """Before when a request must be sent, to arrive while it counts for the phase, in ms on that clock."""
    _, end_ms = _window(record, phase)
    if phase is Phase.DURING:
        end_ms -= min(seen.before.mean_ms, EDGE_SHARE * record.plan.duration_seconds * 1000)
    return end_ms


def _end_ms(record: PlanRecord) -> int | None:
    """When the fault ended, or is planned to end."""
    return record.surely_until_ms if record.over_ms is None else record.over_ms


def _gone_ms(record: PlanRecord) -> int | None:
    """When its end has surely arrived at the target."""
    end_ms = _end_ms(record)
    return None if end_ms is None else end_ms + record.takes_effect_ms


def _with(seen: Seen, phase: Phase, probes: Sequence[Probe], next_ms: int, ended_ms: int) -> Seen:
    match phase:
        case Phase.BEFORE:
            return seen.seen_before(Tally.of(probes))
        case Phase.DURING:
            for part in _parts(probes):
                seen = seen.seen_during(part)
            return seen.model_copy(update={"next_ms": next_ms, "looked_ms": ended_ms})
    return seen.seen_after(Tally.of(probes))


def _parts(probes: Sequence[Probe]) -> Iterator[Tally]:
    """A tally for each second: the fault's real begin and end may prove to be within a long one."""
    ordered = sorted(probes, key=lambda each: each.planned_ms)
    for _, part in groupby(ordered, lambda each: (each.planned_ms - ordered[0].planned_ms) // 1000):
        yield Tally.of(list(part))


def _is_healthy(seen: Seen) -> bool:
    """Whether the last measurement after the fault found the target as it was before, or about so."""
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
