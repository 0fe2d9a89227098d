"""Cancels the plans that Celery's revoke and terminate name, once Redis takes that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatcher.errors import LedgerUnavailableError
from dispatcher.limits import PLAN_ID
from workers.engine.loop import LONGEST_PAUSE_S, Loop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dispatcher.ledger.ledger import Ledger

__all__ = ["Cancellations"]

REASON = "revoked"


class Cancellations(Loop):
    """What Redis does not take is sent again until it does. Any thread may cancel.

    As in Celery, a worker that ends forgets what waits.
    """

    def __init__(self, ledger: Ledger) -> None:
        super().__init__("canceller")
        self._ledger = ledger
        self._waiting: dict[str, None] = {}

    def cancel(self, task_ids: Sequence[str]) -> list[bool | None]:
        """Cancel the plans among the tasks: see `Ledger.cancel`.

        Raises `LedgerUnavailableError`. They are then cancelled once Redis answers.
        """
        try:
            return self._ledger.cancel(task_ids, REASON)
        except LedgerUnavailableError:
            self._waiting.update(dict.fromkeys(filter(PLAN_ID.fullmatch, task_ids)))
            self.expect()
            raise

    def turn(self) -> float:
        waiting = list(self._waiting)
        if waiting:
            self._ledger.cancel(waiting, REASON)
        for each in waiting:
            del self._waiting[each]
        return LONGEST_PAUSE_S
