"""What a step decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatcher.errors import ExecutorClientError
    from dispatcher.ledger.record import PlanRecord
    from dispatcher.observations import RawObservation

__all__ = ["Complete", "Decision", "Fail", "Retry", "Snooze"]


@dataclass(frozen=True, slots=True)
class Snooze:
    """Nothing to do for `after_ms`. No worker holds the plan meanwhile."""

    record: PlanRecord
    after_ms: int


@dataclass(frozen=True, slots=True)
class Retry:
    """A call failed with `cause`, and is worth another try after `after_s`."""

    record: PlanRecord
    after_s: float
    cause: ExecutorClientError


@dataclass(frozen=True, slots=True)
class Complete:
    """The plan has its observation."""

    record: PlanRecord
    observation: RawObservation


@dataclass(frozen=True, slots=True)
class Fail:
    """The plan ends without an observation."""

    record: PlanRecord
    error: ExecutorClientError
    alive_ms: int
    """How much longer its fault may be alive, in spite of everything."""


Decision = Snooze | Retry | Complete | Fail
