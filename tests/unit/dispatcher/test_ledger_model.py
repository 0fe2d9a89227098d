"""The ledger and its leases against a small model, step by step, on a fake Redis and on real ones."""

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
from support.steps import finished, parked, release, retried

from dispatcher import DispatchHaltedError, Settings
from dispatcher.ledger.leases import Denial, Lease, Leases, Named
from dispatcher.ledger.ledger import Ledger, Submission
from dispatcher.ledger.record import Order
from dispatcher.settings.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES_ON_A_FAKE, EXAMPLES_ON_REAL_ONES = 10, 120
WAIT_MS = 1_000_000
MOST_RETRIES = 2
PREFIX = "{dispatcher}:"


@dataclass
class Plan:
    """What the model knows of a plan. Moments are not modelled: it waits until `due`."""

    target: str
    due: bool = False
    awaits: int | None = 0
    """The number of the message that begins its next step. None: no message does."""

    holder: Lease | None = None
    lost: bool = False
    """Whether the worker of its last lease never came back."""

    retries: int = 0
    begun: bool = False
    applied: bool = False
    doubtful: bool = False
    cancelled: bool = False
    holds: bool = False
    """Whether it has the target. A plan that is begun only to be cancelled does not."""

    ended: bool = False
    stale: list[Lease] = field(default_factory=list)

    @property
    def parked(self) -> bool:
        """Whether it waits for its time alone."""
        return self.holder is None and self.awaits is None and not self.lost


