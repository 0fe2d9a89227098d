"""One step of a plan, from the lease to what its verdict asks of the ledger. Free of Celery."""

from __future__ import annotations

import logging
import math
import random
import time
from typing import TYPE_CHECKING

from opentelemetry.trace import SpanKind

from dispatcher.errors import ExecutorClientError, InvalidPlanError, LedgerUnavailableError
from workers.breaker_rules import UNASKED, Admission, Outcome, Rejection, Report
from workers.calls import StepCalls
from workers.endings import failed
from workers.metrics import repeated
from workers.traces import noted, step_span
from workers.verdicts import Fail, Finish, Park, Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from dispatcher.ledger import Ledger, Settled, Step
    from dispatcher.models import RawObservation
    from dispatcher.record import PlanRecord
    from dispatcher.results import ResultCodec
    from dispatcher.scripts import Call
    from workers.breaker import SharedBreaker
    from workers.channel import Channel
    from workers.verdicts import Verdict

__all__ = ["Steps"]

logger = logging.getLogger(__name__)


class Steps:
    """Carries out steps for one worker process. Shared by its threads."""

    def __init__(
        self,
        ledger: Ledger,
        results: ResultCodec,
        channels: Mapping[str, Channel],
        breakers: Mapping[str, SharedBreaker],
        expect: Callable[[int], None],
    ) -> None:
        """`channels` and `breakers` are named as the executors in the configuration.

        `expect` hears in how many ms a plan may be due that this process has just let go.
        """
        self._ledger = ledger
        self._results = results
        self._channels = channels
        self._breakers = breakers
        self._expect = expect
        longest_s = max(channel.longest_step_s for channel in channels.values())
        self._lease_ms = math.ceil(longest_s * 1000)

    def take(self, plan_id: str, then: Callable[[Verdict], None]) -> None:
        """Act on the plan, if it is due and nobody else does. `then` hears what came of it.

        It hears it once the verdict is in the ledger: later, it may be, and in another thread, but in the
        context of this call. And nothing where there was nothing to do, or where Redis or another step took
        the plan out of these hands: then its lease, or that step, brings it on.
        """
        begun = time.monotonic()
        try:
            step = self._ledger.begin(plan_id, _token(), self._lease_ms)
        except LedgerUnavailableError as exc:
            _log_lost(plan_id, exc)
            return
        if step is None:
            return
        with step_span(step.record, SpanKind.CONSUMER):
            verdict, beside = self._advance(step)

            def hear(settled: Settled) -> None:
                if self._is_settled(step.record.id, settled):
                    _log(verdict, (time.monotonic() - begun) * 1000)
                    then(verdict)

            self._settle(verdict, step.token, beside, hear)

    def _advance(self, step: Step) -> tuple[Verdict, list[Call]]:
        """The verdict, and what breaker and metrics are to hear in the ledger's round trip."""
        record = step.record
        channel = self._channels.get(record.executor)
        if channel is None:
            return noted(_unconfigured(step)), []
        calls = StepCalls(channel.driver, step.now_ms, channel.observer, repeats=repeated(record))
        breaker = self._breakers[record.executor]
        answer = channel.ask(record, breaker, breaker.admitted_by(*step.breaker))
        verdict = channel.advance(record, calls, answer)
        return verdict, _heard(breaker, answer, calls)

    def _settle(
        self, verdict: Verdict, token: str, beside: Sequence[Call], then: Callable[[Settled], None]
    ) -> None:
        """Write the verdict into the ledger."""
        park, finish = self._ledger.park, self._ledger.finish
        match verdict:
            case Park(record, after_ms):
                park(record, token, after_ms, beside=beside, then=then)
            case Retry(record, after_s, _):
                park(record, token, round(after_s * 1000), woken_otherwise=True, beside=beside, then=then)
            case Finish(record, observation):
                finish(record, token, *self._result(record, observation), beside=beside, then=then)
            case Fail(record, error, alive_ms):
                result = self._result(record, error)
                finish(record, token, *result, alive_ms=alive_ms, beside=beside, then=then)

    def _result(self, record: PlanRecord, outcome: RawObservation | ExecutorClientError) -> tuple[str, str]:
        """Where Celery's result backend looks for it, and what it finds there."""
        return self._results.key(record.id), self._results.encode(record.id, outcome)

    def _is_settled(self, plan_id: str, settled: Settled) -> bool:
        match settled:
            case None:
                logger.warning("plan %s: another step has taken over from this one", plan_id)
            case LedgerUnavailableError():
                _log_lost(plan_id, settled)
            case due_ms:
                self._expect(due_ms)
                return True
        return False


def _token() -> str:
    """A name that no other step has. Nobody need be kept from guessing it, so the kernel is not asked."""
    return f"{random.getrandbits(128):032x}"


def _heard(breaker: SharedBreaker, answer: Admission | Rejection | None, calls: StepCalls) -> list[Call]:
    admission, report = UNASKED, Report(Outcome.NONE)
    if isinstance(answer, Admission) and answer.local:
        breaker.record(answer, calls.report)
    elif isinstance(answer, Admission):
        admission, report = answer, calls.report
    nothing_to_tell = report.outcome is Outcome.NONE and not admission.id and not calls.counts
    return [] if nothing_to_tell else [breaker.recording(admission, report, calls.counts)]


def _unconfigured(step: Step) -> Fail:
    record = step.record
    problem = f"{record.executor} is not configured where the worker runs"
    error = InvalidPlanError(f"plan {record.id}: executor {problem}", [["executor", problem]])
    return failed(record, error, step.now_ms)


def _log_lost(plan_id: str, exc: LedgerUnavailableError) -> None:
    logger.warning("plan %s: this step ends without a verdict: %s", plan_id, exc, extra={"plan": plan_id})


def _log(verdict: Verdict, took_ms: float) -> None:
    """Successes are for debugging, retries for information, failures are errors (specification 5.2)."""
    record = verdict.record
    more = {"apply_id": record.apply_id, "duration_ms": round(took_ms, 1)}
    match verdict:
        case Park(after_ms=after_ms):
            told = "plan %s: %s, next look in %.1f s"
            logger.debug(told, record.id, record.state, after_ms / 1000, extra=more)
        case Retry(after_s=after_s, cause=cause):
            told = "plan %s: attempt %d failed, again in %.2f s: %s"
            logger.info(told, record.id, record.attempts, after_s, cause, extra=more)
        case Finish():
            logger.debug("plan %s: observed, fault %s", record.id, record.apply_id, extra=more)
        case Fail(error=error):
            told = "plan %s: %s with %s: %s"
            logger.error(told, record.id, record.state, type(error).__name__, error, extra=more)
