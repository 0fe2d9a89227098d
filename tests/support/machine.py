"""The step machine with a plan of 10 s, on the clock of a fake Executor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from support.plans import abort_plan

from dispatcher import ExecutorClientConfig
from dispatcher.ledger.record import PlanRecord
from workers.engine.calls import StepCalls
from workers.engine.state_machine import StateMachine

if TYPE_CHECKING:
    from workers.breaker.rules import Rejection
    from workers.drivers.base import Driver
    from workers.engine.decisions import Decision

    class Timed(Driver, Protocol):
        """A driver whose calls take time on a clock of its own."""

        clock_s: float


NOW = 1_900_000_000_000
FAULT = "fault-p1"
QUEUED = PlanRecord(
    id="p1",
    plan=abort_plan(duration_seconds=10),
    executor="default",
    timeout_ms=30_000,
    submitted_ms=NOW,
    due_ms=NOW,
    started_ms=NOW,
)
SENT = QUEUED._replace(sent_ms=NOW)
RUNNING = SENT.applied(FAULT, NOW)
UNANSWERED = SENT.in_doubt(NOW, NOW)
"""Its apply had no answer."""


def advance(
    driver: Timed,
    record: PlanRecord,
    now_ms: int = NOW,
    rejection: Rejection | None = None,
    in_flight: int = 0,
    **config: Any,
) -> Decision:
    """What one step of the plan decides that begins at `now_ms`."""
    settings = ExecutorClientConfig.model_validate({"retry_jitter": 0.0, **config})
    runner = StateMachine(settings, poll_ms=500, draw=lambda: 0.5)
    calls = StepCalls(
        driver,
        now_ms,
        clock=lambda: driver.clock_s,
        not_after_s=settings.apply_not_after_sec,
        in_flight=in_flight,
    )
    return runner.advance(record, calls, rejection)
