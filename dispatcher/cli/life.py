"""A plan's life, step by step, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.table import Table

from dispatcher.models import PlanState
from dispatcher.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from dispatcher.models import PlanStatus
    from dispatcher.observations import RawObservation

__all__ = ["Event", "events_of", "life_of"]


class Event(NamedTuple):
    """One thing that happened to a plan, or that is to happen."""

    at: datetime
    what: str
    planned: bool = False
    """Whether it is still to come."""


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
        words = f"{event.what} (planned)" if event.planned else event.what
        table.add_row(_clock(event.at, status.submitted_at), f"{since_s:+.1f} s", printable(words))
    if status.cause and not _is_last_event(status):
        table.add_row("cause", "", printable(status.cause))
    return table


def events_of(status: PlanStatus, now: datetime, observation: RawObservation | None = None) -> list[Event]:
    """What happened to the plan, and what is planned, in the order of its times."""
    return sorted(_events(status, now, observation), key=lambda event: event.at)


def _events(status: PlanStatus, now: datetime, observation: RawObservation | None) -> Iterator[Event]:
    yield Event(status.submitted_at, "submitted")
    if status.started_at is not None:
        yield Event(status.started_at, "first taken by a worker")
    yield from _failures(status)
    if status.applied_at is not None:
        yield Event(status.applied_at, "applied: the Executor has taken the fault")
    yield from _of_the_fault(status, now, observation)
    if status.stopping_at is not None:
        yield Event(status.stopping_at, "the fault is being stopped")
    if status.next_step_at is not None:
        yield Event(max(status.next_step_at, now), "next step", planned=True)
    if status.ended_at is not None:
        yield Event(status.ended_at, _end(status))


def _failures(status: PlanStatus) -> Iterator[Event]:
    last = len(status.failures)
    for number, failure in enumerate(status.failures, start=1):
        cause = status.cause if number == last and _is_last_event(status) else None
        yield Event(failure.at, f"attempt {failure.attempt} failed: {cause or failure.cause}")


def _is_last_event(status: PlanStatus) -> bool:
    """Whether the cause is that of the last failed attempt, which may be cut."""
    if status.ended_at is not None or not status.failures or not status.cause:
        return False
    return status.cause.startswith(status.failures[-1].cause.removesuffix("…"))


def _of_the_fault(status: PlanStatus, now: datetime, observation: RawObservation | None) -> Iterator[Event]:
    """When it was in force. The observation knows best, because most of that is not in the plan's record."""
    began, over = status.in_force_at, status.over_at
    if observation is not None:
        began, over = observation.started_at or began, observation.ended_at or over
    if began is not None and (status.ended_at is None or began < status.ended_at):
        yield Event(began, "the fault is in force" if began > now else "the fault was in force", began > now)
    if over is not None:
        yield Event(over, "the fault was over")
    elif status.ends_at is not None and status.ended_at is None:
        yield Event(status.ends_at, "the fault ends", planned=True)


def _end(status: PlanStatus) -> str:
    return "ended: observed" if status.state is PlanState.OBSERVED else f"ended: {status.state}"


def _state(status: PlanStatus, now: datetime) -> str:
    if status.next_step_at is None:
        return status.state
    wait_s = (status.next_step_at - now).total_seconds()
    when = f"in {wait_s:.0f} s" if wait_s > 0 else f"due for {-wait_s:.0f} s"
    again = f", {status.attempts} failed in a row" if status.attempts else ""
    return f"{status.state}{again}, next step {when}"


def _clock(moment: datetime, submitted: datetime) -> str:
    """The local time of day; with its date if that is not the day of the submission."""
    local = moment.astimezone()
    same_day = local.date() == submitted.astimezone().date()
    first = moment == submitted
    return f"{local:%H:%M:%S}" if same_day and not first else f"{local:%Y-%m-%d %H:%M:%S}"
