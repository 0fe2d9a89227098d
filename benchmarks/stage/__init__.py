"""What a benchmark runs on: a fresh Redis, an Executor and worker processes, all on loopback."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import threading
import time
import urllib.request
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from redis import Redis, RedisError

from benchmarks.stage.processes import Command, Process, free_port
from dispatcher import Settings
from dispatcher.devstack.stack import redis_server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from celery import Celery

__all__ = ["Counts", "Stage", "celery_worker", "envoy_ends", "stage", "until"]

READY_WITHIN_S = 180.0
REACHED_WITHIN_S = 120.0
LOOK_EVERY_S = 0.02
SUPERVISED_EVERY_S = 0.2
PING_S = 1.0


@dataclass(frozen=True)
class Counts:
    """What the stub Executor has been asked so far."""

    targets: int
    faults: int
    observed: int
    refused: int

    @property
    def in_flight(self) -> int:
        """Faults without an observation yet."""
        return self.faults - self.observed

    @property
    def doubled(self) -> int:
        """Faults that were applied to a target that had one already."""
        return self.faults - self.targets


@dataclass
class Stage:
    """Redis with an append-only file, an Executor and workers."""

    folder: Path
    trace_bytes: int = 0
    """Size of the traces in each observation of the stub Executor."""

    counting: bool = False
    """Whether the Executor is the counting one, which keeps `journal`, instead of the stub."""

    appendfsync: str = "everysec"
    """When Redis syncs its file. Unless this is `always`, a killed Redis may forget acknowledged writes."""

    serves: Sequence[str] = ()
    """Another Executor instead of the stub: a module and its arguments.

    `{port}` becomes its port, and `{folder}` the stage's folder.
    """

    workers: list[Process] = field(default_factory=list)
    servers: list[Process] = field(default_factory=list)
    """What a peer needs next to Redis or instead of it."""

    redis: Process = field(init=False)
    executor: Process = field(init=False)

    def __post_init__(self) -> None:
        self.redis_port, self.executor_port = free_port(), free_port()
        self.redis_url = f"redis://127.0.0.1:{self.redis_port}/0"
        self.executor_url = f"http://127.0.0.1:{self.executor_port}"
        self.journal = self.folder / "journal"
        keep = ["--appendonly", "yes", "--appendfsync", self.appendfsync, "--save", ""]
        listen = ["--bind", "127.0.0.1", "--port", str(self.redis_port), "--dir", str(self.folder)]
        self.redis = self._process("redis", Command([redis_server(), *listen, *keep]))
        module, argument = (
            ("campaigns.chaos.counting_executor", self.journal)
            if self.counting
            else ("benchmarks.stage.stub_executor", self.trace_bytes)
        )
        serves = self.serves or [module, "{port}", str(argument)]
        port, place = str(self.executor_port), str(self.folder)
        serve = [part.replace("{port}", port).replace("{folder}", place) for part in serves]
        self.executor = self._process("executor", Command([sys.executable, "-m", *serve]))

    @property
    def parts(self) -> list[Process]:
        """All processes, Redis first."""
        return [self.redis, self.executor, *self.servers, *self.workers]

    @property
    def settings(self) -> Settings:
        """The settings of a client."""
        return Settings(redis_url=SecretStr(self.redis_url))

    @property
    def environment(self) -> dict[str, str]:
        """The settings of a worker, as environment variables."""
        return {
            "DISPATCHER_REDIS_URL": self.redis_url,
            "DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": self.executor_url,
        }

    def start(self) -> None:
        """Start all that does not run, and return once Redis and the Executor answer."""
        for part in self.parts:
            part.start()
        self.wait_until_ready()

    def add_workers(self, commands: Sequence[Command]) -> None:
        """Start worker processes."""
        for command in commands:
            self.workers.append(self._process(f"worker{len(self.workers)}", command))
            self.workers[-1].start()

    def add_servers(self, commands: Sequence[Command]) -> None:
        """Start servers of a peer."""
        for command in commands:
            self.servers.append(self._process(f"server{len(self.servers)}", command))
            self.servers[-1].start()

    def wait_for_workers(self, app: Celery) -> None:
        """Return once all workers answer. `app` is theirs."""
        until(lambda: len(app.control.ping(timeout=PING_S)) == len(self.workers), READY_WITHIN_S)

    def end(self) -> None:
        """End all."""
        for part in reversed(self.parts):
            part.kill()

    @property
    def workers_ended(self) -> int:
        """How often a worker has ended that was not killed."""
        return sum(worker.ended_by_itself + (not worker.runs) for worker in self.workers)

    def wait_until_ready(self) -> None:
        """Return once Redis and the Executor answer. What ends meanwhile is started again.

        Raises `RuntimeError`, with the end of the Executor's log, if they do not answer within three minutes.
        """
        with self.redis_client() as client:

            def answer() -> bool:
                self.redis.start()
                self.executor.start()
                with suppress(RedisError, OSError):
                    return bool(client.ping()) and bool(self.ask_executor("/v1/health"))
                return False

            try:
                until(answer, READY_WITHIN_S)
            except RuntimeError as exc:
                log = self.executor.log.read_text("utf-8", "replace")
                raise RuntimeError(f"{exc}; the Executor's log ends with: {log[-500:]}") from exc

    def redis_client(self) -> Redis:
        """A client of this Redis, with texts as replies."""
        return Redis(port=self.redis_port, decode_responses=True, socket_timeout=5)

    def ask_executor(self, path: str) -> Any:
        """What the Executor answers to a GET. Raises `OSError`."""
        with urllib.request.urlopen(f"{self.executor_url}{path}", timeout=5) as answer:  # noqa: S310 (ours)
            return json.load(answer)

    def counts(self) -> Counts:
        """What the stub Executor has been asked so far."""
        return Counts(**self.ask_executor("/counts"))

    def cpu_s(self) -> dict[str, float]:
        """Processor time used so far, by what used it. This process is the submitter."""
        return {
            "workers": sum(worker.cpu_s() for worker in self.workers),
            "store": sum(each.cpu_s() for each in (self.redis, *self.servers)),
            "executor": self.executor.cpu_s(),
            "submitter": time.process_time(),
        }

    def worker_memory_kb(self) -> int:
        """Memory of all workers."""
        return sum(worker.memory_kb() for worker in self.workers)

    def redis_traffic(self) -> int:
        """Bytes that Redis has received and sent so far."""
        with self.redis_client() as client:
            stats = client.info("stats")
        return int(stats["total_net_input_bytes"]) + int(stats["total_net_output_bytes"])

    def redis_memory(self) -> int:
        """Bytes that Redis's data take."""
        with self.redis_client() as client:
            return int(client.info("memory")["used_memory_dataset"])

    @contextmanager
    def supervised(self) -> Iterator[None]:
        """Start again each worker that ends meanwhile, as systemd or Kubernetes does."""
        over = threading.Event()

        def supervise() -> None:
            while not over.wait(SUPERVISED_EVERY_S):
                for worker in self.workers:
                    worker.start()

        supervisor = threading.Thread(target=supervise)
        supervisor.start()
        try:
            yield
        finally:
            over.set()
            supervisor.join()

    def logs(self) -> str:
        """The end of what each worker has logged."""
        return "\n".join(worker.log.read_text("utf-8", "replace")[-2000:] for worker in self.workers)

    def _process(self, name: str, command: Command) -> Process:
        return Process(command, self.folder / f"{name}.log")


