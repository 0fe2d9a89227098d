"""What an observation says was really so: its window, its counts, and what is to doubt in it."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from support.eventually import eventually
from support.fleet import Fleet, FleetOfExecutors
from support.plans import abort_plan
from support.stub_executor import UNKNOWN

from dispatcher import (
    Doubt,
    FaultFailedError,
    FaultLostError,
    FaultUnobservedError,
    MetricsNotReadyError,
    PlanCancelledError,
    PlanState,
    RawObservation,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.stub_executor import StubExecutor

    from dispatcher import PlanHandle

LOOK_S = 0.2
TAKES_S = 1.0
SLACK_S = 3.0
"""For steps on a busy machine."""

STRICT = {"min_requests": 50, "on_doubt": {"count_unknown": "fail", "late": "keep"}}
EXECUTORS: dict[str, dict[str, Any]] = {
    "default": {"check_interval_sec": LOOK_S},
    "slow_plane": {"takes_effect_sec": TAKES_S, "check_interval_sec": LOOK_S},
    "strict": STRICT | {"check_interval_sec": LOOK_S},
}
WINDOW_UNKNOWN = (Doubt.WINDOW_UNKNOWN,)
"""What is to doubt in each observation of a stub that says nothing of its faults' window."""


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with FleetOfExecutors(tmp_path_factory.mktemp("fleet"), EXECUTORS) as fleet:
        yield fleet


def seconds_after(begin: float, moment: datetime | None) -> float:
    """How long after a moment of the monotonic clock a moment of the day was."""
    assert moment is not None
    return moment.timestamp() - (time.time() - time.monotonic()) - begin


def running(fleet: Fleet, executor: str = "default", **changes: Any) -> PlanHandle:
    handle = fleet.submit(executor, **({"duration_seconds": 60} | changes))
    eventually(lambda: handle.status().state is PlanState.RUNNING)
    return handle


def test_a_fault_that_takes_effect_late_is_longer_and_its_window_begins_when_it_is_in_force(
    fleet: Fleet,
) -> None:
    stub = fleet.stubs["slow_plane"]
    handle = fleet.submit("slow_plane", duration_seconds=1)
    api = handle.status().plan.api
    following = fleet.submit("slow_plane", api=api)
    observation = handle.result(30)
    assert stub.requests[handle.id]["duration_seconds"] == 1 + TAKES_S
    begun = stub.running[handle.id] - 1 - TAKES_S
    assert seconds_after(begun, observation.started_at) == pytest.approx(TAKES_S, abs=0.5)
    assert seconds_after(begun, observation.ended_at) == pytest.approx(TAKES_S + 1, abs=0.5)
    following.result(30)
    _, second = stub.applied_at(api)
    assert TAKES_S - 0.05 <= second - stub.running[handle.id] <= 2 * TAKES_S + SLACK_S


def test_a_target_is_reserved_until_a_stop_has_surely_arrived(fleet: Fleet) -> None:
    stub = fleet.stubs["slow_plane"]
    handle = running(fleet, "slow_plane")
    api = handle.status().plan.api
    following = fleet.submit("slow_plane", api=api)
    handle.cancel("seen enough")
    with pytest.raises(PlanCancelledError):
        handle.result(30)
    ended = time.monotonic()
    assert handle.id in stub.stopped
    following.result(30)
    _, second = stub.applied_at(api)
    assert TAKES_S - 0.3 <= second - ended <= TAKES_S + SLACK_S


def test_a_plan_says_itself_how_late_its_fault_takes_effect(fleet: Fleet) -> None:
    handle = fleet.submit("slow_plane", duration_seconds=1, takes_effect_sec=0)
    assert handle.result(30).doubts == WINDOW_UNKNOWN
    assert fleet.stubs["slow_plane"].requests[handle.id]["duration_seconds"] == 1
    handle = fleet.submit(duration_seconds=1, takes_effect_sec=0.5)
    observation = handle.result(30)
    assert fleet.stub.requests[handle.id]["duration_seconds"] == 2
    begun = fleet.stub.running[handle.id] - 2
    assert seconds_after(begun, observation.started_at) == pytest.approx(0.5, abs=0.4)


def fails(stub: StubExecutor, handle: PlanHandle) -> None:
    answer = (200, {"apply_id": handle.id, "status": "failed", "error_msg": "no such pod"})
    stub.instead["status", handle.status().plan.api] = lambda fault: answer if fault == handle.id else None


def is_taken_away(stub: StubExecutor, handle: PlanHandle) -> None:
    stub.running[handle.id] = 0.0


def is_lost(stub: StubExecutor, handle: PlanHandle) -> None:
    del stub.running[handle.id]


