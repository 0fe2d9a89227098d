"""A plan's life, step by step, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table

from dispatcher.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from dispatcher.models import PlanStatus
    from dispatcher.observations import RawObservation

__all__ = ["Event", "events_of", "life_of"]


PLANNED = " (planned)"


class Event(NamedTuple):
    """One thing that happened to a plan, or that is to happen."""

    at: datetime
    what: str


def life_of(status: PlanStatus, now: datetime, observation: RawObservation | None = None) -> Table:
    """What a plan is, and what happened to it so far. `observation` is its own, if it has one."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, justify="right")
    table.add_column(overflow="fold")
    about = {
        "plan": status.id,
        "fault": str(status.plan),
        "executor": status.executor,
        "state": _state(status, now),
        "fault id": status.apply_id or "",
    }
    for name, value in about.items():
        if value:
            table.add_row(name, "", printable(value))
    for event in events_of(status, now, observation):
        since_s = (event.at - status.submitted_at).total_seconds()
        table.add_row(f"{event.at.astimezone():%H:%M:%S}", f"{since_s:+.1f} s", printable(event.what))
    if status.cause and status.ended_at is None and not _is_last_failure(status):
        table.add_row("cause", "", printable(status.cause))
    return table


def events_of(status: PlanStatus, now: datetime, observation: RawObservation | None = None) -> list[Event]:
    """What happened to the plan, and what is planned, in the order of its times."""
    return sorted(_events(status, now, observation), key=lambda event: event.at)


def _events(status: PlanStatus, now: datetime, observation: RawObservation | None) -> Iterator[Event]:
    yield Event(status.submitted_at, f"submitted on {status.submitted_at.astimezone():%Y-%m-%d}")
    if status.started_at is not None:
        yield Event(status.started_at, "first taken by a worker")
    yield from _failures(status)
    if status.applied_at is not None:
        yield Event(status.applied_at, "applied: the Executor has taken the fault")
    yield from _of_the_fault(status, now, observation)
    if status.stopping_at is not None:
        yield Event(status.stopping_at, "the fault is being stopped")
    if status.next_step_at is not None:
        yield Event(max(status.next_step_at, now), f"next step{PLANNED}")
    if status.ended_at is not None:
        yield Event(status.ended_at, _end(status))


def _failures(status: PlanStatus) -> Iterator[Event]:
    for failure in status.failures:
        cause = failure.cause
        if failure is status.failures[-1] and _is_last_failure(status):
            cause = _own_words(status)
        yield Event(failure.at, f"attempt {failure.attempt} failed: {cause}")


def _is_last_failure(status: PlanStatus) -> bool:
    """Whether the cause of a plan that goes on is that of its last failed attempt, which may be cut there."""
    if status.ended_at is not None:
        return False
    last = status.failures[-1].cause.removesuffix("…") if status.failures else None
    return last is not None and _own_words(status).startswith(last)


def _own_words(status: PlanStatus) -> str:
    """The cause without the plan's id, which is shown above it."""
    return (status.cause or "").removeprefix(f"plan {status.id}: ")


def _of_the_fault(status: PlanStatus, now: datetime, observation: RawObservation | None) -> Iterator[Event]:
    """When it was in force. The observation knows best, because most of that is not in the plan's record."""
    began, over = status.in_force_at, status.over_at
    if observation is not None:
        began, over = observation.started_at or began, observation.ended_at or over
    if began is not None and (status.ended_at is None or began < status.ended_at):
        yield Event(began, "the fault is in force" + (PLANNED if began > now else ""))
    if over is not None:
        yield Event(over, "the fault is over")
    elif status.ends_at is not None and status.ended_at is None:
        yield Event(status.ends_at, f"the fault ends{PLANNED}")


def _end(status: PlanStatus) -> str:
    return f"ended: {status.state}" + (f": {_own_words(status)}" if status.cause else "")


def _state(status: PlanStatus, now: datetime) -> str:
    if status.next_step_at is None:
        return status.state
    wait_s = (status.next_step_at - now).total_seconds()
    when = f"in {wait_s:.0f} s" if wait_s > 0 else f"due for {-wait_s:.0f} s"
    again = f", {status.attempts} failed in a row" if status.attempts else ""
    return f"{status.state}{again}, next step {when}"
