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

from dispatcher.errors import (
    CapabilityMissingError,
    CircuitOpenError,
    ExecutorClientError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    FaultUnobservedError,
    MetricsNotReadyError,
)
from dispatcher.ledger.moments import moment_of
from dispatcher.models import PlanState
from dispatcher.observations import Doubt
from dispatcher.settings.executors import OnOpen
from workers.drivers.base import FaultState
from workers.engine.capabilities import ExecutorCapabilities
from workers.engine.decisions import Complete, Decision, Retry, Snooze
from workers.engine.judgement import judge
from workers.engine.retry import RetryPolicy
from workers.engine.stopper import TOO_LATE, Stopper
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
    from datetime import datetime

    from dispatcher.ledger.record import PlanRecord
    from dispatcher.observations import RawObservation
    from dispatcher.settings.executors import ExecutorClientConfig
    from workers.breaker.rules import Rejection
    from workers.drivers.base import FaultStatus
    from workers.engine.calls import StepCalls

__all__ = ["StateMachine"]

LAST_LOOK_S = 1.0
"""What a call may take when the budget is used up: a fault that has just ended is still observed. And what
must be left of the budget for an attempt to be worth it."""

MOST_LOOKS_PER_SEC = 50
"""Looks at running faults, of the whole fleet."""

EARLY_MS = 1_000
"""If an apply without an answer may have begun the fault so much earlier, its end is looked at then."""

FIRST_POLL_MS = 20
"""Between the first two looks at a fault that lasts longer than planned.

Later pauses are as long as the fault is overdue, and `poll_ms` at most.
"""

