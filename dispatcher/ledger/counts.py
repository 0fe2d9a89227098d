"""The states of the fleet's plans, and what the ledger has counted of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatcher.errors import RecordUnreadableError
from dispatcher.ledger.waits import pages
from dispatcher.models import PlanState

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from dispatcher.ledger.ledger import Ledger

__all__ = ["PlanCounts", "count_ended", "plan_counts"]


@dataclass(frozen=True, slots=True)
class PlanCounts:
    """Numbers of plans and steps. What is a total counts from when Redis was empty."""

    states: Mapping[PlanState, int]
    """How many plans in flight are in each state."""

    waiting: int
    """How many of them no step is at work on: they wait for a worker, their target, their fault's end ..."""

    oldest_due_s: float
    """For how long the plan has been due that has been due for the longest. 0: no plan is."""

    halted: bool
    submitted: int
    ended: Mapping[PlanState, int]
    """How many plans have ended in each way."""

    steps: int
    late_s: float
    """By how much the steps began after their plans were due, all together, in seconds."""

    leases_lost: int
    """How often a step did not come back before its lease had ended: its worker was killed, or hung."""

    messages_lost: int
    """How often a worker began a step without the Celery message that the plan waited for."""

    set_aside: int
    """How many plans no worker of this version can read."""

    in_doubt: int
    """How many plans have ended while it is unknown whether their faults are over."""

    @property
    def in_flight(self) -> int:
        """How many plans have not ended."""
        return sum(self.states.values())


def plan_counts(ledger: Ledger) -> PlanCounts:
    """The states of all plans, and the counts. Raises `LedgerUnavailableError`, `RecordUnreadableError`."""
    stored, halted, aside, doubts = ledger.execute_all(
        [
            ["HGETALL", ledger.counts_key],
            ["GET", ledger.halt_key],
            ["HLEN", ledger.aside_key],
            ["ZCARD", ledger.doubts_key],
        ]
    )
    counts = _numbers(stored)
    plans = list(_in_flight(ledger))
    now_ms = ledger.now_ms()
    states = Counter(state for state, _, _ in plans)
    earliest_ms = min((due_ms for _, held, due_ms in plans if not held), default=now_ms)
    return PlanCounts(
        states={state: states[state] for state in PlanState if not state.final},
        waiting=sum(not held for _, held, _ in plans),
        oldest_due_s=max(0, now_ms - earliest_ms) / 1000,
        halted=halted is not None,
        submitted=counts["submitted"],
        ended=_ended(counts),
        steps=counts["steps"],
        late_s=counts["late_ms"] / 1000,
        leases_lost=counts["leases_lost"],
        messages_lost=counts["messages_lost"],
        set_aside=int(aside),
        in_doubt=int(doubts),
    )


def count_ended(ledger: Ledger) -> int:
    """How many plans have ended so far. Raises `LedgerUnavailableError`, `RecordUnreadableError`."""
    [stored] = ledger.execute_all([["HGETALL", ledger.counts_key]])
    return sum(_ended(_numbers(stored)).values())


def _ended(counts: Mapping[str, int]) -> dict[PlanState, int]:
    return {state: counts[state] for state in PlanState if state.final}


def _numbers(stored: Mapping[str, str]) -> Counter[str]:
    """What is absent was never counted. Raises `RecordUnreadableError`."""
    try:
        return Counter({name: int(number) for name, number in stored.items()})
    except ValueError as exc:
        raise RecordUnreadableError(f"the counts of plans cannot be read: {exc}") from exc


def _in_flight(ledger: Ledger) -> Iterator[tuple[PlanState, bool, int]]:
    """Of each plan its state, whether a worker carries it out, and when it is due; some hundred at a time.

    Plans that cannot be read are left out.
    """
    going_on = {state.value for state in PlanState if not state.final}
    for ids in pages(ledger.in_flight()):
        wanted = [["HMGET", ledger.plan_key(plan_id), "state", "lease", "due_ms"] for plan_id in ids]
        for state, lease, due_ms in ledger.execute_all(wanted):
            if (
                state in going_on and (due_ms or "").isdecimal()
            ):  # otherwise it has ended since its id was read
                yield PlanState(state), (lease or "").startswith("held "), int(due_ms)
