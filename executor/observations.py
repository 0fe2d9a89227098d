"""What was seen of a fault's target, request by request."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Self

from executor.latencies import Latencies

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Arrival", "End", "Mark", "Tally", "parse_line"]

FIRST_ERROR_STATUS = 400
SWITCHING_PROTOCOLS = 101
GRPC = "application/grpc"
"""How the content type of a gRPC call begins."""

MAX_LINES = 50
MAX_SPANS = 20

ARRIVED = "DownstreamStart"
ENDED = "DownstreamEnd"
OPENED = "DownstreamTunnelSuccessfullyEstablished"
"""A websocket is answered once it is open. It may stay open for longer than any fault."""

CLIENT_GAVE_UP = "DC"
BROKEN = {CLIENT_GAVE_UP, "LR", "OM", "SI", "UC", "UMSDR", "UPE", "UR", "UT", "DPE"}
"""Envoy's flags of a request that ended before its answer was complete."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request has arrived at a target with a fault."""

    stream: str
    """Identifies the request: no other one has it."""

    fault_id: str
    chosen: bool
    """Whether it is in the share of the requests that the fault hits."""

    arrived_at: float
    """Seconds since the epoch."""

    line: str
    """Its time, method and path."""


@dataclass(frozen=True, slots=True)
class End:
    """A request has ended, with an answer or without one, or it has opened a websocket."""

    stream: str
    fault_id: str
    faulted: bool
    """Whether the fault really hit it."""

    status: int | None
    """None if the client gave up, or the connection broke before the answer was complete."""

    latency_ms: float
    """From its arrival to the last byte of the answer, or to the moment at which it ended without one."""

    grpc_status: int | None = None
    """Of a gRPC call that was answered. 0 is success, with any HTTP status."""

    @property
    def failed(self) -> bool:
        """Whether it counts as an error."""
        return self.status is None or self.status >= FIRST_ERROR_STATUS or bool(self.grpc_status)


@dataclass(frozen=True, slots=True)
class Mark:
    """Everything that happened before the mark was asked for is in the log before it."""

    number: int


