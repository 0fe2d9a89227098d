"""The reference Executor's policy API: policies are faults with names."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import requests
from support.eventually import eventually

if TYPE_CHECKING:
    from support.processes import ExecutorProcess

SERVICE = "OrderService"


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A policy, and a target, of this test's own."""
    return "".join(each if each.isalnum() else "-" for each in request.node.name)


def policy(name: str, **fault: Any) -> dict[str, Any]:
    does = {"percentage": 100, "duration_seconds": 60, "abort": {"httpStatus": 503}} | fault
    rule = {"match": {"path": {"exact": f"/api/{name}"}}, "fault": does}
    return {
        "metadata": {"name": name, "version": "v1"},
        "spec": {"selector": {"service": SERVICE}, "rules": [rule]},
    }


def call(executor: ExecutorProcess, method: str, path: str, body: Any = None) -> requests.Response:
    return requests.request(method, f"{executor.url}/v1/policies{path}", json=body, timeout=60)


def hit(executor: ExecutorProcess, name: str, test_run: str = "") -> int:
    headers = {"Host": SERVICE} | ({"x-test-run": test_run} if test_run else {})
    return requests.get(f"{executor.proxy}/api/{name}", headers=headers, timeout=60).status_code


def test_a_policy_is_on_when_it_is_there_and_off_when_it_is_deleted(
    executor: ExecutorProcess, name: str
) -> None:
    created = call(executor, "POST", "", policy(name))
    assert (created.status_code, created.json()["metadata"]["name"]) == (201, name)
    assert call(executor, "GET", f"/{name}").json() == created.json()
    assert hit(executor, name) == 503
    assert call(executor, "DELETE", f"/{name}").status_code == 200
    assert hit(executor, name) == 200
    for method in ("GET", "DELETE"):
        gone = call(executor, method, f"/{name}")
        assert (gone.status_code, gone.json()["details"]) == (404, {"resource": "policy"})


def test_a_policy_with_headers_leaves_other_requests_alone(executor: ExecutorProcess, name: str) -> None:
    body = policy(name)
    body["spec"]["rules"][0]["match"]["headers"] = [{"name": "x-test-run", "exact": "42"}]
    created = call(executor, "POST", "", body)
    assert created.json()["spec"]["rules"][0]["match"] == body["spec"]["rules"][0]["match"]
    assert [hit(executor, name), hit(executor, name, "42"), hit(executor, name, "4")] == [200, 503, 200]
    call(executor, "DELETE", f"/{name}")


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([], id="none"),
        pytest.param([{"name": "x-a", "prefix": "4"}], id="a prefix"),
        pytest.param([{"name": "X-A", "exact": "4"}], id="a name in upper case"),
        pytest.param([{"name": "x-a", "exact": "4"}, {"name": "x-a", "exact": "5"}], id="a name twice"),
    ],
)
def test_headers_that_it_cannot_match_are_refused(
    executor: ExecutorProcess, name: str, headers: list[dict[str, str]]
) -> None:
    body = policy(name)
    body["spec"]["rules"][0]["match"]["headers"] = headers
    assert call(executor, "POST", "", body).status_code == 400
    assert hit(executor, name) == 200


def test_a_policy_ends_when_its_time_is_over(executor: ExecutorProcess, name: str) -> None:
    call(executor, "POST", "", policy(name, duration_seconds=1))
    eventually(lambda: call(executor, "GET", f"/{name}").status_code == 404)
    assert hit(executor, name) == 200


def test_the_same_name_again_takes_the_place_of_the_first(executor: ExecutorProcess, name: str) -> None:
    call(executor, "POST", "", policy(name))
    assert call(executor, "POST", "", policy(name, abort={"httpStatus": 418})).status_code == 201
    assert hit(executor, name) == 418
    call(executor, "DELETE", f"/{name}")


