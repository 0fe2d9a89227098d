"""An optimiser's point becomes the plan that its fault type asks for, and it is known what was left out."""

from __future__ import annotations

import enum
import logging
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dispatcher import FaultPlan, FaultType, InvalidPlanError

POINT = {
    "service": "PaymentService",
    "api": "/pay",
    "fault_type": "delay",
    "percentage": 50,
    "delay_seconds": 2.5,
    "abort_http_status": 503,
}


class Kind(enum.Enum):
    """As another program may define it."""

    ABORT = "abort"


class Number:
    """A number of a library that this project does not know."""

    def __init__(self, value: float) -> None:
        self._value = value

    def __float__(self) -> float:
        return self._value


def plan_of(changes: dict[str, Any] | None = None, **options: Any) -> FaultPlan:
    return FaultPlan.from_point(POINT | (changes or {}), **({"duration_seconds": 3} | options))


def notes_of(changes: dict[str, Any] | None = None, **options: Any) -> list[str]:
    return FaultPlan.explain_point(POINT | (changes or {}), **({"duration_seconds": 3} | options))


def problems_of(changes: dict[str, Any], **options: Any) -> dict[str, str]:
    with pytest.raises(InvalidPlanError) as caught:
        plan_of(changes, **options)
    with pytest.raises(InvalidPlanError, match="invalid p"):
        notes_of(changes, **options)
    return dict(caught.value.problems)


@pytest.mark.parametrize(
    ("kind", "delay", "status"),
    [
        ("delay", 2.5, None),
        ("abort", None, 503),
        (FaultType.ABORT, None, 503),
        (Kind.ABORT, None, 503),
    ],
)
def test_a_point_that_sets_both_becomes_what_its_type_says(
    kind: object, delay: float | None, status: int | None
) -> None:
    plan = plan_of({"fault_type": kind})
    assert (plan.delay_seconds, plan.abort_http_status) == (delay, status)
    assert (plan.service, plan.api, plan.percentage, plan.duration_seconds) == (
        "PaymentService",
        "/pay",
        50,
        3,
    )


@pytest.mark.parametrize("absent", [None, 0, 0.0, float("nan"), Decimal(0)])
@pytest.mark.parametrize("alone", ["delay_seconds", "abort_http_status"])
def test_a_point_without_a_type_has_the_one_that_it_sets_something_of(alone: str, absent: object) -> None:
    other = {"delay_seconds": "abort_http_status", "abort_http_status": "delay_seconds"}[alone]
    plan = plan_of({"fault_type": None, other: absent})
    assert plan.fault_type == {"delay_seconds": "delay", "abort_http_status": "abort"}[alone]
    assert notes_of({"fault_type": None, other: absent}) == [
        f"fault_type is {plan.fault_type}, because the point sets only {alone}"
    ]


@pytest.mark.parametrize(
    ("delay", "seconds"),
    [({"delay_ms": 250}, 0.25), ({"delay": 1.5}, 1.5), ({"delay_ms": Decimal(1500)}, 1.5)],
)
def test_a_delay_may_be_in_milliseconds(delay: dict[str, object], seconds: float) -> None:
    assert plan_of({"delay_seconds": None, **delay}).delay_seconds == seconds


def test_a_status_may_be_called_status() -> None:
    point = {"fault_type": "abort", "abort_http_status": None, "status": 502}
    assert plan_of(point).abort_http_status == 502


@pytest.mark.parametrize(
    ("percentage", "percentage_is", "percent"),
    [
        (1, "percent", 1),
        (1, "share", 100),
        (0, "share", 0),
        (0.0, "percent", 0),
        (0.29, "share", 29),
        (0.004, "share", 1),
        (Number(0.5), "share", 50),
        (33.4, "percent", 33),
        (Decimal("99.6"), "percent", 100),
    ],
)
def test_a_percentage_is_what_the_call_says_that_it_is(
    percentage: object, percentage_is: str, percent: int
) -> None:
    assert plan_of({"percentage": percentage}, percentage_is=percentage_is).percentage == percent


@pytest.mark.parametrize(
    ("changes", "options", "field"),
    [
        ({"percentage": 0.5}, {}, "percentage"),
        ({"percentage": 1.5}, {"percentage_is": "share"}, "percentage"),
        ({"percentage": 50}, {"percentage_is": "share"}, "percentage"),
        ({"percentage": -0.5}, {}, "percentage"),
        ({"percentage": -0.5}, {"percentage_is": "share"}, "percentage"),
        ({"percentage": 100.4}, {}, "percentage"),
        ({"percentage": "50"}, {}, "percentage"),
        ({"percentage": True}, {}, "percentage"),
        ({"percentage": None}, {}, "percentage"),
        ({"percentage": float("nan")}, {}, "percentage"),
        ({"percentage": 10**400}, {}, "percentage"),
        ({}, {"percentage_is": "fraction"}, "percentage_is"),
        ({}, {"duration_seconds": None}, "duration_seconds"),
        ({"service": ""}, {}, "service"),
        ({"delay_seconds": None}, {}, "delay_seconds"),
        ({"delay_seconds": 0}, {}, "delay_seconds"),
        ({"delay_seconds": 99.0}, {}, "delay_seconds"),
        ({"delay_seconds": "2"}, {}, "delay_seconds"),
        ({"fault_type": "abort", "abort_http_status": None}, {}, "abort_http_status"),
        ({"fault_type": "explode"}, {}, "fault_type"),
        ({"fault_type": None}, {}, "fault_type"),
        ({"fault_type": None, "delay_seconds": 0, "abort_http_status": 0}, {}, "fault_type"),
        ({"delay_ms": 2500}, {}, "delay_ms"),
        ({"fault_type": "abort", "status": 500}, {}, "status"),
        ({"delay_secs": 2}, {}, "delay_secs"),
    ],
)
def test_a_point_that_makes_no_plan_is_refused_and_the_field_is_named(
    changes: dict[str, Any], options: dict[str, Any], field: str
) -> None:
    assert set(problems_of(changes, **options)) == {field}


