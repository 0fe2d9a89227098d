"""What steps add to the fleet's metrics, on a fake and on a real Redis, and that it costs no round trip."""

from __future__ import annotations

import random
import statistics
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import redis
from pydantic import SecretStr
from support.breakers import rules
from support.fake_driver import FakeDriver
from support.plans import abort_plan
from support.steps import Steps, make_due, take, take_due

from dispatcher import (
    ExecutorClientConfig,
    ExecutorClientMetrics,
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
    FaultFailedError,
    Settings,
)
from dispatcher.ledger.connection import impatient_client
from dispatcher.ledger.ledger import Submission, connect
from dispatcher.ledger.record import Order
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.results import ResultCodec
from dispatcher.telemetry.metrics import CallKind, ExecutorCounts, executor_counts
from workers.breaker.rules import UNASKED, Outcome, Report
from workers.breaker.shared import SharedBreaker
from workers.engine.call_metrics import measured
from workers.engine.decisions import Complete, Fail, Retry, Snooze
from workers.engine.gateway import Gateway

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from dispatcher import FaultPlan
    from dispatcher.ledger.ledger import Ledger

CODEC = ResultCodec(make_celery(Settings()))
KEY = "{dispatcher}:metrics:default"
PLAN_KEY = "{dispatcher}:plan:p1"
DOWN = ExecutorServerError("down", 503, "")
UNPROTECTED = {"circuit_breaker_enabled": False, "retry_budget_enabled": False}


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


def steps_on(
    ledger: Ledger,
    client: redis.Redis,
    driver: FakeDriver,
    leases_on: redis.Redis | None = None,
    **config: Any,
) -> Steps:
    """Of one worker, with p1 in the ledger. `leases_on` is for leases that are elsewhere than the breaker."""
    ledger.submit([Submission("p1", Order(plan=abort_plan(), timeout_ms=30_000))])
    gateway = Gateway.of("default", ExecutorClientConfig.model_validate(config), driver, poll_ms=500)
    breaker = SharedBreaker(client, "dispatcher", "default", gateway.rules)
    return Steps(leases_on or client, CODEC, {"default": gateway}, {"default": breaker})


def counted(ledger: Ledger) -> dict[str, int]:
    """The calls that were counted, by kind and outcome."""
    [counts] = executor_counts(ledger, ["default"])
    return {f"{kind}:{outcome}": number for (kind, outcome), number in counts.requests.items() if number}


def told(ledger: Ledger) -> ExecutorClientMetrics:
    [counts] = executor_counts(ledger, ["default"])
    return ExecutorClientMetrics.of(counts)


def latencies(ledger: Ledger) -> int:
    [counts] = executor_counts(ledger, ["default"])
    return counts.latencies.count


def test_the_calls_of_a_plan_are_counted_by_kind(
    ledger: Ledger, redis_client: redis.Redis, driver: FakeDriver
) -> None:
    steps = steps_on(ledger, redis_client, driver)
    assert isinstance(take(steps, "p1"), Snooze)
    assert counted(ledger) == {"apply:answered": 1}
    driver.end("fault-p1")
    make_due(redis_client)
    assert isinstance(take(steps, "p1"), Complete)
    assert counted(ledger) == {"apply:answered": 1, "status:answered": 1, "metrics:answered": 1}
    assert latencies(ledger) == 3
    assert (told(ledger).total_requests, told(ledger).get_success_rate()) == (3, 1.0)


@pytest.mark.parametrize(
    ("error", "outcome", "latencies_counted"),
    [
        (FaultFailedError("failed"), "answered", 1),
        (ExecutorRejectedError("no", 400, ""), "rejected", 1),
        (DOWN, "server", 1),
        (ExecutorProtocolError("what?"), "protocol", 1),
        (ExecutorTimeoutError("slow"), "timeout", 1),
        (ExecutorConnectionError("refused", "refused"), "connection", 0),
        (ExecutorConnectionError("no such host", "dns"), "connection", 0),
    ],
    ids=lambda each: f"{each}",
)
def test_a_failed_call_is_counted_by_how_it_failed(
    ledger: Ledger,
    redis_client: redis.Redis,
    driver: FakeDriver,
    error: Exception,
    outcome: str,
    latencies_counted: int,
) -> None:
    driver.trouble([error])  # type: ignore[list-item]
    take(steps_on(ledger, redis_client, driver), "p1")
    assert counted(ledger) == {f"apply:{outcome}": 1}
    assert latencies(ledger) == latencies_counted


def test_a_defect_of_a_driver_is_counted(ledger: Ledger, redis_client: redis.Redis) -> None:
    class BrokenDriver(FakeDriver):
        def apply(self, plan: FaultPlan, key: str, within_s: float, not_after: datetime) -> str:
            raise ZeroDivisionError("oops")

    assert isinstance(take(steps_on(ledger, redis_client, BrokenDriver()), "p1"), Fail)
    assert counted(ledger) == {"apply:defect": 1}


