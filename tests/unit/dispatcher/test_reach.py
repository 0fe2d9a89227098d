"""Faults on different targets that may hit the same requests: both plans are marked as overlapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.plans import abort_plan
from support.steps import finished

from dispatcher import ExecutorClientConfig, Settings
from dispatcher.ledger.leases import Lease, Leases, Named
from dispatcher.ledger.ledger import Ledger, Submission
from dispatcher.ledger.reach import Reach, reaches_of
from dispatcher.ledger.record import Order

if TYPE_CHECKING:
    import redis

EXACT, TEMPLATE, PREFIX = Reach(), Reach("template"), Reach("prefix")
SETTINGS = Settings(
    executors={
        "default": ExecutorClientConfig(base_url="http://one:8000"),
        "twin": ExecutorClientConfig(base_url="http://ONE:8000/"),
        "other": ExecutorClientConfig(base_url="http://other:8000"),
    }
)


class Started:
    """Plans of these Executors that have begun."""

    def __init__(self, client: redis.Redis, **reaches: Reach) -> None:
        self.client = client
        self.ledger = Ledger(client, SETTINGS)
        self.leases = Leases(client, SETTINGS, reaches)

    def begin(self, plan_id: str, api: str, *, executor: str = "default", service: str = "shop") -> Lease:
        order = Order(plan=abort_plan(api=api, service=service), executor=executor, timeout_ms=30_000)
        assert self.ledger.submit([Submission(plan_id, order)]) == [True]
        [lease] = self.leases.fetch([Named(plan_id, 0)], 0).named
        assert isinstance(lease, Lease)
        return lease

    def marked(self) -> set[str]:
        """The plans that another one overlaps, as the ledger has them."""
        keys = self.client.scan_iter("{dispatcher}:plan:*")
        return {str(key).rpartition(":")[2] for key in keys if self.client.hexists(str(key), "overlapped")}


@pytest.mark.parametrize(
    ("reach", "one", "other"),
    [
        (TEMPLATE, "/users/{id}", "/users/42"),
        (TEMPLATE, "/users/42", "/users/{id}"),
        (TEMPLATE, "/users/{id}/cart", "/users/{name}/{what}"),
        (TEMPLATE, "/v{n}/users", "/v2/users"),
        (PREFIX, "/users", "/users/42/cart"),
        (PREFIX, "/users/42/cart", "/users"),
        (PREFIX, "/users/", "/users/42"),
        (PREFIX, "/", "/users"),
        (PREFIX, "/{any}", "/users/42"),
    ],
)
def test_paths_that_may_be_the_same_overlap(
    redis_client: redis.Redis, reach: Reach, one: str, other: str
) -> None:
    started = Started(redis_client, default=reach)
    assert not started.begin("p1", one).record.overlapped
    assert started.begin("p2", other).record.overlapped
    assert started.marked() == {"p1", "p2"}


@pytest.mark.parametrize(
    ("reach", "one", "other"),
    [
        (EXACT, "/users/{id}", "/users/42"),
        (TEMPLATE, "/users/{id}", "/users/42/cart"),
        (TEMPLATE, "/users/{id}", "/orders/42"),
        (TEMPLATE, "/users", "/users/42"),
        (PREFIX, "/users", "/usersandmore"),
        (PREFIX, "/users/1", "/users/2"),
    ],
)
def test_paths_that_differ_do_not(redis_client: redis.Redis, reach: Reach, one: str, other: str) -> None:
    started = Started(redis_client, default=reach)
    started.begin("p1", one)
    assert not started.begin("p2", other).record.overlapped
    assert started.marked() == set()


def test_only_faults_of_the_same_service_overlap_unless_all_services_are_hit(
    redis_client: redis.Redis,
) -> None:
    started = Started(redis_client, default=TEMPLATE)
    started.begin("p1", "/users/{id}", service="shop")
    started.begin("p2", "/users/1", service="bank")
    assert started.marked() == set()
    assert len(redis_client.keys("{dispatcher}:near:*")) == 2  # a plan looks at those of its own service
    wide = Started(redis_client, twin=Reach("template", any_service=True))
    wide.begin("p3", "/users/{id}", executor="twin", service="shop")
    wide.begin("p4", "/users/1", executor="twin", service="bank")
    assert started.marked() == {"p3", "p4"}


def test_two_executors_with_one_address_are_one(redis_client: redis.Redis) -> None:
    started = Started(redis_client, default=EXACT, twin=EXACT, other=EXACT)
    started.begin("p1", "/users")
    assert not started.begin("p2", "/users", executor="other").record.overlapped
    assert not started.begin("p3", "/orders", executor="twin").record.overlapped
    assert started.begin("p4", "/users", executor="twin").record.overlapped
    assert started.marked() == {"p1", "p4"}


def test_two_executors_with_one_address_and_different_namespaces_or_methods_do_not_meet() -> None:
    for one, other in (
        (Reach(namespace="red"), Reach(namespace="blue")),
        (Reach(method="GET"), Reach(method="POST")),
    ):
        assert reaches_of(SETTINGS, {"default": one, "twin": other}) == ""
        assert reaches_of(SETTINGS, {"default": one, "twin": one}) != ""
        assert reaches_of(SETTINGS, {"default": one, "twin": Reach()}) != ""


def test_a_fault_that_is_over_overlaps_no_later_one(redis_client: redis.Redis) -> None:
    started = Started(redis_client, default=TEMPLATE)
    finished(started.leases, started.begin("p1", "/users/{id}"))
    assert not started.begin("p2", "/users/42").record.overlapped
    [key] = redis_client.keys("{dispatcher}:near:*")
    assert redis_client.smembers(str(key)) == {"p2"}


def test_a_fault_whose_removal_has_not_arrived_overlaps_a_later_one(redis_client: redis.Redis) -> None:
    started = Started(redis_client, default=TEMPLATE)
    finished(started.leases, started.begin("p1", "/users/{id}"))
    redis_client.hset("{dispatcher}:plan:p1", "released_ms", started.ledger.now_ms() + 60_000)
    assert started.begin("p2", "/users/42").record.overlapped
    assert started.marked() == {"p2"}


def test_an_executor_whose_targets_do_not_meet_has_no_such_key(redis_client: redis.Redis) -> None:
    started = Started(redis_client, default=EXACT, other=EXACT)
    started.begin("p1", "/users")
    assert redis_client.keys("{dispatcher}:near:*") == []
    assert reaches_of(SETTINGS, {"default": EXACT, "other": EXACT}) == ""
