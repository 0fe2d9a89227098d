"""The completer and the lease keeper, one turn at a time, over leases that fail on demand."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from support.plans import abort_plan

from dispatcher import ExecutorServerError, LedgerRefusedError, LedgerUnavailableError, Settings
from dispatcher.ledger.leases import Lease, Leases, Named, Settlement
from dispatcher.ledger.ledger import Ledger, Submission
from dispatcher.ledger.record import Order
from dispatcher.ledger.scripts import Call, Script
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.results import ResultCodec
from workers.breaker.rules import UNCOUNTED, Admission, Outcome, Report
from workers.engine import completer
from workers.engine.completer import GROUP_COMMIT_S, MOST_AT_ONCE, RESTS_MS, Completer
from workers.engine.decisions import Fail, Retry, Snooze
from workers.engine.execution import Execution
from workers.engine.lease_keeper import MANY_HELD, LeaseKeeper
from workers.engine.terminal_errors import failed

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import redis

    from dispatcher.ledger.leases import Standing

LOCAL = Admission("", UNCOUNTED, local=True)


class FailingLeases(Leases):
    """Refuses the next `failures` settlements."""

    failures = 0
    refuses = False
    """Whether Redis refuses the worker itself."""

    settled_during_renew: Lease | None = None
    completer: Completer | None = None

    def settle(self, settlements: Sequence[Settlement], piggyback: Sequence[Call] = ()) -> list[Standing]:
        if self.failures:
            self.failures -= 1
            raise LedgerUnavailableError("Redis is away")
        if self.refuses:
            raise LedgerRefusedError("NOPERM")
        return super().settle(settlements, piggyback)

    def renew(self, held: Mapping[str, str]) -> list[str]:
        if self.refuses:
            raise LedgerRefusedError("NOPERM")
        if self.completer is not None and self.settled_during_renew is not None:
            self.completer.release(self.settled_during_renew)
            self.completer.turn()
        return super().renew(held)


class CountingBreaker:
    """Counts what a local breaker learns."""

    def __init__(self) -> None:
        self.recorded = 0

    def record(self, admission: Admission, report: Report) -> None:
        assert admission.local
        assert report.outcome is Outcome.SUCCESS
        self.recorded += 1


class RefusedBreaker(CountingBreaker):
    """Redis refuses what it records: the key is another program's, for example."""

    def recording(self, *_: object) -> Call:
        return Call(Script.with_text("return redis.error_reply('WRONGTYPE')"), [], [])


class Parts:
    """A completer and its surroundings, and a lease of one plan."""

    def __init__(self, client: redis.Redis) -> None:
        settings = Settings()
        self.breaker = CountingBreaker()
        self.leases = FailingLeases(client, settings)
        self.keeper = LeaseKeeper(self.leases)
        results, breakers = ResultCodec(make_celery(settings)), {"default": self.breaker}
        self.completer = Completer(self.leases, self.keeper, results, breakers, written=_nothing)  # type: ignore[arg-type]
        order = Order(plan=abort_plan(), timeout_ms=30_000)
        Ledger(client, settings).submit([Submission("p1", order)])
        [lease] = self.leases.fetch([Named("p1", 0)], 0).named
        assert isinstance(lease, Lease)
        self.lease = lease
        self.keeper.hold(lease)
        self._ledger = Ledger(client, settings)

    def another_lease(self) -> Lease:
        """A lease of one more plan, which is held."""
        order = Order(plan=abort_plan(api="/other"), timeout_ms=30_000)
        self._ledger.submit([Submission("p2", order)])
        [lease] = self.leases.fetch([Named("p2", 0)], 0).named
        assert isinstance(lease, Lease)
        self.keeper.hold(lease)
        return lease


@pytest.fixture
def parts(redis_client: redis.Redis) -> Parts:
    return Parts(redis_client)


def test_a_decision_that_redis_did_not_take_is_offered_again_and_counted_once(
    parts: Parts,
) -> None:
    parts.leases.failures = 2
    execution = Execution(Snooze(parts.lease.record, 1000), LOCAL, Report(Outcome.SUCCESS))
    answer = parts.completer.settle(parts.lease, execution)
    for _ in range(2):
        with pytest.raises(LedgerUnavailableError):
            parts.completer.turn()
        assert not answer.done()
    parts.completer.turn()
    assert not answer.result(0).lost
    assert parts.breaker.recorded == 1


def test_decisions_of_a_worker_without_rights_are_offered_until_it_has_them_again(parts: Parts) -> None:
    other = parts.another_lease()
    parts.leases.refuses = True
    answers = [
        parts.completer.settle(each, Execution(Snooze(each.record, 1000))) for each in (parts.lease, other)
    ]
    with pytest.raises(LedgerRefusedError):
        parts.completer.turn()
    assert not any(answer.done() for answer in answers)
    parts.leases.refuses = False
    parts.completer.turn()
    assert not any(answer.result(0).lost for answer in answers)


@pytest.mark.parametrize("others", [0, 1])
def test_reports_and_counts_that_redis_refuses_spoil_no_decision(parts: Parts, others: int) -> None:
    parts.completer._breakers = {"default": RefusedBreaker()}  # type: ignore[dict-item]
    leases = [parts.lease, *(parts.another_lease() for _ in range(others))]
    counted = Counter({"applies": 1})
    answers = [
        parts.completer.settle(each, Execution(Snooze(each.record, 1000), counts=counted)) for each in leases
    ]
    parts.completer.turn()
    assert not any(answer.result(0).lost for answer in answers)


