"""Ways to carry out plans, behind one interface: ours, and what a user would pick instead.

Each contender is one module: what its workers import, and a class `Contender` for the measurements. A
module reads the addresses of Redis and of the Executor when it is imported, so `open_contender` imports it
in the process of a run. The process that starts the runs imports none of them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING

from benchmarks.queues.contenders.base import program

if TYPE_CHECKING:
    from benchmarks.queues.contenders.base import Base
    from benchmarks.stage.stage import Stage


@dataclass(frozen=True)
class Entry:
    """What is known of a contender before its module is imported."""

    title: str
    share: float = 1.0
    """How many plans it gets for each of ours, so that its runs last about as long."""

    program: str = ""
    """A command without which it is skipped, and how to install that."""

    advice: str = ""


OURS = "ours"
RIVAL = "taskiq"
"""The contender that ratios are against."""

CONTENDERS = {
    OURS: Entry("this project"),
    RIVAL: Entry("Taskiq + aiohttp"),
    "dramatiq": Entry("Dramatiq", 0.5),
    "celery_retry": Entry("Celery, countdown", 0.3),
    "restate": Entry(
        "Restate",
        0.4,
        "restate-server",
        "npm install -g @restatedev/restate-server",
    ),
    "dbos": Entry("DBOS", 0.1),
    "temporal": Entry("Temporal", 0.2, "temporal", "make .venv/.ready"),
}
DURABLE = ["restate", "dbos", "temporal"]
"""Those whose plans survive what ours survive."""


def missing(name: str) -> str:
    """Why a contender cannot take part here, as a sentence. Empty if it can."""
    entry = CONTENDERS[name]
    if entry.program and program(entry.program) is None:
        return f"{entry.title} is skipped: {entry.program} is not installed; {entry.advice}"
    return ""


def open_contender(name: str, stage: Stage, threads: int | None = None, in_flight: int = 0) -> Base:
    """The contender, set up for this stage. Only once in a process: its module keeps the addresses."""
    os.environ |= {"PEER_REDIS": stage.redis_url, "PEER_EXECUTOR": stage.executor_url}
    module = import_module(f"benchmarks.queues.contenders.{name}")
    made: Base = module.Contender(stage, threads, in_flight)
    return made
