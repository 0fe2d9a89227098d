"""What the figures amount to: ratios, bounds, and the last line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.queues.contenders import CONTENDERS, DURABLE, OURS, RIVAL
from benchmarks.queues.rows import GROUPS, GROWTH, IN_FLIGHT

if TYPE_CHECKING:
    from benchmarks.queues.report import Runs

__all__ = ["Bound", "conclusion", "fastest_durable", "judge", "ratios"]

AGAINST_TASKIQ = {"throughput", "makespan"}
"""The rows with a bound against Taskiq."""

UNMEASURED = "Taskiq was not measured"


@dataclass(frozen=True)
class Bound:
    """A figure that this project has to reach."""

    name: str
    value: float
    at_least: float = -math.inf
    at_most: float = math.inf

    @property
    def held(self) -> bool:
        """Whether the figure is within the bound. One that is missing is not."""
        return self.at_least <= self.value <= self.at_most

    def __str__(self) -> str:
        limits = {"at least": self.at_least, "at most": self.at_most}
        wanted = " and ".join(f"{how} {limit:g}" for how, limit in limits.items() if math.isfinite(limit))
        return f"{self.name}: {self.value:.3g}, {wanted}"


def conclusion(runs: Runs) -> str:
    """The ratios, as sentences."""
    found, durable = ratios(runs), fastest_durable(runs)
    peer = f"{CONTENDERS[durable].title}, the fastest durable peer" if durable else ""
    faster = {"Taskiq": found["throughput_ratio"], peer: found["durable_ratio"]}
    sentences = [
        f"This project carries out {ratio:.2f} times as many plans a second as {name}."
        for name, ratio in faster.items()
        if not math.isnan(ratio)
    ]
    if not math.isnan(found["makespan_ratio"]):
        sentences.append(
            f"4,000 plans of 10 s take it {found['makespan_ratio']:.2f} times as long as Taskiq."
        )
    if not against_taskiq(runs):
        sentences.append(f"{UNMEASURED}.")
    if not durable:
        sentences.append("No durable peer was measured.")
    return " ".join(sentences)


def ratios(runs: Runs) -> dict[str, float]:
    """What the last line shows. Not a number if it was not measured."""
    durable = fastest_durable(runs)
    ours = runs.median("throughput", OURS, "per_s")
    return {
        "throughput_ratio": runs.ratio("throughput", "per_s", OURS, RIVAL),
        "makespan_ratio": runs.ratio("makespan", "took_s", OURS, RIVAL),
        "lag_p95_ms": runs.median("lag", OURS, "p95_ms"),
        "submit_per_s": runs.median("submission", OURS, "per_s"),
        "durable_ratio": ours / runs.median("throughput", durable, "per_s") if durable else math.nan,
    }


def fastest_durable(runs: Runs) -> str | None:
    """The durable peer that carries out most plans a second, of those that were measured."""
    rates = {name: runs.median("throughput", name, "per_s") for name in DURABLE}
    measured = {name: rate for name, rate in rates.items() if rate > 0}
    return max(measured, key=lambda name: measured[name], default=None)


def judge(runs: Runs) -> int:
    """Print which bounds are broken, and the last line of each group; the exit code."""
    found, broken = ratios(runs), [bound for bound in bounds(runs) if not bound.held]
    for bound in broken:
        print(f"BOUND BROKEN: {bound}")
    measured = set(runs.figures)
    if measured & AGAINST_TASKIQ and not against_taskiq(runs):
        print(UNMEASURED)
    if measured & set(GROUPS["growth"]):
        cost = " ".join(f"{name}={value:.2f}" for name, value in growth_ratios(runs).items())
        print(f"growth: rows={len(measured & set(GROWTH))} {cost}")
    if measured & set(GROUPS["endurance"]):
        count = len(measured & set(GROUPS["endurance"]))
        print(f"endurance: rows={count} late_max_s={runs.most('late_max_s', OURS):.1f}")
    if measured & set(GROUPS["queues"]):
        digits = {"lag_p95_ms": 0, "submit_per_s": 0}
        print("queues:", *(f"{name}={value:.{digits.get(name, 2)}f}" for name, value in found.items()))
    return int(bool(broken))


def growth_ratios(runs: Runs) -> dict[str, float]:
    """By how much a plan's processor time grows."""
    few, _, many = (f"{size:,}" for size in IN_FLIGHT)
    return {
        "in_flight_ratio": runs.ratio("in_flight", "cpu_ms", many, few),
        "processes_ratio": runs.ratio("processes", "cpu_ms", "4", "1"),
    }


