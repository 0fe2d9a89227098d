"""What the figures amount to: ratios, bounds, and the last line."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benchmarks.queues.contenders import CONTENDERS, DURABLE, OURS, RIVAL
from benchmarks.queues.rows import GROUPS, GROWTH, IN_FLIGHT
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
    """Those of all rows in which this project was measured, and those against contenders that took part."""
    found, grown, beside = ratios(runs), growth_ratios(runs), beside_taskiq(runs)
    durable = {"throughput"} if fastest_durable(runs) else set[str]()
    measured = {row for row, columns in runs.figures.items() if row in GROWTH or OURS in columns}

    def ours(row: str, figure: str) -> float:
        return runs.median(row, OURS, figure)

    kb_20_000 = runs.median("in_flight", f"{IN_FLIGHT[1]:,}", "workers_grown_mb") * 1024
    left_kb = runs.median("kept", "20,000", "left_kb")
    limits = [
        ("throughput", beside, Bound("throughput over Taskiq's", found["throughput_ratio"], at_least=0.9)),
        (
            "makespan",
            beside,
            Bound("time of 10 s plans over Taskiq's", found["makespan_ratio"], at_most=0.95),
        ),
        ("throughput", durable, Bound("plans/s over a durable peer's", found["durable_ratio"], at_least=3)),
        ("lag", measured, Bound("lag p95, ms", found["lag_p95_ms"], at_most=30)),
        ("submission", measured, Bound("plans submitted in a second", found["submit_per_s"], at_least=4_000)),
        (
            "in_flight",
            measured,
            Bound("CPU, 100,000 in flight over 1,000", grown["in_flight_ratio"], at_most=1.2),
        ),
        ("in_flight", measured, Bound("worker memory for 20,000 in flight, KB", kb_20_000, at_most=2_000)),
        ("processes", measured, Bound("CPU, 4 workers over 1", grown["processes_ratio"], at_most=1.1)),
        ("kept", measured, Bound("worker memory left, KB", left_kb, at_most=2_000)),
        *(
            (row, measured, Bound(f"{row}, latest plan, s", ours(row, "late_max_s"), at_most=10))
            for row in ("worker_killed", "redis_killed")
        ),
        ("idle", measured, Bound("idle worker, % of a core", ours("idle", "cpu_percent"), at_most=1)),
        ("idle", measured, Bound("idle worker, commands/s", ours("idle", "commands_per_s"), at_most=10)),
        ("small_worker", measured, Bound("500 plans of 5 s, s", ours("small_worker", "took_s"), at_most=30)),
    ]
    return [
        Bound("plans of this project lost or applied twice", lost_or_doubled(runs), at_most=0),
        *(bound for row, needed, bound in limits if row in needed & measured),
    ]


def lost_or_doubled(runs: Runs) -> float:
    """The most in one run. The columns of growth are sizes, and all of them are this project's."""
    ours = [
        run
        for row, columns in runs.figures.items()
        for column, each in columns.items()
        if row in GROWTH or column == OURS
        for run in each
    ]
    return max((run.get(each, 0.0) for run in ours for each in ("missing", "lost", "doubled")), default=0.0)
