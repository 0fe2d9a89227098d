"""The policy driver against the existing control plane, traps included."""

from __future__ import annotations

import copy
import functools
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.control_plane import ControlPlane
from support.plans import abort_plan, delay_plan
from support.stub_executor import StubExecutor

from dispatcher import (
    ExecutorClientConfig,
    ExecutorClientError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    FaultFailedError,
    FaultLostError,
    InvalidPlanError,
    InvalidSettingsError,
)
from workers.drivers.base import FaultState, FaultStatus, ListedFault, StopOutcome
from workers.drivers.policies import (
    PathMatch,
    PolicyOptions,
    difference,
    path_pattern,
    plan_id_of,
    policy_body,
    policy_name,
)
from workers.drivers.policy_api import PolicyApiDriver

if TYPE_CHECKING:
    from collections.abc import Iterator


SOON = datetime(2100, 1, 1, tzinfo=UTC)
RUNNING, COMPLETED = FaultStatus(FaultState.RUNNING), FaultStatus(FaultState.COMPLETED)
PATH = {"regex": r"^/api/v1/payment/process(\?.*)?$"}


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane() as plane:
        yield plane


@pytest.fixture
def driver(plane: ControlPlane) -> Iterator[PolicyApiDriver]:
    yield from driver_at(plane.url)


@pytest.fixture
def stub() -> Iterator[StubExecutor]:
    """Gives the answers that a test wants."""
    with StubExecutor() as stub:
        yield stub


@pytest.fixture
def at_stub(stub: StubExecutor) -> Iterator[PolicyApiDriver]:
    yield from driver_at(stub.url)


def driver_at(url: str, **options: Any) -> Iterator[PolicyApiDriver]:
    config = ExecutorClientConfig(base_url=url, driver="policy_api", driver_options=options)
    driver = PolicyApiDriver(config, connections=1)
    yield driver
    driver.close()


def test_a_plan_becomes_one_policy_of_whole_numbers(plane: ControlPlane, driver: PolicyApiDriver) -> None:
    driver.apply(delay_plan(start_delay_ms=200, delay_seconds=2.5, percentage=30), "p1", 5, SOON)
    driver.apply(abort_plan(), "p2", 5, SOON)
    assert plane.posted[0] == {
        "metadata": {"name": "plan-p1", "version": "v1"},
        "spec": {
            "selector": {"service": "PaymentService"},
            "rules": [
                {
                    "match": {"path": PATH},
                    "fault": {
                        "percentage": 30,
                        "duration_seconds": 1,
                        "start_delay_ms": 200,
                        "delay": {"fixed_delay_ms": 2500},
                    },
                }
            ],
        },
    }
    fault = plane.posted[1]["spec"]["rules"][0]["fault"]
    assert fault == {"percentage": 100, "duration_seconds": 1, "abort": {"httpStatus": 503}}


def test_a_policy_is_running_until_its_time_is_over(plane: ControlPlane, driver: PolicyApiDriver) -> None:
    name = driver.apply(abort_plan(duration_seconds=10), "p1", 5, SOON)
    assert driver.status(name, 5) == RUNNING
    plane.pass_(9.0)
    assert driver.status(name, 5) == RUNNING
    plane.pass_(1.1)
    assert driver.status(name, 5) == COMPLETED


@pytest.mark.parametrize("ready", [True, None], ids=["a store that is ready", "no word of readiness"])
def test_a_policy_that_was_taken_away_is_over(
    plane: ControlPlane, driver: PolicyApiDriver, *, ready: bool | None
) -> None:
    plane.ready = ready
    name = driver.apply(abort_plan(duration_seconds=10), "p1", 5, SOON)
    plane.policies.clear()
    assert driver.status(name, 5) == COMPLETED


def test_a_policy_that_is_absent_is_not_over_while_the_store_is_not_ready(
    plane: ControlPlane, driver: PolicyApiDriver
) -> None:
    name = driver.apply(abort_plan(duration_seconds=10), "p1", 5, SOON)
    plane.policies.clear()
    plane.ready = False
    with pytest.raises(ExecutorServerError, match="/v1/ready: 503"):
        driver.status(name, 5)
    assert driver.stop(name) is StopOutcome.UNCONFIRMED


