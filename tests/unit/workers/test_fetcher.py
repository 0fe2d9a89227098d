"""The fetcher, on a real Redis, one turn at a time."""

from __future__ import annotations

import itertools
import time
from typing import TYPE_CHECKING, Any

import pytest
from support.plans import abort_plan

from dispatcher import Settings
from dispatcher.ledger.leases import Denial, Lease, Leases, Named
from dispatcher.ledger.ledger import Ledger, Submission
from dispatcher.ledger.record import Order
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.results import ResultCodec
from workers.engine.completer import Completer
from workers.engine.fetcher import GROUP_S, LONGEST_GROUP_S, UNBEGUN_S, UNCOLLECTED_S, Fetcher
from workers.engine.lease_keeper import MANY_HELD, LeaseKeeper

if TYPE_CHECKING:
    import redis

FIRST = Named("p1", 0)


@pytest.fixture
def fetcher(real_redis: redis.Redis) -> Fetcher:
    settings = Settings()
    leases = Leases(real_redis, settings)
    keeper = LeaseKeeper(leases)
    completer = Completer(leases, keeper, ResultCodec(make_celery(settings)), {}, written=_nothing)
    order = Order(plan=abort_plan(), timeout_ms=30_000)
    Ledger(real_redis, settings).submit([Submission(FIRST.plan_id, order)])
    return Fetcher(leases, keeper, completer, threads=1, run=_nothing)


def test_the_lease_of_a_message_is_ready_for_its_task(fetcher: Fetcher) -> None:
    fetcher.name(FIRST)
    fetcher.turn()
    assert isinstance(fetcher.collect(FIRST), Lease)


def test_a_message_that_comes_again_before_its_task_runs_takes_no_lease_away(fetcher: Fetcher) -> None:
    fetcher.name(FIRST)
    fetcher.turn()
    fetcher.name(FIRST)
    fetcher.turn()
    assert isinstance(fetcher.collect(FIRST), Lease)


