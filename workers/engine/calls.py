"""The calls of one step: what time it is meanwhile, what they say of the Executor, what there is to count."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from dispatcher.errors import ExecutorClientError, ExecutorTimeoutError
from dispatcher.ledger.moments import moment_of
from dispatcher.stored_errors import as_known, is_known
from dispatcher.telemetry.metrics import CallKind
from workers.breaker.rules import Outcome, Report
from workers.engine.call_metrics import measured
from workers.engine.returned import checked_observation, checked_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.ledger.record import PlanRecord
    from dispatcher.models import FaultPlan
    from dispatcher.observations import RawObservation
    from workers.drivers.base import Driver, FaultStatus, StopOutcome
    from workers.observers.base import Observer, Phase

__all__ = ["StepCalls"]

T = TypeVar("T")


class StepCalls:
    """A driver for one step. Stopping a fault never counts as a failure: it leaves no report."""

    def __init__(
        self,
        driver: Driver,
        begun_ms: int,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
        repeats: CallKind | None = None,
        patience_s: float = 0.0,
        not_after_s: float = math.inf,
        in_flight: int = 0,
    ) -> None:
        """`begun_ms` is the time at which the step began; `clock` returns the seconds that pass meanwhile.

        `repeats` is the call that failed in the step before, if one did. `patience_s` is how long an answer
        is waited for in general: if a call is given less time, its timeout is not a failure of the Executor.
        """
        self._driver = driver
        self._observer = observer
        self._begun_ms = begun_ms
        self._clock = clock
        self._begun = clock()
        self._repeats = repeats
        self._patience_s = patience_s
        self._not_after_s = not_after_s
        self.in_flight = in_flight
        """How many plans the fleet has, about."""

        self.not_after_ms: int | None = None
        """Until when the apply of this step may begin its fault."""

        self.counts: dict[str, int] = {}
        """What its calls add to the fleet's metrics."""

        self.report = Report(Outcome.NONE)
        """The worst that its calls have shown, and how long the longest took."""

    @property
    def now_ms(self) -> int:
        """The time, by the clock that the step began with."""
        return self._begun_ms + round((self._clock() - self._begun) * 1000)

    @property
    def supports(self) -> frozenset[str]:
        """See `Driver.supports`."""
        return self._driver.supports

    def capabilities(self, within_s: float) -> frozenset[str]:
        """See `Driver.capabilities`. It counts for the breaker, and not among the calls for plans."""
        return self._watch(None, lambda: self._driver.capabilities(within_s), within_s)

    def apply(self, plan: FaultPlan, key: str, within_s: float) -> str:
        """See `Driver.apply`. An apply must not begin its fault once its answer is not waited for.

        Raises `TypeError` if the driver returns something else than an id. The fault may have begun.
        """
        within_s = min(within_s, self._driver.longest_call_s)
        self.not_after_ms = self.now_ms + round(min(within_s, self._not_after_s) * 1000)
        not_after = moment_of(self.not_after_ms)
        apply_id = self._watch(
            CallKind.APPLY, lambda: self._driver.apply(plan, key, within_s, not_after), within_s
        )
        if not (isinstance(apply_id, str) and apply_id and apply_id.isprintable()):
            raise TypeError(f"{type(self._driver).__name__}.apply returned no id, but {apply_id!r}")
        return apply_id

    def status(self, apply_id: str, within_s: float) -> FaultStatus:
        """See `Driver.status`. Raises `ExecutorProtocolError` if the driver returns anything else."""
        came = self._watch(CallKind.STATUS, lambda: self._driver.status(apply_id, within_s), within_s)
        return checked_status(f"{type(self._driver).__name__}.status", came)

    def metrics(self, record: PlanRecord, apply_id: str, within_s: float) -> RawObservation:
        """See `Driver.metrics`, and `Observer.observation` if there is an observer.

        Its `timestamp` is by the clock that the step began with: the worker's own may be wrong.

        Raises `ExecutorProtocolError` for an observation that cannot be.
        """
        if self._observer is not None:
            seen = self._observer.observation(record, self.now_ms, within_s)
            return checked_observation(f"{type(self._observer).__name__}.observation", seen)

        came = self._watch(CallKind.METRICS, lambda: self._driver.metrics(apply_id, within_s), within_s)
        collected_s = self._begun_ms / 1000 + self._clock() - self._begun
        collected_at = datetime.fromtimestamp(collected_s, UTC)
        return checked_observation(f"{type(self._driver).__name__}.metrics", came, collected_at)

    def sample(self, record: PlanRecord, phase: Phase, within_s: float) -> PlanRecord:
        """See `Observer.sample`. What it meets says nothing of the Executor."""
        if self._observer is None:
            return record
        return record.sampled(self._observer.sample(record, phase, self.now_ms, within_s))

    def settled(self, record: PlanRecord) -> bool:
        """See `Observer.settled`."""
        return self._observer is None or self._observer.settled(record, self.now_ms)

    def stop(self, apply_id: str) -> StopOutcome:
        """See `Driver.stop`."""
        return self._watch(CallKind.STOP, lambda: self._driver.stop(apply_id))

    @property
    def for_stops(self) -> Driver:
        """The driver itself, for what a stop has to know. Its calls leave no report, as stops do not."""
        return self._driver

    def _watch(self, kind: CallKind | None, call: Callable[[], T], within_s: float = math.inf) -> T:
        """`kind` is None for a call that is not counted among those for plans."""
        began = self._clock()
        try:
            answer = call()
        except Exception as error:
            self._note(kind, error, self._clock() - began, within_s)
            if isinstance(error, ExecutorClientError) and not is_known(error):
                raise as_known(error) from None  # a driver's own class: no other process has it
            raise
        self._note(kind, None, self._clock() - began, within_s)
        return answer

    def _note(self, kind: CallKind | None, error: Exception | None, took_s: float, within_s: float) -> None:
        if kind is not None:
            retry, self._repeats = kind is self._repeats, None
            for name, count in measured(kind, error, took_s, retry=retry).items():
                self.counts[name] = self.counts.get(name, 0) + count
        impatient = isinstance(error, ExecutorTimeoutError) and within_s < self._patience_s
        # A plan's own short timeout says nothing of the Executor.
        if kind is not CallKind.STOP and not impatient:
            self.report = self.report.and_then(Report.of(error, took_s))
