"""What `watch` shows: the pace, and rows that fit."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from support.plans import abort_plan

from dispatcher import ExecutorServerError
from dispatcher.cli.pace import Pace, duration
from dispatcher.cli.watch_rows import WIDE, header_of, rows_of
from dispatcher.ledger.record import Order, PlanRecord

NOW = datetime.fromtimestamp(1_800_000_000, UTC)
CAUSE = "the data plane refused it " + "again " * 40 + "at last"


def record(api: str = "/api/v1/[bold]pay", plan_id: str = "a761ef8b971acd4f-16") -> PlanRecord:
    order = Order(plan=abort_plan(api=api, duration_seconds=30), timeout_ms=30_000)
    ms = 1_800_000_000_000
    return PlanRecord(plan_id, order.plan, "default", order.timeout_ms, ms, ms + 7_000)


def console(width: int) -> Console:
    return Console(width=width, markup=False)


def test_the_pace_is_known_from_the_second_look_on() -> None:
    pace = Pace()
    pace.note(100.0, 7)
    assert pace.words(5) == "pace not known yet"
    pace.note(102.0, 17)
    assert pace.words(50) == "5.0 a second end, about 10 s left"
    assert pace.words(0) == "5.0 a second end"


def test_the_pace_is_that_of_the_last_minute() -> None:
    pace = Pace()
    for second in range(200):
        pace.note(float(second), min(second, 100) * 10)
    assert pace.words(3) == "none ended in the last 60 s"


def test_counts_that_were_lost_begin_again() -> None:
    pace = Pace()
    pace.note(0.0, 1_000)
    pace.note(1.0, 3)
    assert pace.per_s is None


def test_a_slow_pace_is_counted_by_the_minute() -> None:
    pace = Pace()
    pace.note(0.0, 0)
    pace.note(40.0, 1)
    assert pace.words(6) == "1.5 a minute end, about 4 min left"


@given(st.lists(st.tuples(st.floats(0.01, 100), st.integers(0, 1_000)), min_size=1, max_size=50))
def test_the_pace_is_never_negative_and_never_above_the_fastest_step(steps: list[tuple[float, int]]) -> None:
    pace, at_s, ended = Pace(), 0.0, 0
    pace.note(at_s, ended)
    for seconds, more in steps:
        at_s, ended = at_s + seconds, ended + more
        pace.note(at_s, ended)
    assert pace.per_s is not None
    assert 0 <= pace.per_s <= max(more / seconds for seconds, more in steps) * 1.001


@pytest.mark.parametrize(("seconds", "words"), [(0.2, "1 s"), (99, "99 s"), (100, "2 min"), (9_000, "2.5 h")])
def test_a_duration_has_two_digits_at_most(seconds: float, words: str) -> None:
    assert duration(seconds) == words


@given(st.integers(40, 250), st.integers(1, 400), st.booleans())
def test_no_row_is_wider_than_the_terminal(width: int, length: int, causes: bool) -> None:  # noqa: FBT001
    plan = record("/" + "x" * length).failed_once_more(ExecutorServerError(CAUSE, 503), 0).status()
    for fold in (False, True):
        rows = rows_of(plan, NOW, console(width), causes=causes, fold=fold)
        assert all(row.cell_len <= width for row in rows)
    assert header_of(console(width)).cell_len <= width


@pytest.mark.parametrize("width", [60, WIDE, 160])
def test_markup_in_a_path_is_text(width: int) -> None:
    [*rows] = rows_of(record().status(), NOW, console(width), causes=False)
    assert "PaymentService /api/v1/[bold]pay" in rows[0].plain
    assert len(rows) == (1 if width >= WIDE else 2)
    assert "a761ef8b971acd4f-16" in rows[-1].plain


@pytest.mark.parametrize("width", [60, 160])
def test_a_cause_is_cut_to_a_line_unless_it_is_asked_for(width: int) -> None:
    plan = record().failed_once_more(ExecutorServerError(CAUSE, 503), 0).status()
    cut = rows_of(plan, NOW, console(width), causes=False)
    whole = rows_of(plan, NOW, console(width), causes=True)
    assert cut[-1].plain.endswith("…")
    assert CAUSE in " ".join(" ".join(row.plain for row in whole).split())


def test_text_that_is_folded_is_whole() -> None:
    rows = rows_of(record("/" + "x" * 300).status(), NOW, console(80), causes=False, fold=True)
    assert "x" * 300 in "".join(row.plain.strip() for row in rows)
