"""One step of a plan, from the lease to the stored result, on a fake Redis and on real ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import redis
from pydantic import SecretStr
from support.fake_driver import FakeDriver
from support.plans import abort_plan
from support.steps import Steps, make_due, take, take_due

from dispatcher import (
    CircuitOpenError,
    ExecutorClientConfig,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
    InvalidPlanError,
    PlanCancelledError,
    PlanConflictError,
    PlanExpiredError,
    PlanState,
    Settings,
)
from dispatcher.ledger.connection import impatient_client
from dispatcher.ledger.ledger import Submission, connect
from dispatcher.ledger.record import Order
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.results import ResultCodec
from workers.breaker.rules import BreakerState
from workers.breaker.shared import SharedBreaker
from workers.drivers.base import StopOutcome
from workers.engine.decisions import Complete, Fail, Release, Retry, Snooze
from workers.engine.gateway import Gateway

if TYPE_CHECKING:
    from datetime import datetime

    from dispatcher import FaultPlan
    from dispatcher.ledger.ledger import Ledger
    from dispatcher.ledger.record import PlanRecord
    from workers.drivers.base import FaultStatus

CODEC = ResultCodec(make_celery(Settings()))
DOWN = ExecutorServerError("down", 503, "")
REFUSED = ExecutorConnectionError("refused", "refused")
PLAN_KEY = "{dispatcher}:plan:p1"


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def waits() -> list[int]:
    """After how many ms plans are due that were let go."""
    return []


@pytest.fixture
def steps(ledger: Ledger, driver: FakeDriver, waits: list[int], redis_client: redis.Redis) -> Steps:
    ledger.submit([Submission("p1", Order(plan=abort_plan(), executor="default", timeout_ms=30_000))])
    return steps_on(ledger, redis_client, driver, waits)


def steps_on(
    ledger: Ledger, client: redis.Redis, driver: FakeDriver, waits: list[int], **config: object
) -> Steps:
    way = gateway(driver, **config)
    breakers = {"default": SharedBreaker(client, "dispatcher", "default", way.rules)}
    return Steps(client, CODEC, {"default": way}, breakers, expect=waits.append)


def gateway(driver: FakeDriver, **config: object) -> Gateway:
    return Gateway.of("default", ExecutorClientConfig.model_validate(config), driver, poll_ms=500)


def breaker_of(client: redis.Redis, driver: FakeDriver) -> SharedBreaker:
    return SharedBreaker(client, "dispatcher", "default", gateway(driver).rules)


def record(ledger: Ledger) -> PlanRecord:
    [found] = ledger.read(["p1"])
    assert found is not None
    return found


def look_again(client: redis.Redis) -> None:
    """Let the time pass until p1's fault, which is in doubt, is looked at again."""
    assert client.zscore("{dispatcher}:doubts", "p1") is not None
    client.zadd("{dispatcher}:doubts", {"p1": 0})


def result(ledger: Ledger, plan_id: str) -> str | None:
    [found] = ledger.execute_all([["GET", CODEC.key(plan_id)]])
    return None if found is None else str(found)


def stored(ledger: Ledger) -> str | None:
    return result(ledger, "p1")


def test_a_plan_goes_its_whole_way(
    steps: Steps, ledger: Ledger, driver: FakeDriver, redis_client: redis.Redis, waits: list[int]
) -> None:
    assert isinstance(take(steps, "p1"), Snooze)
    assert record(ledger).state is PlanState.RUNNING
    assert waits == [pytest.approx(1000, abs=200)]
    assert take(steps, "p1") is None  # not due
    make_due(redis_client)
    driver.end("fault-p1")
    assert isinstance(take(steps, "p1"), Complete)
    result = stored(ledger)
    assert result is not None
    assert CODEC.decode("p1", result).error_rate == 1.0
    assert driver.calls == ["apply", "status", "metrics"]


def test_a_failure_is_stored_as_a_typed_error(steps: Steps, ledger: Ledger, driver: FakeDriver) -> None:
    driver.trouble([ExecutorRejectedError("no", 400, "bad api")])
    assert isinstance(take(steps, "p1"), Fail)
    assert record(ledger).state is PlanState.FAILED
    result = stored(ledger)
    assert result is not None
    with pytest.raises(ExecutorRejectedError) as caught:
        CODEC.decode("p1", result)
    assert caught.value.executor_message == "bad api"