def test_a_retry_is_counted_and_so_is_that_it_succeeded(
    ledger: Ledger, redis_client: redis.Redis, driver: FakeDriver
) -> None:
    steps = steps_on(ledger, redis_client, driver)
    driver.trouble([DOWN, DOWN])
    for decision in (Retry, Retry, Snooze):
        assert isinstance(take(steps, "p1"), decision)
        make_due(redis_client)
    assert (told(ledger).total_retries, told(ledger).successful_retries) == (2, 1)
    driver.end("fault-p1")
    assert isinstance(take(steps, "p1"), Complete)
    assert (told(ledger).total_requests, told(ledger).total_retries) == (5, 2)


def test_a_stop_is_counted_and_no_retry_of_what_failed_before(
    ledger: Ledger, redis_client: redis.Redis, driver: FakeDriver
) -> None:
    steps = steps_on(ledger, redis_client, driver)
    assert isinstance(take(steps, "p1"), Snooze)
    make_due(redis_client)
    driver.trouble([ExecutorTimeoutError("slow")])
    assert isinstance(take(steps, "p1"), Retry)
    ledger.cancel(["p1"], "")
    make_due(redis_client)
    driver.trouble([DOWN])
    assert isinstance(take(steps, "p1"), Retry)
    assert told(ledger).total_retries == 0
    make_due(redis_client)
    assert isinstance(take(steps, "p1"), Fail)
    assert counted(ledger) == {
        "apply:answered": 1,
        "status:timeout": 1,
        "stop:server": 1,
        "stop:answered": 1,
    }
    assert (told(ledger).total_retries, told(ledger).successful_retries) == (1, 1)


def test_what_a_stop_meets_is_not_held_against_the_executor(
    ledger: Ledger, redis_client: redis.Redis, driver: FakeDriver
) -> None:
    steps = steps_on(ledger, redis_client, driver, circuit_breaker_failure_threshold=1)
    assert isinstance(take(steps, "p1"), Snooze)
    ledger.cancel(["p1"], "")
    driver.trouble([DOWN])
    assert isinstance(take_due(steps, "p1"), Retry)
    assert told(ledger).circuit_breaker_opens == 0


def test_calls_are_counted_where_there_is_neither_breaker_nor_budget(
    ledger: Ledger, redis_client: redis.Redis, driver: FakeDriver
) -> None:
    steps = steps_on(ledger, redis_client, driver, None, **UNPROTECTED)
    driver.trouble([DOWN])
    assert isinstance(take(steps, "p1"), Retry)
    make_due(redis_client)
    assert isinstance(take(steps, "p1"), Snooze)
    assert counted(ledger) == {"apply:server": 1, "apply:answered": 1}
    assert told(ledger).total_retries == 1


def test_a_breaker_that_opens_is_counted_and_what_it_rejects_is_not_a_request(
    ledger: Ledger, redis_client: redis.Redis, driver: FakeDriver
) -> None:
    steps = steps_on(ledger, redis_client, driver, circuit_breaker_failure_threshold=1)
    driver.trouble([ExecutorConnectionError("refused", "refused")])
    assert isinstance(take(steps, "p1"), Retry)
    make_due(redis_client)
    assert isinstance(take(steps, "p1"), Fail)
    assert told(ledger).total_requests == 1
    assert (told(ledger).circuit_breaker_opens, told(ledger).circuit_breaker_half_opens) == (1, 0)


