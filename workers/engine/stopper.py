"""The stopper ends faults. A plan ends once its fault is known to be over, or after a while in doubt.

    stop --OVER--> over
      |--else--> status --completed, failed--> over
                   |--unknown to the Executor--> list of faults --absent--> over
                   +--else--> stop again, with growing pauses, even after the plan has ended

An apply without an answer may have begun a fault whose id is unknown. The same apply is sent once more, with
a time that has passed: an Executor that honours `Not-After` names the fault if there is one, and begins none.
Any other Executor that keeps keys names it, and may begin it for a moment.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatcher.errors import (
    CapabilityMissingError,
    ExecutorClientError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    FaultFailedError,
    FaultInDoubtError,
    FaultLostError,
)
from dispatcher.ledger.moments import moment_of
from dispatcher.models import PlanState
from workers.drivers.base import FaultState, StopOutcome
from workers.engine.decisions import Release, Retry, Snooze
from workers.engine.returned import checked_status
from workers.engine.terminal_errors import failed

if TYPE_CHECKING:
    from dispatcher.ledger.record import PlanRecord
    from dispatcher.settings.executors import ExecutorClientConfig
    from workers.drivers.base import Driver, ListedFault
    from workers.engine.calls import StepCalls
    from workers.engine.capabilities import ExecutorCapabilities
    from workers.engine.decisions import Decision

__all__ = ["TOO_LATE", "Stopper"]

WITHIN_S = 5.0
"""What a check of a fault that is being stopped may take, in seconds."""

FIRST_PAUSE_MS = 200
LONGEST_PAUSE_MS = 2_000
LONGEST_PAUSE_IN_DOUBT_MS = 60_000
LATE_APPLY_MS = 5_000
"""How long after an apply without an answer its fault may still begin on an Executor that keeps no time."""

REFUSED = 400
"""An apply that is answered like this was never carried out: it breaks a rule, whenever it is sent. (422 says
that its key was used, so that there is a fault.)"""

TOO_LATE = 412
"""The answer to an apply whose `Not-After` has passed: it has begun nothing, and can be sent again."""

PASSED_MS = 1_000
"""By how much the time has passed until which an apply that is sent again may begin a fault. An Executor that
answers `TOO_LATE` shows that its clock is behind by no more."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Finding:
    """What is known of a fault that is to end."""

    record: PlanRecord
    over: bool = False
    why: str = ""
    """Why that is not known."""

    trouble: ExecutorClientError | None = None
    """The call that failed, if one did."""

    hopeless: bool = False
    """Whether stopping it again would be in vain."""

    apply_id: str | None = None
    """The fault's id, if it is known."""


