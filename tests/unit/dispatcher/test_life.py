"""What `status` says of a plan's life."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from rich.console import Console
from support.plans import abort_plan

from dispatcher import ExecutorServerError, PlanCancelledError, RawObservation
from dispatcher.cli.life import events_of, life_of
from dispatcher.ledger.record import Order, PlanRecord

if TYPE_CHECKING:
    from dispatcher.models import PlanStatus

ORDER = Order(plan=abort_plan(duration_seconds=30), timeout_ms=30_000)
BEGIN_MS = 1_800_000_000_000
QUEUED = PlanRecord("p1", ORDER.plan, "default", ORDER.timeout_ms, BEGIN_MS, BEGIN_MS + 60_000)
TAKEN = QUEUED._replace(started_ms=BEGIN_MS + 100)
LONG = "503 service unavailable: " + "very " * 100 + "busy"
BUSY = ExecutorServerError(LONG, 503)


def after(seconds: float) -> datetime:
    return datetime.fromtimestamp(BEGIN_MS / 1000 + seconds, UTC)


def told(
    status: PlanStatus, now: datetime, observation: RawObservation | None = None
) -> list[tuple[float, str]]:
    events = events_of(status, now, observation)
    return [(round((event.at - after(0)).total_seconds(), 1), event.what) for event in events]


def printed(status: PlanStatus, now: datetime, width: int = 60) -> str:
    console = Console(width=width, markup=False, record=True, file=open("/dev/null", "w"))  # noqa: SIM115, PTH123
    console.print(life_of(status, now))
    console.file.close()
    return console.export_text()


def observation(**fields: Any) -> RawObservation:
    return RawObservation.model_validate({"execution_id": "f1", "timestamp": after(40)} | fields)


def test_a_plan_that_waits_was_submitted_and_has_a_next_step() -> None:
    assert told(QUEUED.status(), after(1)) == [
        (0.0, f"submitted on {after(0).astimezone():%Y-%m-%d}"),
        (60.0, "next step (planned)"),
    ]


def test_each_failed_attempt_is_a_line_and_the_last_one_is_whole() -> None:
    status = TAKEN.failed_once_more(BUSY, BEGIN_MS + 200).failed_once_more(BUSY, BEGIN_MS + 900).status()
    first, last = [what for _, what in told(status, after(1)) if what.startswith("attempt")]
    assert first.endswith("…")
    assert last == f"attempt 2 failed: {LONG}"
    assert "cause" not in printed(status, after(1))


def test_the_cause_of_a_plan_that_ended_is_there_whole_and_once() -> None:
    record = TAKEN.failed_once_more(BUSY, BEGIN_MS + 200)
    ended = record.ended(BUSY.saying(f"plan p1: {LONG}"))._replace(ended_ms=BEGIN_MS + 250)
    words = " ".join(printed(ended.status(), after(9)).split())
    assert words.count("very busy") == 1


def test_a_running_fault_has_a_planned_end() -> None:
    status = TAKEN.applied("f1", BEGIN_MS + 500).status()
    assert [what for _, what in told(status, after(1))][2:] == [
        "applied: the Executor has taken the fault",
        "the fault is in force",
        "the fault ends (planned)",
        "next step (planned)",
    ]


def test_a_fault_that_takes_effect_late_is_not_in_force_yet() -> None:
    status = TAKEN._replace(takes_effect_ms=20_000).applied("f1", BEGIN_MS + 500).status()
    assert (20.5, "the fault is in force (planned)") in told(status, after(1))
    assert (20.5, "the fault is in force") in told(status, after(25))


def test_an_observation_says_when_the_fault_was_in_force() -> None:
    record = TAKEN.applied("f1", BEGIN_MS + 500).completed().observed()._replace(ended_ms=BEGIN_MS + 32_000)
    seen = observation(started_at=after(0.7), ended_at=after(30.9))
    assert told(record.status(), after(40), seen)[-3:] == [
        (0.7, "the fault is in force"),
        (30.9, "the fault is over"),
        (32.0, "ended: observed"),
    ]


def test_a_cancelled_plan_says_since_when_its_fault_was_stopped() -> None:
    error = PlanCancelledError("plan p1 was cancelled: enough")
    record = TAKEN.applied("f1", BEGIN_MS + 500).ending(error, BEGIN_MS + 3_000).ended(error)
    status = record._replace(ended_ms=BEGIN_MS + 3_100).status()
    assert told(status, after(9))[-2:] == [
        (3.0, "the fault is being stopped"),
        (3.1, "ended: cancelled: plan p1 was cancelled: enough"),
    ]
    assert "enough" in printed(status, after(9))


def test_it_fits_a_narrow_terminal() -> None:
    status = TAKEN.failed_once_more(BUSY, BEGIN_MS + 200).status()
    for width in (60, 160):
        assert max(map(len, printed(status, after(1), width).splitlines())) <= width


def test_times_are_those_of_the_server() -> None:
    assert told(QUEUED.status(), after(0) + timedelta(minutes=5))[-1] == (300.0, "next step (planned)")
