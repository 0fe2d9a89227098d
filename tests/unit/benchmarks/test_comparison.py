"""Medians, ratios, bounds, tables and plots of the runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest

from benchmarks.queues.comparison import comparison, steps, tables
from benchmarks.queues.contenders import CONTENDERS, DURABLE, OURS, RIVAL
from benchmarks.queues.rows import ROWS, order
from benchmarks.queues.runs import Line, Runs
from benchmarks.queues.verdict import conclusion, fastest_durable, judge, ratios
from benchmarks.stage.page import description, markdown_table, rewrite
from benchmarks.stage.program import Bound

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.stage.program import Figures

DURABLE_RATES = {"restate": 50.0, "dbos": 20.0}


@pytest.fixture
def runs() -> Runs:
    """Two rounds of this project and Taskiq, and one of two durable peers."""
    runs = Runs()
    for ours, theirs in ((100.0, 200.0), (300.0, 100.0)):
        runs.add("throughput", OURS, {"per_s": ours, "share_others": 0.2, "missing": 0})
        runs.add("throughput", RIVAL, {"per_s": theirs})
    for name, rate in DURABLE_RATES.items():
        runs.add("throughput", name, {"per_s": rate})
    return runs


def test_a_ratio_is_the_median_of_the_ratios_of_each_round(runs: Runs) -> None:
    assert runs.ratio("throughput", "per_s", OURS, RIVAL) == (0.5 + 3.0) / 2


def test_a_run_that_broke_down_has_no_ratio(runs: Runs) -> None:
    runs.add("makespan", OURS, {"took_s": 10.0})
    runs.add("makespan", RIVAL, {})
    assert math.isnan(runs.ratio("makespan", "took_s", OURS, RIVAL))


def test_the_most_of_all_runs_is_found(runs: Runs) -> None:
    assert runs.most("share_others") == 0.2
    assert runs.most("no such figure") == 0.0


def test_rounds_run_forwards_and_backwards_in_turns_and_the_others_once_at_the_end() -> None:
    assert order(ROWS["throughput"], 2) == [OURS, RIVAL, RIVAL, OURS, *list(CONTENDERS)[2:]]


def test_a_row_of_one_contender_is_measured_once_in_each_round() -> None:
    assert order(ROWS["idle"], 2) == [OURS, OURS]


def test_a_line_has_the_medians_and_by_how_much_the_rounds_differ_from_them(runs: Runs) -> None:
    line = Line("speed", "throughput", ["per_s"], 1)
    assert line.cells(runs, [OURS, "restate", "dramatiq"]) == ["speed", "200.0 ± 50%", "50.0", "-"]


def test_the_durable_ratio_is_against_the_fastest_durable_peer(runs: Runs) -> None:
    assert fastest_durable(runs) == "restate"
    assert ratios(runs)["durable_ratio"] == 200 / DURABLE_RATES["restate"]


def test_without_durable_peers_no_bound_is_against_them(capsys: pytest.CaptureFixture[str]) -> None:
    runs = Runs()
    for name in (OURS, RIVAL):
        runs.add("throughput", name, {"per_s": 100.0})
    assert judge(runs) == 0
    assert capsys.readouterr().out.splitlines() == [
        "queues: throughput_ratio=1.00 makespan_ratio=nan lag_p95_ms=nan submit_per_s=nan durable_ratio=nan"
    ]


@pytest.mark.parametrize(
    ("figures", "code"),
    [
        pytest.param({"per_s": 100.0, "missing": 0.0}, 0, id="all plans have observations"),
        pytest.param({"per_s": 100.0, "missing": 1.0}, 1, id="one plan has none"),
        pytest.param({"per_s": 80.0, "missing": 0.0}, 1, id="too slow"),
    ],
)
def test_only_bounds_of_what_was_measured_count(figures: Figures, code: int) -> None:
    runs = Runs()
    runs.add("throughput", OURS, figures)
    runs.add("throughput", RIVAL, {"per_s": 100.0})
    runs.add("throughput", DURABLE[0], {"per_s": 20.0})
    assert judge(runs) == code


@pytest.mark.parametrize(
    ("missing", "code"), [(0.0, 0), (1.0, 1)], ids=["all plans have observations", "one plan has none"]
)
def test_a_plan_lost_at_any_size_breaks_a_bound(missing: float, code: int) -> None:
    runs = Runs()
    for size in ("1,000", "2,000,000"):
        runs.add("traces", size, {"per_s": 100.0, "missing": missing if size == "2,000,000" else 0.0})
    assert judge(runs) == code


def test_a_plan_lost_by_another_contender_breaks_no_bound() -> None:
    runs = Runs()
    runs.add("kill", OURS, {"lost": 0.0, "doubled": 0.0})
    runs.add("kill", RIVAL, {"lost": 200.0, "doubled": 3.0})
    assert judge(runs) == 0


def test_without_taskiq_no_bound_is_against_it(capsys: pytest.CaptureFixture[str]) -> None:
    runs = Runs()
    runs.add("throughput", OURS, {"per_s": 100.0})
    runs.add("makespan", OURS, {"took_s": 12.0})
    assert judge(runs) == 0
    assert capsys.readouterr().out.splitlines()[0] == "Taskiq was not measured"
    assert conclusion(runs) == "Taskiq was not measured. No durable peer was measured."


def test_a_taskiq_that_broke_down_breaks_its_bound(capsys: pytest.CaptureFixture[str]) -> None:
    runs = Runs()
    runs.add("throughput", OURS, {"per_s": 100.0})
    runs.add("throughput", RIVAL, {})
    assert judge(runs) == 1
    assert "BOUND BROKEN: throughput over Taskiq's: nan" in capsys.readouterr().out


def test_without_this_project_no_bound_counts() -> None:
    runs = Runs()
    runs.add("lag", RIVAL, {"p95_ms": 5.0})
    assert judge(runs) == 0


def test_a_late_plan_after_a_kill_breaks_a_bound() -> None:
    runs = Runs()
    runs.add("redis_killed", OURS, {"late_max_s": 10.5, "lost": 0.0})
    assert judge(runs) == 1


def test_the_page_has_the_conclusion_once(runs: Runs) -> None:
    assert comparison(runs, "noted").count(conclusion(runs)) == 1
    assert conclusion(runs) == (
        "This project carries out 1.75 times as many plans a second as Taskiq. "
        "This project carries out 4.00 times as many plans a second as Restate, the fastest durable peer."
    )


def test_packages_that_are_not_installed_are_left_out() -> None:
    assert description(["no-such-package", "pytest"]).endswith(f"Packages: pytest {pytest.__version__}.")


def test_a_figure_that_is_missing_breaks_its_bound() -> None:
    assert not Bound("lag", math.nan, at_most=30).held
    assert str(Bound("lag", 31.0, at_most=30)) == "lag: 31, at most 30"


def test_figures_of_steps_become_columns() -> None:
    figures = {"cpu_ms@1,000": 2.0, "cpu_ms@20,000": 2.1}
    assert steps(OURS, figures) == {"1,000": {"cpu_ms": 2.0}, "20,000": {"cpu_ms": 2.1}}
    assert steps(OURS, {"cpu_ms": 2.0}) == {OURS: {"cpu_ms": 2.0}}
    assert steps(OURS, {}) == {OURS: {}}


def test_the_plots_are_drawn_of_what_there_is(runs: Runs, tmp_path: Path) -> None:
    from benchmarks.queues.plots import draw, draw_growth  # noqa: PLC0415 (other tests need no matplotlib)

    for row in ("in_flight", "processes", "traces"):
        runs.add(row, "1", {"cpu_ms": 2.0})
        runs.add(row, "1,000", {"cpu_ms": 3.0})
    runs.add("kill", OURS, {"lost_percent": 0.0})
    runs.add("kill", RIVAL, {"lost_percent": 52.0})
    draw(runs, tmp_path / "queues.png")
    draw_growth(runs, tmp_path / "growth.png")
    assert all((tmp_path / name).stat().st_size > 1000 for name in ("queues.png", "growth.png"))


def test_growth_has_a_line_for_each_size(runs: Runs) -> None:
    runs.add("processes", "2", {"per_s": 400.0, "cpu_ms": 3.0})
    assert tables(runs)["processes"][1] == ["2", "400", "3.00", "-"]


def test_only_the_part_between_its_marks_is_replaced(tmp_path: Path, runs: Runs) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- a: written by the benchmark -->\nold\n<!-- end of a -->\nafter\n", "utf-8")
    header, *rows = tables(runs)["queues"]
    rewrite("a", markdown_table(header, rows), page)
    text = page.read_text("utf-8")
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "| Plans of 1 s at once: plans/s | 200 ± 50% | 150 ± 33% | 50 | 20 |" in text
