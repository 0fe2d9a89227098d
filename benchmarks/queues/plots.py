"""The plots in `docs/`. What is compared is drawn as a multiple of this project's."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot as plt

from benchmarks.queues.contenders import CONTENDERS, DURABLE, OURS

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes

    from benchmarks.queues.runs import Runs

mpl.use("Agg")

COLOURS = {OURS: "#1f5fa8"} | dict.fromkeys(DURABLE, "#d98324")
OTHERS = "#a9adb4"
PANELS = [
    ("throughput", "per_s", "plans/s"),
    ("throughput", "cpu_ms", "CPU of a plan"),
    ("lag", "p95_ms", "lag after the fault's end, p95"),
    ("kill", "lost_percent", "% of plans lost 15 s after a kill"),
]
CURVES = {
    "in_flight": "others in flight",
    "processes": "worker processes",
    "traces": "bytes of traces in an observation",
}


def draw(runs: Runs, path: Path) -> None:
    """Draw what matters most, as bars. What was not measured has no place."""
    figure, axes = plt.subplots(2, 2, figsize=(11, 6.5), layout="constrained")
    for each, (row, name, title) in zip(axes.flat, PANELS, strict=True):
        if row in runs.figures:
            _bars(each, runs, row, name, title)
        else:
            each.set_axis_off()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _bars(axes: Axes, runs: Runs, row: str, name: str, title: str) -> None:
    """The plans lost are a percentage; all other figures are over this project's."""
    names = [each for each in CONTENDERS if runs.values(row, each, name)]
    lost = name == "lost_percent"
    one = 1.0 if lost else runs.median(row, OURS, name)
    values = np.array([runs.median(row, each, name) for each in names]) / one
    bars = axes.barh(range(len(names)), values, color=[COLOURS.get(each, OTHERS) for each in names])
    axes.bar_label(bars, [f"{value:.0f}" if lost else f"{value:.2f}" for value in values], padding=3)
    axes.set_yticks(range(len(names)), [CONTENDERS[each].title for each in names])
    axes.invert_yaxis()
    axes.set_title(title if lost else f"{title}, this project = 1", loc="left", fontsize=10)
    axes.margins(x=0.15)
    axes.spines[["top", "right"]].set_visible(False)


def draw_growth(runs: Runs, path: Path) -> None:
    """Draw a plan's processor time over each size; the smallest is 1."""
    figure, axes = plt.subplots(1, len(CURVES), figsize=(11, 3), sharey=True, layout="constrained")
    for each, (row, title) in zip(axes, CURVES.items(), strict=True):
        points = {int(size.replace(",", "")): runs.median(row, size, "cpu_ms") for size in runs.figures[row]}
        first = next(iter(points.values()))
        each.plot(list(points), [value / first for value in points.values()], "o-", color=COLOURS[OURS])
        each.set_xscale("log")
        each.set_ylim(bottom=0)
        each.set_xlabel(title)
        each.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("CPU of a plan, smallest size = 1")
    figure.savefig(path, dpi=110)
    plt.close(figure)
