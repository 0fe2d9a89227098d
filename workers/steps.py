"""One step of a plan, from the lease to what its verdict asks of the ledger. Free of Celery."""

from __future__ import annotations

import logging
import math
import uuid
from typing import TYPE_CHECKING

from dispatcher.errors import ExecutorClientError, InvalidPlanError, LedgerUnavailableError
from dispatcher.record import budget_ms
from workers.plan_runner import Fail, Finish, Park, Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from dispatcher.ledger import Ledger, Step
    from dispatcher.models import RawObservation
    from dispatcher.record import PlanRecord
    from dispatcher.results import ResultCodec
    from workers.plan_runner import PlanRunner, Verdict

__all__ = ["Steps"]

LEASE_MARGIN_SEC = 5.0
"""For what a step does beside its calls to the Executor."""

logger = logging.getLogger(__name__)


class Steps:
    """Carries out steps for one worker process. Shared by its threads."""

    def __init__(
        self,
        ledger: Ledger,
        results: ResultCodec,
        runners: Mapping[str, PlanRunner],
        expect: Callable[[int], None],
    ) -> None:
        """`runners` are named as the executors in the configuration.

        `expect` hears in how many ms a plan may be due that this process has just let go.
        """
        self._ledger = ledger
        self._results = results
        self._runners = runners
        self._expect = expect
        longest_s = max(runner.longest_step_s for runner in runners.values())
        self._lease_ms = math.ceil((longest_s + LEASE_MARGIN_SEC) * 1000)

    def take(self, plan_id: str) -> Verdict | None:
        """Act on the plan, if it is due and nobody else does; what came of it.

        None where there was nothing to do, or where Redis or another step took the plan out of these
        hands: then its lease, or that step, brings it on.
        """
        try:
            step = self._ledger.begin(plan_id, uuid.uuid4().hex, self._lease_ms)
            if step is None:
                return None
            verdict = self._advance(step)
            if not self._settle(verdict, step.token):
                logger.warning("plan %s: another step has taken over from this one", plan_id)
                return None
        except LedgerUnavailableError as exc:
            logger.warning("plan %s: this step ends without a verdict: %s", plan_id, exc)
            return None
        _log(verdict)
        return verdict

    def _advance(self, step: Step) -> Verdict:
        record = step.record
        runner = self._runners.get(record.executor)
        if runner is None:
            problem = f"{record.executor} is not configured where the worker runs"
            error: ExecutorClientError = InvalidPlanError(
                f"plan {record.id}: executor {problem}", [["executor", problem]]
            )
            never_applied = record.apply_id is None and not record.doubtful
            return _failed(record, error, alive_ms=0 if never_applied else budget_ms(record.plan, 0))
        try:
            return runner.advance(record, step.now_ms)
        except Exception as exc:
            logger.exception("plan %s: a defect in the worker ends it", record.id)
            error = ExecutorClientError(f"plan {record.id}: a defect in the worker: {exc!r}")
            return _failed(record, error, alive_ms=budget_ms(record.plan, 0))

    def _settle(self, verdict: Verdict, token: str) -> bool:
        """Write the verdict into the ledger. False where the step is stale."""
        match verdict:
            case Park(record, after_ms):
                return self._park(record, token, after_ms, woken_otherwise=False)
            case Retry(record, after_s, _):
                return self._park(record, token, round(after_s * 1000), woken_otherwise=True)
            case Finish(record, observation):
                return self._finish(record, token, observation, alive_ms=0)
            case Fail(record, error, alive_ms):
                return self._finish(record, token, error, alive_ms=alive_ms)

    def _park(self, record: PlanRecord, token: str, after_ms: int, *, woken_otherwise: bool) -> bool:
        due_ms = self._ledger.park(record, token, after_ms, woken_otherwise=woken_otherwise)
        if due_ms is not None:
            self._expect(due_ms)
        return due_ms is not None

    def _finish(
        self, record: PlanRecord, token: str, outcome: RawObservation | ExecutorClientError, *, alive_ms: int
    ) -> bool:
        key, result = self._results.key(record.id), self._results.encode(record.id, outcome)
        held = self._ledger.finish(record, token, key, result, alive_ms=alive_ms)
        self._expect(0)  # the next plan in line for the target may be due
        return held


def _failed(record: PlanRecord, error: ExecutorClientError, *, alive_ms: int) -> Fail:
    """The end of a plan whose Executor could not be asked to stop its fault."""
    return Fail(record.ended(error), error, alive_ms)


def _log(verdict: Verdict) -> None:
    """Successes are for debugging, retries for information, failures are errors (specification 5.2)."""
    match verdict:
        case Park(record, after_ms):
            logger.debug("plan %s: %s, next look in %.1f s", record.id, record.state, after_ms / 1000)
        case Retry(record, after_s, cause):
            logger.info(
                "plan %s: attempt %d failed, again in %.2f s: %s", record.id, record.attempts, after_s, cause
            )
        case Finish(record, _):
            logger.debug("plan %s: observed, fault %s", record.id, record.apply_id)
        case Fail(record, error, _):
            logger.error("plan %s: %s with %s: %s", record.id, record.state, type(error).__name__, error)
