"""The step machine: given a plan's record, do what can be done without waiting, and say what comes next.

    QUEUED --apply--> RUNNING --status--> COMPLETED --metrics--> OBSERVED
      |                  |                    |
      +--> EXPIRED       +--> FAILED, CANCELLED (after stop)

It knows nothing of Celery, Redis, HTTP libraries or clocks: time and chance come in as values, and what it
wants done goes out as a decision.
"""

from __future__ import annotations

import logging
import math
import random
from typing import TYPE_CHECKING

from dispatcher.errors import CircuitOpenError, ExecutorClientError, ExecutorProtocolError
from dispatcher.models import PlanState
from dispatcher.settings.executors import OnOpen
from workers.drivers.base import FaultState
from workers.engine.decisions import Complete, Decision, Retry, Snooze
from workers.engine.retry import RetryPolicy
from workers.engine.terminal_errors import (
    cancelled,
    failed,
    given_up,
    has_passed,
    hindrance,
    may_have_arrived,
)
from workers.observers.base import Phase

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.ledger.record import PlanRecord
    from dispatcher.settings.executors import ExecutorClientConfig
    from workers.breaker.rules import Rejection
    from workers.engine.calls import StepCalls

__all__ = ["StateMachine"]

LAST_LOOK_S = 1.0
"""What a call may take when the budget is used up: a fault that has just ended is still observed. And what
must be left of the budget for an attempt to be worth it."""

logger = logging.getLogger(__name__)