def test_a_retry_is_parked_with_its_cause(steps: Steps, ledger: Ledger, driver: FakeDriver) -> None:
    driver.trouble([ExecutorServerError("down", 503, "")])
    assert isinstance(take(steps, "p1"), Retry)
    waiting = record(ledger)
    assert (waiting.state, waiting.attempts, waiting.why) == (PlanState.QUEUED, 1, "down")
    assert waiting.retries == 1  # its message begins the next attempt
    assert steps.leases.fetch([], 10).due == []


def test_a_step_that_lost_its_lease_leaves_no_result(
    steps: Steps, ledger: Ledger, driver: FakeDriver, redis_client: redis.Redis
) -> None:
    class OvertakenDriver(FakeDriver):
        def apply(self, plan: FaultPlan, key: str, within_s: float, not_after: datetime) -> str:
            make_due(redis_client)  # the lease ends during the call ...
            assert isinstance(take(steps, "p1"), Snooze)  # ... and another worker takes over
            raise ExecutorRejectedError("too late", 400, "")

    assert take(steps_on(ledger, redis_client, OvertakenDriver(), []), "p1") is None
    assert record(ledger).state is PlanState.RUNNING
    assert stored(ledger) is None
    assert driver.calls == ["apply"]


def test_a_defect_in_a_worker_ends_the_plan(
    ledger: Ledger, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    class BrokenDriver(FakeDriver):
        def apply(self, plan: FaultPlan, key: str, within_s: float, not_after: datetime) -> str:
            raise ZeroDivisionError("oops")

    ledger.submit([Submission("p1", Order(plan=abort_plan(), executor="default", timeout_ms=30_000))])
    decision = take(steps_on(ledger, redis_client, BrokenDriver(), []), "p1")
    assert isinstance(decision, Fail)
    assert type(decision.error) is ExecutorClientError
    assert "ZeroDivisionError" in str(decision.error)
    assert "ZeroDivisionError" in caplog.text
    assert decision.doubt == "a defect in the worker met it"  # the apply may have gone out before
    assert (record(ledger).doubt, record(ledger).state) == (decision.doubt, PlanState.FAILED)


def test_a_fault_in_doubt_is_stopped_after_its_plan_and_then_its_target_is_free(
    steps: Steps, ledger: Ledger, driver: FakeDriver, redis_client: redis.Redis
) -> None:
    assert isinstance(take(steps, "p1"), Snooze)
    ledger.submit([Submission("p2", Order(plan=abort_plan(), timeout_ms=30_000))])
    driver.stop_says, driver.stop_ends = StopOutcome.UNSUPPORTED, False
    ledger.cancel(["p1"], "enough")
    assert isinstance(take_due(steps, "p1"), Fail)
    with pytest.raises(PlanCancelledError, match="it is unknown whether its fault is over"):
        CODEC.decode("p1", stored(ledger) or "")
    assert take(steps, "p2") is None
    look_again(redis_client)
    assert isinstance(take(steps, "p1"), Snooze)
    assert record(ledger).why == record(ledger).cause
    driver.end("fault-p1")
    look_again(redis_client)
    assert isinstance(take(steps, "p1"), Release)
    assert record(ledger).doubt is None
    assert isinstance(take_due(steps, "p2"), Snooze)
    assert set(driver.applied) == {"fault-p1", "fault-p2"}


def test_a_plan_that_waits_for_a_target_in_doubt_ends_as_a_conflict(
    steps: Steps, ledger: Ledger, driver: FakeDriver, redis_client: redis.Redis
) -> None:
    driver.trouble([ExecutorTimeoutError("no answer")] * 9)
    take(steps_on(ledger, redis_client, driver, [], idempotent_apply=False), "p1")
    assert record(ledger).doubt
    ledger.submit([Submission("p2", Order(plan=abort_plan(), timeout_ms=5_000))])
    assert take(steps, "p2") is None
    redis_client.hincrby("{dispatcher}:plan:p2", "stuck_ms", -5_000)
    redis_client.zadd("{dispatcher}:due", {"p2": 0})
    decision = take(steps, "p2")
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, PlanConflictError)
    assert "dispatcher release" in str(decision.error)
    assert "fault-p2" not in driver.applied


