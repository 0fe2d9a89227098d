"""How a plan may end whose fault met a misdeed, and how it did end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from campaigns.misbehaviour.acts import Act
from dispatcher import RawObservation

if TYPE_CHECKING:
    from dispatcher import ExecutorClientError

TRUE = "true figures"
"""An observation with the right number of requests and the right error rate, and without a doubt."""

IN_DOUBT, LOST, FAILED = "FaultInDoubtError", "FaultLostError", "FaultFailedError"
UNOBSERVED, NOT_READY = "FaultUnobservedError", "MetricsNotReadyError"
TIMEOUT, CONNECTION, PROTOCOL = "ExecutorTimeoutError", "ExecutorConnectionError", "ExecutorProtocolError"
CANCELLED_IN_TIME = "PlanCancelledError"
"""Only if the fault was over by then."""

ACCEPTED = {
    Act.WELL: {TRUE},
    Act.LATE: {"late"},
    Act.EARLY_END: {"short"},
    Act.REMOVED: {"short", "window_unknown"},
    Act.PAUSED: {"wrong_dose", "short"},
    Act.RESUMED: {"late", "short", UNOBSERVED},
    Act.FROZEN: {"long", TIMEOUT, CONNECTION, IN_DOUBT},
    Act.LOST: {LOST, IN_DOUBT},
    Act.RESTARTED: {LOST, IN_DOUBT},
    Act.FAILED: {FAILED},
    Act.TOO_LONG: {"long"},
    Act.ENDLESS: {"long", TIMEOUT},
    Act.UNSTOPPABLE: {IN_DOUBT},
    Act.STOP_SLOW: {CANCELLED_IN_TIME, IN_DOUBT},
    Act.STOP_IGNORED: {IN_DOUBT},
    Act.METRICS_LATE: {TRUE},
    Act.METRICS_NEVER: {NOT_READY, UNOBSERVED, TIMEOUT},
    Act.NO_COUNTS: {"count_unknown"},
    Act.ALL_ZERO: {"count_unknown", UNOBSERVED},
    Act.NO_REQUESTS: {UNOBSERVED},
    Act.FEW_REQUESTS: {"few_requests"},
    Act.NOT_FAULTED: {"wrong_dose"},
    Act.CONTRADICTION: {PROTOCOL},
    Act.NO_WINDOW: {"window_unknown"},
    Act.TRUNCATED: {"truncated"},
}
"""How a plan may end whose fault met the act: a doubt of its observation, or the class of its error.

Metrics that come late are no less true, so `METRICS_LATE` must not change a figure. What happens between two
looks at a fault has an unknown time, unless the Executor says it.
"""

SLACK_S = 0.25


@dataclass(frozen=True)
class Ended:
    """How a plan ended, and what is true of its fault."""

    act: Act
    outcome: RawObservation | ExecutorClientError
    at: float
    """When it ended and its target was free, in seconds since 1970."""

    truth: dict[str, Any] | None
    """None if the Executor knows no fault of it."""

    @property
    def words(self) -> set[str]:
        """The outcome in the words of `ACCEPTED`."""
        if isinstance(self.outcome, RawObservation):
            doubts = {str(doubt) for doubt in self.outcome.doubts}
            return doubts or ({TRUE} if self.true else set())
        if type(self.outcome).__name__ == CANCELLED_IN_TIME and not self.over:
            return {f"{CANCELLED_IN_TIME} while the fault is alive"}
        return {type(self.outcome).__name__}

    @property
    def true(self) -> bool:
        """Whether the observation has the figures that are true."""
        seen, truth = self.outcome, self.truth
        if truth is None or not isinstance(seen, RawObservation):
            return False
        return (seen.requests, seen.error_rate) == (truth["requests"], truth["error_rate"])

    @property
    def over(self) -> bool:
        """Whether the fault was over when the plan had ended."""
        if self.truth is None:
            return True
        ended: float | None = self.truth["ended"]
        return ended is not None and ended <= self.at + SLACK_S

    @property
    def noticed(self) -> bool:
        """Whether the outcome names what was done."""
        return bool(self.words & ACCEPTED[self.act])
