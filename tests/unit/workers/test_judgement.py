"""An observation says only what was seen, names every reason to distrust it, and else is an error."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.plans import abort_plan, plan_record

from dispatcher import (
    Doubt,
    ExecutorClientConfig,
    ExecutorProtocolError,
    FaultUnobservedError,
    Figures,
    OnDoubt,
    RawObservation,
    wilson_interval,
)
from dispatcher.settings.observers import ProbeSettings
from workers.engine.judgement import judge

if TYPE_CHECKING:
    from dispatcher.ledger.record import PlanRecord

APPLIED_MS = 1_900_000_000_000
DURATION_SECONDS = 10
CONFIG = ExecutorClientConfig()


def moment(seconds: float) -> datetime:
    """So many seconds after the apply."""
    return datetime.fromtimestamp(APPLIED_MS / 1000, UTC) + timedelta(seconds=seconds)


def record(*, percentage: int = 50, min_requests: int | None = None, **changes: Any) -> PlanRecord:
    plan = abort_plan(
        api="/pay", percentage=percentage, min_requests=min_requests, duration_seconds=DURATION_SECONDS
    )
    return plan_record("p1", **({"plan": plan, "applied_ms": APPLIED_MS} | changes))


def observed(**changes: Any) -> RawObservation:
    """One that went as planned, with these changes."""
    fields: dict[str, Any] = {
        "execution_id": "f1",
        "timestamp": moment(11),
        "requests": 400,
        "faulted": 200,
        "error_count": 200,
        "success_count": 200,
        "error_rate": 0.5,
        "latency_ms": 3.0,
        "status_code": 503,
        "started_at": moment(0),
        "ended_at": moment(DURATION_SECONDS),
    }
    return RawObservation.model_validate(fields | changes)


def at(seconds: float) -> int:
    return APPLIED_MS + round(seconds * 1000)


NO_WINDOW: dict[str, Any] = {"started_at": None, "ended_at": None}
NO_COUNTS: dict[str, Any] = {"error_count": None, "success_count": None, "error_rate": None}
INTERVAL: dict[str, Any] = {"error_rate_low": 0.3, "error_rate_high": 0.5}
MANY: dict[str, Any] = {"requests": 40_000, "error_count": 20_000}
TEN: dict[str, Any] = {"requests": 10, "error_count": None, "error_rate": None}
ALL_OF_TEN: dict[str, Any] = {"plan": abort_plan(percentage=100, duration_seconds=DURATION_SECONDS)}


def test_figures_of_a_fault_whose_id_another_one_has_are_of_either_and_are_not_believed() -> None:
    with pytest.raises(
        ExecutorProtocolError, match=r"plan p1: its fault has the id f1, .* plan p2"
    ) as caught:
        judge(record(apply_id="f1", twin="p2"), observed(), CONFIG)
    assert "repeat ids after a restart" in caught.value.message


def test_an_observation_that_went_as_planned_has_an_interval_and_no_doubts() -> None:
    seen = observed()
    low, high = wilson_interval(200, 400)
    assert judge(record(), seen, CONFIG) == seen.model_copy(
        update={"error_rate_low": low, "error_rate_high": high}
    )


@pytest.mark.parametrize(
    ("doubts", "of_record", "of_observation"),
    [
        pytest.param([], {}, {"started_at": moment(0.5)}, id="half a second late is in time"),
        pytest.param([Doubt.LATE, Doubt.SHORT], {}, {"started_at": moment(0.6)}, id="it began late"),
        pytest.param(
            [Doubt.LATE],
            {},
            {"started_at": moment(2), "ended_at": moment(12)},
            id="late, and as long as planned",
        ),
        pytest.param([Doubt.SHORT], {}, {"ended_at": moment(9.4)}, id="it ended early"),
        pytest.param([Doubt.LONG], {}, {"ended_at": moment(10.6)}, id="it ended late"),
        pytest.param([], {}, {"ended_at": moment(10.5)}, id="half a second too long is as planned"),
        pytest.param(
            [], {"began_ms": at(0.1), "over_ms": at(10)}, NO_WINDOW, id="the record knows the window"
        ),
        pytest.param(
            [Doubt.LATE],
            {"began_ms": at(1), "over_ms": at(11)},
            NO_WINDOW,
            id="the record knows that it began late",
        ),
        pytest.param([Doubt.WINDOW_UNKNOWN], {}, NO_WINDOW, id="the window is unknown"),
        pytest.param([Doubt.WINDOW_UNKNOWN], {}, {"ended_at": None}, id="its end is unknown"),
        pytest.param(
            [],
            {"takes_effect_ms": 5000},
            {"started_at": moment(0), "ended_at": moment(15)},
            id="the Executor counts from the apply, the fault takes 5 s to be in force",
        ),
        pytest.param(
            [Doubt.SHORT],
            {"takes_effect_ms": 5000},
            {"started_at": moment(0), "ended_at": moment(10)},
            id="the Executor's duration was not lengthened by what the fault takes to be in force",
        ),
        pytest.param(
            [],
            {"takes_effect_ms": 5000},
            {"started_at": moment(5), "ended_at": moment(15)},
            id="the Executor counts from when the fault is in force",
        ),
        pytest.param(
            [],
            {},
            {"started_at": moment(-60), "ended_at": moment(-50)},
            id="the Executor's clock is a minute slow",
        ),
        pytest.param(
            [Doubt.FEW_REQUESTS],
            {},
            {"requests": 50, "error_count": 25, "faulted": 25},
            id="few requests came",
        ),
        pytest.param(
            [],
            {},
            {"requests": 20, "error_count": 20, "error_rate": 1.0, "faulted": 10},
            id="20 requests are enough if all of them failed",
        ),
        pytest.param(
            [Doubt.COUNT_UNKNOWN], {}, {"requests": None, "error_count": None}, id="the count is unknown"
        ),
        pytest.param([], {}, {"requests": None}, id="successes and errors are the requests"),
        pytest.param([Doubt.WRONG_DOSE], {}, {"faulted": 0}, id="no request was hit"),
        pytest.param(
            [Doubt.WRONG_DOSE],
            {"plan": abort_plan(percentage=0, duration_seconds=DURATION_SECONDS)},
            {"faulted": 4},
            id="requests were hit, and none should have been",
        ),
        pytest.param(
            [Doubt.WRONG_DOSE],
            {"plan": abort_plan(percentage=100, duration_seconds=DURATION_SECONDS)},
            {"faulted": 340},
            id="a part of them was not hit, and all should have been",
        ),
        pytest.param(
            [],
            {"plan": abort_plan(percentage=2, duration_seconds=DURATION_SECONDS)},
            {"faulted": 0},
            id="no request was hit, and 8 should have been",
        ),
        pytest.param([], {}, {"faulted": 240}, id="40 of 400 hits too many are chance"),
        pytest.param([Doubt.WRONG_DOSE], {}, {"faulted": 241}, id="41 of 400 hits too many are not"),
        pytest.param([], {}, MANY | {"faulted": 21_000}, id="a twentieth of the hits too many is nothing"),
        pytest.param(
            [Doubt.WRONG_DOSE],
            {},
            MANY | {"faulted": 21_001},
            id="more of them are something",
        ),
        pytest.param([], ALL_OF_TEN, {"faulted": 7} | TEN, id="three of ten were not hit"),
        pytest.param([Doubt.WRONG_DOSE], ALL_OF_TEN, {"faulted": 6} | TEN, id="four of ten were not hit"),
        pytest.param([], {}, {"faulted": None}, id="the hits are unknown"),
        pytest.param([], {}, NO_COUNTS | INTERVAL, id="the Executor's own interval is 0.2 wide"),
        pytest.param(
            [Doubt.FEW_REQUESTS],
            {},
            NO_COUNTS | INTERVAL | {"error_rate_high": 0.51},
            id="the Executor's own interval is wider",
        ),
        pytest.param([], {}, NO_COUNTS | {"error_rate_low": 0.1}, id="the Executor sends half an interval"),
        pytest.param(
            [],
            {"plan": abort_plan(percentage=0, duration_seconds=DURATION_SECONDS)},
            {"faulted": 0},
            id="the fault should hit nothing",
        ),
        pytest.param([Doubt.TRUNCATED], {}, {"truncated": ["logs"]}, id="logs were truncated"),
        pytest.param(
            [Doubt.INCOMPLETE, Doubt.NOT_RECOVERED],
            {},
            {"doubts": (Doubt.NOT_RECOVERED, Doubt.INCOMPLETE, Doubt.NOT_RECOVERED)},
            id="the observer's doubts are kept, once each and in order",
        ),
    ],
)
def test_what_is_odd_is_a_doubt(
    doubts: list[Doubt], of_record: dict[str, Any], of_observation: dict[str, Any]
) -> None:
    assert list(judge(record(**of_record), observed(**of_observation), CONFIG).doubts) == doubts


def test_a_long_fault_may_be_off_by_a_twentieth() -> None:
    plan = abort_plan(duration_seconds=100)
    seen = observed(started_at=moment(5), ended_at=moment(110), faulted=None)
    assert judge(record(plan=plan), seen, CONFIG).doubts == ()


def test_another_fault_on_the_target_is_a_doubt() -> None:
    assert judge(record(), observed(), CONFIG, overlapped=True).doubts == (Doubt.OVERLAPPED,)


@pytest.mark.parametrize(
    ("of_record", "of_observation", "window"),
    [
        ({}, NO_WINDOW, (0, 10)),
        ({"takes_effect_ms": 5000}, NO_WINDOW, (5, 15)),
        ({"began_ms": at(3)}, NO_WINDOW, (3, 13)),
        ({"began_ms": at(3), "over_ms": at(4)}, NO_WINDOW, (3, 4)),
        ({"began_ms": at(3), "over_ms": at(4)}, {}, (0, 10)),
        ({}, {"started_at": moment(2), "ended_at": None}, (2, 12)),
    ],
)
def test_the_window_is_the_observations_or_the_records_or_the_planned_one(
    of_record: dict[str, Any], of_observation: dict[str, Any], window: tuple[float, float]
) -> None:
    judged = judge(record(**of_record), observed(**of_observation), CONFIG)
    assert (judged.started_at, judged.ended_at) == (moment(window[0]), moment(window[1]))


def test_the_window_of_an_observer_is_that_of_its_requests_and_says_nothing_of_the_fault() -> None:
    config = ExecutorClientConfig(driver="policy_api", observer=ProbeSettings(kind="probe"))
    seen = observed(started_at=moment(-2), ended_at=moment(13))
    judged = judge(record(began_ms=at(0), over_ms=at(10)), seen, config)
    assert (judged.started_at, judged.ended_at, judged.doubts) == (moment(-2), moment(13), ())


def test_a_fault_that_was_never_known_to_be_applied_has_no_window() -> None:
    judged = judge(record(applied_ms=None), observed(**NO_WINDOW), CONFIG)
    assert (judged.started_at, judged.ended_at, judged.doubts) == (None, None, (Doubt.WINDOW_UNKNOWN,))


@pytest.mark.parametrize(
    ("of_record", "of_observation"),
    [
        ({}, {"started_at": moment(1), "ended_at": moment(1)}),
        ({}, {"started_at": moment(2), "ended_at": moment(1)}),
        ({"began_ms": at(2), "over_ms": at(1)}, NO_WINDOW),
        ({"takes_effect_ms": 5000}, {"ended_at": moment(3)}),
    ],
)
def test_a_fault_that_ended_before_it_was_in_force_was_not_observed(
    of_record: dict[str, Any], of_observation: dict[str, Any]
) -> None:
    with pytest.raises(FaultUnobservedError) as caught:
        judge(record(**of_record), observed(**of_observation), CONFIG)
    assert caught.value.message == (
        "plan p1: its fault on PaymentService /pay ended before it was in force; see the Executor's log, and "
        "submit it as a new plan"
    )


@pytest.mark.parametrize(
    ("requests", "of_plan", "setting", "message"),
    [
        (0, None, 1, "no request met its fault on PaymentService /pay, and min_requests is 1; send"),
        (1, None, 2, "1 request met its fault on PaymentService /pay, and min_requests is 2"),
        (9, 10, 0, "9 requests met its fault on PaymentService /pay, and min_requests is 10"),
        (0, 0, 5, None),
        (5, None, 5, None),
        (0, None, 0, None),
    ],
)
def test_fewer_requests_than_the_least_are_not_an_observation(
    requests: int, of_plan: int | None, setting: int, message: str | None
) -> None:
    seen = observed(requests=requests, error_count=None, success_count=None)
    plan, config = record(min_requests=of_plan), ExecutorClientConfig(min_requests=setting)
    if message is None:
        assert judge(plan, seen, config).requests == requests
        return
    with pytest.raises(FaultUnobservedError) as caught:
        judge(plan, seen, config)
    assert message in str(caught.value)


def test_an_unknown_count_is_kept_with_its_doubt() -> None:
    judged = judge(record(), observed(requests=None, error_count=None), ExecutorClientConfig(min_requests=9))
    assert (judged.requests, judged.error_rate, judged.error_rate_low) == (None, 0.5, None)
    assert judged.doubts == (Doubt.COUNT_UNKNOWN,)


def test_figures_of_no_request_are_none_even_if_the_executor_sends_some() -> None:
    seen = observed(requests=0, error_count=0, success_count=0, error_rate=0.0, latency_ms=0.0)
    judged = judge(record(), seen, ExecutorClientConfig(min_requests=0))
    assert (judged.error_rate, judged.latency_ms, judged.status_code) == (None, None, None)
    assert (judged.error_rate_low, judged.error_rate_high) == (None, None)
    assert judged.doubts == (Doubt.FEW_REQUESTS,)
    uncounted = observed(requests=None, error_count=0, success_count=0, error_rate=0.0)
    judged = judge(record(), uncounted, ExecutorClientConfig(min_requests=0))
    assert (judged.requests, judged.error_rate) == (0, None)


def test_baseline_and_recovery_get_their_intervals_too() -> None:
    phase = Figures(requests=30, error_count=3, error_rate=0.1)
    judged = judge(record(), observed(baseline=phase, recovery=phase), CONFIG)
    for figures in (judged.baseline, judged.recovery):
        assert figures is not None
        assert (figures.error_rate_low, figures.error_rate_high) == wilson_interval(3, 30)


def test_an_error_rate_and_a_count_of_requests_make_an_interval() -> None:
    judged = judge(record(), observed(error_count=None, requests=400, error_rate=0.25), CONFIG)
    assert (judged.error_rate_low, judged.error_rate_high) == wilson_interval(100, 400)


@pytest.mark.parametrize(("said", "rate"), [(None, 0.5), (0.49, 0.49)], ids=["unknown", "known"])
def test_an_error_rate_that_the_executor_does_not_say_is_that_of_the_counts(
    said: float | None, rate: float
) -> None:
    judged = judge(record(), observed(error_rate=said), CONFIG)
    assert (judged.requests, judged.error_rate) == (400, rate)
    unknown = judge(record(), observed(**NO_COUNTS), CONFIG)
    assert (unknown.requests, unknown.error_rate) == (400, None)


def test_more_errors_than_requests_break_the_contract() -> None:
    wrong = Figures(requests=400, error_count=500)
    for seen in (observed(error_count=500), observed(baseline=wrong), observed(recovery=wrong)):
        for apply_id in ("f1", None):
            with pytest.raises(ExecutorProtocolError) as caught:
                judge(record(apply_id=apply_id), seen, CONFIG)
            assert caught.value.message == (
                "plan p1: 500 errors of 400 requests were observed, which cannot be"
            )
            assert caught.value.apply_id == (apply_id or "")


def test_a_doubt_that_the_settings_do_not_keep_fails_the_plan() -> None:
    config = ExecutorClientConfig(on_doubt={Doubt.LATE: OnDoubt.FAIL, Doubt.SHORT: OnDoubt.KEEP})
    assert judge(record(), observed(ended_at=moment(9)), config).doubts == (Doubt.SHORT,)
    with pytest.raises(FaultUnobservedError) as caught:
        judge(record(), observed(started_at=moment(1)), config)
    message = str(caught.value)
    assert "PaymentService /pay" in message
    assert "on_doubt" in message
    assert "late (the fault began later than planned)" in message
    assert "short" not in message
    strict = ExecutorClientConfig(on_doubt=dict.fromkeys((Doubt.LATE, Doubt.SHORT), OnDoubt.FAIL))
    with pytest.raises(FaultUnobservedError, match=r"planned\); short \(the fault was in force for less"):
        judge(record(), observed(started_at=moment(1)), strict)


DOUBTS = st.lists(st.sampled_from(Doubt)).map(tuple)
SECONDS = st.none() | st.floats(-30, 60).map(moment)
COUNT = st.none() | st.integers(0, 300)


@given(
    st.builds(
        observed,
        requests=COUNT,
        faulted=COUNT,
        error_count=COUNT,
        success_count=COUNT,
        error_rate=st.none() | st.floats(0, 1),
        started_at=SECONDS,
        ended_at=SECONDS,
        doubts=DOUBTS,
    ),
    st.builds(
        record,
        percentage=st.integers(0, 100),
        takes_effect_ms=st.integers(0, 30_000),
        began_ms=st.none() | st.just(at(1)),
        over_ms=st.none() | st.just(at(12)),
    ),
    st.builds(
        ExecutorClientConfig,
        min_requests=st.integers(0, 50),
        on_doubt=st.dictionaries(st.sampled_from(Doubt), st.sampled_from(OnDoubt), max_size=2),
    ),
    st.booleans(),
)
def test_every_observation_is_judged_once_and_for_all(
    seen: RawObservation,
    plan: PlanRecord,
    config: ExecutorClientConfig,
    overlapped: bool,  # noqa: FBT001
) -> None:
    try:
        judged = judge(plan, seen, config, overlapped=overlapped)
    except (FaultUnobservedError, ExecutorProtocolError):
        return
    assert RawObservation.model_validate(judged.model_dump()) == judged
    assert set(seen.doubts) <= set(judged.doubts)
    assert list(judged.doubts) == [doubt for doubt in Doubt if doubt in judged.doubts]
    assert not any(config.on_doubt.get(doubt) is OnDoubt.FAIL for doubt in judged.doubts)
    assert (Doubt.COUNT_UNKNOWN in judged.doubts) >= (judged.requests is None)
    assert judged.requests is None or judged.requests >= config.min_requests
    assert None not in {judged.started_at, judged.ended_at}
    if Doubt.WINDOW_UNKNOWN not in judged.doubts:
        assert judge(plan, judged, config) == judged
