"""Measurements in processes of their own, because queues keep settings and connections in globals."""

from __future__ import annotations

import multiprocessing
import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.stage.figures import Figures

__all__ = ["apart"]


def apart(task: Callable[..., Figures], *arguments: object) -> Figures:
    """Call `task` in a new process and return its figures."""
    _end_in_order()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_end_in_order) as pool:
        return pool.submit(task, *arguments).result()


def _end_in_order() -> None:
    """On SIGTERM this process ends as after Ctrl-C, so that the processes that it has started end too."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
