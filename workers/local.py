"""An Executor without a queue: plans carried out in the calling process, by the same steps and drivers."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Self

from pydantic import SecretStr

from dispatcher.errors import InvalidPlanError, InvalidSettingsError
from dispatcher.interface import ExecutorClient
from dispatcher.ledger.connection import impatient_client
from dispatcher.ledger.record import PlanRecord
from dispatcher.limits import SECONDS_RULE, seconds_in
from dispatcher.one_process import OfOneProcess
from dispatcher.settings.executors import ExecutorClientConfig
from dispatcher.settings.settings import Settings
from dispatcher.submissions import check_plan
from dispatcher.telemetry.metrics import ExecutorClientMetrics, ExecutorCounts
from dispatcher.telemetry.traces import TRACER, traceparent
from workers.breaker.local import LocalBreaker
from workers.breaker.rules import UNASKED, Admission
from workers.breaker.shared import SharedBreaker
from workers.engine.decisions import Complete, Fail, Retry, Snooze
from workers.engine.gateway import open_gateway
from workers.engine.traces import step_span
from workers.health import check
from workers.later import LaterCalls
from workers.shield import shield

if TYPE_CHECKING:
    from collections.abc import Mapping

    import redis

    from dispatcher.models import FaultPlan, Health
    from dispatcher.observations import RawObservation
    from dispatcher.settings.executors import ServiceSettings
    from workers.breaker.rules import Breaker
    from workers.engine.decisions import Decision

__all__ = ["HttpExecutorClient"]

CONNECTIONS = 8
"""Connections that are kept, for threads that share a client."""

STOP_AGAIN_AFTER_S = 5.0
"""Until then an apply without a clear answer may begin its fault, so that no stop is final before."""

logger = logging.getLogger(__name__)


class HttpExecutorClient(OfOneProcess, ExecutorClient):
    """The specification's client (5.1): apply, wait, observe, without Celery or workers.

    A plan ends here with its process: what survives that needs a `Dispatcher`. Safe to share between threads.
    Use it as a context manager, or call `close`. A fault in doubt is stopped once more a few seconds after
    its plan's end. `close` and the next plan for its target do so at once.
    """

    def __init__(
        self,
        config: ExecutorClientConfig | None = None,
        *,
        redis_url: str | None = None,
        services: Mapping[str, ServiceSettings] | None = None,
        executor: str = "default",
    ) -> None:
        """With a `redis_url` the circuit breaker is the one that the fleet shares for `executor`.

        `services` are the addresses of targets, if an observer probes them. Raises `InvalidSettingsError`.
        """
        self._config = ExecutorClientConfig() if config is None else _checked(config)
        settings = Settings() if redis_url is None else Settings(redis_url=SecretStr(redis_url))
        self._channel = open_gateway(
            executor,
            self._config,
            services or {},
            connections=CONNECTIONS,
            poll_ms=round(settings.worker.poll_interval_sec * 1000),
        )
        self._redis: redis.Redis | None = None if redis_url is None else impatient_client(settings)
        self._breaker: Breaker = LocalBreaker(executor, self._channel.rules)
        if self._redis is not None:
            self._breaker = SharedBreaker(self._redis, settings.key_prefix, executor, self._channel.rules)
        self._counting = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._later = LaterCalls(STOP_AGAIN_AFTER_S)
        self._checking = threading.Lock()
        self._health: Health | None = None
        self._check_again_at = 0.0
        self._begun_ms = time.time() * 1000 - time.monotonic() * 1000

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the faults in doubt once more, and close all connections."""
        self._later.make_all()
        self._channel.close()
        if self._redis is not None:
            self._redis.close()

    @TRACER.start_as_current_span("apply_and_observe")
    def apply_and_observe(self, plan: FaultPlan, timeout_sec: float | None = None) -> RawObservation:
        """Carry the plan out and return what was observed.

        `timeout_sec` is what this may take beyond the fault's own time, in seconds (`default_timeout_sec` if
        absent). Interrupted, by Ctrl-C for example, it stops the fault first: the steps are taken in a thread
        of their own, so that no call is interrupted halfway. Raises `ExecutorClientError`.
        """
        record = self._record(plan, timeout_sec)
        time.sleep(max(0, record.due_ms - self._now_ms()) / 1000)
        self._later.make_all(_target(record))
        self.check_health()
        decision = shield(partial(self._carry_out, record))
        if isinstance(decision, Fail):
            logger.error(
                "plan %s: failed with %s: %s", record.id, type(decision.error).__name__, decision.error
            )
            raise decision.error
        logger.debug("plan %s: observed, fault %s", record.id, decision.observation.execution_id)
        return decision.observation

    def check_health(self) -> bool:
        """Whether the Executor is up, as of at most `health_check_interval_sec` ago (specification 5.2)."""
        with self._checking:
            if self._health is None or time.monotonic() >= self._check_again_at:
                self._health = check(self._channel.driver, self._breaker)
                self._check_again_at = time.monotonic() + self._config.health_check_interval_sec
            return self._health.healthy

    def metrics(self) -> ExecutorClientMetrics:
        """What this client's own calls have shown (specification 5.2), and how often its breaker has opened.

        With a `redis_url` they count among the fleet's as well: `Dispatcher.metrics` has those.
        """
        with self._counting:
            counts = dict(self._counts)
        return ExecutorClientMetrics.of(ExecutorCounts.of(counts, self._breaker.changes()))

    def _record(self, plan: FaultPlan, timeout_sec: float | None) -> PlanRecord:
        """A new plan. Raises `InvalidPlanError`."""
        plan = check_plan("plan", plan)
        seconds = seconds_in(timeout_sec)
        if timeout_sec is not None and seconds is None:
            problems = [["timeout_sec", SECONDS_RULE]]
            raise InvalidPlanError(f"invalid plan: timeout_sec {SECONDS_RULE}", problems)
        now_ms = self._now_ms()
        begins_ms = now_ms if plan.start_time is None else round(plan.start_time.timestamp() * 1000)
        if begins_ms < now_ms:
            problem = "has passed: choose a later time, or none to start at once"
            raise InvalidPlanError(f"invalid plan: start_time {problem}", [["start_time", problem]])
        return PlanRecord(
            id=str(uuid.uuid4()),
            plan=plan,
            executor=self._channel.name,
            timeout_ms=round((seconds or self._config.default_timeout_sec) * 1000),
            submitted_ms=now_ms,
            due_ms=begins_ms,
            traceparent=traceparent(),
        )

    def _carry_out(self, record: PlanRecord, interrupted: threading.Event) -> Complete | Fail:
        decision: Decision = Snooze(record, 0)
        while isinstance(decision, Snooze | Retry):
            (time.sleep if interrupted.is_set() else interrupted.wait)(_pause_s(decision))
            record = decision.record
            if interrupted.is_set():
                record = record._replace(cancelled="its caller was interrupted")
            decision = self._advance(record)
        assert isinstance(decision, Complete | Fail)  # noqa: S101 (for the type checker)
        if isinstance(decision, Fail) and decision.doubt:
            stop_again = partial(self._advance, decision.record)
            if interrupted.is_set():
                stop_again()
            else:
                self._later.add(_target(record), stop_again)
        return decision

    def _advance(self, record: PlanRecord) -> Decision:
        if record.started_ms is None:
            record = record._replace(started_ms=self._now_ms())
        gateway = self._channel
        calls = gateway.calls(record, self._now_ms())
        answer = gateway.ask(record, self._breaker)
        with step_span(record):
            decision = gateway.advance(record, calls, answer)
        admission = answer if isinstance(answer, Admission) else UNASKED
        self._breaker.record(admission, calls.report, calls.counts)
        with self._counting:
            self._counts.update(calls.counts)
        return decision

    def _now_ms(self) -> int:
        """The time of day when this client was made, and what has passed since."""
        return round(self._begun_ms + time.monotonic() * 1000)


def _target(record: PlanRecord) -> str:
    return f"{record.plan.service} {record.plan.api}"


def _pause_s(decision: Snooze | Retry) -> float:
    if isinstance(decision, Snooze):
        return decision.after_ms / 1000
    logger.info("plan %s: again in %.2f s: %s", decision.record.id, decision.after_s, decision.cause)
    return decision.after_s


def _checked(config: object) -> ExecutorClientConfig:
    if not isinstance(config, ExecutorClientConfig):
        problem = f"must be an ExecutorClientConfig, not {type(config).__name__}"
        raise InvalidSettingsError(f"invalid settings: config {problem}", [["config", problem]])
    return config
