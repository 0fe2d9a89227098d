"""What the figures amount to: ratios, bounds, and the last line."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.contenders import CONTENDERS, DURABLE, OURS, RIVAL
from benchmarks.rows import GROUPS, GROWTH, IN_FLIGHT

if TYPE_CHECKING:
    from benchmarks.report import Runs

__all__ = ["Bound", "conclusion", "fastest_durable", "judge", "ratios"]


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
    """The ratios."""
    found = ratios(runs)
    durable = fastest_durable(runs)
    peer = (
        f"{found['durable_ratio']:.1f} times as many as {CONTENDERS[durable].title}, the fastest durable peer"
        if durable
        else "no durable peer was installed"
    )
    return (
        f"This project carries out {found['throughput_ratio']:.2f} times as many plans a second as Taskiq; "
        f"{peer}. Its time for 4,000 plans of 10 s is {found['makespan_ratio']:.2f} times that of Taskiq."
    )


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
    if measured & set(GROUPS["growth"]):
        cost = " ".join(f"{name}={value:.2f}" for name, value in growth_ratios(runs).items())
        print(f"growth: rows={len(measured & set(GROWTH))} {cost}")
    if measured & set(GROUPS["endurance"]):
        count = len(measured & set(GROUPS["endurance"]))
        print(f"endurance: rows={count} late_max_s={runs.most('late_max_s'):.1f}")
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
    """Those of all rows that were measured."""
    found, grown = ratios(runs), growth_ratios(runs)
    kb_20_000 = runs.median("in_flight", f"{IN_FLIGHT[1]:,}", "workers_grown_mb") * 1024
    limits = {
        "throughput": [
            Bound("throughput over Taskiq's", found["throughput_ratio"], at_least=0.9),
        ],
        "makespan": [Bound("time for plans of 10 s over Taskiq's", found["makespan_ratio"], at_most=0.95)],
        "lag": [Bound("lag p95, ms", found["lag_p95_ms"], at_most=30)],
        "submission": [Bound("plans submitted in a second", found["submit_per_s"], at_least=4_000)],
        "in_flight": [
            Bound("CPU of a plan, 100,000 in flight over 1,000", grown["in_flight_ratio"], at_most=1.2),
            Bound("worker memory for 20,000 plans in flight, KB", kb_20_000, at_most=2_000),
        ],
        "processes": [Bound("CPU of a plan, 4 workers over 1", grown["processes_ratio"], at_most=1.1)],
        "kept": [Bound("worker memory left, KB", runs.median("kept", "20,000", "left_kb"), at_most=2_000)],
        "idle": [
            Bound("idle worker, % of a core", runs.median("idle", OURS, "cpu_percent"), at_most=1),
            Bound("idle worker, commands a second", runs.median("idle", OURS, "commands_per_s"), at_most=10),
        ],
        "small_worker": [
            Bound("500 plans of 5 s, s", runs.median("small_worker", OURS, "took_s"), at_most=30)
        ],
    }
    if fastest_durable(runs):
        durable = Bound("plans/s over the fastest durable peer's", found["durable_ratio"], at_least=3)
        limits["throughput"].append(durable)
    for row in ("worker_killed", "redis_killed"):
        limits[row] = [Bound(f"{row}, latest plan, s", runs.median(row, OURS, "late_max_s"), at_most=10)]
    measured = [bound for row, each in limits.items() if row in runs.figures for bound in each]
    lost = max(runs.most(figure, OURS) for figure in ("missing", "lost", "doubled"))
    return [Bound("plans of this project lost or applied twice", lost, at_most=0), *measured]
