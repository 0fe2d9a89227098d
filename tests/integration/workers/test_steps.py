"""One step of a plan, from the lease to the stored result, on a fake and on a real Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from pydantic import SecretStr
from support.fake_driver import FakeDriver
from support.plans import abort_plan

from dispatcher import (
    ExecutorClientConfig,
    ExecutorClientError,
    ExecutorRejectedError,
    ExecutorServerError,
    InvalidPlanError,
    PlanState,
    Settings,
)
from dispatcher.celery_app import make_celery
from dispatcher.ledger import Submission, connect
from dispatcher.record import Order
from dispatcher.results import ResultCodec
from dispatcher.waits import Waiter, value_of
from workers.breaker import SharedBreaker
from workers.breaker_rules import BreakerRules
from workers.plan_runner import Fail, Finish, Park, PlanRunner, Retry
from workers.steps import Channel, Steps, longest_step_s

if TYPE_CHECKING:
    import redis

    from dispatcher import FaultPlan
    from dispatcher.ledger import Ledger
    from dispatcher.record import PlanRecord

CODEC = ResultCodec(make_celery(Settings()))
PLAN_KEY = "{dispatcher}:plan:p1"


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver()


@pytest.fixture
def waits() -> list[int]:
    """What the waker heard, in ms."""
    return []


@pytest.fixture
def steps(ledger: Ledger, driver: FakeDriver, waits: list[int], redis_client: redis.Redis) -> Steps:
    ledger.submit([Submission("p1", Order(plan=abort_plan(), executor="default", timeout_ms=30_000))])
    return steps_on(ledger, redis_client, driver, waits)


def steps_on(ledger: Ledger, client: redis.Redis, driver: FakeDriver, waits: list[int]) -> Steps:
    return Steps(ledger, CODEC, {"default": channel(client, driver)}, expect=waits.append)


def channel(client: redis.Redis, driver: FakeDriver, **config: object) -> Channel:
    settings = ExecutorClientConfig.model_validate(config)
    rules = BreakerRules.of(settings, lease_s=longest_step_s(driver))
    breaker = SharedBreaker(client, "dispatcher", "default", rules)
    return Channel(driver, breaker, PlanRunner(settings, poll_ms=500))


def record(ledger: Ledger) -> PlanRecord:
    [found] = ledger.read(["p1"])
    assert found is not None
    return found


def make_due(client: redis.Redis) -> None:
    client.hset(PLAN_KEY, "due_ms", 0)


def stored(ledger: Ledger) -> str | None:
    return Waiter(ledger).wait(value_of(CODEC.key("p1")))


def test_a_plan_goes_its_whole_way(
    steps: Steps, ledger: Ledger, driver: FakeDriver, redis_client: redis.Redis, waits: list[int]
) -> None:
    assert isinstance(steps.take("p1"), Park)
    assert record(ledger).state is PlanState.RUNNING
    assert waits == [1000]
    assert steps.take("p1") is None  # not due: a duplicate wake-up leaves
    make_due(redis_client)
    driver.end("fault-p1")
    assert isinstance(steps.take("p1"), Finish)
    result = stored(ledger)
    assert result is not None
    assert CODEC.decode(result).error_rate == 1.0
    assert driver.calls == ["apply", "status", "metrics"]


def test_a_failure_is_stored_as_a_typed_error(steps: Steps, ledger: Ledger, driver: FakeDriver) -> None:
    driver.trouble([ExecutorRejectedError("no", 400, "bad api")])
    assert isinstance(steps.take("p1"), Fail)
    assert record(ledger).state is PlanState.FAILED
    result = stored(ledger)
    assert result is not None
    with pytest.raises(ExecutorRejectedError) as caught:
        CODEC.decode(result)
    assert caught.value.executor_message == "bad api"


def test_a_retry_is_parked_with_its_cause(steps: Steps, ledger: Ledger, driver: FakeDriver) -> None:
    driver.trouble([ExecutorServerError("down", 503, "")])
    assert isinstance(steps.take("p1"), Retry)
    waiting = record(ledger)
    assert (waiting.state, waiting.attempts, waiting.why) == (PlanState.QUEUED, 1, "down")
    assert steps.take("p1") is None  # not before its delay


def test_a_step_that_lost_its_lease_leaves_no_result(
    steps: Steps, ledger: Ledger, driver: FakeDriver, redis_client: redis.Redis
) -> None:
    class OvertakenDriver(FakeDriver):
        def apply(self, plan: FaultPlan, key: str, within_s: float) -> str:
            make_due(redis_client)  # the lease runs out during the call ...
            assert isinstance(steps.take("p1"), Park)  # ... and another worker takes over
            raise ExecutorRejectedError("too late", 400, "")

    assert steps_on(ledger, redis_client, OvertakenDriver(), []).take("p1") is None
    assert record(ledger).state is PlanState.RUNNING
    assert stored(ledger) is None
    assert driver.calls == ["apply"]


def test_a_defect_in_a_worker_ends_the_plan(
    ledger: Ledger, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    class BrokenDriver(FakeDriver):
        def apply(self, plan: FaultPlan, key: str, within_s: float) -> str:
            raise ZeroDivisionError("oops")

    ledger.submit([Submission("p1", Order(plan=abort_plan(), executor="default", timeout_ms=30_000))])
    verdict = steps_on(ledger, redis_client, BrokenDriver(), []).take("p1")
    assert isinstance(verdict, Fail)
    assert type(verdict.error) is ExecutorClientError
    assert "ZeroDivisionError" in str(verdict.error)
    assert "ZeroDivisionError" in caplog.text
    assert verdict.alive_ms == 1_000  # the apply may have gone out before: the target stays reserved


def test_an_executor_that_the_worker_does_not_know_ends_the_plan(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    ledger.submit([Submission("p1", Order(plan=abort_plan(), executor="elsewhere", timeout_ms=30_000))])
    verdict = steps_on(ledger, redis_client, FakeDriver(), []).take("p1")
    assert isinstance(verdict, Fail)
    assert isinstance(verdict.error, InvalidPlanError)
    assert "elsewhere" in str(verdict.error)


def test_a_step_without_redis_ends_without_a_verdict(
    driver: FakeDriver, redis_client: redis.Redis, free_tcp_port: int
) -> None:
    gone = connect(Settings(redis_url=SecretStr(f"redis://127.0.0.1:{free_tcp_port}/0")))
    assert steps_on(gone, redis_client, driver, []).take("p1") is None
    assert driver.calls == []
    gone.close()


def test_a_wake_up_for_nobody_is_dropped(steps: Steps, driver: FakeDriver) -> None:
    assert steps.take("nobody") is None
    assert driver.calls == []


def test_a_lease_outlasts_the_longest_step(steps: Steps, ledger: Ledger, redis_client: redis.Redis) -> None:
    class SlowDriver(FakeDriver):
        def apply(self, plan: FaultPlan, key: str, within_s: float) -> str:
            held_until = int(redis_client.hget(PLAN_KEY, "due_ms") or 0)
            now_s, _ = redis_client.time()
            assert held_until - now_s * 1000 > 3 * self.longest_call_s * 1000
            return super().apply(plan, key, within_s)

    assert isinstance(steps_on(ledger, redis_client, SlowDriver(), []).take("p1"), Park)