def test_a_defect_in_a_worker_leaves_a_fault_in_doubt_for_later(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    class BrokenDriver(FakeDriver):
        def status(self, apply_id: str, within_s: float) -> FaultStatus:
            raise ZeroDivisionError("oops")

    ledger.submit([Submission("p1", Order(plan=abort_plan(), timeout_ms=30_000))])
    broken = BrokenDriver(stop_says=StopOutcome.UNCONFIRMED)
    steps = steps_on(ledger, redis_client, broken, [])
    assert isinstance(take(steps, "p1"), Snooze)
    make_due(redis_client)
    assert isinstance(take(steps, "p1"), Fail)
    result = stored(ledger)
    look_again(redis_client)
    assert isinstance(take(steps, "p1"), Snooze)
    assert (stored(ledger), ledger.in_doubt()) == (result, ["p1"])
    look_again(redis_client)
    healthy = steps_on(ledger, redis_client, FakeDriver(applied=broken.applied), [])
    assert isinstance(take(healthy, "p1"), Release)


def test_a_worker_that_does_not_know_the_executor_leaves_a_fault_in_doubt_to_others(
    steps: Steps, ledger: Ledger, driver: FakeDriver, redis_client: redis.Redis
) -> None:
    assert isinstance(take(steps, "p1"), Snooze)
    unaware = Steps(redis_client, CODEC, {}, {})
    make_due(redis_client)
    assert isinstance(take(unaware, "p1"), Fail)
    look_again(redis_client)
    assert isinstance(take(unaware, "p1"), Snooze)
    look_again(redis_client)
    assert isinstance(take(steps, "p1"), Release)
    assert "fault-p1" in driver.ended


def test_an_executor_that_the_worker_does_not_know_ends_the_plan(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    ledger.submit([Submission("p1", Order(plan=abort_plan(), executor="elsewhere", timeout_ms=30_000))])
    decision = take(steps_on(ledger, redis_client, FakeDriver(), []), "p1")
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, InvalidPlanError)
    assert "elsewhere" in str(decision.error)


def trip(client: redis.Redis, driver: FakeDriver) -> SharedBreaker:
    """A breaker that has just opened."""
    breaker = breaker_of(client, driver)
    for _ in range(5):
        breaker.record_failure("503 down")
    assert breaker.status().state is BreakerState.OPEN
    return breaker


def an_hour_passes(client: redis.Redis) -> None:
    client.hset("{dispatcher}:breaker:default", "until_ms", 0)


@pytest.mark.every_server
def test_a_closed_breaker_costs_a_step_no_round_trip(
    driver: FakeDriver, waits: list[int], redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[object] = []
    send = redis.Connection.send_packed_command
    settings = Settings(redis_url=SecretStr(redis_url))
    ledger, client = connect(settings), impatient_client(settings)
    steps = steps_on(ledger, client, driver, waits)
    for plan_id in ("warm up", "p1"):
        order = Order(plan=abort_plan(api=f"/{plan_id[:2]}"), timeout_ms=30_000)
        ledger.submit([Submission(plan_id, order)])
    driver.trouble([DOWN])
    assert isinstance(take(steps, "warm up"), Retry)

    def spy(self: redis.Connection, command: object, check_health: bool = True) -> object:  # noqa: FBT001, FBT002
        sent.append(command)
        return send(self, command, check_health)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(redis.Connection, "send_packed_command", spy)
    driver.trouble([DOWN])
    assert isinstance(take(steps, "p1"), Retry)
    assert len(sent) == 2  # the lease, and the decision with the breaker's report
    assert breaker_of(client, driver).status().failures == 2
    ledger.close()
    client.close()


def test_what_calls_show_opens_the_breaker_for_all(
    ledger: Ledger, driver: FakeDriver, redis_client: redis.Redis
) -> None:
    plans = [Submission(f"p{n}", Order(plan=abort_plan(api=f"/{n}"), timeout_ms=30_000)) for n in range(8)]
    ledger.submit(plans)
    driver.trouble([DOWN] * 8)
    fleet = [steps_on(ledger, redis_client, driver, []) for _ in range(2)]
    decisions = [take(fleet[n % 2], f"p{n}") for n in range(8)]
    assert [type(decision) for decision in decisions] == [Retry] * 5 + [Fail] * 3
    assert all(isinstance(each.error, CircuitOpenError) for each in decisions if isinstance(each, Fail))
    assert driver.calls == ["apply"] * 5
    found = result(ledger, "p7")
    assert found is not None
    with pytest.raises(CircuitOpenError) as caught:
        CODEC.decode("p1", found)
    assert caught.value.retry_after_s == pytest.approx(63, abs=4)


def test_a_plan_that_waits_for_the_breaker_is_its_probe_in_the_end(
    ledger: Ledger, driver: FakeDriver, redis_client: redis.Redis, waits: list[int]
) -> None:
    ledger.submit([Submission("p1", Order(plan=abort_plan(), timeout_ms=30_000))])
    breaker = trip(redis_client, driver)
    steps = steps_on(ledger, redis_client, driver, waits, circuit_breaker_on_open="defer")
    assert isinstance(take(steps, "p1"), Snooze)
    waiting = record(ledger)
    assert (waiting.state, waiting.started_ms) == (PlanState.QUEUED, None)
    assert waiting.expires_ms is not None
    assert "5 calls in a row failed" in (waiting.why or "")
    assert 60_000 <= waits[0] + 500 <= 67_000
    an_hour_passes(redis_client)
    make_due(redis_client)
    assert isinstance(take(steps, "p1"), Snooze)
    assert breaker.status().state is BreakerState.CLOSED
    assert record(ledger).state is PlanState.RUNNING
    assert record(ledger).why is None


def test_a_plan_in_the_middle_waits_for_the_breaker_in_any_mode(
    steps: Steps, ledger: Ledger, driver: FakeDriver, redis_client: redis.Redis
) -> None:
    assert isinstance(take(steps, "p1"), Snooze)
    trip(redis_client, driver)
    make_due(redis_client)
    assert isinstance(take(steps, "p1"), Snooze)
    assert driver.calls == ["apply"]
    an_hour_passes(redis_client)
    make_due(redis_client)
    driver.end("fault-p1")
    assert isinstance(take(steps, "p1"), Complete)


def test_a_cancelled_plan_is_stopped_through_an_open_breaker_and_takes_no_probe(
    steps: Steps, ledger: Ledger, driver: FakeDriver, redis_client: redis.Redis
) -> None:
    assert isinstance(take(steps, "p1"), Snooze)
    breaker = trip(redis_client, driver)
    an_hour_passes(redis_client)
    ledger.cancel(["p1"], "")
    assert isinstance(take_due(steps, "p1"), Fail)
    assert driver.calls == ["apply", "stop"]
    assert breaker.status().state is BreakerState.OPEN


def test_a_probe_whose_plan_needs_no_call_gives_its_place_back(
    ledger: Ledger, driver: FakeDriver, redis_client: redis.Redis
) -> None:
    ledger.submit([Submission("p1", Order(plan=abort_plan(), timeout_ms=30_000), expires_after_ms=0)])
    redis_client.hincrby("{dispatcher}:plan:p1", "expires_ms", -1_000)
    breaker = trip(redis_client, driver)
    an_hour_passes(redis_client)
    decision = take(steps_on(ledger, redis_client, driver, []), "p1")
    assert isinstance(decision, Fail)
    assert isinstance(decision.error, PlanExpiredError)
    assert breaker.status().state is BreakerState.HALF_OPEN
    assert breaker.can_attempt()


def test_a_defect_in_a_worker_gives_a_probes_place_back(
    ledger: Ledger, driver: FakeDriver, redis_client: redis.Redis
) -> None:
    class BrokenDriver(FakeDriver):
        def apply(self, plan: FaultPlan, key: str, within_s: float, not_after: datetime) -> str:
            raise ZeroDivisionError("oops")

    ledger.submit([Submission("p1", Order(plan=abort_plan(), timeout_ms=30_000))])
    breaker = trip(redis_client, driver)
    an_hour_passes(redis_client)
    assert isinstance(take(steps_on(ledger, redis_client, BrokenDriver(), []), "p1"), Fail)
    assert breaker.status().state is BreakerState.HALF_OPEN
    assert breaker.can_attempt()


def test_an_executor_that_says_no_is_an_executor_that_answers(
    ledger: Ledger, driver: FakeDriver, redis_client: redis.Redis
) -> None:
    ledger.submit([Submission("p1", Order(plan=abort_plan(), timeout_ms=30_000))])
    breaker = trip(redis_client, driver)
    an_hour_passes(redis_client)
    driver.trouble([ExecutorRejectedError("no", 400, "")])
    assert isinstance(take(steps_on(ledger, redis_client, driver, []), "p1"), Fail)
    assert breaker.status().state is BreakerState.CLOSED


def test_the_fleets_retries_are_counted_where_there_is_no_breaker(
    ledger: Ledger, driver: FakeDriver, redis_client: redis.Redis
) -> None:
    plans = [Submission(f"p{n}", Order(plan=abort_plan(api=f"/{n}"), timeout_ms=30_000)) for n in range(20)]
    ledger.submit(plans)
    driver.trouble([REFUSED] * 1000)
    steps = steps_on(ledger, redis_client, driver, [], circuit_breaker_enabled=False)
    left = [plan.plan_id for plan in plans]
    while left:
        left = [plan_id for plan_id in left if not isinstance(take(steps, plan_id), Fail)]
    assert 30 <= len(driver.calls) <= 32  # one for each plan, a reserve of ten, and what flows back
