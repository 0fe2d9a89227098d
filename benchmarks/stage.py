"""Where contenders are measured: a fresh Redis, the stub Executor, worker processes, and what each uses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import redis

from benchmarks.chaos_campaign import Part, free_port
from dispatcher.stack import redis_server

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["REPOSITORY", "TICKS_PER_S", "Command", "Counts", "Stage", "stage"]

REPOSITORY = Path(__file__).parents[1]
TICKS_PER_S = os.sysconf("SC_CLK_TCK")
READY_WITHIN_S = 60.0
SUPERVISED_EVERY_S = 0.2


@dataclass(frozen=True)
class Command:
    """How to start a process."""

    arguments: Sequence[str]
    environment: dict[str, str]


class Family(Part):
    """A process and all that descend from it, which are one session of the operating system."""

    def start(self) -> None:
        """Start it, if it is not there."""
        if self.process is None or self.process.poll() is not None:
            with self.log.open("ab") as out:
                self.process = subprocess.Popen(  # noqa: S603 (our own command)
                    self.command,
                    cwd=REPOSITORY,
                    env={**os.environ, **self.environment},
                    stdout=out,
                    stderr=out,
                    start_new_session=True,
                )

    def members(self) -> list[int]:
        """The ids of its processes, itself first."""
        if self.process is None:
            return []
        leader = self.process.pid
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return sorted((pid for pid in pids if session_of(pid) == leader), key=lambda pid: pid != leader)

    def cpu_s(self) -> float:
        """Processor time that it has used so far, that of children that have ended included."""
        return sum(self.spent().values())

    def spent(self) -> dict[int, float]:
        """The same, for each of its processes."""
        return {pid: cpu_s(pid) for pid in self.members()}

    def memory_kb(self) -> int:
        """Its memory; pages that processes share are counted once."""
        return sum(memory_kb(pid) for pid in self.members())

    def kill(self) -> None:
        """End all of it."""
        for pid in self.members():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if self.process is not None:
            self.process.wait()


@dataclass(frozen=True)
class Counts:
    """What the Executor has been asked so far."""

    targets: int
    faults: int
    observed: int

    @property
    def in_flight(self) -> int:
        """Faults that nobody has collected yet."""
        return self.faults - self.observed

    @property
    def doubled(self) -> int:
        """Faults that were there already, and were applied once more."""
        return self.faults - self.targets


@dataclass
class Stage:
    """Redis, the Executor and the workers."""

    folder: Path
    trace_bytes: int = 0
    redis: Family = field(init=False)
    executor: Family = field(init=False)
    workers: list[Family] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.redis_port, executor_port = free_port(), free_port()
        self.redis_url = f"redis://127.0.0.1:{self.redis_port}/0"
        self.executor_url = f"http://127.0.0.1:{executor_port}"
        keep = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        listen = ["--bind", "127.0.0.1", "--port", str(self.redis_port), "--dir", str(self.folder)]
        self.redis = self._family("redis", Command([redis_server(), *listen, *keep], {}))
        stub = [sys.executable, "-m", "benchmarks.stub_executor", str(executor_port), str(self.trace_bytes)]
        self.executor = self._family("executor", Command(stub, {}))
        self.redis.start()
        self.executor.start()
        self._wait_until_ready()

    def add_workers(self, commands: Sequence[Command]) -> None:
        """Start worker processes."""
        for command in commands:
            self.workers.append(self._family(f"worker{len(self.workers)}", command))
            self.workers[-1].start()

    def counts(self) -> Counts:
        """What the Executor has been asked so far."""
        with urllib.request.urlopen(f"{self.executor_url}/counts", timeout=5) as answer:  # noqa: S310 (ours)
            return Counts(**json.load(answer))

    def cpu_s(self) -> dict[str, float]:
        """Processor time used so far, by what used it. This process is the submitter."""
        return {
            "workers": sum(family.cpu_s() for family in self.workers),
            "redis": self.redis.cpu_s(),
            "executor": self.executor.cpu_s(),
            "submitter": time.process_time(),
        }

    def worker_memory_kb(self) -> int:
        """Memory of all workers."""
        return sum(family.memory_kb() for family in self.workers)

    def redis_memory(self) -> int:
        """Bytes that Redis's data take."""
        with redis.Redis(port=self.redis_port) as client:
            return int(client.info("memory")["used_memory_dataset"])

    @contextmanager
    def supervised(self) -> Iterator[None]:
        """Whatever dies meanwhile is started again, as systemd or Kubernetes would."""
        over = threading.Event()

        def supervise() -> None:
            while not over.wait(SUPERVISED_EVERY_S):
                for worker in self.workers:
                    if worker.process is not None and worker.process.poll() is not None:
                        worker.kill()  # what it has left behind
                        worker.start()

        supervisor = threading.Thread(target=supervise)
        supervisor.start()
        try:
            yield
        finally:
            over.set()
            supervisor.join()

    def end(self) -> None:
        """End all."""
        for family in (*self.workers, self.executor, self.redis):
            family.kill()

    def logs(self) -> str:
        """What the workers have said."""
        return "\n".join(worker.log.read_text("utf-8", "replace")[-2000:] for worker in self.workers)

    def _family(self, name: str, command: Command) -> Family:
        environment = {"PYTHONWARNINGS": "ignore", **command.environment}
        return Family(list(command.arguments), environment, self.folder / f"{name}.log")

    def _wait_until_ready(self) -> None:
        give_up_at = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < give_up_at:
            with suppress(redis.RedisError, OSError), redis.Redis(port=self.redis_port) as client:
                if client.ping() and self.counts():
                    return
            time.sleep(0.02)
        raise RuntimeError("Redis or the stub Executor does not start")


@contextmanager
def stage(trace_bytes: int = 0) -> Iterator[Stage]:
    """A stage without workers. All of it ends with the context."""
    with tempfile.TemporaryDirectory(prefix="stage-") as folder:
        made = Stage(Path(folder), trace_bytes)
        try:
            yield made
        finally:
            made.end()


def session_of(pid: int) -> int:
    """The session that a process belongs to; 0 where there is no such process."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def cpu_s(pid: int) -> float:
    """Processor time of a process and of its children that have ended."""
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
