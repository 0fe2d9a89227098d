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
        self._open: dict[Slot, float] = {}
        self._probes: list[Probe] = []

    def sleep_until(self, at: float) -> None:
        self._target.clock_s = max(self._target.clock_s, at)

    def send(self, slot: Slot) -> None:
        assert self._target.clock_s >= slot.at, "it is sent before its time"
        self._target.sent.append(slot)
        self._open[slot] = slot.at + self._target.holds_s(slot.planned_ms)

    def is_answered(self, by: float) -> bool:
        ends = {slot: min(answer_at, slot.gives_up_at) for slot, answer_at in self._open.items()}
        last = max(ends.values(), default=self._target.clock_s)
        self.sleep_until(min(last, by))
        for slot, end in ends.items():
            if end <= self._target.clock_s:
                self._end(slot, end)
        return not self._open

    def probes(self) -> list[Probe]:
        for slot in list(self._open):
            self._end(slot, min(self._target.clock_s, slot.gives_up_at), given_up=True)
        return self._probes

    def _end(self, slot: Slot, end: float, *, given_up: bool = False) -> None:
        answered = not given_up and self._open.pop(slot) <= slot.gives_up_at
        self._open.pop(slot, None)
        incomplete = given_up and self._ends_at < slot.gives_up_at
        latency_us = round((end - slot.at) * 1e6)
        outcome = "200" if answered else "timeout"
        self._probes.append(
            Probe(slot.planned_ms, latency_us, outcome, expected=answered, incomplete=incomplete)
        )
