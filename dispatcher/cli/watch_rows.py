"""The lines that `dispatcher watch` shows for each plan: one or two, by the width, and one for its cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rich.text import Text

from dispatcher.models import PlanState
from dispatcher.printable import printable

if TYPE_CHECKING:
    from datetime import datetime

    from rich.console import Console

    from dispatcher.models import PlanStatus

__all__ = ["header_of", "rows_of"]

WIDE = 120
"""Columns from which on a plan takes one line."""

STATE, LEFT, FAILED, ID = 9, 7, 6, 22
LEAST_TARGET = 12
INDENT = "  "


class _Cell(NamedTuple):
    text: str
    width: int
    right: bool = False


def header_of(console: Console) -> Text:
    """The names of the columns."""
    if console.width >= WIDE:
        row = _wide(console.width, "target", "fault", "state", "left", "failed", "plan")
    else:
        row = _narrow(console.width, "target, fault and plan", "state", "left", "failed")
    row.stylize("bold")
    return row


def rows_of(
    plan: PlanStatus, now: datetime, console: Console, *, causes: bool, fold: bool = False
) -> list[Text]:
    """The lines of one plan. Text that is too long is cut, unless it must be folded into more lines.

    `causes` has the whole cause shown. Otherwise it is cut to a line.
    """
    what, _, where = str(plan.plan).partition(" of ")
    target, _, lasts = where.rpartition(", ")
    fault, left, failed = f"{what}, {lasts}", _left(plan, now), str(plan.attempts or "")
    width = console.width
    if width >= WIDE:
        lines = [_wide(width, target, fault, plan.state, left, failed, plan.id, fold=fold)]
    else:
        second = Text(f"{INDENT}{fault}  {plan.id}")
        lines = [_narrow(width, target, plan.state, left, failed, fold=fold), second]
    lines = [line for each in lines for line in _fit(each, console, fold=fold)]
    return lines + _cause(plan, console, whole=causes)


def _wide(
    width: int, target: str, fault: str, state: str, left: str, failed: str, plan: str, *, fold: bool = False
) -> Text:
    rest = width - STATE - LEFT - FAILED - ID - 5
    fault_width = min(40, rest * 2 // 5)
    return _line(
        [
            _Cell(target, rest - fault_width),
            _Cell(fault, fault_width),
            _Cell(state, STATE),
            _Cell(left, LEFT, right=True),
            _Cell(failed, FAILED, right=True),
            _Cell(plan, ID),
        ],
        fold=fold,
    )


def _narrow(width: int, target: str, state: str, left: str, failed: str, *, fold: bool = False) -> Text:
    rest = max(LEAST_TARGET, width - STATE - LEFT - FAILED - 3)
    cells = [_Cell(target, rest), _Cell(state, STATE), _Cell(left, LEFT, right=True)]
    return _line([*cells, _Cell(failed, FAILED, right=True)], fold=fold)


def _line(cells: list[_Cell], *, fold: bool) -> Text:
    """The cells, a space between them. One that is too long is cut, or pushes the others on if lines fold."""
    texts = []
    for cell in cells:
        text = Text(printable(cell.text))
        if not fold:
            text.truncate(cell.width, overflow="ellipsis")
        missing = max(0, cell.width - text.cell_len)
        text.pad_left(missing) if cell.right else text.pad_right(missing)
        texts.append(text)
    line = Text(" ").join(texts)
    line.rstrip()
    return line


def _fit(line: Text, console: Console, *, fold: bool) -> list[Text]:
    if fold:
        return list(line.wrap(console, console.width, overflow="fold"))
    line.truncate(console.width, overflow="ellipsis")
    return [line]


def _cause(plan: PlanStatus, console: Console, *, whole: bool) -> list[Text]:
    """Why it waits, or why its last attempt failed."""
    if not plan.cause:
        return []
    cause, width = Text(printable(plan.cause), style="yellow"), console.width - len(INDENT)
    if whole:
        lines = list(cause.wrap(console, width, overflow="fold"))
    else:
        cause.truncate(width, overflow="ellipsis")
        lines = [cause]
    return [Text(INDENT) + line for line in lines]


def _left(plan: PlanStatus, now: datetime) -> str:
    """Until the fault should be over; until the next step, if it is not applied."""
    moment = plan.ends_at if plan.state is PlanState.RUNNING else plan.next_step_at
    return "" if moment is None else f"{max(0.0, (moment - now).total_seconds()):.0f} s"
