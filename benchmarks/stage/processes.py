"""Processes that a program starts, kills and starts again, and what they use."""

from __future__ import annotations

import os
import resource
import signal
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from benchmarks.stage.commands import REPOSITORY

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.stage.commands import Command


@dataclass
class Process:
    """A process and all that it has started in its process group."""

    command: Command
    log: Path
    ended_by_itself: int = 0
    """How often `start` or `kill` has found it ended already."""

    _child: psutil.Popen | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def start(self) -> None:
        """Start it, unless it runs."""
        with self._lock:
            if self.runs:
                return
            self.kill()  # what it may have left behind
            with self.log.open("ab") as out:
                self._child = psutil.Popen(
                    list(self.command.arguments),
                    cwd=REPOSITORY,
                    env={**os.environ, "PYTHONWARNINGS": "ignore", **self.command.environment},
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            if self.command.core is not None:
                self._child.cpu_affinity([self.command.core])  # before it has threads

    @property
    def runs(self) -> bool:
        """Whether its first process has not ended."""
        return self._child is not None and self._child.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to its first process, if that runs."""
        with self._lock, suppress(psutil.NoSuchProcess):
            if self._child is not None:
                self._child.send_signal(number)

    def kill(self) -> None:
        """End all of it by kill -9."""
        with self._lock:
            child = self._child
            if child is None:
                return
            self.ended_by_itself += child.poll() is not None
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            self._child = None

    def family(self) -> list[psutil.Process]:
        """Its first process and all below it, also in sessions of their own, such as backends of Postgres."""
        first = self._child
        if first is None:
            return []
        with suppress(psutil.NoSuchProcess):
            return [first, *first.children(recursive=True)]
        return []

    def cpu_s(self) -> float:
        """Processor time that it has used so far, that of children that have ended included."""
        return sum(self.cpu_s_by_process().values())

    def cpu_s_by_process(self) -> dict[int, float]:
        """Processor time by the id of the process that has used it."""
        return {process.pid: _cpu_s(process) for process in self.family()}

    def memory_kb(self) -> int:
        """Its memory; pages that processes share are counted once."""
        return sum(memory_kb(process.pid) for process in self.family())


def open_more_files() -> None:
    """Many systems allow fewer files at first than a program has connections."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def memory_kb(pid: int) -> int:
    """Proportional set size of a process. 0 if it has ended."""
    with suppress(psutil.NoSuchProcess, psutil.AccessDenied):  # the kernel denies it of one that is ending
        return int(psutil.Process(pid).memory_full_info().pss) // 1024
    return 0


def _cpu_s(process: psutil.Process) -> float:
    with suppress(psutil.NoSuchProcess):
        used = process.cpu_times()
        return used.user + used.system + used.children_user + used.children_system
    return 0.0
