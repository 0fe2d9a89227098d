"""`dispatcher list`, `export`: plans of the last days, and what was observed."""

from __future__ import annotations

import contextlib
import itertools
import sys
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated

import typer
from rich.table import Table

import dispatcher
from dispatcher.cli.filters import (
    Batch,
    Error,
    Executors,
    Since,
    States,
    Tag,
    Target,
    Until,
    chosen,
)
from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.lines import echo
from dispatcher.cli.terminal import stdout
from dispatcher.errors import ExecutorClientError, InvalidSettingsError
from dispatcher.export.files import Format, writer
from dispatcher.export.rows import AT_ONCE
from dispatcher.printable import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dispatcher.history import HistoryPage
    from dispatcher.models import PlanStatus

__all__ = ["export", "list_plans"]

Rows = Annotated[bool, json_option("for each plan, as status does; the last has a cursor if there are more")]


def list_plans(  # noqa: PLR0913 (each is an option of the command)
    *,
    state: States = None,
    target: Target = None,
    executor: Executors = None,
    tag: Tag = None,
    batch: Batch = None,
    error: Error = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="How many plans to show at most.")] = 50,
    cursor: Annotated[
        str | None, typer.Option(help="Go on behind an earlier page, whose last line names this.")
    ] = None,
    as_json: Rows = False,
) -> None:
    """List plans, ended ones and those in flight, the newest first.

    Ended plans are kept for result_expires_sec, a day by default.
    """
    with dispatcher.Dispatcher() as client:
        others = {"target": target, "executor": executor, "tag": tag, "batch": batch, "error": error}
        filters = chosen(client, states=state, since=since, until=until, **others)
        page = client.history_page(cursor=cursor, limit=limit, **filters)
    if as_json:
        _print_rows(page)
        return
    stdout.print(_table(page.plans) if page.plans else "no plans")
    if page.cursor is not None:
        echo(f"more with: --cursor {page.cursor}")


def export(  # noqa: PLR0913 (each is an option of the command)
    *,
    kind: Annotated[Format, typer.Option("--format", help="What to write.")] = Format.CSV,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="The file to write. Standard output if absent.")
    ] = None,
    traces: Annotated[bool, typer.Option("--traces", help="Also the columns logs and trace_data.")] = False,
    state: States = None,
    target: Target = None,
    executor: Executors = None,
    tag: Tag = None,
    batch: Batch = None,
    error: Error = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int | None, typer.Option(min=1, help="How many plans to write at most.")] = None,
) -> None:
    """Write plans and what was observed as a table, the newest first. docs/columns.md has its columns.

    An existing file is replaced once the new one is complete.
    """
    if kind is Format.PARQUET and output is None and sys.stdout is not None and sys.stdout.isatty():
        raise _wrong_output("must name a file: a terminal cannot show parquet")
    with dispatcher.Dispatcher() as client:
        others = {"target": target, "executor": executor, "tag": tag, "batch": batch, "error": error}
        filters = chosen(client, states=state, since=since, until=until, **others)
        rows, count = client.history_rows(limit=limit, **filters), 0
        with _opened(output) as stream, contextlib.closing(writer(kind, stream, traces=traces)) as table:
            while page := list(itertools.islice(rows, AT_ONCE)):
                table.write(page)
                count += len(page)
    if output is not None:
        echo(f"{count} plan{'' if count == 1 else 's'} written to {output}", error=True)


def _print_rows(page: HistoryPage) -> None:
    for plan in page.plans[:-1] if page.cursor else page.plans:
        print_json(plan)
    if page.cursor and page.plans:
        print_json(page.plans[-1].model_dump(mode="json", exclude_none=True) | {"cursor": page.cursor})


def _table(plans: list[PlanStatus]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("submitted", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("plan", overflow="fold")
    table.add_column("target, fault", overflow="fold", ratio=4)
    table.add_column("tags, cause", overflow="fold", ratio=4)
    for plan in plans:
        what, _, where = str(plan.plan).partition(" % of ")
        submitted = plan.submitted_at.astimezone().isoformat(sep="\n", timespec="seconds")
        more = [" ".join(plan.tags), plan.cause or ""]
        table.add_row(
            submitted[:19],
            plan.state,
            plan.id,
            f"{where.rpartition(', ')[0]}\n{what} %",
            "\n".join(printable(each) for each in more if each),
        )
    return table


@contextlib.contextmanager
def _opened(output: Path | None) -> Iterator[IO[bytes]]:
    """The stream to write to. A regular file has its name once it is complete."""
    if output is None:
        if sys.stdout is None:  # Python's own mark of a closed stream
            raise _wrong_output("must name a file: standard output is closed")
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        if output.exists() and not output.is_file():  # a pipe or a device
            with output.open("wb") as stream:
                yield stream
            return
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as folder:
            part = Path(folder) / output.name
            with part.open("wb") as stream:
                yield stream
            part.replace(output)
    except OSError as exc:
        if isinstance(exc, ExecutorClientError):  # Redis, for example
            raise
        raise _wrong_output(f"{output} cannot be written: {exc.strerror}") from exc


def _wrong_output(problem: str) -> InvalidSettingsError:
    return InvalidSettingsError(f"invalid option: --output {problem}", [["--output", problem]])
