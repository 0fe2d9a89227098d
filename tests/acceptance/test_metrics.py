"""What operators learn of a fleet in numbers: real processes, a real worker, a Redis that dies."""

from __future__ import annotations

import json
import re
import signal
import time
from typing import TYPE_CHECKING

import pytest
from support.command_line import dispatcher as command
from support.eventually import eventually
from support.exporter import Exporter
from support.plans import abort_plan
from support.processes import start_worker
from support.redis_server import RedisServer

from dispatcher import Dispatcher, ExecutorRejectedError, InvalidPlanError, PlanCancelledError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.processes import Process, Workers
    from support.stub_executor import StubExecutor

PROMETHEUS_WAITS_S = 10.0
"""By default, for the answer to a scrape."""

QUICK = {"DISPATCHER_EXECUTORS__DEFAULT__INITIAL_RETRY_DELAY_SEC": "0.01"}


@pytest.fixture
def fleet(start: Workers, stub: StubExecutor) -> list[Process]:
    return [start(stub.url, **QUICK) for _ in range(2)]


@pytest.fixture
def exporter(redis_url: str, tmp_path: Path) -> Iterator[Exporter]:
    with Exporter(tmp_path / "exporter.log", redis_url) as exporter:
        yield exporter


@pytest.fixture
def eventful(fleet: list[Process], dispatcher: Dispatcher, stub: StubExecutor) -> int:
    """How many calls the Executor got for plans: one refused, one tried again, one cancelled, five more."""
    del fleet
    stub.answers.append((400, {"message": "no such api"}))
    with pytest.raises(ExecutorRejectedError):
        dispatcher.submit(abort_plan(api="/refused")).result(60)
    stub.answers.append((503, {}))
    dispatcher.submit(abort_plan(api="/again")).result(60)
    cancelled = dispatcher.submit(abort_plan(api="/cancelled", duration_seconds=600))
    eventually(dispatcher.active)
    cancelled.cancel()
    with pytest.raises(PlanCancelledError):
        cancelled.result(60)
    dispatcher.submit_many([abort_plan(api=f"/{n}") for n in range(5)]).results(60)
    return len(stub.calls)


def test_all_calls_of_the_fleet_are_counted_once(dispatcher: Dispatcher, eventful: int) -> None:
    told = dispatcher.metrics()
    assert told.total_requests == eventful == 1 + 4 + 2 + 15
    assert (told.successful_requests, told.failed_requests, told.bad_request_errors) == (20, 2, 1)
    assert (told.total_retries, told.successful_retries) == (1, 1)
    assert told.get_success_rate() == pytest.approx(20 / 22)
    assert told.get_retry_rate() == pytest.approx(1 / 22)
    assert 0 < told.avg_latency_ms <= told.p99_latency_ms
    with pytest.raises(InvalidPlanError, match="must be one of the configured executors"):
        dispatcher.metrics("unknown")


def test_the_command_shows_them_within_80_columns(redis_url: str, eventful: int) -> None:
    done = command("metrics", DISPATCHER_REDIS_URL=redis_url)
    assert (done.returncode, done.stderr) == (0, "")
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert re.search(rf"^requests +{eventful} ", done.stdout, re.MULTILINE)
    assert re.search(r"^  successful +20 +90\.9% of requests", done.stdout, re.MULTILINE)
    assert re.search(r"^ended +8 +6 observed, 1 failed, 1 cancelled, 0 expired", done.stdout, re.MULTILINE)
    assert re.search(r"^apply +7 +1 +1 ", done.stdout, re.MULTILINE)
    fields = json.loads(command("metrics", "--json", DISPATCHER_REDIS_URL=redis_url).stdout)
    assert (fields["total_requests"], fields["bad_request_errors"]) == (eventful, 1)
    assert fields["success_rate"] == pytest.approx(20 / 22)
    assert fields["requests"]["stop"]["answered"] == 1
    assert fields["plans"]["ended"]["observed"] == 6
    assert fields["plans"]["in_flight"] == 0
    done = command("metrics", "--executor", "unknown", DISPATCHER_REDIS_URL=redis_url)
    assert done.returncode == 2
    assert done.stderr == "error: executor: must be one of the configured executors: default\n"


def test_the_exporter_has_the_same(exporter: Exporter, eventful: int) -> None:
    found = exporter.scrape()
    requests = [number for name, number in found.items() if name.startswith("executor_requests_total{")]
    assert sum(requests) == eventful
    assert found['executor_requests_total{call="stop",executor="default",outcome="answered"}'] == 1
    assert found['executor_requests_total{call="apply",executor="default",outcome="server"}'] == 1
    assert found['executor_latency_seconds_count{executor="default"}'] == eventful
    assert found["plans_submitted_total"] == 8
    assert found['plans_ended_total{state="observed"}'] == 6
    assert found["step_lag_seconds_count"] >= 16
    assert found["oldest_due_seconds"] == 0
    assert found["redis_up"] == 1


def test_plans_that_no_worker_starts_are_seen(dispatcher: Dispatcher, exporter: Exporter) -> None:
    dispatcher.submit(abort_plan(api="/waits"))
    eventually(lambda: exporter.scrape()["oldest_due_seconds"] > 0.2)
    assert exporter.scrape()['plans_in_flight{state="queued"}'] == 1


def test_the_exporter_outlives_redis_and_says_when_it_is_away(tmp_path: Path, stub: StubExecutor) -> None:
    server = RedisServer(tmp_path, "--appendonly", "yes", "--appendfsync", "always")
    environment = {"DISPATCHER_REDIS_URL": server.url, "DISPATCHER_EXECUTORS__DEFAULT__BASE_URL": stub.url}
    with (
        server,
        start_worker(tmp_path / "worker.log", environment),
        Exporter(tmp_path / "exporter.log", server.url) as exporter,
    ):
        done = command("run", "-", text=json.dumps(abort_plan().model_dump(mode="json")), **environment)
        assert done.returncode == 0, done.stderr
        before = exporter.scrape()
        server.kill()
        assert exporter.scrape() == {"redis_up": 0}
        assert command("metrics", **environment).returncode == 3
        server.start()
        name = 'executor_requests_total{call="apply",executor="default",outcome="answered"}'
        eventually(lambda: exporter.scrape().get(name) == before[name] == 1)
        assert exporter.output.count("did not answer") == 1
        assert "Traceback" not in exporter.output


def test_a_redis_that_hangs_holds_a_scrape_up_for_a_moment_only(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server, Exporter(tmp_path / "exporter.log", server.url) as exporter:
        assert exporter.scrape()["redis_up"] == 1
        server.hang()
        begun = time.monotonic()
        assert exporter.scrape() == {"redis_up": 0}
        assert time.monotonic() - begun < PROMETHEUS_WAITS_S


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_exporter_ends_on_a_signal(exporter: Exporter, number: signal.Signals) -> None:
    exporter.send_signal(number)
    assert exporter.wait() == 128 + number
    assert "Traceback" not in exporter.output


def test_a_port_that_is_taken_is_a_line(exporter: Exporter, redis_url: str) -> None:
    port = exporter.address.rpartition(":")[2]
    done = command("metrics", "--serve", "--port", port, DISPATCHER_REDIS_URL=redis_url)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"error: port: {port} of 127.0.0.1 is not available: Address already in use\n"
