"""Keeps a worker process on one core: the threads of an interpreter take turns anyway.

Spread over cores, each turn wakes another core, whose caches know nothing of the last one. Turns on one core
are plain context switches (D. Beazley, "Understanding the Python GIL", PyCon 2010).
"""

from __future__ import annotations

import logging
import os
import random
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Look", "OneCore", "choose"]

LOOK_EVERY_S = 0.3
"""Between two looks at how busy the cores are."""

WORTH_A_LOOK = 0.05
"""The share of a core's time below which a process may be wherever it is."""

MARGIN = 0.1
"""What another core must have to spare, as a share of its time, for it to be worth the move."""

BUSY = (0, 1, 2, 5, 6, 7)
"""user, nice, system, irq, softirq and steal, in a line of /proc/stat (proc(5))."""

logger = logging.getLogger(__name__)


def choose(core: int | None, others: Mapping[int, float]) -> int:
    """The core to be on, for a process that is on `core`, or on all.

    `others` says for each core which share of its time other processes take. Equals are drawn lots for, so
    that workers which start together do not all go to the first one.
    """
    best = min(others, key=lambda each: (others[each], random.random()))  # noqa: S311 (no secret)
    if core is None or others[core] - others[best] > MARGIN:
        return best
    return core


@dataclass(frozen=True, slots=True)
class Look:
    """What cores and this process have done so far, in seconds."""

    at_s: float
    own_s: float
    busy_s: Mapping[int, float]

    @classmethod
    def now(cls, cores: set[int]) -> Self:
        """Taken from /proc/stat. Raises `OSError` where there is none, `KeyError` for a core not in it."""
        lines = map(str.split, Path("/proc/stat").read_text("ascii").splitlines())
        fields = {name: values for name, *values in lines}
        ticks = {core: sum(int(fields[f"cpu{core}"][index]) for index in BUSY) for core in cores}
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        busy_s = {core: count * tick_s for core, count in ticks.items()}
        return cls(time.monotonic(), time.process_time(), busy_s)

    def others_since(self, before: Look, core: int | None) -> dict[int, float]:
        """What others have taken of each core's time since then. This process was on `core`, or on all."""
        took_s = self.at_s - before.at_s
        busy_s = {each: seconds - before.busy_s[each] for each, seconds in self.busy_s.items()}
        if core is not None:
            busy_s[core] -= self.own_s - before.own_s
        return {each: max(0.0, seconds / took_s) for each, seconds in busy_s.items()}


class OneCore:
    """Binds all threads of this process to one core, and moves them together to one with more time to spare.

    It chooses among the cores that the process may use when it starts, and lets go of them when it stops.
    """

    def __init__(self) -> None:
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, name="one-core", daemon=True)
        self._core: int | None = None

    def start(self) -> None:
        """Begin, in a thread of its own. Nothing happens where there is but one core."""
        if hasattr(os, "sched_setaffinity") and len(os.sched_getaffinity(0)) > 1:
            self._thread.start()

    def stop(self) -> None:
        """End."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        cores = os.sched_getaffinity(0)
        before, own_s = None, time.process_time()
        try:
            while not self._stopped.wait(LOOK_EVERY_S * random.uniform(0.75, 1.25)):  # noqa: S311 (no secret)
                own_s, idle = time.process_time(), time.process_time() - own_s < LOOK_EVERY_S * WORTH_A_LOOK
                before = None if idle else self._look(cores, before)
        except (OSError, KeyError) as exc:  # some containers number their cores anew
            logger.warning("this process stays on all cores: /proc/stat does not tell of them: %s", exc)
        finally:
            with suppress(OSError):
                _bind(cores)

    def _look(self, cores: set[int], before: Look | None) -> Look:
        look = Look.now(cores)
        if before is not None:
            core = choose(self._core, look.others_since(before, self._core))
            if core != self._core:
                _bind({core})
            self._core = core
        return look


def _bind(cores: set[int]) -> None:
    """Let all threads run on these cores alone. Those that they start will, too."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has just ended
            os.sched_setaffinity(int(thread.name), cores)
