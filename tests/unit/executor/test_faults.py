"""Which faults may exist at the same time, and how long they are remembered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from executor.contract import FaultApply, FaultConfig
from executor.faults import (
    ConflictError,
    Fault,
    FaultRegistry,
    KeyReusedError,
    TooLateError,
    TooManyFaultsError,
    refuse_after,
)
from executor.observations import Arrival, End

NOW = datetime(2030, 1, 1, tzinfo=UTC)
WAIT = timedelta(seconds=10)


def seconds(number: float) -> timedelta:
    return timedelta(seconds=number)


def arrive(fault: Fault, at: datetime, *, chosen: bool = True) -> str:
    stream = f"stream {len(fault.tally.under_way)}"
    fault.tally.begin(Arrival(stream, fault.apply_id, chosen, at.timestamp(), "GET /a"))
    return stream


def ended(fault: Fault, at: datetime) -> Fault:
    fault.end_time, fault.arrivals_known = at, True
    return fault


def request(api: str = "/a", percentage: int = 30, held_ms: int = 0) -> FaultApply:
    config = FaultConfig(http_status=503, start_delay_ms=held_ms)
    return FaultApply(
        service="S",
        api=api,
        fault_type="abort",
        percentage=percentage,
        duration_seconds=5,
        fault_config=config,
    )


def test_the_same_request_with_the_same_key_is_the_same_fault() -> None:
    faults = FaultRegistry()
    fault = faults.add(request(), "k1", NOW)
    assert faults.repeated("k1", request()) is fault
    assert faults.repeated("k2", request()) is None
    assert faults.repeated(None, request()) is None


def test_a_key_is_good_for_one_request() -> None:
    faults = FaultRegistry()
    faults.add(request(), "k1", NOW)
    with pytest.raises(KeyReusedError):
        faults.repeated("k1", request(percentage=31))


def test_a_target_has_one_fault_at_a_time() -> None:
    faults = FaultRegistry()
    first = faults.add(request(), None, NOW)
    with pytest.raises(ConflictError, match=f"{first.apply_id} until 2030-01-01T00:00:05"):
        faults.add(request(), None, NOW)
    faults.add(request("/b"), None, NOW)
    first.end_time = NOW
    faults.add(request(), None, NOW)
    assert len(faults.active()) == 2


def test_a_fault_that_was_never_injected_frees_its_key() -> None:
    faults = FaultRegistry()
    faults.drop(faults.add(request(), "k1", NOW))
    assert faults.repeated("k1", request()) is None
    assert faults.active() == []


def test_a_fault_is_over_once_it_holds_no_request() -> None:
    fault = FaultRegistry().add(request(held_ms=500), None, NOW)
    assert not fault.over(NOW + timedelta(days=1))
    arrive(fault, NOW)
    ended(fault, NOW + seconds(0.1))
    assert not fault.over(NOW + seconds(0.5))
    assert fault.over(NOW + seconds(0.56))


def test_a_fault_is_not_over_before_its_requests_are_known() -> None:
    fault = FaultRegistry().add(request(), None, NOW)
    fault.end_time = NOW
    assert not fault.over(NOW + timedelta(days=1))
    assert not fault.settled


def test_a_request_whose_client_gave_up_is_not_held_any_more() -> None:
    fault = FaultRegistry().add(request(held_ms=30_000), None, NOW)
    stream = arrive(fault, NOW)
    ended(fault, NOW + seconds(1))
    assert not fault.over(NOW + seconds(1))
    fault.tally.end(End(stream, fault.apply_id, True, None, 500.0))
    assert fault.over(NOW + seconds(1))
    assert fault.settled


def test_a_spared_request_holds_no_fault_up_and_is_waited_for() -> None:
    fault = FaultRegistry().add(request(held_ms=500), None, NOW)
    arrive(fault, NOW, chosen=False)
    ended(fault, NOW)
    assert fault.over(NOW)
    assert not fault.settled


def test_requests_are_given_up_a_while_after_the_last_one_was_held() -> None:
    faults = FaultRegistry()
    fault = faults.add(request(held_ms=500), None, NOW)
    arrive(fault, NOW)
    ended(fault, NOW + seconds(1))
    faults.settle(NOW + seconds(11.4), WAIT)
    assert faults.unsettled() == [fault]
    faults.settle(NOW + seconds(99), WAIT)
    assert faults.unsettled() == []
    assert (fault.tally.unfinished, fault.tally.latencies.mean_ms) == (1, 11_500.0)


def test_no_request_is_given_up_while_its_fault_is_on() -> None:
    fault = FaultRegistry().add(request(), None, NOW)
    arrive(fault, NOW)
    fault.give_up(NOW + timedelta(days=1), WAIT)
    assert fault.tally.unfinished == 0


def test_a_fault_that_breaks_off_fails_and_its_requests_are_unanswered() -> None:
    faults = FaultRegistry()
    fault, before = faults.add(request("/a"), None, NOW), ended(faults.add(request("/b"), None, NOW), NOW)
    for each in (fault, before):
        arrive(each, NOW)
        each.break_off(NOW + seconds(2), "Envoy ended")
    assert (fault.end_time, fault.error, before.end_time, before.error) == (
        NOW + seconds(2),
        "Envoy ended",
        NOW,
        "",
    )
    assert "it ended with Envoy" in fault.doubt
    assert not before.doubt
    assert fault.settled
    assert before.settled
    assert fault.tally.unanswered == before.tally.unanswered == 1


def test_current_faults_are_those_that_are_not_over() -> None:
    faults = FaultRegistry()
    on, over = faults.add(request("/a"), None, NOW), ended(faults.add(request("/b"), None, NOW), NOW)
    holding = faults.add(request("/c", held_ms=500), None, NOW)
    arrive(holding, NOW)
    ended(holding, NOW)
    assert faults.current(NOW) == [on, holding]
    assert over not in faults.current(NOW)
    faults.settle(NOW + timedelta(hours=1), WAIT)
    assert faults.unsettled() == [on]


def test_an_apply_after_its_last_moment_is_refused() -> None:
    refuse_after(None, NOW)
    refuse_after(NOW, NOW)
    with pytest.raises(TooLateError, match="Not-After is 2030-01-01T00:00:00"):
        refuse_after(NOW, NOW + timedelta(milliseconds=1))


def test_ended_faults_are_forgotten_after_an_hour() -> None:
    faults = FaultRegistry()
    old = faults.add(request(), "k1", NOW)
    old.end_time = NOW
    faults.add(request("/b"), None, NOW + timedelta(minutes=59))
    assert faults.find(old.apply_id) is old
    faults.add(request("/c"), None, NOW + timedelta(minutes=61))
    assert faults.find(old.apply_id) is None
    assert faults.repeated("k1", request()) is None


def test_a_registry_limits_its_active_faults() -> None:
    faults = FaultRegistry(max_active=2)
    first = faults.add(request("/a"), None, NOW)
    faults.add(request("/b"), None, NOW)
    with pytest.raises(TooManyFaultsError, match="2 faults are active"):
        faults.add(request("/c"), None, NOW)
    first.end_time = NOW
    faults.add(request("/c"), None, NOW)


def begun() -> Fault:
    fault = FaultRegistry().add(request(), "k1", NOW)
    fault.begin(NOW + seconds(1), 101.0)
    return fault


def test_a_fault_is_wanted_from_its_apply_to_its_end() -> None:
    pending = FaultRegistry().add(request(), None, NOW)
    assert pending.wanted(1e6), "its time begins when it is in force"
    fault = begun()
    assert fault.wanted(105.9)
    assert not fault.wanted(106.0)
    fault.stopping = True
    assert not fault.wanted(102.0)


def test_a_fault_that_lapses_before_its_time_fails_and_says_after_how_long() -> None:
    fault = begun()
    fault.lapse(103.0)
    assert (fault.end_time, fault.active) == (NOW + seconds(3), False)
    assert "lapsed after 2.0 of 5 s" in fault.error
    assert "did not renew it" in fault.doubt


def test_a_fault_that_lapses_after_its_time_is_complete_with_a_doubt() -> None:
    fault = begun()
    fault.lapse(107.0)
    assert (fault.end_time, fault.error) == (NOW + seconds(7), "")
    assert "did not renew it" in fault.doubt


@pytest.mark.parametrize(
    ("passed_s", "ends_by_s"),
    [
        pytest.param(2, 204.0, id="two seconds passed"),
        pytest.param(-3600, 206.0, id="the clock was set back"),
        pytest.param(60, 146.0, id="its time has passed"),
    ],
)
def test_a_fault_goes_on_in_another_process_for_the_rest_of_its_time(
    passed_s: float, ends_by_s: float
) -> None:
    fault = begun()
    fault.go_on(fault.start_time + seconds(passed_s), 201.0)
    assert fault.ends_by_s == ends_by_s


def test_a_fault_that_is_dropped_twice_leaves_its_key_to_the_next_one() -> None:
    faults = FaultRegistry()
    first = faults.add(request(), "k1", NOW)
    faults.drop(first)
    second = faults.add(request(), "k1", NOW)
    faults.drop(first)
    assert faults.repeated("k1", request()) is second


def test_a_fault_that_has_ended_does_not_lapse() -> None:
    fault = ended(begun(), NOW + seconds(2))
    fault.lapse(103.0)
    assert (fault.end_time, fault.error, fault.doubt) == (NOW + seconds(2), "", "")


def test_a_registry_restores_what_was_kept() -> None:
    faults, on = FaultRegistry(), begun()
    faults.restore(on)
    faults.restore(over := ended(begun(), NOW + seconds(2)))
    assert faults.active() == faults.unsettled() == [on]
    assert faults.find(over.apply_id) is over
    assert faults.repeated("k1", request()) is over
    with pytest.raises(ConflictError):
        faults.add(request(), None, NOW)


def test_faults_that_are_forgotten_are_named_once() -> None:
    faults = FaultRegistry()
    old = ended(faults.add(request(), "k1", NOW), NOW)
    faults.add(request("/b"), None, NOW + timedelta(minutes=61))
    assert faults.forgotten() == [old]
    assert faults.forgotten() == []
