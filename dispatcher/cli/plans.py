"""`dispatcher run`, `submit`, `result`, `status`: plans, from their submission to their observation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.options import Executor, Ids  # noqa: TC001 (typer reads the annotations)
from dispatcher.cli.outcomes import collect, exit_code, fields_of, show
from dispatcher.cli.plan_files import read_plans
from dispatcher.cli.terminal import echo, stderr, stdout
from dispatcher.client import Dispatcher
from dispatcher.models import ConflictPolicy
from dispatcher.printable import printable

if TYPE_CHECKING:
    from datetime import datetime

    from dispatcher.handles import PlanHandle
    from dispatcher.models import PlanStatus

__all__ = ["result", "run", "status", "submit"]

Files = Annotated[
    list[str],
    typer.Argument(metavar="FILE", help="Plan files: YAML, JSON or JSON Lines. - reads standard input."),
]
Timeout = Annotated[
    float | None, typer.Option(help="What a plan may take beyond its fault's own time, in seconds.")
]
Expires = Annotated[
    float | None, typer.Option(help="How long a plan may wait for a worker and its target, in seconds.")
]
Conflict = Annotated[
    ConflictPolicy, typer.Option(help="What a plan does whose target has another plan's fault.")
]
States = Annotated[
    bool,
    json_option(
        "for each plan: id, plan, executor, state, attempts, its times, and apply_id and cause if any"
    ),
]
Outcomes = Annotated[bool, json_option("for each plan: id, plan, and observation or error")]


def run(
    files: Files,
    *,
    executor: Executor = "default",
    timeout_sec: Timeout = None,
    expires: Expires = None,
    conflict_policy: Conflict = ConflictPolicy.QUEUE,
    as_json: Outcomes = False,
) -> None:
    """Send the plans in FILE through the running system, and wait for their observations.

    Nothing is sent unless every plan in every file is valid. Exits with 0 if every plan has its observation,
    otherwise with the code of the first error.
    """
    plans = read_plans(files)
    with Dispatcher() as dispatcher:
        options = {"executor": executor, "timeout_sec": timeout_sec, "expires": expires}
        batch = dispatcher.submit_many(plans, conflict_policy=conflict_policy, **options)  # type: ignore[arg-type]
        try:
            outcomes = collect(list(zip(batch, plans, strict=True)))
        except KeyboardInterrupt:
            stderr.print("Interrupted. The plans that were submitted go on: dispatcher watch shows them.")
            raise
    if as_json:
        for outcome in outcomes:
            print_json(outcome.fields)
    else:
        show(outcomes)
    raise typer.Exit(exit_code(outcomes))


def submit(
    files: Files,
    *,
    executor: Executor = "default",
    timeout_sec: Timeout = None,
    expires: Expires = None,
    conflict_policy: Conflict = ConflictPolicy.QUEUE,
    as_json: Annotated[bool, json_option("for each plan: id, plan, and error if it is refused")] = False,
) -> None:
    """Hand the plans in FILE over, and print their ids. They end even if no process waits for them.

    Nothing is sent unless every plan in every file is valid. Exits with 0 if every plan is taken, otherwise
    with the code of the first refusal.
    """
    plans = read_plans(files)
    with Dispatcher() as dispatcher:
        options = {"executor": executor, "timeout_sec": timeout_sec, "expires": expires}
        batch = dispatcher.submit_many(plans, conflict_policy=conflict_policy, **options)  # type: ignore[arg-type]
    refusals = [handle.refusal for handle in batch]
    for handle, plan, refusal in zip(batch, plans, refusals, strict=True):
        if as_json:
            print_json(fields_of(handle.id, plan, refusal))
        elif refusal is None:
            echo(handle.id)
        else:
            echo(f"error: {plan}: {refusal.message}", error=True)
    raise typer.Exit(next((refusal.exit_code for refusal in refusals if refusal is not None), 0))


def result(
    ids: Ids,
    *,
    timeout_sec: Annotated[
        float | None, typer.Option(help="How long to wait, in seconds. Until the end if absent.")
    ] = None,
    as_json: Outcomes = False,
) -> None:
    """Print what was observed of plans that were submitted, waiting for those that have not ended.

    Exits with 0 if every plan has its observation, otherwise with the code of the first error.
    """
    with Dispatcher() as dispatcher:
        handles = [dispatcher.handle(plan_id) for plan_id in ids]
        outcomes = collect([(handle, handle.status().plan) for handle in handles], timeout_sec=timeout_sec)
    if as_json:
        for outcome in outcomes:
            print_json(outcome.fields)
    else:
        show(outcomes)
    raise typer.Exit(exit_code(outcomes))


def status(ids: Ids, *, as_json: States = False) -> None:
    """Show the state of plans."""
    with Dispatcher() as dispatcher:
        found = [dispatcher.handle(plan_id).status() for plan_id in ids]
    if as_json:
        for each in found:
            print_json(each)
        return
    for each in found:
        stdout.print(_described(each))


def _described(status: PlanStatus) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    moments = {
        "submitted": status.submitted_at,
        "applied": status.applied_at,
        "fault ends": status.ends_at,
        "next step": status.next_step_at,
        "ended": status.ended_at,
    }
    rows = {"plan": status.id, "fault": str(status.plan), "executor": status.executor, "state": status.state}
    rows |= {"apply id": status.apply_id or "", "failed calls": str(status.attempts or "")}
    rows |= {name: _shown(moment) for name, moment in moments.items()} | {"cause": status.cause or ""}
    for name, value in rows.items():
        if value:
            table.add_row(name, printable(value))
    return table


def _shown(moment: datetime | None) -> str:
    return "" if moment is None else moment.astimezone().isoformat(sep=" ", timespec="seconds")


def handles_of(dispatcher: Dispatcher, ids: list[str]) -> list[PlanHandle]:
    """Handles on plans that are known. Raises `PlanUnknownError`."""
    handles = [dispatcher.handle(plan_id) for plan_id in ids]
    for handle in handles:
        handle.status()
    return handles
