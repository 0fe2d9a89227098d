"""The faults API driver: what it sends, and what it makes of the answers."""

from __future__ import annotations

import json
import time
from contextlib import closing, suppress
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.odd_json import ODD, READ
from support.plans import abort_plan, delay_plan
from support.stub_executor import StubExecutor

from dispatcher import (
    Doubt,
    ExecutorClientConfig,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    FaultFailedError,
    FaultLostError,
    InvalidSettingsError,
    MetricsNotReadyError,
)
from workers.drivers.base import FaultState, FaultStatus, ListedFault, StopOutcome
from workers.drivers.fault_answers import MetricsAnswer
from workers.drivers.faults_api import FaultsApiDriver
from workers.drivers.moments import rfc3339

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = datetime(2100, 1, 2, 3, 4, 5, 678_900, tzinfo=UTC)
RUNNING, COMPLETED = FaultStatus(FaultState.RUNNING), FaultStatus(FaultState.COMPLETED)
METRICS = {"status_code": 503, "latency_ms": 1.5, "error_rate": 1.0, "trace_data": None, "logs": None}


@pytest.fixture
def stub() -> Iterator[StubExecutor]:
    with StubExecutor() as stub:
        yield stub


@pytest.fixture
def driver(stub: StubExecutor) -> Iterator[FaultsApiDriver]:
    driver = FaultsApiDriver(ExecutorClientConfig(base_url=stub.url), connections=1)
    yield driver
    driver.close()


