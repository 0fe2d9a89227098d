"""Shared and local breakers behind one handle, with a clock that moves by hand."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol, cast

from support.eventually import SET_BACK_MS

from dispatcher import ExecutorClientConfig, ExecutorServerError
from workers.breaker.local import LocalBreaker
from workers.breaker.rules import Admission, BreakerRules, BreakerState, Report
from workers.breaker.shared import SharedBreaker

if TYPE_CHECKING:
    import redis

    from workers.breaker.rules import Breaker, Rejection

KEY = "{dispatcher}:breaker:default"
EVENTS = "{dispatcher}:breaker-events"
LEASE_S = 110.0
DOWN = ExecutorServerError("503 down", 503, "")
WINDOW_SLICES = 10
MOMENTS = ("until_ms", "since_ms", "slot_ms", "spent_ms")

SUCCEEDED = Report.of(None)
FAILED = Report.of(DOWN)


def rules(**changes: Any) -> BreakerRules:
    """The default rules without jitter, except for the changes: fields of configuration or rules."""
    own = {field.name for field in dataclasses.fields(BreakerRules)}
    config = {name: value for name, value in changes.items() if name not in own}
    config = {"circuit_breaker_jitter": 0.0} | config
    made = BreakerRules.of(ExecutorClientConfig.model_validate(config), lease_s=LEASE_S)
    return dataclasses.replace(made, **{name: value for name, value in changes.items() if name in own})


class Rig(Protocol):
    """Where breakers are tried."""

    def worker(self, given: BreakerRules) -> Breaker:
        """The breaker as one more worker has it."""
        ...

    def state(self) -> BreakerState:
        """As it is stored."""
        ...

    def time_passes(self, seconds: float, given: BreakerRules) -> None:
        """All that is stored grows older."""
        ...


class SharedRig:
    """Breakers in Redis. Time passes by shifting what is stored, by more than the clock may be set back."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client

    def worker(self, given: BreakerRules, draw: float = 0.0) -> SharedBreaker:
        return SharedBreaker(self.client, "dispatcher", "default", given, draw=lambda: draw)

    def state(self) -> BreakerState:
        return self.worker(rules()).status().state

    def time_passes(self, seconds: float, given: BreakerRules) -> None:
        shift_ms = round(seconds * 1000) + SET_BACK_MS
        fields = cast("dict[str, str]", self.client.hgetall(KEY))
        for name in MOMENTS:
            if name in fields:
                self.client.hset(KEY, name, int(fields[name]) - shift_ms)
        self._shift_window(fields, round(seconds * 1000 / (given.window_ms / WINDOW_SLICES)))
        probes = self.client.zrange(f"{KEY}:probes", 0, -1, withscores=True)
        for probe, ends_ms in cast("list[tuple[str, float]]", probes):
            self.client.zadd(f"{KEY}:probes", {probe: ends_ms - shift_ms})

    def events(self) -> list[dict[str, str]]:
        """All that were published, the oldest first."""
        return [fields for _, fields in cast("list[tuple[str, dict[str, str]]]", self.client.xrange(EVENTS))]

    def _shift_window(self, fields: dict[str, str], by: int) -> None:
        ring = {name: value for name, value in fields.items() if name[0] == "w"}
        if not ring or by == 0:
            return
        self.client.hdel(KEY, *ring)
        for value in ring.values():
            number, _, counts = value.partition(" ")
            moved = int(number) - by
            self.client.hset(KEY, f"w{moved % WINDOW_SLICES}", f"{moved} {counts}")


class LocalRig:
    """A breaker in this process, which all workers share."""

    def __init__(self) -> None:
        self._now_ms = 1e9
        self._breaker: LocalBreaker | None = None

    def worker(self, given: BreakerRules, draw: float = 0.0) -> LocalBreaker:
        if self._breaker is None:
            self._breaker = LocalBreaker("default", given, clock_ms=lambda: self._now_ms, draw=lambda: draw)
        return self._breaker

    def state(self) -> BreakerState:
        return BreakerState.CLOSED if self._breaker is None else self._breaker.state

    def time_passes(self, seconds: float, given: BreakerRules) -> None:
        self._now_ms += seconds * 1000


def fails(breaker: Breaker) -> bool:
    """One guarded call that fails. Whether it was let through."""
    return goes(breaker, FAILED)


def succeeds(breaker: Breaker) -> bool:
    """One guarded call that succeeds. Whether it was let through."""
    return goes(breaker, SUCCEEDED)


def goes(breaker: Breaker, report: Report) -> bool:
    """One guarded call with this report. Whether it was let through."""
    admission = breaker.admit()
    if isinstance(admission, Admission):
        breaker.record(admission, report)
    return isinstance(admission, Admission)


def admitted(answer: Admission | Rejection) -> Admission:
    assert isinstance(answer, Admission)
    return answer


def rejected(answer: Admission | Rejection) -> Rejection:
    assert not isinstance(answer, Admission)
    return answer
