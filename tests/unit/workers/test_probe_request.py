"""How an API is probed follows from three sections of the settings."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher.settings.observers import ApiSettings, ProbeSettings, ServiceSettings
from workers.observers.request import Load, ProbeRequest


def request(
    observer: dict[str, Any],
    service: dict[str, Any],
    api: str = "/pay",
    of_plan: dict[str, str] | None = None,
) -> ProbeRequest:
    return ProbeRequest.of(
        ProbeSettings.model_validate({"kind": "probe"} | observer),
        ServiceSettings.model_validate({"base_url": "http://shop"} | service),
        api,
        of_plan,
    )


def test_without_settings_it_is_a_get_that_expects_success_or_a_redirect() -> None:
    plain = request({}, {}, "/users/{id}")
    assert (plain.method, plain.path, plain.headers, plain.body) == ("GET", "/users/%7Bid%7D", {}, None)
    assert [status for status in range(100, 600) if plain.expects(status)] == list(range(200, 400))
    assert plain.timeout_s == 35.0


FIELDS = {
    "method": ("POST", "PUT", "PATCH"),
    "body": ("a", "b", "c"),
    "expected_statuses": (["200"], ["201"], ["2xx", "404"]),
    "request_timeout_sec": (1.0, 2.0, 3.0),
}


@pytest.mark.parametrize("name", FIELDS)
def test_an_api_comes_before_its_service_and_a_service_before_the_observer(name: str) -> None:
    def value(found: ProbeRequest) -> object:
        attribute = getattr(found, {"request_timeout_sec": "timeout_s"}.get(name, name))
        return (
            attribute.decode()
            if name == "body"
            else list(attribute)
            if name == "expected_statuses"
            else attribute
        )

    general, of_service, of_api = FIELDS[name]
    service = {name: of_service, "apis": {"/pay": {name: of_api}}}
    assert value(request({name: general}, {})) == general
    assert value(request({name: general}, service, "/other")) == of_service
    assert value(request({name: general}, service)) == of_api


def test_headers_are_merged_regardless_of_case() -> None:
    observer = {"headers": {"Authorization": "general", "X-Team": "chaos"}}
    service = {"headers": {"authorization": "own"}, "host_header": "Shop"}
    assert request(observer, service).headers == {"Host": "Shop", "authorization": "own", "X-Team": "chaos"}


def test_the_headers_of_a_plan_come_before_all_others() -> None:
    service = {"headers": {"X-Test-Run": "7", "X-Team": "chaos"}}
    found = request({}, service, of_plan={"x-test-run": "42", "x-user": "1"}).headers
    assert found == {"x-test-run": "42", "x-user": "1", "X-Team": "chaos"}


def test_an_example_path_is_called_instead_of_a_template() -> None:
    service = {"apis": {"/users/{id}": {"path": "/users/42?full=1"}}}
    assert request({}, service, "/users/{id}").path == "/users/42?full=1"


@pytest.mark.parametrize(
    ("expected", "status", "fine"),
    [
        ([404], 404, True),
        ([404], 200, False),
        (["4xx"], 429, True),
        (["200", "5xx"], 404, False),
    ],
    ids=["the one status", "another status", "a status of the class", "a status of neither"],
)
def test_expected_statuses_are_not_errors(expected: list[object], status: int, *, fine: bool) -> None:
    assert request({"expected_statuses": expected}, {}).expects(status) is fine


def test_a_services_load_comes_before_the_observers() -> None:
    observer = ProbeSettings(kind="probe", requests_per_sec=7, concurrency=3)
    plain = ServiceSettings(base_url="http://shop")
    own = ServiceSettings(base_url="http://shop", requests_per_sec=2, recovery_timeout_sec=9)
    assert Load.of(ProbeSettings(kind="probe"), plain) == Load(5, 175, 30.0, 35.0)
    assert Load.of(observer, plain) == Load(7, 3, 30.0, 35.0)
    assert Load.of(observer, own) == Load(2, 3, 9.0, 35.0)


@pytest.mark.parametrize(
    ("rate", "timeout_s", "concurrency"),
    [(5, 35, 175), (5, 2, 100), (7, 30.1, 211), (100, 35, 1000)],
    ids=["as many as can be held", "at least 100", "rounded up", "at most 1,000"],
)
def test_all_requests_of_one_plan_may_be_under_way_at_once(
    rate: int, timeout_s: float, concurrency: int
) -> None:
    api = ApiSettings(request_timeout_sec=timeout_s)
    service = ServiceSettings(
        base_url="http://shop", requests_per_sec=rate, request_timeout_sec=1, apis={"/pay": api}
    )
    load = Load.of(ProbeSettings(kind="probe"), service)
    assert (load.concurrency, load.longest_request_s) == (concurrency, timeout_s)


def test_a_request_shows_none_of_its_secrets() -> None:
    secret = request({"headers": {"Authorization": "pa55"}, "body": "pa55"}, {})
    assert "pa55" not in repr(secret)