@contextmanager
def stage(
    *,
    trace_bytes: int = 0,
    counting: bool = False,
    appendfsync: str = "everysec",
    serves: Sequence[str] = (),
) -> Iterator[Stage]:
    """A stage without workers, up and ready. All of it ends with the context."""
    with tempfile.TemporaryDirectory(prefix="stage-") as folder:
        made = Stage(Path(folder), trace_bytes, counting, appendfsync, serves)
        try:
            made.start()
            yield made
        finally:
            made.end()


@contextmanager
def envoy_ends(made: Stage) -> Iterator[None]:
    """Envoy of an Executor with `--state-dir {folder}/state` outlives it, but not this context."""
    try:
        yield
    finally:
        made.executor.kill()
        with suppress(OSError, ValueError):
            os.kill(int((made.folder / "state" / "envoy.pid").read_text("utf-8")), signal.SIGKILL)


def celery_worker(app: str, number: int, environment: dict[str, str], *options: str) -> Command:
    """Worker `number` of the Celery application `app`, with more options of `celery worker`."""
    worker = [sys.executable, "-m", "celery", "--app", app, "worker", "--loglevel", "WARNING"]
    return Command([*worker, "--hostname", f"w{number}@%h", *options], environment)


def until(reached: Callable[[], bool], within_s: float = REACHED_WITHIN_S) -> None:
    """Return once `reached()` is true. Raises `RuntimeError` if it is not in time."""
    give_up_at = time.monotonic() + within_s
    while not reached():
        if time.monotonic() > give_up_at:
            raise RuntimeError(f"a condition was not met within {within_s:.0f} s")
        time.sleep(LOOK_EVERY_S)
