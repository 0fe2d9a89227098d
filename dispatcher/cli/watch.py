"""`dispatcher watch`"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.text import Text

from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.options import number_option
from dispatcher.cli.pace import Pace
from dispatcher.cli.terminal import stdout
from dispatcher.cli.watch_rows import header_of, rows_of
from dispatcher.client import Dispatcher
from dispatcher.errors import LedgerRefusedError, LedgerUnavailableError
from dispatcher.ledger.counts import count_ended
from dispatcher.ledger.ledger import connect
from dispatcher.printable import printable
from dispatcher.settings.settings import load_settings

if TYPE_CHECKING:
    from dispatcher.ledger.ledger import Ledger

__all__ = ["watch"]

MOST_UNREADABLE = 3
"""Plans that cannot be read and have a line of their own."""


def watch(
    *,
    once: Annotated[bool, typer.Option("--once", help="Print all that is in flight now, and end.")] = False,
    causes: Annotated[
        bool,
        typer.Option("--causes", help="Show whole causes, each on as many lines as it takes."),
    ] = False,
    interval_sec: Annotated[float, number_option("Seconds between two views.", least=0.1)] = 1.0,
    as_json: Annotated[bool, json_option("for each plan, as status does, and end")] = False,
) -> None:
    """Show the plans in flight, those that are due soonest first, until Ctrl-C.

    On a screen it shows as many as fit, and how many it does not show. It also shows how many end in a
    second, and how long the rest takes at that pace. It prints all of them once if standard output is not a
    terminal, or one that cannot move its cursor (TERM=dumb).
    """
    settings = load_settings()
    with Dispatcher(settings) as dispatcher, closing(connect(settings)) as ledger:
        if as_json:
            for each in dispatcher.in_flight():
                print_json(each)
            return
        view = _View(dispatcher, ledger, causes=causes)
        if once or not stdout.is_terminal or stdout.is_dumb_terminal:
            stdout.print(view.whole())
        else:
            _follow(view, interval_sec)


def _follow(view: _View, interval_sec: float) -> None:
    """Redis may be away for a while: the last view is kept, with a line that says so."""
    with Live(view.screen(), console=stdout, screen=True, auto_refresh=False) as live:
        while True:
            time.sleep(interval_sec)
            try:
                shown = view.screen()
            except LedgerRefusedError:
                raise
            except LedgerUnavailableError as exc:
                shown = view.away(exc)
            live.update(shown, refresh=True)


class _View:
    """What is shown, look after look."""

    def __init__(self, dispatcher: Dispatcher, ledger: Ledger, *, causes: bool) -> None:
        self._dispatcher = dispatcher
        self._ledger = ledger
        self._causes = causes
        self._pace = Pace()
        self._last: list[Text] = []

    def whole(self) -> Group:
        """All plans, on as many lines as they take."""
        head = self._head(None)
        plans = self._dispatcher.in_flight()
        now = self._dispatcher.server_time()
        rows = [line for plan in plans for line in rows_of(plan, now, stdout, causes=self._causes, fold=True)]
        return Group(*head, *([header_of(stdout)] if plans else []), *rows)

    def screen(self) -> Group:
        """What fits on the screen."""
        self._last = self._lines(stdout.height)
        return Group(*self._last)

    def away(self, trouble: LedgerUnavailableError) -> Group:
        """The last view, and why there is no newer one."""
        why = Text(printable(trouble.message), style="bold red", no_wrap=True, overflow="ellipsis")
        return Group(why, *self._last[: max(0, stdout.height - 1)])

    def _lines(self, height: int) -> list[Text]:
        head = self._head(height)
        plans, count = self._dispatcher.in_flight(height), self._dispatcher.count_in_flight()
        now = self._dispatcher.server_time()
        lines = [*head, *([header_of(stdout)] if plans else [])]
        shown = 0
        for plan in plans:
            rows = rows_of(plan, now, stdout, causes=self._causes)
            is_last = shown + 1 >= count
            if len(lines) + len(rows) > height - (0 if is_last else 1):
                break
            lines += rows
            shown += 1
        hidden = count - shown
        if hidden > 0:
            lines = [*lines[: max(1, height - 1)], Text(f"{hidden} more not shown", style="bold")]
        return lines[:height]

    def _head(self, height: int | None) -> list[Text]:
        """How many plans there are, how fast they end, and what is in their way."""
        self._pace.note(time.monotonic(), count_ended(self._ledger))
        count, halted = self._dispatcher.count_in_flight(), self._dispatcher.halted()
        first = Text(f"{count} plan{'' if count == 1 else 's'} in flight", no_wrap=True, overflow="ellipsis")
        if height is not None:
            first.append(f"; {self._pace.words(count)}")
        lines = [first]
        if halted is not None:
            lines.append(Text(f"halted: {printable(halted)}", style="bold red"))
        unreadable = self._dispatcher.unreadable(height)
        named = unreadable if height is None else unreadable[:MOST_UNREADABLE]
        lines += [Text(printable(error.message), style="red") for error in named]
        if len(unreadable) > len(named):
            lines.append(Text(f"{len(unreadable) - len(named)} more cannot be read", style="red"))
        if height is None:
            return lines
        for line in lines:
            line.truncate(stdout.width, overflow="ellipsis")
        return lines
