"""What belongs to other programs and other fleets changes nothing here."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from support.eventually import eventually
from support.plans import abort_plan
from support.processes import Process
from support.stub_executor import StubExecutor

from dispatcher import Dispatcher, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.processes import Workers

NOWHERE = "redis://127.0.0.1:1/0"
OF_ANOTHER_PROGRAM = {
    "CELERY_BROKER_URL": NOWHERE,
    "CELERY_BROKER_READ_URL": NOWHERE,
    "CELERY_BROKER_WRITE_URL": NOWHERE,
    "CELERY_RESULT_BACKEND": NOWHERE,
    "CELERY_CONFIG_MODULE": "no_such_config",
    "CELERY_LOADER": "no.such:Loader",
    "CELERY_WORKER_QUEUES": "another",
    "CELERY_WORKER_CONCURRENCY": "many",
}


@pytest.fixture
def among_others(redis_url: str, stub: StubExecutor, tmp_path: Path) -> Iterator[Process]:
    """`dispatcher worker` among the variables of another program that uses Celery."""
    settings = {"DISPATCHER_REDIS_URL": redis_url, "DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": stub.url}
    command = [str(Path(sys.executable).with_name("dispatcher")), "worker", "--threads", "2"]
    worker = Process(command, tmp_path / "worker.log", settings | OF_ANOTHER_PROGRAM)
    yield worker
    worker.stop()


def test_a_worker_and_a_client_work_among_the_variables_of_another_program(
    among_others: Process, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in OF_ANOTHER_PROGRAM.items():
        monkeypatch.setenv(name, value)
    with Dispatcher(Settings(redis_url=SecretStr(redis_url))) as dispatcher:
        eventually(lambda: " ready." in among_others.output or not among_others.alive())
        assert dispatcher.submit(abort_plan()).result(60).error_rate == 1.0, among_others.output


def test_fleets_with_two_prefixes_share_a_redis_and_nothing_else(redis_url: str, start: Workers) -> None:
    with StubExecutor() as of_alpha, StubExecutor() as of_beta:
        for name, stub in (("alpha", of_alpha), ("beta", of_beta)):
            start(stub.url, DISPATCHER_KEY_PREFIX=name)
        fleets = [
            Dispatcher(Settings(redis_url=SecretStr(redis_url), key_prefix=name))
            for name in ("alpha", "beta")
        ]
        handles = [fleet.submit(abort_plan(), plan_id="monday-17") for fleet in fleets]
        observed = [handle.result(60) for handle in handles]
        for fleet in fleets:
            fleet.close()
        assert [each.error_rate for each in observed] == [1.0, 1.0]
        assert [stub.applied.total() for stub in (of_alpha, of_beta)] == [1, 1]
