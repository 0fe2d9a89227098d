"""`dispatcher status`: the life of plans, and handles on plans for other commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import dispatcher
from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.life import life_of
from dispatcher.cli.options import Ids  # noqa: TC001 (Typer reads it)
from dispatcher.cli.terminal import stdout
from dispatcher.errors import ExecutorClientError
from dispatcher.models import PlanState

if TYPE_CHECKING:
    from dispatcher.handles import PlanHandle
    from dispatcher.models import PlanStatus
    from dispatcher.observations import RawObservation

__all__ = ["handles_of", "status"]

States = Annotated[
    bool,
    json_option(
        "for each plan: id, plan, executor, state, attempts, its times, failures, apply_id and cause if any"
    ),
]


def status(ids: Ids, *, as_json: States = False) -> None:
    """Show the life of plans, step by step: times, failed attempts, and why each ended or waits."""
    with dispatcher.Dispatcher() as client:
        handles = [client.handle(plan_id) for plan_id in ids]
        found = [handle.status() for handle in handles]
        if not as_json:
            now = client.server_time()
            for number, (handle, each) in enumerate(zip(handles, found, strict=True)):
                stdout.print(*[""] * bool(number), life_of(each, now, _observation_of(handle, each)))
    if as_json:
        for each in found:
            print_json(each)


def _observation_of(handle: PlanHandle, status: PlanStatus) -> RawObservation | None:
    """What was observed of a plan that has ended with an observation. None if it has expired."""
    if status.state is not PlanState.OBSERVED:
        return None
    try:
        return handle.result(0)
    except ExecutorClientError:
        return None


def handles_of(client: dispatcher.Dispatcher, ids: list[str]) -> list[PlanHandle]:
    """Handles on plans that are known. Raises `PlanUnknownError`."""
    handles = [client.handle(plan_id) for plan_id in ids]
    for handle in handles:
        handle.status()
    return handles