LONGEST_METRICS_PAUSE_MS = 5_000
OVERDUE_MS = 2_000
SKEW_MS = 500
"""By how much an Executor's clock may differ from the server's without notice."""

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
        """`poll_ms` is the longest time between two checks of a fault that lasts longer than planned.

        `watch_ms` is the time between two measurements by an observer. None: none is needed.
        """
        self.idempotent = config.idempotent_apply
        self._config = config
        self._capabilities = ExecutorCapabilities(config.capabilities)
        self._stopper = Stopper(config, self._capabilities)
        self._watch_ms = watch_ms
        self._takes_effect_s = config.takes_effect_sec
        self._check_ms = round(config.check_interval_sec * 1000)
        self._retry = RetryPolicy.of(config)
        self._on_open = config.circuit_breaker_on_open
        self._max_defer_ms = round(config.circuit_breaker_max_defer_sec * 1000)
        self._poll_ms = poll_ms
        self._draw = draw

    def advance(self, record: PlanRecord, calls: StepCalls, rejection: Rejection | None = None) -> Decision:
        """Take `record` as far as it goes without waiting, and say what comes next.

        With a `rejection` no call is made to the Executor but to stop a fault.
        """
        record = self._after_a_lost_step(record)
        if record.state.final:
            return self._stopper.resolve(record, calls)
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

    def _after_a_lost_step(self, record: PlanRecord) -> PlanRecord:
        """With what the lost step did not write: its apply may have been sent since the plan began."""
        if record.doubtful_ms is None or record.sent_ms is not None:
            return record
        return record._replace(sent_ms=record.started_ms, takes_effect_ms=self._takes_effect_ms(record))

    def _takes_effect_ms(self, record: PlanRecord) -> int:
        takes_s = record.plan.takes_effect_sec
        return round((self._takes_effect_s if takes_s is None else takes_s) * 1000)

    def _go_on(self, record: PlanRecord, calls: StepCalls) -> Decision:
        if record.apply_id is None:
            return self._apply(record, calls)
        if record.state is PlanState.RUNNING:
            return self._look(record, record.apply_id, calls)
        return self._collect(record, record.apply_id, calls)

    def _apply(self, record: PlanRecord, calls: StepCalls) -> Decision:
        if record.plan.needs:
            try:
                self._check_capabilities(record, calls)
            except CapabilityMissingError as error:
                return self._end(record, error, calls)
            except ExecutorClientError as error:
                return self._try_again(record, error, calls, sent=False)
        if self._watch_ms is not None:
            record = calls.sample(record, Phase.BEFORE, _left_s(record, calls.now_ms))
        now_ms = calls.now_ms
        takes_ms = self._takes_effect_ms(record) if record.doubtful_ms is None else record.takes_effect_ms
        record = record._replace(sent_ms=record.sent_ms or now_ms, takes_effect_ms=takes_ms)
        try:
            apply_id = calls.apply(record.sent_plan, record.id, _call_s(record, now_ms))
        except ExecutorClientError as error:
            return self._try_again(record, error, calls)
        record = record.applied(apply_id, calls.now_ms)
        return Snooze(record, self._next_look_ms(record, calls))

    def _check_capabilities(self, record: PlanRecord, calls: StepCalls) -> None:
        within_s = _call_s(record, calls.now_ms)
        self._capabilities.check(record, calls.supports, calls.now_ms, lambda: calls.capabilities(within_s))

    def _look(self, record: PlanRecord, apply_id: str, calls: StepCalls) -> Decision:
        """See how the fault does. An observer that samples the target does so meanwhile."""
        begun_ms = now_ms = calls.now_ms
        if self._watch_ms is not None and _is_in_force(record, begun_ms):
            record = calls.sample(record, Phase.DURING, _left_s(record, begun_ms))
            now_ms = calls.now_ms
        if now_ms < self._status_due_ms(record, calls):
            return Snooze(record.still_running(), self._next_look_ms(record, calls, begun_ms))
        try:
            status = calls.status(apply_id, _call_s(record, now_ms))
        except ExecutorClientError as error:
            if not error.retry_safe or calls.now_ms >= (record.planned_end_ms or 0):
                raise
            logger.info("plan %s: a check of its fault failed: %s", record.id, error)
            record = record._replace(looked_ms=calls.now_ms)
            return Snooze(record, self._next_look_ms(record, calls, begun_ms))
        seen_ms, now_ms = record.looked_ms, calls.now_ms
        window = told_window(record, status, now_ms)
        if status.started_at is not None:
            record = record._replace(skew_ms=_skew_ms(status, window))
        record = record.looked_at(*window, now_ms)
        if status.state is FaultState.COMPLETED:
            if record.over_ms is None and now_ms < (record.planned_end_ms or 0):
                seen_ms = now_ms if self._watch_ms is None else seen_ms  # an observer counts what is certain
                record = record._replace(over_ms=seen_ms or record.applied_ms)
            return self._collect(record.completed(), apply_id, calls)
        if has_passed(record.deadline_ms, calls.now_ms):
            return self._end(record, given_up(record, "its fault lasted longer than planned"), calls)
        if calls.now_ms >= _overdue_ms(record):
            self._stop_overdue(record, apply_id, calls)
        return Snooze(record, self._next_look_ms(record, calls, begun_ms))

    def _stop_overdue(self, record: PlanRecord, apply_id: str, calls: StepCalls) -> None:
        """End a fault that the Executor should have ended. The next check says whether it is over."""
        try:
            calls.stop(apply_id)
        except ExecutorClientError as trouble:
            logger.warning("plan %s: its fault lasts too long, and was not stopped: %s", record.id, trouble)

    def _status_due_ms(self, record: PlanRecord, calls: StepCalls) -> int:
        """When the fault's status must be read: every `check_interval_sec`, and from its planned end on."""
        every_ms = max(self._check_ms, calls.in_flight * 1000 // MOST_LOOKS_PER_SEC)
        looked_ms = record.looked_ms or record.applied_ms or 0
        end_ms = record.planned_end_ms or 0
        if record.sent_ms is not None and looked_ms < (record.surely_until_ms or 0) < end_ms - EARLY_MS:
            end_ms = record.surely_until_ms or 0
        return min(looked_ms + every_ms, end_ms)

    def _next_look_ms(self, record: PlanRecord, calls: StepCalls, looked_ms: int | None = None) -> int:
        """How long the plan may rest. `looked_ms` is when the observer's last measurement began."""
        now_ms = calls.now_ms
        overdue_ms = now_ms - (record.planned_end_ms or 0)
        if overdue_ms >= 0:
            pause_ms, stop_ms = min(max(FIRST_POLL_MS, overdue_ms), self._poll_ms), _overdue_ms(record)
            return _until(stop_ms, now_ms, pause_ms) if now_ms < stop_ms else pause_ms
        next_ms = self._status_due_ms(record, calls)
        if self._watch_ms is not None:
            watch_ms = 0 if looked_ms is None else looked_ms + self._watch_ms
            next_ms = min(next_ms, max(record.in_force_ms or 0, watch_ms))
        return max(0, next_ms - now_ms)

    def _collect(self, record: PlanRecord, apply_id: str, calls: StepCalls) -> Decision:
        try:
            if self._watch_ms is not None:
                record = calls.sample(record, Phase.AFTER, _left_s(record, calls.now_ms))
                if not calls.settled(record) and not _is_last(record, calls.now_ms):
                    return Snooze(record, self._watch_ms)
            observation = calls.metrics(record, apply_id, _left_s(record, calls.now_ms))
            if self._config.observer is None and (observation.started_at or observation.ended_at):
                observation = on_our_clock(record, observation, calls.now_ms)
            observation = judge(record, observation, self._config, overlapped=record.overlapped)
        except MetricsNotReadyError as error:
            if _is_last(record, calls.now_ms):
                return failed(record, error, calls.now_ms)
            return Snooze(record, self._pause_for_metrics_ms(record, calls.now_ms))
        except FaultUnobservedError as error:
            return failed(record, error, calls.now_ms)
        except ExecutorClientError as error:  # the next step need not ask for the status again
            return self._try_again(record, error, calls)
        record = record.observed()
        return Complete(record, observation, record.gone_in_ms(calls.now_ms))

    def _pause_for_metrics_ms(self, record: PlanRecord, now_ms: int) -> int:
        """Half of the time that they have been waited for, within bounds, and until the last check."""
        waited_ms = now_ms - (record.over_ms or record.planned_end_ms or now_ms)
        pause_ms = max(self._poll_ms, min(LONGEST_METRICS_PAUSE_MS, waited_ms // 2))
        return _until((record.deadline_ms or now_ms) - round(LAST_LOOK_S * 1000), now_ms, pause_ms)

    def _hold_back(self, record: PlanRecord, rejection: Rejection, calls: StepCalls) -> Decision:
        """What becomes of a plan that blocks no other but may not be taken to the Executor now."""
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
            after_s = rejection.known_after_s
            when = "once it is closed" if after_s is None else f"in {math.ceil(after_s)} s"
            error = CircuitOpenError(f"{message}; submit it again {when}", after_s)
        return failed(record, error, now_ms)

    def _try_again(
        self, record: PlanRecord, error: ExecutorClientError, calls: StepCalls, *, sent: bool = True
    ) -> Decision:
        """`sent`: whether the call that failed may have been an apply."""
        record = record.failed_once_more(error, calls.now_ms)
        if record.apply_id is None:
            arrived = sent and may_have_arrived(error)
            record = (
                record.in_doubt(calls.now_ms, calls.not_after_ms)
                if arrived
                else record._replace(applying_ms=None, sent_ms=record.sent_ms if record.doubtful else None)
            )
        if record.doubtful and not self.idempotent:
            if not (isinstance(error, ExecutorProtocolError) and error.apply_id):
                error = self._hindrance(record, calls.now_ms) or error
            return self._end(record, error, calls)
        delay_s = self._delay_s(record, error, calls)
        return self._end(record, error, calls) if delay_s is None else Retry(record, delay_s, error)

    def _delay_s(self, record: PlanRecord, error: ExecutorClientError, calls: StepCalls) -> float | None:
        """How long to wait before the next attempt. None if no attempt could end in time.

        An apply that was answered with nonsense is sent again, because its fault may be there and must be
        known. That is of no use if its id is known beforehand.
        An Executor that asks to be left alone for longer is, as far as the budget goes.
        """
        nonsense = isinstance(error, ExecutorProtocolError) and record.doubtful
        too_late = isinstance(error, ExecutorRejectedError) and error.status == TOO_LATE
        again = error.retry_safe or too_late or (nonsense and calls.for_stops.id_of(record.id) is None)
        delay_s = self._retry.delay_s(record.attempts, self._draw()) if again else None
        deadline_ms = math.inf if record.deadline_ms is None else record.deadline_ms
        latest_s = (deadline_ms - calls.now_ms) / 1000 - LAST_LOOK_S
        if delay_s is None or delay_s > latest_s:
            return None
        asked_s = getattr(error, "retry_after_s", None) or 0.0
        return max(delay_s, min(asked_s, latest_s))

    def _end(self, record: PlanRecord, error: ExecutorClientError, calls: StepCalls) -> Decision:
        return self._stopper.end(record, error, calls)


def told_window(
    record: PlanRecord, status: FaultStatus | RawObservation, now_ms: int
) -> tuple[int | None, int | None]:
    """When the fault began and ended, as the Executor says, on the server's clock.

    The Executor's clock may be wrong. Times that cannot be are moved, so that the fault begins as planned. A
    window that is longer than the fault can have lasted has no end: it may be the planned one.
    """
    if status.started_at is None and status.ended_at is None:
        return None, None
    began_ms, over_ms = _ms(status.started_at), _ms(status.ended_at)
    applied_ms = record.applied_ms or now_ms
    earliest_ms, latest_ms = (record.sent_ms or applied_ms) - SKEW_MS, now_ms + SKEW_MS
    if all(each is None or earliest_ms <= each <= latest_ms for each in (began_ms, over_ms)):
        return began_ms, over_ms
    if began_ms is None or over_ms is None:
        return None, None
    if over_ms - began_ms > latest_ms - earliest_ms:
        return (began_ms if earliest_ms <= began_ms <= latest_ms else None), None
    begins_ms = applied_ms + record.takes_effect_ms
    return begins_ms, begins_ms + max(0, over_ms - began_ms)


def on_our_clock(record: PlanRecord, observation: RawObservation, now_ms: int) -> RawObservation:
    """The Executor's observation with the window of `told_window`, and a doubt if an end of it is lost.

    A window that was moved is in doubt, too, unless that of the status was moved as far: the figures may be
    of another fault. An observer's times are the server's already.
    """
    told = _ms(observation.started_at), _ms(observation.ended_at)
    window = told_window(record, observation, now_ms)
    if window == told:
        return observation
    certain = None not in window and abs(_skew_ms(observation, window) - record.skew_ms) <= SKEW_MS
    if not certain and None not in (record.began_ms, record.over_ms):
        window = None, None  # the status has said it
    began, over = map(moment_of, window)
    doubts = observation.doubts if certain else (*observation.doubts, Doubt.WINDOW_UNKNOWN)
    return observation.model_copy(update={"started_at": began, "ended_at": over, "doubts": doubts})


def _skew_ms(said: FaultStatus | RawObservation, window: tuple[int | None, int | None]) -> int:
    """By how much the window that the Executor says was moved into place. 0 if it has none."""
    began_ms = _ms(said.started_at)
    return 0 if began_ms is None or None in window else began_ms - (window[0] or 0)


def _ms(moment: datetime | None) -> int | None:
    return None if moment is None else round(moment.timestamp() * 1000)


def _is_in_force(record: PlanRecord, now_ms: int) -> bool:
    return (record.in_force_ms or 0) <= now_ms < (record.surely_until_ms or 0)


def _overdue_ms(record: PlanRecord) -> int:
    """From when on a fault that is still there lasts too long. It may hold requests for a while."""
    return (record.fault_ends_ms or 0) + OVERDUE_MS


def _is_last(record: PlanRecord, now_ms: int) -> bool:
    """Whether the plan has no time left to wait."""
    return has_passed(record.deadline_ms, now_ms + round(LAST_LOOK_S * 1000))


def _until(moment_ms: int | None, now_ms: int, after_ms: int) -> int:
    """`after_ms`, but no longer than until the given moment."""
    return after_ms if moment_ms is None else min(after_ms, max(0, moment_ms - now_ms))


def _call_s(record: PlanRecord, now_ms: int) -> float:
    """What one call for a fault may take, in seconds: the plan's timeout at most (specification 5.2)."""
    return min(_left_s(record, now_ms), max(LAST_LOOK_S, record.timeout_ms / 1000))


def _left_s(record: PlanRecord, now_ms: int) -> float:
    """What is left of the plan's budget for one call, in seconds. Enough for one check, even past its end."""
    deadline_ms = now_ms if record.deadline_ms is None else record.deadline_ms
    return max(LAST_LOOK_S, (deadline_ms - now_ms) / 1000)
