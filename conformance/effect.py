"""Measures how long an Executor takes until a fault is in force, and until it is gone."""

from __future__ import annotations

import math
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from dispatcher.errors import ExecutorClientError, FaultInDoubtError, FaultUnobservedError
from workers.drivers.base import StopOutcome

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from threading import Event

    from dispatcher.models import FaultPlan
    from workers.drivers.base import Driver

__all__ = ["Effect", "Measurement", "Round"]

PROBE_EVERY_S = 0.05
QUIET_PROBES = 20
"""So many good answers in a row mean that the fault is gone. Not every request need meet a fault of 100 %."""

BASELINE_PROBES = 5
SHORTEST_WINDOW_S = 2
"""How long the fault that ends by itself is in force, at least, in seconds."""

APPLY_WITHIN_S = 60.0


@dataclass(frozen=True, slots=True)
class Round:
    """What one round has measured, in seconds, by answers to the probe."""

    in_force_s: float
    """From the answer to the apply until the first faulted answer."""

    gone_after_stop_s: float | None
    """From the answer to the stop until the last faulted answer. None if the Executor cannot stop faults."""

    gone_after_end_s: float
    """From the planned end, counted from the sending of the apply, until the last faulted answer."""

    def __str__(self) -> str:
        stop = self.gone_after_stop_s
        stopped = "cannot be stopped" if stop is None else f"gone {stop:.2f} s after its stop"
        return (
            f"in force {self.in_force_s:.2f} s after the apply, {stopped}, "
            f"gone {self.gone_after_end_s:.2f} s after its own end"
        )

    @property
    def longest_s(self) -> float:
        """The longest of them."""
        return max(self.in_force_s, self.gone_after_stop_s or 0.0, self.gone_after_end_s)


@dataclass(frozen=True, slots=True)
class Effect:
    """What all rounds have measured."""

    executor: str
    """Its URL."""

    rounds: Sequence[Round]

    @property
    def takes_effect_sec(self) -> float:
        """What to configure: the longest time, rounded up to 0.1 s below 1 s, and to whole seconds above."""
        longest_s = max(each.longest_s for each in self.rounds)
        return max(math.ceil(longest_s * 10) / 10, 0.1) if longest_s <= 1 else math.ceil(longest_s)

    def summary(self) -> str:
        """The longest times in a line."""
        stops = [each.gone_after_stop_s for each in self.rounds if each.gone_after_stop_s is not None]
        stop = f"{max(stops):.2f}" if stops else "unknown"
        return (
            f"effect: in_force={max(each.in_force_s for each in self.rounds):.2f} gone_after_stop={stop} "
            f"gone_after_end={max(each.gone_after_end_s for each in self.rounds):.2f} "
            f"takes_effect_sec={self.takes_effect_sec:g}"
        )

    @property
    def fields(self) -> dict[str, object]:
        """All of it, for programs."""
        return asdict(self) | {"takes_effect_sec": self.takes_effect_sec}


@dataclass(frozen=True, slots=True)
class Measurement:
    """Measures one Executor, with a fault that answers the probe with an error status."""

    driver: Driver
    plan: FaultPlan
    """An abort of 100 % on the path that is probed. Its duration is replaced."""

    probe: Callable[[], int]
    """Sends one request to the target and returns the status of the answer. 0 means no answer."""

    within_s: float
    """How long the effect of an apply, a stop or an end is waited for, in seconds."""

    interrupted: Event

    def round(self) -> Round:
        """Apply two faults: one is stopped, and one ends by itself.

        Raises `FaultUnobservedError` if the probe does not see the fault, and `FaultInDoubtError` if it sees
        it for too long.
        """
        self._check_baseline()
        in_force_s, gone_after_stop_s = self._stopped_fault()
        lasts_s = math.ceil(in_force_s) + SHORTEST_WINDOW_S
        while (gone_after_end_s := self._ended_fault(lasts_s)) is None:
            if lasts_s > self.within_s:
                raise FaultUnobservedError(f"no answer met a fault of {lasts_s} s on {self._target}")
            lasts_s *= 2
        return Round(in_force_s, gone_after_stop_s, gone_after_end_s)

    @property
    def _target(self) -> str:
        return f"{self.plan.service} {self.plan.api}"

    def _check_baseline(self) -> None:
        statuses = {self._probe() for _ in range(BASELINE_PROBES)}
        unfit = statuses & {0, self.plan.abort_http_status}
        if unfit:
            came = "no answer" if 0 in unfit else f"status {self.plan.abort_http_status}"
            raise FaultUnobservedError(f"the probe of {self._target} got {came} before any fault was applied")

    def _stopped_fault(self) -> tuple[float, float | None]:
        """Seconds until the fault is in force, and until it is gone after a stop."""
        lasts_s = math.ceil(self.within_s) + SHORTEST_WINDOW_S
        apply_id = self._apply(lasts_s)
        applied = time.monotonic()
        try:
            in_force = self._first_faulted(applied + self.within_s)
            if in_force is None:
                raise FaultUnobservedError(
                    f"no answer met the fault on {self._target} within {self.within_s:g} s: does the probe "
                    "go through the data plane, and does the Executor know the service by this name?"
                )
            outcome = self.driver.stop(apply_id)
            stopped = time.monotonic()
            if outcome is StopOutcome.UNSUPPORTED:
                self._last_faulted(applied + lasts_s, applied + lasts_s)
                return in_force - applied, None
            last = self._last_faulted(stopped, stopped)
            return in_force - applied, max((last or stopped) - stopped, 0.0)
        finally:
            self._clean_up(apply_id)

    def _ended_fault(self, lasts_s: int) -> float | None:
        """Seconds from the planned end of a fault until it is gone. None if it was never in force."""
        sent = time.monotonic()
        apply_id = self._apply(lasts_s)
        try:
            last = self._last_faulted(sent, sent + lasts_s)
        finally:
            self._clean_up(apply_id)
        return None if last is None else max(last - sent - lasts_s, 0.0)

    def _apply(self, lasts_s: int) -> str:
        plan = self.plan.model_copy(update={"duration_seconds": lasts_s})
        not_after = datetime.now(UTC) + timedelta(seconds=APPLY_WITHIN_S)
        return self.driver.apply(plan, f"effect-{uuid.uuid4().hex[:12]}", APPLY_WITHIN_S, not_after)

    def _first_faulted(self, until: float) -> float | None:
        """When the first faulted answer came. None if none came in time."""
        while time.monotonic() < until:
            if self._faulted():
                return time.monotonic()
        return None

    def _last_faulted(self, since: float, ends: float) -> float | None:
        """When the last faulted answer came, which is known some good answers after `ends`.

        None if none came after `since`. Raises `FaultInDoubtError` if they do not end in time.
        """
        last, quiet = None, 0
        while quiet < QUIET_PROBES:
            if self._faulted():
                last, quiet = time.monotonic(), 0
            else:
                quiet += time.monotonic() > ends
            if time.monotonic() > ends + self.within_s:
                problem = f"was still in force {self.within_s:g} s after its end"
                raise FaultInDoubtError(f"the fault on {self._target} {problem}")
        return last if last is None or last >= since else None

    def _faulted(self) -> bool:
        return self._probe() == self.plan.abort_http_status

    def _probe(self) -> int:
        if self.interrupted.wait(PROBE_EVERY_S):
            raise FaultUnobservedError("the measurement was interrupted")
        return self.probe()

    def _clean_up(self, apply_id: str) -> None:
        """Ask for the fault's end, even after an error."""
        with suppress(ExecutorClientError):
            self.driver.stop(apply_id)
