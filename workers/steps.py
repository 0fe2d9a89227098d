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

    from dispatcher.ledger import Ledger, Step
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

    def take(self, plan_id: str) -> Verdict | None:
        """Act on the plan, if it is due and nobody else does; what came of it.

        None where there was nothing to do, or where Redis or another step took the plan out of these
        hands: then its lease, or that step, brings it on.
        """
        begun = time.monotonic()
        try:
            step = self._ledger.begin(plan_id, _token(), self._lease_ms)
            if step is None:
                return None
            with step_span(step.record, SpanKind.CONSUMER):
                return self._carry_out(step, begun)
        except LedgerUnavailableError as exc:
            told = "plan %s: this step ends without a verdict: %s"
            logger.warning(told, plan_id, exc, extra={"plan": plan_id})
            return None

    def _carry_out(self, step: Step, begun: float) -> Verdict | None:
        verdict, beside = self._advance(step)
        if not self._settle(verdict, step.token, beside):
            logger.warning("plan %s: another step has taken over from this one", step.record.id)
            return None
        _log(verdict, (time.monotonic() - begun) * 1000)
        return verdict

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

    def _settle(self, verdict: Verdict, token: str, beside: Sequence[Call]) -> bool:
        """Write the verdict into the ledger. False where the step is stale."""
        match verdict:
            case Park(record, after_ms):
                return self._park(record, token, after_ms, beside, woken_otherwise=False)
            case Retry(record, after_s, _):
                return self._park(record, token, round(after_s * 1000), beside, woken_otherwise=True)
            case Finish(record, observation):
                return self._finish(record, token, observation, beside, alive_ms=0)
            case Fail(record, error, alive_ms):
                return self._finish(record, token, error, beside, alive_ms=alive_ms)

    def _park(
        self, record: PlanRecord, token: str, after_ms: int, beside: Sequence[Call], *, woken_otherwise: bool
    ) -> bool:
        due_ms = self._ledger.park(record, token, after_ms, woken_otherwise=woken_otherwise, beside=beside)
        if due_ms is not None:
            self._expect(due_ms)
        return due_ms is not None

    def _finish(
        self,
        record: PlanRecord,
        token: str,
        outcome: RawObservation | ExecutorClientError,
        beside: Sequence[Call],
        *,
        alive_ms: int,
    ) -> bool:
        key, result = self._results.key(record.id), self._results.encode(record.id, outcome)
        held = self._ledger.finish(record, token, key, result, alive_ms=alive_ms, beside=beside)
        self._expect(0)  # the next plan in line for the target may be due
        return held


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
