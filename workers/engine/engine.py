"""The engine of a worker process: fetcher, executor, completer and lease keeper around Celery's pool."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, Protocol

from opentelemetry.trace import SpanKind

from workers.engine.bulkhead import Bulkheads, Entry
from workers.engine.completer import Completer
from workers.engine.decisions import Complete, Fail, Release, Retry, Snooze
from workers.engine.execution import Execution
from workers.engine.fetcher import Fetcher
from workers.engine.gateway import DEFECT_PAUSE_MS
from workers.engine.lease_keeper import LeaseKeeper
from workers.engine.terminal_errors import defect
from workers.engine.traces import step_span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from concurrent.futures import Future

    from dispatcher.ledger.leases import Denial, Lease, Leases, Named, Standing
    from dispatcher.tasks.results import ResultCodec
    from workers.breaker.shared import SharedBreaker
    from workers.engine.decisions import Decision
    from workers.engine.executor import PlanExecutor

__all__ = ["Announcer", "Engine", "Load"]

FULL_SNOOZE_MS = 1000
"""How long a plan waits in the ledger while too many wait here for its Executor."""

DRAIN_LOOK_S = 0.02

logger = logging.getLogger(__name__)


class Announcer(Protocol):
    """What the world outside learns of plans whose steps ran without a Celery task."""

    def observed(self, plan_id: str, decision: Complete) -> None:
        """The plan has its observation."""
        ...

    def failed(self, decision: Fail) -> None:
        """The plan has ended without one."""
        ...

    def retry(self, lease: Lease, decision: Retry) -> None:
        """The plan's next attempt is to begin with a message of Celery's."""
        ...


class Load(NamedTuple):
    """What a worker is at."""

    running: int
    """Steps under way."""

    longest_step_s: float
    """For how long the oldest of them has been under way."""

    waiting: int
    """Plans that wait in this worker for a free thread."""

    longest_wait_s: float


class Engine:
    """Carries leased plans out. `attempt` does it in the calling thread; due plans run in the pool."""

    def __init__(
        self,
        leases: Leases,
        executor: PlanExecutor,
        results: ResultCodec,
        breakers: Mapping[str, SharedBreaker],
        announcer: Announcer,
        *,
        threads: int,
        share: float,
        submit: Callable[[Callable[[Lease], None], Lease], object],
    ) -> None:
        """`submit` has a thread of the pool call a function with a lease.

        `share` is the part of all `threads` that one of several Executors may take.
        """
        self._executor = executor
        self._breakers = breakers
        self.announcer = announcer
        self._submit = submit
        self._running: dict[str, float] = {}
        self._bulkheads = Bulkheads(breakers, threads, share)
        self.keeper = LeaseKeeper(leases)
        self.completer = Completer(leases, self.keeper, results, breakers, written=self._written)
        self.fetcher = Fetcher(
            leases,
            self.keeper,
            self.completer,
            threads=threads,
            run=partial(submit, self._run_due),
        )

    def start(self) -> None:
        """Begin."""
        for loop in (self.keeper, self.completer, self.fetcher):
            loop.start()

    def stop(self) -> None:
        """End: what has not begun goes back to the ledger, what has begun is finished."""
        self.fetcher.stop()
        for lease in self._bulkheads.drain():
            self.completer.release(lease)
        while len(self.keeper):  # each step ends by its Executor's timeouts, or loses its lease
            time.sleep(DRAIN_LOOK_S)
        self.completer.stop()
        self.keeper.stop()

    @property
    def load(self) -> Load:
        """What it is at now."""
        now, running = time.monotonic(), dict(self._running)
        waiting = [since for plan, since in self.keeper.held_since.items() if plan not in running]
        step_s, wait_s = (now - min(each, default=now) for each in (running.values(), waiting))
        return Load(len(running), step_s, len(waiting), wait_s)

    def collect(self, named: Named) -> Lease | Denial | None:
        """See `Fetcher.collect`."""
        return self.fetcher.collect(named)

    def enter(self, lease: Lease) -> bool:
        """Take one of its Executor's threads for the lease. False: another thread will carry it out."""
        entry = self._bulkheads.enter(lease)
        if entry is Entry.FULL:
            self.completer.snooze(lease, FULL_SNOOZE_MS)
        return entry is Entry.RUN

    def leave(self, lease: Lease) -> None:
        """Give the thread back; the next lease that waits for its Executor runs in the pool."""
        following = self._bulkheads.leave(lease.record.executor)
        if following is not None:
            self._submit(self._run_entered, following)

    def attempt(self, lease: Lease) -> tuple[Execution, Standing | None]:
        """Carry out one step and have its decision stored.

        A failure is waited for until the ledger has answered: the breaker knows of it before this thread
        calls again.
        """
        began = self._running[lease.plan_id] = time.monotonic()
        self._note_breaker(lease)
        try:
            with step_span(lease.record, SpanKind.CONSUMER):
                execution, answer = self._execute(lease)
                if not isinstance(execution.decision, Retry | Fail):
                    _log(execution.decision, (time.monotonic() - began) * 1000)
                    return execution, None
                standing = answer.result()
                if standing.lost:
                    logger.warning("plan %s: another worker has taken over from this one", lease.plan_id)
                else:
                    _log(execution.decision, (time.monotonic() - began) * 1000)
            return execution, standing
        finally:
            self._running.pop(lease.plan_id, None)

    def _execute(self, lease: Lease) -> tuple[Execution, Future[Standing]]:
        """A defect ends the plan that meets it: its lease must not be renewed forever."""
        try:
            execution = self._executor.execute(lease)
            return execution, self.completer.settle(lease, execution)
        except BaseException as exc:  # see `Gateway.advance`
            logger.exception("plan %s: a defect in the worker ends it", lease.plan_id)
            ended = lease.record.state.final
            after = (
                Snooze(lease.record, DEFECT_PAUSE_MS) if ended else defect(lease.record, exc, lease.time_ms)
            )
            execution = Execution(after)
            return execution, self.completer.settle(lease, execution)

    def _run_due(self, lease: Lease) -> None:
        """Carry out the step of a due plan, in a thread of the pool."""
        try:
            if self.fetcher.begun(lease) and self.enter(lease):
                self._run_entered(lease)
        finally:
            self.fetcher.finished(lease)

    def _run_entered(self, lease: Lease) -> None:
        try:
            execution, standing = self.attempt(lease)
            if standing is not None and not standing.lost:
                self._announce(lease, execution.decision, standing)
        except Exception:
            logger.exception("plan %s: what follows its step broke off", lease.plan_id)
        finally:
            self.leave(lease)

    def _announce(self, lease: Lease, decision: Decision, standing: Standing) -> None:
        match decision:
            case Fail():
                self.announcer.failed(decision)
            case Retry() if not standing.cancelled:
                self.announcer.retry(lease, decision)

    def _written(self, standing: Standing, plan_id: str, execution: Execution | None) -> None:
        """The ledger has answered: the fetcher's next turn comes in time for what is due."""
        if standing.lost:
            return
        self.fetcher.expect(max(0, standing.due_ms) / 1000)
        if execution is not None and isinstance(execution.decision, Complete):
            self.announcer.observed(plan_id, execution.decision)

    def _note_breaker(self, lease: Lease) -> None:
        """Take in what the ledger said of the breaker, unless something newer is known."""
        breaker = self._breakers.get(lease.record.executor)
        if breaker is not None:
            breaker.note_at(lease.granted_at, *lease.breaker)


def _log(decision: Decision, took_ms: float) -> None:
    """Successes are for debugging, retries for information, failures are errors (specification 5.2)."""
    record = decision.record
    more = {"apply_id": record.apply_id, "duration_ms": round(took_ms, 1)}
    match decision:
        case Snooze(after_ms=after_ms):
            line = "plan %s: %s, due in %.1f s"
            logger.debug(line, record.id, record.state, after_ms / 1000, extra=more)
        case Retry(after_s=after_s, cause=cause):
            line = "plan %s: attempt %d failed, again in %.2f s: %s"
            logger.info(line, record.id, record.attempts, after_s, cause, extra=more)
        case Release():
            logger.warning("plan %s: its fault is over, %s", record.id, record.plan, extra=more)
        case Complete():
            logger.debug("plan %s: observed, fault %s", record.id, record.apply_id, extra=more)
        case Fail(error=error):
            line = "plan %s: %s with %s: %s"
            logger.error(line, record.id, record.state, type(error).__name__, error, extra=more)
