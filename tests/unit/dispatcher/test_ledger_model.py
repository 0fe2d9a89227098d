"""The ledger against a small model of it, step by step, on a fake Redis and on real ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import fakeredis
import pytest
import redis
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from support.plans import abort_plan
from support.redis_server import versions
from support.steps import finished, parked

from dispatcher import DispatchHaltedError, Settings
from dispatcher.ledger import Ledger, Submission
from dispatcher.record import Order

if TYPE_CHECKING:
    from collections.abc import Callable

    from dispatcher.ledger import Step

EXAMPLES_ON_A_FAKE, EXAMPLES_ON_REAL_ONES = 10, 120
LEASE_MS = WAIT_MS = 1_000_000
PREFIX = "{dispatcher}:"


@dataclass
class Plan:
    """What the model knows of a plan. Moments are not modelled: waiting is until `time_passes` says so."""

    target: str
    waits: bool = False
    holder: Step | None = None
    leased: bool = False
    """Whether a step began that did not come back, be it under way or lost."""

    cancelled: bool = False
    begun: bool = False
    holds: bool = False
    """Whether it has the target: one that is begun only to be cancelled does not."""

    ended: bool = False
    stale: list[Step] = field(default_factory=list)


class LedgerMachine(RuleBasedStateMachine):
    """Plans on two targets, workers that come, go and get lost, and somebody who cancels and halts."""

    connect: Callable[[], redis.Redis]
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.client = type(self).connect()
        self.client.flushall()
        self.ledger = Ledger(self.client, Settings())
        self.plans: dict[str, Plan] = {}
        self.lines: dict[str, list[str]] = {"/a": [], "/b": []}
        self.halted = False
        self.steps = 0

    def teardown(self) -> None:
        self.client.close()

    @rule(target=ids, api=st.sampled_from(["/a", "/b"]))
    def submit(self, api: str) -> str:
        plan_id = f"p{len(self.plans)}"
        order = Order(plan=abort_plan(api=api), timeout_ms=1000)
        [outcome] = self.ledger.submit([Submission(plan_id, order)])
        assert isinstance(outcome, DispatchHaltedError) is self.halted
        if self.halted:
            return "nobody"
        assert outcome is True
        assert self.ledger.submit([Submission(plan_id, order)]) == [False]
        self.plans[plan_id] = Plan(api)
        self.lines[api].append(plan_id)
        return plan_id

    @rule(plan_id=ids)
    def begin(self, plan_id: str) -> None:
        self.steps += 1
        step = self.ledger.begin(plan_id, f"token{self.steps}", LEASE_MS)
        plan = self.plans.get(plan_id)
        if plan is None or plan.ended or plan.waits or plan.holder is not None:
            assert step is None
            return
        if not (plan.begun or plan.cancelled or self.lines[plan.target][0] == plan_id):
            assert step is None
            plan.waits = True
            return
        assert step is not None
        plan.holds = plan.holds or not (plan.begun or plan.cancelled)
        plan.holder, plan.begun, plan.leased = step, True, True

    @rule(plan_id=ids)
    def park(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or plan.holder is None:
            return
        record = plan.holder.record.applied("f1", 1)
        due_ms = parked(self.ledger, record, plan.holder.token, WAIT_MS)
        assert due_ms == (0 if plan.cancelled else WAIT_MS)
        plan.waits, plan.holder, plan.leased = not plan.cancelled, None, False

    @rule(plan_id=ids)
    def finish(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or plan.holder is None:
            return
        assert finished(self.ledger, plan.holder.record.observed(), plan.holder.token, "r") == 0
        plan.ended, plan.holder = True, None
        line = self.lines[plan.target]
        line.remove(plan_id)
        if line and not self.plans[line[0]].begun and self.plans[line[0]].holder is None:
            self.plans[line[0]].waits = False

    @rule(plan_id=ids)
    def lose_the_lease(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or plan.holder is None:
            return
        self._due(plan_id)
        plan.stale.append(plan.holder)
        plan.holder = None

    @rule(plan_id=ids)
    def time_passes(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is not None and plan.waits and not plan.ended:
            self._due(plan_id)
            plan.waits = False

    @rule(plan_id=ids)
    def a_stale_step_comes_back(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or not plan.stale or plan.holder is None:
            return
        stale = plan.stale.pop()
        assert parked(self.ledger, stale.record, stale.token, 0) is None
        assert finished(self.ledger, stale.record.observed(), stale.token, "stale") is None

    @rule(plan_id=ids)
    def cancel(self, plan_id: str) -> None:
        [wake_up] = self.ledger.cancel([plan_id], "")
        plan = self.plans.get(plan_id)
        assert (wake_up is not None) is (plan is not None and not plan.ended)
        if plan is None or plan.ended or plan.cancelled:
            return
        plan.cancelled = True
        plan.waits = plan.waits and plan.leased

    @precondition(lambda self: not self.halted)
    @rule()
    def halt(self) -> None:
        self.ledger.halt("why not")
        self.halted = True

    @precondition(lambda self: self.halted)
    @rule()
    def resume(self) -> None:
        self.ledger.resume()
        self.halted = False

    @invariant()
    def whoever_has_not_ended_will_be_looked_at(self) -> None:
        assert set(self.ledger.in_flight()) == {name for name, plan in self.plans.items() if not plan.ended}

    @invariant()
    def whoever_has_ended_has_one_result(self) -> None:
        for plan_id, plan in self.plans.items():
            assert (self.client.get(f"result-{plan_id}") == "r") is plan.ended
            assert self.client.llen(f"{PREFIX}ended:{plan_id}") == int(plan.ended)

    @invariant()
    def the_line_is_who_came_first(self) -> None:
        for target, line in self.lines.items():
            stored = self.client.zrange(f"{PREFIX}line:default:PaymentService:{target}", 0, -1)
            holders = [plan_id for plan_id in line if self.plans[plan_id].holds]
            assert len(holders) <= 1
            assert stored == holders + [plan_id for plan_id in line if plan_id not in holders]

    def _due(self, plan_id: str) -> None:
        self.client.hset(f"{PREFIX}plan:{plan_id}", "due_ms", 0)
        self.client.zadd(f"{PREFIX}due", {plan_id: 0})


def run_against_model(connect: Callable[[], redis.Redis], examples: int) -> None:
    machine = type("Machine", (LedgerMachine,), {"connect": staticmethod(connect)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_the_ledger_on_a_fake_redis_does_what_its_model_does() -> None:
    server = fakeredis.FakeServer()
    run_against_model(
        lambda: fakeredis.FakeRedis(decode_responses=True, server=server), examples=EXAMPLES_ON_A_FAKE
    )


@pytest.mark.every_server
def test_the_ledger_on_a_real_redis_does_what_its_model_does(redis_url: str) -> None:
    run_against_model(
        lambda: redis.Redis.from_url(redis_url, decode_responses=True),
        examples=EXAMPLES_ON_REAL_ONES // len(versions()),
    )
