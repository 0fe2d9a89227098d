"""When a measurement sends its requests: at a fixed rate, whether earlier ones are answered or not.

A measurement sends for its time, and goes on while requests are unanswered. Otherwise a fault that holds
requests would keep later ones from being sent (G. Tene calls that coordinated omission).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

__all__ = ["Line", "Pace", "Slot", "send_all"]

MOST_OWED_MS = 500
"""If a measurement begins this much later than its first request is due, it does not make up for the time."""

QUICKEST = 0.8
"""What is owed is sent in intervals that are shorter by this factor, at most."""


@dataclass(frozen=True, slots=True)
class Slot:
    """When one request is due."""

    planned_ms: int
    """On the Redis server's clock, in milliseconds since 1970."""

    follower_ms: int
    """When the next one is due, if measurements follow one another without a pause, on the same clock."""

    at: float
    """The moment of `planned_ms` on the target's clock, in seconds. See `Line`."""

    gives_up_at: float
    """When it is given up by its own timeout, on that clock."""

    latest_at: float = math.inf
    """From when on it is not sent any more, on that clock: it would arrive after the fault's end."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The moments at which one measurement sends, in milliseconds since 1970 on the Redis server's clock."""

    requests_per_sec: int
    now_ms: int
    due_ms: float
    """When its first request is due."""

    end_ms: float
    """Its last request is due before that."""

    def moments(self) -> Iterator[tuple[float, float]]:
        """When each request is sent, and when the next one is due.

        A measurement begins some milliseconds after the previous one. Requests that were due meanwhile are
        neither left out nor sent at once: the first ones follow one another a little faster.
        """
        interval_ms = 1000 / self.requests_per_sec
        begin_ms = self.due_ms if self.now_ms - self.due_ms <= MOST_OWED_MS else self.now_ms
        for number in count():
            due_ms = begin_ms + number * interval_ms
            sent_ms = max(due_ms, self.now_ms + number * interval_ms * QUICKEST)
            if sent_ms >= self.end_ms:
                return
            yield sent_ms, due_ms + interval_ms


class Line(Protocol):
    """Sends the requests of one measurement. Times are in seconds on a monotonic clock."""

    def sleep_until(self, at: float) -> None:
        """Wait."""
        ...

    def send(self, slot: Slot) -> None:
        """Send a request without waiting for its answer, unless it is too late for it (`latest_at`)."""
        ...

    def is_answered(self, by: float) -> bool:
        """Whether no request is without an answer. Waits for that, until `by` at most."""
        ...


def send_all(
    line: Line, slots: Iterable[Slot], sends_until: float, ends_at: float, may_go_on: Callable[[], bool]
) -> Slot | None:
    """Send a request in each slot until `sends_until`. Go on while requests are without an answer, if it may.

    Returns the last one that was sent, once all are answered or given up, by `ends_at` at the latest. None if
    there was none.
    """
    last = None
    for slot in slots:
        if slot.at < sends_until:
            line.sleep_until(slot.at)
        elif not may_go_on() or line.is_answered(slot.at):
            break
        line.send(slot)
        last = slot
    if last is not None:
        line.is_answered(min(last.gives_up_at, ends_at))
    return last