def test_an_outcome_that_no_longer_counts_for_the_breaker_counts_here(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    breaker = SharedBreaker(redis_client, "dispatcher", "default", rules())
    admission = breaker.peek()
    assert admission is not None
    breaker.open("by hand")
    breaker.record(admission, Report(Outcome.FAILURE), {"apply:server": 1})
    breaker.disable("by hand")
    breaker.record(admission, Report(Outcome.FAILURE), {"apply:server": 1})
    breaker.record(UNASKED, Report(Outcome.NONE), {"stop:answered": 1})
    assert counted(ledger) == {"apply:server": 2, "stop:answered": 1}


def test_a_step_whose_breaker_is_out_of_reach_is_counted_all_the_same(
    ledger: Ledger, driver: FakeDriver, free_tcp_port: int, redis_client: redis.Redis
) -> None:
    gone = impatient_client(Settings(redis_url=SecretStr(f"redis://127.0.0.1:{free_tcp_port}/0")))
    steps = steps_on(ledger, gone, driver, redis_client)
    redis_client.hset("{dispatcher}:breaker:default", mapping={"state": "half_open", "epoch": 1})
    assert isinstance(take(steps, "p1"), Snooze)
    assert counted(ledger) == {"apply:answered": 1}
    gone.close()


def test_calls_are_counted_once_though_redis_has_lost_its_scripts(
    ledger: Ledger, redis_client: redis.Redis, driver: FakeDriver
) -> None:
    steps = steps_on(ledger, redis_client, driver)
    redis_client.script_flush()
    assert isinstance(take(steps, "p1"), Snooze)
    assert counted(ledger) == {"apply:answered": 1}


def test_what_a_stale_step_has_called_was_called(
    ledger: Ledger, redis_client: redis.Redis, driver: FakeDriver
) -> None:
    class OvertakenDriver(FakeDriver):
        def apply(self, plan: FaultPlan, key: str, within_s: float, not_after: datetime) -> str:
            make_due(redis_client)  # the lease ends during the call ...
            another = steps_on(ledger, redis_client, driver)
            assert isinstance(take(another, "p1"), Snooze)  # ... and another step takes over
            return super().apply(plan, key, within_s, not_after)

    assert take(steps_on(ledger, redis_client, OvertakenDriver()), "p1") is None
    assert counted(ledger) == {"apply:answered": 2}


@pytest.mark.every_server
def test_threads_and_workers_lose_no_count(real_redis: redis.Redis) -> None:
    workers = [SharedBreaker(real_redis, "dispatcher", "default", rules()) for _ in range(2)]
    barrier = threading.Barrier(4)

    def count(number: int) -> None:
        barrier.wait(5)
        for _ in range(100):
            workers[number % 2].record(UNASKED, Report(Outcome.NONE), {"apply:answered": 1, "latency:7": 2})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(count, range(4)))
    found: dict[str, str] = real_redis.hgetall(KEY)  # type: ignore[assignment]
    counts = ExecutorCounts.of(found, {})
    assert ExecutorClientMetrics.of(counts).total_requests == 400
    assert counts.latencies.count == 800


def test_percentiles_over_all_workers_are_within_two_percent_of_exact(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    chance = random.Random(5)
    took_s = [chance.lognormvariate(-4, 1) for _ in range(1_000)] + [30.0] * 15
    chance.shuffle(took_s)
    workers = [SharedBreaker(redis_client, "dispatcher", "default", rules()) for _ in range(3)]
    for number, each in enumerate(took_s):
        counts = measured(CallKind.APPLY, None, each, retry=False)
        workers[number % 3].record(UNASKED, Report(Outcome.NONE), counts)
    exact = statistics.quantiles(took_s, n=100, method="inclusive")
    assert told(ledger).p95_latency_ms == pytest.approx(1000 * exact[94], rel=0.02)
    assert told(ledger).p99_latency_ms == pytest.approx(1000 * exact[98], rel=0.02)
    assert told(ledger).avg_latency_ms == pytest.approx(1000 * statistics.fmean(took_s), rel=1e-4)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What goes to Redis, an entry for each time that its answer is waited for."""
    sent: list[object] = []
    send = redis.Connection.send_packed_command

    def spy(self: redis.Connection, command: object, check_health: bool = True) -> object:  # noqa: FBT001, FBT002
        sent.append(command)
        return send(self, command, check_health)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(redis.Connection, "send_packed_command", spy)
    return sent


@pytest.fixture
def real_ledger(settings: Settings) -> Iterator[Ledger]:
    ledger = connect(settings)
    yield ledger
    ledger.close()


@pytest.mark.every_server
@pytest.mark.parametrize("config", [{}, UNPROTECTED], ids=["protected", "unprotected"])
def test_counting_costs_a_step_no_round_trip(
    real_ledger: Ledger,
    real_redis: redis.Redis,
    driver: FakeDriver,
    sent: list[object],
    config: dict[str, object],
) -> None:
    nowhere = impatient_client(Settings(redis_url=SecretStr("redis://127.0.0.1:1/0")))  # never asked
    steps = steps_on(real_ledger, nowhere, driver, real_redis, **config)

    def carry_out(plan_id: str) -> list[int]:
        """How many times the steps of two plans wait for Redis: apply, observe; apply, stop."""
        kept, stopped = plan_id, f"{plan_id}-stopped"
        for each in (kept, stopped):
            real_ledger.submit([Submission(each, Order(plan=abort_plan(api=f"/{each}"), timeout_ms=30_000))])
        trips = [round_trips(kept), round_trips(stopped)]
        driver.end(f"fault-{kept}")
        make_due(real_redis, kept)
        trips.append(round_trips(kept))
        real_ledger.cancel([stopped], "")
        make_due(real_redis, stopped)
        return [*trips, round_trips(stopped)]

    def round_trips(plan_id: str) -> int:
        sent.clear()
        assert take(steps, plan_id) is not None
        return len(sent)

    carry_out("first")  # connections are made, and scripts are loaded
    assert carry_out("second") == [2, 2, 2, 2]  # the lease; the decision, and what there is to count
    assert driver.calls == ["apply", "apply", "status", "metrics", "stop"] * 2
    sent.clear()
    assert told(real_ledger).total_requests == 10
    assert len(sent) == 1
    nowhere.close()
