"""What was seen of a fault's target, request by request."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Request", "Tally", "parse_line"]

FIRST_ERROR_STATUS = 400
MAX_LINES = 50
MAX_SPANS = 20


@dataclass(frozen=True, slots=True)
class Request:
    """One line of Envoy's access log."""

    fault_id: str
    hit: bool
    """Whether the fault acted on it, or it was among the share that was spared."""

    start_time: str
    method: str
    path: str
    status: int
    latency_ms: float

    def __str__(self) -> str:
        what = "hit" if self.hit else "spared"
        return f"{self.start_time} {self.method} {self.path} {self.status} {self.latency_ms:.1f} ms {what}"


@dataclass(slots=True)
class Tally:
    """The sum of the requests that came while one fault was on."""

    statuses: Counter[int] = field(default_factory=Counter)
    latency_sum_ms: float = 0.0
    hits: int = 0
    lines: list[str] = field(default_factory=list)
    spans: list[dict[str, Any]] = field(default_factory=list)

    def add(self, request: Request) -> None:
        """Count one more."""
        self.statuses[request.status] += 1
        self.latency_sum_ms += request.latency_ms
        self.hits += request.hit
        if len(self.lines) < MAX_LINES:
            self.lines.append(str(request))

    def add_span(self, span: dict[str, Any]) -> None:
        """Keep one of the first spans."""
        if len(self.spans) < MAX_SPANS:
            self.spans.append(span)

    @property
    def requests(self) -> int:
        """How many were answered."""
        return self.statuses.total()

    @property
    def errors(self) -> int:
        """How many were answered with a status from 400 on."""
        return sum(count for status, count in self.statuses.items() if status >= FIRST_ERROR_STATUS)

    @property
    def most_frequent_status(self) -> int:
        """0 if no request was seen."""
        return self.statuses.most_common(1)[0][0] if self.statuses else 0

    @property
    def mean_latency_ms(self) -> float:
        """0 if no request was seen."""
        return self.latency_sum_ms / self.requests if self.requests else 0.0

    @property
    def error_rate(self) -> float:
        """0 if no request was seen."""
        return self.errors / self.requests if self.requests else 0.0

    def log_lines(self) -> list[str]:
        """A summary, then the first requests."""
        if not self.requests:
            return ["no request came to the target while the fault was on"]
        counts = ", ".join(f"{count} x {status}" for status, count in sorted(self.statuses.items()))
        return [f"{self.requests} requests, {self.hits} of them hit: {counts}", *self.lines]


def parse_line(fields: Mapping[str, Any]) -> Request | None:
    """The request in an access log line. None if no fault was on its target."""
    fault_id = fields.get("fault_id")
    if not fault_id:
        return None
    return Request(
        fault_id=str(fault_id),
        hit=bool(fields.get("hit")),
        start_time=str(fields["start_time"]),
        method=str(fields["method"]),
        path=str(fields["path"]),
        status=int(fields["status"]),
        latency_ms=int(fields["duration_us"] or 0) / 1000,
    )
