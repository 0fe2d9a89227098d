"""Options and arguments that several commands take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

import dispatcher
from dispatcher.errors import ExecutorClientError, InvalidSettingsError
from dispatcher.headers import headers_of_lines
from dispatcher.limits import MAX_SECONDS, PLAN_ID

if TYPE_CHECKING:
    from dispatcher.settings.settings import Settings

__all__ = ["Executor", "Headers", "Ids", "check_executor", "executor_names", "number_option"]


def number_option(what: str, *, least: float = 0.0, most: float = MAX_SECONDS) -> Any:
    """An option that takes a number, of seconds for example. `what` is its help text.

    `nan` and `inf`, which Python reads as numbers, are out of every bound.
    """

    def check(value: float | None) -> float | None:
        if value is not None and not least <= value <= most:
            raise typer.BadParameter(f"{value:g} is not a number from {least:g} to {most:g}.")
        return value

    return typer.Option(help=what, callback=check)


def _plan_ids(ids: list[str]) -> list[str]:
    for plan_id in ids:
        if not PLAN_ID.fullmatch(plan_id):
            raise typer.BadParameter(
                f"{plan_id!r} is not a plan id: letters, digits, '.', '_', '-', at most 128."
            )
    return ids


def _header_lines(lines: list[str] | None) -> list[str] | None:
    try:
        headers_of_lines(lines or ())
    except ValueError as exc:
        raise typer.BadParameter(f"{exc}.") from exc
    return lines


def check_executor(settings: Settings, executor: str) -> None:
    """Raises `InvalidSettingsError` unless an Executor of that name is configured."""
    if executor not in settings.executors:
        known = ", ".join(sorted(settings.executors))
        problem = f"must be one of the configured executors: {known}"
        raise InvalidSettingsError(f"invalid arguments: executor {problem}", [["executor", problem]])


def executor_names(incomplete: str) -> list[str]:
    """The configured Executors that begin like this, for a shell that completes a word. Never raises."""
    try:
        names = dispatcher.load_settings().executors
    except (ExecutorClientError, OSError):  # who presses the tab key wants no error in the middle of the line
        return []
    return sorted(name for name in names if name.startswith(incomplete))


Executor = Annotated[
    str, typer.Option(help="Which of the configured Executors.", autocompletion=executor_names)
]
Headers = Annotated[
    list[str] | None,
    typer.Option(
        "--header",
        metavar="'NAME: VALUE'",
        help="Hit only requests that have this header, too. May be repeated.",
        callback=_header_lines,
    ),
]
Ids = Annotated[
    list[str],
    typer.Argument(metavar="ID", help="Ids of plans, as submit prints them.", callback=_plan_ids),
]
