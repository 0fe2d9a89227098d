"""Only test traffic is hit and counted, and an Executor that cannot do that is never asked to."""

from __future__ import annotations

import json
import threading
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest
import requests
from support.command_line import dispatcher as command
from support.eventually import eventually
from support.grpc_service import GrpcCalls, GrpcService
from support.plans import abort_plan
from support.processes import ExecutorProcess

from dispatcher import CapabilityMissingError, PlanState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.processes import Workers
    from support.stub_executor import StubExecutor

    from dispatcher import Dispatcher, RawObservation

SERVICE, CALLED = "PaymentService", "Greeter"
TEST_RUN = {"x-test-run": "42"}
SHARE = 30
WIDER = 2.5
"""The 95 % interval, so many times as wide, misses the share in one run of a million."""


class Clients:
    """Two clients that never stop calling: a test, and a real user."""

    def __init__(self, url: str) -> None:
        self.statuses: dict[str, Counter[int]] = {"test": Counter(), "user": Counter()}
        self._url = url
        self._over = threading.Event()

    def call_on(self, who: str) -> None:
        headers = {"Host": SERVICE} | (TEST_RUN if who == "test" else {"x-test-run": "421"})
        with requests.Session() as session:
            while not self._over.is_set():
                self.statuses[who][session.get(self._url, headers=headers, timeout=60).status_code] += 1

    @contextmanager
    def calling(self) -> Iterator[None]:
        threads = [threading.Thread(target=self.call_on, args=[who]) for who in self.statuses]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExecutorProcess]:
    """An Executor without traffic of its own, in front of a gRPC service, too."""
    log = tmp_path_factory.mktemp("quiet") / "executor.log"
    with (
        GrpcService() as calls,
        ExecutorProcess(log, f"--service={CALLED}=127.0.0.1:{calls.port}", traffic_rps=0) as process,
    ):
        yield process


def test_a_share_of_the_test_traffic_is_hit_and_observed_and_no_real_user_is(
    quiet: ExecutorProcess, start: Workers, dispatcher: Dispatcher
) -> None:
    start(quiet.url)
    clients = Clients(f"{quiet.proxy}/api/shared")
    with clients.calling():
        plan = abort_plan(api="/api/shared", percentage=SHARE, duration_seconds=3, headers=TEST_RUN)
        seen = dispatcher.submit(plan, timeout_sec=60).result(60)
    test, user = clients.statuses["test"], clients.statuses["user"]
    assert set(user) == {200}
    assert set(test) == {200, 503}
    assert seen.faulted == seen.error_count == test[503]
    assert seen.requests is not None
    assert seen.requests <= test.total(), "the requests of users are not in the denominator"
    assert is_near(seen, SHARE)
    assert not {"wrong_dose", "diluted"} & set(seen.doubts)


def is_near(seen: RawObservation, percent: int) -> bool:
    """Whether the share of errors may be this one."""
    assert seen.error_rate is not None
    assert seen.error_rate_low is not None
    assert seen.error_rate_high is not None
    half = (seen.error_rate_high - seen.error_rate_low) / 2
    return abs(percent / 100 - seen.error_rate) <= half * WIDER


def test_a_plan_may_name_the_grpc_status_of_a_method_and_leaves_other_methods_alone(
    quiet: ExecutorProcess, start: Workers, dispatcher: Dispatcher
) -> None:
    start(quiet.url)
    fields = {"protocol": "grpc", "grpc_status": "RESOURCE_EXHAUSTED", "abort_http_status": None}
    where = {"service": CALLED, "api": "/pkg.Service/Method"}
    with GrpcCalls(quiet.proxy, CALLED) as client:
        eventually(lambda: client.codes["Other"][grpc.StatusCode.OK])
        plan = abort_plan(percentage=SHARE, duration_seconds=3, **where, **fields)
        seen = dispatcher.submit(plan, timeout_sec=60).result(60)
    codes = client.codes["Method"]
    assert set(codes) == {grpc.StatusCode.OK, grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert seen.faulted == seen.error_count == codes[grpc.StatusCode.RESOURCE_EXHAUSTED]
    assert seen.status_code == 200
    assert is_near(seen, SHARE)
    assert set(client.codes["Other"]) == {grpc.StatusCode.OK}


def test_the_next_plan_for_a_target_waits_though_its_headers_differ(
    quiet: ExecutorProcess, start: Workers, dispatcher: Dispatcher
) -> None:
    start(quiet.url)
    fields = {"api": "/api/shared/2", "min_requests": 0}
    first = dispatcher.submit(abort_plan(duration_seconds=2, headers=TEST_RUN, **fields))
    eventually(lambda: first.status().state is PlanState.RUNNING)
    second = dispatcher.submit(abort_plan(headers={"x-test-run": "43"}, **fields))
    ended, began = first.result(60).ended_at, second.result(60).started_at
    assert ended is not None
    assert began is not None
    assert began >= ended


def test_an_executor_that_does_not_list_headers_gets_no_apply(
    stub: StubExecutor, start: Workers, dispatcher: Dispatcher
) -> None:
    start(stub.url)
    with pytest.raises(CapabilityMissingError, match="executor default lacks headers") as caught:
        dispatcher.submit(abort_plan(headers=TEST_RUN)).result(30)
    assert caught.value.missing == ["headers"]
    assert caught.value.exit_code == 27
    assert stub.calls == []
    assert dispatcher.submit(abort_plan()).result(30).error_rate == 1.0, "others go on"
    eventually(lambda: dispatcher.active() == [])


def test_commands_say_beforehand_what_is_missing_and_take_headers(
    stub: StubExecutor, start: Workers, redis_url: str, tmp_path: Path
) -> None:
    file, prefix = tmp_path / "plan.json", "DISPATCHER_EXECUTORS__DEFAULT__"
    file.write_text(abort_plan().model_dump_json(exclude_none=True))
    here = {"DISPATCHER_REDIS_URL": redis_url, f"{prefix}BASE_URL": stub.url}
    header = ["--header", "x-test-run: 42"]
    refused = command("plan", "check", str(file), *header, **here, **{f"{prefix}CAPABILITIES": "[]"})
    assert (refused.returncode, "lacks headers" in refused.stderr) == (2, True)
    asked = command("plan", "check", str(file), *header, "--json", **here)
    assert (asked.returncode, json.loads(asked.stdout)["needs"]) == (0, ["headers"])
    plain = command("plan", "check", str(file), *header, **here)
    assert "must have the capability headers" in plain.stderr
    doctor = command("doctor", **here).stdout
    assert "capabilities of default: none; plans with headers or protocol grpc are refused" in doctor
    stub.health = (200, {"status": "healthy", "capabilities": ["headers", "grpc_status"]})
    assert "capabilities of default: grpc_status, headers\n" in command("doctor", **here).stdout
    start(stub.url)
    ran = command("run", str(file), *header, **here)
    assert ran.returncode == 0, ran.stderr
    assert [body["headers"] for body in stub.bodies if body] == [TEST_RUN]