def test_messages_that_keep_arriving_at_a_busy_worker_are_claimed_together(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = range(2, 2 + MANY_HELD)
    arriving = [Named(f"p{number}", 0) for number in numbers]
    first = arriving[: MANY_HELD - 1]

    def meanwhile(_: float) -> None:
        if arriving:
            fetcher.name(arriving.pop())

    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    fetcher.turn()
    monkeypatch.setattr(time, "sleep", meanwhile)
    for each in (FIRST, *first):
        fetcher.name(each)
    fetcher.turn()
    assert [fetcher.collect(Named(f"p{number}", 0)) for number in numbers] == [Denial.UNKNOWN] * MANY_HELD


def test_a_worker_with_few_leases_waits_for_no_second_group(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def meanwhile(seconds: float) -> None:
        slept.append(seconds)
        fetcher.name(Named(f"p{len(slept) + 1}", 0))

    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    fetcher.turn()
    monkeypatch.setattr(time, "sleep", meanwhile)
    fetcher.name(FIRST)
    fetcher.turn()
    assert slept == [GROUP_S]
    assert isinstance(fetcher.collect(FIRST), Lease)


@pytest.mark.parametrize(("quiet_s", "waits"), [(GROUP_S, []), (GROUP_S / 4, [3 * GROUP_S / 4])])
def test_a_message_waits_for_others_only_if_the_last_call_was_just_made(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch, quiet_s: float, waits: list[float]
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    monkeypatch.setattr(time, "monotonic", lambda: 0.0)
    fetcher.turn()
    monkeypatch.setattr(time, "monotonic", lambda: quiet_s)
    fetcher.name(FIRST)
    fetcher.turn()
    assert slept == pytest.approx(waits)
    assert isinstance(fetcher.collect(FIRST), Lease)


def test_messages_that_never_stop_arriving_do_not_hold_the_first_one_up(
    fetcher: Fetcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetcher.turn()
    clock = itertools.count(time.monotonic(), LONGEST_GROUP_S / 10)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    numbers = itertools.count(2)
    monkeypatch.setattr(time, "sleep", lambda _: fetcher.name(Named(f"p{next(numbers)}", 0)))
    for named in (FIRST, *(Named(f"q{number}", 0) for number in range(MANY_HELD))):
        fetcher.name(named)
    fetcher.turn()
    assert isinstance(fetcher.collect(FIRST), Lease)


def due(fetcher: Fetcher, client: redis.Redis) -> Lease:
    """The lease of a due plan that waits for a thread."""
    client.hset("{dispatcher}:plan:p1", "lease", "parked")
    client.zadd("{dispatcher}:due", {"p1": 0})
    fetcher.turn()
    [(lease, _)] = fetcher._unbegun.values()
    return lease


def is_given_back(fetcher: Fetcher, client: redis.Redis) -> bool:
    """Whether the plan is due for any worker, once decisions are stored."""
    fetcher._completer.turn()
    return str(client.hget("{dispatcher}:plan:p1", "lease")).startswith("parked")


def test_a_due_plan_that_no_thread_begins_is_given_back_and_no_thread_may_begin_it(
    fetcher: Fetcher, real_redis: redis.Redis
) -> None:
    lease = due(fetcher, real_redis)
    fetcher._give_back(time.monotonic())
    assert fetcher._unbegun
    fetcher._give_back(time.monotonic() + UNBEGUN_S)
    assert is_given_back(fetcher, real_redis)
    assert not fetcher.begun(lease)


def test_a_due_plan_that_a_thread_has_begun_is_not_given_back(
    fetcher: Fetcher, real_redis: redis.Redis
) -> None:
    lease = due(fetcher, real_redis)
    assert fetcher.begun(lease)
    fetcher._give_back(time.monotonic() + UNBEGUN_S)
    assert fetcher._completer._queue.empty()


def test_a_worker_whose_threads_are_occupied_takes_no_more_due_plans(
    fetcher: Fetcher, real_redis: redis.Redis
) -> None:
    for _ in range(fetcher._most_due - fetcher._most_due // 2 + 1):
        due(fetcher, real_redis)
        fetcher._give_back(time.monotonic() + UNBEGUN_S)
        assert is_given_back(fetcher, real_redis)
    fetcher.turn()
    assert not fetcher._unbegun
    assert str(real_redis.hget("{dispatcher}:plan:p1", "lease")).startswith("parked")


def test_a_thread_that_comes_to_a_plan_although_the_pool_refused_it_counts_it_no_second_time(
    fetcher: Fetcher, real_redis: redis.Redis
) -> None:
    refused: list[Lease] = []

    def run(lease: Lease) -> None:
        refused.append(lease)
        raise RuntimeError("can't start new thread")  # `concurrent.futures` has queued it even so

    fetcher._run_lease = run
    real_redis.zadd("{dispatcher}:due", {"p1": 0})
    real_redis.hset("{dispatcher}:plan:p1", "lease", "parked")
    fetcher.turn()
    assert is_given_back(fetcher, real_redis)
    [lease] = refused
    assert not fetcher.begun(lease)
    fetcher.finished(lease)
    assert not fetcher._due_running


def test_a_lease_that_no_task_collects_is_given_back(fetcher: Fetcher, real_redis: redis.Redis) -> None:
    fetcher.name(FIRST)
    fetcher.turn()
    fetcher._give_back(time.monotonic() + UNCOLLECTED_S)
    assert is_given_back(fetcher, real_redis)


def test_a_fetcher_that_stops_gives_back_what_no_thread_has_begun(
    fetcher: Fetcher, real_redis: redis.Redis
) -> None:
    lease = due(fetcher, real_redis)
    fetcher.stop()
    assert is_given_back(fetcher, real_redis)
    assert not fetcher.begun(lease)


def _nothing(*_: Any) -> None:
    """Nothing follows here."""
