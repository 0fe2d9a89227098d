"""Numbers that callers pass: of any library, and refused before anything is sent if they are none."""

from __future__ import annotations

import asyncio
import math
import sys
from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import pytest
from support.plans import abort_plan

from dispatcher import (
    Dispatcher,
    InvalidPlanError,
    InvalidSettingsError,
    LedgerUnavailableError,
    PlanBatch,
    PlanHandle,
    Settings,
)
from dispatcher.arguments import count_in, waiting_time
from dispatcher.submissions import Door

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OF_OTHER_LIBRARIES = [Decimal("0.5"), Fraction(1, 2)]
NO_NUMBERS = ["5", b"5", True, [], {}, math.nan, Decimal("NaN"), Decimal("sNaN"), 1j]


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    with Dispatcher(Settings(redis_url="redis://127.0.0.1:1", redis_timeout_sec=0.1)) as dispatcher:
        yield dispatcher


@pytest.fixture
def batch(dispatcher: Dispatcher) -> PlanBatch:
    return PlanBatch("b1", [dispatcher.handle("p1")], dispatcher._access)


async def _all_of(batch: PlanBatch, timeout: Any) -> list[PlanHandle]:  # noqa: ASYNC109
    return [handle async for handle in batch.as_completed_async(timeout)]


@pytest.mark.parametrize("timeout", NO_NUMBERS, ids=repr)
def test_no_wait_begins_if_its_timeout_is_not_a_number(batch: PlanBatch, timeout: Any) -> None:
    [handle] = batch.handles
    for wait in (
        lambda: handle.result(timeout),
        lambda: batch.results(timeout),
        lambda: list(batch.as_completed(timeout)),
        lambda: asyncio.run(handle.result_async(timeout)),
        lambda: asyncio.run(batch.results_async(timeout)),
        lambda: asyncio.run(_all_of(batch, timeout)),
    ):
        with pytest.raises(InvalidSettingsError, match="timeout must be a number of seconds, or None"):
            wait()


@pytest.mark.parametrize("timeout", OF_OTHER_LIBRARIES, ids=repr)
def test_a_timeout_may_be_a_number_of_any_library(batch: PlanBatch, timeout: Any) -> None:
    with pytest.raises(LedgerUnavailableError):
        batch.results(timeout)
    assert waiting_time(timeout) == 0.5


@pytest.mark.parametrize("seconds", OF_OTHER_LIBRARIES, ids=repr)
def test_the_times_of_a_plan_may_be_numbers_of_any_library(seconds: Any) -> None:
    options = Door(Settings()).options(timeout_sec=seconds, expires=seconds)
    assert (options.timeout_ms, options.expires_ms) == (500, 500)


def _calls_within(dispatcher: Dispatcher, seconds: Any) -> list[Callable[[], object]]:
    """The calls that wait for as long as they must be given."""
    return [
        lambda: dispatcher.health(timeout_sec=seconds),
        lambda: asyncio.run(dispatcher.health_async(timeout_sec=seconds)),
        lambda: dispatcher.apply_and_observe(abort_plan(), seconds),
        lambda: asyncio.run(dispatcher.apply_and_observe_async(abort_plan(), seconds)),
    ]


@pytest.mark.parametrize("seconds", OF_OTHER_LIBRARIES, ids=repr)
def test_a_call_may_wait_for_a_number_of_any_library(dispatcher: Dispatcher, seconds: Any) -> None:
    for call in _calls_within(dispatcher, seconds):
        with pytest.raises(LedgerUnavailableError):
            call()


@pytest.mark.parametrize("seconds", [None, 0, *NO_NUMBERS], ids=repr)
def test_a_call_that_must_have_a_time_is_refused_without_one(dispatcher: Dispatcher, seconds: Any) -> None:
    for call in _calls_within(dispatcher, seconds):
        with pytest.raises(InvalidPlanError, match="timeout_sec must be a number of seconds above 0"):
            call()


@pytest.mark.parametrize(
    ("timeout", "seconds"),
    [
        (None, None),
        (math.inf, None),
        pytest.param(10**5000, None, id="a number too long to print"),
        (0, 0),
        (-1, 0),
        pytest.param(-(10**5000), 0, id="its negative"),
        (7, 7),
    ],
)
def test_a_wait_lasts_as_long_as_was_asked_for(timeout: Any, seconds: float | None) -> None:
    assert waiting_time(timeout) == seconds


@pytest.mark.parametrize("limit", [*NO_NUMBERS, 0, -1, 1.5, Fraction(2), 10**30], ids=repr)
def test_a_list_is_not_read_if_its_limit_is_not_a_whole_number(dispatcher: Dispatcher, limit: Any) -> None:
    for read in (
        lambda: dispatcher.history(limit=limit),
        lambda: dispatcher.history_page(limit=limit),
        lambda: dispatcher.history_rows(limit=limit),
        lambda: dispatcher.in_flight(limit),
        lambda: dispatcher.unreadable(limit),
    ):
        with pytest.raises(InvalidSettingsError, match="limit must be a whole number"):
            read()


def test_a_whole_number_may_be_of_any_library() -> None:
    numpy = pytest.importorskip("numpy")
    assert type(count_in("limit", numpy.int64(5), most=9)) is int


def test_a_limit_may_be_the_largest_number_of_the_machine() -> None:
    assert count_in("limit", sys.maxsize) == sys.maxsize


@pytest.mark.parametrize("state", [7, 1.5, [["failed"]], [None], []], ids=repr)
def test_what_is_not_a_state_is_refused(dispatcher: Dispatcher, state: Any) -> None:
    with pytest.raises(InvalidSettingsError, match="state must be queued, running"):
        dispatcher.history(state=state)


class _SignalError(Exception):
    """What a handler of a signal raises in a program."""


@pytest.mark.parametrize("end", [KeyboardInterrupt, SystemExit, _SignalError], ids=lambda each: each.__name__)
def test_a_plan_whose_submitter_breaks_off_is_cancelled(
    dispatcher: Dispatcher,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    end: type[BaseException],
) -> None:
    handle = dispatcher.handle("p1")

    def broken_off(_: float) -> None:
        raise end

    monkeypatch.setattr(dispatcher, "submit", lambda *_, **__: handle)
    monkeypatch.setattr(handle, "result", broken_off)
    with pytest.raises(end):
        dispatcher.apply_and_observe(abort_plan())
    assert "a plan that is no longer awaited was not cancelled" in caplog.text  # there is no Redis
