"""The command line: one module for each group of commands, and those that other packages bring."""

from __future__ import annotations

import errno
import io
import logging
import os
import signal
import sys
import traceback
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from dispatcher.cli.lines import echo
from dispatcher.cli.listing import LazyCommand, Listed
from dispatcher.errors import ExecutorClientError, InvalidPlanError, InvalidSettingsError
from dispatcher.printable import OneLine
from dispatcher.telemetry.trace_export import export_traces

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

__all__ = ["OWN", "app", "main", "whole_app"]

OUTPUT_FAILED = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}
"""How a command fails whose output goes to a full disk, for example."""

OWN = {
    "demo": Listed(
        "dispatcher.cli.demo:demo",
        "Start the whole system on this machine, send fault plans through it, and show what came back.",
    ),
    "up": Listed("dispatcher.cli.up:up", "Start the whole system on this machine, and keep it until Ctrl-C."),
    "run": Listed(
        "dispatcher.cli.plans:run",
        "Send the plans in FILE through the running system, and wait for their observations.",
    ),
    "submit": Listed("dispatcher.cli.plans:submit", "Hand the plans in FILE over, and print their ids."),
    "result": Listed(
        "dispatcher.cli.plans:result",
        "Print what was observed of plans that were submitted, waiting for those that have not ended.",
    ),
    "status": Listed(
        "dispatcher.cli.status:status",
        "Show the life of plans, step by step: times, failed attempts, and why each ended or waits.",
    ),
    "watch": Listed(
        "dispatcher.cli.watch:watch",
        "Show the plans in flight, those that are due soonest first, until Ctrl-C.",
    ),
    "cancel": Listed("dispatcher.cli.operate:cancel", "Stop the faults of plans, and end the plans."),
    "halt": Listed(
        "dispatcher.cli.operate:halt",
        "Stop everything: cancel all plans in flight, and refuse new ones until resume.",
    ),
    "resume": Listed("dispatcher.cli.operate:resume", "Take plans again after halt."),
    "release": Listed(
        "dispatcher.cli.operate:release",
        "Free a target that is in doubt, because you know that its fault is over.",
    ),
    "health": Listed(
        "dispatcher.cli.operate:health", "Say whether an Executor is up, as a worker has found."
    ),
    "metrics": Listed(
        "dispatcher.cli.metrics:metrics",
        "Show what all workers have counted so far, or serve it to Prometheus until Ctrl-C.",
    ),
    "list": Listed(
        "dispatcher.cli.history:list_plans",
        "List plans, ended ones and those in flight, the newest first.",
    ),
    "export": Listed(
        "dispatcher.cli.history:export",
        "Write plans and what was observed as a table, the newest first.",
    ),
    "plan": Listed("dispatcher.cli.check:plan", "Look at plan files before they are sent."),
    "config": Listed("dispatcher.cli.config:config", "Settings: what is in force, and what can be set."),
}
"""The commands of this package, in the order in which they are listed."""


PACKAGES = "dispatcher.cli.packages"
"""Imported if a command is not one of `OWN`: to look for entry points takes as long as to import Typer."""


class _Commands(TyperGroup):
    """All commands, none of them imported yet."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for command in _own():
            self.add_command(command)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """See Typer."""
        if cmd_name not in self.commands:
            self._add_those_of_packages()
        return super().get_command(ctx, cmd_name)

    def list_commands(self, ctx: Any) -> list[str]:
        """See Typer."""
        self._add_those_of_packages()
        return super().list_commands(ctx)

    def _add_those_of_packages(self) -> None:
        for command in _of_packages():
            self.add_command(command)


def _own() -> Iterator[LazyCommand]:
    return (LazyCommand(name, partial(OWN.__getitem__, name)) for name in OWN)


def _of_packages() -> Iterator[LazyCommand]:
    found: Iterator[LazyCommand] = import_module(PACKAGES).commands()
    return found


def _show_version(wanted: bool) -> None:  # noqa: FBT001 (typer calls it)
    if wanted:
        typer.echo(import_module(PACKAGES).version())
        raise typer.Exit


def _begin(
    context: typer.Context,
    *,
    version: Annotated[  # noqa: ARG001 (its callback does it all)
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    if context.invoked_subcommand != "worker":  # whose processes see to theirs
        context.call_on_close(export_traces("fault-dispatcher"))


def _app(kind: type[TyperGroup]) -> typer.Typer:
    return typer.Typer(
        cls=kind,
        callback=_begin,
        name="dispatcher",
        help="Sends fault plans to a fleet of workers, and brings back what was observed.",
        epilog="An error is a line or two on standard error, and has an exit code of its own: 2 for input "
        "that breaks a rule, 3 if Redis does not answer, the others as in docs/errors.md.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,  # plain text, which costs half the time until it is shown
    )


app = _app(_Commands)


def whole_app() -> typer.Typer:
    """The same command line with every command imported, for what describes or checks all of them."""
    whole = _app(TyperGroup)
    for command in (*_own(), *_of_packages()):
        command.add_to(whole)
    return whole


def main() -> NoReturn:
    """Run the command line. An error is a line or two on standard error, and the error's exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not if it is closed
            stream.reconfigure(errors="backslashreplace")  # for what its encoding does not have
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    try:
        app()
    except (InvalidPlanError, InvalidSettingsError) as exc:
        sys.exit(_print_error(exc.lines, exc.exit_code))
    except ExecutorClientError as exc:
        sys.exit(_print_error([exc.message], exc.exit_code))
    except OSError as exc:
        if exc.errno in OUTPUT_FAILED and exc.filename is None:
            lines = [f"the output cannot be written: {exc.strerror}"]
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what its buffer still holds
            sys.exit(_print_error(lines, ExecutorClientError.exit_code))
        if exc.filename is None:
            sys.exit(_print_error([_defect(exc)], ExecutorClientError.exit_code))
        sys.exit(_print_error([f"{exc.filename}: {exc.strerror}"], InvalidSettingsError.exit_code))
    except Exception as exc:  # noqa: BLE001 (a person is at the other end: no traceback, and no values)
        sys.exit(_print_error([_defect(exc)], ExecutorClientError.exit_code))
    sys.exit(0)


def _print_error(lines: list[str], exit_code: int) -> int:
    for line in lines:
        echo(f"error: {line}", error=True)
    return exit_code


def _defect(error: Exception) -> str:
    """What to report. The error's own text is left out, because it may hold a secret."""
    place = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{place.filename}, line {place.lineno}, in {place.name}"
    return f"a defect: {type(error).__name__} in {where}. Report it, with this line and the command"


def _end(number: int, frame: FrameType | None) -> NoReturn:  # noqa: ARG001 (a signal handler's signature)
    """End as after Ctrl-C: all that was started is stopped on the way out."""
    sys.exit(128 + number)