def test_a_delay_holds_requests(executor: ExecutorProcess, name: str) -> None:
    call(executor, "POST", "", policy(name, abort=None, delay={"fixed_delay_ms": 300}))
    answer = requests.get(f"{executor.proxy}/api/{name}", headers={"Host": SERVICE}, timeout=60)
    assert answer.elapsed.total_seconds() > 0.29
    call(executor, "DELETE", f"/{name}")


def test_a_path_may_come_as_a_regular_expression_for_any_query(executor: ExecutorProcess, name: str) -> None:
    body = policy(name)
    body["spec"]["rules"][0]["match"]["path"] = {"regex": rf"^/api/{re.escape(name)}\.b(\?.*)?$"}
    created = call(executor, "POST", "", body)
    assert created.json()["spec"]["rules"][0]["match"] == body["spec"]["rules"][0]["match"]
    assert [hit(executor, f"{name}{rest}") for rest in (".b", ".b?x=1", "xb", ".bb")] == [503, 503, 200, 200]
    call(executor, "DELETE", f"/{name}")


@pytest.mark.parametrize(
    "path",
    [
        {},
        {"exact": "/a", "regex": r"^/a(\?.*)?$"},
        {"regex": "/a"},
        {"regex": "^/a.b(\\?.*)?$"},
        {"regex": "^/(a|b)(\\?.*)?$"},
        {"regex": "^/a b(\\?.*)?$"},
        {"regex": rf"^/{'a' * 2048}(\?.*)?$"},
        {"prefix": "/a"},
    ],
    ids=[
        "nothing",
        "both",
        "an expression without anchors",
        "any character",
        "one of two paths",
        "a space",
        "a path that is too long",
        "a prefix",
    ],
)
def test_other_matches_than_one_path_are_refused(
    executor: ExecutorProcess, name: str, path: dict[str, str]
) -> None:
    body = policy(name)
    body["spec"]["rules"][0]["match"]["path"] = path
    refused = call(executor, "POST", "", body)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_input")
    assert "spec.rules.0.match.path" in refused.json()["message"]


def test_policies_are_listed_as_long_as_they_are_on(executor: ExecutorProcess, name: str) -> None:
    created = call(executor, "POST", "", policy(name)).json()
    assert created in call(executor, "GET", "").json()
    call(executor, "DELETE", f"/{name}")
    assert created not in call(executor, "GET", "").json()


def test_two_policies_on_one_target_are_a_conflict(executor: ExecutorProcess, name: str) -> None:
    first, second = policy(name), policy(name)
    second["metadata"]["name"] = f"{name}-2"
    call(executor, "POST", "", first)
    assert call(executor, "POST", "", second).status_code == 409
    call(executor, "DELETE", f"/{name}")


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        ({"duration_seconds": 0}, "spec.rules.0.fault.duration_seconds"),
        ({"percentage": 12.5}, "spec.rules.0.fault.percentage"),
        ({"abort": {"httpStatus": 9999}}, "spec.rules.0.fault.abort.httpStatus"),
        ({"abort": None}, "one of delay and abort"),
        ({"delay": {"fixed_delay_ms": 5}}, "one of delay and abort"),
        ({"colour": "blue"}, "spec.rules.0.fault.colour"),
    ],
)
def test_what_it_cannot_carry_out_is_refused_and_named(
    executor: ExecutorProcess, name: str, fault: dict[str, Any], named: str
) -> None:
    refused = call(executor, "POST", "", policy(name, **fault))
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_input")
    assert named in refused.json()["message"]


def test_a_name_that_could_not_be_deleted_and_an_unknown_service_are_refused(
    executor: ExecutorProcess, name: str
) -> None:
    body = policy(name)
    body["metadata"]["name"] = "a b/c"
    assert "metadata.name" in call(executor, "POST", "", body).json()["message"]
    body = policy(name)
    body["spec"]["selector"]["service"] = "UnknownService"
    assert call(executor, "POST", "", body).status_code == 404