def bounds(runs: Runs) -> list[Bound]:
    """Those of all rows in which this project was measured."""
    limits = [*against_taskiq(runs), *of_queues(runs), *of_growth(runs), *of_endurance(runs)]
    measured = {row for row, columns in runs.figures.items() if row in GROWTH or OURS in columns}
    return [
        Bound("plans of this project lost or applied twice", lost_or_doubled(runs), at_most=0),
        *(bound for row, bound in limits if row in measured),
    ]


def lost_or_doubled(runs: Runs) -> float:
    """The most in one run. The columns of growth are sizes, and all of them are this project's."""
    return max(
        (
            run.get(figure, 0.0)
            for row, columns in runs.figures.items()
            for column, each in columns.items()
            if row in GROWTH or column == OURS
            for run in each
            for figure in ("missing", "lost", "doubled")
        ),
        default=0.0,
    )


def against_taskiq(runs: Runs) -> list[tuple[str, Bound]]:
    """Bounds of the rows in which Taskiq took part. One breaks if Taskiq broke down."""
    found = ratios(runs)
    limits = [
        ("throughput", Bound("throughput over Taskiq's", found["throughput_ratio"], at_least=0.9)),
        ("makespan", Bound("time for plans of 10 s over Taskiq's", found["makespan_ratio"], at_most=0.95)),
    ]
    return [(row, bound) for row, bound in limits if RIVAL in runs.figures.get(row, {})]


def of_queues(runs: Runs) -> list[tuple[str, Bound]]:
    """The other bounds of the comparison."""
    found = ratios(runs)
    durable = Bound("plans/s over the fastest durable peer's", found["durable_ratio"], at_least=3)
    return [
        *([("throughput", durable)] if fastest_durable(runs) else []),
        ("lag", Bound("lag p95, ms", found["lag_p95_ms"], at_most=30)),
        ("submission", Bound("plans submitted in a second", found["submit_per_s"], at_least=4_000)),
    ]


def of_growth(runs: Runs) -> list[tuple[str, Bound]]:
    """What grows with size, and by how much at most."""
    grown = growth_ratios(runs)
    kb_20_000 = runs.median("in_flight", f"{IN_FLIGHT[1]:,}", "workers_grown_mb") * 1024
    many = Bound("CPU of a plan, 100,000 in flight over 1,000", grown["in_flight_ratio"], at_most=1.2)
    left_kb = runs.median("kept", "20,000", "left_kb")
    return [
        ("in_flight", many),
        ("in_flight", Bound("worker memory for 20,000 plans in flight, KB", kb_20_000, at_most=2_000)),
        ("processes", Bound("CPU of a plan, 4 workers over 1", grown["processes_ratio"], at_most=1.1)),
        ("kept", Bound("worker memory left, KB", left_kb, at_most=2_000)),
    ]


def of_endurance(runs: Runs) -> list[tuple[str, Bound]]:
    """What killed, idle and small workers reach."""
    most = {
        ("worker_killed", "late_max_s"): ("worker killed, latest plan, s", 10),
        ("redis_killed", "late_max_s"): ("Redis killed, latest plan, s", 10),
        ("idle", "cpu_percent"): ("idle worker, % of a core", 1),
        ("idle", "commands_per_s"): ("idle worker, commands a second", 10),
        ("small_worker", "took_s"): ("500 plans of 5 s, s", 30),
    }
    return [
        (row, Bound(name, runs.median(row, OURS, figure), at_most=limit))
        for (row, figure), (name, limit) in most.items()
    ]
