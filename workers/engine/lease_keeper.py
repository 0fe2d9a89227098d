"""The lease keeper renews all leases that this worker process holds, in one call."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from dispatcher.errors import LedgerUnavailableError
from workers.engine.loop import Loop

if TYPE_CHECKING:
    from dispatcher.ledger.leases import Lease, Leases

__all__ = ["MANY_HELD", "LeaseKeeper"]

MANY_HELD = 16
"""A worker with so many steps to do is busy: what becomes of those that are done can wait a little."""

logger = logging.getLogger(__name__)


class LeaseKeeper(Loop):
    """A killed worker renews nothing: its plans go on elsewhere once their leases have ended."""

    def __init__(self, leases: Leases) -> None:
        super().__init__("lease keeper")
        self._leases = leases
        self._every_s = leases.lease_s / 3
        self._held: dict[str, str] = {}
        self._held_since: dict[str, float] = {}
        self._renewed_at = time.monotonic()

    def __len__(self) -> int:
        return len(self._held)

    def hold(self, lease: Lease) -> None:
        """Renew this lease from now on."""
        self._held[lease.plan_id] = lease.token
        self._held_since[lease.plan_id] = lease.granted_at

    @property
    def held_since(self) -> dict[str, float]:
        """The plans whose leases are held, and since which moment of the monotonic clock."""
        return dict(self._held_since)

    def drop(self, plan_id: str, token: str) -> None:
        """Renew this lease no more, unless the plan has a newer one."""
        if self._held.get(plan_id) == token:
            del self._held[plan_id]
            self._held_since.pop(plan_id, None)

    def turn(self) -> float:
        held = dict(self._held)
        if held:
            for plan_id in self._renew(held):
                if self._held.get(plan_id) != held[plan_id]:
                    continue  # settled meanwhile
                logger.warning("plan %s: its lease was lost", plan_id, extra={"plan": plan_id})
                self.drop(plan_id, held[plan_id])
        self._renewed_at = time.monotonic()
        return self._every_s

    def _renew(self, held: dict[str, str]) -> list[str]:
        """Ids of the plans whose leases were lost. All are, if Redis did not take the call for too long."""
        try:
            return self._leases.renew(held)
        except LedgerUnavailableError:
            if time.monotonic() - self._renewed_at < self._leases.lease_s:
                raise
            return list(held)
