"""How this project's cost grows: with plans in flight, worker processes and the size of observations.

`python -m benchmarks.growth`. Writes its part of `docs/performance.md` and the curves next to it. Each point
is one run with workers and a Redis of its own.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import measurements
from benchmarks.apart import apart
from benchmarks.contenders.ours import Ours
from benchmarks.curves import Curve
from benchmarks.machine import description
from benchmarks.measurements import Scale
from benchmarks.page import FOLDER, rewrite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.figures import Figures

PACKAGES = ["celery", "redis", "requests"]
MEGABYTES = 200
"""The most traces that go through in a run with observations of some size."""


def main() -> None:
    """Measure, print, publish."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("--smoke", action="store_true", help="a try with few plans; publishes nothing")
    parser.add_argument("--output", type=Path, default=None, help="a folder for the raw figures, as JSON")
    options = parser.parse_args()
    if options.smoke:
        curves = [payloads([1_000], plans=20)]
    else:
        curves = [
            in_flight([100, 1_000, 4_000, 10_000, 20_000]),
            processes([1, 2, 4, 8, 16], plans=4_000),
            payloads([1_000, 10_000, 100_000, 1_000_000], plans=2_000),
        ]
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        raw = {curve.title: dict(curve.points) for curve in curves}
        (options.output / "growth.json").write_text(json.dumps(raw, indent=1), "utf-8")
    if not options.smoke:
        publish(curves)
    print(f"growth: points={sum(len(curve.points) for curve in curves)}")


def in_flight(sizes: Sequence[int]) -> Curve:
    """Plans submitted at once, each so long that all of them are in flight together."""
    columns = {
        "time over the plans' own, s": ("over_limit_s", 1),
        "CPU of a plan, ms": ("cpu_ms", 2),
        "workers, MB": ("workers_mb", 0),
        "worker memory of a plan, KB": ("worker_kb_a_plan", 2),
        "Redis memory of a plan, KB": ("redis_kb_a_plan", 2),
    }
    curve = Curve(
        "Plans in flight", "plans", columns, ("time over the plans' own, s", "Redis memory of a plan, KB")
    )
    for size in sizes:
        scale = Scale(warm=min(size, 300), burst=size, burst_s=5 + size // 400)
        curve.add(size, with_megabytes(apart(measurements.burst, Ours(), scale)))
    return curve


def processes(counts: Sequence[int], plans: int) -> Curve:
    """Plans of 1 s at once, for more and more worker processes."""
    columns = {
        "plans/s": ("per_s", 0),
        "CPU of a plan, ms": ("cpu_ms", 2),
        "workers, MB": ("workers_mb", 0),
        "workers, % of the machine": ("workers_percent", 0),
        "Redis, % of the machine": ("redis_percent", 0),
    }
    curve = Curve("Worker processes", "processes", columns, ("plans/s", "workers, MB"))
    for count in counts:
        figures = apart(measurements.throughput, Ours(count), Scale(warm=300, plans=plans))
        curve.add(count, with_megabytes(figures))
    return curve


def payloads(sizes: Sequence[int], plans: int) -> Curve:
    """Plans of 1 s at once, with more and more bytes of traces in each observation."""
    columns = {
        "plans/s": ("per_s", 0),
        "MB/s": ("mb_per_s", 1),
        "CPU of a plan, ms": ("cpu_ms", 2),
        "workers, MB": ("workers_mb", 0),
        "kept in Redis of a plan, KB": ("kept_kb_a_plan", 1),
    }
    curve = Curve("Traces in an observation", "bytes", columns, ("plans/s", "workers, MB"))
    for size in sizes:
        fitting = min(plans, MEGABYTES * 10**6 // max(size, 1))
        scale = Scale(warm=min(fitting, 100), plans=fitting, trace_bytes=size)
        figures = apart(measurements.throughput, Ours(), scale)
        curve.add(size, with_megabytes(figures) | {"mb_per_s": figures["per_s"] * size / 1e6})
    return curve


def with_megabytes(figures: Figures) -> Figures:
    """The figures, and some of them in the units of the tables."""
    return figures | {
        "workers_mb": figures["workers_kb"] / 1024,
        "workers_percent": figures["share_workers"] * 100,
        "redis_percent": figures["share_redis"] * 100,
    }


def publish(curves: Sequence[Curve]) -> None:
    """Draw the curves, and write this benchmark's part of the page."""
    from benchmarks.plots import draw_growth  # noqa: PLC0415 (the process of each run needs no matplotlib)

    draw_growth(curves, FOLDER / "growth.png")
    parts = [
        f"{description(PACKAGES)} Two worker processes unless a table says otherwise.",
        "![Curves of time, throughput and memory](growth.png)",
    ]
    for curve in curves:
        parts += [f"{curve.title}:", curve.table()]
    rewrite("growth", "\n\n".join(parts))


if __name__ == "__main__":
    main()
