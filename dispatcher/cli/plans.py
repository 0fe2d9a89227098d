"""`dispatcher run`, `submit`, `result`: plans, from their submission to their observation."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Annotated

import typer

import dispatcher
from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.lines import echo
from dispatcher.cli.options import Executor, Headers, Ids, number_option
from dispatcher.cli.outcomes import exit_code, fields_of, show
from dispatcher.cli.plan_files import read_plans
from dispatcher.cli.terminal import stderr
from dispatcher.cli.waiting import collect
from dispatcher.models import ConflictPolicy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatcher.plan_batch import PlanBatch

__all__ = ["result", "run", "submit"]

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
Outcomes = Annotated[bool, json_option("for each plan: id, plan, and observation or error")]


def run(
    files: Files,
    *,
    executor: Executor = "default",
    header: Headers = None,
    timeout_sec: Timeout = None,
    expires: Expires = None,
    conflict_policy: Conflict = ConflictPolicy.QUEUE,
    as_json: Outcomes = False,
) -> None:
    """Send the plans in FILE through the running system, and wait for their observations.

    Nothing is sent unless every plan in every file is valid. Exits with 0 if every plan has its observation,
    otherwise with the code of the first error.
    """
    plans = read_plans(files, header or ())
    with dispatcher.Dispatcher() as client:
        options = {"executor": executor, "timeout_sec": timeout_sec, "expires": expires}
        batch = client.submit_many(plans, conflict_policy=conflict_policy, **options)  # type: ignore[arg-type]
        try:
            outcomes = collect(list(zip(batch, plans, strict=True)))
        except KeyboardInterrupt:
            stderr.print("Interrupted. The plans that were submitted go on: dispatcher watch shows them.")
            raise
    with _naming(batch):
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
    header: Headers = None,
    timeout_sec: Timeout = None,
    expires: Expires = None,
    conflict_policy: Conflict = ConflictPolicy.QUEUE,
    as_json: Annotated[bool, json_option("for each plan: id, plan, and error if it is refused")] = False,
) -> None:
    """Hand the plans in FILE over, and print their ids. They end even if no process waits for them.

    Nothing is sent unless every plan in every file is valid. Exits with 0 if every plan is taken, otherwise
    with the code of the first refusal.
    """
    plans = read_plans(files, header or ())
    with dispatcher.Dispatcher() as client:
        options = {"executor": executor, "timeout_sec": timeout_sec, "expires": expires}
        batch = client.submit_many(plans, conflict_policy=conflict_policy, **options)  # type: ignore[arg-type]
    refusals = [handle.refusal for handle in batch]
    with _naming(batch):
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
        float | None, number_option("How long to wait, in seconds. Until the end if absent.")
    ] = None,
    as_json: Outcomes = False,
) -> None:
    """Print what was observed of plans that were submitted, waiting for those that have not ended.

    Exits with 0 if every plan has its observation, otherwise with the code of the first error.
    """
    with dispatcher.Dispatcher() as client:
        handles = [client.handle(plan_id) for plan_id in ids]
        outcomes = collect([(handle, handle.status().plan) for handle in handles], timeout_sec=timeout_sec)
    if as_json:
        for outcome in outcomes:
            print_json(outcome.fields)
    else:
        show(outcomes)
    raise typer.Exit(exit_code(outcomes))


@contextlib.contextmanager
def _naming(batch: PlanBatch) -> Iterator[None]:
    """If standard output fails meanwhile, on a full disk for example, say how to find the plans again."""
    try:
        yield
    except OSError as exc:
        if not isinstance(exc, BrokenPipeError):
            echo(f"the plans were submitted: dispatcher list --batch {batch.id}", error=True)
        raise