def is_known_only_to_a_stop(stub: StubExecutor, handle: PlanHandle) -> None:
    api = handle.status().plan.api
    stub.instead["status", api] = lambda fault: UNKNOWN if fault == handle.id else None


@pytest.mark.parametrize(
    ("trouble", "expected"),
    [
        pytest.param(fails, FaultFailedError, id="it fails"),
        pytest.param(is_taken_away, Doubt.SHORT, id="it is taken away by hand"),
        pytest.param(is_lost, FaultLostError, id="it is lost"),
        pytest.param(is_known_only_to_a_stop, FaultLostError, id="only its stop still finds it"),
    ],
)
def test_what_becomes_of_a_long_fault_is_known_early(
    fleet: Fleet,
    trouble: Callable[[StubExecutor, PlanHandle], None],
    expected: type[Exception] | Doubt,
) -> None:
    handle = running(fleet)
    begun = time.monotonic()
    trouble(fleet.stub, handle)
    if isinstance(expected, Doubt):
        observation = handle.result(30)
        assert expected in observation.doubts
        assert observation.ended_at is not None
        assert abs(datetime.now(UTC) - observation.ended_at) < timedelta(seconds=SLACK_S)
    else:
        with pytest.raises(expected, match="no such pod" if expected is FaultFailedError else None):
            handle.result(30)
    assert time.monotonic() - begun < SLACK_S
    fleet.submit(api=handle.status().plan.api, conflict_policy="reject").result(30)


@pytest.mark.parametrize(
    ("began_s", "ended_s", "doubts"),
    [
        pytest.param(0, 1, set(), id="as planned"),
        pytest.param(0.8, 1.8, {Doubt.LATE}, id="late"),
        pytest.param(0, 0.3, {Doubt.SHORT}, id="ended early"),
        pytest.param(0.8, 1.1, {Doubt.LATE, Doubt.SHORT}, id="late, and ended early"),
        pytest.param(0, 1.9, {Doubt.LONG}, id="ended late"),
    ],
)
def test_the_window_is_the_executors_and_what_differs_from_the_plan_is_a_doubt(
    fleet: Fleet, began_s: float, ended_s: float, doubts: set[Doubt]
) -> None:
    api = fleet.target()
    applied: list[tuple[datetime, float]] = []

    def apply(_: str) -> None:
        applied.append((datetime.now(UTC), time.monotonic()))

    def status(fault: str) -> tuple[int, object]:
        at, begun = applied[0]
        over = time.monotonic() >= begun + ended_s
        answer = {
            "apply_id": fault,
            "status": "completed" if over else "running",
            "start_time": (at + timedelta(seconds=began_s)).isoformat(),
        }
        return 200, answer | ({"end_time": (at + timedelta(seconds=ended_s)).isoformat()} if over else {})

    fleet.stub.instead |= {("apply", api): apply, ("status", api): status}
    observation = fleet.submit(api=api, duration_seconds=1).result(30)
    at, _ = applied[0]
    window = (observation.started_at, observation.ended_at)
    for moment, after_s in zip(window, (began_s, ended_s), strict=True):
        assert moment is not None
        assert abs(moment - at - timedelta(seconds=after_s)) <= timedelta(milliseconds=1)
    assert set(observation.doubts) == doubts


NOT_READY: dict[str, tuple[int, object]] = {
    "404": UNKNOWN,
    "409": (409, {"error": "conflict", "message": "not ready"}),
    "425": (425, {"message": "too early"}),
    "202": (202, {"status": "pending"}),
    "204": (204, b""),
    "an empty object": (200, {}),
    "pending": (200, {"status": "pending"}),
}


def test_metrics_that_are_not_ready_yet_are_asked_for_again(fleet: Fleet) -> None:
    asked: Counter[str] = Counter()

    def late(answer: tuple[int, object]) -> Callable[[str], tuple[int, object] | None]:
        def metrics(fault: str) -> tuple[int, object] | None:
            asked[fault] += 1
            return answer if asked[fault] <= 2 else None

        return metrics

    handles = {}
    for name, answer in NOT_READY.items():
        api = fleet.target()
        fleet.stub.instead["metrics", api] = late(answer)
        handles[name] = fleet.submit(api=api)
    outcomes = {name: handle.result(30) for name, handle in handles.items()}
    assert {name: outcome.error_rate for name, outcome in outcomes.items()} == dict.fromkeys(NOT_READY, 1.0)
    assert {name: asked[handle.id] for name, handle in handles.items()} == dict.fromkeys(NOT_READY, 3)


def test_metrics_that_never_come_end_the_plan_in_its_time(fleet: Fleet) -> None:
    api = fleet.target()
    fleet.stub.instead["metrics", api] = lambda _: (409, {})
    begun = time.monotonic()
    with pytest.raises(MetricsNotReadyError, match="409, no metrics yet"):
        fleet.submit(api=api, timeout_sec=2).result(30)
    assert time.monotonic() - begun < 1 + 2 + SLACK_S
    fleet.submit(api=api, conflict_policy="reject")


