"""The breakers against a small model of what they promise, and the model against breakers with a defect.

The model counts in ticks of a thousand seconds, next to which the time that a test takes is nothing.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

import fakeredis
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.breakers import FAILED, KEY, SUCCEEDED, LocalRig, SharedRig, rules
from support.redis_server import versions

from dispatcher.ledger.scripts import Script
from workers.breaker import shared as shared_breaker
from workers.breaker.rules import NO_COUNTS, Admission, BreakerState, Outcome, Report
from workers.breaker.shared import SharedBreaker

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import redis
    from support.breakers import Rig

    from workers.breaker.rules import BreakerRules, Rejection

EXAMPLES_ON_A_FAKE, EXAMPLES_ON_REAL_ONES = 20, 80
TICK_S = 1000
THRESHOLD, PROBES, SUCCESSES, LEASE, OPEN, MAX_OPEN, RESERVE = 2, 1, 2, 3, 2, 6, 2
RULES = replace(
    rules(),
    failure_threshold=THRESHOLD,
    half_open_probes=PROBES,
    success_threshold=SUCCESSES,
    lease_ms=LEASE * TICK_S * 1000,
    open_ms=OPEN * TICK_S * 1000,
    max_open_ms=MAX_OPEN * TICK_S * 1000,
    reserve=RESERVE,
    ratio=0.5,
    per_ms=0.0,
    min_calls=10**6,  # the model has no window
)
SWITCHES = [BreakerState.OPEN, BreakerState.CLOSED, BreakerState.DISABLED]
OUTCOMES = {"success": SUCCEEDED, "failure": FAILED, "none": Report(Outcome.NONE)}


@dataclass
class Call:
    """A call under way."""

    admission: Admission
    age: int
    """How often the breaker had changed its state when it began."""


@dataclass
class Model:
    """A breaker as a person would explain it."""

    state: BreakerState = BreakerState.CLOSED
    changes: int = 0
    now: int = 0
    until: int | None = None
    failures: int = 0
    successes: int = 0
    opened: int = 0
    spent: float = 0.0
    probes: dict[str, int] = field(default_factory=dict)

    def enter(self, state: BreakerState, until: int | None = None) -> None:
        self.state, self.until = state, until
        self.changes += 1
        self.failures = self.successes = 0
        self.probes = {}

    def open(self) -> None:
        self.opened += 1
        self.enter(BreakerState.OPEN, self.now + min(OPEN * 2 ** (self.opened - 1), MAX_OPEN))

    def admits(self, *, retry: bool) -> bool:
        """Whether a call may go out now, and what that brings about."""
        if self.state in {BreakerState.CLOSED, BreakerState.DISABLED}:
            if not retry:
                return True
            affordable = self.spent + 1 <= RESERVE
            self.spent += affordable
            return affordable
        if self.state is BreakerState.OPEN:
            if self.until is None or self.now < self.until:
                return False
            self.enter(BreakerState.HALF_OPEN)
        self.probes = {name: ends for name, ends in self.probes.items() if ends > self.now}
        return len(self.probes) < PROBES

    def hears(self, call: Call, outcome: str) -> None:
        if outcome == "success":
            self.spent = max(0.0, self.spent - 0.5)
        if call.age != self.changes:
            return
        if self.state is BreakerState.CLOSED and outcome != "none":
            self.failures = self.failures + 1 if outcome == "failure" else 0
            if self.failures >= THRESHOLD:
                self.open()
        elif self.state is BreakerState.HALF_OPEN and self.probes.pop(call.admission.id, None) is not None:
            self.judge_probe(outcome)

    def judge_probe(self, outcome: str) -> None:
        if outcome == "failure":
            self.open()
        self.successes += outcome == "success"
        if self.successes >= SUCCESSES:
            self.opened = 0
            self.enter(BreakerState.CLOSED)


class BreakerMachine(RuleBasedStateMachine):
    """Workers that ask and report, or do not; time that passes; and a person with a switch."""

    make_rig: ClassVar[Callable[[], Rig]]
    calls = Bundle("calls")

    def __init__(self) -> None:
        super().__init__()
        self.rig = type(self).make_rig()
        self.breakers = [self.rig.worker(RULES) for _ in range(2)]
        self.model = Model()

    @rule(target=calls, worker=st.sampled_from([0, 1]), retry=st.booleans(), in_line=st.booleans())
    def ask(self, worker: int, *, retry: bool, in_line: bool) -> Any:
        call = self._ask(worker, retry=retry, in_line=in_line)
        return multiple() if call is None else call

    @rule(worker=st.sampled_from([0, 1]), call=calls, outcome=st.sampled_from(sorted(OUTCOMES)))
    def report(self, worker: int, call: Call, outcome: str) -> None:
        self._report(worker, call, outcome)

    @rule(worker=st.sampled_from([0, 1]), outcome=st.sampled_from(["success", "failure"]))
    def make_some_calls(self, worker: int, outcome: str) -> None:
        for _ in range(THRESHOLD):
            call = self._ask(worker)
            if call is not None:
                self._report(1 - worker, call, outcome)

    @rule(ticks=st.integers(1, 3))
    def time_passes(self, ticks: int) -> None:
        self.rig.time_passes(ticks * TICK_S, RULES)
        self.model.now += ticks

    @precondition(lambda self: self.model.changes % 3 == 2)  # people are rare
    @rule(worker=st.sampled_from([0, 1]), state=st.sampled_from(SWITCHES))
    def switch(self, worker: int, state: BreakerState) -> None:
        model = self.model
        changed = model.state is not state or model.until is not None
        assert self.breakers[worker].switch(state, "by hand") is changed
        if changed:
            model.opened = 0
            model.enter(state)

    @precondition(lambda self: self.model.changes % 3 == 2)
    @rule(worker=st.sampled_from([0, 1]))
    def reset(self, worker: int) -> None:
        self.breakers[worker].reset()
        self.model.opened, self.model.spent = 0, 0.0
        self.model.enter(BreakerState.CLOSED)

    def _ask(self, worker: int, *, retry: bool = False, in_line: bool = False) -> Call | None:
        answer = self.breakers[worker].admit(retry=retry, in_line=in_line)
        expected = self.model.admits(retry=retry)
        assert isinstance(answer, Admission) is expected
        if not isinstance(answer, Admission):
            return None
        if self.model.state is BreakerState.HALF_OPEN:
            self.model.probes[answer.id] = self.model.now + LEASE
        return Call(answer, self.model.changes)

    def _report(self, worker: int, call: Call, outcome: str) -> None:
        self.breakers[worker].record(call.admission, OUTCOMES[outcome])
        self.model.hears(call, outcome)

    @invariant()
    def both_are_in_the_same_state(self) -> None:
        assert self.rig.state() is self.model.state


def run_against_model(make_rig: Callable[[], Rig], examples: int, *, seeded: bool = False) -> None:
    """With a `seeded` defect the same examples each time, because it must be found each time."""
    machine = type("Machine", (BreakerMachine,), {"make_rig": staticmethod(make_rig)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
            deadline=None,
            derandomize=seeded,
            database=None,
            phases=[Phase.generate] if seeded else [Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )


def fake() -> SharedRig:
    return SharedRig(fakeredis.FakeRedis(decode_responses=True, server=fakeredis.FakeServer()))


def test_the_shared_breaker_on_a_fake_redis_does_what_its_model_does() -> None:
    run_against_model(fake, examples=EXAMPLES_ON_A_FAKE)


def emptied(client: redis.Redis) -> SharedRig:
    client.flushall()  # the fixture's own
    return SharedRig(client)


@pytest.mark.every_server
def test_the_shared_breaker_on_a_real_redis_does_what_its_model_does(real_redis: redis.Redis) -> None:
    run_against_model(lambda: emptied(real_redis), examples=EXAMPLES_ON_REAL_ONES // len(versions()))


def test_the_local_breaker_does_what_its_model_does() -> None:
    run_against_model(LocalRig, examples=300)


DEFECTS = {
    "outcomes of an earlier epoch count": (
        "RECORD",
        "epoch ~= admitted_epoch",
        "false",
    ),
    "a probe without its lease counts": ("RECORD", "redis.call('ZREM', probes_key, id) == 0 or", ""),
    "callers prolong the leases of others": (
        "ADMIT",
        "if redis.call('ZCARD', probes_key) >= tonumber(half_open_probes) then",
        """if redis.call('ZCARD', probes_key) >= tonumber(half_open_probes) then
          for _, name in ipairs(redis.call('ZRANGE', probes_key, 0, -1)) do
            redis.call('ZADD', probes_key, whole(now + lease_ms), name)
          end""",
    ),
    "leases never end": ("ADMIT", "redis.call('ZREMRANGEBYSCORE', probes_key, '-inf', whole(now))", ""),
    "one probe too many": ("ADMIT", ">= tonumber(half_open_probes)", "> tonumber(half_open_probes)"),
    "a success does not begin the count again": ("RECORD", "redis.call('HDEL', breaker_key, 'failures')", ""),
    "it does not stay open for longer": ("RECORD", "2 ^ math.min(opened - 1, 30)", "1"),
    "a switch does not forget how often it opened": (
        "SWITCH",
        "redis.call('HDEL', breaker_key, 'opened', 'slot_ms')",
        "",
    ),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_the_model_catches_a_breaker_with_a_defect(
    defect: str, real_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, sound, broken = DEFECTS[defect]
    script: Script = getattr(shared_breaker, name)
    assert sound in script.text
    text = script.text.replace(sound, broken)
    sha = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(shared_breaker, name, Script(text, sha))
    with pytest.raises(AssertionError):
        run_against_model(lambda: emptied(real_redis), examples=300, seeded=True)


class CountsByHand(SharedBreaker):
    """A breaker with a defect: it reads its count when a call goes out, and writes it when the call fails."""

    seen: ClassVar[dict[str, int]] = {}

    def admit(self, *, retry: bool = False, in_line: bool = False) -> Admission | Rejection:
        answer = super().admit(retry=retry, in_line=in_line)
        if isinstance(answer, Admission):
            self.seen[answer.id] = self.status().failures
        return answer

    def record(self, admission: Admission, report: Report, counts: Mapping[str, int] = NO_COUNTS) -> None:
        if report.outcome is Outcome.FAILURE and self.status().state is BreakerState.CLOSED:
            self._client.hset(KEY, "failures", self.seen[admission.id])
        super().record(admission, report, counts)


def test_the_model_catches_a_breaker_that_counts_by_hand(real_redis: redis.Redis) -> None:
    class Rig(SharedRig):
        def worker(self, given: BreakerRules, draw: float = 0.0) -> SharedBreaker:
            return CountsByHand(self.client, "dispatcher", "default", given, draw=lambda: draw)

    with pytest.raises(AssertionError):
        run_against_model(lambda: Rig(emptied(real_redis).client), examples=300, seeded=True)
