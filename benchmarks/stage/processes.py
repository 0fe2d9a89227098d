"""Processes that a benchmark starts, kills and starts again, and what they use."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import threading
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["REPOSITORY", "TICKS_PER_S", "Command", "Process", "free_port", "memory_kb"]

REPOSITORY = Path(__file__).parents[2]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Command:
    """How to start a process."""

    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    core: int | None = None
    """The core that it is bound to, as by `taskset`. None: it may use all."""


@dataclass
class Process:
    """A process and all of its session of the operating system."""

    command: Command
    log: Path
    ended_by_itself: int = 0
    """How often `start` or `kill` has found it ended already."""

    _child: subprocess.Popen[bytes] | None = None
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def start(self) -> None:
        """Start it, unless it runs."""
        with self._lock:
            if self.runs:
                return
            self.kill()  # what it may have left behind
            with self.log.open("ab") as out:
                self._child = subprocess.Popen(  # noqa: S603 (our own command)
                    list(self.command.arguments),
                    cwd=REPOSITORY,
                    env={**os.environ, "PYTHONWARNINGS": "ignore", **self.command.environment},
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )
            if self.command.core is not None:
                os.sched_setaffinity(self._child.pid, {self.command.core})  # before it has threads

    @property
    def runs(self) -> bool:
        """Whether its first process has not ended."""
        return self._child is not None and self._child.poll() is None

    def signal(self, number: int) -> None:
        """Send a signal to its first process, if that runs."""
        with self._lock:
            if self._child is not None:
                self._child.send_signal(number)  # does nothing once it has ended

    def kill(self) -> None:
        """End all of it by kill -9."""
        with self._lock:
            child = self._child
            if child is None:
                return
            self.ended_by_itself += child.poll() is not None
            for pid in self.members():
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            child.wait()
            self._child = None

    def members(self) -> list[int]:
        """Ids of its processes, the first one first."""
        if self._child is None:
            return []
        leader = self._child.pid
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return sorted((pid for pid in pids if _session_of(pid) == leader), key=lambda pid: pid != leader)

    def family(self) -> list[int]:
        """Its processes, and their children in sessions of their own, such as the backends of Postgres."""
        members = self.members()
        return sorted({*members, *(child for pid in members for child in _children_of(pid))})

    def cpu_s(self) -> float:
        """Processor time that it has used so far, that of children that have ended included."""
        return sum(self.cpu_s_by_process().values())

    def cpu_s_by_process(self) -> dict[int, float]:
        """Processor time by the id of the process that has used it."""
        return {pid: _cpu_s(pid) for pid in self.family()}

    def memory_kb(self) -> int:
        """Its memory; pages that processes share are counted once."""
        return sum(memory_kb(pid) for pid in self.family())


def free_port() -> int:
    """A free loopback port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _session_of(pid: int) -> int:
    """The session that a process belongs to. 0 if there is no such process."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _children_of(pid: int) -> list[int]:
    """Those that its first thread has started, such as the backends of Postgres."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()]
    except OSError:
        return []


def _cpu_s(pid: int) -> float:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11:15])) / TICKS_PER_S


def memory_kb(pid: int) -> int:
    """Proportional set size of a process."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text("utf-8").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
