"""The driver against an Executor that answers wrongly: each answer is a typed error, or understood."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from support.hostile import CALLS, FINE, KINDS, TIMEOUT, HostileExecutor
from support.plans import abort_plan

from dispatcher import ExecutorClientConfig, ExecutorClientError, errors, stored_errors
from workers.drivers.base import FaultState, StopOutcome
from workers.drivers.faults_api import FaultsApiDriver

if TYPE_CHECKING:
    from collections.abc import Iterator

SOON = datetime(2100, 1, 1, tzinfo=UTC)
PATIENCE_S = 0.4
PATIENCE_ON_A_BUSY_MACHINE_S = 10.0
"""For answers that are wrong before that, however late the Executor begins them."""

DIGESTED_WITHIN_S = 2.0
"""How long the thread of a call may compute."""

GIVEN_UP_WITHIN_S = PATIENCE_S + PATIENCE_ON_A_BUSY_MACHINE_S
"""An answer that is not given up never ends."""


@pytest.fixture(scope="module")
def hostile() -> Iterator[HostileExecutor]:
    with HostileExecutor() as hostile:
        yield hostile


@pytest.fixture
def driver(hostile: HostileExecutor, call: str, kind: str) -> Iterator[FaultsApiDriver]:
    patience_s = PATIENCE_S if KINDS[kind].expected(call) == TIMEOUT else PATIENCE_ON_A_BUSY_MACHINE_S
    config = ExecutorClientConfig(base_url=hostile.url, read_timeout_sec=patience_s)
    driver = FaultsApiDriver(config, connections=1)
    yield driver
    driver.close()


def outcome(driver: FaultsApiDriver, call: str, kind: str) -> Any:
    """The outcome of the call that is answered wrongly."""
    plan = abort_plan(api=f"/hostile/{call}/{kind}")
    apply_id = driver.apply(plan, f"{call}-{kind}", 5, SOON)
    match call:
        case "status":
            return driver.status(apply_id, 5)
        case "metrics":
            return driver.metrics(apply_id, 5)
        case "stop":
            return driver.stop(apply_id)
    return apply_id


CASES = [
    (call, kind.name)
    for kind in KINDS.values()
    for call in (*CALLS, "stop")
    if call in kind.calls or (call == "stop" and kind.calls == CALLS)
]


def test_there_are_at_least_60_kinds_of_wrong_answers() -> None:
    assert len(KINDS) >= 60
    assert len({kind.write for kind in KINDS.values()}) == len(KINDS)


@pytest.mark.parametrize(("call", "kind"), CASES)
def test_a_wrong_answer_is_a_typed_error_or_understood_and_costs_no_more_than_its_time(
    hostile: HostileExecutor, driver: FaultsApiDriver, call: str, kind: str
) -> None:
    begun, computed = time.monotonic(), time.thread_time()
    expected = KINDS[kind].expected(call)
    if expected == FINE:
        assert_understood(outcome(driver, call, kind), call)
    else:
        with pytest.raises(ExecutorClientError) as caught:
            outcome(driver, call, kind)
        assert_tells(caught.value, expected, hostile.url)
    assert time.thread_time() - computed < DIGESTED_WITHIN_S
    assert time.monotonic() - begun < GIVEN_UP_WITHIN_S
    assert hostile.evil == []


def assert_understood(answer: Any, call: str) -> None:
    match call:
        case "apply":
            assert answer.startswith("f-apply-")
        case "status":
            assert answer.state is FaultState.COMPLETED
        case "metrics":
            assert (answer.status_code, answer.latency_ms, answer.error_rate) == (503, 1.5, 1.0)
            assert len(answer.model_dump_json()) < 2_300_000
        case "stop":
            assert isinstance(answer, StopOutcome)


def assert_tells(error: ExecutorClientError, expected: str, url: str) -> None:
    assert type(error) is getattr(errors, expected), str(error)
    assert f"{url}/v1/faults/" in error.message
    assert error.message.isprintable()
    assert len(error.message) < 1_000
    assert stored_errors.from_json(stored_errors.to_json(error)).args == error.args
