"""All that is between plans and one Executor, built from the settings."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from dispatcher.errors import InvalidSettingsError
from dispatcher.settings.executors import ProbeSettings, PrometheusSettings
from dispatcher.settings.settings import WITHOUT_METRICS
from workers.breaker.rules import BreakerRules, Rejection
from workers.drivers.registry import open_driver
from workers.engine.call_metrics import repeated
from workers.engine.calls import StepCalls
from workers.engine.decisions import Fail, Retry, Snooze
from workers.engine.state_machine import StateMachine
from workers.engine.terminal_errors import defect
from workers.engine.traces import traced
from workers.observers.probe import ProbeObserver
from workers.observers.prometheus import PrometheusObserver

if TYPE_CHECKING:
    from collections.abc import Mapping

    from dispatcher.ledger.record import PlanRecord
    from dispatcher.settings.executors import ExecutorClientConfig, ServiceSettings
    from workers.breaker.rules import Admission, Breaker
    from workers.drivers.base import Driver
    from workers.engine.decisions import Decision
    from workers.observers.base import Observer

__all__ = ["Gateway", "open_gateway"]

CALLS_A_STEP = 3
"""The most calls that one step makes: status, metrics, and stop if they fail."""

DEFECT_PAUSE_MS = 60_000
"""Time between two checks of a fault in doubt that meet a defect in the worker."""

LOOKS_A_STEP = 2
"""The most measurements of a target in one step: before the fault, and at its begin."""

STEP_MARGIN_SEC = 5.0
"""For what a step does besides its calls."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gateway:
    """The way to one Executor, except its breaker."""

    name: str
    driver: Driver
    observer: Observer | None
    runner: StateMachine
    rules: BreakerRules
    patience_s: float
    """How long the Executor's answers are waited for in general, in seconds."""

    not_after_s: float
    """How long after it was sent an apply may begin its fault, in seconds."""

    @classmethod
    def of(
        cls,
        name: str,
        config: ExecutorClientConfig,
        driver: Driver,
        observer: Observer | None = None,
        *,
        poll_ms: int,
    ) -> Self:
        """The way to the Executor `name` over this driver. `poll_ms` as in `StateMachine`."""
        watch_ms = None if observer is None or observer.every_s is None else round(observer.every_s * 1000)
        runner = StateMachine(config, poll_ms=poll_ms, watch_ms=watch_ms)
        rules = BreakerRules.of(config, lease_s=_longest_step_s(driver, observer))
        return cls(name, driver, observer, runner, rules, config.read_timeout_sec, config.apply_not_after_sec)

    def calls(self, record: PlanRecord, now_ms: int, in_flight: int = 0) -> StepCalls:
        """The calls of one step that begins at `now_ms`. `in_flight` is how many plans the fleet has."""
        return StepCalls(
            self.driver,
            now_ms,
            self.observer,
            repeats=repeated(record) if record.attempts else None,
            patience_s=self.patience_s,
            not_after_s=self.not_after_s,
            in_flight=in_flight,
        )

    def must_announce(self, record: PlanRecord) -> bool:
        """Whether the plan's next step sends an apply that must not be repeated."""
        return not self.runner.idempotent and record.apply_id is None and record.applying_ms is None

    def ask(
        self, record: PlanRecord, breaker: Breaker, admitted: Admission | None = None
    ) -> Admission | Rejection | None:
        """May the plan's next step call the Executor? None if it makes no call.

        A caller that knows already that the breaker lets calls through passes what it has `admitted`. A retry
        needs the fleet's budget besides.
        """
        if record.ends:
            return None
        retry = record.attempts > 0 and self.rules.budget_enabled
        if admitted is not None and not retry:
            return admitted
        return breaker.admit(retry=retry, in_line=self.runner.waits(record))

    def advance(self, record: PlanRecord, calls: StepCalls, answer: Admission | Rejection | None) -> Decision:
        """Take one step, as far as the breaker's answer allows. No exception comes out of it."""
        try:
            rejection = answer if isinstance(answer, Rejection) else None
            decision = traced(self.runner.advance(record, calls, rejection))
        except BaseException as exc:  # a driver may raise SystemExit, or the Timeout of gevent
            logger.exception("plan %s: a defect in the worker ends it", record.id)
            if record.state.final:
                return Snooze(record, DEFECT_PAUSE_MS)
            decision = traced(defect(record, exc, calls.now_ms))
        if isinstance(decision, Retry | Fail) or decision.record.error is not None:
            _let_go_of_frames(decision)
        return decision

    def close(self) -> None:
        """Let go of all connections."""
        self.driver.close()
        if self.observer is not None:
            self.observer.close()


def _let_go_of_frames(decision: Decision) -> None:
    """Frames of a traceback hold its error. Only the collector of cycles would free them."""
    record = decision.record
    for error in (record.failure, record.error, decision.error if isinstance(decision, Fail) else None):
        if error is not None:
            error.with_traceback(None)


def _longest_step_s(driver: Driver, observer: Observer | None) -> float:
    looks_s = 0.0 if observer is None else LOOKS_A_STEP * observer.longest_look_s
    return CALLS_A_STEP * driver.longest_call_s + looks_s + STEP_MARGIN_SEC


def open_gateway(
    name: str,
    config: ExecutorClientConfig,
    services: Mapping[str, ServiceSettings],
    *,
    connections: int,
    poll_ms: int,
) -> Gateway:
    """The way to the Executor `name`, for `connections` threads at once.

    Raises `InvalidSettingsError` for a driver that is not installed, or refuses its settings.
    """
    driver = open_driver(name, config, connections)
    if config.driver in WITHOUT_METRICS and config.observer is None:
        problem = f"is required, because {config.driver} has no metrics"
        raise InvalidSettingsError(problem, [["observer", problem]]).within(f"executors.{name}")
    observer = _observer(name, config, services, connections)
    return Gateway.of(name, config, driver, observer, poll_ms=poll_ms)


def _observer(
    name: str, config: ExecutorClientConfig, services: Mapping[str, ServiceSettings], connections: int
) -> Observer | None:
    match config.observer:
        case ProbeSettings() as settings:
            return ProbeObserver(settings, services)
        case PrometheusSettings() as settings:
            try:
                return PrometheusObserver(settings, connections)
            except InvalidSettingsError as exc:
                raise exc.within(f"executors.{name}.observer") from exc
    return None
