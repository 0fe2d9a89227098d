"""What is announced of plans, to watchers of events."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest
from support.plans import abort_plan

from dispatcher import RawObservation
from dispatcher.ledger.record import PlanRecord
from workers.engine.decisions import Complete
from workers.tasks.announcements import CeleryAnnouncer

OBSERVATION = RawObservation(
    execution_id="f1", timestamp=datetime.now(UTC), status_code=503, latency_ms=2.0, error_rate=1.0
)
RECORD = PlanRecord("p1", abort_plan(), "default", 30_000, 1_000, 2_000)


class Events:
    """Celery's dispatcher of events, as far as announcements need it."""

    def __init__(self, *, enabled: bool, groups: tuple[str, ...]) -> None:
        self.enabled = enabled
        self.groups = groups
        self.sent: list[str] = []

    def send(self, kind: str, **_: Any) -> None:
        self.sent.append(kind)


@pytest.mark.parametrize(
    "events", [Events(enabled=True, groups=()), Events(enabled=True, groups=("worker", "task"))]
)
def test_an_observation_is_announced_while_events_of_tasks_are_sent(events: Events) -> None:
    announcer(events).observed("p1", Complete(RECORD, OBSERVATION))
    assert events.sent == ["task-succeeded"]


@pytest.mark.parametrize(
    "events", [Events(enabled=True, groups=("worker",)), Events(enabled=False, groups=())]
)
def test_an_observation_is_not_even_written_out_while_they_are_not(events: Events) -> None:
    nothing_to_write: Any = None
    announcer(events).observed("p1", Complete(RECORD, nothing_to_write))
    assert events.sent == []


def announcer(events: Events) -> CeleryAnnouncer:
    worker: Any = SimpleNamespace(consumer=SimpleNamespace(event_dispatcher=events))
    task: Any = None
    return CeleryAnnouncer(worker, task)