def test_what_is_not_a_point_is_refused() -> None:
    with pytest.raises(InvalidPlanError, match="must be a mapping"):
        FaultPlan.from_point([])  # type: ignore[arg-type] # the call is the mistake


def test_every_key_that_makes_no_sense_is_named_at_once() -> None:
    assert set(problems_of({"color": "red", "fault_type": None, "percentage": 0.5})) == {
        "color",
        "fault_type",
        "percentage",
    }


def test_arguments_win_over_the_point() -> None:
    plan = plan_of({"duration_seconds": 9, "api": None}, service="OrderService", api="/orders")
    assert (plan.service, plan.api, plan.duration_seconds) == ("OrderService", "/orders", 3)


def test_other_fields_of_a_plan_are_taken_as_they_are() -> None:
    plan = plan_of({"start_delay_ms": 20, "min_requests": 5, "takes_effect_sec": 1.5, "start_time": None})
    assert (plan.start_delay_ms, plan.min_requests, plan.takes_effect_sec, plan.start_time) == (
        20,
        5,
        1.5,
        None,
    )


def test_headers_are_taken_as_they_are() -> None:
    assert plan_of({"headers": {"x-test-run": "42"}}).headers == {"x-test-run": "42"}
    assert set(problems_of({"headers": {}})) == {"headers"}


def test_the_protocol_decides_which_status_an_abort_has() -> None:
    both = {"fault_type": "abort", "grpc_status": 14, "abort_http_status": 503}
    http, grpc = plan_of(both), plan_of(both | {"protocol": "grpc"})
    assert (http.abort_http_status, http.grpc_status) == (503, None)
    assert (grpc.abort_http_status, grpc.grpc_status) == (None, 14)
    other = "is left out, because it belongs to faults of another protocol"
    assert f"grpc_status {other}" in notes_of(both)
    assert f"abort_http_status {other}" in notes_of(both | {"protocol": "grpc"})
    assert set(problems_of(both | {"protocol": "grpc", "grpc_status": None})) == {"grpc_status"}


def test_the_type_of_a_grpc_fault_follows_from_what_is_set() -> None:
    point = {"fault_type": None, "protocol": "grpc", "grpc_status": 14, "delay_seconds": None}
    assert plan_of(point).fault_type is FaultType.ABORT


def test_what_was_made_of_a_point_can_be_asked_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    changes = {"fault_type": "delay", "delay_seconds": None, "delay_ms": 250, "percentage": 0.304}
    options = {"percentage_is": "share", "service": "OrderService"}
    notes = [
        "service of the point is left out, because the call gives another one",
        "delay_ms 250 is a delay of 0.25 s",
        "abort_http_status is left out, because it belongs to abort faults",
        "percentage 0.304 is a share: 30 %",
    ]
    assert notes_of(changes, **options) == notes
    with caplog.at_level(logging.INFO, "dispatcher"):
        plan_of(changes, **options)
    assert caplog.messages == [
        "; ".join(["a point became the plan delay 0.25 s, 30 % of OrderService /pay, 3 s", *notes])
    ]


def test_nothing_is_said_of_a_point_that_is_taken_as_it_is() -> None:
    assert notes_of({"abort_http_status": 0, "duration_seconds": 3}) == []


NUMBERS = st.none() | st.integers(-10, 700) | st.floats() | st.booleans() | st.text(max_size=3)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "service": st.sampled_from(["A", "", None]),
            "api": st.just("/x"),
            "fault_type": st.sampled_from(["delay", "abort", None, "other"]),
            **dict.fromkeys(
                ["percentage", "delay_seconds", "delay_ms", "delay", "abort_http_status", "status"], NUMBERS
            ),
        },
    ),
    st.sampled_from(["percent", "share"]),
)
def test_any_point_is_a_plan_of_its_type_or_is_refused(point: dict[str, Any], percentage_is: Any) -> None:
    try:
        plan = FaultPlan.from_point(point, percentage_is=percentage_is, duration_seconds=1)
    except InvalidPlanError:
        return
    scale = 100 if percentage_is == "share" else 1
    assert abs(plan.percentage - float(point["percentage"]) * scale) < 1
    assert (plan.percentage == 0) == (point["percentage"] == 0)
    assert plan.fault_type == (point.get("fault_type") or plan.fault_type)
    assert (plan.delay_seconds is None) == (plan.fault_type is FaultType.ABORT)
