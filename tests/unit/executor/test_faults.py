"""Which faults may be beside each other, and how long they are remembered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from executor.contract import FaultApply, FaultConfig
from executor.faults import ConflictError, FaultRegistry, KeyReusedError

NOW = datetime(2030, 1, 1, tzinfo=UTC)


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


def test_a_fault_is_settled_once_its_held_requests_are_answered() -> None:
    fault = FaultRegistry().add(request(held_ms=500), None, NOW)
    assert not fault.settled(NOW + timedelta(days=1))
    fault.end_time = NOW
    assert not fault.settled(NOW + timedelta(milliseconds=499))
    assert fault.settled(NOW + timedelta(milliseconds=500))


def test_ended_faults_are_forgotten_after_an_hour() -> None:
    faults = FaultRegistry()
    old = faults.add(request(), "k1", NOW)
    old.end_time = NOW
    faults.add(request("/b"), None, NOW + timedelta(minutes=59))
    assert faults.find(old.apply_id) is old
    faults.add(request("/c"), None, NOW + timedelta(minutes=61))
    assert faults.find(old.apply_id) is None
    assert faults.repeated("k1", request()) is None
