"""A whole system for the tests of one module: Redis, an Executor that counts, a worker and its clients."""

from __future__ import annotations

import base64
import itertools
import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from celery.result import AsyncResult
from pydantic import SecretStr
from support.command_line import dispatcher
from support.eventually import eventually
from support.plans import abort_plan
from support.processes import start_worker
from support.redis_server import RedisServer
from support.stub_executor import StubExecutor

from dispatcher import Dispatcher, ExecutorClientConfig, PlanState, Settings
from dispatcher.tasks.messages import RUN_PLAN
from workers.tasks.app import create_worker_app

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Mapping
    from pathlib import Path

    from celery import Celery
    from support.processes import Process

    from dispatcher import PlanHandle

QUEUE = "dispatcher"
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
"""What no callback is, as a part of a message's body."""

MOMENTS = {"started_ms", "sent_ms", "applied_ms", "looked_ms"}
"""Of a plan whose fault runs."""

QUICK_RETRIES = {
    "DISPATCHER_EXECUTORS__DEFAULT__INITIAL_RETRY_DELAY_SEC": "0.3",
    "DISPATCHER_EXECUTORS__DEFAULT__MAX_RETRY_DELAY_SEC": "0.3",
    "DISPATCHER_EXECUTORS__DEFAULT__RETRY_JITTER": "0",
    "DISPATCHER_EXECUTORS__DEFAULT__RETRY_BUDGET_RESERVE": "1000",
    "DISPATCHER_EXECUTORS__DEFAULT__CIRCUIT_BREAKER_FAILURE_THRESHOLD": "1000",
}


def close_connections(app: Celery) -> None:
    """Celery leaves them to the collector."""
    app.pool.force_close_all()
    app.backend.result_consumer.stop()
    app.backend.client.connection_pool.disconnect()