def test_an_apply_is_what_the_specification_says(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    driver.apply(delay_plan(start_delay_ms=200), "key-1", 5, SOON)
    driver.apply(abort_plan(), "key-2", 5, SOON)
    assert stub.calls == [("POST", "/v1/faults/apply")] * 2
    assert [headers["idempotency-key"] for headers in stub.headers] == ["key-1", "key-2"]
    assert {headers["not-after"] for headers in stub.headers} == {"2100-01-02T03:04:05.678Z"}
    assert stub.bodies[0] == {
        "service": "PaymentService",
        "api": "/api/v1/payment/process",
        "fault_type": "delay",
        "percentage": 100,
        "duration_seconds": 1,
        "fault_config": {"delay_ms": 2500, "start_delay_ms": 200},
    }
    assert stub.bodies[1]["fault_config"] == {"http_status": 503}


def test_a_fault_goes_from_running_to_completed_to_observed(
    stub: StubExecutor, driver: FaultsApiDriver
) -> None:
    apply_id = driver.apply(abort_plan(), "key-1", 5, SOON)
    assert driver.status(apply_id, 5) == RUNNING
    driver.stop(apply_id)
    assert driver.status(apply_id, 5) == COMPLETED
    observation = driver.metrics(apply_id, 5)
    assert observation.execution_id == apply_id
    assert (observation.status_code, observation.latency_ms, observation.error_rate) == (503, 1.5, 1.0)
    assert observation.trace_data == {"resourceSpans": []}
    assert observation.logs == ["a line"]
    assert (observation.requests, observation.faulted, observation.unanswered) == (100, 100, 0)
    assert (observation.success_count, observation.error_count, observation.doubts) == (0, 100, ())


def test_the_minimal_answer_of_the_specification_is_kept_with_a_doubt_about_its_count(
    stub: StubExecutor, driver: FaultsApiDriver
) -> None:
    stub.answers.append((200, METRICS))
    observation = driver.metrics("f1", 5)
    assert (observation.status_code, observation.latency_ms, observation.error_rate) == (503, 1.5, 1.0)
    assert (observation.requests, observation.success_count, observation.faulted) == (None, None, None)
    assert observation.doubts == (Doubt.COUNT_UNKNOWN,)


def test_counts_are_taken_where_the_executor_sends_them(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    counts = {"success_count": 7, "error_count": 3, "error_rate": 0.3}
    stub.answers.append((200, METRICS | counts | {"extra": "ignored"}))
    observation = driver.metrics("f1", 5)
    assert (observation.success_count, observation.error_count, observation.requests) == (7, 3, 10)
    assert observation.doubts == ()


def test_all_that_an_executor_may_add_is_in_the_observation(
    stub: StubExecutor, driver: FaultsApiDriver
) -> None:
    added = {"requests": 10, "faulted": 8, "unanswered": 2, "latency_sd_ms": 3.0}
    added |= {"latency_p50_ms": 1.0, "latency_p95_ms": 2.0, "latency_p99_ms": 2.5}
    window = {"start_time": "2026-01-01T10:00:00.5+02:00", "end_time": "2026-01-01T08:00:02.500000001Z"}
    stub.answers.append((200, METRICS | added | window))
    observation = driver.metrics("f1", 5)
    assert {name: getattr(observation, name) for name in added} == added
    assert observation.started_at == datetime(2026, 1, 1, 8, 0, 0, 500_000, tzinfo=UTC)
    assert observation.ended_at == datetime(2026, 1, 1, 8, 0, 2, 500_000, tzinfo=UTC)


def test_requests_that_were_still_under_way_make_a_doubt(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    counts = {"requests": 4, "unanswered": 2}
    stub.answers.extend((200, METRICS | counts | {"unfinished": number}) for number in (1, 0))
    assert driver.metrics("f1", 5).doubts == (Doubt.INCOMPLETE,)
    assert driver.metrics("f1", 5).doubts == ()


@pytest.mark.parametrize("nothing", [None, 0], ids=["null", "zero"])
def test_a_fault_without_requests_has_neither_latency_nor_error_rate(
    stub: StubExecutor, driver: FaultsApiDriver, nothing: object
) -> None:
    figures = {
        "status_code": nothing,
        "latency_ms": nothing,
        "error_rate": nothing,
        "latency_p50_ms": nothing,
    }
    counts = {"requests": 0, "success_count": 0, "error_count": 0}
    stub.answers.append((200, METRICS | figures | counts))
    observation = driver.metrics("f1", 5)
    assert observation.requests == 0
    assert {getattr(observation, name) for name in figures} == {None}


@pytest.mark.parametrize("name", ["status_code", "latency_ms", "error_rate"])
def test_a_figure_that_is_null_was_not_seen(stub: StubExecutor, driver: FaultsApiDriver, name: str) -> None:
    stub.answers.append((200, METRICS | {name: None}))
    assert getattr(driver.metrics("f1", 5), name) is None


def test_status_0_is_not_a_status(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    stub.answers.append((200, METRICS | {"status_code": 0}))
    assert driver.metrics("f1", 5).status_code is None


def test_a_part_of_a_list_does_not_say_that_a_fault_is_over(
    stub: StubExecutor, driver: FaultsApiDriver
) -> None:
    stub.listings.append((206, b'{"faults": []}'))
    with pytest.raises(ExecutorServerError, match="206 a part of an answer"):
        driver.faults(5)


def test_a_page_of_a_list_does_not_say_that_a_fault_is_over(
    stub: StubExecutor, driver: FaultsApiDriver
) -> None:
    for more in (b'"total": 1', b'"next": "/v1/faults?page=2"', b'"metadata": {"continue": "abc"}'):
        stub.listings.append((200, b'{"faults": [], ' + more + b"}"))
        with pytest.raises(ExecutorProtocolError, match="is a part of a longer list"):
            driver.faults(5)
    stub.listings.append((200, b'{"faults": [], "total": 0, "next": null, "has_more": false}'))
    assert driver.faults(5) == []


def test_messages_may_be_null(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    stub.answers.append((200, {"apply_id": "f1", "status": "applied", "message": None}))
    assert driver.apply(abort_plan(), "key-1", 5, SOON) == "f1"
    stub.answers.append((200, {"apply_id": "f1", "status": "running", "error_msg": None}))
    assert driver.status("f1", 5) == RUNNING
    stub.answers.append((200, {"apply_id": "f1", "status": "failed", "error_msg": None}))
    with pytest.raises(FaultFailedError, match="no reason given"):
        driver.status("f1", 5)


def test_zeros_without_a_count_were_not_seen(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    stub.answers.append((200, METRICS | dict.fromkeys(["status_code", "latency_ms", "error_rate"], 0)))
    seen = driver.metrics("f1", 5)
    assert (seen.status_code, seen.latency_ms, seen.error_rate) == (None, None, None)
    assert seen.doubts == (Doubt.COUNT_UNKNOWN,)


def test_a_count_that_follows_from_the_others_is_known(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    stub.answers.append((200, METRICS | {"error_rate": None, "requests": 5, "success_count": 2}))
    stub.answers.append((200, METRICS | {"error_rate": None, "requests": 5, "error_count": 3}))
    for _ in range(2):
        seen = driver.metrics("f1", 5)
        assert (seen.success_count, seen.error_count) == (2, 3)


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"requests": 9, "success_count": 9}, "error_rate is 1, and error_count says 0 of 9"),
        (
            {"requests": 4, "unanswered": 2, "error_rate": 0.25},
            "error_rate is 0.25, and unanswered says 2 of 4",
        ),
        ({"error_count": 0}, "error_rate is 1, and error_count is 0"),
        ({"success_count": 0, "error_rate": 0}, "error_rate is 0, and success_count is 0"),
        ({"requests": 5, "success_count": 6}, "success_count is 6, and requests is only 5"),
        ({"requests": 5, "faulted": 6}, "faulted is 6, and requests is only 5"),
        ({"requests": 5, "unanswered": 6}, "unanswered is 6"),
        ({"requests": 5, "error_count": 6}, "error_count is 6"),
        ({"error_count": 2, "unanswered": 3}, "unanswered is 3, and error_count is only 2"),
        ({"requests": 5, "error_count": 5, "success_count": 1}, "make 6"),
        ({"requests": 0, "error_count": 1}, "error_count is 1"),
        ({"unanswered": 1, "unfinished": 2}, "unfinished is 2, and unanswered is only 1"),
        ({"success_count": 7, "error_count": 3}, "error_rate is 1, and error_count says 3 of 10"),
        ({"latency_p50_ms": 3, "latency_p95_ms": 2}, "latency_p50_ms is 3"),
        ({"latency_p50_ms": 3, "latency_p99_ms": 2}, "latency_p50_ms is 3"),
        ({"latency_p95_ms": 3, "latency_p99_ms": 2}, "latency_p95_ms is 3"),
        ({"start_time": "2026-01-01T00:00:01Z", "end_time": "2026-01-01T00:00:00Z"}, "end_time is before"),
        ({"status_code": 99}, "status_code must be from 100 to 599"),
        ({"status_code": 600}, "status_code must be from 100 to 599"),
    ],
    ids=lambda value: value if isinstance(value, str) else "metrics",
)
def test_metrics_that_contradict_themselves_are_a_protocol_error(
    stub: StubExecutor, driver: FaultsApiDriver, fields: dict[str, Any], named: str
) -> None:
    stub.answers.append((200, METRICS | fields))
    with pytest.raises(ExecutorProtocolError, match=named) as caught:
        driver.metrics("f1", 5)
    assert "(whole)" not in caught.value.message


@given(st.integers(0, 10**6), st.data())
def test_metrics_of_any_real_requests_do_not_contradict_each_other(
    requests: int, data: st.DataObject
) -> None:
    errors = data.draw(st.integers(0, requests))
    digits = data.draw(st.integers(2, 6))
    answer = METRICS | {
        "requests": requests,
        "error_count": errors,
        "success_count": requests - errors,
        "unanswered": data.draw(st.integers(0, errors)),
        "faulted": data.draw(st.integers(0, requests)),
        "error_rate": round(errors / requests, digits) if requests else 0.0,
    }
    figures = MetricsAnswer.model_validate(answer, strict=True).figures()
    assert figures["requests"] == requests
    assert ("error_rate" in figures) == (requests > 0)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, {"error": "not_found", "message": "no metrics yet"}),
        (409, {"error": "conflict"}),
        (425, {}),
        (202, {"status": "pending"}),
        (202, METRICS),
        (204, b""),
        (200, b" \n"),
        (200, {}),
        (200, {"apply_id": "f1", "status": "collecting", "message": "soon"}),
        (200, {"apply_id": "f1"}),
        (200, METRICS | {"status": "pending", "error_rate": 0.0}),
        (200, METRICS | {"status": "In Progress"}),
    ],
    ids=[
        "404 of a fault that is known",
        "409",
        "425",
        "202",
        "202 with figures",
        "204",
        "an empty body",
        "an empty object",
        "a status without figures",
        "an id without figures",
        "a status and zeros",
        "a status and figures",
    ],
)
def test_metrics_that_are_not_ready_are_not_a_failure(
    stub: StubExecutor, driver: FaultsApiDriver, status: int, body: object
) -> None:
    stub.answers.append((status, body))
    if status == 404:
        stub.answers.append((200, {"apply_id": "f1", "status": "completed"}))
    with pytest.raises(MetricsNotReadyError, match=f"/f1/metrics: {status}, no metrics yet"):
        driver.metrics("f1", 5)


