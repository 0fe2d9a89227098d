"""`dispatcher run`"""

from __future__ import annotations

from typing import Annotated

import typer

from dispatcher.cli.outcomes import collect, exit_code, show, stderr
from dispatcher.client import Dispatcher
from dispatcher.plan_files import read_plans

__all__ = ["run"]


def run(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="Plan files: YAML, JSON or JSON Lines. - reads standard input."
        ),
    ],
    *,
    executor: Annotated[str, typer.Option(help="Which of the configured Executors.")] = "default",
    timeout_sec: Annotated[
        float | None, typer.Option(help="What a plan may take beyond its fault's own time, in seconds.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one line of JSON for each plan.")] = False,
) -> None:
    """Send the plans in FILE... through the running system, and wait for their observations.

    Nothing is sent unless every plan in every file is valid.
    """
    plans = read_plans(files)
    with Dispatcher() as dispatcher:
        submitted = [
            (dispatcher.submit(plan, executor=executor, timeout_sec=timeout_sec), plan) for plan in plans
        ]
        try:
            outcomes = collect(submitted)
        except KeyboardInterrupt:
            stderr.print("Interrupted. The plans that were submitted go on.")
            raise
    if as_json:
        for outcome in outcomes:
            typer.echo(outcome.as_json())
    else:
        show(outcomes)
    raise typer.Exit(exit_code(outcomes))