class Stopper:
    """Ends the faults of one Executor."""

    def __init__(self, config: ExecutorClientConfig, capabilities: ExecutorCapabilities) -> None:
        """`capabilities` are looked at before an apply is sent again."""
        self._capabilities = capabilities
        self._idempotent = config.idempotent_apply
        self._not_after_ms = round(config.apply_not_after_sec * 1000)
        self._confirm_ms = round(config.stop_confirmation_sec * 1000)

    def end(self, record: PlanRecord, error: ExecutorClientError, calls: StepCalls) -> Decision:
        """End the plan with `error`, once its fault is known to be over, or with `FaultInDoubtError`.

        If the apply had no answer, the plan ends at once. Its fault is stopped after that.
        """
        if not record.applied_for_all_we_know or record.state is PlanState.COMPLETED:
            return failed(record, error, calls.now_ms)
        finding = self._stop(record.ending(error, calls.now_ms), calls)
        record, now_ms = finding.record, calls.now_ms
        if finding.over:
            return failed(record, error, now_ms)
        if finding.trouble is not None:
            logger.warning("plan %s: its fault was not stopped: %s", record.id, finding.trouble)
        if finding.hopeless or finding.apply_id is None:
            return failed(record, error, now_ms, doubt=finding.why)
        left_ms = (record.stopping_ms or now_ms) + self._confirm_ms - now_ms
        if left_ms <= 0:
            in_doubt = _in_doubt(error, finding.apply_id, finding.why)
            return failed(record, in_doubt, now_ms, doubt=finding.why)
        pause_ms = min(_pause_ms(record, LONGEST_PAUSE_MS), left_ms)
        if finding.trouble is not None:
            return Retry(record, pause_ms / 1000, finding.trouble)
        return Snooze(record, pause_ms)

    def resolve(self, record: PlanRecord, calls: StepCalls) -> Decision:
        """Stop the fault of a plan that has ended in doubt, or learn that it is over."""
        finding = self._stop(record, calls)
        if finding.over:
            return Release(finding.record, finding.record.gone_in_ms(calls.now_ms))
        if finding.hopeless and finding.apply_id is None:  # no answer will ever say
            alive_ms = finding.record.alive_ms(calls.now_ms - LATE_APPLY_MS)
            return Snooze(finding.record, alive_ms) if alive_ms > 0 else Release(finding.record, 0)
        return Snooze(finding.record, _pause_ms(finding.record, LONGEST_PAUSE_IN_DOUBT_MS))

    def _stop(self, record: PlanRecord, calls: StepCalls) -> _Finding:
        driver: Driver = calls.for_stops
        apply_id = record.apply_id or _named(record) or driver.id_of(record.id)
        try:
            if apply_id is not None:
                return self._stop_known(record, apply_id, calls)
            apply_id = self._learn(record, calls)
            if apply_id is None:
                return _unknowable(record)
            record = record._replace(apply_id=apply_id, applied_ms=record.applied_ms or calls.now_ms)
            return self._stop_known(record, apply_id, calls)
        except CapabilityMissingError as lacking:  # an apply could hit more than the plan says
            return _Finding(record, why=lacking.message, hopeless=True)
        except ExecutorClientError as trouble:
            if apply_id is None and (from_ms := self._no_fault_from_ms(record, trouble)) is not None:
                over = calls.now_ms >= from_ms
                return _Finding(_again(record), over=over, why="its apply may still arrive")
            why = f"the last call failed: {trouble.message}"
            keep = record.state.final or _named(record) is not None  # why it ended, or which fault it is
            record = _again(record) if keep else record.failed_once_more(trouble, calls.now_ms)
            return _Finding(record, why=why, trouble=trouble, apply_id=apply_id)

    def _learn(self, record: PlanRecord, calls: StepCalls) -> str | None:
        """The id of a fault whose apply had no answer. None if there is no way to learn it."""
        driver: Driver = calls.for_stops
        for fault in _listed(driver) or ():
            if fault.key == record.id:
                return fault.apply_id
        if not self._idempotent:
            return None
        if not record.state.final and isinstance(record.error, ExecutorServerError):
            raise record.error  # it asked for no more attempts: the apply is sent again after the plan's end
        self._capabilities.check(record, driver.supports, calls.now_ms, lambda: driver.capabilities(WITHIN_S))
        passed = moment_of(calls.now_ms - PASSED_MS)
        within_s = driver.longest_call_s if record.state.final else WITHIN_S  # the plan's end waits for it
        return driver.apply(record.sent_plan, record.id, within_s, passed)

    def _stop_known(self, record: PlanRecord, apply_id: str, calls: StepCalls) -> _Finding:
        finding = self._ask(record, apply_id, calls)
        answered = record.apply_id is not None or _named(record) is not None
        if finding.over and not answered and calls.now_ms < _first_over_ms(record):
            return _Finding(_again(record), why="its apply may still arrive", apply_id=apply_id)
        return finding

    def _no_fault_from_ms(self, record: PlanRecord, trouble: ExecutorClientError) -> int | None:
        """From when on no apply can begin a fault any more, if one that was sent again met none so far.

        None if the answer does not say that.
        """
        if isinstance(trouble, FaultFailedError):
            return _first_over_ms(record)
        if isinstance(trouble, ExecutorRejectedError) and trouble.status == REFUSED:
            return 0
        if isinstance(trouble, ExecutorRejectedError) and trouble.status == TOO_LATE:
            latest_ms = record.not_after_ms or (record.doubtful_ms or 0) + self._not_after_ms
            return latest_ms + PASSED_MS
        return None

    def _ask(self, record: PlanRecord, apply_id: str, calls: StepCalls) -> _Finding:
        """Stop the fault, and look whether it is over.

        Some Executors refuse to stop a fault that is over already. Raises the refusal if it is not.
        """
        try:
            outcome = calls.stop(apply_id)
        except ExecutorRejectedError:
            with suppress(ExecutorClientError):
                if self._look(record, apply_id, calls, StopOutcome.UNCONFIRMED).over:
                    return _Finding(record, over=True)
            raise
        if outcome is StopOutcome.OVER:
            return _Finding(record, over=True)
        return self._look(record, apply_id, calls, outcome)

    def _look(self, record: PlanRecord, apply_id: str, calls: StepCalls, outcome: StopOutcome) -> _Finding:
        """Whether the fault is over, after a stop that does not say so."""
        driver: Driver = calls.for_stops
        try:
            came = driver.status(apply_id, WITHIN_S)
            status = checked_status(f"{type(driver).__name__}.status", came)
            over = status.state is FaultState.COMPLETED
            why = f"the Executor still has fault {apply_id}"
        except FaultFailedError:
            over, why = True, ""
        except FaultLostError:
            listed = _listed(driver)
            over = listed is not None and all(fault.apply_id != apply_id for fault in listed)
            why = f"the Executor does not know fault {apply_id}"
        hopeless = outcome is StopOutcome.UNSUPPORTED and not over
        why = "the Executor cannot stop faults" if hopeless else why
        return _Finding(_again(record), over, why, hopeless=hopeless, apply_id=apply_id)


def _listed(driver: Driver) -> list[ListedFault] | None:
    """All faults of the Executor. None if it cannot list them, or refuses to."""
    try:
        return driver.faults(WITHIN_S)
    except ExecutorRejectedError as refusal:
        logger.warning("the Executor's faults cannot be listed: %s", refusal)
        return None


def _again(record: PlanRecord) -> PlanRecord:
    return record._replace(attempts=record.attempts + 1)


def _named(record: PlanRecord) -> str | None:
    """The fault that a broken answer to its apply names."""
    answers = (record.error, record.failure)
    named = [each.apply_id for each in answers if isinstance(each, ExecutorProtocolError)]
    return next(filter(None, named), None)


def _first_over_ms(record: PlanRecord) -> int:
    """Before this, an Executor that does not have the fault may still get its apply."""
    return (record.doubtful_ms or 0) + LATE_APPLY_MS


def _unknowable(record: PlanRecord) -> _Finding:
    why = "its apply had no answer, and the Executor keeps no keys"
    return _Finding(record, why=why, hopeless=True)


def _in_doubt(error: ExecutorClientError, apply_id: str, why: str) -> FaultInDoubtError:
    message = f"{error.message}; it is unknown whether its fault {apply_id} is over: {why}"
    return FaultInDoubtError(message, apply_id)


def _pause_ms(record: PlanRecord, longest_ms: int) -> int:
    """Twice as long after each stop."""
    return int(min(longest_ms, FIRST_PAUSE_MS * 2.0 ** min(record.attempts, 20)))
