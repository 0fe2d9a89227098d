"""Requests to a target, and their outcomes, as sums that can be added up without loss."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_serializer, field_validator

from dispatcher.effects import wilson_interval
from dispatcher.ledger.moments import moment_of
from dispatcher.observations import Figures
from dispatcher.telemetry.latency import Latencies, bucket_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["UNREADABLE", "Probe", "Tally"]

STATUS = re.compile(r"[1-5]\d\d")

UNREADABLE = "unreadable"
"""The outcome of a request whose answer came, and is too long or malformed."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One request to a target, and its outcome."""

    planned_ms: int
    """When it was due, in milliseconds since 1970 on the Redis server's clock."""

    latency_us: int
    """From then until its answer was complete, or until it was given up, in microseconds."""

    outcome: str
    """The status, such as `200`, or why there is none: `timeout`, `refused`, `unreadable` and others."""

    expected: bool
    """Whether the answer is not an error."""

    incomplete: bool = False
    """Whether it was given up early, or never sent, because the measurement had to end."""

    why: str = ""
    """What the transport says, if there is no status."""

    late_ms: int = 0
    """How long after `planned_ms` it was really sent."""


class Tally(BaseModel):
    """Sums over requests. Two tallies are added with `+`, in any order."""

    model_config = ConfigDict(frozen=True)

    outcomes: dict[str, int] = Field(default={})
    """How often each outcome came. See `Probe.outcome`."""

    errors: int = 0
    """How many requests got an error status or no answer."""

    incomplete: int = 0
    """How many were given up early. See `Probe.incomplete`."""

    total_us: int = 0
    """Sum of the latencies in microseconds."""

    squares_us2: int = 0
    """Sum of their squares."""

    buckets: dict[int, int] = Field(default={})
    """How many latencies fell into each bucket of `dispatcher.telemetry.latency`."""

    first_ms: int | None = None
    """When the first request was due."""

    last_ms: int | None = None
    """When the last one was really sent. A busy machine sends late."""

    @classmethod
    def of(cls, probes: Sequence[Probe]) -> Self:
        """The tally of these requests."""
        return cls(
            outcomes=Counter(each.outcome for each in probes),
            errors=sum(not each.expected for each in probes),
            incomplete=sum(each.incomplete for each in probes),
            total_us=sum(each.latency_us for each in probes),
            squares_us2=sum(each.latency_us**2 for each in probes),
            buckets=Counter(bucket_of(each.latency_us) for each in probes),
            first_ms=min((each.planned_ms for each in probes), default=None),
            last_ms=max((each.planned_ms + each.late_ms for each in probes), default=None),
        )

    def __add__(self, other: Tally) -> Tally:
        both = [each for each in (self, other) if each.requests]
        return Tally(
            outcomes=Counter(self.outcomes) + Counter(other.outcomes),
            errors=self.errors + other.errors,
            incomplete=self.incomplete + other.incomplete,
            total_us=self.total_us + other.total_us,
            squares_us2=self.squares_us2 + other.squares_us2,
            buckets=Counter(self.buckets) + Counter(other.buckets),
            first_ms=min((each.first_ms for each in both if each.first_ms is not None), default=None),
            last_ms=max((each.last_ms for each in both if each.last_ms is not None), default=None),
        )

    @field_serializer("buckets")
    def _to_gaps(self, buckets: dict[int, int]) -> list[int]:
        """Each bucket's distance from the one before, and its count: small numbers, which compress well."""
        gaps = [upper - lower for lower, upper in pairwise([0, *sorted(buckets)])]
        return [
            each for gap, bucket in zip(gaps, sorted(buckets), strict=True) for each in (gap, buckets[bucket])
        ]

    @field_validator("buckets", mode="before")
    @classmethod
    def _from_gaps(cls, value: object) -> object:
        if not isinstance(value, list):
            return value
        return dict(zip(accumulate(value[::2]), value[1::2], strict=True))

    @property
    def requests(self) -> int:
        """How many there were."""
        return sum(self.outcomes.values())

    @property
    def unanswered(self) -> int:
        """How many got no answer."""
        return sum(
            count
            for outcome, count in self.outcomes.items()
            if not outcome.isdigit() and outcome != UNREADABLE
        )

    @property
    def error_rate(self) -> float:
        """Share of the requests that failed. 0 if there was no request."""
        return self.errors / self.requests if self.requests else 0.0

    @property
    def mean_ms(self) -> float:
        """Mean latency. 0 if there was no request."""
        return self.total_us / self.requests / 1000 if self.requests else 0.0

    def figures(self) -> Figures | None:
        """The figures of an observation. None if there was no request."""
        return Figures(**self.fields()) if self.requests else None

    def fields(self) -> dict[str, Any]:
        """The same as fields of `Figures`. There must be a request."""
        low, high = wilson_interval(self.errors, self.requests)
        latencies = Latencies(self.total_us, dict(sorted(self.buckets.items())))
        return {
            "requests": self.requests,
            "unanswered": self.unanswered,
            "status_code": self._most_frequent_status(),
            "latency_ms": self.mean_ms,
            "latency_sd_ms": self._deviation_ms(),
            "latency_p50_ms": latencies.quantile_ms(0.5),
            "latency_p95_ms": latencies.quantile_ms(0.95),
            "latency_p99_ms": latencies.quantile_ms(0.99),
            "error_rate": self.error_rate,
            "error_rate_low": low,
            "error_rate_high": high,
            "success_count": self.requests - self.errors,
            "error_count": self.errors,
            "started_at": moment_of(self.first_ms),
            "ended_at": moment_of(self.last_ms),
        }

    def _most_frequent_status(self) -> int | None:
        """None if no answer had one. Those above 599 have no meaning (RFC 9110, 15)."""
        statuses = [
            (count, int(outcome)) for outcome, count in self.outcomes.items() if STATUS.match(outcome)
        ]
        return max(statuses)[1] if statuses else None

    def _deviation_ms(self) -> float | None:
        """Of the sample (with n - 1). None for a single request."""
        count = self.requests
        if count < 2:  # noqa: PLR2004 (it divides by n - 1)
            return None
        return math.sqrt((count * self.squares_us2 - self.total_us**2) / (count * (count - 1))) / 1000

    def __str__(self) -> str:
        if not self.requests:
            return "0 requests"
        counts = ", ".join(f"{count} x {outcome}" for outcome, count in sorted(self.outcomes.items()))
        return f"{self.requests} requests ({counts}), mean {self.mean_ms:.1f} ms"