@pytest.mark.parametrize("content", [{"status": "not ready"}, {"status": "DOWN"}, {"ready": False}])
def test_a_policy_that_is_absent_is_not_over_while_a_success_says_that_the_store_is_not_ready(
    stub: StubExecutor, at_stub: PolicyApiDriver, content: object
) -> None:
    missing = {"error": "not_found", "details": {"resource": "policy"}}
    stub.answers.extend([(404, missing), (200, content), (404, missing), (200, content)])
    with pytest.raises(ExecutorServerError, match="/v1/ready: 200, but the answer says"):
        at_stub.status("plan-p1", 5)
    assert at_stub.stop("plan-p1") is StopOutcome.UNCONFIRMED


def test_a_policy_that_is_absent_is_lost_if_policies_cannot_be_listed(
    plane: ControlPlane, driver: PolicyApiDriver
) -> None:
    name = driver.apply(abort_plan(duration_seconds=10), "p1", 5, SOON)
    plane.lists = False
    assert driver.status(name, 5) == RUNNING
    plane.policies.clear()
    with pytest.raises(FaultLostError, match="does not list its policies"):
        driver.status(name, 5)
    assert driver.stop(name) is StopOutcome.UNCONFIRMED
    assert driver.faults(5) is None


def test_a_policy_that_the_list_still_has_is_running(stub: StubExecutor, at_stub: PolicyApiDriver) -> None:
    missing = {"error": "not_found", "details": {"resource": "policy"}}
    listed = [{"metadata": {"name": "plan-p1"}}]
    for _ in ("status", "stop"):
        stub.answers.extend([(404, missing), (200, {"status": "ready"}), (200, listed)])
    assert at_stub.status("plan-p1", 5) == RUNNING
    assert at_stub.stop("plan-p1") is StopOutcome.UNCONFIRMED


def test_a_stopped_policy_is_off_and_stopping_it_again_is_success(
    plane: ControlPlane, driver: PolicyApiDriver
) -> None:
    name = driver.apply(abort_plan(duration_seconds=10), "p1", 5, SOON)
    assert driver.stop(name) is StopOutcome.OVER
    assert plane.there() == []
    assert driver.stop(name) is StopOutcome.OVER
    assert driver.stop("plan-never-was") is StopOutcome.OVER


def test_a_policy_without_a_timer_after_a_restart_runs_until_it_is_stopped(
    plane: ControlPlane, driver: PolicyApiDriver
) -> None:
    name = driver.apply(abort_plan(duration_seconds=10), "p1", 5, SOON)
    plane.restart(etcd=True)
    plane.pass_(1000)
    assert driver.status(name, 5) == RUNNING
    assert driver.stop(name) is StopOutcome.OVER
    assert plane.there() == []


def test_the_policies_of_this_dispatcher_are_listed_with_their_plans(
    plane: ControlPlane, driver: PolicyApiDriver
) -> None:
    assert driver.faults(5) == []
    for plan_id in ("p1", "Odd.Id"):
        driver.apply(abort_plan(duration_seconds=10), plan_id, 5, SOON)
    plane.policies["by-hand"] = ({"metadata": {"name": "by-hand"}}, float("inf"))
    assert driver.faults(5) == [ListedFault("plan-p1", "p1"), ListedFault(policy_name("Odd.Id"), None)]


@pytest.mark.parametrize(
    "answer",
    [[{"metadata": {"name": "plan-p1"}}], {"policies": [{"metadata": {"name": "plan-p1"}}]}],
    ids=["a bare list", "an object"],
)
def test_a_list_of_policies_may_be_bare_or_in_an_object(
    stub: StubExecutor, at_stub: PolicyApiDriver, answer: object
) -> None:
    stub.answers.extend([(404, b"404 page not found"), (200, answer)])
    assert at_stub.faults(5) == [ListedFault("plan-p1", "p1")]


@pytest.mark.parametrize("answer", [{}, "none", 0, [7], [{"metadata": {}}], {"policies": {}}], ids=repr)
def test_an_invalid_list_of_policies_is_a_protocol_error(
    stub: StubExecutor, at_stub: PolicyApiDriver, answer: object
) -> None:
    stub.answers.extend([(200, {"status": "ready"}), (200, answer)])
    with pytest.raises(ExecutorProtocolError):
        at_stub.faults(5)


@pytest.mark.parametrize(
    "more",
    [{"total": 1}, {"next": "/v1/policies?page=2"}, {"metadata": {"continue": "abc"}}, {"has_more": True}],
    ids=repr,
)
def test_a_page_of_a_list_does_not_say_that_a_policy_is_gone(
    stub: StubExecutor, at_stub: PolicyApiDriver, more: dict[str, object]
) -> None:
    stub.answers.extend([(200, {"status": "ready"}), (200, {"items": [], **more})])
    with pytest.raises(ExecutorProtocolError, match="is a part of a longer list"):
        at_stub.faults(5)


