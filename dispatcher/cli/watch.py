"""`dispatcher watch`"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from dispatcher.cli.json_lines import json_option, print_json
from dispatcher.cli.terminal import stdout
from dispatcher.client import Dispatcher
from dispatcher.models import PlanState
from dispatcher.printable import printable

if TYPE_CHECKING:
    from datetime import datetime

    from dispatcher.models import PlanStatus

__all__ = ["watch"]

LINES_AROUND = 4
LINES_A_PLAN = 2


def watch(
    *,
    once: Annotated[bool, typer.Option("--once", help="Print what is in flight now, and end.")] = False,
    interval_sec: Annotated[float, typer.Option(min=0.1, help="Time between two updates.")] = 1.0,
    as_json: Annotated[bool, json_option("for each plan, as status does, and end")] = False,
) -> None:
    """Show the plans in flight, those that are due soonest first, until Ctrl-C.

    Prints once if standard output is not a terminal.
    """
    with Dispatcher() as dispatcher:
        if as_json:
            for each in dispatcher.in_flight():
                print_json(each)
        elif once or not stdout.is_terminal:
            stdout.print(_view(dispatcher, None))
        else:
            with Live(_view(dispatcher, stdout.height), console=stdout, screen=True) as live:
                while True:
                    time.sleep(interval_sec)
                    live.update(_view(dispatcher, stdout.height))


def _view(dispatcher: Dispatcher, height: int | None) -> Group:
    """What fits into so many lines."""
    rows = None if height is None else max(1, (height - LINES_AROUND) // LINES_A_PLAN)
    plans, now = dispatcher.in_flight(rows), dispatcher.server_time()
    count = len(plans) if rows is None else dispatcher.count_in_flight()
    halted = dispatcher.halted()
    head = Text(f"{count} plan{'' if count == 1 else 's'} in flight")
    if halted is not None:
        head.append(f"; halted: {printable(halted)}", style="bold red")
    for error in dispatcher.unreadable(rows):
        head.append(f"\n{printable(error.message)}", style="red")
    return Group(head, _table(plans, now)) if plans else Group(head)


def _table(plans: list[PlanStatus], now: datetime) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    table.add_column("target, fault", overflow="fold", ratio=5)
    table.add_column("state", no_wrap=True)
    table.add_column("left", justify="right", no_wrap=True)
    table.add_column("failed", justify="right", no_wrap=True)
    table.add_column("plan, cause", overflow="ellipsis", ratio=4)
    for plan in plans:
        what, _, where = str(plan.plan).partition(" % of ")
        target = where.rpartition(", ")[0]
        cause = Text(printable(plan.cause or ""), style="yellow", overflow="ellipsis", no_wrap=True)
        table.add_row(
            f"{target}\n{what} %",
            plan.state,
            _left(plan, now),
            str(plan.attempts or ""),
            Group(Text(plan.id, overflow="ellipsis", no_wrap=True), cause),
        )
    return table


def _left(plan: PlanStatus, now: datetime) -> str:
    """Until the fault should be over; until the next step, if it is not applied."""
    moment = plan.ends_at if plan.state is PlanState.RUNNING else plan.next_step_at
    return "" if moment is None else f"{max(0.0, (moment - now).total_seconds()):.0f} s"
