"""The step machine: given a plan's record, do what can be done without waiting, and say what comes next.

    QUEUED --apply--> RUNNING --status--> COMPLETED --metrics--> OBSERVED
      |                  |                    |
      +--> EXPIRED       +-----> FAILED <-----+

It knows nothing of Celery, Redis, HTTP libraries or clocks: time and chance come in as values, and what it
wants done goes out as a verdict.
"""

from __future__ import annotations

import logging
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatcher.errors import ExecutorClientError, ExecutorTimeoutError, PlanExpiredError
from dispatcher.models import PlanState
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
        try:
            if record.apply_id is None:
                return self._apply(record, now_ms)
            if record.state is PlanState.RUNNING:
                return self._observe(record, record.apply_id, now_ms)
            return self._collect(record, record.apply_id, now_ms)
        except ExecutorClientError as error:
            return self._try_again(record, error, now_ms)

    def _apply(self, record: PlanRecord, now_ms: int) -> Verdict:
        if record.started_ms is not None and _has_passed(record.expires_ms, record.started_ms):
            late = PlanExpiredError(f"plan {record.id} was not begun in time; it was never applied")
            return Fail(record.ended(PlanState.EXPIRED, late), late)
        if _has_passed(record.deadline_ms, now_ms):
            return self._give_up(record, "it could not be applied in time")
        apply_id = self._driver.apply(record.plan, key=record.id)
        return Park(record.applied(apply_id), record.plan.duration_seconds * 1000)

    def _observe(self, record: PlanRecord, apply_id: str, now_ms: int) -> Verdict:
        if self._driver.status(apply_id) is FaultState.COMPLETED:
            return self._collect(record.completed(), apply_id, now_ms)
        if _has_passed(record.deadline_ms, now_ms):
            return self._give_up(record, "its fault lasted longer than planned")
        return Park(record.looked_at(), self._poll_ms)

    def _collect(self, record: PlanRecord, apply_id: str, now_ms: int) -> Verdict:
        try:
            observation = self._driver.metrics(apply_id)
        except ExecutorClientError as error:  # the next step need not ask for the status again
            return self._try_again(record, error, now_ms)
        return Finish(record.observed(), observation)

    def _try_again(self, record: PlanRecord, error: ExecutorClientError, now_ms: int) -> Verdict:
        delay_s = self._retry.delay_s(record.attempts + 1, self._draw()) if error.retry_safe else None
        if delay_s is None or _has_passed(record.deadline_ms, now_ms + round(delay_s * 1000)):
            return self._fail(record, error)
        return Retry(record.failed_once_more(error), delay_s, error)

    def _give_up(self, record: PlanRecord, why: str) -> Fail:
        budget = f"{record.timeout_ms / 1000:g} s beyond its fault's own time"
        last = f"; the last call failed: {record.cause}" if record.cause else ""
        return self._fail(record, ExecutorTimeoutError(f"plan {record.id}: {why} ({budget}){last}"))

    def _fail(self, record: PlanRecord, error: ExecutorClientError) -> Fail:
        """End the plan, and its fault with it. The Executor's own bound stands behind a failing stop."""
        if record.apply_id is not None and record.state is PlanState.RUNNING:
            try:
                self._driver.stop(record.apply_id)
            except ExecutorClientError as exc:
                logger.warning("plan %s: its fault was not stopped: %s", record.id, exc)
        return Fail(record.ended(PlanState.FAILED, error), error)


def _has_passed(moment_ms: int | None, now_ms: int) -> bool:
    return moment_ms is not None and now_ms >= moment_ms
