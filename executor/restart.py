"""What has become of the faults that an Executor before has left."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from executor.control_plane import TTL_S
from executor.injected import MARGIN_S

if TYPE_CHECKING:
    from executor.clock import Clock
    from executor.store import Stored

__all__ = ["carry_on"]

RESTARTED = "the Executor was restarted while it was on, and it may have been off for a moment"


def carry_on(stored: Stored, clock: Clock, *, adopted: bool) -> None:
    """Change the faults into what they are now. They go on if Envoy, adopted, has not dropped them yet."""
    now, steady_s = clock.now(), clock.steady_s()
    dropped = now if stored.renewed_at is None else stored.renewed_at + timedelta(seconds=TTL_S)
    left_s = (dropped - now).total_seconds()
    for fault in stored.faults:
        fault.go_on(now, steady_s)
        if fault.active and not adopted:
            fault.break_off(min(now, dropped), "Envoy ended while the Executor was away")
        elif fault.active and (not fault.in_force or left_s < MARGIN_S):
            fault.lapse(steady_s + min(0.0, left_s))
        elif fault.active:
            fault.doubt = RESTARTED
