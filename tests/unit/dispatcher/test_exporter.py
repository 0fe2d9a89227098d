"""What Prometheus scrapes, on a fake and on a real Redis."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import requests
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import SecretStr
from support.plans import abort_plan

from dispatcher import InvalidSettingsError, Settings
from dispatcher.ledger.ledger import Ledger, Submission, connect
from dispatcher.ledger.record import Order
from dispatcher.telemetry.exporter import BOUNDS_S, FleetCollector, serving
from dispatcher.telemetry.latency import fields_of
from dispatcher.telemetry.metrics import CallKind, CallOutcome

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis
    from support.stopwatch import Stopwatch

    Value = Callable[..., float | None]

METRICS = "{dispatcher}:metrics:default"
BREAKER = "{dispatcher}:breaker:default"
COUNTS = "{dispatcher}:counts"


@pytest.fixture
def value(ledger: Ledger) -> Value:
    """What a scrape says under a name and its labels."""
    registry = CollectorRegistry()
    registry.register(FleetCollector(ledger, ["default", "other"]))

    def of(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"dispatcher_{name}", labels)

    return of


def test_everything_is_there_from_the_first_scrape_on(value: Value) -> None:
    for executor in ("default", "other"):
        for kind in CallKind:
            for outcome in CallOutcome:
                labels = {"executor": executor, "call": kind, "outcome": outcome}
                assert value("executor_requests_total", **labels) == 0
        assert value("breaker_state", executor=executor, state="closed") == 1
        assert value("executor_latency_seconds_bucket", executor=executor, le="+Inf") == 0
    assert value("redis_up") == 1
    assert value("halted") == 0
    assert value("plans_ended_total", state="expired") == 0


def test_calls_retries_and_breaker_are_counted_by_executor(value: Value, redis_client: redis.Redis) -> None:
    redis_client.hset(METRICS, mapping={"apply:timeout": 3, "retries": 2, "retries_succeeded": 1})
    redis_client.hset(BREAKER, mapping={"state": "half_open", "opens": 4, "half_opens": 3, "closes": 2})
    assert value("executor_requests_total", executor="default", call="apply", outcome="timeout") == 3
    assert value("executor_requests_total", executor="other", call="apply", outcome="timeout") == 0
    assert value("executor_retries_total", executor="default") == 2
    assert value("executor_retries_succeeded_total", executor="default") == 1
    states = {each: value("breaker_state", executor="default", state=each) for each in ("half_open", "open")}
    assert states == {"half_open": 1, "open": 0}
    changes = [
        value(f"breaker_{what}_total", executor="default") for what in ("opens", "half_opens", "closes")
    ]
    assert changes == [4, 3, 2]


def test_latencies_are_a_histogram_and_quantiles(value: Value, redis_client: redis.Redis) -> None:
    for took_s in (0.004, 0.004, 0.04, 4.0):
        for field, number in fields_of(took_s).items():
            redis_client.hincrby(METRICS, field, number)
    found = [
        value("executor_latency_seconds_bucket", executor="default", le=f"{bound:g}") for bound in BOUNDS_S
    ]
    assert all(
        before is not None and after is not None and before <= after for before, after in pairwise(found)
    )
    by_bound = dict(zip(BOUNDS_S, found, strict=True))
    assert [by_bound[bound] for bound in (0.003, 0.005, 0.05, 3.0, 5.0)] == [0, 2, 3, 3, 4]
    assert value("executor_latency_seconds_count", executor="default") == 4
    assert value("executor_latency_seconds_sum", executor="default") == pytest.approx(4.048)
    median = value("executor_latency_quantile_seconds", executor="default", quantile="0.5")
    assert median == pytest.approx(0.022, rel=0.01)


def test_plans_and_steps_are_reported(
    value: Value, ledger: Ledger, redis_client: redis.Redis, stopwatch: Stopwatch
) -> None:
    ledger.submit([Submission("p1", Order(plan=abort_plan(), timeout_ms=30_000))])
    redis_client.hincrby("{dispatcher}:plan:p1", "due_ms", -90_000)
    for field, number in (("observed", 5), ("steps", 8), ("late_ms", 2500)):
        redis_client.hset(COUNTS, field, number)
    redis_client.hset(COUNTS, mapping={"leases_lost": 1, "messages_lost": 7})
    redis_client.hset("{dispatcher}:aside", "p9", "schema version 99")
    redis_client.zadd("{dispatcher}:doubts", {"p7": 1, "p8": 2})
    ledger.halt("smoke")
    assert value("plans_submitted_total") == 1
    assert value("plans_ended_total", state="observed") == 5
    assert value("plans_in_flight", state="queued") == 1
    assert value("plans_waiting") == 1
    assert value("oldest_due_seconds") == stopwatch.grown_from(90)
    assert (value("step_lag_seconds_count"), value("step_lag_seconds_sum")) == (8, 2.5)
    assert (value("leases_lost_total"), value("messages_lost_total"), value("plans_set_aside")) == (1, 7, 1)
    assert value("faults_in_doubt") == 2
    assert value("halted") == 1


def test_while_redis_is_away_that_is_all_there_is_to_report(
    free_tcp_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    gone = connect(Settings(redis_url=SecretStr(f"redis://:pa55@127.0.0.1:{free_tcp_port}/0")))
    registry = CollectorRegistry()
    registry.register(FleetCollector(gone, ["default"]))
    for _ in range(2):
        lines = generate_latest(registry).decode().splitlines()
        assert [line for line in lines if not line.startswith("#")] == ["dispatcher_redis_up 0.0"]
    [told] = [entry.getMessage() for entry in caplog.records if entry.levelno == logging.WARNING]
    assert "did not answer" in told
    assert "pa55" not in told
    gone.close()


def test_damaged_counts_are_named_once_and_keep_redis_up(
    value: Value, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis_client.hset(METRICS, "retries", "many")
    for _ in range(2):
        assert value("redis_up") == 1
        assert value("halted") is None
    redis_client.delete(METRICS)
    assert value("halted") == 0
    damaged, mended = caplog.messages
    assert damaged.startswith("no metrics for now: the counts of executor default cannot be read: ")
    assert mended == "all metrics are there again"


def test_it_is_served_as_long_as_asked(settings: Settings) -> None:
    with serving(settings, "127.0.0.1", 0) as port:
        answer = requests.get(f"http://127.0.0.1:{port}/metrics", timeout=60)
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    assert "\ndispatcher_redis_up 1.0\n" in answer.text
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://127.0.0.1:{port}/metrics", timeout=60)


@pytest.mark.parametrize("host", ["127.0.0.1", "no.such.host.invalid", "half\udcff", "a" * 64])
def test_where_it_cannot_listen_it_says_so(settings: Settings, host: str) -> None:
    told = f"of {host} is not available: "
    with (
        serving(settings, "127.0.0.1", 0) as taken,
        pytest.raises(InvalidSettingsError, match=f"{taken} {told}"),
        serving(settings, host, taken),
    ):
        pass