def test_a_delay_may_hold_requests_for_longer_than_the_fault_and_the_plans_timeout(fleet: Fleet) -> None:
    held: dict[str, Any] = {"fault_type": "delay", "delay_seconds": 3, "abort_http_status": None}
    handle = running(fleet, duration_seconds=1, timeout_sec=1, **held)
    fleet.stub.running[handle.id] += 2.5  # until the last request is answered
    assert handle.result(30).requests == 100
    assert handle.id not in fleet.stub.stopped


NONE_CAME: dict[str, object] = {"requests": 0, "faulted": 0, "success_count": 0, "error_count": 0}
NO_COUNTS: dict[str, object] = dict.fromkeys(
    ["requests", "faulted", "success_count", "error_count", "unanswered"]
)


def came(requests: int) -> dict[str, object]:
    return {"requests": requests, "faulted": requests, "error_count": requests}


@pytest.mark.parametrize(
    ("executor", "figures", "least", "expected"),
    [
        pytest.param("default", NONE_CAME, None, "no request met its fault", id="no request came"),
        pytest.param("default", NONE_CAME, 0, {Doubt.FEW_REQUESTS}, id="none came, and none is needed"),
        pytest.param("default", came(1), None, {Doubt.FEW_REQUESTS}, id="one request came"),
        pytest.param("default", came(100), 101, "100 requests met its fault", id="too few for the plan"),
        pytest.param("default", NO_COUNTS, 101, {Doubt.COUNT_UNKNOWN}, id="no counts"),
        pytest.param("strict", came(49), None, "min_requests is 50", id="too few for the settings"),
        pytest.param("strict", came(49), 1, set(), id="too few for the settings, but not for the plan"),
        pytest.param("strict", NO_COUNTS, None, "on_doubt says fail: count_unknown", id="a doubt that fails"),
        pytest.param("default", {"faulted": 0}, None, {Doubt.WRONG_DOSE}, id="the fault hit none"),
    ],
)
def test_too_few_requests_and_doubts_that_the_settings_do_not_keep_make_no_observation(
    fleet: Fleet, executor: str, figures: dict[str, object], least: int | None, expected: str | set[Doubt]
) -> None:
    api = fleet.target()
    fleet.stubs[executor].figures[api] = figures
    handle = fleet.submit(executor, api=api, min_requests=least)
    if isinstance(expected, str):
        with pytest.raises(FaultUnobservedError, match=expected):
            handle.result(30)
        return
    observation = handle.result(30)
    assert set(observation.doubts) - {Doubt.WINDOW_UNKNOWN} == expected
    if observation.requests == 0:
        assert (observation.error_rate, observation.latency_ms, observation.status_code) == (None, None, None)


def test_two_plans_on_one_target_at_once_doubt_both_observations(fleet: Fleet) -> None:
    api = fleet.target()
    pair = [running(fleet, api=api, duration_seconds=2, conflict_policy="allow") for _ in range(2)]
    alone = fleet.submit(duration_seconds=1)
    assert [Doubt.OVERLAPPED in each.result(30).doubts for each in pair] == [True, True]
    assert alone.result(30).doubts == WINDOW_UNKNOWN


@pytest.mark.parametrize("policies", [("queue", "allow"), ("allow", "queue")], ids=" then ".join)
def test_a_plan_that_waits_for_its_turn_is_doubted_too_if_another_did_not_wait(
    fleet: Fleet, policies: tuple[str, str]
) -> None:
    api = fleet.target()
    pair = [running(fleet, api=api, duration_seconds=2, conflict_policy=each) for each in policies]
    assert [Doubt.OVERLAPPED in each.result(30).doubts for each in pair] == [True, True]
    after = fleet.submit(api=api)
    assert after.result(30).doubts == WINDOW_UNKNOWN


def test_every_outcome_of_a_batch_is_an_observation_or_says_why_there_is_none(fleet: Fleet) -> None:
    apis = [fleet.target() for _ in range(3)]
    fleet.stub.figures |= {apis[0]: NONE_CAME, apis[1]: NO_COUNTS}
    batch = fleet.dispatcher.submit_many(abort_plan(api=api) for api in apis)
    unobserved, unknown, good = batch.results(30)
    assert isinstance(unobserved, FaultUnobservedError)
    assert isinstance(unknown, RawObservation)
    assert isinstance(good, RawObservation)
    assert (unknown.requests, unknown.error_rate_low) == (None, None)
    assert good.requests == 100
    assert good.error_rate_low == pytest.approx(0.963, abs=0.001)