@dataclass(slots=True)
class Tally:
    """The sum of the requests that arrived while one fault was in force."""

    under_way: dict[str, Arrival] = field(default_factory=dict)
    """Those that have not ended yet, by their stream."""

    statuses: Counter[int] = field(default_factory=Counter)
    errors: int = 0
    """How many got a status from 400 on, a gRPC status other than 0, or no answer."""

    unanswered: int = 0
    unfinished: int = 0
    faulted: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    lines: list[str] = field(default_factory=list)
    spans: list[dict[str, Any]] = field(default_factory=list)

    def begin(self, arrival: Arrival) -> None:
        """A request is under way."""
        self.under_way[arrival.stream] = arrival

    def end(self, end: End) -> None:
        """Count a request. One that was given up is counted already, and its later end changes nothing."""
        arrival = self.under_way.pop(end.stream, None)
        if arrival is not None:
            self._count(arrival, end)

    def give_up(self, now: float) -> None:
        """Count all that are under way as unanswered, held until `now` (seconds since the epoch)."""
        for stream, arrival in list(self.under_way.items()):
            held_ms = max(0.0, now - arrival.arrived_at) * 1000
            self.unfinished += 1
            self.end(End(stream, arrival.fault_id, arrival.chosen, None, held_ms))

    @property
    def wants_span(self) -> bool:
        """Whether another span is kept."""
        return len(self.spans) < MAX_SPANS

    def add_span(self, span: dict[str, Any]) -> None:
        """Keep one of the first spans."""
        if self.wants_span:
            self.spans.append(span)

    @property
    def requests(self) -> int:
        """How many have ended, or were given up."""
        return self.statuses.total() + self.unanswered

    @property
    def most_frequent_status(self) -> int | None:
        """Among the answers. None if there was no answer."""
        return self.statuses.most_common(1)[0][0] if self.statuses else None

    @property
    def error_rate(self) -> float | None:
        """0 to 1. None if no request was seen."""
        return self.errors / self.requests if self.requests else None

    def log_lines(self) -> list[str]:
        """A summary, then the first requests."""
        if not self.requests:
            return ["no request came to the target while the fault was on"]
        counts = [f"{count} x {status}" for status, count in sorted(self.statuses.items())]
        counts += [f"{self.unanswered} unanswered"] if self.unanswered else []
        return [f"{self.requests} requests, {self.faulted} of them hit: {', '.join(counts)}", *self.lines]

    def to_json(self) -> dict[str, Any]:
        """All of it, for `from_json`."""
        return {
            "under_way": [asdict(arrival) for arrival in self.under_way.values()],
            "statuses": dict(self.statuses),
            "errors": self.errors,
            "unanswered": self.unanswered,
            "unfinished": self.unfinished,
            "faulted": self.faulted,
            "latencies": self.latencies.to_json(),
            "lines": self.lines,
            "spans": self.spans,
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """What `to_json` has written."""
        under_way = [Arrival(**each) for each in found.pop("under_way")]
        statuses = {int(status): count for status, count in found.pop("statuses").items()}
        latencies = Latencies.from_json(found.pop("latencies"))
        return cls(
            under_way={each.stream: each for each in under_way},
            statuses=Counter(statuses),
            latencies=latencies,
            **found,
        )

    def _count(self, arrival: Arrival, end: End) -> None:
        if end.status is None:
            self.unanswered += 1
        else:
            self.statuses[end.status] += 1
        self.errors += end.failed
        self.faulted += end.faulted
        self.latencies.add(end.latency_ms)
        if len(self.lines) < MAX_LINES:
            status, what = end.status or "unanswered", "hit" if end.faulted else "spared"
            grpc = "" if end.grpc_status is None else f" (gRPC status {end.grpc_status})"
            self.lines.append(f"{arrival.line} {status}{grpc} {end.latency_ms:.1f} ms {what}")


def parse_line(fields: Mapping[str, Any]) -> Arrival | End | Mark | None:
    """What an access log line says. None if no fault was on the request's target.

    Raises `KeyError`, and `ValueError` for anything that is not an access log line.
    """
    if "mark" in fields:
        return Mark(int(str(fields["mark"]).rpartition("=")[2]))
    fault_id, kind = fields["fault_id"], fields["kind"]
    if not fault_id or kind not in {ARRIVED, ENDED, OPENED}:
        return None
    stream = str(fields["stream"])
    if kind == ARRIVED:
        line = f"{fields['start_time']} {fields['method']} {fields['path']}"
        return Arrival(stream, fault_id, bool(fields["chosen"]), float(fields["arrived_at"]), line)
    status = int(fields["status"] or 0)
    latency_us = fields["answered_us"]
    flags = set(str(fields["flags"] or "").split(","))
    answered = _answered(status, flags, complete=latency_us is not None)
    latency_ms = int(latency_us) / 1000 if answered and latency_us is not None else float(fields["ended_ms"])
    grpc = _grpc_status(fields) if answered else None
    return End(stream, fault_id, bool(fields["hit"]), status if answered else None, latency_ms, grpc)


def _grpc_status(fields: Mapping[str, Any]) -> int | None:
    """Envoy names a gRPC status for every answer. It says something about gRPC calls only."""
    if not str(fields["content_type"] or "").startswith(GRPC):
        return None
    return int(fields["grpc"] or 0)


def _answered(status: int, flags: set[str], *, complete: bool) -> bool:
    """Whether the client got a complete answer. Answers of Envoy itself (503, 504) have flags, too.

    `complete`: whether Envoy has sent the end. An HTTP/2 client may reset its stream before, without a flag.
    """
    if status == SWITCHING_PROTOCOLS:  # it ends as every connection does
        return True
    if status == 0 or not complete:
        return False
    return CLIENT_GAVE_UP not in flags and (status >= FIRST_ERROR_STATUS or not flags & BROKEN)