class StateMachine:
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

        `watch_ms` lies between two looks of an observer at the target. None: none is needed.
        """
        self.idempotent = config.idempotent_apply
        self._watch_ms = watch_ms
        self._retry = RetryPolicy.of(config)
        self._on_open = config.circuit_breaker_on_open
        self._max_defer_ms = round(config.circuit_breaker_max_defer_sec * 1000)
        self._poll_ms = poll_ms
        self._draw = draw

    def advance(self, record: PlanRecord, calls: StepCalls, rejection: Rejection | None = None) -> Decision:
        """Take `record` as far as it goes without waiting, and say what comes next.

        With a `rejection` no call is made to the Executor but to stop a fault.
        """
        ending = record.error or cancelled(record) or self._hindrance(record, calls.now_ms)
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

    def _hindrance(self, record: PlanRecord, now_ms: int) -> ExecutorClientError | None:
        return hindrance(record, now_ms, idempotent=self.idempotent)

    def _go_on(self, record: PlanRecord, calls: StepCalls) -> Decision:
        if record.apply_id is None:
            return self._apply(record, calls)
        if record.state is PlanState.RUNNING:
            return self._observe(record, record.apply_id, calls)
        return self._collect(record, record.apply_id, calls)

    def _apply(self, record: PlanRecord, calls: StepCalls) -> Decision:
        if self._watch_ms is not None:
            record = calls.sample(record, Phase.BEFORE, _left_s(record, calls.now_ms))
        apply_id = calls.apply(record.plan, record.id, _left_s(record, calls.now_ms))
        record = record.applied(apply_id, calls.now_ms)
        if self._watch_ms is not None:
            return self._watch(record, self._watch_ms, calls)
        return Snooze(record, record.plan.duration_seconds * 1000)

    def _watch(self, record: PlanRecord, watch_ms: int, calls: StepCalls) -> Decision:
        """Look at the target while the fault is there."""
        begun_ms = calls.now_ms
        record = calls.sample(record, Phase.DURING, _left_s(record, begun_ms))
        next_ms = min(begun_ms + watch_ms, _over_ms(record))
        return Snooze(record.still_running(), max(0, next_ms - calls.now_ms))

    def _observe(self, record: PlanRecord, apply_id: str, calls: StepCalls) -> Decision:
        if self._watch_ms is not None and calls.now_ms < _over_ms(record):
            return self._watch(record, self._watch_ms, calls)
        if calls.status(apply_id, _left_s(record, calls.now_ms)) is FaultState.COMPLETED:
            return self._collect(record.completed(), apply_id, calls)
        if has_passed(record.deadline_ms, calls.now_ms):
            return self._end(record, given_up(record, "its fault lasted longer than planned"), calls)
        return Snooze(record.still_running(), self._poll_ms)

    def _collect(self, record: PlanRecord, apply_id: str, calls: StepCalls) -> Decision:
        try:
            if self._watch_ms is not None:
                record = calls.sample(record, Phase.AFTER, _left_s(record, calls.now_ms))
            observation = calls.metrics(record, apply_id, _left_s(record, calls.now_ms))
        except ExecutorClientError as error:  # the next step need not ask for the status again
            return self._try_again(record, error, calls)
        return Complete(record.observed(), observation)

    def _hold_back(self, record: PlanRecord, rejection: Rejection, calls: StepCalls) -> Decision:
        """What becomes of a plan that is in no one's way but may not be taken to the Executor now."""
        now_ms, why = calls.now_ms, rejection.message(record.executor)
        if has_passed(record.deadline_ms, now_ms):
            return self._end(record, given_up(record, why), calls)
        after_ms = max(1, math.ceil(rejection.retry_after_s * 1000))
        if not self.waits(record):
            return self._refuse(record, rejection, now_ms)
        if rejection.budget_spent:
            after_ms = round(self._retry.cap_s * (0.5 + self._draw()) * 1000)
        elif not record.applied_for_all_we_know:
            record = record.put_off(why, now_ms + self._max_defer_ms)
            return Snooze(record, _until(record.expires_ms, now_ms, after_ms))
        return Snooze(record.held_back(why), _until(record.deadline_ms, now_ms, after_ms))

    def _refuse(self, record: PlanRecord, rejection: Rejection, now_ms: int) -> Decision:
        error: ExecutorClientError
        if rejection.budget_spent and record.failure is not None:
            error = record.failure
        else:
            message = f"plan {record.id} was not applied: {rejection.message(record.executor)}"
            after_s = max(0.0, rejection.retry_after_s)
            error = CircuitOpenError(f"{message}; submit it again in {math.ceil(after_s)} s", after_s)
        return failed(record, error, now_ms)

    def _try_again(self, record: PlanRecord, error: ExecutorClientError, calls: StepCalls) -> Decision:
        record = record.failed_once_more(error)
        if record.apply_id is None:
            arrived = may_have_arrived(error)
            record = record.in_doubt(calls.now_ms) if arrived else record._replace(applying_ms=None)
        if record.doubtful and not self.idempotent:
            return self._end(record, self._hindrance(record, calls.now_ms) or error, calls)
        delay_s = self._delay_s(record, error, calls.now_ms)
        return self._end(record, error, calls) if delay_s is None else Retry(record, delay_s, error)

    def _delay_s(self, record: PlanRecord, error: ExecutorClientError, now_ms: int) -> float | None:
        """How long to wait before the next attempt. None if no attempt could end in time.

        An apply that was answered with nonsense is sent again: its fault may be there, and must be known.
        An Executor that asks to be left alone for longer is, as far as the budget goes.
        """
        again = error.retry_safe or (record.doubtful and isinstance(error, ExecutorProtocolError))
        delay_s = self._retry.delay_s(record.attempts, self._draw()) if again else None
        deadline_ms = math.inf if record.deadline_ms is None else record.deadline_ms
        latest_s = (deadline_ms - now_ms) / 1000 - LAST_LOOK_S
        if delay_s is None or delay_s > latest_s:
            return None
        asked_s = getattr(error, "retry_after_s", None) or 0.0
        return max(delay_s, min(asked_s, latest_s))

    def _end(self, record: PlanRecord, error: ExecutorClientError, calls: StepCalls) -> Decision:
        """End the plan with `error`, once its fault is over: stopped, or past the Executor's own bound."""
        apply_id = record.apply_id
        if record.doubtful:
            apply_id = _named_fault(record, error) or calls.id_of(record.id)
        if apply_id is None or record.state is PlanState.COMPLETED:
            return failed(record, error, calls.now_ms)
        try:
            over = calls.stop(apply_id)
        except ExecutorClientError as trouble:
            logger.warning("plan %s: its fault was not stopped: %s", record.id, trouble)
            ending = record.ending(error).failed_once_more(trouble)
            after_s = self._stop_again_s(ending, calls.now_ms) if trouble.retry_safe else None
            if after_s is not None:
                return Retry(ending, after_s, trouble)
            over = False
        # If the Executor has not properly named it, it may have another name, or get one later.
        return failed(record, error, calls.now_ms, over=over and record.apply_id is not None)

    def _stop_again_s(self, record: PlanRecord, now_ms: int) -> float | None:
        """How long to wait before the fault is stopped again. None if that is useless.

        As long as the Executor has not ended it by itself; and if it should have, some times more.
        """
        alive_ms = record.alive_ms(now_ms)
        if alive_ms > 0:
            return min(self._retry.cap_s, alive_ms / 1000)
        return self._retry.delay_s(record.attempts, self._draw()) if record.apply_id is not None else None


def _named_fault(record: PlanRecord, error: ExecutorClientError) -> str | None:
    """The fault that a broken answer to its apply names."""
    answers = (error, record.failure)
    named = [each.apply_id for each in answers if isinstance(each, ExecutorProtocolError)]
    return next(filter(None, named), None)


def _over_ms(record: PlanRecord) -> int:
    """When the fault hits no more requests."""
    return (record.applied_ms or 0) + record.plan.duration_seconds * 1000


def _until(moment_ms: int | None, now_ms: int, after_ms: int) -> int:
    """`after_ms`, but no longer than until the given moment."""
    return after_ms if moment_ms is None else min(after_ms, max(0, moment_ms - now_ms))


def _left_s(record: PlanRecord, now_ms: int) -> float:
    """What is left of the plan's budget for one call, in seconds. Enough for one look, even past its end."""
    deadline_ms = now_ms if record.deadline_ms is None else record.deadline_ms
    return max(LAST_LOOK_S, (deadline_ms - now_ms) / 1000)
