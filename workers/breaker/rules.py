"""What shared and local circuit breakers have in common: rules, requests and responses.

    CLOSED --too many failures--> OPEN --time passes--> HALF_OPEN --probes succeed--> CLOSED
                                    ^                       |
                                    +-----a probe fails-----+

(M. Nygard, Release It!, 2nd edition, 5.2; specification 5.2.)
"""

from __future__ import annotations

import math
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from dataclasses import dataclass, replace
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

from dispatcher.errors import (
    CircuitOpenError,
    ExecutorClientError,
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorServerError,
    ExecutorTimeoutError,
    LedgerUnavailableError,
)
from dispatcher.printable import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from dispatcher.settings.executors import ExecutorClientConfig

__all__ = [
    "NO_COUNTS",
    "UNASKED",
    "UNCOUNTED",
    "Admission",
    "Breaker",
    "BreakerRules",
    "BreakerState",
    "Outcome",
    "Rejection",
    "Report",
]

FAILURES = (ExecutorTimeoutError, ExecutorConnectionError, ExecutorServerError, ExecutorProtocolError)
"""What counts as a failure of an Executor. Any other answer, even a rejection, counts as success."""

NO_COUNTS: Mapping[str, int] = MappingProxyType({})

UNCOUNTED = "-"
"""The epoch of calls that no breaker counts: it is disabled in the settings, or was not asked."""

MAX_ASKED = 1000
"""Admitted calls of one thread that wait for their report, at most."""

WINDOW_SLICES = 10

HALF_OPEN_WAIT_MS = 1000
"""How long after a rejection another try is worth it, if no better time is known."""


class BreakerState(StrEnum):
    """What a breaker does with calls."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    DISABLED = "disabled"


class Outcome(StrEnum):
    """What a call shows about the Executor."""

    NONE = "none"
    """Nothing: it was never made, or ended for other reasons."""

    SUCCESS = "success"
    FAILURE = "failure"


@dataclass(frozen=True, slots=True)
class Admission:
    """The right to make one call."""

    id: str
    epoch: str
    """The epoch of the breaker's state. Once the state has changed, the call's outcome no longer counts."""

    local: bool = False
    """Whether the local breaker granted it, because Redis was out of reach."""


UNASKED = Admission("", UNCOUNTED)
"""Admission of a step that only stopped a fault, and has calls to count."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """The breaker, or the retry budget, refuses the call for now."""

    retry_after_s: float
    """When another try is worth it."""

    reason: str
    budget_spent: bool = False
    """The breaker admits the call, but the fleet's retries are used up."""

    by_hand: bool = False
    """A person opened the breaker, and only a person closes it."""

    @property
    def known_after_s(self) -> float | None:
        """When a call may be let through, in seconds from now. None if only a person knows."""
        return None if self.by_hand else max(0.0, self.retry_after_s)

    def message(self, executor: str) -> str:
        """Which of both refuses the call, and why."""
        if self.budget_spent:
            return f"the fleet has used up its retries at executor {executor}"
        why = f" ({self.reason})" if self.reason else ""
        if self.by_hand:
            return f"the circuit breaker of executor {executor} was opened by hand{why}"
        return f"the circuit breaker of executor {executor} lets no call through{why}"


