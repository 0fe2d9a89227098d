"""Processor time and memory that a stage uses while something is measured, by what uses it."""

from __future__ import annotations

import os
import statistics
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from benchmarks.stage.processes import TICKS_PER_S

if TYPE_CHECKING:
    from benchmarks.stage import Stage
    from benchmarks.stage.figures import Figures

__all__ = ["LOOK_EVERY_S", "Memory", "Usage"]

LOOK_EVERY_S = 0.5


class Usage:
    """Processor time and traffic of Redis from now on, by what uses it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._before, self._traffic = stage.cpu_s(), stage.redis_traffic()
        self._machine_s, self._begun = machine_s(), time.monotonic()

    def figures(self, plans: int) -> Figures:
        """Milliseconds for each plan, and the share of the machine that each part uses."""
        cores_s = (time.monotonic() - self._begun) * (os.cpu_count() or 1)
        machine = machine_s() - self._machine_s
        used = {part: spent_s - self._before[part] for part, spent_s in self._stage.cpu_s().items()}
        each = {f"cpu_ms_{part}": spent_s / plans * 1000 for part, spent_s in used.items()}
        shares = {f"share_{part}": spent_s / cores_s for part, spent_s in used.items()}
        shares["share_others"] = max(0.0, machine - sum(used.values())) / cores_s
        ours = used["workers"] + used["store"] + used["submitter"]
        traffic = self._stage.redis_traffic() - self._traffic
        return {**each, **shares, "cpu_ms": ours / plans * 1000, "redis_bytes": traffic / plans}


class Memory:
    """Samples the memory of workers and of Redis while plans are in flight."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._sample)
        self._samples: list[tuple[int, int, int]] = []

    def __enter__(self) -> Self:
        self._workers_kb, self._redis = self._stage.worker_memory_kb(), self._stage.redis_memory()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._over.set()
        self._thread.join()

    def forget(self) -> None:
        """Drop the samples so far."""
        self._samples.clear()

    def figures(self) -> Figures:
        """By how much workers and Redis had grown while nine tenths of the most plans were in flight."""
        most = max(in_flight for in_flight, _, _ in self._samples)
        full = [each for each in self._samples if each[0] >= most * 0.9]
        in_flight, workers_kb, redis = (statistics.median(column) for column in zip(*full, strict=True))
        return {
            "in_flight": in_flight,
            "workers_kb": workers_kb,
            "workers_grown_kb": workers_kb - self._workers_kb,
            "worker_kb_a_plan": (workers_kb - self._workers_kb) / in_flight,
            "redis_kb_a_plan": (redis - self._redis) / 1024 / in_flight,
        }

    def _sample(self) -> None:
        while not self._over.wait(LOOK_EVERY_S):
            in_flight = self._stage.counts().in_flight
            self._samples.append((in_flight, self._stage.worker_memory_kb(), self._stage.redis_memory()))


def machine_s() -> float:
    """Processor time that everything on this machine has used so far."""
    user, nice, system, _idle, _io, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text("utf-8").split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICKS_PER_S
