"""The step machine: given a plan's record, do what can be done without waiting, and say what comes next.

    QUEUED --apply--> RUNNING --status--> COMPLETED --metrics--> OBSERVED
      |                  |                    |
      +--> EXPIRED       +--> FAILED, CANCELLED (after stop)

It knows nothing of Celery, Redis, HTTP libraries or clocks: time and chance come in as values, and what it
wants done goes out as a verdict.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatcher.errors import (
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorRejectedError,
    ExecutorTimeoutError,
    FaultFailedError,
    PlanCancelledError,
    PlanConflictError,
    PlanExpiredError,
)
from dispatcher.models import PlanState
from dispatcher.record import budget_ms
from workers.drivers.base import FaultState

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.models import RawObservation
    from dispatcher.record import PlanRecord
    from workers.drivers.base import Driver
    from workers.retry import RetryPolicy

__all__ = ["Fail", "Finish", "Park", "PlanRunner", "Retry", "Verdict"]

CALLS_A_STEP = 3
"""The most calls that one step makes: status, metrics, and stop where they fail."""

LAST_LOOK_S = 1.0
"""What a call may take when the budget is used up: a fault that has just ended is still observed."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Park:
    """Nothing to do for `after_ms`. Nobody holds the plan meanwhile."""

    record: PlanRecord
    after_ms: int


@dataclass(frozen=True, slots=True)
class Retry:
    """A call failed with `cause`, and is worth another try after `after_s`."""

    record: PlanRecord
    after_s: float
    cause: ExecutorClientError


@dataclass(frozen=True, slots=True)
class Finish:
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


Verdict = Park | Retry | Finish | Fail


class PlanRunner:
    """Takes plans to one Executor, a step at a time."""

    def __init__(
        self,
        driver: Driver,
        retry: RetryPolicy,
        *,
        poll_ms: int,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`poll_ms` lies between two looks at a fault that lasts longer than planned."""
        self._driver = driver
        self._retry = retry
        self._poll_ms = poll_ms
        self._draw = draw

    @property
    def longest_step_s(self) -> float:
        """No step takes longer, in seconds."""
        return CALLS_A_STEP * self._driver.longest_call_s

    def advance(self, record: PlanRecord, now_ms: int) -> Verdict:
        """Take `record` as far as it goes without waiting, and say what comes next."""
        if record.error is not None:
            return self._end(record, record.error, now_ms)
        if record.cancelled is not None:
            return self._end(record, _cancelled(record), now_ms)
        try:
            if record.apply_id is None:
                return self._apply(record, now_ms)
            if record.state is PlanState.RUNNING:
                return self._observe(record, record.apply_id, now_ms)
            return self._collect(record, record.apply_id, now_ms)
        except ExecutorClientError as error:
            return self._try_again(record, error, now_ms)

    def _apply(self, record: PlanRecord, now_ms: int) -> Verdict:
        if record.in_the_way is not None:
            told = f"{record.plan.service} {record.plan.api} is held by plan {record.in_the_way}"
            return self._end(record, PlanConflictError(told, record.in_the_way), now_ms)
        if record.started_ms is not None and _has_passed(record.expires_ms, record.started_ms):
            told = f"plan {record.id} was not begun in time; it was never applied"
            return self._end(record, PlanExpiredError(told), now_ms)
        if _has_passed(record.deadline_ms, now_ms):
            return self._give_up(record, "it could not be applied in time", now_ms)
        apply_id = self._driver.apply(record.plan, record.id, _left_s(record, now_ms))
        return Park(record.applied(apply_id), record.plan.duration_seconds * 1000)

    def _observe(self, record: PlanRecord, apply_id: str, now_ms: int) -> Verdict:
        if self._driver.status(apply_id, _left_s(record, now_ms)) is FaultState.COMPLETED:
            return self._collect(record.completed(), apply_id, now_ms)
        if _has_passed(record.deadline_ms, now_ms):
            return self._give_up(record, "its fault lasted longer than planned", now_ms)
        return Park(record.looked_at(), self._poll_ms)

    def _collect(self, record: PlanRecord, apply_id: str, now_ms: int) -> Verdict:
        try:
            observation = self._driver.metrics(apply_id, _left_s(record, now_ms))
        except ExecutorClientError as error:  # the next step need not ask for the status again
            return self._try_again(record, error, now_ms)
        return Finish(record.observed(), observation)

    def _try_again(self, record: PlanRecord, error: ExecutorClientError, now_ms: int) -> Verdict:
        record = record.failed_once_more(error, doubtful=record.apply_id is None and _may_have_arrived(error))
        delay_s = self._retry.delay_s(record.attempts, self._draw()) if error.retry_safe else None
        if delay_s is None or _has_passed(record.deadline_ms, now_ms + round(delay_s * 1000)):
            return self._end(record, error, now_ms)
        return Retry(record, delay_s, error)

    def _give_up(self, record: PlanRecord, why: str, now_ms: int) -> Verdict:
        budget = f"{record.timeout_ms / 1000:g} s beyond its fault's own time"
        last = f"; the last call failed: {record.cause}" if record.cause else ""
        return self._end(record, ExecutorTimeoutError(f"plan {record.id}: {why} ({budget}){last}"), now_ms)

    def _end(self, record: PlanRecord, error: ExecutorClientError, now_ms: int) -> Verdict:
        """End the plan with `error`, once its fault is over: stopped, or past the Executor's own bound."""
        if record.apply_id is None or record.state is not PlanState.RUNNING:
            return Fail(record.ended(error), error, _doubtful_ms(record))
        alive_ms = max(0, (record.fault_ends_ms or now_ms) - now_ms)
        try:
            if self._driver.stop(record.apply_id):
                return Fail(record.ended(error), error, 0)
        except ExecutorClientError as trouble:
            logger.warning("plan %s: its fault was not stopped: %s", record.id, trouble)
            if alive_ms > 0 and trouble.retry_safe:
                after_s = min(self._retry.cap_s, alive_ms / 1000)
                return Retry(record.ending(error).failed_once_more(trouble), after_s, trouble)
        return Fail(record.ended(error), error, alive_ms)


def _has_passed(moment_ms: int | None, now_ms: int) -> bool:
    return moment_ms is not None and now_ms >= moment_ms


def _left_s(record: PlanRecord, now_ms: int) -> float:
    """What is left of the plan's budget for one call, in seconds. Enough for one look, even past its end."""
    deadline_ms = now_ms if record.deadline_ms is None else record.deadline_ms
    return max(LAST_LOOK_S, (deadline_ms - now_ms) / 1000)


def _may_have_arrived(error: ExecutorClientError) -> bool:
    """Whether the Executor may have carried out a call that failed like this."""
    if isinstance(error, ExecutorConnectionError):
        return error.reason == "broken"
    return not isinstance(error, ExecutorRejectedError | FaultFailedError)


def _doubtful_ms(record: PlanRecord) -> int:
    """How long a fault may be alive of which nobody knows whether it was applied."""
    return budget_ms(record.plan, 0) if record.doubtful and record.apply_id is None else 0


def _cancelled(record: PlanRecord) -> PlanCancelledError:
    why = f": {record.cancelled}" if record.cancelled else ""
    return PlanCancelledError(f"plan {record.id} was cancelled{why}")
