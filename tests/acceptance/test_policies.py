"""The existing Executor's policies: what is kept is what was sent, and a policy ends with its plan."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import requests
from support.control_plane import ControlPlane
from support.eventually import eventually
from support.meddler import Exchange, Meddler
from support.plans import abort_plan
from support.workload import Workload

from dispatcher import (
    Doubt,
    ExecutorProtocolError,
    FaultInDoubtError,
    FaultUnobservedError,
    PlanCancelledError,
    PlanState,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis
    from support.processes import Workers

    from dispatcher import Dispatcher, PlanHandle

    Probed = Callable[..., object]

PREFIX = "DISPATCHER_EXECUTORS__DEFAULT__"
PROBE = {"kind": "probe", "requests_per_sec": 10}
QUICK = {
    f"{PREFIX}DRIVER": "policy_api",
    f"{PREFIX}OBSERVER": json.dumps(PROBE),
    f"{PREFIX}CHECK_INTERVAL_SEC": "0.3",
    f"{PREFIX}STOP_CONFIRMATION_SEC": "2",
    f"{PREFIX}MAX_RETRIES": "0",
    f"{PREFIX}CIRCUIT_BREAKER_ENABLED": "false",
}
API = "/api/q"


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def workload(plane: ControlPlane) -> Iterator[Workload]:
    with Workload(plane) as workload:
        yield workload


@pytest.fixture
def worker(start: Workers, plane: ControlPlane, workload: Workload) -> Probed:
    """A worker that probes the workload."""

    def begin(url: str | None = None, **environment: str) -> object:
        services = {"PaymentService": {"base_url": workload.url}}
        return start(url or plane.url, **QUICK, DISPATCHER_SERVICES=json.dumps(services), **environment)

    return begin


def running(dispatcher: Dispatcher, seconds: int = 60) -> PlanHandle:
    handle = dispatcher.submit(abort_plan(api=API, duration_seconds=seconds))
    eventually(lambda: handle.status().state is PlanState.RUNNING)
    return handle


def deleted(plane: ControlPlane, handle: PlanHandle) -> bool:
    return ("DELETE", f"/v1/policies/plan-{handle.id}") in plane.calls


@pytest.mark.parametrize(
    "dropped",
    ["spec.selector", "spec.selector.service", "spec.rules"],
    ids="without {}".format,
)
def test_a_policy_that_is_kept_otherwise_than_it_was_sent_is_deleted_and_its_plan_fails(
    dispatcher: Dispatcher, plane: ControlPlane, worker: Probed, dropped: str
) -> None:
    worker()
    plane.drops = [dropped]
    handle = dispatcher.submit(abort_plan(api=API, duration_seconds=60))
    with pytest.raises(ExecutorProtocolError, match=f"{dropped} is missing; it was deleted"):
        handle.result(30)
    assert deleted(plane, handle)
    assert plane.there() == []
    plane.drops = []
    eventually(lambda: dispatcher.active() == [])
    assert dispatcher.submit(abort_plan(api=API, duration_seconds=2)).result(30).error_rate == 1.0


def test_a_policy_that_never_expires_is_deleted_in_time(
    dispatcher: Dispatcher, plane: ControlPlane, worker: Probed
) -> None:
    worker()
    handle = running(dispatcher, seconds=2)
    plane.restart(etcd=True)
    observation = handle.result(30)
    assert deleted(plane, handle)
    assert plane.there() == []
    assert (observation.error_rate, observation.status_code) == (1.0, 503)
    assert set(observation.doubts) & {Doubt.LONG, Doubt.WINDOW_UNKNOWN}
    assert observation.recovery is not None
    assert observation.recovery.error_rate == 0.0


def restarts(plane: ControlPlane, _: PlanHandle) -> None:
    plane.restart()


def is_deleted(plane: ControlPlane, handle: PlanHandle) -> None:
    requests.delete(f"{plane.url}/v1/policies/plan-{handle.id}", timeout=60)


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(restarts, id="the control plane restarts without a store"),
        pytest.param(is_deleted, id="a person deletes it"),
    ],
)
def test_a_policy_that_ends_early_makes_a_short_observation_early(
    dispatcher: Dispatcher,
    plane: ControlPlane,
    worker: Probed,
    trouble: Callable[[ControlPlane, PlanHandle], None],
) -> None:
    worker()
    handle = running(dispatcher)
    eventually(lambda: plane.calls.count(("GET", f"/v1/policies/plan-{handle.id}")) >= 3)
    trouble(plane, handle)
    observation = handle.result(20)
    assert Doubt.SHORT in observation.doubts
    assert (observation.error_rate, observation.status_code) == (1.0, 503)


def test_a_policy_is_not_over_while_the_store_does_not_answer(
    dispatcher: Dispatcher, plane: ControlPlane, worker: Probed
) -> None:
    worker(**{f"{PREFIX}HEALTH_CHECK_INTERVAL_SEC": "1000"})
    handle = running(dispatcher)
    plane.ready = False
    handle.cancel("seen enough")
    eventually(lambda: deleted(plane, handle))
    assert plane.there() == []
    asked = plane.calls.count(("GET", "/v1/ready"))
    eventually(lambda: plane.calls.count(("GET", "/v1/ready")) >= asked + 2)
    assert not handle.status().state.final
    plane.ready = True
    with pytest.raises(PlanCancelledError, match="seen enough"):
        handle.result(30)


def test_a_policy_that_is_kept_though_its_post_failed_is_deleted(
    dispatcher: Dispatcher, plane: ControlPlane, worker: Probed
) -> None:
    def busy(exchange: Exchange) -> Exchange:
        return replace(exchange, status=503) if exchange.method == "POST" else exchange

    with Meddler(plane.url, busy) as proxy:
        worker(proxy.url)
        handle = dispatcher.submit(abort_plan(api=API, duration_seconds=60))
        with pytest.raises(FaultInDoubtError, match=r"503.*its apply may still arrive"):
            handle.result(30)
        eventually(lambda: deleted(plane, handle))
        assert plane.there() == []
        eventually(lambda: dispatcher.active() == [], within_s=20)


def test_policies_of_ended_plans_are_deleted_and_all_others_left_alone(
    dispatcher: Dispatcher, plane: ControlPlane, worker: Probed, real_redis: redis.Redis
) -> None:
    worker(**{f"{PREFIX}HEALTH_CHECK_INTERVAL_SEC": "0.3"})
    handle = running(dispatcher)
    name = f"plan-{handle.id}"
    policy = plane.policies[name][0]
    handle.cancel()
    with pytest.raises(PlanCancelledError):
        handle.result(30)
    others = ["plan-of-another-fleet", "mine"]
    for each in (name, *others):
        plane.policies[each] = (policy | {"metadata": {"name": each}}, float("inf"))
    real_redis.hincrby(f"{{dispatcher}}:plan:{handle.id}", "ended_ms", -5_000)
    eventually(lambda: name not in plane.there(), within_s=20)
    listed = plane.calls.count(("GET", "/v1/policies"))
    eventually(lambda: plane.calls.count(("GET", "/v1/policies")) >= listed + 2)
    assert sorted(plane.there()) == sorted(others)


def test_a_policy_hits_its_path_with_any_query_and_no_other_path(
    dispatcher: Dispatcher, plane: ControlPlane, workload: Workload, worker: Probed
) -> None:
    worker()
    handle = running(dispatcher)

    def status(path: str) -> int:
        return requests.get(workload.url + path, timeout=60).status_code

    assert [status(API + more) for more in ("", "?x=1", "?")] == [503] * 3
    assert [status(path) for path in (f"{API}q", f"{API}/1", f"/x{API}", f"/x?y={API}")] == [200] * 4
    handle.cancel()
    with pytest.raises(PlanCancelledError):
        handle.result(30)
    assert status(API) == 200


def test_a_policy_with_the_plans_headers_leaves_real_users_alone_and_is_probed_with_them(
    dispatcher: Dispatcher, plane: ControlPlane, workload: Workload, worker: Probed
) -> None:
    worker()
    handle = dispatcher.submit(abort_plan(api=API, duration_seconds=3, headers={"x-test-run": "42"}))
    eventually(lambda: handle.status().state is PlanState.RUNNING)

    def status(**headers: str) -> int:
        return requests.get(workload.url + API, headers=headers, timeout=60).status_code

    assert [status(), status(**{"x-test-run": "42"}), status(**{"x-test-run": "4"})] == [200, 503, 200]
    assert handle.result(30).error_rate == 1.0


@pytest.mark.parametrize("status", [405, 401, 404])
def test_a_target_that_is_unwell_before_the_fault_is_never_hit(
    dispatcher: Dispatcher, plane: ControlPlane, workload: Workload, worker: Probed, status: int
) -> None:
    worker()
    workload.statuses[API] = [status]
    with pytest.raises(FaultUnobservedError, match=rf"(?i)baseline.*{status}"):
        dispatcher.submit(abort_plan(api=API, duration_seconds=2)).result(30)
    assert plane.posted == []
