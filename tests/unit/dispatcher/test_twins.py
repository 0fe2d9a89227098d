"""Plans in flight whose faults have one id: their Executor repeats ids, and answers for either."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.plans import abort_plan
from support.steps import claim, finished, parked

from dispatcher import ExecutorClientConfig, Settings
from dispatcher.ledger.leases import Lease, Leases, Settlement
from dispatcher.ledger.ledger import Ledger, Submission
from dispatcher.ledger.record import Order

if TYPE_CHECKING:
    import redis

SETTINGS = Settings(executors={"default": ExecutorClientConfig(), "other": ExecutorClientConfig()})
IDS = "{dispatcher}:ids:*"


class Applied:
    """Plans whose faults were applied."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.ledger = Ledger(client, SETTINGS)
        self.leases = Leases(client, SETTINGS)

    def apply(self, plan_id: str, apply_id: str, executor: str = "default") -> None:
        plan = abort_plan(api=f"/{plan_id}")
        order = Order(plan=plan, executor=executor, timeout_ms=30_000)
        assert self.ledger.submit([Submission(plan_id, order)]) == [True]
        lease = self.claim(plan_id)
        parked(self.leases, lease, 0, lease.record.applied(apply_id, lease.now_ms))

    def claim(self, plan_id: str) -> Lease:
        self.client.zadd("{dispatcher}:due", {plan_id: 0})
        lease = claim(self.leases, plan_id, 0)
        assert isinstance(lease, Lease)
        return lease

    def twin(self, plan_id: str) -> str | None:
        found = self.client.hget(f"{{dispatcher}}:plan:{plan_id}", "twin")
        return None if found is None else str(found)


@pytest.fixture
def applied(redis_client: redis.Redis) -> Applied:
    return Applied(redis_client)


def test_plans_whose_faults_have_the_same_id_know_of_each_other(applied: Applied) -> None:
    applied.apply("p1", "1")
    assert applied.twin("p1") is None
    applied.apply("p2", "1")
    assert (applied.twin("p1"), applied.twin("p2")) == ("p2", "p1")


def test_other_ids_and_ids_of_other_executors_are_not_the_same(applied: Applied) -> None:
    applied.apply("p1", "1")
    applied.apply("p2", "2")
    applied.apply("p3", "1", executor="other")
    assert [applied.twin(each) for each in ("p1", "p2", "p3")] == [None] * 3


def test_an_apply_that_is_repeated_for_the_same_plan_has_the_same_id(applied: Applied) -> None:
    applied.apply("p1", "1")
    lease = applied.claim("p1")
    parked(applied.leases, lease, 0, lease.record._replace(apply_id="2"))
    lease = applied.claim("p1")
    parked(applied.leases, lease, 0, lease.record._replace(apply_id="1"))
    assert applied.twin("p1") is None


def test_the_id_of_a_fault_whose_plan_has_ended_may_come_again(
    applied: Applied, redis_client: redis.Redis
) -> None:
    applied.apply("p1", "1")
    lease = applied.claim("p1")
    finished(applied.leases, lease)
    assert redis_client.keys(IDS) == []
    applied.apply("p2", "1")
    assert (applied.twin("p1"), applied.twin("p2")) == (None, None)


@pytest.mark.parametrize(
    "apply_id",
    ["p1", "f-0f3b5c1d9e8a47b6a2d4c6e8f0a1b2c3", "plan-0f3b5c1d-9e8a-47b6-a2d4-c6e8f0a1b2c3"],
)
def test_an_id_that_no_other_fault_can_have_is_not_kept(
    applied: Applied, redis_client: redis.Redis, apply_id: str
) -> None:
    applied.apply("p1", apply_id)
    assert redis_client.keys(IDS) == []


@pytest.mark.parametrize(
    "apply_id",
    [
        "1",
        "fault-p12",
        "fault-000001",
        "20301231T235959",
        "the fault of the PaymentService",
        "PaymentService-abort-2030-12-31-1",
    ],
)
def test_an_id_that_may_come_again_is_kept(
    applied: Applied, redis_client: redis.Redis, apply_id: str
) -> None:
    applied.apply("p1", apply_id)
    assert len(redis_client.keys(IDS)) == 1
    finished(applied.leases, applied.claim("p1"))
    assert redis_client.keys(IDS) == []


def test_a_number_that_is_the_plans_own_may_come_again(applied: Applied) -> None:
    applied.apply("1", "1")
    applied.apply("p2", "1")
    assert (applied.twin("1"), applied.twin("p2")) == ("p2", "1")


def test_an_end_leaves_the_id_of_the_twin_known(applied: Applied, redis_client: redis.Redis) -> None:
    applied.apply("p1", "1")
    applied.apply("p2", "1")
    finished(applied.leases, applied.claim("p1"))
    [key] = redis_client.keys(IDS)
    assert redis_client.hgetall(key) == {"1": "p2"}
    finished(applied.leases, applied.claim("p2"))
    assert redis_client.keys(IDS) == []


def test_an_id_that_comes_with_a_retry_is_known_as_well(applied: Applied) -> None:
    applied.apply("p1", "1")
    applied.apply("p2", "2")
    lease = applied.claim("p2")
    how: list[str | int] = [0, 5_000, 1, "result-p2", "the cause", "apply_id", "1"]
    retry = Settlement("p2", lease.token, "retry", how)
    applied.leases.settle([retry])
    assert (applied.twin("p1"), applied.twin("p2")) == ("p2", "p1")
    assert applied.claim("p1").record.twin == "p2"