class LedgerMachine(RuleBasedStateMachine):
    """Plans on two targets, messages, workers that come, go and get lost, cancels and halts."""

    connect: Callable[[], redis.Redis]
    ids = Bundle("ids")

    def __init__(self) -> None:
        super().__init__()
        self.client = type(self).connect()
        self.client.flushall()
        self.ledger = Ledger(self.client, Settings())
        self.leases = Leases(self.client, Settings(worker=WorkerSettings(lease_sec=600)))
        self.plans: dict[str, Plan] = {}
        self.lines: dict[str, list[str]] = {"/a": [], "/b": []}
        self.halted = False

    def teardown(self) -> None:
        self.client.close()

    @rule(target=ids, api=st.sampled_from(["/a", "/b"]))
    def submit(self, api: str) -> str:
        plan_id = f"p{len(self.plans)}"
        order = Order(plan=abort_plan(api=api), timeout_ms=1000)
        [outcome] = self.ledger.submit([Submission(plan_id, order)])
        assert isinstance(outcome, DispatchHaltedError) is self.halted
        if self.halted:
            return "unknown"
        assert outcome is True
        assert self.ledger.submit([Submission(plan_id, order)]) == [False]
        self.plans[plan_id] = Plan(api)
        self.lines[api].append(plan_id)
        return plan_id

    @rule(plan_id=ids, retries=st.integers(0, MOST_RETRIES))
    def a_message_arrives(self, plan_id: str, retries: int) -> None:
        [answer] = self.leases.fetch([Named(plan_id, retries)], 0).named
        plan = self.plans.get(plan_id)
        if plan is None:
            assert answer is Denial.UNKNOWN
        elif plan.ended:
            assert answer is Denial.OVER
        elif plan.awaits != retries:
            assert answer is Denial.ELSEWHERE
        else:
            self._asked_for(plan_id, plan, answer)

    @rule()
    def a_worker_fetches_what_is_due(self) -> None:
        found = {lease.plan_id: lease for lease in self.leases.fetch([], 100).due}
        due = {name: plan for name, plan in self.plans.items() if plan.due and not plan.ended}
        assert set(found) == {name for name, plan in due.items() if self._may_begin(name, plan)}
        for name, plan in due.items():
            self._asked_for(name, plan, found.get(name, Denial.WAITS))

    @rule(plan_id=ids)
    def park(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or plan.holder is None:
            return
        record = plan.holder.record.applied("f1", 1)
        standing = parked(self.leases, plan.holder, WAIT_MS, record)
        assert standing.due_ms == (0 if plan.cancelled else WAIT_MS)
        plan.holder, plan.due, plan.applied, plan.doubtful = None, plan.cancelled, True, False

    @rule(plan_id=ids)
    def retry(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or plan.holder is None or plan.retries == MOST_RETRIES:
            return
        assert retried(self.leases, plan.holder, WAIT_MS).cancelled is plan.cancelled
        plan.retries += 1
        plan.holder, plan.due = None, plan.cancelled
        plan.awaits = None if plan.cancelled else plan.retries

    @rule(plan_id=ids)
    def give_the_lease_back(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or plan.holder is None:
            return
        release(self.leases, plan.holder)
        plan.begun = plan.begun and not plan.holder.first_step
        plan.holder, plan.due = None, True

    @rule(plan_id=ids)
    def finish(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or plan.holder is None:
            return
        assert finished(self.leases, plan.holder, result="r").due_ms == 0
        plan.holder, plan.ended, plan.holds = None, True, False
        self.lines[plan.target].remove(plan_id)
        following = self.plans[line[0]] if (line := self._line(plan.target)) else None
        if following is not None and following.parked and not following.begun:
            following.due = True

    @rule(plan_id=ids)
    def lose_the_lease(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or plan.holder is None:
            return
        self._pass_time(plan_id)
        plan.stale.append(plan.holder)
        plan.holder, plan.lost, plan.due = None, True, True

    @rule(plan_id=ids)
    def time_passes(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is not None and plan.holder is None and not plan.ended:
            self._pass_time(plan_id)
            plan.due = True

    @rule(plan_id=ids)
    def a_stale_step_comes_back(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or not plan.stale or plan.lost:
            return
        stale = plan.stale.pop()
        assert parked(self.leases, stale, 0).lost
        assert finished(self.leases, stale, result="stale").lost
        assert self.leases.renew({plan_id: stale.token}) == [plan_id]

    @rule(plan_id=ids)
    def a_worker_renews(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is not None and plan.holder is not None:
            assert self.leases.renew({plan_id: plan.holder.token}) == []

    @rule(plan_id=ids)
    def cancel(self, plan_id: str) -> None:
        [answer] = self.ledger.cancel([plan_id], "")
        plan = self.plans.get(plan_id)
        assert answer is (None if plan is None else not plan.ended)
        if plan is None or plan.ended or plan.cancelled:
            return
        plan.cancelled = True
        if plan.holder is None and not plan.lost:
            plan.due, plan.awaits = True, None

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
    def a_plan_that_has_not_ended_is_in_the_ledgers_queue(self) -> None:
        assert set(self.ledger.in_flight()) == {name for name, plan in self.plans.items() if not plan.ended}

    @invariant()
    def a_plan_that_has_ended_has_one_result(self) -> None:
        for plan_id, plan in self.plans.items():
            assert (self.client.get(f"result-{plan_id}") == "r") is plan.ended
            assert self.client.llen(f"{PREFIX}ended:{plan_id}") == int(plan.ended)

    @invariant()
    def a_line_is_in_the_order_of_submission_behind_its_holder(self) -> None:
        for target in self.lines:
            stored = self.client.zrange(f"{PREFIX}line:default:PaymentService:{target}", 0, -1)
            assert stored == self._line(target)
            assert sum(self.plans[plan_id].holds for plan_id in self.lines[target]) <= 1

    def _line(self, target: str) -> list[str]:
        return sorted(self.lines[target], key=lambda plan_id: not self.plans[plan_id].holds)

    def _may_begin(self, plan_id: str, plan: Plan) -> bool:
        return plan.begun or plan.cancelled or self._line(plan.target)[0] == plan_id

    def _asked_for(self, plan_id: str, plan: Plan, answer: Lease | Denial) -> None:
        """The ledger was asked for a plan that waits for nothing but, perhaps, its target."""
        plan.awaits, plan.due = None, False
        if not self._may_begin(plan_id, plan):
            assert answer is Denial.WAITS
            return
        assert isinstance(answer, Lease)
        plan.doubtful = plan.doubtful or (plan.lost and plan.begun and not plan.applied)
        assert (answer.first_step, answer.record.doubtful) == (not plan.begun, plan.doubtful)
        plan.holds = plan.holds or not (plan.begun or plan.cancelled)
        plan.holder, plan.begun, plan.lost = answer, True, False

    def _pass_time(self, plan_id: str) -> None:
        self.client.hset(f"{PREFIX}plan:{plan_id}", "due_ms", 0)
        self.client.zadd(f"{PREFIX}due", {plan_id: 0})


def run_against_model(connect: Callable[[], redis.Redis], examples: int) -> None:
    machine = type("Machine", (LedgerMachine,), {"connect": staticmethod(connect)})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=40,
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
