"""A circuit breaker within one process, with the rules of the shared one."""

from __future__ import annotations

import random
import threading
import time
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workers.breaker.rules import (
    HALF_OPEN_WAIT_MS,
    NO_COUNTS,
    WINDOW_SLICES,
    Admission,
    Breaker,
    BreakerRules,
    BreakerState,
    Outcome,
    Rejection,
    Report,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["LocalBreaker"]

CHANGES = {
    BreakerState.OPEN: "opens",
    BreakerState.HALF_OPEN: "half_opens",
    BreakerState.CLOSED: "closes",
}
"""The names that the shared breaker uses."""


@dataclass(slots=True)
class _Counts:
    calls: int = 0
    failures: int = 0
    slow: int = 0


@dataclass(slots=True)
class _Epoch:
    """State that each change resets."""

    state: BreakerState = BreakerState.CLOSED
    reason: str = ""
    until_ms: float | None = None
    failures: int = 0
    successes: int = 0
    probes: dict[str, float] = field(default_factory=dict)
    window: defaultdict[int, _Counts] = field(default_factory=lambda: defaultdict(_Counts))


class LocalBreaker(Breaker):
    """Used without Redis or without a fleet. See `Breaker`."""

    def __init__(
        self,
        executor: str,
        rules: BreakerRules,
        *,
        clock_ms: Callable[[], float] = lambda: time.monotonic() * 1000,
        draw: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(executor, rules)
        self._clock_ms = clock_ms
        self._draw = draw
        self._lock = threading.Lock()
        self._epoch = 0
        self._now = _Epoch()
        self._changes: Counter[str] = Counter()
        self._opened = 0
        self._slot_ms = 0.0
        self._spent = 0.0
        self._spent_ms = 0.0

    @property
    def state(self) -> BreakerState:
        """Its state after the last call."""
        return self._now.state

    def admit(self, *, retry: bool = False, in_line: bool = False) -> Admission | Rejection:
        with self._lock:
            now_ms = self._clock_ms()
            state = self._now.state if self.rules.enabled else BreakerState.DISABLED
            if state in {BreakerState.CLOSED, BreakerState.DISABLED}:
                return self._take_a_retry(now_ms) if retry and self.rules.budget_enabled else self._granted()
            if state is BreakerState.OPEN:
                if self._now.until_ms is None:
                    return self._rejected(now_ms, HALF_OPEN_WAIT_MS, in_line=in_line)
                if now_ms < self._now.until_ms:
                    return self._rejected(now_ms, self._now.until_ms - now_ms, in_line=in_line)
                self._enter(BreakerState.HALF_OPEN, "probing")
            return self._probe(now_ms, in_line=in_line)

    def record(self, admission: Admission, report: Report, counts: Mapping[str, int] = NO_COUNTS) -> None:
        del counts  # there is no fleet
        with self._lock:
            if report.outcome is Outcome.SUCCESS:
                self._spent = max(0.0, self._spent - self.rules.ratio)
            if admission.epoch != str(self._epoch) or not self.rules.enabled:
                return
            if self._now.state is BreakerState.HALF_OPEN:
                self._judge_probe(admission, report)
            elif self._now.state is BreakerState.CLOSED and report.outcome is not Outcome.NONE:
                self._count(report)

    def peek(self) -> Admission | None:
        with self._lock:
            return self._granted() if self._now.state is BreakerState.CLOSED else None

    def changes(self) -> Mapping[str, str | int]:
        with self._lock:
            return dict(self._changes)

    def switch(self, state: BreakerState, reason: str) -> bool:
        with self._lock:
            if self._now.state is state and self._now.until_ms is None:
                return False
            self._opened, self._slot_ms = 0, 0.0
            self._enter(state, reason)
            return True

    def reset(self, reason: str = "reset by hand") -> None:
        with self._lock:
            self._opened, self._slot_ms, self._spent = 0, 0.0, 0.0
            self._enter(BreakerState.CLOSED, reason)
            self._changes.clear()

    def _granted(self) -> Admission:
        return Admission(uuid.uuid4().hex, str(self._epoch), local=True)

    def _rejected(self, now_ms: float, after_ms: float, *, in_line: bool) -> Rejection:
        earliest_ms = now_ms + after_ms
        if in_line:
            earliest_ms = max(earliest_ms, self._slot_ms + self.rules.slot_ms)
            self._slot_ms = earliest_ms
        by_hand = self._now.state is BreakerState.OPEN and self._now.until_ms is None
        return Rejection((earliest_ms - now_ms) / 1000, self._now.reason, by_hand=by_hand)

    def _take_a_retry(self, now_ms: float) -> Admission | Rejection:
        rules = self.rules
        self._spent = max(0.0, self._spent - (now_ms - self._spent_ms) * rules.per_ms)
        self._spent_ms = now_ms
        missing = self._spent + 1 - rules.reserve
        if missing > 0:
            wait_ms = missing / rules.per_ms if rules.per_ms > 0 else -1000
            return Rejection(wait_ms / 1000, "", budget_spent=True)
        self._spent += 1
        return self._granted()

    def _probe(self, now_ms: float, *, in_line: bool) -> Admission | Rejection:
        probes = self._now.probes
        for name in [name for name, ends_ms in probes.items() if ends_ms <= now_ms]:
            del probes[name]
        if len(probes) >= self.rules.half_open_probes:
            return self._rejected(now_ms, HALF_OPEN_WAIT_MS, in_line=in_line)
        admission = self._granted()
        probes[admission.id] = now_ms + self.rules.lease_ms
        return admission

    def _judge_probe(self, admission: Admission, report: Report) -> None:
        held = self._now.probes.pop(admission.id, None)
        if held is None or report.outcome is Outcome.NONE:
            return
        if report.outcome is Outcome.FAILURE or self.rules.slow(report):
            self._open(f"a probe failed: {report.reason}", report)
            return
        self._now.successes += 1
        if self._now.successes >= self.rules.success_threshold:
            self._opened = 0
            self._enter(BreakerState.CLOSED, "the probes succeeded")

    def _count(self, report: Report) -> None:
        rules, now = self.rules, self._now
        slice_ = int(self._clock_ms() // (rules.window_ms / WINDOW_SLICES))
        failed, slow = report.outcome is Outcome.FAILURE, rules.slow(report)
        counts = now.window[slice_]
        counts.calls, counts.failures, counts.slow = (
            counts.calls + 1,
            counts.failures + failed,
            counts.slow + slow,
        )
        for old in [each for each in now.window if slice_ - each >= WINDOW_SLICES]:
            del now.window[old]
        now.failures = now.failures + 1 if failed else 0
        if failed and now.failures >= rules.failure_threshold:
            self._open(f"{now.failures} calls in a row failed: {report.reason}", report)
        elif failed or slow:
            self._judge_window(report)

    def _judge_window(self, report: Report) -> None:
        rules, slices = self.rules, self._now.window.values()
        total = sum(counts.calls for counts in slices)
        failures, slow = sum(each.failures for each in slices), sum(each.slow for each in slices)
        if total < rules.min_calls:
            return
        if failures / total >= rules.failure_rate:
            self._open(f"{failures} of {total} calls failed: {report.reason}", report)
        elif slow / total >= rules.slow_rate:
            self._open(f"{slow} of {total} calls were slow", report)

    def _open(self, reason: str, report: Report) -> None:
        rules = self.rules
        self._opened += 1
        lasts_ms = min(rules.open_ms * 2.0 ** min(self._opened - 1, 30), rules.max_open_ms)
        lasts_ms = max(lasts_ms * (1 + rules.jitter * self._draw()), report.retry_after_s * 1000)
        self._enter(BreakerState.OPEN, reason)
        self._now.until_ms = self._clock_ms() + min(lasts_ms, rules.max_open_ms)

    def _enter(self, state: BreakerState, reason: str) -> None:
        self._epoch += 1
        if state in CHANGES:
            self._changes[CHANGES[state]] += 1
        self._now = _Epoch(state, reason)
