"""Settings of observers: what is wrong is named, and no secret is shown."""

from __future__ import annotations

from typing import Any

import pytest

from dispatcher import InvalidSettingsError, load_settings
from dispatcher.settings.observers import ApiSettings, ProbeSettings, PrometheusSettings, ServiceSettings


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"headers": {"two words": "x"}}, "name 1 is none"),
        ({"headers": {"Host": "shop"}}, "host_header"),
        ({"headers": {"content-length": "1"}}, "must not have 'content-length'"),
        ({"headers": {"Authorization": "pa55\r\nX: y"}}, "that of 'Authorization' is none"),
        ({"headers": {"Authorization": " pa55"}}, "that of 'Authorization' is none"),
        ({"headers": {"Authorization": "pässword pa55"}}, "that of 'Authorization' is none"),
        ({"expected_statuses": [99]}, "must be a status such as 200"),
        ({"expected_statuses": ["6xx"]}, "must be a status such as 200"),
        ({"expected_statuses": []}, "at least 1"),
        ({"method": "TRACE"}, "'GET'"),
        ({"requests_per_sec": 0}, "greater than or equal to 1"),
        ({"concurrency": 0}, "greater than or equal to 1"),
        ({"recovery_timeout_sec": 0}, "greater than 0"),
        ({"request_timeout_sec": 1e9}, "less than or equal to"),
    ],
    ids=lambda value: str(value) if isinstance(value, dict) else "",
)
def test_what_does_not_fit_into_a_request_is_refused_and_not_repeated(
    fields: dict[str, Any], problem: str
) -> None:
    with pytest.raises(InvalidSettingsError) as caught:
        ProbeSettings.model_validate({"kind": "probe"} | fields)
    assert problem in str(caught.value)
    assert "pa55" not in str(caught.value)


@pytest.mark.parametrize("path", ["users/42", "/users/4 2", "/users#42", "/users/42\n"])
def test_an_example_path_is_a_path(path: str) -> None:
    with pytest.raises(InvalidSettingsError, match="must be a path such as"):
        ApiSettings(path=path)


def test_a_secret_header_comes_from_the_environment_and_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_EXECUTORS__DEFAULT__OBSERVER__KIND", "probe")
    monkeypatch.setenv("DISPATCHER_EXECUTORS__DEFAULT__OBSERVER__HEADERS__AUTHORIZATION", "Bearer pa55")
    settings = load_settings()
    observer = settings.executors["default"].observer
    assert isinstance(observer, ProbeSettings)
    assert observer.headers["authorization"].get_secret_value() == "Bearer pa55"
    assert "pa55" not in repr(settings)
    assert "pa55" not in settings.model_dump_json()


def test_a_wrong_secret_header_is_named_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPATCHER_SERVICES__SHOP__BASE_URL", "http://shop")
    monkeypatch.setenv("DISPATCHER_SERVICES__SHOP__HEADERS__AUTHORIZATION", "pa55\n")
    with pytest.raises(InvalidSettingsError, match=r"services\.shop\.headers must have values") as caught:
        load_settings()
    assert "pa55" not in repr(caught.value)


def test_a_body_is_a_secret_too() -> None:
    service = ServiceSettings(base_url="http://shop", body='{"password": "pa55"}')
    assert "pa55" not in repr(service)


def test_prometheus_is_asked_a_scrape_later_and_for_no_baseline_by_default() -> None:
    settings = PrometheusSettings(
        kind="prometheus", base_url="http://prometheus", error_rate_query="0", latency_query="0"
    )
    assert (settings.scrape_interval_sec, settings.baseline, settings.requests_query) == (15.0, False, None)
