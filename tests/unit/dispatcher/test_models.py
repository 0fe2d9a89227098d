"""A plan that breaks a rule is refused, and every wrong field is named."""

from __future__ import annotations

import traceback
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support.plans import abort_plan, delay_plan

from dispatcher import FaultPlan, FaultType, InvalidPlanError, PlanState, RawObservation


def test_the_specifications_example_is_a_plan() -> None:
    plan = FaultPlan(
        service="PaymentService",
        api="/api/v1/payment/process",
        fault_type=FaultType.DELAY,
        delay_seconds=2.5,
        percentage=50,
        duration_seconds=30,
        start_delay_ms=200,
    )
    assert str(plan) == "delay 2.5 s after 200 ms, 50 % of PaymentService /api/v1/payment/process, 30 s"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("service", ""),
        ("service", "a b"),
        ("service", "a/b"),
        ("service", "-a"),
        ("service", "a" * 254),
        ("service", 7),
        ("api", "no/slash"),
        ("api", "/with?query"),
        ("api", "/with space"),
        ("api", "/line\nbreak"),
        ("api", "/" + "a" * 2048),
        ("fault_type", "explode"),
        ("percentage", -1),
        ("percentage", 101),
        ("percentage", 50.5),
        ("percentage", "50"),
        ("percentage", True),
        ("percentage", None),
        ("duration_seconds", 0),
        ("duration_seconds", -1),
        ("duration_seconds", 1.5),
        ("duration_seconds", 86_401),
        ("duration_seconds", float("inf")),
        ("delay_seconds", 1.0),
        ("abort_http_status", 399),
        ("abort_http_status", 600),
        ("abort_http_status", None),
        ("start_delay_ms", -1),
        ("start_time", "tomorrow"),
        ("start_time", "2030-01-31T12:00:00"),
        ("start_time", 1_900_000_000),
        ("start_time", "1900000000"),
        ("start_time", "2020"),
        ("start_time", "1.9e9"),
        ("start_time", "-5"),
        ("start_time", ""),
        ("start_time", "3000-01-01T00:00:00Z"),
        ("start_time", "9999-12-31T23:59:59-23:59"),
        ("color", "red"),
    ],
)
def test_only_the_wrong_field_is_named(field: str, value: object) -> None:
    with pytest.raises(InvalidPlanError) as caught:
        abort_plan(**{field: value})
    assert [name for name, _ in caught.value.problems] == [field]
    assert field in str(caught.value)


@pytest.mark.parametrize("value", [0.05, 30.1, float("nan"), float("inf"), None, "2"])
def test_only_the_wrong_delay_is_named(value: object) -> None:
    with pytest.raises(InvalidPlanError) as caught:
        delay_plan(delay_seconds=value)
    assert [name for name, _ in caught.value.problems] == ["delay_seconds"]


def test_every_wrong_field_is_named_at_once() -> None:
    with pytest.raises(InvalidPlanError) as caught:
        FaultPlan.model_validate(
            {"service": " ", "api": "x", "fault_type": "delay", "abort_http_status": 503, "percentage": 300}
        )
    named = {name for name, _ in caught.value.problems}
    assert named == {
        "service",
        "api",
        "percentage",
        "duration_seconds",
        "delay_seconds",
        "abort_http_status",
    }


def test_wrong_values_are_not_repeated_in_the_error() -> None:
    with pytest.raises(InvalidPlanError) as caught:
        abort_plan(service="s3cret value")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("number", [30.0, Decimal(30)])
def test_whole_numbers_of_other_types_are_whole_numbers(number: Any) -> None:
    assert abort_plan(duration_seconds=number).duration_seconds == 30


def test_a_start_time_is_a_moment_with_a_time_zone() -> None:
    plan = abort_plan(start_time="2030-01-31T12:00:00+01:00")
    assert plan.start_time == datetime(2030, 1, 31, 11, tzinfo=UTC)


YEARS = (datetime(2026, 1, 1), datetime(2999, 12, 31))  # noqa: DTZ001 (hypothesis adds the zone)


@given(
    st.builds(
        abort_plan,
        percentage=st.integers(0, 100),
        duration_seconds=st.integers(1, 86_400),
        abort_http_status=st.integers(400, 599),
        start_delay_ms=st.integers(0, 60_000),
        start_time=st.none() | st.datetimes(*YEARS, timezones=st.just(UTC)),
    )
    | st.builds(delay_plan, delay_seconds=st.floats(0.1, 30))
)
def test_a_plan_survives_json(plan: FaultPlan) -> None:
    assert FaultPlan.model_validate_json(plan.model_dump_json(exclude_none=True)) == plan


def test_a_plan_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        setattr(abort_plan(), "percentage", 7)  # noqa: B010 (mypy would see it coming)


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_an_error_rate_is_a_share(rate: float) -> None:
    with pytest.raises(ValidationError):
        RawObservation(
            execution_id="f1", timestamp=datetime.now(UTC), status_code=200, latency_ms=1, error_rate=rate
        )


def test_the_last_four_states_are_final() -> None:
    assert [state for state in PlanState if state.final] == list(PlanState)[-4:]


@pytest.mark.parametrize("text", ['{"headers": "pa55', b"pa55\xff", ""])
def test_text_that_is_not_json_is_refused_and_not_shown(text: str | bytes) -> None:
    with pytest.raises(InvalidPlanError, match=r"\(whole\) Invalid JSON") as caught:
        FaultPlan.model_validate_json(text)
    assert "pa55" not in "".join(traceback.format_exception(caught.value))


def test_a_truth_value_of_numpy_is_not_a_number() -> None:
    numpy = pytest.importorskip("numpy")
    with pytest.raises(InvalidPlanError, match="percentage must be a number, not bool"):
        abort_plan(percentage=numpy.bool_(True))
