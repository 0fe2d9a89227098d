"""Faults that hit fake requests, in a time of their own. `Ways` says how they differ from good ones."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from conformance.outside import Response

if TYPE_CHECKING:
    from collections.abc import Mapping

BEGAN = datetime(2030, 1, 1, tzinfo=UTC)
TTL_S = 3.0
FEW = 3
SERVICE, PATH = "PaymentService", "/pay"


@dataclass(frozen=True)
class Ways:
    """What an Executor does. The defaults keep every promise of the contract."""

    ends_faults: bool = True
    lasts: float = 1.0
    """How long a fault lasts, as a part of its planned time."""

    stops_faults: bool = True
    stops_all_targets: bool = False
    """Whether a stop ends all other faults, too."""

    stop_all_ends: bool = True
    most_running: int = 1_000
    """Beyond this many, a new fault ends the oldest one without a word."""

    slow_apply_s: float = 0.0
    """How long an apply takes if more than 30 faults are active."""

    frees_targets: bool = True
    forgets_ended: bool = False
    """Whether a new fault takes the place of those that have ended."""

    hits: bool = True
    hits_other_paths: bool = False
    hits_at_0: bool = False
    hits_always: bool = False
    """Whether a percentage above 0 hits all requests."""

    matches_headers: bool = True
    grpc_faults_hit_all: bool = False
    delays_s: float = 1.0
    """How long a request is held, as a part of the planned time."""

    late_s: float = 0.0
    """How long after its apply a fault takes effect."""

    hits_after_end: int = 0
    """How many requests a fault hits after its own end."""

    hits_after_stop: int = 0
    takes_no_token: bool = False
    takes_any_token: bool = False
    knows_keys: bool = True
    most_uses_of_a_key: int = 1_000
    compares_keys: bool = True
    keys_outlive_faults: bool = True
    late_before_keys: bool = False
    """Whether the time of an apply is judged before its key is looked up."""

    refuses_late: bool = True
    refuses_in_time: bool = False
    begins_late: Literal["", "with a key", "without a key"] = ""
    """Which applies begin their fault even if they are refused because they are late."""

    refuses_conflicts: bool = True
    largest: int = 1_000_000
    limit: int = 100
    lapses_if_killed: bool = True
    lapses_if_it_hangs: bool = True
    goes_on_without_executor: bool = True
    """Whether requests are answered while the Executor is killed."""

    goes_on_if_it_hangs: bool = True

    keeps_state: bool = True
    keeps_keys: bool = True
    doubts_restored: bool = True
    begins_lapsed_again: bool = False


class FakeTime:
    """Passes only if a call or a wait takes some of it."""

    def __init__(self) -> None:
        self._s = 1_000.0
        self._lock = threading.Lock()

    def now(self) -> datetime:
        return self.at(self._s)

    def at(self, steady_s: float) -> datetime:
        return BEGAN + timedelta(seconds=steady_s)

    def steady_s(self) -> float:
        return self._s

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._s += seconds


@dataclass
class FakeFault:
    """One fault. It is in force from `begin_s` to `end_s`, and over since `over_s` if it was stopped."""

    apply_id: str
    key: str | None
    body: dict[str, Any]
    begin_s: float
    end_s: float
    stopped: bool = False
    error: str = ""
    doubt: str = ""
    statuses: list[int] = field(default_factory=list)
    faulted: int = 0
    key_uses: int = 1
    late_hits: int = 0

    @property
    def target(self) -> tuple[str, str]:
        return self.body.get("service", ""), self.body.get("api", "")

    @property
    def percentage(self) -> float:
        percentage = self.body.get("percentage", 0)
        return percentage if isinstance(percentage, int) else 0

    def running(self, now_s: float) -> bool:
        return now_s < self.end_s


class FakePlane:
    """Faults, and the requests that meet them."""

    service, path = SERVICE, PATH

    def __init__(self, ways: Ways, time: FakeTime) -> None:
        self.ways, self.time = ways, time
        self.faults: dict[str, FakeFault] = {}
        self.away_since_s: float | None = None
        self.lapses = True
        self.answers = True
        self._sent = 0
        self._on_traffic: list[FakeFault] = []

    def send(self, suffix: str = "", headers: Mapping[str, str] | None = None) -> Response:
        """The fault decides by turns, so that half of 100 requests are 50."""
        self.time.sleep(0.002)
        if not self.answers:
            return Response(0, 0.0)
        there = self._on_traffic if self.ways.hits_other_paths or not suffix else []
        meets = [each for each in there if self._matches(each, headers or {}) and self._in_force(each)]
        if not meets:
            return Response(200, 0.002)
        return self._met(meets[0])

    def _matches(self, fault: FakeFault, headers: Mapping[str, str]) -> bool:
        if fault.body.get("protocol") == "grpc" and not self.ways.grpc_faults_hit_all:
            return False
        wanted = fault.body.get("headers", {}) if self.ways.matches_headers else {}
        return all(headers.get(name) == value for name, value in wanted.items())

    def _met(self, fault: FakeFault) -> Response:
        self._sent += 1
        share = 100 if self.ways.hits_always and fault.percentage else fault.percentage
        share = 100 if self.ways.hits_at_0 and not fault.percentage else share
        hit = self.ways.hits and (self._sent * share) % 100 < share
        status, seconds = 200, 0.002
        if hit and fault.body["fault_type"] == "abort":
            status = fault.body["fault_config"].get("http_status", 200)
        elif hit:
            seconds += self.ways.delays_s * fault.body["fault_config"]["delay_ms"] / 1000
        if fault.running(self.time.steady_s()):
            fault.statuses.append(status)
            fault.faulted += hit
        else:
            fault.late_hits += 1
        return Response(status, seconds)

    def add(self, fault: FakeFault) -> None:
        self.faults[fault.apply_id] = fault
        if fault.body.get("api") == PATH:
            self._on_traffic.append(fault)

    def _in_force(self, fault: FakeFault) -> bool:
        now_s = self.time.steady_s()
        if self.away_since_s is not None and self.lapses and now_s > self.away_since_s + TTL_S:
            return False
        if fault.running(now_s):
            return fault.begin_s + self.ways.late_s <= now_s
        return fault.late_hits < self._late_hits_of(fault)

    def _late_hits_of(self, fault: FakeFault) -> int:
        """Only faults of the one check that is about it: all others would spoil the checks after theirs."""
        if fault.stopped:
            return self.ways.hits_after_stop if len(fault.statuses) == FEW else 0
        return 0 if fault.error else self.ways.hits_after_end

    def leave(self, *, lapses: bool, answers: bool) -> None:
        """The Executor is away from here on."""
        self.away_since_s, self.lapses, self.answers = self.time.steady_s(), lapses, answers

    def come_back(self, *, restarted: bool) -> None:
        """The Executor is there again. What has lapsed meanwhile is over."""
        left_s, now_s = self.away_since_s or 0.0, self.time.steady_s()
        self.away_since_s, self.answers = None, True
        if restarted and not self.ways.keeps_state:
            self.faults.clear()
            self._on_traffic.clear()
        for fault in self.faults.values():
            if restarted and not self.ways.keeps_keys:
                fault.key = None
            if not fault.running(left_s):
                continue
            fault.doubt = "the Executor was away" if self.ways.doubts_restored or not restarted else ""
            lapsed = self.lapses and (restarted or not self.ways.begins_lapsed_again)
            if lapsed and left_s + TTL_S < min(now_s, fault.end_s):
                fault.end_s, fault.error = left_s + TTL_S, "it lapsed" if fault.doubt else ""
