"""The command line: one module for each group of commands, and those that other packages bring."""

from __future__ import annotations

import logging
import signal
import sys
import traceback
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, NoReturn

import typer
from pydantic import ValidationError

from dispatcher.cli.check import plan
from dispatcher.cli.config import config
from dispatcher.cli.demo import demo
from dispatcher.cli.history import export, list_plans
from dispatcher.cli.metrics import metrics
from dispatcher.cli.operate import cancel, halt, health, release, resume
from dispatcher.cli.plans import result, run, status, submit
from dispatcher.cli.terminal import echo
from dispatcher.cli.up import up
from dispatcher.cli.watch import watch
from dispatcher.errors import ExecutorClientError, InvalidPlanError, InvalidSettingsError
from dispatcher.own_packages import import_own
from dispatcher.printable import OneLine
from dispatcher.settings.validation import problems_of
from dispatcher.telemetry.trace_export import export_traces

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["add_commands_of_packages", "app", "main"]

app = typer.Typer(
    name="dispatcher",
    help="Sends fault plans to a fleet of workers, and brings back what was observed.",
    epilog="An error is a line or two on standard error, and has an exit code of its own: 2 for input that "
    "breaks a rule, 3 if Redis does not answer, the others as in docs/errors.md.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",  # fills the lines of a help text
)


@app.callback()
def _traces(context: typer.Context) -> None:
    if context.invoked_subcommand != "worker":  # whose processes see to theirs
        context.call_on_close(export_traces("fault-dispatcher"))


app.add_typer(plan, name="plan")
for own in (demo, up, run, submit, result, status, watch, cancel, halt, resume, release, health, metrics):
    app.command()(own)
app.command("list")(list_plans)
app.command()(export)
app.add_typer(config)


def main() -> NoReturn:
    """Run the command line. An error is a line or two on standard error, and the error's exit code."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine("%(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler], level=logging.WARNING)
    signal.signal(signal.SIGTERM, _end)
    signal.signal(signal.SIGHUP, _end)
    try:
        add_commands_of_packages()
        app()
    except (InvalidPlanError, InvalidSettingsError) as exc:
        sys.exit(_print_error(exc.lines, exc.exit_code))
    except ExecutorClientError as exc:
        sys.exit(_print_error([exc.message], exc.exit_code))
    except ValidationError as exc:
        lines = [f"{field}: {problem}" for field, problem in problems_of(exc)]
        sys.exit(_print_error(lines, InvalidSettingsError.exit_code))
    except OSError as exc:
        if exc.filename is None:
            sys.exit(_print_error([_defect(exc)], ExecutorClientError.exit_code))
        sys.exit(_print_error([f"{exc.filename}: {exc.strerror}"], InvalidSettingsError.exit_code))
    except Exception as exc:  # noqa: BLE001 (a person is at the other end: no traceback, and no values)
        sys.exit(_print_error([_defect(exc)], ExecutorClientError.exit_code))
    sys.exit(0)


def add_commands_of_packages() -> None:
    """Add the commands that this package does not know."""
    import_own("workers")  # and not a folder of PYTHONPATH that has this name
    import_own("conformance")
    for command in entry_points(group="fault_dispatcher.commands"):
        loaded = command.load()
        if isinstance(loaded, typer.Typer):
            app.add_typer(loaded, name=command.name)
        else:
            app.command(command.name)(loaded)


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
