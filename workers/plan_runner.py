"""The step machine: given a plan's record, do what can be done without waiting, and say what comes next.

    QUEUED --apply--> RUNNING --status--> COMPLETED --metrics--> OBSERVED
      |                  |                    |
      +--> EXPIRED       +--> FAILED, CANCELLED (after stop)

It knows nothing of Celery, Redis, HTTP libraries or clocks: time and chance come in as values, and what it
wants done goes out as a verdict.
"""

from __future__ import annotations

import logging
import math
import random
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from dispatcher.endpoints import OnOpen
from dispatcher.errors import (
    CircuitOpenError,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorRejectedError,
    ExecutorTimeoutError,
    FaultFailedError,
    InvalidPlanError,
    PlanCancelledError,
    PlanConflictError,
    PlanExpiredError,
)
from dispatcher.models import PlanState
from dispatcher.record import budget_ms
from workers.drivers.base import FaultState
from workers.observers.base import Phase
from workers.retry import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.endpoints import ExecutorClientConfig
    from dispatcher.models import RawObservation
    from dispatcher.record import PlanRecord
    from workers.breaker_rules import Rejection
    from workers.calls import StepCalls

__all__ = ["Fail", "Finish", "Park", "PlanRunner", "Retry", "Verdict"]

LAST_LOOK_S = 1.0
"""What a call may take when the budget is used up: a fault that has just ended is still observed. And what
must be left of the budget for an attempt to be worth it."""

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
    """Decides for the plans of one Executor, a step at a time."""

    def __init__(
        self,
        config: ExecutorClientConfig,
        *,
        poll_ms: int,
        watch_ms: int | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`poll_ms` lies between two looks at a fault that lasts longer than planned.

        `watch_ms` lies between two looks of an observer at the target. None: nobody needs to look.
        """
        self._idempotent = config.idempotent_apply
        self._watch_ms = watch_ms
        self._retry = RetryPolicy.of(config)
        self._on_open = config.circuit_breaker_on_open
        self._max_defer_ms = round(config.circuit_breaker_max_defer_sec * 1000)
        self._poll_ms = poll_ms
        self._draw = draw

    def advance(self, record: PlanRecord, calls: StepCalls, rejection: Rejection | None = None) -> Verdict:
        """Take `record` as far as it goes without waiting, and say what comes next.

        With a `rejection` no call is made to the Executor but to stop a fault.
        """
        ending = record.error or _cancelled(record) or self._hindrance(record, calls.now_ms)
        if ending is not None:
            return self._end(record, ending, calls)
        if rejection is not None:
            return self._hold_back(record, rejection, calls)
        try:
            return self._go_on(record, calls)
        except ExecutorClientError as error:
            return self._try_again(record, error, calls)

    def waits(self, record: PlanRecord) -> bool:
        """Whether the plan would wait for an open breaker, rather than end."""
        return record.applied_for_all_we_know or self._on_open is OnOpen.DEFER

    def _go_on(self, record: PlanRecord, calls: StepCalls) -> Verdict:
        if record.apply_id is None:
            return self._apply(record, calls)
        if record.state is PlanState.RUNNING:
            return self._observe(record, record.apply_id, calls)
        return self._collect(record, record.apply_id, calls)

    def _apply(self, record: PlanRecord, calls: StepCalls) -> Verdict:
        if self._watch_ms is not None:
            record = calls.look(record, Phase.BEFORE, _left_s(record, calls.now_ms))
        apply_id = calls.apply(record.plan, record.id, _left_s(record, calls.now_ms))
        record = record.applied(apply_id, calls.now_ms)
        if self._watch_ms is not None:
            return self._watch(record, self._watch_ms, calls)
        return Park(record, record.plan.duration_seconds * 1000)

    def _watch(self, record: PlanRecord, watch_ms: int, calls: StepCalls) -> Verdict:
        """Look at the target while the fault is there."""
        begun_ms = calls.now_ms
        record = calls.look(record, Phase.DURING, _left_s(record, begun_ms))
        next_ms = min(begun_ms + watch_ms, _over_ms(record))
        return Park(record.looked_at(), max(0, next_ms - calls.now_ms))

    def _observe(self, record: PlanRecord, apply_id: str, calls: StepCalls) -> Verdict:
        if self._watch_ms is not None and calls.now_ms < _over_ms(record):
            return self._watch(record, self._watch_ms, calls)
        if calls.status(apply_id, _left_s(record, calls.now_ms)) is FaultState.COMPLETED:
            return self._collect(record.completed(), apply_id, calls)
        if _has_passed(record.deadline_ms, calls.now_ms):
            return self._end(record, _given_up(record, "its fault lasted longer than planned"), calls)
        return Park(record.looked_at(), self._poll_ms)

    def _collect(self, record: PlanRecord, apply_id: str, calls: StepCalls) -> Verdict:
        try:
            if self._watch_ms is not None:
                record = calls.look(record, Phase.AFTER, _left_s(record, calls.now_ms))
            observation = calls.metrics(record, apply_id, _left_s(record, calls.now_ms))
        except ExecutorClientError as error:  # the next step need not ask for the status again
            return self._try_again(record, error, calls)
        return Finish(record.observed(), observation)

    def _hold_back(self, record: PlanRecord, rejection: Rejection, calls: StepCalls) -> Verdict:
        """What becomes of a plan that is in no one's way but may not be taken to the Executor now."""
        now_ms, why = calls.now_ms, rejection.told(record.executor)
        if _has_passed(record.deadline_ms, now_ms):
            return self._end(record, _given_up(record, why), calls)
        after_ms = max(1, math.ceil(rejection.retry_after_s * 1000))
        if not self.waits(record):
            return self._refuse(record, rejection)
        if rejection.budget_spent:
            after_ms = round(self._retry.cap_s * (0.5 + self._draw()) * 1000)
        elif not record.applied_for_all_we_know:
            record = record.put_off(why, now_ms + self._max_defer_ms)
            return Park(record, _until(record.expires_ms, now_ms, after_ms))
        return Park(record.held_back(why), _until(record.deadline_ms, now_ms, after_ms))

    def _refuse(self, record: PlanRecord, rejection: Rejection) -> Verdict:
        error: ExecutorClientError
        if rejection.budget_spent and record.failure is not None:
            error = record.failure
        else:
            told = f"plan {record.id} was not applied: {rejection.told(record.executor)}"
            after_s = max(0.0, rejection.retry_after_s)
            error = CircuitOpenError(f"{told}; submit it again in {math.ceil(after_s)} s", after_s)
        return _failed(record, error, 0)

    def _try_again(self, record: PlanRecord, error: ExecutorClientError, calls: StepCalls) -> Verdict:
        record = record.failed_once_more(error, doubtful=record.apply_id is None and _may_have_arrived(error))
        in_doubt = self._not_repeated(record, calls.now_ms)
        if in_doubt is not None:
            return self._end(record, in_doubt, calls)
        delay_s = self._delay_s(record, error, calls.now_ms)
        return self._end(record, error, calls) if delay_s is None else Retry(record, delay_s, error)

    def _delay_s(self, record: PlanRecord, error: ExecutorClientError, now_ms: int) -> float | None:
        """How long to wait before the next attempt. None where there is none that could come to an end.

        An Executor that asks to be left alone for longer is, as far as the budget goes.
        """
        delay_s = self._retry.delay_s(record.attempts, self._draw()) if error.retry_safe else None
        deadline_ms = math.inf if record.deadline_ms is None else record.deadline_ms
        latest_s = (deadline_ms - now_ms) / 1000 - LAST_LOOK_S
        if delay_s is None or delay_s > latest_s:
            return None
        asked_s = getattr(error, "retry_after_s", None) or 0.0
        return max(delay_s, min(asked_s, latest_s))

    def _end(self, record: PlanRecord, error: ExecutorClientError, calls: StepCalls) -> Verdict:
        """End the plan with `error`, once its fault is over: stopped, or past the Executor's own bound."""
        if record.apply_id is None or record.state is not PlanState.RUNNING:
            return _failed(record, error, _doubtful_ms(record))
        alive_ms = max(0, (record.fault_ends_ms or calls.now_ms) - calls.now_ms)
        try:
            if calls.stop(record.apply_id):
                return _failed(record, error, 0)
        except ExecutorClientError as trouble:
            logger.warning("plan %s: its fault was not stopped: %s", record.id, trouble)
            if alive_ms > 0 and trouble.retry_safe:
                after_s = min(self._retry.cap_s, alive_ms / 1000)
                return Retry(record.ending(error).failed_once_more(trouble), after_s, trouble)
        return _failed(record, error, alive_ms)

    def _hindrance(self, record: PlanRecord, now_ms: int) -> ExecutorClientError | None:
        """Why a plan that is not applied yet shall not be any more."""
        return self._not_repeated(record, now_ms) or _hindrance(record, now_ms)

    def _not_repeated(self, record: PlanRecord, now_ms: int) -> ExecutorClientError | None:
        """Why an apply that may have arrived shall not be sent again, if it shall not."""
        if self._idempotent or not record.doubtful or record.apply_id is not None:
            return None
        until = datetime.fromtimestamp((now_ms + budget_ms(record.plan, 0)) / 1000, UTC)
        why = f" ({record.failure})" if record.failure else ""
        told = f"its apply has no answer{why} and must not be repeated (idempotent_apply = false)"
        alive = f"the fault may be alive until {until.isoformat(timespec='seconds')}"
        return ExecutorTimeoutError(f"plan {record.id}: {told}; {alive}")


def _failed(record: PlanRecord, error: ExecutorClientError, alive_ms: int) -> Fail:
    """The end of a plan. The error tells which one."""
    told = error if record.id in error.message else error.of_plan(record.id)
    return Fail(record.ended(told), told, alive_ms)


def _over_ms(record: PlanRecord) -> int:
    """When the fault hits no more requests."""
    return (record.applied_ms or 0) + record.plan.duration_seconds * 1000


def _hindrance(record: PlanRecord, now_ms: int) -> ExecutorClientError | None:
    if record.apply_id is not None:
        return None
    if record.in_the_way is not None:
        told = f"{record.plan.service} {record.plan.api} is held by plan {record.in_the_way}"
        return PlanConflictError(told, record.in_the_way)
    if record.started_ms is not None and _has_passed(record.expires_ms, record.started_ms):
        why = f": {record.cause}" if record.cause else ""
        return PlanExpiredError(f"plan {record.id} was not begun in time; it was never applied{why}")
    if _has_passed(record.deadline_ms, now_ms):
        return _given_up(record, "it could not be applied in time")
    return None


def _given_up(record: PlanRecord, why: str) -> ExecutorTimeoutError:
    budget = f"{record.timeout_ms / 1000:g} s beyond its fault's own time"
    last = f"; the last call failed: {record.failure}" if record.failure else ""
    return ExecutorTimeoutError(f"plan {record.id}: {why} ({budget}){last}")


def _until(moment_ms: int | None, now_ms: int, after_ms: int) -> int:
    """`after_ms`, but no longer than until the given moment."""
    return after_ms if moment_ms is None else min(after_ms, max(0, moment_ms - now_ms))


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
    return not isinstance(error, ExecutorRejectedError | FaultFailedError | InvalidPlanError)


def _doubtful_ms(record: PlanRecord) -> int:
    """How long a fault may be alive of which nobody knows whether it was applied."""
    return budget_ms(record.plan, 0) if record.doubtful and record.apply_id is None else 0


def _cancelled(record: PlanRecord) -> PlanCancelledError | None:
    if record.cancelled is None:
        return None
    why = f": {record.cancelled}" if record.cancelled else ""
    return PlanCancelledError(f"plan {record.id} was cancelled{why}")