@pytest.mark.parametrize("dropped", ["spec.selector", "spec.selector.namespace"])
def test_a_version_that_drops_a_field_has_its_policy_deleted_and_the_plan_fails(
    plane: ControlPlane, dropped: str
) -> None:
    plane.drops = [dropped]
    for driver in driver_at(plane.url, namespace="shop"):
        with pytest.raises(ExecutorProtocolError, match=f"{dropped} is missing; it was deleted") as caught:
            driver.apply(abort_plan(duration_seconds=10), "p1", 5, SOON)
        assert caught.value.apply_id == "plan-p1"
    assert plane.there() == []


def test_a_policy_that_is_kept_otherwise_and_cannot_be_deleted_says_so(
    stub: StubExecutor, at_stub: PolicyApiDriver
) -> None:
    stub.answers.extend([(201, {"metadata": {"name": "plan-p1"}}), (503, {"message": "busy"})])
    with pytest.raises(ExecutorProtocolError, match=r"was not deleted.*busy") as caught:
        at_stub.apply(abort_plan(), "p1", 5, SOON)
    assert caught.value.apply_id == "plan-p1"
    assert stub.calls == [("POST", "/v1/policies"), ("DELETE", "/v1/policies/plan-p1")]


SENT = policy_body(delay_plan(percentage=50), "plan-p1", PolicyOptions(method="GET", headers={"x-run": "7"}))
Where = tuple[str | int, ...]


def changed(where: Where, value: Any) -> dict[str, Any]:
    """What is sent, with another value there. `...` takes the field away."""
    echo: dict[str, Any] = copy.deepcopy(SENT)
    inner: Any = functools.reduce(lambda part, step: part[step], where[:-1], cast("Any", echo))
    if value is ...:
        del inner[where[-1]]
    else:
        inner[where[-1]] = value
    return echo


