"""Calls that are made a while later, each from a thread that the process's end waits for."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["LaterCalls"]


class _Call(NamedTuple):
    topic: str
    make: Callable[[], object]


class LaterCalls:
    """Calls that wait for their time. Each is made once. Safe to share between threads."""

    def __init__(self, after_s: float) -> None:
        """Each call is made `after_s` seconds after it was added, unless `make_all` makes it before."""
        self._after_s = after_s
        self._lock = threading.Lock()
        self._waiting: dict[threading.Timer, _Call] = {}
        self._under_way: dict[threading.Timer, _Call] = {}

    def add(self, topic: str, make: Callable[[], object]) -> None:
        """Make this call later."""
        timer = threading.Timer(self._after_s, lambda: self._make(timer))
        with self._lock:
            self._waiting[timer] = _Call(topic, make)
        timer.start()

    def make_all(self, topic: str | None = None) -> None:
        """Make the calls about this topic now (all if None), and return once none of them is under way."""
        with self._lock:
            found = [
                timer
                for timer, call in (self._waiting | self._under_way).items()
                if topic in {None, call.topic}
            ]
        for timer in found:
            timer.cancel()
            self._make(timer)
        for timer in found:
            timer.join()

    def _make(self, timer: threading.Timer) -> None:
        with self._lock:
            call = self._waiting.pop(timer, None)
            if call is None:
                return
            self._under_way[timer] = call
        try:
            call.make()
        finally:
            with self._lock:
                del self._under_way[timer]
