"""This project, side by side with what a user would choose instead.

`python -m benchmarks.queues`. Each contender carries out the same plans: apply, wait, status, metrics, result
back to the submitter. It has two worker processes, against the same stub Executor and a fresh Redis for each
run. Rounds alternate in the order A B B A, because a run right after Taskiq loses about a tenth. Figures are
medians; ratios are medians of each round's ratio. Writes its part of `docs/performance.md`, unless `--quick`.
Exit code 1 if a bound is broken.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from benchmarks import measurements
from benchmarks.apart import apart
from benchmarks.comparison import CPU_ROWS, ROWS, Runs
from benchmarks.contenders import CONTENDERS, OURS
from benchmarks.machine import description
from benchmarks.measurements import Scale
from benchmarks.page import FOLDER, markdown_table, rewrite

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.contenders.base import Contender
    from benchmarks.figures import Figures

PACKAGES = ["celery", "redis", "taskiq", "taskiq-redis", "aiohttp", "uvloop", "dramatiq", "requests"]
QUICK = Scale(
    plans=400,
    submitted=400,
    burst=200,
    burst_s=2,
    per_s=50,
    steady_s=2,
    killed=60,
    patience_s=8,
    many=400,
    many_s=10,
)
SMOKE = Scale(warm=20, plans=20)
ROUNDS = {"throughput": 4, "burst": 2, "memory": 1, "lag": 1, "submit_rate": 3, "kill": 1}
"""How often each is measured for those that take part in every round."""

ALONE = {"memory"}
"""Measured for this project only: the other contenders show their memory in `burst`."""

QUIET = 0.1
"""If other programs use more of the machine than this, times say little."""

STUB_CALLS = 40_000
LEFT_KB = 2_000
"""Of two workers together."""


@dataclass(frozen=True)
class Bound:
    """A figure that this project has to reach."""

    name: str
    value: float
    at_least: float | None = None
    at_most: float | None = None

    @property
    def held(self) -> bool:
        """Whether the figure is within the bound. One that is missing is not."""
        return (self.at_least is None or self.value >= self.at_least) and (
            self.at_most is None or self.value <= self.at_most
        )

    def __str__(self) -> str:
        wanted = f"at least {self.at_least:g}" if self.at_most is None else f"at most {self.at_most:g}"
        return f"{self.name}: {self.value:.3g}, {wanted}"


def main() -> None:
    """Measure, print, publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.queues", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a try with few plans; publishes nothing")
    parser.add_argument(
        "--smoke", action="store_true", help="20 plans through us and Taskiq: does it all work?"
    )
    parser.add_argument(
        "--only", choices=list(ROUNDS), help="one measurement of us and Taskiq, not published"
    )
    parser.add_argument("--rounds", type=int, default=None, help="how often; 2 are A B B A")
    parser.add_argument("--threads", type=int, default=None, help="of each worker of ours")
    parser.add_argument("--output", type=Path, default=None, help="a folder for the raw figures, as JSON")
    options = parser.parse_args()
    scale, rounds = Scale(), ROUNDS
    if options.quick:
        scale, rounds = QUICK, dict.fromkeys(ROUNDS, 1)
    if options.smoke:
        scale, rounds = SMOKE, {"throughput": 1}
    if options.only:
        rounds = {options.only: options.rounds or 2}
    if options.threads:
        OURS.threads = options.threads
    stub = apart(measurements.executor_rate, scale.stub_calls)
    print(f"stub Executor: {stub['per_s']:,.0f} calls/s, {stub['cpu_us']:.0f} µs of CPU a call", flush=True)
    few = options.smoke or options.only
    runs = measure(scale, rounds, [each for each in CONTENDERS if each.swift or not few])
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        raw = {"stub": stub, **runs.figures}
        (options.output / "queues.json").write_text(json.dumps(raw, indent=1), "utf-8")
    show(runs)
    if not options.quick and not options.smoke and not options.only:
        publish(runs, stub)
    if options.only:
        ours, theirs = (runs.median(options.only, name, "cpu_ms") for name in runs.names)
        print(f"throughput_ratio={runs.ratio('throughput', 'per_s'):.2f} cpu_ratio={ours / theirs:.2f}")
        return
    sys.exit(judge(runs))


