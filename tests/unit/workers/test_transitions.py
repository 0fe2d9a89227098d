"""The transitions in the picture of states are those of the real state machine: all, and no other."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.fake_driver import FakeDriver
from support.machine import FAULT, NOW, QUEUED, RUNNING, advance

from dispatcher import (
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
    FaultFailedError,
    FaultLostError,
    PlanState,
)
from docs.tools.transitions import TRANSITIONS, Transition
from workers.breaker.rules import Rejection
from workers.engine.decisions import Complete, Fail, Release, Retry, Snooze

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.ledger.record import PlanRecord

MOST_STEPS = 40
END = NOW + 10_000
DRAWN = {(each.before, each.after) for each in TRANSITIONS}
ERRORS = [
    None,
    ExecutorTimeoutError("no answer"),
    ExecutorServerError("down", 503, ""),
    ExecutorRejectedError("no", 400, ""),
    FaultFailedError("failed"),
    FaultLostError("lost"),
]
BEGUN_TOO_LATE = QUEUED._replace(expires_ms=NOW - 1)
NO_METRICS = RUNNING.completed()


def driver(**changes: object) -> FakeDriver:
    fake = FakeDriver(applied={FAULT: QUEUED.plan})
    for name, value in changes.items():
        setattr(fake, name, value)
    return fake


def failing(error: ExecutorRejectedError) -> FakeDriver:
    fake = driver()
    fake.trouble([error])
    return fake


REFUSED = ExecutorRejectedError("no", 400, "")
EXAMPLES: dict[tuple[PlanState, PlanState], Callable[[], PlanRecord]] = {
    (PlanState.QUEUED, PlanState.RUNNING): lambda: after(driver(), QUEUED),
    (PlanState.QUEUED, PlanState.EXPIRED): lambda: after(driver(), BEGUN_TOO_LATE),
    (PlanState.QUEUED, PlanState.CANCELLED): lambda: after(driver(), QUEUED._replace(cancelled="")),
    (PlanState.QUEUED, PlanState.FAILED): lambda: after(failing(REFUSED), QUEUED),
    (PlanState.RUNNING, PlanState.COMPLETED): lambda: after(driver(ended={FAULT}, not_ready=1), RUNNING, END),
    (PlanState.RUNNING, PlanState.CANCELLED): lambda: after(driver(), RUNNING._replace(cancelled="")),
    (PlanState.RUNNING, PlanState.FAILED): lambda: after(failing(REFUSED), RUNNING, END),
    (PlanState.COMPLETED, PlanState.OBSERVED): lambda: after(driver(ended={FAULT}), NO_METRICS, END),
    (PlanState.COMPLETED, PlanState.CANCELLED): lambda: after(driver(), NO_METRICS._replace(cancelled="")),
    (PlanState.COMPLETED, PlanState.FAILED): lambda: after(failing(REFUSED), NO_METRICS, END),
}


def after(fake: FakeDriver, record: PlanRecord, now_ms: int = NOW) -> PlanRecord:
    """The plan's record after one step."""
    return advance(fake, record, now_ms).record


def may_follow(before: PlanState, after: PlanState) -> bool:
    """Whether the table leads from one state to the other. One step may pass through several."""
    reached = {before}
    while more := {end for start, end in DRAWN if start in reached} - reached:
        reached |= more
    return after in reached


@pytest.mark.parametrize("transition", TRANSITIONS, ids=lambda each: f"{each.before} to {each.after}")
def test_each_transition_in_the_picture_happens(transition: Transition) -> None:
    assert EXAMPLES[transition.before, transition.after]().state is transition.after


@given(
    troubles=st.lists(st.sampled_from(ERRORS), max_size=12),
    cancelled_at=st.none() | st.integers(0, 5),
    rejected_at=st.none() | st.integers(0, 5),
    not_ready=st.integers(0, 3),
    ends=st.booleans(),
)
def test_no_other_transition_happens(
    troubles: list[ExecutorRejectedError | None],
    cancelled_at: int | None,
    rejected_at: int | None,
    not_ready: int,
    ends: bool,  # noqa: FBT001 (hypothesis draws it)
) -> None:
    fake, record, now_ms = driver(not_ready=not_ready), QUEUED, NOW
    fake.trouble(troubles)
    states = [record.state]
    for step in range(MOST_STEPS):
        if step == cancelled_at:
            record = record._replace(cancelled="by a person")
        if ends and now_ms >= END:
            fake.end(FAULT)
        rejection = Rejection(1.0, "five calls failed") if step == rejected_at else None
        decision = advance(fake, record, now_ms, rejection, circuit_breaker_on_open="defer")
        record = decision.record
        states.append(record.state)
        if isinstance(decision, Complete | Fail | Release):
            break
        assert isinstance(decision, Snooze | Retry)
        wait_ms = decision.after_ms if isinstance(decision, Snooze) else decision.after_s * 1000
        now_ms += max(1, round(wait_ms))
    for before, later in pairwise(states):
        assert may_follow(before, later)
    assert record.state.final
