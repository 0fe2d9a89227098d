"""What a calibration counts, and how it compares that with an observation."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from itertools import pairwise, repeat
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from campaigns.calibration.lanes import LANES, PERCENTAGES, Lane
from campaigns.calibration.report import HEADER, Dose, Row, dose_of, holds, misses, row_of, summary
from campaigns.calibration.slow_executor import PlaneFault, SlowPlane
from campaigns.calibration.witness import EnvoyWitness, Force, fault_ids, unreserved
from campaigns.traffic import SO_TIMESTAMPNS, TIMESPEC, Clients, Request, arrival, serving
from dispatcher import FaultType, FaultUnobservedError, RawObservation

BEGAN = datetime(2030, 1, 31, 12, tzinfo=UTC)
WINDOW = (BEGAN.timestamp(), BEGAN.timestamp() + 8)
LANE = Lane("test", FaultType.ABORT, held_ms=0, answer_ms=1)


def observation(**changes: Any) -> RawObservation:
    """Half of 400 requests, within 8 s, are errors."""
    fields: dict[str, Any] = {
        "execution_id": "f1",
        "timestamp": BEGAN,
        "requests": 400,
        "error_rate": 0.5,
        "error_rate_low": 0.45,
        "error_rate_high": 0.55,
        "latency_ms": 100.0,
        "started_at": BEGAN,
        "ended_at": BEGAN + timedelta(seconds=8),
    }
    return RawObservation(**(fields | changes))


def request(after_s: float, status: int, latency_ms: float = 10.0) -> Request:
    return Request(0.0, WINDOW[0] + after_s, latency_ms, status)


def test_a_calibration_has_40_plans_of_every_percentage() -> None:
    plans = [plan for lane in LANES for plan in lane.plans()]
    assert len(plans) == 40
    assert {plan.percentage for plan in plans} == set(PERCENTAGES)
    assert len({lane.api for lane in LANES}) == len({lane.service for lane in LANES}) == len(LANES)


@pytest.mark.parametrize(
    ("fault_type", "held_ms", "answer_ms", "patience_s", "share"),
    [
        pytest.param(FaultType.ABORT, 0, 1, 60, 0.3, id="an aborted request is an error"),
        pytest.param(
            FaultType.ABORT, 0, 2000, 1, 1.0, id="so is one that its client gave up without a fault"
        ),
        pytest.param(FaultType.DELAY, 500, 20, 60, 0.0, id="a delayed request is none"),
        pytest.param(FaultType.DELAY, 500, 20, 0.4, 0.3, id="unless its client gives up"),
        pytest.param(FaultType.DELAY, 500, 600, 1, 0.3, id="delay and answer are waited for together"),
    ],
)
def test_the_share_of_errors_follows_from_the_fault_and_the_clients(
    fault_type: FaultType, held_ms: int, answer_ms: int, patience_s: float, share: float
) -> None:
    assert Lane("test", fault_type, held_ms, answer_ms, patience_s).error_share(30) == share


def test_requests_count_if_they_were_sent_in_the_window() -> None:
    requests = [request(-0.1, 503), request(0.0, 200), request(8.0, 503, 30.0), request(8.1, 503)]
    assert dose_of(requests, WINDOW) == Dose(requests=2, errors=1, latency_ms=20.0)


def test_a_request_without_an_answer_is_an_error_as_long_as_its_client_waited() -> None:
    dose = dose_of([request(1, 0, 500.0), request(2, 200, 100.0)], WINDOW)
    assert (dose.error_rate, dose.latency_ms) == (0.5, 300.0)


def test_a_window_without_requests_has_no_dose() -> None:
    assert dose_of([], WINDOW) == Dose(0, 0, 0.0)


def test_an_observation_of_what_was_counted_is_inside() -> None:
    assert misses(observation(), Dose(400, 200, 100.0), WINDOW) == []


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        pytest.param({"requests": 405}, "requests", id="more than 1 % of the requests too many"),
        pytest.param({"requests": None}, "requests", id="an unknown number of requests"),
        pytest.param({"error_rate": 0.511}, "error_rate", id="an error rate that is off by more than 0.01"),
        pytest.param({"latency_ms": 110.1}, "latency_ms", id="a latency that is off by more than 10 %"),
        pytest.param({"latency_ms": None}, "latency_ms", id="an unknown latency"),
        pytest.param(
            {"started_at": BEGAN + timedelta(seconds=0.31)}, "started_at", id="a beginning that is 0.3 s late"
        ),
        pytest.param(
            {"ended_at": BEGAN + timedelta(seconds=7.6)}, "ended_at", id="an end that is 0.4 s early"
        ),
    ],
)
def test_an_observation_is_outside_with(changes: dict[str, Any], missed: str) -> None:
    assert misses(observation(**changes), Dose(400, 200, 100.0), WINDOW) == [missed]


def test_short_latencies_may_be_off_by_2_ms() -> None:
    dose = Dose(400, 200, 1.0)
    assert misses(observation(latency_ms=2.9), dose, WINDOW) == []
    assert misses(observation(latency_ms=3.1), dose, WINDOW) == ["latency_ms"]


def test_an_interval_holds_its_ends() -> None:
    assert holds(observation(), 0.45)
    assert not holds(observation(), 0.44)
    assert not holds(observation(error_rate_low=None), 0.5)


def test_a_row_compares_with_the_window_that_the_observation_claims() -> None:
    requests = [request(second, 503, 100.0) for second in range(-5, 20)]
    row = row_of(LANE, 50, observation(), requests, {"f1": WINDOW}, lambda _, __: 7)
    assert row.dose == Dose(9, 9, 100.0)
    assert row.missed == ("requests", "error_rate")
    assert row.cells[3:7] == ["9", "1.000", "100.0", "7"]
    assert row.cells[-2:] == ["0.450 to 0.550", "outside: requests, error_rate"]
    assert len(row.cells) == len(HEADER)


def test_the_window_of_a_probe_is_a_part_of_the_real_one_and_its_last_request_arrives_later() -> None:
    seen = observation(requests=3, error_rate=0.0, latency_ms=10.0, ended_at=BEGAN + timedelta(seconds=2))
    requests = [request(second + 0.01, 200) for second in range(9)]
    real = {"f1": (WINDOW[0] - 1, WINDOW[1])}
    assert row_of(LANE, 50, seen, requests, real, lambda _, __: 0, probed=True).missed == ()


def test_a_probe_that_looked_before_the_fault_was_in_force_is_outside() -> None:
    late = {"f1": (WINDOW[0] + 1, WINDOW[1])}
    assert "started_at" in row_of(LANE, 50, observation(), [], late, lambda _, __: 0, probed=True).missed


def test_a_fault_that_the_witness_never_saw_is_outside() -> None:
    row = row_of(LANE, 50, observation(), [], {}, lambda _, __: 0)
    assert "started_at" in row.missed


def test_a_plan_without_an_observation_is_outside() -> None:
    row = row_of(LANE, 50, FaultUnobservedError("no request met it"), [], {}, lambda _, __: 0)
    assert not row.held
    assert row.cells[-1] == "outside: FaultUnobservedError: no request met it"
    assert len(row.cells) == len(HEADER)


@pytest.mark.parametrize(
    ("outside", "unheld", "good"),
    [
        pytest.param(2, 6, True, id="two outside and six intervals that do not hold are allowed"),
        pytest.param(3, 0, False, id="three outside are too many"),
        pytest.param(0, 7, False, id="seven intervals that do not hold are too many"),
    ],
)
def test_of_40_plans(outside: int, unheld: int, good: bool) -> None:  # noqa: FBT001 (a parameter)
    rows = [
        Row(
            LANE,
            10 if number < unheld else 50,
            observation(),
            missed=("requests",) if number < outside else (),
        )
        for number in range(40)
    ]
    assert summary(rows, [])[1:] == (outside, good)


def test_a_witness_places_a_change_in_the_middle_between_two_checks() -> None:
    witness = EnvoyWitness("http://127.0.0.1:1")
    for ids, at in ((set[str](), 10.0), ({"f1"}, 11.0), ({"f1"}, 12.0), (set(), 13.0)):
        witness.note(ids, at - 1, at)
    assert asyncio.run(witness.windows()) == {"f1": (10.5, 12.5)}


def test_faults_are_found_in_the_runtime_values_of_envoy() -> None:
    runtime = (
        b'{"layers": ["faults"], "entries": {"hit.f-1": {},\n "on.f-1": {}, "on.f-2":{}, "hit.f-2": {}}}'
    )
    assert fault_ids(runtime) == {"f-1", "f-2"}


def force(apply_id: str, applied: float, began: float | None, ended: float | None) -> Force:
    return Force(apply_id, "Target", "/pay", applied, began, ended)


def test_faults_one_after_the_other_are_within_their_reservations() -> None:
    forces = [force("f1", 0, 2, 10), force("f2", 10, None, None), force("f3", 11, 12, 20)]
    assert unreserved(forces, {"f1": 10.0, "f2": 11.0, "f3": 20.0}) == []


@pytest.mark.parametrize(
    ("forces", "released", "found"),
    [
        pytest.param(
            [force("f1", 0, 2, 12), force("f2", 10, 12, 20)],
            {"f1": 12.0, "f2": 20.0},
            "f1 was in force 2.0 s after f2 was applied",
            id="a fault that is in force when the next one is applied",
        ),
        pytest.param(
            [force("f1", 0, 2, 12)],
            {"f1": 9.0},
            "f1 was in force 3.0 s after its plan released the target",
            id="a fault that is in force after its plan",
        ),
        pytest.param(
            [force("f1", 0, 2, None)],
            {"f1": 9.0},
            "f1 was in force inf s after its plan released the target",
            id="a fault that is never over",
        ),
    ],
)
def test_outside_of_its_reservation_is(forces: list[Force], released: dict[str, float], found: str) -> None:
    assert unreserved(forces, released) == [found]


def test_faults_on_other_targets_are_in_nothing_s_way() -> None:
    other = Force("f2", "Target", "/refund", 10, 12, 20)
    assert unreserved([force("f1", 0, 2, 15), other], {}) == []


def plane_fault() -> PlaneFault:
    return PlaneFault("f1", "Target", "/pay", percentage=100, held_s=0.0, abort_status=503)


@given(st.lists(st.booleans(), max_size=8))
def test_a_slow_data_plane_changes_its_faults_at_polls_only(wanted: list[bool]) -> None:
    fault, asked = plane_fault(), list(wanted)
    plane = SlowPlane(lambda: [fault] if asked.pop(0) else [], 5.0)
    for number in range(len(wanted)):
        plane.poll(float(5 * number + 1))
    first = wanted.index(True) if True in wanted else None
    assert fault.began == (None if first is None else 5 * first + 1)
    was_removed = any(before and not after for before, after in pairwise(wanted))
    assert (fault.ended is not None) == was_removed


def test_a_slow_data_plane_counts_what_it_answered_and_who_gave_up() -> None:
    async def scene() -> PlaneFault:
        fault = plane_fault()
        plane = SlowPlane(lambda: [fault], 5.0)
        assert await plane("/pay", "ms=0") == 200
        plane.poll(1.0)
        assert await plane("/pay", "ms=0") == 503
        fault.held_s = 60.0
        waiting = asyncio.ensure_future(plane("/pay", "ms=0"))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        return fault

    fault = asyncio.run(scene())
    counts = {name: fault.metrics()[name] for name in ("requests", "faulted", "unanswered", "error_count")}
    assert counts == {"requests": 2, "faulted": 2, "unanswered": 1, "error_count": 2}
    assert fault.metrics()["status_code"] == 503


def test_clients_note_answers_and_that_they_gave_up() -> None:
    asked = []

    async def service(path: str, query: str) -> int:
        asked.append((path, query))
        if len(asked) > 1:
            await asyncio.Event().wait()
        return 503

    async def scene() -> list[Request]:
        async with serving(service) as address:
            clients = Clients(address, "Test", repeat("/test?ms=7"), rate_per_s=1000, patience_s=0.05)
            traffic = asyncio.create_task(clients.run())
            while len(asked) < 2:  # noqa: ASYNC110 (nothing announces a request)
                await asyncio.sleep(0)
            traffic.cancel()
            await traffic
        return clients.requests

    requests = asyncio.run(scene())
    assert asked[0] == ("/test", "ms=7")
    assert sorted({request.status for request in requests}, key=str) == [0, 503]
    assert {request.path for request in requests} == {"/test"}
    assert min(request.latency_ms for request in requests if request.status == 0) >= 50


def test_the_kernel_says_when_data_came() -> None:
    assert arrival([(1, SO_TIMESTAMPNS, TIMESPEC.pack(100, 500_000_000))]) == 100.5


def test_without_the_kernel_s_word_data_comes_now() -> None:
    assert arrival([]) > 1_700_000_000
