"""What the figures amount to: ratios, bounds, and the last line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benchmarks.queues.contenders import CONTENDERS, DURABLE, OURS, RIVAL
from benchmarks.queues.rows import GROUPS, GROWTH, IN_FLIGHT, OF_PEER
from benchmarks.stage.program import Bound, any_broken, shown

if TYPE_CHECKING:
    from benchmarks.queues.runs import Runs

UNMEASURED = "Taskiq was not measured"


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
    if not beside_taskiq(runs):
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


def growth_ratios(runs: Runs) -> dict[str, float]:
    """By how much a plan's processor time grows."""
    few, _, many = (f"{size:,}" for size in IN_FLIGHT)
    return {
        "in_flight_ratio": runs.ratio("in_flight", "cpu_ms", many, few),
        "processes_ratio": runs.ratio("processes", "cpu_ms", "4", "1"),
    }


def fastest_durable(runs: Runs) -> str | None:
    """The durable peer that carries out most plans a second, of those that were measured."""
    rates = {name: runs.median("throughput", name, "per_s") for name in DURABLE}
    measured = {name: rate for name, rate in rates.items() if rate > 0}
    return max(measured, key=lambda name: measured[name], default=None)


def beside_taskiq(runs: Runs) -> set[str]:
    """The rows with a bound against Taskiq in which it took part."""
    return {row for row in ("throughput", "makespan") if RIVAL in runs.figures.get(row, {})}


def judge(runs: Runs) -> int:
    """Print which bounds are broken, and the last line of each group; the exit code."""
    code, measured = int(any_broken(bounds(runs))), set(runs.figures)
    if measured & {"throughput", "makespan"} and not beside_taskiq(runs):
        print(UNMEASURED)
    if rows := measured & set(GROUPS["growth"]):
        print(f"growth: rows={len(rows)}", shown(growth_ratios(runs), in_flight_ratio=2, processes_ratio=2))
    if rows := measured & set(GROUPS["endurance"]):
        late_s = max((runs.median(row, OURS, "late_max_s") for row in rows if "killed" in row), default=0.0)
        print(f"endurance: rows={len(rows)} late_max_s={late_s:.1f}")
    if measured & set(GROUPS["queues"]):
        print("queues:", shown(ratios(runs), throughput_ratio=2, makespan_ratio=2, durable_ratio=2))
    return code


def bounds(runs: Runs) -> list[Bound]:
    """Those of all rows in which this project was measured."""
    measured = {row for row, columns in runs.figures.items() if row in GROWTH or OURS in columns}
    limits = [*against_peers(runs), *of_this_project(runs)]
    return [
        Bound("plans of this project lost or applied twice", lost_or_doubled(runs), at_most=0),
        *(bound for row, bound in limits if row in measured),
    ]


def against_peers(runs: Runs) -> list[tuple[str, Bound]]:
    """Bounds of the rows in which a peer took part. One breaks if the peer broke down."""
    found, beside = ratios(runs), beside_taskiq(runs)
    throughput = Bound("throughput over Taskiq's", found["throughput_ratio"], at_least=0.9)
    makespan = Bound("time for plans of 10 s over Taskiq's", found["makespan_ratio"], at_most=0.95)
    durable = Bound("plans/s over the fastest durable peer's", found["durable_ratio"], at_least=3)
    limits = [("throughput", throughput), ("makespan", makespan)]
    taskiq = [(row, bound) for row, bound in limits if row in beside]
    return taskiq + ([("throughput", durable)] if fastest_durable(runs) else [])


def of_this_project(runs: Runs) -> list[tuple[str, Bound]]:
    """The other bounds. Columns of growth are sizes, those of the others are contenders."""

    def ours(row: str, figure: str) -> float:
        return runs.median(row, OURS, figure)

    grown_kb = runs.median("in_flight", f"{IN_FLIGHT[1]:,}", "workers_grown_mb") * 1024
    ratio = growth_ratios(runs)
    most = [
        ("lag", "lag p95, ms", ours("lag", "p95_ms"), 30),
        ("in_flight", "CPU of a plan, 100,000 in flight over 1,000", ratio["in_flight_ratio"], 1.2),
        ("in_flight", "worker memory for 20,000 plans in flight, KB", grown_kb, 2_000),
        ("processes", "CPU of a plan, 4 workers over 1", ratio["processes_ratio"], 1.1),
        ("kept", "worker memory left, KB", runs.median("kept", "20,000", "left_kb"), 2_000),
        ("worker_killed", "worker killed, latest plan, s", ours("worker_killed", "late_max_s"), 10),
        ("redis_killed", "Redis killed, latest plan, s", ours("redis_killed", "late_max_s"), 10),
        ("idle", "idle worker, % of a core", ours("idle", "cpu_percent"), 1),
        ("idle", "idle worker, commands a second", ours("idle", "commands_per_s"), 10),
        ("small_worker", "500 plans of 5 s, s", ours("small_worker", "took_s"), 30),
    ]
    submitted = Bound("plans submitted in a second", ratios(runs)["submit_per_s"], at_least=4_000)
    limits = [(row, Bound(name, value, at_most=limit)) for row, name, value, limit in most]
    return [("submission", submitted), *limits]


def lost_or_doubled(runs: Runs) -> float:
    """The most in one run. The columns of growth are sizes of this project, except in one row."""
    ours = [
        run
        for row, columns in runs.figures.items()
        for column, each in columns.items()
        if column == OURS or (row in GROWTH and row != OF_PEER)
        for run in each
    ]
    return max((run.get(each, 0.0) for run in ours for each in ("missing", "lost", "doubled")), default=0.0)