def leaves(value: Any, where: Where = ()) -> Iterator[Where]:
    """The way to each field that holds no others."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*where, name))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, (*where, number))
    else:
        yield where


def named(where: Where) -> str:
    steps = (f"[{step}]" if isinstance(step, int) else f".{step}" for step in where)
    return "".join(steps).removeprefix(".")


@pytest.mark.parametrize("value", [..., None, "other", 77, [], {}], ids=repr)
@pytest.mark.parametrize("where", list(leaves(SENT)), ids=named)
def test_every_field_that_is_kept_otherwise_is_named(where: Where, value: Any) -> None:
    problem = difference(SENT, changed(where, value))
    assert problem is not None
    assert problem.startswith(named(where))


FAULT: Where = ("spec", "rules", 0, "fault")


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ((*FAULT, "percentage"), 50.0),
        ((*FAULT, "abort"), {"httpStatus": 0}),
        ((*FAULT, "start_delay_ms"), 0),
        (("spec", "selector", "namespace"), ""),
        (("spec", "selector", "namespace"), "*"),
        (("metadata", "createdAt"), "2026-01-01T00:00:00Z"),
        (("status",), {"state": "active"}),
    ],
    ids=[
        "a whole number as 50.0",
        "an empty abort",
        "no start delay",
        "an empty namespace",
        "any namespace",
        "metadata of its own",
        "a status of its own",
    ],
)
def test_what_a_server_adds_without_a_meaning_is_not_a_difference(where: Where, value: Any) -> None:
    assert difference(SENT, changed(where, value)) is None


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ((*FAULT, "abort"), {"httpStatus": 503}),
        ((*FAULT, "percentage"), True),
        (("spec", "selector", "namespace"), "default"),
        (("spec", "rules"), [*SENT["spec"]["rules"], *SENT["spec"]["rules"]]),
        (("spec", "priority"), 7),
    ],
    ids=["another fault", "true for a number", "one namespace", "a second rule", "a priority"],
)
def test_what_a_server_adds_with_a_meaning_is_a_difference(where: Where, value: Any) -> None:
    assert difference(SENT, changed(where, value)) is not None


PATHS = st.from_regex(r"/[!\"$->@-z|~]{0,20}", fullmatch=True)  # what a plan's api may be, except for braces


@given(PATHS, PATHS, st.sampled_from(["", "?", "?x=1", "?a=/b&c"]), st.sampled_from(PathMatch))
def test_a_path_hits_itself_with_any_query_and_nothing_else(
    api: str, other: str, query: str, path_match: PathMatch
) -> None:
    pattern = re.compile(path_pattern(api, path_match))
    assert pattern.search(api + query)
    base = api.rstrip("/")
    for path in (other, f"/x{api}", f"{api}x", f"{api}/x"):
        below = path_match is PathMatch.PREFIX and (path == base or path.startswith(base + "/"))
        assert bool(pattern.search(path + query)) == (path == api or below)


@pytest.mark.parametrize(
    ("path_match", "api", "hits", "misses"),
    [
        (
            "template",
            "/users/{id}",
            ["/users/7", "/users/7?x=1"],
            ["/users", "/users/", "/users/7/x", "/x/users/7"],
        ),
        ("template", "/{a}/f-{b}.json", ["/x/f-1.json"], ["/x/f-.json", "/x/f-1xjson", "/x/y/f-1.json"]),
        ("template", "/q{}", ["/q{}", "/q{}?"], ["/q", "/q1"]),
        ("exact", "/users/{id}", ["/users/{id}", "/users/{id}?x"], ["/users/7"]),
        ("prefix", "/q", ["/q", "/q/", "/q/1/2", "/q?x=/1", "/q/1?x"], ["/qq", "/x/q", "/Q"]),
        ("prefix", "/users/{id}/", ["/users/7", "/users/7/orders?x"], ["/users", "/users/"]),
        ("prefix", "/", ["/", "/x", "/x/y?z"], ["x"]),
    ],
    ids=[
        "a segment",
        "parts of segments",
        "empty braces",
        "braces as they are",
        "a prefix",
        "a prefix with a segment",
        "everything",
    ],
)
def test_a_template_means_one_segment_and_a_prefix_all_below(
    path_match: str, api: str, hits: list[str], misses: list[str]
) -> None:
    pattern = re.compile(path_pattern(api, PathMatch(path_match)))
    assert [path for path in hits if pattern.search(path)] == hits
    assert [path for path in misses if pattern.search(path)] == []


@pytest.mark.parametrize(
    ("options", "selector", "match"),
    [
        ({}, {"service": "PaymentService"}, {}),
        ({"namespace": "shop"}, {"service": "PaymentService", "namespace": "shop"}, {}),
        ({"selector": "*"}, {"service": "*"}, {}),
        ({"selector": "none"}, None, {}),
        ({"method": "POST"}, {"service": "PaymentService"}, {"method": {"exact": "POST"}}),
        (
            {"headers": {"x-run": "7", "x-user": {"prefix": "test-"}}},
            {"service": "PaymentService"},
            {"headers": [{"name": "x-run", "exact": "7"}, {"name": "x-user", "prefix": "test-"}]},
        ),
    ],
    ids=["no option", "a namespace", "any service", "no selector", "a method", "headers"],
)
def test_options_are_in_the_policy(
    plane: ControlPlane, options: dict[str, Any], selector: object, match: dict[str, Any]
) -> None:
    for driver in driver_at(plane.url, **options):
        driver.apply(abort_plan(), "p1", 5, SOON)
    spec = plane.posted[0]["spec"]
    assert spec.get("selector") == selector
    assert spec["rules"][0]["match"] == {"path": PATH} | match


@pytest.mark.parametrize(
    ("options", "headers"),
    [
        ({}, [{"name": "x-run", "exact": "7"}]),
        ({"X-Run": "7"}, [{"name": "X-Run", "exact": "7"}]),
        (
            {"x-user": {"prefix": "test-"}},
            [{"name": "x-user", "prefix": "test-"}, {"name": "x-run", "exact": "7"}],
        ),
    ],
    ids=["no option", "the same one", "another one"],
)
def test_the_headers_of_a_plan_are_in_its_policy_next_to_those_of_the_options(
    plane: ControlPlane, options: dict[str, Any], headers: list[dict[str, str]]
) -> None:
    for driver in driver_at(plane.url, headers=options):
        driver.apply(abort_plan(headers={"x-run": "7"}), "p1", 5, SOON)
    assert plane.posted[0]["spec"]["rules"][0]["match"] == {"path": PATH, "headers": headers}


def test_a_plan_that_asks_for_another_value_than_the_options_is_refused(plane: ControlPlane) -> None:
    for options in ({"x-run": "8"}, {"X-Run": {"prefix": "7"}}):
        for driver in driver_at(plane.url, headers=options):
            with pytest.raises(InvalidPlanError, match="has x-run, which the driver_options"):
                driver.apply(abort_plan(headers={"x-run": "7"}), "p1", 5, SOON)
    assert plane.posted == []


def test_a_control_plane_that_drops_headers_keeps_no_policy(
    plane: ControlPlane, driver: PolicyApiDriver
) -> None:
    plane.drops = ["spec.rules.0.match.headers"]
    with pytest.raises(ExecutorProtocolError, match="headers is missing; it was deleted"):
        driver.apply(abort_plan(headers={"x-run": "7"}), "p1", 5, SOON)
    assert plane.there() == []


def test_what_the_api_can_express_is_known_without_a_call(
    plane: ControlPlane, driver: PolicyApiDriver
) -> None:
    assert driver.capabilities(5) == {"headers"}
    assert plane.calls == []


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (
            {"name_space": "a"},
            "name_space: is not an option of the driver policy_api; did you mean namespace?",
        ),
        (
            {"qps": 1},
            "qps: is not an option of the driver policy_api, which knows headers, method, namespace, ",
        ),
        ({"namespace": "A b"}, "namespace: "),
        ({"namespace": 7}, "namespace: must be a valid string"),
        ({"selector": "all"}, "selector: must be 'service', '*' or 'none'"),
        ({"path_match": "regex"}, "path_match: must be 'template', 'exact' or 'prefix'"),
        ({"method": "get"}, "method: must be "),
        ({"headers": {"x": "a\nb"}}, "headers.x."),
        ({"headers": {"x": {"contains": "a"}}}, "headers.x."),
        ({"namespace": "shop", "selector": "none"}, "namespace needs a selector"),
    ],
    ids=[
        "a misspelt name",
        "an unknown name",
        "a namespace that is not a name",
        "a namespace that is a number",
        "an unknown selector",
        "an unknown way to match",
        "a method in small letters",
        "a header with a line break",
        "an unknown way to match a header",
        "a namespace without a selector",
    ],
)
def test_an_option_that_is_unknown_or_wrong_is_refused_by_its_name(
    options: dict[str, Any], line: str
) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        next(driver_at("http://localhost:1", **options))
    assert caught.value.lines[0].removeprefix("driver_options").lstrip(".: ").startswith(line)


def test_an_apply_that_is_repeated_is_one_policy_whose_time_begins_again(
    plane: ControlPlane, driver: PolicyApiDriver
) -> None:
    driver.apply(abort_plan(duration_seconds=10), "p1", 5, SOON)
    plane.pass_(8)
    name = driver.apply(abort_plan(duration_seconds=10), "p1", 5, SOON)
    plane.pass_(8)
    assert driver.status(name, 5) == RUNNING
    assert plane.there() == [name] == [driver.id_of("p1")]


def test_a_404_of_a_path_is_not_the_404_of_a_policy(plane: ControlPlane, driver: PolicyApiDriver) -> None:
    name = driver.apply(abort_plan(duration_seconds=10), "p1", 5, SOON)
    plane.proxied_404 = True
    with pytest.raises(ExecutorRejectedError, match="404 page not found"):
        driver.status(name, 5)
    with pytest.raises(ExecutorRejectedError, match="404 page not found"):
        driver.stop(name)
    with pytest.raises(ExecutorRejectedError):
        driver.apply(abort_plan(), "p2", 5, SOON)
    with pytest.raises(ExecutorRejectedError):
        driver.health(5)


@pytest.mark.parametrize(
    "body",
    [
        {"error": "not_found", "message": "no such path"},
        {"error": "not_found", "details": {"resource": "service"}},
        {"error": "not_found", "details": "policy"},
        ["not_found"],
    ],
)
def test_a_404_that_does_not_concern_the_policy_does_not_count(
    stub: StubExecutor, at_stub: PolicyApiDriver, body: object
) -> None:
    stub.answers.append((404, body))
    with pytest.raises(ExecutorRejectedError):
        at_stub.status("plan-p1", 5)


def test_it_is_healthy_if_its_store_is_ready(plane: ControlPlane, driver: PolicyApiDriver) -> None:
    driver.health(5)
    assert ("GET", "/v1/health") not in plane.calls
    plane.ready = False
    with pytest.raises(ExecutorServerError, match="/v1/ready"):
        driver.health(5)


def test_it_is_asked_for_its_health_if_it_says_nothing_of_readiness(
    plane: ControlPlane, driver: PolicyApiDriver
) -> None:
    plane.ready = None
    driver.health(5)
    assert plane.calls[-1] == ("GET", "/v1/health")


def test_its_api_has_no_versions(driver: PolicyApiDriver) -> None:
    assert (driver.speaks, driver.contract(5)) == (None, None)


def test_it_has_no_metrics(driver: PolicyApiDriver) -> None:
    with pytest.raises(FaultFailedError, match="no metrics"):
        driver.metrics("plan-p1", 5)


@pytest.mark.parametrize("body", [b"", b"created", [], {}, {"spec": None}, {"metadata": {"name": "plan-p2"}}])
def test_a_created_policy_that_is_not_ours_is_a_protocol_error_and_ours_is_named(
    stub: StubExecutor, at_stub: PolicyApiDriver, body: object
) -> None:
    stub.answers.append((201, body))
    with pytest.raises(ExecutorProtocolError) as caught:
        at_stub.apply(abort_plan(), "p1", 5, SOON)
    assert caught.value.apply_id == "plan-p1"


@pytest.mark.parametrize("body", [b"", [], {}, {"metadata": "plan-p1"}, {"metadata": {"name": "plan-p2"}}])
def test_a_policy_that_is_not_the_one_asked_for_is_a_protocol_error(
    stub: StubExecutor, at_stub: PolicyApiDriver, body: object
) -> None:
    stub.answers.append((200, body))
    with pytest.raises(ExecutorProtocolError):
        at_stub.status("plan-p1", 5)


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"error": "invalid_input", "message": "percentage is too large"}, "percentage is too large"),
        ({"error": "invalid request body: EOF"}, "invalid request body: EOF"),
    ],
)
def test_a_refusal_quotes_the_control_plane(
    stub: StubExecutor, at_stub: PolicyApiDriver, body: object, told: str
) -> None:
    stub.answers.append((400, body))
    with pytest.raises(ExecutorRejectedError, match=told):
        at_stub.apply(abort_plan(), "p1", 5, SOON)


def test_a_control_plane_that_is_down_is_a_server_error(stub: StubExecutor, at_stub: PolicyApiDriver) -> None:
    stub.down = True
    with pytest.raises(ExecutorServerError):
        at_stub.status("plan-p1", 5)
    with pytest.raises(ExecutorServerError):
        at_stub.stop("plan-p1")


IDS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)


@given(st.lists(IDS, unique=True, min_size=2, max_size=20))
def test_every_plan_id_has_a_name_of_its_own_that_can_be_deleted(ids: list[str]) -> None:
    names = [policy_name(each) for each in ids]
    assert len(set(names)) == len(ids)
    for name in names:
        assert name.replace("-", "").isalnum()
        assert name == name.lower()
        assert len(name) <= 63
        assert name not in {"status", "."}
    assert all(plan_id_of(name) in {plan_id, None} for name, plan_id in zip(names, ids, strict=True))


@given(st.from_regex(r"[a-z0-9][a-z0-9-]{0,35}", fullmatch=True))
def test_the_plan_of_a_usual_name_is_known(plan_id: str) -> None:
    assert plan_id_of(policy_name(plan_id)) == plan_id


@given(st.integers(100, 30_000), st.integers(0, 100), st.integers(1, 86_400))
def test_every_number_that_is_sent_is_whole_and_every_policy_ends(
    delay_ms: int, percentage: int, duration: int
) -> None:
    def numbers(value: Any) -> Iterator[object]:
        if isinstance(value, dict):
            for each in value.values():
                yield from numbers(each)
        elif isinstance(value, list):
            for each in value:
                yield from numbers(each)
        elif not isinstance(value, str):
            yield value

    plan = delay_plan(delay_seconds=delay_ms / 1000, percentage=percentage, duration_seconds=duration)
    body = policy_body(plan, "plan-p1", PolicyOptions())
    assert all(type(number) is int for number in numbers(body))
    fault = body["spec"]["rules"][0]["fault"]
    assert fault["duration_seconds"] > 0
    assert fault["delay"]["fixed_delay_ms"] == delay_ms


def test_the_drivers_errors_are_typed_for_any_server(free_tcp_port: int) -> None:
    [driver] = driver_at(f"http://127.0.0.1:{free_tcp_port}")
    for call in (
        lambda: driver.apply(abort_plan(), "p1", 1, SOON),
        lambda: driver.status("plan-p1", 1),
        lambda: driver.stop("plan-p1"),
        lambda: driver.health(1),
    ):
        with pytest.raises(ExecutorClientError):
            call()
