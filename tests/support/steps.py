"""Steps, and what a step writes, for those who want to know at once what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.steps import Steps

    from dispatcher.ledger import Ledger, Settled
    from dispatcher.record import PlanRecord
    from workers.verdicts import Verdict


def take(steps: Steps, plan_id: str) -> Verdict | None:
    """Take a step. None where nothing came of it."""
    heard: list[Verdict] = []
    steps.take(plan_id, heard.append)
    return heard[0] if heard else None


def parked(ledger: Ledger, record: PlanRecord, token: str, after_ms: int, **more: Any) -> Settled:
    """What the ledger says of a step that ends like this."""
    heard: list[Settled] = []
    ledger.park(record, token, after_ms, **more, then=heard.append)
    [settled] = heard
    return settled


def finished(
    ledger: Ledger, record: PlanRecord, token: str, result: str = "the result", **more: Any
) -> Settled:
    """The same of one that ends its plan. Its result is at `result-` and the plan's id."""
    heard: list[Settled] = []
    ledger.finish(record, token, f"result-{record.id}", result, **more, then=heard.append)
    [settled] = heard
    return settled
