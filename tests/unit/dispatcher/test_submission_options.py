"""Options of a submission that are refused before anything is sent."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from support.plans import abort_plan

from dispatcher import Dispatcher, InvalidPlanError, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def dispatcher() -> Iterator[Dispatcher]:
    with Dispatcher(Settings(redis_url="redis://127.0.0.1:1")) as dispatcher:
        yield dispatcher


@pytest.mark.parametrize("seconds", [0, -1, 31_536_001, 1e308, float("inf"), float("nan")])
@pytest.mark.parametrize("option", ["timeout_sec", "expires"])
def test_a_time_that_no_clock_can_hold_is_refused(
    dispatcher: Dispatcher, option: str, seconds: float
) -> None:
    with pytest.raises(InvalidPlanError) as caught:
        dispatcher.submit(abort_plan(), **{option: seconds})  # type: ignore[arg-type]
    assert caught.value.problems == [(option, "must be a number of seconds above 0, and at most 31536000")]
