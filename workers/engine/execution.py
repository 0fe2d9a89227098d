"""The outcome of one step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workers.breaker.rules import UNASKED, Admission, Outcome, Report

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workers.engine.decisions import Decision

__all__ = ["Execution"]


@dataclass(frozen=True, slots=True)
class Execution:
    """A decision, and what the calls behind it have shown."""

    decision: Decision
    admission: Admission = UNASKED
    report: Report = field(default=Report(Outcome.NONE))
    """For the circuit breaker of the plan's Executor."""

    counts: Mapping[str, int] = field(default_factory=dict)
    """What to add to the fleet's metrics of the Executor."""

    @property
    def reports(self) -> bool:
        """Whether the breaker has anything to learn from it."""
        return self.admission is not UNASKED and (
            bool(self.admission.id) or self.report.outcome is not Outcome.NONE
        )
