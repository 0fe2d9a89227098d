"""What Celery's revoke names is cancelled even if Redis does not answer at that moment."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from dispatcher import LedgerUnavailableError
from workers.tasks.cancellations import REASON, Cancellations

if TYPE_CHECKING:
    from collections.abc import Sequence


class Ledger:
    """One that is away for the next calls."""

    def __init__(self, away: int) -> None:
        self.away = away
        self.cancelled: list[list[str]] = []

    def cancel(self, plan_ids: Sequence[str], reason: str) -> list[bool | None]:
        assert reason == REASON
        if self.away:
            self.away -= 1
            raise LedgerUnavailableError("Redis is away")
        self.cancelled.append(list(plan_ids))
        return [True for _ in plan_ids]


def cancellations(ledger: Ledger) -> Cancellations:
    return Cancellations(ledger)  # type: ignore[arg-type]


def test_what_redis_takes_is_sent_once() -> None:
    ledger = Ledger(0)
    made = cancellations(ledger)
    assert made.cancel(["p1", "p2"]) == [True, True]
    made.turn()
    assert ledger.cancelled == [["p1", "p2"]]


def test_what_redis_did_not_take_is_sent_again_until_it_does() -> None:
    ledger = Ledger(3)
    made = cancellations(ledger)
    for named in (["p1"], ["p2", "p1"]):
        with pytest.raises(LedgerUnavailableError):
            made.cancel(named)
    with pytest.raises(LedgerUnavailableError):
        made.turn()
    made.turn()
    made.turn()
    assert ledger.cancelled == [["p1", "p2"]]


def test_an_id_that_no_plan_can_have_is_not_kept() -> None:
    ledger = Ledger(1)
    made = cancellations(ledger)
    with pytest.raises(LedgerUnavailableError):
        made.cancel(["\ud800", "", "p1"])
    made.turn()
    assert ledger.cancelled == [["p1"]]
