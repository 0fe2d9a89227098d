"""The plots in `docs/`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.figures import written

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.comparison import Runs
    from benchmarks.curves import Curve

__all__ = ["draw", "draw_growth"]

mpl.use("Agg")

COLOURS = ["#1f5fa8", "#d98324", "#8a8f98", "#a9adb4", "#c8cbd0"]
PARTS = {"workers": "workers", "redis": "Redis", "submitter": "submitter"}
LIMIT_S = 10


def draw(runs: Runs, path: Path) -> None:
    """Draw the four figures that matter most, as bars."""
    figure, ((speed, time), (lag, cpu)) = plt.subplots(2, 2, figsize=(11, 6.5), layout="constrained")
    _bars(speed, runs, "throughput", "per_s", "4,000 plans of 1 s at once, plans/s")
    _bars(time, runs, "burst", "took_s", "4,000 plans of 10 s at once, s")
    time.axvline(LIMIT_S, color="#c0392b", linestyle="--", linewidth=1)
    _bars(lag, runs, "lag", "p95_ms", "lag after the fault's end, p95, ms")
    _stacked(cpu, runs)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_growth(curves: Sequence[Curve], path: Path) -> None:
    """Draw two figures of each curve over its size."""
    figure, rows = plt.subplots(
        len(curves), 2, figsize=(11, 3 * len(curves)), squeeze=False, layout="constrained"
    )
    for curve, row in zip(curves, rows, strict=True):
        sizes = [max(size, 1) for size, _ in curve.points]
        for axes, name in zip(row, curve.drawn, strict=True):
            figure_name, _ = curve.columns[name]
            axes.plot(sizes, [figures[figure_name] for _, figures in curve.points], "o-", color=COLOURS[0])
            axes.set_xscale("log")
            axes.set_ylim(bottom=0)
            axes.set_xlabel(curve.unit)
            axes.set_title(f"{curve.title}: {name}", loc="left", fontsize=10)
            axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(axes: Axes, runs: Runs, measurement: str, name: str, title: str) -> None:
    values = [runs.median(measurement, each, name) for each in runs.names]
    bars = axes.barh(range(len(values)), np.nan_to_num(values), color=COLOURS)
    axes.bar_label(bars, [written(value, 0 if value >= 100 else 1) for value in values], padding=3)
    _dress(axes, runs, title)


def _stacked(axes: Axes, runs: Runs) -> None:
    left = [0.0] * len(runs.names)
    for (part, label), colour in zip(PARTS.items(), ("#1f5fa8", "#c0392b", "#d9b324"), strict=True):
        values = [runs.median("throughput", each, f"cpu_ms_{part}") for each in runs.names]
        axes.barh(range(len(values)), values, left=left, label=label, color=colour)
        left = [each + value for each, value in zip(left, values, strict=True)]
    axes.legend(frameon=False)
    _dress(axes, runs, "CPU of a plan of 1 s, ms")


def _dress(axes: Axes, runs: Runs, title: str) -> None:
    axes.set_yticks(range(len(runs.names)), runs.names)
    axes.invert_yaxis()
    axes.set_title(title, loc="left", fontsize=10)
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)