def measure(scale: Scale, rounds: dict[str, int], contenders: Sequence[Contender]) -> Runs:
    """Run all measurements of all contenders."""
    runs = Runs([contender.name for contender in contenders])
    for name, count in rounds.items():
        for contender in order([OURS] if name in ALONE else contenders, count):
            figures = apart(run, name, contender, scale)
            runs.add(name, contender.name, figures)
            shown = " ".join(f"{key}={value:.4g}" for key, value in figures.items())
            print(f"{name} {contender.name}: {shown}", flush=True)
    return runs


def order(contenders: Sequence[Contender], rounds: int) -> list[Contender]:
    """Whose turn it is: the swift ones forwards and backwards in turns, and then each of the others once."""
    swift = [contender for contender in contenders if contender.swift]
    turns = [each for number in range(rounds) for each in (swift if number % 2 == 0 else reversed(swift))]
    return turns + [contender for contender in contenders if not contender.swift]


def run(name: str, contender: Contender, scale: Scale) -> Figures:
    """One measurement. A peer that breaks down has no figures."""
    measure_it: Callable[[Contender, Scale], Figures] = getattr(measurements, name)
    try:
        return measure_it(contender, scale)
    except Exception as error:
        if contender.name == OURS.name:
            raise
        print(f"{contender.name} broke down: {error!r}", file=sys.stderr)
        return {}


def show(runs: Runs) -> None:
    """Print the tables."""
    for title, rows in (("", ROWS), ("CPU at plans of 1 s, % of the machine", CPU_ROWS)):
        table = Table(title, *runs.names)
        for row in rows:
            if row.measured(runs):
                table.add_row(*row.cells(runs))
        Console(width=130).print(table)
    others = runs.most("share_others")
    if others > QUIET:
        print(f"other programs used up to {others:.0%} of this machine: times say little")


def publish(runs: Runs, stub: Figures) -> None:
    """Write the plot, and this benchmark's part of the page."""
    from benchmarks.plots import draw  # noqa: PLC0415 (the process of each run needs no matplotlib)

    draw(runs, FOLDER / "performance.png")
    header = ["", *runs.names]
    stub_s, stub_us = f"{stub['per_s']:,.0f}", f"{stub['cpu_us']:.0f}"
    parts = [
        f"{description(PACKAGES)} All is on one machine, with two worker processes each.",
        "![Throughput, time for 4,000 plans, lag and CPU of each](performance.png)",
        markdown_table(header, [row.cells(runs) for row in ROWS]),
        "What uses the processor in the first measurement, in percent of the whole machine:",
        markdown_table(header, [row.cells(runs) for row in CPU_ROWS]),
        f"The stub Executor answers {stub_s} calls a second, at {stub_us} µs of CPU each.",
    ]
    rewrite("queues", "\n\n".join(parts))


def judge(runs: Runs) -> int:
    """Print which bounds are broken, and the last line; the exit code."""
    throughput, makespan = runs.ratio("throughput", "per_s"), runs.ratio("burst", "took_s")
    lag_ms = runs.median("lag", OURS.name, "p95_ms")
    submit_per_s = runs.median("submit_rate", OURS.name, "per_s")
    memory_kb, left_kb = (runs.median("memory", OURS.name, each) for each in ("worker_kb_a_plan", "left_kb"))
    bounds = [
        Bound("plans without an observation", runs.most("missing", OURS.name), at_most=0),
        Bound("throughput over Taskiq's", throughput, at_least=0.8),
        Bound("makespan over Taskiq's", makespan, at_most=1.0),
        Bound("lag p95, ms", lag_ms, at_most=50),
        Bound("plans submitted in a second", submit_per_s, at_least=4000),
        Bound("worker memory, KB a plan in flight", memory_kb, at_most=0.1),
        Bound("worker memory left by 20,000 plans, KB", left_kb, at_most=LEFT_KB),
    ]
    broken = [bound for bound in bounds if not bound.held]
    for bound in broken:
        print(f"BOUND BROKEN: {bound}")
    print(
        f"queues: throughput_ratio={throughput:.2f} makespan_ratio={makespan:.2f} "
        f"lag_p95_ms={lag_ms:.0f} submit_per_s={submit_per_s:.0f}"
    )
    return int(bool(broken))


if __name__ == "__main__":
    main()
