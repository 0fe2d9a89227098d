"""Which states of a plan follow which. A test holds this table against the real state machine."""

from __future__ import annotations

from typing import NamedTuple

from dispatcher import PlanState

__all__ = ["TRANSITIONS", "WAITS", "Transition"]


class Transition(NamedTuple):
    """A change of a plan's state."""

    before: PlanState
    after: PlanState
    why: str
    """Empty if the state itself says it."""


TRANSITIONS = (
    Transition(PlanState.QUEUED, PlanState.RUNNING, "applied"),
    Transition(PlanState.RUNNING, PlanState.COMPLETED, "fault is over"),
    Transition(PlanState.COMPLETED, PlanState.OBSERVED, "metrics judged"),
    Transition(PlanState.QUEUED, PlanState.EXPIRED, ""),
    Transition(PlanState.QUEUED, PlanState.CANCELLED, ""),
    Transition(PlanState.QUEUED, PlanState.FAILED, ""),
    Transition(PlanState.RUNNING, PlanState.CANCELLED, ""),
    Transition(PlanState.RUNNING, PlanState.FAILED, ""),
    Transition(PlanState.COMPLETED, PlanState.CANCELLED, ""),
    Transition(PlanState.COMPLETED, PlanState.FAILED, ""),
)

WAITS = {
    PlanState.QUEUED: "its target, a worker, a retry",
    PlanState.RUNNING: "the fault's end, a retry",
    PlanState.COMPLETED: "metrics, a retry",
}
"""What a plan may wait for in a state that is not final."""
