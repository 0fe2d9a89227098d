"""How processes are started and waited for. It imports little, because workers of peers import it, too."""

from __future__ import annotations

import socket
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

REPOSITORY = Path(__file__).parents[2]


REACHED_WITHIN_S = 120.0
LOOK_EVERY_S = 0.02


@dataclass(frozen=True)
class Command:
    """How to start a process."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    core: int | None = None
    """The core that it is bound to, as by `taskset`. None: it may use all."""


def python(
    *arguments: object, environment: Mapping[str, str] | None = None, core: int | None = None
) -> Command:
    """How to start a Python module with its arguments."""
    return Command([sys.executable, "-m", *map(str, arguments)], environment or {}, core)


def free_port() -> int:
    """A free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def celery_worker(app: str, number: int, environment: Mapping[str, str], *options: str) -> Command:
    """Worker `number` of the Celery application `app`, with more options of `celery worker`."""
    worker = ["celery", "--app", app, "worker", "--loglevel", "WARNING", "--hostname", f"w{number}@%h"]
    return python(*worker, *options, environment=environment)


def until(reached: Callable[[], bool], within_s: float = REACHED_WITHIN_S) -> None:
    """Return once `reached()` is true. Raises `RuntimeError` if it is not in time."""
    give_up_at = time.monotonic() + within_s
    while not reached():
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"a condition was not met within {within_s:.0f} s")
        time.sleep(LOOK_EVERY_S)
