"""The course of a fault under each misdeed, and which ends of a plan name it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.misbehaviour.acts import NOT_READY, Act, Misdeed, misdeed_of, plan_of
from campaigns.misbehaviour.ends import ACCEPTED, CANCELLED_IN_TIME, Ended
from campaigns.misbehaviour.fault import NEVER, StubFault
from dispatcher import (
    Doubt,
    ExecutorClientError,
    FaultLostError,
    FaultUnobservedError,
    PlanCancelledError,
    RawObservation,
)

APPLIED = 1_000.0
TRUTH = {"requests": 200, "error_rate": 0.5, "ended": 1_004.0}


def fault(act: Act, *, after_share: float = 0.5, stopped: float | None = None) -> StubFault:
    misdeed = Misdeed(act, after_share, seconds=2.0, not_ready=409, stop=202)
    return StubFault("f0-1", misdeed, percentage=50, duration_s=4.0, applied=APPLIED, stopped=stopped)


def ended(act: Act, outcome: RawObservation | ExecutorClientError, at: float = 1_004.0) -> Ended:
    return Ended(act, outcome, at, TRUTH)


def observation(*doubts: Doubt, **changes: Any) -> RawObservation:
    fields: dict[str, Any] = {"requests": 200, "error_rate": 0.5} | changes
    return RawObservation(execution_id="f0-1", timestamp=datetime.now(UTC), doubts=doubts, **fields)


def test_every_misdeed_happens_to_some_of_200_plans_and_none_to_the_others() -> None:
    acts = [misdeed_of(18, number, 200).act for number in range(220)]
    assert set(acts[:200]) == set(Act) - {Act.WELL}
    assert set(acts[200:]) == {Act.WELL}


def test_a_seed_gives_the_same_plans_and_misdeeds_again() -> None:
    assert [misdeed_of(1, number, 9) for number in range(9)] == [
        misdeed_of(1, number, 9) for number in range(9)
    ]
    assert misdeed_of(1, 0, 9) != misdeed_of(2, 0, 9)
    assert plan_of(1, 0, 9) == plan_of(1, 0, 9)


def test_every_misdeed_has_ends_that_name_it() -> None:
    assert set(ACCEPTED) == set(Act)


@given(
    st.sampled_from(sorted(Act)),
    st.floats(0.2, 0.6),
    st.none() | st.floats(0.0, 60.0),
    st.floats(0.0, 60.0),
)
def test_a_fault_is_completed_only_once_it_is_over(
    act: Act, after_share: float, stopped_s: float | None, passed_s: float
) -> None:
    stopped = None if stopped_s is None else APPLIED + stopped_s
    one, now = fault(act, after_share=after_share, stopped=stopped), APPLIED + passed_s
    status = one.status(now)
    assert (status["status"] == "completed") <= (now >= one.ended)
    assert ("end_time" in status) <= (now >= one.ended)
    assert one.not_ready(now) >= (now < one.ended)


@given(st.sampled_from(sorted(Act)), st.floats(0.2, 0.6))
def test_the_numbers_of_requests_fit_together(act: Act, after_share: float) -> None:
    one = fault(act, after_share=after_share)
    metrics = one.metrics() if one.ended < NEVER else {}  # there are none of a fault that is never over
    if "requests" in metrics:
        assert metrics["success_count"] + metrics["error_count"] == metrics["requests"]
        assert 0 <= metrics["faulted"] <= metrics["requests"]


@pytest.mark.parametrize(
    ("act", "ends_after_s"),
    [
        pytest.param(Act.WELL, 4.0, id="a fault ends after its duration"),
        pytest.param(Act.LATE, 6.0, id="one that begins late ends late"),
        pytest.param(Act.EARLY_END, 2.0, id="a fault may end early"),
        pytest.param(Act.TOO_LONG, 6.0, id="a fault may last too long"),
        pytest.param(Act.ENDLESS, float("inf"), id="a fault may have no end"),
        pytest.param(Act.RESTARTED, 2.0, id="a restart ends it"),
    ],
)
def test_the_end_of_a_fault(act: Act, ends_after_s: float) -> None:
    assert fault(act).ended == APPLIED + ends_after_s


def test_a_stop_ends_what_can_be_stopped() -> None:
    assert fault(Act.ENDLESS, stopped=1_010.0).ended == 1_010.0
    assert fault(Act.STOP_SLOW, stopped=1_001.0).ended == 1_003.0
    assert fault(Act.STOP_IGNORED, stopped=1_001.0).ended == 1_004.0


def test_a_frozen_executor_is_silent_from_the_middle_to_the_end() -> None:
    one = fault(Act.FROZEN)
    assert one.silent_until(1_001.0) == 1_001.0
    assert one.silent_until(1_003.0) == one.ended == 1_006.0


def test_a_pause_shows_only_in_the_number_of_faulted_requests() -> None:
    well, paused = fault(Act.WELL).metrics(), fault(Act.PAUSED).metrics()
    assert (paused["requests"], paused["faulted"]) == (well["requests"], well["faulted"] * 0.6)
    assert paused["end_time"] == well["end_time"]


def test_a_status_that_is_not_ready_is_one_of_http() -> None:
    assert {misdeed_of(18, number, 200).not_ready for number in range(200)} == set(NOT_READY)


@pytest.mark.parametrize("act", sorted(set(Act) - {Act.WELL, Act.METRICS_LATE}))
def test_a_normal_observation_does_not_name(act: Act) -> None:
    assert not ended(act, observation()).noticed


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        pytest.param(Act.LATE, observation(Doubt.LATE, Doubt.SHORT), id="a doubt among others"),
        pytest.param(Act.LOST, FaultLostError("404"), id="an error"),
        pytest.param(Act.WELL, observation(), id="true figures"),
        pytest.param(Act.METRICS_LATE, observation(), id="true figures that came late"),
        pytest.param(Act.STOP_SLOW, PlanCancelledError("no more"), id="a plan that ended after its fault"),
    ],
)
def test_what_was_done_is_named_by(act: Act, outcome: RawObservation | ExecutorClientError) -> None:
    assert ended(act, outcome).noticed


@pytest.mark.parametrize(
    ("act", "outcome"),
    [
        pytest.param(Act.LATE, observation(Doubt.TRUNCATED), id="a doubt about something else"),
        pytest.param(Act.WELL, observation(Doubt.LATE), id="a doubt without a reason"),
        pytest.param(Act.WELL, observation(requests=0), id="figures that are wrong"),
        pytest.param(Act.LATE, FaultUnobservedError("none"), id="an error about something else"),
    ],
)
def test_what_was_done_is_not_named_by(act: Act, outcome: RawObservation | ExecutorClientError) -> None:
    assert not ended(act, outcome).noticed


def test_a_plan_that_is_cancelled_while_its_fault_is_alive_looks_normal() -> None:
    early = ended(Act.STOP_SLOW, PlanCancelledError("no more"), at=1_003.0)
    assert not early.noticed
    assert early.words == {f"{CANCELLED_IN_TIME} while the fault is alive"}
