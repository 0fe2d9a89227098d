"""Options of a submission that are refused before anything is sent."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import pytest
from support.plans import abort_plan

from dispatcher import (
    CapabilityMissingError,
    Dispatcher,
    FaultPlan,
    InvalidPlanError,
    InvalidSettingsError,
    Settings,
)
from dispatcher.submissions import check_plan

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    with Dispatcher(Settings(redis_url="redis://127.0.0.1:1")) as dispatcher:
        yield dispatcher


@pytest.mark.parametrize("seconds", [0, -1, 31_536_001, 1e308, float("inf"), float("nan"), "5", True, [5]])
@pytest.mark.parametrize("option", ["timeout_sec", "expires"])
def test_a_time_that_no_clock_can_hold_is_refused(dispatcher: Dispatcher, option: str, seconds: Any) -> None:
    with pytest.raises(InvalidPlanError) as caught:
        dispatcher.submit(abort_plan(), **{option: seconds})
    assert caught.value.problems == [(option, "must be a number of seconds above 0, and at most 31536000")]


@pytest.mark.parametrize("value", [[], {}, 7, ["default"]], ids=repr)
@pytest.mark.parametrize("option", ["executor", "conflict_policy"])
def test_an_option_of_another_type_is_refused_as_any_wrong_one(
    dispatcher: Dispatcher, option: str, value: Any
) -> None:
    with pytest.raises(InvalidPlanError, match=f"{option} must be one of "):
        dispatcher.submit(abort_plan(), **{option: value})


@pytest.mark.parametrize(
    ("tags", "problem"),
    [
        ("monday", "must be a list or another iterable, not str"),
        (7, "must be a list or another iterable, not int"),
        (["a b"], "number 1 is not"),
        (["fine", ""], "number 2 is not"),
        (["x" * 65], "number 1 is not"),
        ([7], "number 1 is not"),
        ([f"t{number}" for number in range(17)], "must be at most 16"),
        (itertools.repeat("endless"), "must be at most 16"),
    ],
    ids=["a text", "a number", "a space", "an empty one", "a long one", "no text", "too many", "endless"],
)
def test_wrong_tags_are_refused(dispatcher: Dispatcher, tags: Any, problem: str) -> None:
    with pytest.raises(InvalidPlanError, match=problem) as caught:
        dispatcher.submit(abort_plan(), tags=tags)
    assert {name for name, _ in caught.value.problems} == {"tags"}
    with pytest.raises(InvalidPlanError, match=problem):
        dispatcher.submit_many([], tags=tags)


class Noted(FaultPlan):
    """A plan with more fields, for the program that makes it."""

    note: str = ""


SOME: dict[str, Any] = {"service": "S", "api": "/a"}
UNCHECKED: dict[str, tuple[FaultPlan, str]] = {
    "a percentage above 100": (abort_plan().model_copy(update={"percentage": 900}), "percentage"),
    "no time": (abort_plan().model_copy(update={"duration_seconds": 0}), "duration_seconds"),
    "half a second more": (abort_plan().model_copy(update={"duration_seconds": 1.5}), "duration_seconds"),
    "no path": (abort_plan().model_copy(update={"api": "no path"}), "api"),
    "no text": (abort_plan().model_copy(update={"api": object()}), "api"),
    "half a character": (abort_plan().model_copy(update={"service": "\ud800"}), "service"),
    "another kind of fault": (abort_plan().model_copy(update={"fault_type": "delay"}), "delay_seconds"),
    "fields that are missing": (FaultPlan.model_construct(**SOME), "fault_type"),
    "a wrong one with more fields": (
        Noted(**abort_plan().model_dump()).model_copy(update={"api": ""}),
        "api",
    ),
}


@pytest.mark.parametrize(("plan", "field"), UNCHECKED.values(), ids=UNCHECKED)
def test_a_plan_that_was_made_without_checks_is_refused_as_any_wrong_one(
    dispatcher: Dispatcher, plan: FaultPlan, field: str
) -> None:
    for submit in (dispatcher.submit, dispatcher.apply_and_observe):
        with pytest.raises(InvalidPlanError, match="invalid plan: ") as caught:
            submit(plan)
        assert field in dict(caught.value.problems)
    with pytest.raises(InvalidPlanError, match="invalid plan 2: ") as caught:
        dispatcher.submit_many([abort_plan(), plan])
    assert field in dict(caught.value.problems)


def test_a_plan_that_was_copied_with_good_changes_is_taken_as_it_is() -> None:
    for plan in (abort_plan().model_copy(update={"api": "/b"}), Noted(**abort_plan().model_dump(), note="x")):
        assert check_plan("plan", plan) is plan


@pytest.mark.parametrize("settings", ["redis://127.0.0.1:1", {"redis_url": "redis://127.0.0.1:1"}, 5, "", {}])
def test_settings_of_another_type_are_named(settings: Any) -> None:
    with pytest.raises(InvalidSettingsError, match="settings must be a Settings object, not"):
        Dispatcher(settings)


def front(**settings: Any) -> Dispatcher:
    """One whose Redis is never asked."""
    executors = {"default": settings}
    return Dispatcher(Settings.model_validate({"redis_url": "redis://127.0.0.1:1", "executors": executors}))


GRPC = {"protocol": "grpc", "grpc_status": 14, "abort_http_status": None}
PROBED: dict[str, Any] = {"observer": {"kind": "probe"}}


@pytest.mark.parametrize(
    ("settings", "plan", "missing", "why"),
    [
        ({"capabilities": []}, {"headers": {"x-a": "1"}}, ["headers"], "in the settings do not have it"),
        ({"capabilities": ["headers"]}, GRPC, ["grpc_status"], "in the settings do not have it"),
        (
            {"driver": "policy_api", **PROBED},
            GRPC,
            ["grpc_status"],
            "the API of its driver policy_api has no such field",
        ),
    ],
    ids=["no capability", "another capability", "an API without the field"],
)
def test_a_plan_for_more_than_the_settings_say_that_its_executor_can_is_refused(
    settings: dict[str, Any], plan: dict[str, Any], missing: list[str], why: str
) -> None:
    with front(**settings) as dispatcher, pytest.raises(CapabilityMissingError, match=why) as caught:
        dispatcher.submit(abort_plan(**plan))
    assert caught.value.missing == missing


def test_a_plan_that_a_probe_cannot_observe_is_refused() -> None:
    with (
        front(**PROBED) as dispatcher,
        pytest.raises(InvalidPlanError, match="observes by a probe, which sends no gRPC calls"),
    ):
        dispatcher.submit(abort_plan(**GRPC))


@pytest.mark.parametrize(
    ("plans", "plan_ids", "problem"),
    [
        (3, ["a", "b"], "there are 2 ids, and more plans"),
        (3, ["a", "b", "c", "d"], "there are 3 plans, and more ids"),
        (3, map(str, itertools.count()), "there are 3 plans, and more ids"),
        (3, ["a", "b c", "d"], "plan_ids, number 2 must be letters"),
        (3, ["a", None, "d"], "plan_ids, number 2 must be letters"),
        (3, ["a", "b", "a"], "must differ: a is there twice"),
        (3, "abc", "must be a list or another iterable, not str"),
        (None, ["a"], "there are 1 ids, and more plans"),
    ],
    ids=["too few", "too many", "endless", "a space", "no text", "one twice", "a text", "endless plans"],
)
@pytest.mark.parametrize("kind", [list, iter], ids=["a list", "an iterator"])
def test_wrong_ids_are_refused_before_anything_is_sent(
    dispatcher: Dispatcher, plans: int | None, plan_ids: Any, problem: str, kind: Any
) -> None:
    if plans is None:
        given: Any = itertools.repeat(abort_plan())
    else:
        given = kind([abort_plan()] * plans)
    with pytest.raises(InvalidPlanError, match=problem):
        dispatcher.submit_many(given, plan_ids=plan_ids)


def test_an_item_that_is_not_a_plan_is_refused_by_its_place(dispatcher: Dispatcher) -> None:
    wrong: Any = [abort_plan()] * 700 + ["no plan"]
    with pytest.raises(InvalidPlanError, match=r"plan 701 must be a FaultPlan, not str"):
        dispatcher.submit_many(wrong)
    with pytest.raises(InvalidPlanError, match=r"plan 701 must be a FaultPlan, not str"):
        dispatcher.submit_many(iter(wrong), plan_ids=map(str, range(701)))
    with pytest.raises(InvalidPlanError, match=r"plan must be a FaultPlan, not dict"):
        dispatcher.submit({"service": "x"})  # type: ignore[arg-type]
    with pytest.raises(InvalidPlanError, match=r"plan must be a FaultPlan, not dict"):
        dispatcher.apply_and_observe({"service": "x"})  # type: ignore[arg-type]
    with pytest.raises(InvalidPlanError, match=r"plans must be a list or another iterable, not NoneType"):
        dispatcher.submit_many(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidPlanError, match=r"plan 1 must be a FaultPlan, not tuple"):
        dispatcher.submit_many(abort_plan())  # type: ignore[arg-type]
