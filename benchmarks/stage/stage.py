"""What a program runs on: a fresh Redis, an Executor and worker processes, all on loopback."""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
import time
import urllib.request
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr
from redis import Redis, RedisError

from benchmarks.stage.commands import Command, celery_worker, free_port, python, until
from benchmarks.stage.processes import Process
from dispatcher import Settings
from dispatcher.devstack.stack import redis_server
from dispatcher.ledger.ledger import connect
from dispatcher.tasks.app import make_celery

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from dispatcher.ledger.record import PlanRecord

READY_WITHIN_S = 180.0
SUPERVISED_EVERY_S = 0.2
PING_S = 1.0
SETTLED = 0.05
"""A worker that uses less of a core than this has nothing to do."""

SETTLED_FOR_S = 0.5
STUB = ("benchmarks.stage.stub_executor", "{port}")
STATE = "state"


@dataclass
class Stage:
    """Redis with an append-only file, an Executor and workers."""

    folder: Path
    serves: Sequence[str] = STUB
    """The Executor: a module and its arguments. `{port}` becomes its port, `{folder}` the stage's folder."""

    appendfsync: str = "everysec"
    """When Redis syncs its file. Unless this is `always`, a killed Redis may forget acknowledged writes."""

    workers: list[Process] = field(default_factory=list)
    servers: list[Process] = field(default_factory=list)
    """What a peer needs next to Redis or instead of it."""

    redis: Process = field(init=False)
    executor: Process = field(init=False)

    def __post_init__(self) -> None:
        self.redis_port, self.executor_port = free_port(), free_port()
        self.redis_url = f"redis://127.0.0.1:{self.redis_port}/0"
        self.executor_url = f"http://127.0.0.1:{self.executor_port}"
        keep = ["--appendonly", "yes", "--appendfsync", self.appendfsync, "--save", ""]
        listen = ["--bind", "127.0.0.1", "--port", str(self.redis_port), "--dir", str(self.folder)]
        self.redis = self._process("redis", Command([redis_server(), *listen, *keep]))
        serve = [part.format(port=self.executor_port, folder=self.folder) for part in self.serves]
        self.executor = self._process("executor", python(*serve))

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
        return {"DISPATCHER_REDIS_URL": self.redis_url} | default_executor(base_url=self.executor_url)

    def start(self) -> None:
        """Start all that does not run, and return once Redis and the Executor answer."""
        for part in self.parts:
            part.start()
        self.wait_until_ready()

    def start_workers(self, count: int, environment: Mapping[str, str] | None = None, *options: str) -> None:
        """Start workers of this project, and return once they answer.

        `environment` is on top of the stage's; `options` are those of `celery worker`.
        """
        every = self.environment | dict(environment or {})
        self.add_workers([celery_worker("workers.app", number, every, *options) for number in range(count)])
        with make_celery(self.settings) as app:
            until(lambda: len(app.control.ping(timeout=PING_S)) == len(self.workers), READY_WITHIN_S)

    def add_workers(self, commands: Sequence[Command]) -> None:
        """Start worker processes."""
        self._add(self.workers, "worker", commands)

    def add_servers(self, commands: Sequence[Command]) -> None:
        """Start servers of a peer."""
        self._add(self.servers, "server", commands)

    def _add(self, parts: list[Process], name: str, commands: Sequence[Command]) -> None:
        for command in commands:
            parts.append(self._process(f"{name}{len(parts)}", command))
            parts[-1].start()

    def end(self) -> None:
        """End all. The Envoy of a reference Executor with state would outlive it."""
        for part in reversed(self.parts):
            part.kill()
        with suppress(OSError, ValueError):
            os.kill(int((self.folder / STATE / "envoy.pid").read_text("utf-8")), signal.SIGKILL)

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
                raise RuntimeError(f"{exc}; the Executor's log ends with: {_end_of(self.executor)}") from exc

    def redis_client(self) -> Redis:
        """A client of this Redis, with texts as replies."""
        return Redis(port=self.redis_port, decode_responses=True, socket_timeout=5)

    def records(self, plan_ids: Sequence[str]) -> list[PlanRecord | None]:
        """What the ledger keeps of plans."""
        with closing(connect(self.settings)) as ledger:
            return ledger.read(plan_ids)

    def ask_executor(self, path: str) -> Any:
        """What the Executor answers to a GET. Raises `OSError`."""
        with urllib.request.urlopen(f"{self.executor_url}{path}", timeout=5) as answer:  # noqa: S310 (ours)
            return json.load(answer)

    @property
    def executor_said(self) -> dict[str, Any]:
        """What the reference Executor has printed when it was ready."""
        lines = self.executor.log.read_text("utf-8").splitlines()
        return dict(next(json.loads(line) for line in lines if line.startswith("{")))

    def counts(self) -> dict[str, int]:
        """What the stub Executor has been asked so far: see there."""
        return dict(self.ask_executor("/counts"))

    def cpu_s(self) -> dict[str, float]:
        """Processor time used so far, by what used it. This process is the submitter."""
        return {
            "workers": sum(worker.cpu_s() for worker in self.workers),
            "store": sum(each.cpu_s() for each in (self.redis, *self.servers)),
            "executor": self.executor.cpu_s(),
            "submitter": time.process_time(),
        }

    def settle(self) -> None:
        """Return once the workers have nothing to do: all of them are up, and all is tidied."""

        def idle() -> bool:
            before = self.cpu_s()["workers"]
            time.sleep(SETTLED_FOR_S)
            return self.cpu_s()["workers"] - before < SETTLED * SETTLED_FOR_S * len(self.workers)

        until(idle)

    def worker_memory_kb(self) -> int:
        """Memory of all workers."""
        return sum(worker.memory_kb() for worker in self.workers)

    def redis_says(self, section: str) -> dict[str, Any]:
        """A section of Redis's INFO."""
        with self.redis_client() as client:
            return dict(client.info(section))

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
        return "\n".join(map(_end_of, self.workers))

    def _process(self, name: str, command: Command) -> Process:
        return Process(command, self.folder / f"{name}.log")


@contextmanager
def stage(serves: Sequence[str] = STUB, *, appendfsync: str = "everysec") -> Iterator[Stage]:
    """A stage without workers, up and ready. All of it ends with the context."""
    with tempfile.TemporaryDirectory(prefix="stage-") as folder:
        made = Stage(Path(folder), serves, appendfsync)
        try:
            made.start()
            yield made
        finally:
            made.end()


def reference_executor(proxy_port: int, service_port: int, *services: str) -> list[str]:
    """What `serves` the reference Executor, with all `services` at one port. Port 0 is any free one."""
    ports = ["--port", "{port}", "--proxy-port", str(proxy_port)]
    behind = [f"--service={name}=127.0.0.1:{service_port}" for name in services]
    return ["executor", *ports, "--state-dir", f"{{folder}}/{STATE}", *behind]


def default_executor(**settings: object) -> dict[str, str]:
    """Settings of the Executor `default`, as environment variables of a worker."""
    return {f"DISPATCHER_EXECUTORS__DEFAULT__{name.upper()}": str(value) for name, value in settings.items()}


def _end_of(process: Process) -> str:
    """The last lines of its log."""
    return process.log.read_text("utf-8", "replace")[-2000:]