@dataclass(frozen=True, slots=True)
class Report:
    """The result of an admitted call."""

    outcome: Outcome
    took_s: float = 0.0
    retry_after_s: float = 0.0
    """How long the Executor asks to be left alone."""

    reason: str = ""

    @classmethod
    def of(cls, error: BaseException | None, took_s: float = 0.0) -> Self:
        """The report of a call that raised `error`, or returned."""
        if error is None:
            return cls(Outcome.SUCCESS, took_s)
        if isinstance(error, CircuitOpenError | LedgerUnavailableError):
            return cls(Outcome.NONE)
        if isinstance(error, FAILURES):
            asked_s = getattr(error, "retry_after_s", None) or 0.0
            return cls(Outcome.FAILURE, took_s, asked_s, str(error))
        return cls(Outcome.SUCCESS if isinstance(error, ExecutorClientError) else Outcome.NONE, took_s)

    def and_then(self, later: Self) -> Self:
        """The worse of both, and the longer time."""
        worse = self if self.outcome is Outcome.FAILURE else later
        took_s = max(self.took_s, later.took_s)
        return worse if worse.took_s == took_s else replace(worse, took_s=took_s)


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When a breaker opens and closes, and what retries cost (`circuit_breaker_*`, `retry_budget_*`)."""

    enabled: bool
    failure_threshold: int
    failure_rate: float
    slow_call_s: float | None
    slow_rate: float
    min_calls: int
    window_ms: int
    success_threshold: int
    half_open_probes: int
    lease_ms: int
    """How long a probe keeps its place if its outcome is never reported."""

    open_ms: int
    max_open_ms: int
    jitter: float
    slot_ms: float
    """Time between two plans that waited for the breaker."""

    budget_enabled: bool
    ratio: float
    reserve: int
    per_ms: float

    @classmethod
    def of(cls, config: ExecutorClientConfig, lease_s: float) -> Self:
        """The rules for one Executor, none of whose calls takes longer than `lease_s`."""
        return cls(
            enabled=config.circuit_breaker_enabled,
            failure_threshold=config.circuit_breaker_failure_threshold,
            failure_rate=config.circuit_breaker_failure_rate,
            slow_call_s=config.circuit_breaker_slow_call_sec,
            slow_rate=config.circuit_breaker_slow_call_rate,
            min_calls=config.circuit_breaker_min_calls,
            window_ms=round(config.circuit_breaker_window_sec * 1000),
            success_threshold=config.circuit_breaker_success_threshold,
            half_open_probes=config.circuit_breaker_half_open_probes,
            lease_ms=round(lease_s * 1000),
            open_ms=round(config.circuit_breaker_timeout_sec * 1000),
            max_open_ms=round(config.circuit_breaker_max_timeout_sec * 1000),
            jitter=config.circuit_breaker_jitter,
            slot_ms=1000 / config.circuit_breaker_recovery_per_sec,
            budget_enabled=config.retry_budget_enabled,
            ratio=config.retry_budget_ratio,
            reserve=config.retry_budget_reserve,
            per_ms=config.retry_budget_per_sec / 1000,
        )

    def slow(self, report: Report) -> bool:
        """Whether the call took too long."""
        return (
            self.slow_call_s is not None
            and report.outcome is Outcome.SUCCESS
            and report.took_s >= self.slow_call_s
        )


class Breaker(ABC):
    """Decides whether an Executor may be called, and learns how calls ended. Safe to share between threads.

    Used as a context manager around one call, it raises `CircuitOpenError`, or learns how the call ended.
    """

    def __init__(self, executor: str, rules: BreakerRules) -> None:
        self.executor = executor
        self.rules = rules
        self._mine = threading.local()

    @abstractmethod
    def admit(self, *, retry: bool = False, in_line: bool = False) -> Admission | Rejection:
        """Ask for one call. A caller that gets it must `record` its outcome.

        A `retry` also takes one of the retries that the fleet has left. A caller that will wait and ask again
        waits in a line (`in_line`): then `retry_after_s` is later than that of all earlier callers.
        """

    @abstractmethod
    def record(self, admission: Admission, report: Report, counts: Mapping[str, int] = NO_COUNTS) -> None:
        """Report the outcome of an admitted call. One from an earlier state of the breaker changes nothing.

        `counts` are added to the fleet's metrics, if there is a fleet.
        """

    @abstractmethod
    def peek(self) -> Admission | None:
        """An admission for a call that the breaker was not asked for. None while its outcome would not
        count."""

    @abstractmethod
    def changes(self) -> Mapping[str, str | int]:
        """How often it has changed its state: `opens`, `half_opens`, `closes`, each absent if it is 0."""

    @abstractmethod
    def switch(self, state: BreakerState, reason: str) -> bool:
        """Open, close or disable by hand. False if it was so already."""

    @abstractmethod
    def reset(self, reason: str = "reset by hand") -> None:
        """Let calls through, and forget what was counted."""

    def open(self, reason: str) -> bool:
        """Let no call through until `close`. False if it was so already."""
        return self.switch(BreakerState.OPEN, printable(reason))

    def close(self, reason: str = "closed by hand") -> bool:
        """Let calls through again, and count from zero. False if nothing was in the way."""
        return self.switch(BreakerState.CLOSED, printable(reason))

    def disable(self, reason: str) -> bool:
        """Let all calls through, even if they fail, until `close` or `open`."""
        return self.switch(BreakerState.DISABLED, printable(reason))

    def can_attempt(self) -> bool:
        """Ask for one call from this thread (specification 5.1)."""
        return isinstance(self._ask(), Admission)

    def record_success(self) -> None:
        """This thread's call succeeded (specification 5.1)."""
        self._tell(Outcome.SUCCESS, "")

    def record_failure(self, reason: str = "reported as failed") -> None:
        """This thread's call failed (specification 5.1)."""
        self._tell(Outcome.FAILURE, printable(reason))

    def __enter__(self) -> Self:
        answer = self._ask()
        if isinstance(answer, Rejection):
            raise self.error(answer)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        admission, began = self._asked().pop()
        self.record(admission, Report.of(error, time.monotonic() - began))

    def error(self, rejection: Rejection) -> CircuitOpenError:
        """A rejection as the error that a caller gets."""
        wait_s, message = rejection.known_after_s, rejection.message(self.executor)
        when = "once it is closed" if wait_s is None else f"in {math.ceil(wait_s)} s"
        return CircuitOpenError(f"{message}: try again {when}", wait_s)

    def _ask(self) -> Admission | Rejection:
        answer = self.admit()
        if isinstance(answer, Admission):
            self._asked().append((answer, time.monotonic()))
        return answer

    def _tell(self, outcome: Outcome, reason: str) -> None:
        asked = self._asked()
        if asked:
            admission, began = asked.pop()
            self.record(admission, Report(outcome, time.monotonic() - began, reason=reason))
        elif (unasked := self.peek()) is not None:
            self.record(unasked, Report(outcome, reason=reason))

    def _asked(self) -> deque[tuple[Admission, float]]:
        """This thread's admitted calls, the innermost last. Those that are never reported drop out."""
        none: deque[tuple[Admission, float]] = deque(maxlen=MAX_ASKED)
        asked: deque[tuple[Admission, float]] = self._mine.__dict__.setdefault("asked", none)
        return asked