@pytest.mark.parametrize("odd", ["\ud800", object()], ids=["half a character", "an object"])
def test_a_decision_that_cannot_be_sent_spoils_no_other(
    parts: Parts, odd: Any, caplog: pytest.LogCaptureFixture
) -> None:
    other = parts.another_lease()
    wrong = parts.lease.record._replace(apply_id=odd)
    answers = [
        parts.completer.settle(parts.lease, Execution(Snooze(wrong, 1000))),
        parts.completer.settle(other, Execution(Snooze(other.record, 1000))),
    ]
    parts.completer.turn()
    assert [answer.result(0).lost for answer in answers] == [True, False]
    assert caplog.messages == ["plan p1: its decision cannot be written"]


def test_a_plan_rests_from_its_decision_on_and_not_from_when_it_is_stored(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    answer = parts.completer.settle(parts.lease, Execution(Snooze(parts.lease.record, 1000)))
    parts.completer.settle(parts.another_lease(), Execution(Snooze(parts.lease.record, 0)))
    monkeypatch.setattr(time, "monotonic", lambda: 100.3)
    parts.completer.turn()
    assert answer.result(0).due_ms == 700


def test_a_busy_workers_groups_wait_for_more_unless_a_thread_waits(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(MANY_HELD):
        parts.keeper.hold(replace(parts.lease, record=parts.lease.record._replace(id=f"other {number}")))
    monkeypatch.setattr(completer, "BUSY_COMMIT_S", 3600.0)
    retry = Retry(parts.lease.record, 1.0, ExecutorServerError("down", 503, ""))
    answer = parts.completer.settle(parts.lease, Execution(retry))
    parts.completer.turn()
    assert answer.result(0).due_ms == 1000


@pytest.mark.parametrize("press", ["ends", "has its next step soon", "is given back"])
def test_a_plan_that_rests_is_stored_at_once_together_with_one_that(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, press: str
) -> None:
    monkeypatch.setattr(completer, "RESTING_COMMIT_S", 3600.0)
    other = parts.another_lease()
    rests = parts.completer.settle(parts.lease, Execution(Snooze(parts.lease.record, RESTS_MS)))
    if press == "is given back":
        parts.completer.release(other)
    else:
        pressing = _ended(other) if press == "ends" else Snooze(other.record, RESTS_MS - 1)
        parts.completer.settle(other, Execution(pressing))
    parts.completer.turn()
    assert not rests.result(0).lost


@pytest.mark.parametrize(
    ("quiet_s", "waits"), [(GROUP_COMMIT_S, []), (GROUP_COMMIT_S / 4, [3 * GROUP_COMMIT_S / 4])]
)
def test_a_plans_end_waits_for_others_only_if_the_last_group_was_just_stored(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, quiet_s: float, waits: list[float]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", lambda seconds: slept.extend([seconds] if seconds else []))
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    parts.completer.settle(parts.lease, Execution(_ended(parts.lease)))
    parts.completer.turn()
    assert slept == []
    monkeypatch.setattr(time, "monotonic", lambda: 100.0 + quiet_s)
    other = parts.another_lease()
    answer = parts.completer.settle(other, Execution(_ended(other)))
    parts.completer.turn()
    assert slept == pytest.approx(waits)
    assert not answer.result(0).lost


def test_a_whole_group_waits_for_no_more(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(completer, "RESTING_COMMIT_S", 3600.0)
    rest = Execution(Snooze(parts.lease.record, RESTS_MS))
    first, *_ = [parts.completer.settle(parts.lease, rest) for _ in range(MOST_AT_ONCE)]
    parts.completer.turn()
    assert not first.result(0).lost


def test_decisions_that_redis_never_took_are_answered_when_the_worker_ends(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    parts.leases.failures = 1
    refused = parts.completer.release(parts.lease)
    with pytest.raises(LedgerUnavailableError):
        parts.completer.turn()
    queued = parts.completer.release(parts.lease)
    parts.completer.stop()  # or the thread that waits for an answer would never end, nor would the worker
    too_late = parts.completer.release(parts.lease)
    assert all(answer.result(0).lost for answer in (refused, queued, too_late))
    assert caplog.messages == ["Redis did not take 2 decisions; their plans go on once their leases end"]


def test_a_lease_that_was_given_back_while_it_was_renewed_is_not_called_lost(
    parts: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    parts.leases.completer, parts.leases.settled_during_renew = parts.completer, parts.lease
    with caplog.at_level(logging.WARNING):
        parts.keeper.turn()
    assert caplog.messages == []
    assert len(parts.keeper) == 0


def test_a_lease_that_another_worker_holds_is_called_lost(
    parts: Parts, redis_client: redis.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    redis_client.hset("{dispatcher}:plan:p1", "lease", "held another")
    parts.keeper.turn()
    assert caplog.messages == ["plan p1: its lease was lost"]
    assert len(parts.keeper) == 0


def _ended(lease: Lease) -> Fail:
    return failed(lease.record, ExecutorServerError("down", 503, ""), lease.now_ms)


def _nothing(*_: Any) -> None:
    """Nothing follows here."""
