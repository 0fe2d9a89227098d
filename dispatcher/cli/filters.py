"""Options of the commands that read the history: `list` and `export`."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from dispatcher import errors
from dispatcher.cli.options import executor_names
from dispatcher.errors import InvalidSettingsError
from dispatcher.models import PlanState

if TYPE_CHECKING:
    from dispatcher.client import Dispatcher
    from dispatcher.history import Filters

__all__ = [
    "Batch",
    "Error",
    "Executors",
    "Since",
    "States",
    "Tag",
    "Target",
    "Until",
    "chosen",
    "moment",
]

AGE = re.compile(r"(\d{1,9})(s|m|h|d)")
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
MOMENT_HELP = (
    "a date and time such as 2030-01-31T12:00 (local unless it names a zone), or an age: 90m, 12h, 7d."
)


def error_names(incomplete: str) -> list[str]:
    """The errors that begin like this, for a shell that completes a word."""
    return [name for name in errors.__all__ if name.startswith(incomplete)]


States = Annotated[
    list[PlanState] | None, typer.Option("--state", help="Only plans in this state. May be repeated.")
]
Target = Annotated[
    str | None, typer.Option(help='Only plans for this service, or "SERVICE /path".', metavar="SERVICE")
]
Executors = Annotated[
    str | None, typer.Option("--executor", help="Only plans of this Executor.", autocompletion=executor_names)
]
Tag = Annotated[str | None, typer.Option(help="Only plans that were submitted with this tag.")]
Batch = Annotated[str | None, typer.Option(help="Only plans of this batch.", metavar="ID")]
Error = Annotated[
    str | None,
    typer.Option(
        help="Only plans that ended with this error, or one of its kinds.", autocompletion=error_names
    ),
]
Since = Annotated[
    str | None, typer.Option("--from", help=f"Only plans submitted at this time or later: {MOMENT_HELP}")
]
Until = Annotated[str | None, typer.Option("--to", help="Only plans submitted before this time, as --from.")]


def chosen(
    dispatcher: Dispatcher,
    *,
    states: list[PlanState] | None,
    since: str | None,
    until: str | None,
    **others: str | None,
) -> Filters:
    """The filters that were given. Raises `InvalidSettingsError`."""
    filters: Filters = {"state": states or None}
    if since is not None or until is not None:
        now = dispatcher.server_time()
        filters |= {"since": moment("--from", since, now), "until": moment("--to", until, now)}
    return filters | others  # type: ignore[return-value]  # the others are named as the filters are


def moment(option: str, text: str | None, now: datetime) -> datetime | None:
    """The moment that the text names. Raises `InvalidSettingsError`."""
    if text is None:
        return None
    age = AGE.fullmatch(text)
    try:
        if age is not None:
            return now - timedelta(**{UNITS[age[2]]: int(age[1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        problem = f"must be {MOMENT_HELP}".rstrip(".")
        raise InvalidSettingsError(f"invalid option: {option} {problem}", [[option, problem]]) from exc
