"""Secrets that are planted in the settings appear nowhere but where they are meant to go."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from support.collector import Collector
from support.command_line import dispatcher, run_program
from support.eventually import eventually
from support.flower import Flower
from support.plans import abort_plan
from support.processes import start_worker
from support.redis_server import RedisServer

from dispatcher import Dispatcher, ExecutorClientError, Settings
from dispatcher.settings.settings import LogFormat

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.processes import Process
    from support.spans import Spans
    from support.stub_executor import StubExecutor

TOKEN, PASSWORD, LOGIN = "planted-t0ken", "planted-passw0rd", "operator:planted-l0gin"
API_KEY = "planted-k3y"
PLANTED = ("planted-t0ken", "planted-passw0rd", "planted-l0gin", "planted-k3y")


@pytest.fixture
def guarded_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path) as server:
        server.client.config_set("requirepass", PASSWORD)
        yield server


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


@pytest.fixture(params=LogFormat)
def environment(
    guarded_redis: RedisServer, stub: StubExecutor, collector: Collector, request: pytest.FixtureRequest
) -> dict[str, str]:
    return {
        "DISPATCHER_REDIS_URL": f"redis://:{PASSWORD}@127.0.0.1:{guarded_redis.port}/0",
        "DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": stub.url,
        "DISPATCHER_EXECUTORS__DEFAULT__TOKEN": TOKEN,
        "DISPATCHER_SERVICES__SHOP__BASE_URL": "http://127.0.0.1:1",
        "DISPATCHER_SERVICES__SHOP__HEADERS__KEY": API_KEY,
        "DISPATCHER_EXECUTORS__DEFAULT__INITIAL_RETRY_DELAY_SEC": "0.01",
        "FLOWER_BASIC_AUTH": LOGIN,
        "DISPATCHER_LOGS__FORMAT": request.param,
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{collector.url}/v1/traces?key={API_KEY}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"api-key={API_KEY}",
        "OTEL_BSP_SCHEDULE_DELAY": "50",
    }


@pytest.fixture
def worker(environment: dict[str, str], tmp_path: Path) -> Iterator[Process]:
    options = ("--loglevel", "DEBUG", "--task-events")
    with start_worker(tmp_path / "worker.log", environment, *options, warm=False) as worker:
        yield worker


@pytest.fixture
def flower(worker: Process, environment: dict[str, str], tmp_path: Path) -> Iterator[Flower]:
    with Flower(tmp_path / "flower.log", environment, warm=False) as flower:
        yield flower


def test_no_secret_is_in_any_log_span_error_task_result_or_page(
    worker: Process,
    flower: Flower,
    environment: dict[str, str],
    stub: StubExecutor,
    collector: Collector,
    guarded_redis: RedisServer,
    spans: Spans,
) -> None:
    leaks = {"message": f"what is Bearer {TOKEN}?"}
    stub.answers.extend([(503, leaks), (401, leaks)])
    settings = Settings(redis_url=SecretStr(environment["DISPATCHER_REDIS_URL"]))
    with Dispatcher(settings) as client:
        failing = client.submit(abort_plan(), plan_id="failing")
        with pytest.raises(ExecutorClientError) as caught:
            failing.result(60)
        observed = client.submit(abort_plan(), plan_id="observed").result(60)
        status = failing.status()
    assert {headers["authorization"] for headers in stub.headers} == {f"Bearer {TOKEN}"}
    eventually(lambda: len(collector.named("step")) >= 4)
    assert {headers["api-key"] for headers in collector.headers} == {API_KEY}
    ends = {"failing": "FAILURE", "observed": "SUCCESS"}
    eventually(lambda: {name: task["state"] for name, task in flower.tasks().items()} == ends)
    shown = {
        "error": repr(caught.value) + str(caught.value.args),
        "status": repr(status),
        "observation": repr(observed),
        "worker's log": worker.output,
        "Flower's log": flower.output,
        "the worker's spans": b"".join(collector.bodies).decode("utf-8", "replace"),
        "the client's spans": "".join(span.to_json() for span in spans.all()),
        "Flower's tasks": json.dumps(flower.tasks()),
        "Redis": _everything(guarded_redis),
        "processes": _command_lines(),
        "settings": repr(settings),
    }
    for arguments in (
        ["status", "failing"],
        ["result", "failing"],
        ["watch"],
        ["breaker", "show"],
        ["config", "show"],
        ["doctor"],
    ):
        done = dispatcher(*arguments, **environment)
        shown[arguments[0]] = done.stdout + done.stderr
    for command in (["inspect", "conf"], ["inspect", "stats"], ["report"]):
        done = run_program("celery", "--app", "dispatcher.worker_app", *command, **environment)
        assert done.returncode == 0
        shown[" ".join(command)] = done.stdout + done.stderr
    [name] = json.loads(flower.page("api/workers?refresh=1"))
    for page in ("api/workers", "workers", "broker", f"worker/{name}"):
        shown[f"Flower's page {page}"] = flower.page(page)
    for where in ("inspect conf", "Flower's page api/workers", f"Flower's page worker/{name}"):
        assert "broker_url" in shown[where]
    assert "workers.app" in shown["processes"]
    for where in ("error", "worker's log", "the worker's spans"):
        assert "what is Bearer" in shown[where]  # the Executor's words are there, without the token
    for where, text in shown.items():
        for secret in PLANTED:
            assert secret not in text, where


def _command_lines() -> str:
    """The arguments of all processes, as any user of the machine may read them."""
    found = []
    for each in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # the process has just ended
            found.append(each.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace"))
    return "\n".join(found)


def _everything(server: RedisServer) -> str:
    """All that is stored."""
    client: Any = server.client
    parts = []
    for key in client.scan_iter():
        commands = {
            "string": ["GET", key],
            "hash": ["HGETALL", key],
            "list": ["LRANGE", key, 0, -1],
            "set": ["SMEMBERS", key],
            "zset": ["ZRANGE", key, 0, -1],
            "stream": ["XRANGE", key, "-", "+"],
        }
        parts.append(f"{key} {client.execute_command(*commands[client.type(key)])}")
    return "\n".join(parts)
