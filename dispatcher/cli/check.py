"""`dispatcher plan check`: plan files against the rules and the configuration, without Redis."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.lines import echo
from dispatcher.cli.options import Executor, Headers, check_executor
from dispatcher.cli.plan_files import FileEntry, read_entries
from dispatcher.errors import InvalidPlanError
from dispatcher.protocols import Protocol
from dispatcher.settings.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from dispatcher.models import FaultPlan
    from dispatcher.settings.settings import Settings

__all__ = ["plan"]

plan = typer.Typer(help="Look at plan files before they are sent.", no_args_is_help=True)


@plan.callback()
def _of_plans() -> None:
    """Keeps `check` a command of its own, although it is the only one."""


@plan.command()
def check(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILE", help="Plan files: YAML, JSON or JSON Lines. - reads standard input."),
    ],
    *,
    executor: Executor = "default",
    header: Headers = None,
    as_json: Annotated[
        bool, json_option("for each plan: file, number, line, valid, and plan and needs, or problems")
    ] = False,
) -> None:
    """Say whether run and submit would take the plans in FILE. Nothing is sent, and no Redis is needed.

    Each problem is a line that names the file, the plan, its line and the field. Exits with 0 if every plan
    is valid, otherwise with 2.
    """
    settings = load_settings()
    check_executor(settings, executor)
    entries = [_against(settings, executor, entry) for entry in read_entries(files, header or ())]
    for entry in entries:
        if as_json:
            print_json(_fields(entry))
            continue
        for field, problem in entry.problems:
            where = f"{entry.where}: {field}" if field else entry.where
            echo(f"error: {where}: {problem}", error=True)
    for line in _asked_later(settings, executor, entries):
        echo(line, error=True)
    valid, wrong = sum(not entry.problems for entry in entries), any(entry.problems for entry in entries)
    if not as_json:
        echo(f"{valid} plan{' is' if valid == 1 else 's are'} valid")
    raise typer.Exit(InvalidPlanError.exit_code if wrong else 0)


def _against(settings: Settings, executor: str, entry: FileEntry) -> FileEntry:
    """The entry with what the configuration has against its plan."""
    if entry.plan is None:
        return entry
    return replace(entry, problems=[*entry.problems, *_problems(settings, executor, entry.plan)])


def _problems(settings: Settings, executor: str, plan: FaultPlan) -> Iterator[tuple[str, str]]:
    incapable = settings.why_incapable(executor, plan.needs)
    if incapable is not None:
        yield "executor", incapable.message
    unobservable = settings.why_unobservable(executor, plan.service, grpc=plan.protocol is Protocol.GRPC)
    if unobservable is not None:
        yield "executor", f"{executor} {unobservable}"
    if plan.start_time is not None and plan.start_time <= datetime.now(UTC):
        yield "start_time", "has passed: choose a later time, or none to start at once"


def _asked_later(settings: Settings, executor: str, entries: Iterable[FileEntry]) -> Iterator[str]:
    """What only the Executor itself can say of valid plans."""
    if settings.executors[executor].capabilities is not None:
        return
    plans = [entry.plan for entry in entries if entry.plan is not None and not entry.problems]
    needs = sorted({need for plan in plans for need in plan.needs})
    if needs:
        yield (
            f"note: executor {executor} must have the capability {' and '.join(needs)}; a worker asks it "
            "before it applies a plan, and dispatcher doctor asks now"
        )


def _fields(entry: FileEntry) -> dict[str, object]:
    fields: dict[str, object] = {"file": entry.file, "number": entry.number, "line": entry.line}
    fields["valid"] = not entry.problems
    if entry.plan is not None:
        fields["plan"] = entry.plan.model_dump(mode="json", exclude_none=True)
        fields["needs"] = list(entry.plan.needs)
    if entry.problems:
        fields["problems"] = [{"field": field, "problem": problem} for field, problem in entry.problems]
    return fields
