"""`dispatcher cancel`, `halt`, `resume`, `release`, `health`: what operators do."""

from __future__ import annotations

from typing import Annotated

import typer

import dispatcher
from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.lines import echo
from dispatcher.cli.options import Executor, Ids, number_option
from dispatcher.cli.status import handles_of

__all__ = ["cancel", "halt", "health", "release", "resume"]

Reason = Annotated[str, typer.Option(help="Shown to callers that wait for them.")]


def cancel(
    ids: Ids,
    *,
    reason: Reason = "",
    as_json: Annotated[
        bool, json_option("for each plan: id, cancelled (false if it had ended already)")
    ] = False,
) -> None:
    """Stop the faults of plans, and end the plans. Nothing is cancelled unless all of them are known."""
    with dispatcher.Dispatcher() as client:
        for handle in handles_of(client, ids):
            cancelled = handle.cancel(reason)
            if as_json:
                print_json({"id": handle.id, "cancelled": cancelled})
            else:
                echo(f"{handle.id} {'is cancelled' if cancelled else 'had ended already'}")


def halt(
    reason: Annotated[
        str, typer.Argument(metavar="REASON", help="Shown to callers that wait for a plan or submit one.")
    ],
    *,
    as_json: Annotated[
        bool, json_option("with halted, reason, cancelled (how many plans), unreadable (ids)")
    ] = False,
) -> None:
    """Stop everything: cancel all plans in flight, and refuse new ones until resume."""
    with dispatcher.Dispatcher() as client:
        cancelled = client.halt(reason)
        unreadable = client.unreadable()
    if as_json:
        ids = [error.plan_id for error in unreadable]
        print_json({"halted": True, "reason": reason, "cancelled": cancelled, "unreadable": ids})
    else:
        echo(f"halted: {cancelled} plan{'' if cancelled == 1 else 's'} in flight cancelled")
    for error in unreadable:
        echo(f"warning: {error.message}. If its fault runs, stop it at the Executor.", error=True)


def resume(
    *,
    as_json: Annotated[bool, json_option("with halted, resumed (false if it was not halted)")] = False,
) -> None:
    """Take plans again after halt."""
    with dispatcher.Dispatcher() as client:
        resumed = client.resume()
    if as_json:
        print_json({"halted": False, "resumed": resumed})
    else:
        echo("plans are taken again" if resumed else "the dispatcher was not halted")


def release(
    service: Annotated[str, typer.Argument(metavar="SERVICE")],
    path: Annotated[str, typer.Argument(metavar="PATH", help="The API's path, as in the plan.")],
    *,
    reason: Annotated[str, typer.Option(help="How you know that the fault is over. It is kept.")],
    executor: Executor = "default",
    as_json: Annotated[bool, json_option("with released (ids of the plans that held the target)")] = False,
) -> None:
    """Free a target that is in doubt, because you know that its fault is over. Exits with 1 if none was."""
    with dispatcher.Dispatcher() as client:
        released = client.release(service, path, reason, executor)
    if as_json:
        print_json({"released": released})
    elif released:
        echo(f"{service} {path} is free again; it was in doubt since plan {', '.join(released)}")
    else:
        echo(f"{service} {path} was not in doubt at executor {executor}", error=True)
    raise typer.Exit(int(not released))


def health(
    *,
    executor: Executor = "default",
    timeout_sec: Annotated[float, number_option("How long to wait for a worker's check, in seconds.")] = 30.0,
    as_json: Annotated[bool, json_option("with executor, healthy, cause, checked_at")] = False,
) -> None:
    """Say whether an Executor is up, as a worker has found. Exits with 1 if it is not."""
    with dispatcher.Dispatcher() as client:
        found = client.health(executor, timeout_sec)
    if as_json:
        print_json({"executor": executor, **found.model_dump(mode="json")})
    else:
        checked = found.checked_at.astimezone().isoformat(sep=" ", timespec="seconds")
        message = "is healthy" if found.healthy else f"is not healthy: {found.cause}"
        echo(f"{executor} {message} (checked {checked})")
    raise typer.Exit(int(not found.healthy))
