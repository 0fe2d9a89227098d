"""The whole system for real: Redis, worker processes, the reference Executor with Envoy."""

from __future__ import annotations

import itertools
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from kombu import pools
from pydantic import SecretStr
from support.processes import ExecutorProcess, Process, Workers, start_worker
from support.stub_executor import StubExecutor
from support.warm import prepared

from dispatcher import Dispatcher, ExecutorClientConfig, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session", autouse=True)
def _programs_begin_at_once() -> Iterator[None]:
    with prepared():
        yield


@pytest.fixture(scope="session")
def executor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExecutorProcess]:
    with ExecutorProcess(tmp_path_factory.mktemp("executor") / "executor.log") as process:
        yield process


@pytest.fixture
def stub() -> Iterator[StubExecutor]:
    with StubExecutor() as stub:
        yield stub


@pytest.fixture
def start(redis_url: str, tmp_path: Path) -> Iterator[Workers]:
    """Workers that end with the test."""
    numbers = itertools.count()

    def start_one(url: str, *options: str, **environment: str) -> Process:
        log = tmp_path / f"worker{next(numbers)}.log"
        address = {"DISPATCHER_REDIS_URL": redis_url, "DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": url}
        return workers.enter_context(start_worker(log, address | environment, *options))

    with ExitStack() as workers:
        yield start_one


@pytest.fixture
def dispatcher(redis_url: str) -> Iterator[Dispatcher]:
    executors = {"default": ExecutorClientConfig()}  # where it is, only the workers know
    with Dispatcher(Settings(redis_url=SecretStr(redis_url), executors=executors)) as dispatcher:
        yield dispatcher
    pools.reset()  # type: ignore[no-untyped-call] # what a test has sent through Celery itself
