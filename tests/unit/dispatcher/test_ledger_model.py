"""The ledger and its leases against a small model, step by step, on a fake Redis and on real ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
from support.eventually import SET_BACK_MS
from support.plans import abort_plan
from support.redis_server import versions
from support.steps import LOOK_AGAIN_MS, finished, parked, release, retried, submit_in_turn

from dispatcher import DispatchHaltedError, Settings
from dispatcher.ledger.leases import Denial, Lease, Leases, Named, Settlement
from dispatcher.ledger.ledger import Ledger, Submission
from dispatcher.ledger.record import Order
from dispatcher.settings.settings import WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES_ON_A_FAKE, EXAMPLES_ON_REAL_ONES = 10, 60
WAIT_MS = 1_000_000
TIMEOUT_MS = 3_600_000
MOST_RETRIES = 2
MOST_IN_DOUBT = 4
"""Leases of faults in doubt that one call grants."""

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
    in_doubt: bool = False
    """Whether it has ended, and its fault may be alive."""

    stuck: bool = False
    """Whether it waits for a target in doubt."""

    impatient: bool = False
    """Whether it has waited for that for as long as it may."""

    in_the_way: str | None = None
    """What its lease names as the plan that holds the target."""

    stale: list[Lease] = field(default_factory=list)

    @property
    def parked(self) -> bool:
        """Whether it waits only for its time."""
        return self.holder is None and self.awaits is None and not self.lost

    @property
    def goes_on(self) -> bool:
        """Whether a worker has its lease, and may carry it out."""
        return self.holder is not None and not self.ended and self.in_the_way is None


class LedgerMachine(RuleBasedStateMachine):
    """Plans on two targets, messages, workers that come, go and get lost, cancels, halts and doubts."""

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
        self.orders: dict[str, Order] = {}
        self.history: list[str] = []
        """Plans that the index has, in the order of submission."""

        self.members: dict[str, list[str]] = {"b1": [], "b2": []}
        self.completions: dict[str, list[str]] = {"b1": [], "b2": []}

    def teardown(self) -> None:
        self.client.close()

    @rule(target=ids, api=st.sampled_from(["/a", "/b"]), batch=st.sampled_from(["", "b1", "b2"]))
    def submit(self, api: str, batch: str) -> str:
        plan_id = f"p{len(self.orders)}"
        order = Order(plan=abort_plan(api=api), timeout_ms=TIMEOUT_MS)
        outcome = submit_in_turn(self.ledger, Submission(plan_id, order, batch=batch))
        assert isinstance(outcome, DispatchHaltedError) is self.halted
        if self.halted:
            return "unknown"
        assert outcome is True
        assert self.ledger.submit([Submission(plan_id, order, batch=batch)]) == [False]
        self.plans[plan_id] = Plan(api)
        self.orders[plan_id] = order
        self.history.append(plan_id)
        if batch:
            self.members[batch].append(plan_id)
        self.lines[api].append(plan_id)
        return plan_id

    @rule(plan_id=ids, batch=st.sampled_from(["b1", "b2"]))
    def submit_again_in_a_batch(self, plan_id: str, batch: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None:
            return
        again = Submission(plan_id, self.orders[plan_id], batch=batch)
        assert self.ledger.submit([again]) == [False]
        if plan_id not in self.members[batch]:
            self.members[batch].append(plan_id)
            self.completions[batch] += [plan_id] if plan.ended else []

    @rule(plan_id=ids)
    def the_record_expires(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or not plan.ended or plan.in_doubt:
            return
        self._pass_time_of_endings(plan_id)
        names = (f"{PREFIX}plan:{plan_id}", f"{PREFIX}ended:{plan_id}", f"result-{plan_id}")
        self.client.delete(*names)
        del self.plans[plan_id]
        self.leases.fetch([], 0)
        self.history.remove(plan_id)
        for members in self.members.values():
            if not self.plans.keys() & set(members):
                members.clear()

    @rule(plan_id=ids)
    def a_record_is_kept_for_longer(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is not None and plan.ended:
            self._pass_time_of_endings(plan_id)
            self.leases.fetch([], 0)

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
        for name, plan in self.plans.items():
            self._let_clock_catch_up(name, plan)
        found = {lease.plan_id: lease for lease in self.leases.fetch([], 100).due}
        due = {name: plan for name, plan in self.plans.items() if plan.due and not plan.ended}
        doubts = {name for name, plan in self.plans.items() if plan.due and plan.in_doubt}
        looked_at = {name for name in found if self.plans[name].in_doubt}
        assert looked_at <= doubts
        assert len(looked_at) == min(MOST_IN_DOUBT, len(doubts))
        assert set(found) - looked_at == {name for name, plan in due.items() if self._gets_lease(name, plan)}
        for name in looked_at:
            self._looked_at(self.plans[name], found[name])
        for name, plan in due.items():
            self._asked_for(name, plan, found.get(name, Denial.WAITS))

    @rule(plan_id=ids)
    def park(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or plan.holder is None or not plan.goes_on:
            return
        record = plan.holder.record.applied("f1", 1)
        standing = parked(self.leases, plan.holder, WAIT_MS, record)
        assert standing.due_ms == (0 if plan.cancelled else WAIT_MS)
        plan.holder, plan.due, plan.applied, plan.doubtful = None, plan.cancelled, True, False

    @rule(plan_id=ids)
    def retry(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or plan.holder is None or not plan.goes_on or plan.retries == MOST_RETRIES:
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
        plan.holder, plan.due, plan.in_the_way = None, True, None

    @rule(plan_id=ids)
    def finish(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or plan.holder is None or plan.ended:
            return
        assert finished(self.leases, plan.holder, result="r").due_ms == 0
        plan.holder, plan.ended = None, True
        self._complete(plan_id)
        self._give_up_target(plan_id)

    @rule(plan_id=ids)
    def end_in_doubt(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or plan.holder is None or not plan.goes_on:
            return
        assert finished(self.leases, plan.holder, result="r", doubt="who knows").due_ms == LOOK_AGAIN_MS
        plan.holder, plan.ended, plan.in_doubt, plan.holds = None, True, True, True
        self._complete(plan_id)
        for waiting in self._line(plan.target):
            self._wake(self.plans[waiting])

    @rule(plan_id=ids)
    def look_again_later(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or plan.holder is None or not plan.in_doubt:
            return
        assert parked(self.leases, plan.holder, WAIT_MS).due_ms == WAIT_MS
        plan.holder = None

    @rule(plan_id=ids)
    def know_that_it_is_over(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or plan.holder is None or not plan.in_doubt:
            return
        [standing] = self.leases.settle([Settlement(plan_id, plan.holder.token, "known", [0])])
        assert standing.due_ms == 0
        plan.holder, plan.in_doubt = None, False
        self._give_up_target(plan_id)

    @rule(api=st.sampled_from(["/a", "/b"]))
    def people_release(self, api: str) -> None:
        doubts = {name for name in self.lines[api] if self.plans[name].in_doubt}
        assert set(self.ledger.release(f"default:PaymentService:{api}", "seen")) == doubts
        for name in doubts:
            plan = self.plans[name]
            plan.stale += [] if plan.holder is None else [plan.holder]
            plan.holder, plan.in_doubt, plan.lost = None, False, False
        for name in doubts:
            self._give_up_target(name)

    @rule(plan_id=ids)
    def lose_patience(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or not plan.stuck or plan.impatient or not plan.parked or plan.begun:
            return
        self.client.hincrby(f"{PREFIX}plan:{plan_id}", "stuck_ms", -TIMEOUT_MS)
        self._pass_time(plan_id)
        plan.impatient = plan.due = True

    @rule(plan_id=ids)
    def lose_the_lease(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is None or plan.holder is None:
            return
        self._pass_time(plan_id)
        plan.stale.append(plan.holder)
        plan.holder, plan.lost, plan.due, plan.in_the_way = None, True, True, None

    @rule(plan_id=ids)
    def time_passes(self, plan_id: str) -> None:
        plan = self.plans.get(plan_id)
        if plan is not None and plan.holder is None and (plan.in_doubt or not plan.ended):
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
    def a_plan_in_doubt_is_looked_at_and_does_not_expire(self) -> None:
        doubts = {name for name, plan in self.plans.items() if plan.in_doubt}
        assert set(self.ledger.in_doubt()) == doubts
        for plan_id, plan in self.plans.items():
            expires = self.client.ttl(f"{PREFIX}plan:{plan_id}") > 0
            assert expires is (plan.ended and not plan.in_doubt)

    @invariant()
    def a_plan_that_has_ended_has_one_result(self) -> None:
        for plan_id, plan in self.plans.items():
            assert (self.client.get(f"result-{plan_id}") == "r") is plan.ended
            assert self.client.llen(f"{PREFIX}ended:{plan_id}") == int(plan.ended)

    @invariant()
    def the_history_has_every_plan_whose_record_exists(self) -> None:
        assert self.client.zrange(f"{PREFIX}history", 0, -1) == self.history
        assert set(self.history) == set(self.plans)

    @invariant()
    def a_batch_has_its_plans_and_completes_with_each_once(self) -> None:
        for batch, members in self.members.items():
            assert self.client.lrange(f"{PREFIX}batch:{batch}", 0, -1) == members
            entries: Any = self.client.xrange(f"{PREFIX}completions:{batch}")
            assert [fields["id"] for _, fields in entries] == self.completions[batch]

    @invariant()
    def every_ended_plan_will_leave_the_history(self) -> None:
        named = {ending.split()[1] for ending in self.client.lrange(f"{PREFIX}endings", 0, -1)}
        assert named >= {plan_id for plan_id, plan in self.plans.items() if plan.ended}

    @invariant()
    def a_line_is_in_the_order_of_submission_behind_its_holder(self) -> None:
        for target in self.lines:
            stored = self.client.zrange(f"{PREFIX}line:default:PaymentService:{target}", 0, -1)
            assert stored == self._line(target)
            plans = [self.plans[plan_id] for plan_id in self.lines[target]]
            assert sum(plan.holds and not plan.in_doubt for plan in plans) <= 1

    def _complete(self, plan_id: str) -> None:
        for batch, members in self.members.items():
            self.completions[batch] += [plan_id] if plan_id in members else []

    def _pass_time_of_endings(self, plan_id: str) -> None:
        """The times at which the plan was to leave the history have come."""
        endings_key = f"{PREFIX}endings"
        endings: Any = self.client.lrange(endings_key, 0, -1)
        for ending in endings:
            _, named, *batches = ending.split()
            if named == plan_id:
                self.client.lrem(endings_key, 1, ending)
                self.client.lpush(endings_key, " ".join(["0", named, *batches]))

    def _line(self, target: str) -> list[str]:
        """Redis sorts plans of the same rank by their ids: those that hold the target."""
        holders = sorted(name for name in self.lines[target] if self.plans[name].holds)
        return [*holders, *(name for name in self.lines[target] if not self.plans[name].holds)]

    def _give_up_target(self, plan_id: str) -> None:
        plan = self.plans[plan_id]
        plan.holds = plan.due = False
        self.lines[plan.target].remove(plan_id)
        if line := self._line(plan.target):
            self._wake(self.plans[line[0]])

    def _wake(self, plan: Plan) -> None:
        if plan.parked and not plan.begun and not plan.ended:
            plan.due = True

    def _may_begin(self, plan_id: str, plan: Plan) -> bool:
        return plan.begun or plan.cancelled or self._line(plan.target)[0] == plan_id

    def _gets_lease(self, plan_id: str, plan: Plan) -> bool:
        impatient = plan.impatient and self.plans[self._line(plan.target)[0]].in_doubt
        return not self._waits_for_resume(plan) and (self._may_begin(plan_id, plan) or impatient)

    def _waits_for_resume(self, plan: Plan) -> bool:
        return self.halted and not plan.begun and not plan.cancelled

    def _looked_at(self, plan: Plan, lease: Lease) -> None:
        """A worker was given a plan that had ended in doubt."""
        assert (lease.first_step, lease.record.doubt) == (False, "who knows")
        assert lease.record.state.final
        plan.holder, plan.due, plan.lost = lease, False, False

    def _asked_for(self, plan_id: str, plan: Plan, answer: Lease | Denial) -> None:
        """The ledger was asked for a plan that waits for nothing but, perhaps, its target."""
        plan.awaits, plan.due = None, False
        if self._waits_for_resume(plan):
            assert answer is Denial.WAITS
            plan.lost = False
            return
        if not self._may_begin(plan_id, plan):
            self._meets_a_holder(plan_id, plan, answer)
            return
        assert isinstance(answer, Lease)
        assert answer.record.in_the_way is None
        plan.doubtful = plan.doubtful or (plan.lost and plan.begun and not plan.applied)
        assert (answer.first_step, answer.record.doubtful) == (not plan.begun, plan.doubtful)
        plan.holds = plan.holds or not (plan.begun or plan.cancelled)
        plan.holder, plan.begun, plan.lost = answer, True, False

    def _meets_a_holder(self, plan_id: str, plan: Plan, answer: Lease | Denial) -> None:
        """Another plan has the target. If that is in doubt, the plan waits for a limited time."""
        first = self._line(plan.target)[0]
        plan.stuck = self.plans[first].in_doubt
        plan.impatient = plan.impatient and plan.stuck
        if not plan.impatient:
            assert answer is Denial.WAITS
            plan.lost = False
            return
        assert isinstance(answer, Lease)
        assert (answer.first_step, answer.record.in_the_way) == (False, first)
        plan.holder, plan.lost, plan.in_the_way = answer, False, first

    def _let_clock_catch_up(self, plan_id: str, plan: Plan) -> None:
        """What is due at once is so even by a clock that was set back meanwhile."""
        if plan.due and (plan.in_doubt or not plan.ended):
            key = "doubts" if plan.in_doubt else "due"
            self.client.zincrby(f"{PREFIX}{key}", -SET_BACK_MS, plan_id)

    def _pass_time(self, plan_id: str) -> None:
        key = "doubts" if self.plans[plan_id].in_doubt else "due"
        self.client.hset(f"{PREFIX}plan:{plan_id}", "due_ms", 0)
        self.client.zadd(f"{PREFIX}{key}", {plan_id: 0})


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
