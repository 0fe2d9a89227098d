"""Medians, ratios, tables and plots of the runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from benchmarks.comparison import ROWS, Row, Runs
from benchmarks.contenders import CONTENDERS
from benchmarks.curves import Curve
from benchmarks.page import markdown_table, rewrite
from benchmarks.queues import order

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def runs() -> Runs:
    """Two rounds of two contenders, and one of a third that does not take part in every round."""
    runs = Runs(["ours", "theirs", "slow"])
    for ours, theirs in ((100.0, 200.0), (300.0, 100.0)):
        runs.add("throughput", "ours", {"per_s": ours, "share_others": 0.2})
        runs.add("throughput", "theirs", {"per_s": theirs})
    runs.add("throughput", "slow", {"per_s": 50.0})
    return runs


def test_a_ratio_is_the_median_of_the_ratios_of_each_round(runs: Runs) -> None:
    assert runs.ratio("throughput", "per_s") == (0.5 + 3.0) / 2
    assert runs.ratio("throughput", "per_s", "slow") == 0.25


def test_a_run_that_broke_down_has_no_ratio(runs: Runs) -> None:
    runs.add("burst", "ours", {"took_s": 10.0})
    runs.add("burst", "theirs", {})
    assert math.isnan(runs.ratio("burst", "took_s"))


def test_the_most_of_all_runs_is_found(runs: Runs) -> None:
    assert runs.most("share_others") == 0.2
    assert runs.most("share_others", "theirs") == 0.0


def test_rounds_run_forwards_and_backwards_in_turns_and_the_slow_ones_once_at_the_end() -> None:
    ours, rival, *slow = CONTENDERS
    assert order(CONTENDERS, 4) == [ours, rival, rival, ours, ours, rival, rival, ours, *slow]


def test_a_row_has_the_medians_of_all(runs: Runs) -> None:
    row = Row("speed", "throughput", ["per_s"], 1)
    assert row.cells(runs) == ["speed", "200.0", "150.0", "50.0"]


def test_a_row_takes_another_measurement_for_those_without_the_first(runs: Runs) -> None:
    runs.add("memory", "ours", {"kb": 0.03})
    runs.add("burst", "theirs", {"kb": 13.0})
    row = Row("memory", "memory", ["kb"], 2, otherwise="burst")
    assert row.cells(runs) == ["memory", "0.03", "13.00", "-"]


def test_the_plots_are_drawn_of_what_there_is(runs: Runs, tmp_path: Path) -> None:
    from benchmarks.plots import draw, draw_growth  # noqa: PLC0415 (other tests need no matplotlib)

    draw(runs, tmp_path / "queues.png")
    curve = Curve("Growth", "plans", {"a": ("a", 1), "b": ("b", 0)}, ("a", "b"), [(1, {"a": 1.0, "b": 2.0})])
    draw_growth([curve], tmp_path / "growth.png")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("queues.png", "growth.png"))
    assert curve.table().splitlines()[-1] == "| 1 | 1.0 | 2 |"


def test_only_the_part_between_its_marks_is_replaced(tmp_path: Path, runs: Runs) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a: written by the benchmark -->\nold\n<!-- end of a -->\nafter\n", "utf-8")
    rewrite("a", markdown_table(["", *runs.names], [ROWS[0].cells(runs)]), page)
    text = page.read_text("utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| 4,000 plans of 1 s at once: plans/s | 200 | 150 | 50 |" in text
