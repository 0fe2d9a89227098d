"""Processor time and traffic of Redis while something is measured, by what uses it."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from benchmarks.stage.program import Figures
    from benchmarks.stage.stage import Stage


class Usage:
    """What has been used from now on."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._before, self._traffic = stage.cpu_s(), stage.redis_traffic()
        self._machine_s, self._begun = machine_s(), time.monotonic()

    def figures(self, plans: int) -> Figures:
        """Milliseconds for each plan, and the share of the machine that other programs use."""
        cores_s = (time.monotonic() - self._begun) * (os.cpu_count() or 1)
        machine = machine_s() - self._machine_s
        used = {part: spent_s - self._before[part] for part, spent_s in self._stage.cpu_s().items()}
        each = {f"cpu_ms_{part}": spent_s / plans * 1000 for part, spent_s in used.items()}
        ours = used["workers"] + used["store"] + used["submitter"]
        return each | {
            "share_others": max(0.0, machine - sum(used.values())) / cores_s,
            "cpu_ms": ours / plans * 1000,
            "redis_bytes": (self._stage.redis_traffic() - self._traffic) / plans,
        }


def machine_s() -> float:
    """Processor time that everything on this machine has used so far."""
    used = psutil.cpu_times()
    return float(used.user + used.nice + used.system + used.irq + used.softirq + used.steal)
