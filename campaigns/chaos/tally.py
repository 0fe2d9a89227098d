"""How the plans of a campaign ended, compared with the Executor's journal."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from benchmarks.stage.plans import api, number_of
from benchmarks.stage.program import spread
from campaigns.fleet import released_at
from dispatcher import PlanUnknownError, RawObservation, ResultTimeoutError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from campaigns.chaos.counting_executor import Fault
    from dispatcher.ledger.record import PlanRecord

KINDS = ("lost", "doubled", "stranded", "wrong")
SLACK_S = 0.25


@dataclass(frozen=True)
class Ended:
    """How a plan ended. Times are in seconds since 1970."""

    outcome: RawObservation | Exception
    submitted_at: float = 0.0
    ended_at: float = 0.0
    released_at: float = 0.0
    """Until when it kept its target for itself."""

    @classmethod
    def of(cls, outcome: RawObservation | Exception, record: PlanRecord | None) -> Self:
        """With the times of the plan's record, if it has ended."""
        if record is None or record.ended_ms is None:
            return cls(outcome)
        return cls(outcome, record.submitted_ms / 1000, record.ended_ms / 1000, released_at(record))


def tally(plans: dict[int, Ended], faults: Sequence[Fault]) -> Counter[str]:
    """How many plans were lost, doubled, stranded or wrong. `plans` are by their numbers."""
    counts = Counter(doubled=doubled(faults))
    for number, ended in plans.items():
        if isinstance(ended.outcome, PlanUnknownError | ResultTimeoutError):
            counts["lost"] += 1
        if isinstance(ended.outcome, RawObservation):
            counts["wrong"] += ended.outcome.logs != [api(number)]
    for fault in faults:
        counts["stranded"] += fault.ends > plans[number_of(fault.api)].released_at + SLACK_S
    return counts


def doubled(faults: Sequence[Fault]) -> int:
    """How many targets had more than one fault."""
    return sum(times > 1 for times in Counter(fault.api for fault in faults).values())


def report(plans: dict[int, Ended], faults: Sequence[Fault]) -> None:
    """Print how the plans ended, and how late."""
    kinds = Counter(type(ended.outcome).__name__ for ended in plans.values())
    print("ended with: " + ", ".join(f"{count} {name}" for name, count in kinds.most_common()))
    of_it = [(fault, plans[number_of(fault.api)]) for fault in faults]
    waits = [fault.begun - plan.submitted_at for fault, plan in of_it]
    late = [plan.ended_at - fault.ends for fault, plan in of_it if isinstance(plan.outcome, RawObservation)]
    print(f"from submission to fault p50 / p95 / max: {spread(waits)} s")
    print(f"from fault's end to plan's end p50 / p95 / max: {spread(late)} s")
