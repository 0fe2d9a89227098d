"""What a step decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dispatcher.errors import ExecutorClientError
    from dispatcher.ledger.record import PlanRecord
    from dispatcher.observations import RawObservation

__all__ = ["Complete", "Decision", "Fail", "Release", "Retry", "Snooze"]


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
    gone_in_ms: int = 0
    """How long the fault's removal still takes to arrive at the target."""


@dataclass(frozen=True, slots=True)
class Fail:
    """The plan ends without an observation."""

    record: PlanRecord
    error: ExecutorClientError
    gone_in_ms: int = 0
    """How long the fault's removal still takes to arrive at the target."""

    doubt: str = ""
    """Why it is unknown whether its fault is over. The target stays reserved until that is known."""

    look_again_ms: int = 0
    """When the fault is looked at again, if it is in doubt."""


@dataclass(frozen=True, slots=True)
class Release:
    """The fault of a plan that ended in doubt is known to be over."""

    record: PlanRecord
    gone_in_ms: int
    """How long the fault's removal still takes to arrive at the target."""


Decision = Snooze | Retry | Complete | Fail | Release
