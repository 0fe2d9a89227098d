"""A worker's engine without its threads: one lease, one step, one settlement, each when the test says so."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, cast

from opentelemetry.trace import SpanKind
from support.eventually import AT_ONCE_S, SET_BACK_MS, eventually

from dispatcher.ledger.leases import Lease, Leases, Named, Settlement, Standing
from dispatcher.settings.settings import Settings
from workers.engine.completer import Completer
from workers.engine.decisions import Retry
from workers.engine.executor import PlanExecutor
from workers.engine.lease_keeper import LeaseKeeper
from workers.engine.traces import step_span

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import redis

    from dispatcher.errors import ExecutorClientError
    from dispatcher.ledger.ledger import Ledger, Submission
    from dispatcher.ledger.record import PlanRecord
    from dispatcher.tasks.results import ResultCodec
    from workers.breaker.shared import SharedBreaker
    from workers.engine.decisions import Decision
    from workers.engine.gateway import Gateway

MOST_DUE = 1000
LOOK_AGAIN_MS = 600_000
AN_HOUR_US = 3_600_000_000


class Steps:
    """Carries out steps in the calling thread."""

    def __init__(
        self,
        client: redis.Redis,
        results: ResultCodec,
        gateways: Mapping[str, Gateway],
        breakers: Mapping[str, SharedBreaker],
        expect: Callable[[int], object] = lambda _: None,
        settings: Settings | None = None,
    ) -> None:
        """`expect` is called with the time in ms after which a plan is due that was let go."""
        self.leases = Leases(client, settings or Settings())
        self.gateways = gateways
        self.breakers = breakers
        self.executor = PlanExecutor(self.leases, gateways, breakers)
        keeper = LeaseKeeper(self.leases)
        self.completer = Completer(self.leases, keeper, results, breakers, written=_nothing)
        self.expect = expect
        self.retries: Counter[str] = Counter()
        """How many messages were sent for each plan after its first one."""


def take(steps: Steps, plan_id: str) -> Decision | None:
    """Carry out the plan's step, if there is one. None if it had no outcome."""
    lease = claim(steps.leases, plan_id, steps.retries[plan_id])
    if lease is None:
        return None
    if lease.record.executor in steps.breakers:
        steps.breakers[lease.record.executor].note_at(lease.granted_at, *lease.breaker)
    with step_span(lease.record, SpanKind.CONSUMER):
        execution = steps.executor.execute(lease)
        answer = steps.completer.settle(lease, execution)
        steps.completer.turn()
    standing = answer.result(0)
    if standing.lost:
        return None
    steps.retries[plan_id] += isinstance(execution.decision, Retry)
    steps.expect(standing.due_ms)
    return execution.decision


def submit_in_turn(ledger: Ledger, submission: Submission) -> bool | ExecutorClientError:
    """Submit a plan. Its line and the history have it last, even if the clock was set back meanwhile."""
    [outcome] = ledger.submit([submission])
    if outcome is True:
        plan_id, _, target, *_, start_ms = submission.arguments
        [count] = ledger.execute_all([["HGET", ledger.counts_key, "submitted"]])
        later_us = int(count) * SET_BACK_MS * 1000 - AN_HOUR_US
        keys = [ledger.history_key] if start_ms else [ledger.history_key, f"{ledger.prefix}line:{target}"]
        ledger.execute_all([["ZADD", key, "XX", "INCR", later_us, plan_id] for key in keys])
    return outcome


def take_due(steps: Steps, plan_id: str) -> Decision:
    """Carry out the step of a plan that is due at once, even if the clock was set back meanwhile."""
    return cast("Decision", eventually(lambda: take(steps, plan_id), AT_ONCE_S))


def make_due(client: redis.Redis, plan_id: str = "p1", after_ms: int = 1_000) -> None:
    """Let so much time pass for the plan's fault, even if the clock is set back, and have a worker look."""
    after_ms += SET_BACK_MS
    for name in ("applied_ms", "sent_ms"):
        if client.hexists(f"{{dispatcher}}:plan:{plan_id}", name):
            client.hincrby(f"{{dispatcher}}:plan:{plan_id}", name, -after_ms)
    client.zadd("{dispatcher}:due", {plan_id: 0})


def claim(leases: Leases, plan_id: str, retries: int) -> Lease | None:
    """The plan's lease: by the message that it waits for, or because it is due. None if it waits."""
    fetched = leases.fetch([Named(plan_id, retries)], MOST_DUE)
    found = [lease for lease in (*fetched.named, *fetched.due) if isinstance(lease, Lease)]
    for other in found:
        if other.plan_id != plan_id:
            release(leases, other)
    return next((lease for lease in found if lease.plan_id == plan_id), None)


def release(leases: Leases, lease: Lease) -> None:
    leases.settle([Settlement(lease.plan_id, lease.token, "release", [int(lease.first_step)])])


def parked(leases: Leases, lease: Lease, after_ms: int, record: PlanRecord | None = None) -> Standing:
    """How the ledger answers a step that ends like this."""
    fields = _fields(record or lease.record, lease.record)
    [standing] = leases.settle([Settlement(lease.plan_id, lease.token, "snooze", [after_ms, *fields])])
    return standing


def retried(leases: Leases, lease: Lease, after_ms: int, grace_ms: int = 5_000) -> Standing:
    """The same of a step whose next attempt is begun by a message. The cause is where results are."""
    args: list[str | int] = [
        after_ms,
        grace_ms,
        lease.record.retries + 1,
        f"result-{lease.plan_id}",
        "the cause",
        *_fields(lease.record, lease.record),
    ]
    [standing] = leases.settle([Settlement(lease.plan_id, lease.token, "retry", args)])
    return standing


def finished(
    leases: Leases,
    lease: Lease,
    record: PlanRecord | None = None,
    result: str = "the result",
    alive_ms: int = 0,
    doubt: str = "",
) -> Standing:
    """The same of one that ends its plan. Its result is at `result-` and the plan's id.

    A fault in doubt is looked at again after `LOOK_AGAIN_MS`.
    """
    record = record or lease.record.observed()
    how = [record.state, record.apply_id or "", record.cause or ""]
    args: list[str | int] = [*how, f"result-{lease.plan_id}", result, alive_ms]
    args += [doubt, LOOK_AGAIN_MS, *_fields(record, lease.record)] if doubt else []
    [standing] = leases.settle([Settlement(lease.plan_id, lease.token, "end", args)])
    return standing


def _fields(record: PlanRecord, before: PlanRecord) -> list[str | int]:
    return [each for pair in record.changes_since(before).items() for each in pair]


def _nothing(*_: Any) -> None:
    """Nothing follows a settlement here."""
