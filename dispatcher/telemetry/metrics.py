"""What the calls to an Executor have shown (specification 5.2), fleet-wide.

Workers count in one Redis hash for each Executor, `{prefix}:metrics:<executor>`, whose fields are whole
numbers that are only ever added to:

    <call>:<outcome>     how many calls of this kind ended in this way, as in `apply:answered`
    retries              how many calls repeated one that had failed
    retries_succeeded    how many of these were answered
    latency_us           how long they took, all together, in microseconds
    latency:<bucket>     how many latencies fell into this bucket, see `dispatcher.telemetry.latency`

A call is what a driver does for a plan: apply, status, metrics or stop. Latencies are those of
calls with any answer of the Executor, and of calls without an answer in time. These took at least as long
as the wait. A connection that failed has no latency.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Self

from dispatcher.errors import RecordUnreadableError
from dispatcher.telemetry.latency import Latencies

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from dispatcher.ledger.ledger import Ledger

__all__ = ["CallKind", "CallOutcome", "ExecutorClientMetrics", "ExecutorCounts", "executor_counts"]

RETRIES, RETRIES_SUCCEEDED = "retries", "retries_succeeded"


class CallKind(StrEnum):
    """What an Executor is called for."""

    APPLY = "apply"
    STATUS = "status"
    METRICS = "metrics"
    STOP = "stop"


class CallOutcome(StrEnum):
    """How a call ended."""

    ANSWERED = "answered"
    """By the contract. That a fault failed, or is unknown, is such an answer."""

    REJECTED = "rejected"
    """With a status that says no: 4xx, except 429."""

    SERVER = "server"
    """With 429 or 5xx."""

    PROTOCOL = "protocol"
    """With an answer that is not the contract's."""

    TIMEOUT = "timeout"
    """Without an answer in time."""

    CONNECTION = "connection"
    """Without a connection: refused, broken, no such host, TLS."""

    DEFECT = "defect"
    """In the driver."""

    @property
    def measured(self) -> bool:
        """Whether such a call has a latency."""
        return self not in {CallOutcome.CONNECTION, CallOutcome.DEFECT}


@dataclass(frozen=True, slots=True)
class ExecutorCounts:
    """What was counted of one Executor, and of its circuit breaker."""

    requests: Mapping[tuple[CallKind, CallOutcome], int]
    """How many calls there were. Has all kinds and outcomes."""

    retries: int
    retries_succeeded: int
    latencies: Latencies
    breaker_state: str
    """`closed`, `open`, `half_open` or `disabled`."""

    opens: int
    half_opens: int
    closes: int

    @classmethod
    def of(cls, counts: Mapping[str, str | int], breaker: Mapping[str, str | int]) -> Self:
        """From the fields of the two hashes in Redis, or of what replaces them."""
        return cls(
            requests={
                (kind, outcome): int(counts.get(f"{kind}:{outcome}", 0))
                for kind in CallKind
                for outcome in CallOutcome
            },
            retries=int(counts.get(RETRIES, 0)),
            retries_succeeded=int(counts.get(RETRIES_SUCCEEDED, 0)),
            latencies=Latencies.of(counts),
            breaker_state=str(breaker.get("state", "closed")),
            opens=int(breaker.get("opens", 0)),
            half_opens=int(breaker.get("half_opens", 0)),
            closes=int(breaker.get("closes", 0)),
        )


@dataclass(frozen=True, slots=True)
class ExecutorClientMetrics:
    """The specification's metrics of an Executor's client (5.2). They count from when Redis was empty."""

    total_requests: int = 0
    """Calls for plans: apply, status, metrics, stop."""

    successful_requests: int = 0
    """Those that the Executor answered by the contract."""

    failed_requests: int = 0
    """All others."""

    timeout_errors: int = 0
    connection_errors: int = 0
    bad_request_errors: int = 0
    """Those that it refused: 4xx, except 429."""

    total_retries: int = 0
    """Calls that repeated one that had failed."""

    successful_retries: int = 0
    circuit_breaker_opens: int = 0
    circuit_breaker_half_opens: int = 0
    avg_latency_ms: float = 0.0
    p95_latency_ms: float = 0.0
    """Within 1 % of the true one, as is `p99_latency_ms`."""

    p99_latency_ms: float = 0.0

    @classmethod
    def of(cls, counts: ExecutorCounts) -> Self:
        """What the specification asks of these counts."""
        by_outcome: Counter[CallOutcome] = Counter()
        for (_, outcome), number in counts.requests.items():
            by_outcome[outcome] += number
        return cls(
            total_requests=by_outcome.total(),
            successful_requests=by_outcome[CallOutcome.ANSWERED],
            failed_requests=by_outcome.total() - by_outcome[CallOutcome.ANSWERED],
            timeout_errors=by_outcome[CallOutcome.TIMEOUT],
            connection_errors=by_outcome[CallOutcome.CONNECTION],
            bad_request_errors=by_outcome[CallOutcome.REJECTED],
            total_retries=counts.retries,
            successful_retries=counts.retries_succeeded,
            circuit_breaker_opens=counts.opens,
            circuit_breaker_half_opens=counts.half_opens,
            avg_latency_ms=counts.latencies.mean_ms,
            p95_latency_ms=counts.latencies.quantile_ms(0.95),
            p99_latency_ms=counts.latencies.quantile_ms(0.99),
        )

    def get_success_rate(self) -> float:
        """The share of calls that succeeded, between 0 and 1. 0 if there were none."""
        return self.successful_requests / self.total_requests if self.total_requests else 0.0

    def get_retry_rate(self) -> float:
        """The share of calls that were retries, between 0 and 1. 0 if there were none."""
        return self.total_retries / self.total_requests if self.total_requests else 0.0

    def to_dict(self) -> dict[str, float]:
        """All of it, with both rates, for programs."""
        rates = {"success_rate": self.get_success_rate(), "retry_rate": self.get_retry_rate()}
        return asdict(self) | rates


def executor_counts(ledger: Ledger, executors: Sequence[str]) -> list[ExecutorCounts]:
    """What was counted of each, in one round trip.

    Raises `LedgerUnavailableError`, `RecordUnreadableError`.
    """
    keys = [key for name in executors for key in (ledger.metrics_key(name), ledger.breaker_key(name))]
    found = ledger.execute_all([["HGETALL", key] for key in keys])
    counted = zip(executors, found[::2], found[1::2], strict=True)
    return [_readable(name, counts, breaker) for name, counts, breaker in counted]


def _readable(
    executor: str, counts: Mapping[str, str | int], breaker: Mapping[str, str | int]
) -> ExecutorCounts:
    try:
        return ExecutorCounts.of(counts, breaker)
    except ValueError as exc:
        raise RecordUnreadableError(f"the counts of executor {executor} cannot be read: {exc}") from exc
