"""Whether an Executor can do what a plan asks for beyond the contract's basics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dispatcher.capabilities import refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from dispatcher.ledger.record import PlanRecord

__all__ = ["ExecutorCapabilities"]

KEPT_MS = 10_000
"""How long an answer holds. An Executor may be replaced by one that can do less."""


class ExecutorCapabilities:
    """What one Executor can do: as the settings say, otherwise as it says itself. Shared by all threads."""

    def __init__(self, declared: Iterable[str] | None) -> None:
        """`declared` are the capabilities in the settings. None: the Executor is asked, every `KEPT_MS`."""
        self._declared = None if declared is None else frozenset(declared)
        self._said: tuple[int, frozenset[str]] | None = None

    def check(
        self, record: PlanRecord, supports: frozenset[str], now_ms: int, ask: Callable[[], frozenset[str]]
    ) -> None:
        """Raises `CapabilityMissingError` if the plan needs one that is missing, and what `ask` raises.

        `supports` is what the driver can express. `ask` returns what the Executor itself says; it is called
        only for a plan that needs something, and if no recent answer is known.
        """
        needs = record.plan.needs
        if not needs:
            return
        missing = [each for each in needs if each not in supports]
        if missing:
            raise refusal(record.executor, missing, "its driver cannot express that", record.id)
        can, why = self._declared, "its settings do not list that"
        if can is None:
            can, why = self._recent(now_ms, ask), "its health does not list that"
        missing = [each for each in needs if each not in can]
        if missing:
            raise refusal(record.executor, missing, why, record.id)

    def _recent(self, now_ms: int, ask: Callable[[], frozenset[str]]) -> frozenset[str]:
        said = self._said
        if said is not None and 0 <= now_ms - said[0] < KEPT_MS:
            return said[1]
        can = ask()
        self._said = now_ms, can
        return can
