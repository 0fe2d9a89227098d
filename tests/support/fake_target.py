"""A target in a time of its own, for probes that take no real time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workers.observers.tally import Probe

if TYPE_CHECKING:
    from collections.abc import Callable

    from workers.observers.pace import Slot
    from workers.observers.request import ProbeRequest


class FakeTarget:
    """Answers each request with 200 after `holds_s` of the moment at which it was planned."""

    def __init__(self, holds_s: Callable[[int], float]) -> None:
        self.clock_s = 0.0
        self.holds_s = holds_s
        self.sent: list[Slot] = []
        """All requests, in their order."""

    def now(self) -> float:
        return self.clock_s

    def line(self, request: ProbeRequest, ends_at: float) -> FakeLine:
        del request
        return FakeLine(self, ends_at)

    def close(self) -> None:
        """Nothing is open."""


class FakeLine:
    """The requests of one look at a fake target."""

    def __init__(self, target: FakeTarget, ends_at: float) -> None:
        self._target = target
        self._ends_at = ends_at
        self._open: list[tuple[Slot, float]] = []
        """Requests that have not ended, and when their answers come."""

        self._probes: list[Probe] = []

    def sleep_until(self, at: float) -> None:
        self._target.clock_s = max(self._target.clock_s, at)

    def send(self, slot: Slot) -> None:
        assert self._target.clock_s >= slot.at, "it is sent before its time"
        if self._target.clock_s >= slot.latest_at:
            return
        self._target.sent.append(slot)
        self._open.append((slot, slot.at + self._target.holds_s(slot.planned_ms)))

    def is_answered(self, by: float) -> bool:
        ends_at = [min(answer_at, slot.gives_up_at) for slot, answer_at in self._open]
        self.sleep_until(min(max(ends_at, default=0.0), by))
        requests = list(zip(self._open, ends_at, strict=True))
        self._open = [each for each, end_at in requests if end_at > self._target.clock_s]
        self._probes += [_probe(*each) for each, end_at in requests if end_at <= self._target.clock_s]
        return not self._open

    def probes(self) -> list[Probe]:
        return self._probes + [self._given_up(slot) for slot, _ in self._open]

    def _given_up(self, slot: Slot) -> Probe:
        held_us = round((self._target.clock_s - slot.at) * 1e6)
        incomplete = self._ends_at < slot.gives_up_at
        return Probe(slot.planned_ms, held_us, "timeout", expected=False, incomplete=incomplete)


def _probe(slot: Slot, answer_at: float) -> Probe:
    answered = answer_at <= slot.gives_up_at
    latency_us = round((min(answer_at, slot.gives_up_at) - slot.at) * 1e6)
    return Probe(slot.planned_ms, latency_us, "200" if answered else "timeout", expected=answered)
