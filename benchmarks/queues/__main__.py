"""This project side by side with what a user would choose instead, and how its own costs grow.

`python -m benchmarks.queues`. Each contender does the same work: POST apply, wait as long as the fault
lasts, GET status, GET metrics, result back to the submitter. It has two worker processes, a stub Executor
and fresh servers in each run. Rounds alternate in the order A B B A, because a run right after Taskiq loses
about a tenth. Figures are medians; ratios are medians of each round's ratio. There are three groups of
rows:

    queues      the comparison, the default: 11 minutes
    growth      more plans in flight, more worker processes, larger observations: 9 minutes
    endurance   a killed worker, a killed Redis, idle workers, a small worker: 2 minutes

`--only` names groups or rows, `--contenders` those that take part; both are separated by commas. `--rounds`
is how often the first two contenders run: 2 are A B B A. `--plans` is instead of a row's own number.

A whole group with all contenders and plans writes its part of `docs/performance.md`. Exit code 1 if a bound
is broken.
"""

from __future__ import annotations

import os
import sys

import typer

from benchmarks.queues.comparison import measure, publish, tables
from benchmarks.queues.contenders import CONTENDERS
from benchmarks.queues.rows import GROUPS, ROWS
from benchmarks.queues.verdict import judge
from benchmarks.stage.program import print_table, run

QUIET = 0.1
"""If other programs use more of the machine than this, times are unreliable."""


def main(
    only: str = "queues", contenders: str = "", rounds: int | None = None, plans: int | None = None
) -> None:
    """Measure, print, publish."""
    wanted, names = only.split(","), contenders.split(",") if contenders else list(CONTENDERS)
    if unknown := (set(wanted) - {*GROUPS, *ROWS}) | (set(names) - set(CONTENDERS)):
        known = [*GROUPS, *ROWS, *CONTENDERS]
        raise typer.BadParameter(f"{', '.join(unknown)}: there are {', '.join(known)}")
    rows = {name: ROWS[name] for each in wanted for name in GROUPS.get(each, [each])}
    load = os.getloadavg()[0]
    runs = measure(rows, names, rounds, plans)
    for header, *lines in tables(runs).values():
        print_table(header, lines)
    print(f"load average before: {load:.2f}; other programs used at most {runs.most('share_others'):.0%}")
    if runs.most("share_others") > QUIET:
        print("other programs were busy: times are unreliable, and only ratios of processor time count")
    code = judge(runs)
    if not plans and not contenders:
        publish([group for group in GROUPS if group in wanted], runs, load)
    sys.exit(code)


if __name__ == "__main__":
    run(main, __doc__)