def test_metrics_of_a_fault_that_failed_say_so(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    failed = {"apply_id": "f1", "status": "failed", "error_msg": "no data plane"}
    stub.answers.extend([(200, failed), (404, {}), (200, failed)])
    stub.answers.append((200, METRICS | failed))
    for _ in ("in the metrics", "in the status after a 404", "with figures"):
        with pytest.raises(FaultFailedError, match="no data plane"):
            driver.metrics("f1", 5)


@pytest.mark.parametrize("names", [("start_time", "end_time"), ("started_at", "ended_at")], ids=" and ".join)
def test_a_status_says_when_the_fault_began_and_ended(
    stub: StubExecutor, driver: FaultsApiDriver, names: tuple[str, str]
) -> None:
    begin, end = SOON, SOON + timedelta(seconds=3)
    local = begin.astimezone(timezone(timedelta(hours=5, minutes=30))).isoformat()
    stub.answers.append((200, {"status": "running", names[0]: local, names[1]: end.isoformat()}))
    stub.answers.append((200, {"status": "completed", names[0]: local, names[1]: end.isoformat()}))
    assert driver.status("f1", 5) == FaultStatus(FaultState.RUNNING, begin)
    assert driver.status("f1", 5) == FaultStatus(FaultState.COMPLETED, begin, end)


def test_a_time_that_go_never_set_is_none(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    stub.answers.append((200, {"status": "completed", "end_time": "0001-01-01T00:00:00Z"}))
    assert driver.status("f1", 5) == COMPLETED


@pytest.mark.parametrize(
    "moment",
    [
        "2026-01-01T00:00:00",
        "yesterday",
        "20260101T000000Z",
        "2026-02-30T00:00:00Z",
        "0001-01-01T00:00:00+23:59",
        "",
        1767225600,
        True,
    ],
    ids=repr,
)
@pytest.mark.parametrize("field", ["start_time", "end_time", "started_at", "ended_at"])
def test_a_time_without_a_zone_or_of_another_form_is_a_protocol_error_that_names_the_field(
    stub: StubExecutor, driver: FaultsApiDriver, field: str, moment: object
) -> None:
    stub.answers.append((200, {"status": "completed", field: moment}))
    stub.answers.append((200, METRICS | {field: moment}))
    with pytest.raises(ExecutorProtocolError, match=f"{field} must be a date and time"):
        driver.status("f1", 5)
    with pytest.raises(ExecutorProtocolError, match=f"{field} must be a date and time"):
        driver.metrics("f1", 5)


@given(st.datetimes(datetime(1970, 1, 1), datetime(2999, 1, 1), timezones=st.timezones()))  # noqa: DTZ001 (hypothesis adds the zone)
def test_what_is_sent_as_not_after_is_never_later_than_meant(moment: datetime) -> None:
    sent = datetime.fromisoformat(rfc3339(moment))
    assert timedelta(0) <= moment - sent < timedelta(milliseconds=1)


def test_an_apply_that_came_too_late_began_nothing_and_names_the_clocks(
    stub: StubExecutor, driver: FaultsApiDriver
) -> None:
    with pytest.raises(ExecutorRejectedError, match=r"began nothing.*clocks") as caught:
        driver.apply(abort_plan(), "key-1", 5, datetime(2020, 1, 1, tzinfo=UTC))
    assert (caught.value.status, caught.value.executor_message) == (412, "too_late")
    assert "2020-01-01T00:00:00.000Z" in caught.value.message
    assert not stub.running


def test_faults_are_listed_with_their_keys(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    faults = [
        {"apply_id": "f1", "key": "k1", "colour": "blue"},
        {"apply_id": "f2", "key": None},
        {"apply_id": "f3", "status": "running"},
        {"apply_id": "f4", "key": "k4", "status": "completed"},
    ]
    stub.listings.append((200, {"faults": faults}))
    assert driver.faults(5) == [ListedFault("f1", "k1"), ListedFault("f2", None), ListedFault("f3", None)]


def test_a_fault_is_listed_until_it_is_over(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    apply_id = driver.apply(abort_plan(duration_seconds=60), "key-1", 5, SOON)
    assert driver.faults(5) == [ListedFault(apply_id, "key-1")]
    driver.stop(apply_id)
    assert driver.faults(5) == []


@pytest.mark.parametrize("status", [404, 405, 501])
def test_an_executor_that_never_listed_faults_is_asked_once(
    stub: StubExecutor, driver: FaultsApiDriver, status: int
) -> None:
    stub.listings.append((status, b"404 page not found"))
    assert [driver.faults(5), driver.faults(5)] == [None, None]
    assert stub.lists == 1


def test_an_executor_that_listed_faults_once_is_asked_again(
    stub: StubExecutor, driver: FaultsApiDriver
) -> None:
    stub.listings.extend([(200, {"faults": []}), (404, {}), (200, {"faults": []})])
    assert [driver.faults(5) for _ in range(3)] == [[], None, []]


def test_a_list_that_fails_says_so(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    stub.listings.append((503, {}))
    with pytest.raises(ExecutorServerError):
        driver.faults(5)


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {},
        {"faults": None},
        {"faults": [{"key": "k"}]},
        {"faults": [{"apply_id": ".."}]},
        {"faults": ["f1"]},
    ],
    ids=repr,
)
def test_an_invalid_list_is_a_protocol_error(
    stub: StubExecutor, driver: FaultsApiDriver, answer: object
) -> None:
    stub.listings.append((200, answer))
    with pytest.raises(ExecutorProtocolError):
        driver.faults(5)


def test_an_option_is_refused_by_its_name(stub: StubExecutor) -> None:
    config = ExecutorClientConfig(base_url=stub.url, driver_options={"retries": 3})
    with pytest.raises(InvalidSettingsError) as caught:
        FaultsApiDriver(config, connections=1)
    assert caught.value.lines == [
        "driver_options.retries: is not an option of the driver faults_api, which knows none"
    ]


@pytest.mark.parametrize(
    ("health", "told"),
    [
        ({"status": "healthy", "contract": "1.3"}, "1.3"),
        ({"status": "healthy", "contract": 2}, "2"),
        ({"status": "healthy", "contract": "9" * 1000}, "9" * 20),
        ({"status": "healthy"}, None),
        (["healthy"], None),
        (b"OK", None),
    ],
)
def test_the_contract_version_is_what_the_health_answer_says(
    stub: StubExecutor, driver: FaultsApiDriver, health: object, told: str | None
) -> None:
    stub.health = (200, health)
    assert driver.contract(5) == told


@pytest.mark.parametrize(
    ("health", "found"),
    [
        ({"status": "unhealthy"}, "status 'unhealthy'"),
        ({"status": "Not Ready"}, "status 'Not Ready'"),
        ({"status": "DOWN", "components": {}}, "status 'DOWN'"),
        ({"healthy": False}, "healthy false"),
        ({"status": "ok", "ready": False}, "ready false"),
    ],
)
def test_an_executor_that_says_with_a_success_that_it_is_not_well_is_not_healthy(
    stub: StubExecutor, driver: FaultsApiDriver, health: object, found: str
) -> None:
    stub.health = (200, health)
    with pytest.raises(ExecutorServerError, match=f"/v1/health: 200, but the answer says {found}"):
        driver.health(5)


@pytest.mark.parametrize("health", [{"status": "healthy"}, {"status": "UP"}, {}, [], b"OK", b"", None])
def test_any_other_success_is_healthy(stub: StubExecutor, driver: FaultsApiDriver, health: object) -> None:
    stub.health = (200, health)
    driver.health(5)


def test_optional_fields_are_sent_for_plans_that_ask_for_them(
    stub: StubExecutor, driver: FaultsApiDriver
) -> None:
    calls = {"protocol": "grpc", "grpc_status": "UNAVAILABLE", "abort_http_status": None}
    driver.apply(abort_plan(headers={"x-b": "2", "x-a": "1"}), "key-1", 5, SOON)
    driver.apply(abort_plan(**calls), "key-2", 5, SOON)
    driver.apply(delay_plan(protocol="grpc"), "key-3", 5, SOON)
    with_headers, aborted, delayed = stub.bodies
    assert with_headers["headers"] == {"x-a": "1", "x-b": "2"}
    assert "protocol" not in with_headers
    assert (aborted["protocol"], aborted["fault_config"]) == ("grpc", {"grpc_status": 14})
    assert (delayed["protocol"], delayed["fault_config"]) == ("grpc", {"delay_ms": 2500})


@pytest.mark.parametrize(
    ("health", "can"),
    [
        ((200, {"status": "healthy", "capabilities": ["headers", "more"]}), {"headers", "more"}),
        ((200, {"status": "healthy", "capabilities": []}), set()),
        ((200, {"status": "healthy", "capabilities": None}), set()),
        ((200, {"status": "healthy"}), set()),
        ((200, b"OK"), set()),
        ((404, {"error": "not_found"}), set()),
    ],
    ids=["two", "an empty list", "null", "no field", "no JSON", "no such page"],
)
def test_capabilities_are_those_in_the_health_answer(
    stub: StubExecutor, driver: FaultsApiDriver, health: tuple[int, object], can: set[str]
) -> None:
    stub.health = health
    assert driver.capabilities(5) == can


@pytest.mark.parametrize(
    ("health", "error"),
    [
        ((200, {"capabilities": "headers"}), ExecutorProtocolError),
        ((200, {"capabilities": [1]}), ExecutorProtocolError),
        ((200, {"capabilities": {"headers": True}}), ExecutorProtocolError),
        ((503, {"status": "unhealthy", "capabilities": ["headers"]}), ExecutorServerError),
        ((401, {}), ExecutorRejectedError),
    ],
    ids=["a text", "a number", "an object", "an unhealthy Executor", "a refusal"],
)
def test_a_health_answer_that_does_not_say_what_it_can_do_is_an_error(
    stub: StubExecutor, driver: FaultsApiDriver, health: tuple[int, object], error: type[Exception]
) -> None:
    stub.health = health
    with pytest.raises(error):
        driver.capabilities(5)


def test_an_id_with_slashes_and_dots_stays_one_segment(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    stub.answers.extend([(200, {"apply_id": "../a/b?c#d%2F", "status": "applied"}), (200, METRICS)])
    driver.metrics(driver.apply(abort_plan(), "key-1", 5, SOON), 5)
    assert stub.calls[1][1] == "/v1/faults/..%2Fa%2Fb%3Fc%23d%252F/metrics"


@pytest.mark.parametrize("apply_id", ["", ".", "..", "x" * 201, None, 7])
def test_an_unusable_id_is_refused(stub: StubExecutor, driver: FaultsApiDriver, apply_id: object) -> None:
    stub.answers.append((200, {"apply_id": apply_id, "status": "applied"}))
    with pytest.raises(ExecutorProtocolError, match="apply_id"):
        driver.apply(abort_plan(), "key-1", 5, SOON)


@pytest.mark.parametrize(
    ("answer", "named"),
    [
        ({"apply_id": "f1", "status": "maybe"}, "f1"),
        ({"apply_id": "f1"}, "f1"),
        ({"apply_id": "..", "status": "maybe"}, ""),
        ({"apply_id": 7, "status": "applied"}, ""),
        (b"<html>", ""),
        ([], ""),
    ],
)
def test_a_broken_answer_to_an_apply_names_the_fault_that_may_exist(
    stub: StubExecutor, driver: FaultsApiDriver, answer: object, named: str
) -> None:
    stub.answers.append((200, answer))
    with pytest.raises(ExecutorProtocolError) as caught:
        driver.apply(abort_plan(), "key-1", 5, SOON)
    assert caught.value.apply_id == named


def test_an_answer_about_another_fault_is_a_protocol_error(
    stub: StubExecutor, driver: FaultsApiDriver
) -> None:
    other = {"apply_id": "f2"}
    stub.answers.extend([(200, {"status": "completed"} | other), (200, METRICS | other)])
    with pytest.raises(ExecutorProtocolError, match="is not about fault f1"):
        driver.status("f1", 5)
    with pytest.raises(ExecutorProtocolError, match="is not about fault f1"):
        driver.metrics("f1", 5)


def test_a_fault_that_is_over_needs_no_end_time_and_may_have_more_fields(
    stub: StubExecutor, driver: FaultsApiDriver
) -> None:
    stub.answers.append((200, {"status": "completed", "start_time": None, "colour": "blue"}))
    assert driver.status("f1", 5) == COMPLETED


def test_traces_and_logs_that_are_too_long_are_truncated_and_say_so(stub: StubExecutor) -> None:
    config = ExecutorClientConfig(base_url=stub.url, max_trace_bytes=100, max_log_bytes=50)
    long = METRICS | {"trace_data": {"resourceSpans": [{"n": n} for n in range(100)]}, "logs": ["x" * 20] * 9}
    stub.answers.extend([(200, long), (200, METRICS)])
    driver = FaultsApiDriver(config, connections=1)
    less, whole = driver.metrics("f1", 5), driver.metrics("f1", 5)
    driver.close()
    assert less.truncated == ["trace_data", "logs"]
    assert Doubt.TRUNCATED in less.doubts
    assert less.trace_data == {"resourceSpans": [{"n": n} for n in range(10)]}
    assert less.logs == ["x" * 20] * 2
    assert (whole.truncated, Doubt.TRUNCATED in whole.doubts) == ([], False)


@pytest.mark.parametrize("missing", METRICS)
def test_an_answer_that_misses_a_field_is_a_protocol_error(
    stub: StubExecutor, driver: FaultsApiDriver, missing: str
) -> None:
    stub.answers.append((200, {name: value for name, value in METRICS.items() if name != missing}))
    with pytest.raises(ExecutorProtocolError, match=f"{missing} is required"):
        driver.metrics("f1", 5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status_code", "503"),
        ("latency_ms", "fast"),
        ("latency_ms", -1),
        ("error_rate", 1.01),
        ("logs", "one line"),
        ("logs", [7]),
        ("error_count", -1),
        ("requests", 1.5),
        ("faulted", True),
        ("latency_p99_ms", -1),
    ],
)
def test_a_field_of_the_wrong_type_or_range_is_a_protocol_error(
    stub: StubExecutor, driver: FaultsApiDriver, name: str, value: object
) -> None:
    stub.answers.append((200, METRICS | {name: value}))
    with pytest.raises(ExecutorProtocolError, match=name):
        driver.metrics("f1", 5)


@pytest.mark.parametrize("answer", [[], "running", None, {"status": "paused"}, {}])
def test_an_invalid_status_is_a_protocol_error(
    stub: StubExecutor, driver: FaultsApiDriver, answer: object
) -> None:
    stub.answers.append((200, answer))
    with pytest.raises(ExecutorProtocolError):
        driver.status("f1", 5)


def test_a_failed_fault_says_why(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    stub.answers.append((200, {"status": "failed", "message": "no data plane"}))
    stub.answers.append((200, {"status": "failed", "error_msg": "data plane gone"}))
    with pytest.raises(FaultFailedError, match="no data plane"):
        driver.apply(abort_plan(), "key-1", 5, SOON)
    with pytest.raises(FaultFailedError, match="data plane gone"):
        driver.status("f1", 5)


def test_an_unknown_fault_is_lost(driver: FaultsApiDriver) -> None:
    with pytest.raises(FaultLostError):
        driver.status("unknown", 5)
    with pytest.raises(FaultLostError):
        driver.metrics("unknown", 5)


def test_an_unknown_service_is_a_rejection(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    stub.answers.append((404, {"error": "not_found", "message": "no such service"}))
    with pytest.raises(ExecutorRejectedError, match="no such service"):
        driver.apply(abort_plan(), "key-1", 5, SOON)


OVER, UNCONFIRMED = StopOutcome.OVER, StopOutcome.UNCONFIRMED


@pytest.mark.parametrize(
    ("status", "body", "outcome"),
    [
        (200, {"apply_id": "f1", "status": "completed"}, OVER),
        (200, {"status": "failed"}, OVER),
        (200, {"apply_id": "f1", "status": "running"}, UNCONFIRMED),
        (200, {"apply_id": "f2", "status": "completed"}, UNCONFIRMED),
        (200, {}, UNCONFIRMED),
        (200, b"stopped", UNCONFIRMED),
        (202, {"status": "completed"}, UNCONFIRMED),
        (204, b"", UNCONFIRMED),
        (404, {"error": "not_found"}, UNCONFIRMED),
        (405, {}, StopOutcome.UNSUPPORTED),
        (501, {}, StopOutcome.UNSUPPORTED),
    ],
    ids=[
        "200 that says completed",
        "200 that says failed",
        "200 that says running",
        "200 about another fault",
        "200 that says nothing",
        "200 without JSON",
        "202",
        "204",
        "404",
        "405",
        "501",
    ],
)
def test_a_stop_says_over_only_if_the_answer_does(
    stub: StubExecutor, driver: FaultsApiDriver, status: int, body: object, outcome: StopOutcome
) -> None:
    stub.answers.append((status, body))
    assert driver.stop("f1") is outcome
    assert stub.calls == [("DELETE", "/v1/faults/f1")]


def test_a_stop_that_fails_says_so(stub: StubExecutor, driver: FaultsApiDriver) -> None:
    stub.answers.append((503, {}))
    with pytest.raises(ExecutorServerError):
        driver.stop("f1")


@pytest.mark.parametrize("field", ["logs", "trace_data"])
@pytest.mark.parametrize("name", sorted(READ))
def test_odd_metrics_of_5_mb_cost_seconds_of_cpu_at_most(stub: StubExecutor, name: str, field: str) -> None:
    written = json.dumps({key: value for key, value in METRICS.items() if key != field}).encode()
    stub.answers.append((200, written[:-1] + b', "%b": %b}' % (field.encode(), ODD[name]())))
    config = ExecutorClientConfig(base_url=stub.url, max_response_bytes=5_100_000)
    with closing(FaultsApiDriver(config, connections=1)) as driver:
        begun_s = time.thread_time()
        with suppress(ExecutorProtocolError):
            assert len(driver.metrics("f1", 60).model_dump_json()) < 2_500_000
        assert time.thread_time() - begun_s < 3
