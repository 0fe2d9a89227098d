"""The ledger, on a fake and on a real Redis. Time passes by shifting what is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import SecretStr
from support.plans import abort_plan, plan_record
from support.steps import finished, parked

from dispatcher import (
    ConflictPolicy,
    DispatchHaltedError,
    ExecutorClientError,
    InvalidPlanError,
    LedgerUnavailableError,
    PlanConflictError,
    PlanState,
    Settings,
)
from dispatcher.ledger.connection import worker_client
from dispatcher.ledger.leases import Lease, Leases, Named
from dispatcher.ledger.ledger import Ledger, Submission, connect
from dispatcher.ledger.record import Order

if TYPE_CHECKING:
    import redis

    from dispatcher import FaultPlan
    from dispatcher.ledger.record import PlanRecord

PLAN = abort_plan()


def submit(ledger: Ledger, plan_id: str = "p1", plan: FaultPlan = PLAN, **options: Any) -> bool:
    """Whether it is new. Raises why it was refused."""
    names = ("expires_after_ms", "batch", "traceparent")
    own = {name: options.pop(name) for name in names if name in options}
    order = Order(plan=plan, **{"timeout_ms": 30_000, **options})
    [outcome] = ledger.submit([Submission(plan_id, order, **own)])
    if isinstance(outcome, ExecutorClientError):
        raise outcome
    return outcome


def read(ledger: Ledger, plan_id: str = "p1") -> PlanRecord:
    [record] = ledger.read([plan_id])
    assert record is not None
    return record


def test_a_submitted_plan_is_queued(ledger: Ledger) -> None:
    assert submit(ledger)
    record = read(ledger)
    assert (record.state, record.plan, record.attempts) == (PlanState.QUEUED, PLAN, 0)


def test_the_same_plan_submitted_again_is_the_same_plan(ledger: Ledger) -> None:
    submit(ledger)
    assert not submit(ledger)


def test_the_span_that_submits_a_plan_is_kept_and_does_not_belong_to_it(
    ledger: Ledger, redis_client: redis.Redis
) -> None:
    submit(ledger, traceparent="00-first")
    assert not submit(ledger, traceparent="00-second")
    [lease] = Leases(redis_client, Settings()).fetch([Named("p1", 0)], 0).named
    assert isinstance(lease, Lease)
    assert (read(ledger).traceparent, lease.record.traceparent) == ("00-first", "00-first")
    submit(ledger, "p2")
    assert read(ledger, "p2").traceparent == ""
    assert not redis_client.hexists("{dispatcher}:plan:p2", "traceparent")  # each field costs memory


@pytest.mark.parametrize("change", [{"plan": abort_plan(percentage=1)}, {"timeout_ms": 1}])
def test_another_plan_under_the_same_id_is_refused(ledger: Ledger, change: dict[str, Any]) -> None:
    submit(ledger)
    with pytest.raises(PlanConflictError, match="p1"):
        submit(ledger, **change)


def test_a_start_time_in_the_past_is_refused(ledger: Ledger) -> None:
    late = abort_plan(start_time=datetime.now(UTC) - timedelta(seconds=2))
    with pytest.raises(InvalidPlanError, match="start_time"):
        submit(ledger, plan=late)
    assert ledger.read(["p1"]) == [None]


def test_expiry_counts_from_the_start_time(ledger: Ledger) -> None:
    start = datetime.now(UTC) + timedelta(seconds=60)
    submit(ledger, plan=abort_plan(start_time=start), expires_after_ms=5_000)
    record = read(ledger)
    assert record.expires_ms == record.due_ms + 5_000


def test_a_redis_that_is_gone_is_one_typed_error(free_tcp_port: int) -> None:
    settings = Settings(redis_url=SecretStr(f"redis://:pa55@127.0.0.1:{free_tcp_port}/0"))
    ledger, leases = connect(settings), Leases(worker_client(settings), settings)
    with pytest.raises(LedgerUnavailableError, match="is redis_url right") as caught:
        ledger.read(["p1"])
    assert "pa55" not in str(caught.value)
    lease = Lease(plan_record("p1"), "t1", now_ms=0, granted_at=0.0)
    with pytest.raises(LedgerUnavailableError, match="is redis_url right"):
        parked(leases, lease, 1000)
    with pytest.raises(LedgerUnavailableError, match="is redis_url right"):
        finished(leases, lease)
    ledger.close()


def test_a_plan_that_rejects_conflicts_is_refused_with_the_holders_name(ledger: Ledger) -> None:
    submit(ledger, "p1")
    with pytest.raises(PlanConflictError) as caught:
        submit(ledger, "p2", conflict_policy=ConflictPolicy.REJECT)
    assert caught.value.holder == "p1"
    assert ledger.read(["p2"]) == [None]


def test_the_first_reason_of_a_cancel_stays(ledger: Ledger) -> None:
    submit(ledger)
    ledger.cancel(["p1"], "first")
    ledger.cancel(["p1"], "second")
    assert read(ledger).cancelled == "first"


def test_a_halted_dispatcher_takes_no_plans_until_it_is_resumed(ledger: Ledger) -> None:
    submit(ledger, "p1")
    ledger.halt("fire drill")
    assert ledger.halted() == "fire drill"
    with pytest.raises(DispatchHaltedError, match="fire drill"):
        submit(ledger, "p2")
    assert not submit(ledger, "p1")  # that plan was taken before
    assert ledger.resume()
    assert not ledger.resume()
    assert submit(ledger, "p2")