class Fleet:
    """Tests share its worker. Each test uses targets of its own, and leaves the worker alive."""

    def __init__(self, folder: Path, *options: str, **environment: str) -> None:
        """`options` and `environment` are the first worker's, on top of quick retries."""
        self._folder = folder
        self._executors: Mapping[str, Mapping[str, Any]] = {"default": {}}
        self._numbers = itertools.count()
        self._options = options
        self._environment = QUICK_RETRIES | environment

    def __enter__(self) -> Self:
        with ExitStack() as parts:
            self.redis = RedisServer(self._folder)
            parts.callback(self.redis.stop)
            self.stubs = {name: parts.enter_context(StubExecutor()) for name in self._executors}
            self.stub = self.stubs["default"]
            self.settings = Settings(
                redis_url=SecretStr(self.redis.url),
                executors={
                    name: ExecutorClientConfig.model_validate(own) for name, own in self._executors.items()
                },
            )
            self.dispatcher = parts.enter_context(Dispatcher(self.settings))
            self.app = parts.enter_context(create_worker_app(self.settings))
            parts.callback(close_connections, self.app)
            self._parts = parts.pop_all()
        try:
            self.worker = self.start(*self._options)
        except BaseException:
            self._parts.close()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._parts.close()

    @property
    def environment(self) -> dict[str, str]:
        """The settings of its processes."""
        variables = {"DISPATCHER_REDIS_URL": self.redis.url}
        for name, own in self._executors.items():
            for option, value in {"base_url": self.stubs[name].url, **own}.items():
                variable = f"DISPATCHER_EXECUTORS__{name}__{option}".upper()
                variables[variable] = value if isinstance(value, str) else json.dumps(value)
        return variables | self._environment

    def start(self, *options: str, **environment: str) -> Process:
        """One more worker, which ends with the fleet at the latest."""
        log = self._folder / f"worker{next(self._numbers)}.log"
        worker = start_worker(log, self.environment | environment, "--without-mingle", *options)
        self._parts.callback(_end, worker)
        return worker

    def target(self) -> str:
        """An API that no other plan wants."""
        return f"/target/{next(self._numbers)}"

    def submit(
        self,
        executor: str = "default",
        timeout_sec: float | None = None,
        conflict_policy: str | None = None,
        **changes: Any,
    ) -> PlanHandle:
        """Submit a plan for a target of its own."""
        plan = abort_plan(**({"api": self.target()} | changes))
        return self.dispatcher.submit(
            plan, executor=executor, timeout_sec=timeout_sec, conflict_policy=conflict_policy
        )

    def running(self, **changes: Any) -> PlanHandle:
        """A plan whose fault runs, for a minute unless `changes` say otherwise."""
        handle = self.submit(**({"duration_seconds": 60} | changes))
        eventually(lambda: handle.status().state is PlanState.RUNNING, within_s=20)
        return handle

    def end(self, *handles: PlanHandle) -> None:
        """Let the time of running faults pass: the Executor has ended them, and the plans are due."""
        for handle in handles:
            status = handle.status()
            self.stubs[status.executor].running[handle.id] = 0.0
            key, lasts_ms = f"{{dispatcher}}:plan:{handle.id}", status.plan.duration_seconds * 1000
            for name in MOMENTS & self.redis.client.hgetall(key).keys():
                self.redis.client.hincrby(key, name, -lasts_ms)
            self.redis.client.zadd("{dispatcher}:due", {handle.id: 0}, xx=True)

    def cli(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """What `dispatcher` makes of the arguments, with the fleet's settings."""
        return dispatcher(*arguments, **self.environment)

    def carries_plans_out(self) -> bool:
        """Submit a plan, and see its observation. The first worker lives."""
        assert self.worker.alive(), self.worker.output
        handle = self.running()
        self.end(handle)
        return handle.result(30).error_rate == 1.0 and self.worker.alive()

    def message(self, task_id: Any, *args: Any, **headers: Any) -> dict[str, Any]:
        """Celery's own message for a task with this id, with these arguments and headers."""
        with self.app.connection_for_write() as connection:
            sent = {"queue": "template", "ignore_result": True, "connection": connection}
            self.app.send_task(RUN_PLAN, task_id="template", **sent)
        message: dict[str, Any] = json.loads(str(self.redis.client.rpop("template")))
        message["properties"]["delivery_info"] = {"exchange": "", "routing_key": QUEUE}
        message["headers"] |= {"id": task_id, "root_id": task_id} | headers
        message["body"] = encoded([args, {}, EMBED])
        return message

    def push(self, message: dict[str, Any] | str | bytes) -> None:
        """Put the message into the queue of plans as it is."""
        text = json.dumps(message) if isinstance(message, dict) else message
        self.redis.client.lpush(QUEUE, text)

    def task(self, task_id: str) -> AsyncResult:
        """What Celery's users see of a task."""
        return AsyncResult(task_id, app=self.app)

    def answered(self, handle: PlanHandle) -> int:
        """How many messages of the plan the first worker has taken without an error."""
        return self.worker.output.count(f"{RUN_PLAN}[{handle.id}] succeeded")

    def failure(self, task_id: str) -> str:
        """Type and message of the error that the task ended with."""
        task = self.task(task_id)
        eventually(lambda: task.state not in {"PENDING", "RETRY"}, within_s=20)
        assert task.state == "FAILURE", (task.state, task.result)
        return f"{type(task.result).__name__}: {task.result}"


class FleetOfExecutors(Fleet):
    """One with several Executors: a stub for each, in `stubs`."""

    def __init__(self, folder: Path, executors: Mapping[str, Mapping[str, Any]]) -> None:
        """`executors` are the settings of each by its name. One is `default`."""
        super().__init__(folder)
        self._executors = executors


def encoded(body: Any) -> str:
    """A message's body as kombu puts it into Redis."""
    return base64.b64encode(body if isinstance(body, bytes) else json.dumps(body).encode()).decode()


def _end(worker: Process) -> None:
    if worker.alive():
        worker.stop()
