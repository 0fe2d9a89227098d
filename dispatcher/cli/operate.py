"""`dispatcher cancel`, `halt`, `resume`, `health`: what operators do."""

from __future__ import annotations

from typing import Annotated

import typer

from dispatcher.cli.outcomes import stdout
from dispatcher.cli.plans import Ids, handles_of
from dispatcher.client import Dispatcher

__all__ = ["cancel", "halt", "health", "resume"]

Reason = Annotated[str, typer.Option(help="Told to whoever waits for them.")]


def cancel(ids: Ids, *, reason: Reason = "") -> None:
    """Stop the faults of plans, and end the plans. Nothing is cancelled unless all of them are known."""
    with Dispatcher() as dispatcher:
        for handle in handles_of(dispatcher, ids):
            cancelled = handle.cancel(reason)
            stdout.print(f"{handle.id} {'is cancelled' if cancelled else 'had ended already'}")


def halt(
    reason: Annotated[str, typer.Argument(help="Told to whoever waits for a plan, or submits one.")],
) -> None:
    """Stop everything: cancel all plans in flight, and refuse new ones until resume."""
    with Dispatcher() as dispatcher:
        cancelled = dispatcher.halt(reason)
    stdout.print(f"halted: {cancelled} plan{'' if cancelled == 1 else 's'} in flight cancelled")


def resume() -> None:
    """Take plans again after halt."""
    with Dispatcher() as dispatcher:
        resumed = dispatcher.resume()
    stdout.print("plans are taken again" if resumed else "the dispatcher was not halted")


def health(
    *,
    executor: Annotated[str, typer.Option(help="Which of the configured Executors.")] = "default",
    timeout_sec: Annotated[float, typer.Option(help="How long to wait for a worker's check.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print it as JSON.")] = False,
) -> None:
    """Say whether an Executor is up, as a worker has found. Exits with 1 where it is not."""
    with Dispatcher() as dispatcher:
        found = dispatcher.health(executor, timeout_sec)
    if as_json:
        typer.echo(found.model_dump_json())
    else:
        checked = found.checked_at.astimezone().isoformat(sep=" ", timespec="seconds")
        told = "is healthy" if found.healthy else f"is not healthy: {found.cause}"
        stdout.print(f"{executor} {told} (checked {checked})", soft_wrap=True)
    raise typer.Exit(int(not found.healthy))
