"""Bulkheads: a slow Executor takes at most its share of a worker's threads.

(M. Nygard, Release It!, 2nd edition, 5.3.)
"""

from __future__ import annotations

import math
import threading
from collections import deque
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from dispatcher.ledger.leases import Lease

__all__ = ["Bulkheads", "Entry"]

MOST_WAITING = 256
"""Leases that wait in this process for one Executor's threads. More wait in the ledger."""


class Entry(Enum):
    """What becomes of a lease."""

    RUN = "run"
    WAIT = "wait"
    """Another thread of the same Executor runs it as soon as one is free."""

    FULL = "full"
    """Too many wait already."""


@dataclass(slots=True)
class _Compartment:
    limit: int
    running: int = 0
    waiting: deque[Lease] = field(default_factory=deque)


class Bulkheads:
    """Counts the threads that each Executor occupies. Safe to share between threads."""

    def __init__(self, executors: Iterable[str], threads: int, share: float) -> None:
        """`share` is the part of all `threads` that one Executor may take while others are configured."""
        names = list(executors)
        limit = threads if len(names) <= 1 else max(1, math.floor(threads * share))
        self._lock = threading.Lock()
        self._compartments = {name: _Compartment(limit) for name in names}

    def enter(self, lease: Lease) -> Entry:
        """Take a thread's place for the lease, or have the lease wait for one."""
        compartment = self._compartments.get(lease.record.executor)
        if compartment is None:
            return Entry.RUN
        with self._lock:
            if compartment.running < compartment.limit:
                compartment.running += 1
                return Entry.RUN
            if len(compartment.waiting) >= MOST_WAITING:
                return Entry.FULL
            compartment.waiting.append(lease)
            return Entry.WAIT

    def leave(self, executor: str) -> Lease | None:
        """Give the place back, or pass it on to the lease that is returned."""
        compartment = self._compartments.get(executor)
        if compartment is None:
            return None
        with self._lock:
            if compartment.waiting:
                return compartment.waiting.popleft()
            compartment.running -= 1
            return None

    def drain(self) -> list[Lease]:
        """The leases that wait, taken out."""
        with self._lock:
            waiting = [lease for each in self._compartments.values() for lease in each.waiting]
            for each in self._compartments.values():
                each.waiting.clear()
        return waiting
