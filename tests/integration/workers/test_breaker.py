"""What the circuit breaker promises: the shared one on a fake Redis and on real ones, and the local one."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar, cast

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from support.breakers import (
    DOWN,
    FAILED,
    LEASE_S,
    SUCCEEDED,
    LocalRig,
    Rig,
    SharedRig,
    admitted,
    fails,
    goes,
    rejected,
    rules,
    succeeds,
)
from support.servers import versions_to_test

from dispatcher import (
    CircuitOpenError,
    ExecutorConnectionError,
    ExecutorProtocolError,
    ExecutorRejectedError,
    ExecutorServerError,
    ExecutorTimeoutError,
    FaultFailedError,
    FaultLostError,
)
from workers.breaker.rules import Admission, BreakerState, Outcome, Report
from workers.breaker.shared import SharedBreaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.redis_server import RedisServer, RedisServers
    from support.stopwatch import Stopwatch

    from workers.breaker.rules import Breaker

OPEN, HALF_OPEN, CLOSED, DISABLED = (
    BreakerState.OPEN,
    BreakerState.HALF_OPEN,
    BreakerState.CLOSED,
    BreakerState.DISABLED,
)
RULES = rules()
MANY = 200
"""Ten times as many calls as the default rules count before they act."""
T = TypeVar("T")


@pytest.fixture
def shared(redis_client: redis.Redis) -> SharedRig:
    return SharedRig(redis_client)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "rig" in metafunc.fixturenames:
        metafunc.parametrize("rig", ["fake", *versions_to_test(metafunc.config), "local"], indirect=True)


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    if request.param == "local":
        yield LocalRig()
    elif request.param == "fake":
        yield SharedRig(request.getfixturevalue("fake_redis"))
    else:
        redis_servers: RedisServers = request.getfixturevalue("redis_servers")
        with (
            redis_servers.emptied(request.param) as server,
            redis.Redis.from_url(server.url, decode_responses=True) as client,
        ):
            yield SharedRig(client)


def trip(rig: Rig, times: int = 5) -> Breaker:
    """A breaker that has just opened."""
    breaker = rig.worker(RULES)
    for _ in range(times):
        assert fails(breaker)
    assert rig.state() is OPEN
    return breaker


def let_through(breaker: Breaker, report: Report) -> int:
    """How many calls in a row are let through before one is not."""
    for count in range(MANY):
        if not goes(breaker, report):
            return count
    return MANY


def all_at_once(workers: list[Breaker], act: Callable[[Breaker], T]) -> list[T]:
    """Every worker acts, from a thread of its own, behind one barrier."""
    together = threading.Barrier(len(workers))

    def run(worker: Breaker) -> T:
        together.wait()
        return act(worker)

    with ThreadPoolExecutor(len(workers)) as pool:
        return list(pool.map(run, workers))


def test_exactly_five_calls_reach_a_dead_executor_fresh_and_after_every_recovery(rig: Rig) -> None:
    fleet = [rig.worker(RULES) for _ in range(3)]
    for _ in range(3):
        through = sum(fails(fleet[number % 3]) for number in range(30))
        assert through == 5
        rig.time_passes(RULES.open_ms / 1000, RULES)
        assert succeeds(fleet[0])
        assert rig.state() is CLOSED


def test_a_success_in_between_begins_the_count_again(rig: Rig) -> None:
    breaker = rig.worker(RULES)
    for _ in range(20):
        for _ in range(4):
            assert fails(breaker)
        for _ in range(8):  # or half of all calls would have failed
            assert succeeds(breaker)
    assert rig.state() is CLOSED


@pytest.mark.parametrize("workers", [20, 50])
def test_workers_that_are_all_under_way_add_no_more_than_one_call_each(rig: Rig, workers: int) -> None:
    fleet = [rig.worker(RULES) for _ in range(workers)]
    for _ in range(4):
        assert fails(fleet[0])
    under_way = all_at_once(fleet, lambda breaker: breaker.admit())
    assert all(isinstance(answer, Admission) for answer in under_way)
    for breaker, answer in zip(fleet, under_way, strict=True):
        breaker.record(admitted(answer), FAILED)
    assert sum(let_through(breaker, FAILED) for breaker in fleet) == 0


@pytest.mark.parametrize("workers", [20, 50])
def test_many_workers_at_once_let_through_what_is_under_way_and_four_more(rig: Rig, workers: int) -> None:
    fleet = [rig.worker(RULES) for _ in range(workers)]
    through = all_at_once(fleet, lambda breaker: let_through(breaker, FAILED))
    assert 5 <= sum(through) <= workers + 4


@pytest.mark.parametrize("probes", [1, 3])
def test_no_more_probes_than_allowed_go_out_at_a_time(rig: Rig, probes: int) -> None:
    trip(rig)
    rig.time_passes(RULES.open_ms / 1000, RULES)
    few = rules(circuit_breaker_half_open_probes=probes)
    if isinstance(rig, LocalRig):
        rig.worker(RULES).rules = few
    answers = all_at_once([rig.worker(few) for _ in range(50)], lambda breaker: breaker.admit())
    assert sum(isinstance(answer, Admission) for answer in answers) == probes


def test_fifty_workers_bring_about_one_event_for_each_change(shared: SharedRig) -> None:
    fleet: list[Breaker] = [shared.worker(RULES) for _ in range(50)]
    for _ in range(3):
        all_at_once(fleet, lambda breaker: let_through(breaker, FAILED))
        shared.time_passes(RULES.open_ms / 1000, RULES)
        all_at_once(fleet, lambda breaker: goes(breaker, SUCCEEDED))
    assert [event["state"] for event in shared.events()] == ["open", "half_open", "closed"] * 3
    status = shared.worker(RULES).status()
    assert (status.opens, status.half_opens, status.closes) == (3, 3, 3)


def test_an_event_names_executor_state_and_reason(shared: SharedRig) -> None:
    trip(shared)
    [event] = shared.events()
    status = shared.worker(RULES).status()
    assert (event["executor"], event["state"]) == ("default", "open")
    assert event["reason"] == status.reason == "5 calls in a row failed: 503 down"
    assert status.until_ms is not None
    assert status.since_ms is not None
    assert status.until_ms - status.since_ms == 60_000


def test_a_late_success_closes_nothing(rig: Rig) -> None:
    breaker = rig.worker(RULES)
    late = admitted(breaker.admit())
    trip(rig)
    breaker.record(late, SUCCEEDED)
    assert rig.state() is OPEN
    rig.time_passes(RULES.open_ms / 1000, RULES)
    probe = admitted(breaker.admit())
    breaker.record(late, SUCCEEDED)
    assert rig.state() is HALF_OPEN
    breaker.record(probe, FAILED)
    breaker.record(probe, SUCCEEDED)
    assert rig.state() is OPEN


def test_a_late_failure_opens_nothing(rig: Rig) -> None:
    breaker = rig.worker(RULES)
    late = [admitted(breaker.admit()) for _ in range(10)]
    trip(rig)
    rig.time_passes(RULES.open_ms / 1000, RULES)
    assert succeeds(breaker)
    for admission in late:
        breaker.record(admission, FAILED)
    assert rig.state() is CLOSED


def test_a_probe_that_never_comes_back_frees_its_place_after_its_lease(rig: Rig) -> None:
    breaker = trip(rig)
    rig.time_passes(RULES.open_ms / 1000, RULES)
    lost = admitted(breaker.admit())
    for _ in range(10):  # others who ask do not prolong the lease
        assert rejected(breaker.admit()).retry_after_s == 1.0
        rig.time_passes((LEASE_S - 10) / 10, RULES)
    rejected(breaker.admit())
    rig.time_passes(10, RULES)
    probe = admitted(breaker.admit())
    breaker.record(lost, SUCCEEDED)  # too late: it has lost its place
    assert rig.state() is HALF_OPEN
    breaker.record(probe, SUCCEEDED)
    assert rig.state() is CLOSED


def test_a_probe_that_says_nothing_gives_its_place_back_at_once(rig: Rig) -> None:
    breaker = trip(rig)
    rig.time_passes(RULES.open_ms / 1000, RULES)
    breaker.record(admitted(breaker.admit()), Report(Outcome.NONE))
    assert rig.state() is HALF_OPEN
    assert succeeds(breaker)


def test_several_probes_may_have_to_succeed(rig: Rig) -> None:
    given = rules(circuit_breaker_success_threshold=3)
    breaker = rig.worker(given)
    assert let_through(breaker, FAILED) == 5
    rig.time_passes(60, given)
    for _ in range(2):
        assert succeeds(breaker)
        assert rig.state() is HALF_OPEN
    assert succeeds(breaker)
    assert rig.state() is CLOSED


def test_it_stays_open_for_longer_each_time_a_probe_fails(rig: Rig, stopwatch: Stopwatch) -> None:
    breaker = trip(rig)
    for lasts_s in (60, 120, 240, 480, 600):
        assert rejected(breaker.admit()).retry_after_s == stopwatch.left_of(lasts_s)
        rig.time_passes(lasts_s, RULES)
        assert fails(breaker)
    assert rejected(breaker.admit()).retry_after_s == stopwatch.left_of(600)
    rig.time_passes(600, RULES)
    assert succeeds(breaker)
    trip(rig)
    assert rejected(breaker.admit()).retry_after_s == stopwatch.left_of(60)


@pytest.mark.parametrize(("draw", "lasts_s"), [(0.0, 60), (0.5, 63), (1.0, 66)])
def test_jitter_keeps_it_open_for_a_little_longer(
    rig: SharedRig | LocalRig, draw: float, lasts_s: float, stopwatch: Stopwatch
) -> None:
    breaker = rig.worker(rules(circuit_breaker_jitter=0.1), draw)
    assert let_through(breaker, FAILED) == 5
    assert rejected(breaker.admit()).retry_after_s == stopwatch.left_of(lasts_s)


@pytest.mark.parametrize(("asked_s", "lasts_s"), [(1.0, 60), (90.0, 90), (5000.0, 600)])
def test_it_stays_open_as_long_as_the_executor_asks_for(
    rig: Rig, asked_s: float, lasts_s: float, stopwatch: Stopwatch
) -> None:
    breaker = rig.worker(RULES)
    asking = Report.of(ExecutorServerError("busy", 429, "", asked_s))
    assert let_through(breaker, asking) == 5
    assert rejected(breaker.admit()).retry_after_s == stopwatch.left_of(lasts_s)


def test_too_many_failures_in_the_window_open_it_though_never_in_a_row(rig: Rig) -> None:
    breaker = rig.worker(RULES)
    for _ in range(10):
        assert rig.state() is CLOSED
        assert succeeds(breaker)
        assert fails(breaker)
    assert rig.state() is OPEN


def test_failures_that_have_left_the_window_count_no_more(rig: Rig) -> None:
    breaker = rig.worker(RULES)
    for _ in range(9):
        assert fails(breaker)
        assert succeeds(breaker)
    rig.time_passes(66, RULES)
    for _ in range(9):
        assert fails(breaker)
        assert succeeds(breaker)
    assert rig.state() is CLOSED
    assert fails(breaker)
    assert fails(breaker)
    assert rig.state() is OPEN


def test_slow_calls_open_it_where_that_is_configured(rig: Rig) -> None:
    given = rules(circuit_breaker_slow_call_sec=5.0)
    breaker = rig.worker(given)
    slow, quick = Report.of(None, 5.0), Report.of(None, 4.9)
    for _ in range(4):
        assert goes(breaker, quick)
    for _ in range(15):
        assert goes(breaker, slow)
    assert rig.state() is CLOSED
    assert goes(breaker, slow)
    assert rig.state() is OPEN
    rig.time_passes(60, given)
    assert goes(breaker, slow)  # a slow probe does not count as recovery
    assert rig.state() is OPEN


def test_slow_calls_do_not_count_if_that_is_not_configured(rig: Rig) -> None:
    breaker = rig.worker(RULES)
    assert let_through(breaker, Report.of(None, 3600.0)) == MANY


@pytest.mark.parametrize(
    ("error", "counts"),
    [
        (ExecutorTimeoutError("no answer"), True),
        (ExecutorConnectionError("refused", "refused"), True),
        (ExecutorConnectionError("no such host", "dns"), True),
        (ExecutorServerError("429", 429, ""), True),
        (ExecutorServerError("500", 500, ""), True),
        (ExecutorProtocolError("no JSON"), True),
        (ExecutorRejectedError("400", 400, ""), False),
        (ExecutorRejectedError("401", 401, ""), False),
        (FaultFailedError("no data plane"), False),
        (FaultLostError("unknown"), False),
        (CircuitOpenError("open", 1.0), False),
        (KeyboardInterrupt(), False),
        (ZeroDivisionError(), False),
    ],
)
def test_what_counts_against_an_executor(error: BaseException, *, counts: bool) -> None:
    breaker = LocalRig().worker(RULES)
    assert let_through(breaker, Report.of(error)) == (5 if counts else MANY)


def test_a_person_opens_it_until_a_person_closes_it(rig: Rig) -> None:
    breaker = rig.worker(RULES)
    assert breaker.open("maintenance")
    assert not breaker.open("maintenance")
    rig.time_passes(86_400, RULES)
    rejection = rejected(breaker.admit())
    assert "maintenance" in rejection.message("default")
    assert breaker.close()
    assert not breaker.close()
    assert succeeds(breaker)


def test_a_person_who_opened_it_is_named_and_gives_no_time(rig: Rig) -> None:
    breaker = rig.worker(RULES)
    breaker.open("maintenance until noon")
    with (
        pytest.raises(CircuitOpenError, match=r"opened by hand \(maintenance until noon\)") as caught,
        breaker,
    ):
        pytest.fail("it lets calls through")
    assert caught.value.retry_after_s is None
    assert "in 1 s" not in caught.value.message
    breaker.close()
    for _ in range(RULES.failure_threshold):
        fails(breaker)
    with pytest.raises(CircuitOpenError) as caught, breaker:
        pytest.fail("it lets calls through")
    assert "by hand" not in caught.value.message
    assert caught.value.retry_after_s is not None


def test_a_person_makes_an_open_breaker_stay_open(rig: Rig) -> None:
    breaker = trip(rig)
    assert breaker.open("until I say so")
    rig.time_passes(86_400, RULES)
    rejected(breaker.admit())


def test_a_person_disables_it_and_nothing_counts(rig: Rig) -> None:
    breaker = trip(rig)
    assert breaker.disable("we know better")
    assert let_through(breaker, FAILED) == MANY
    assert rig.state() is DISABLED
    assert breaker.close()
    assert let_through(breaker, FAILED) == 5


def test_a_reset_forgets_what_was_counted(rig: Rig, stopwatch: Stopwatch) -> None:
    breaker = rig.worker(RULES)
    for _ in range(4):
        fails(breaker)
    late = admitted(breaker.admit())
    breaker.reset()
    breaker.record(late, FAILED)
    assert let_through(breaker, FAILED) == 5
    breaker.reset()
    assert rig.state() is CLOSED
    assert let_through(breaker, FAILED) == 5
    assert rejected(breaker.admit()).retry_after_s == stopwatch.left_of(60)


def test_it_counts_how_often_its_state_has_changed_until_a_reset(rig: Rig) -> None:
    assert not any(int(number) for number in rig.worker(RULES).changes().values())
    breaker = trip(rig)
    for through in (fails, succeeds):
        rig.time_passes(2 * RULES.open_ms / 1000, RULES)
        assert through(breaker)
    changes = {name: int(number) for name, number in breaker.changes().items()}
    assert changes == {"opens": 2, "half_opens": 2, "closes": 1}
    breaker.reset()
    assert not any(int(number) for number in breaker.changes().values())


def test_a_breaker_that_is_switched_off_lets_all_calls_through(rig: Rig) -> None:
    breaker = rig.worker(rules(circuit_breaker_enabled=False))
    assert let_through(breaker, FAILED) == MANY
    assert rig.state() is CLOSED


def test_a_breaker_that_is_switched_off_counts_no_retry(rig: Rig) -> None:
    breaker = rig.worker(rules(circuit_breaker_enabled=False, retry_budget_reserve=MANY))
    for _ in range(MANY):
        breaker.record(admitted(breaker.admit(retry=True)), FAILED)
    assert rig.state() is CLOSED
    assert not any(int(number) for number in breaker.changes().values())


def test_the_specifications_calls_drive_it(rig: Rig) -> None:
    breaker = rig.worker(RULES)
    for _ in range(5):
        assert breaker.can_attempt()
        breaker.record_failure()
    assert not breaker.can_attempt()
    rig.time_passes(60, RULES)
    assert breaker.can_attempt()
    breaker.record_success()
    assert rig.state() is CLOSED
    for _ in range(5):
        breaker.record_failure()  # of calls that were not admitted
    assert not breaker.can_attempt()
    breaker.record_success()  # of no call that it let through
    assert rig.state() is OPEN
    breaker.reset()
    assert breaker.can_attempt()


def test_a_block_is_a_guarded_call(rig: Rig, stopwatch: Stopwatch) -> None:
    breaker = rig.worker(RULES)
    with breaker, breaker:
        pass
    for _ in range(5):
        with pytest.raises(ExecutorServerError), breaker:
            raise DOWN
    with pytest.raises(CircuitOpenError, match=r"try again in \d+ s") as caught, breaker:
        pytest.fail("no call goes through an open breaker")
    assert caught.value.retry_after_s == stopwatch.left_of(60)
    rig.time_passes(60, RULES)
    with pytest.raises(ZeroDivisionError), breaker:
        raise ZeroDivisionError
    assert rig.state() is HALF_OPEN
    with breaker:
        pass
    assert rig.state() is CLOSED


def test_waiting_callers_are_given_moments_apart(rig: Rig, stopwatch: Stopwatch) -> None:
    breaker = trip(rig)
    for number in range(41):
        wait_s = rejected(breaker.admit(in_line=True)).retry_after_s
        assert wait_s == stopwatch.left_of(60 + number / 50)  # recovery_per_sec is 50
    assert rejected(breaker.admit()).retry_after_s == stopwatch.left_of(60)


def test_retries_are_a_share_of_the_calls_that_succeed(rig: Rig) -> None:
    given = rules(
        circuit_breaker_enabled=False,
        retry_budget_reserve=10,
        retry_budget_ratio=0.1,
        retry_budget_per_sec=0.0,
    )
    fleet = [rig.worker(given) for _ in range(3)]
    granted = [isinstance(fleet[n % 3].admit(retry=True), Admission) for n in range(30)]
    assert sum(granted) == 10
    refusal = rejected(fleet[0].admit(retry=True))
    assert refusal.budget_spent
    assert "used up its retries" in refusal.message("default")
    for _ in range(30):
        assert succeeds(fleet[0])
    granted = [isinstance(fleet[n % 3].admit(retry=True), Admission) for n in range(30)]
    assert sum(granted) in {2, 3}  # thirty tenths, as floating point adds them


def test_the_reserve_of_retries_fills_up_by_itself(rig: Rig, stopwatch: Stopwatch) -> None:
    given = rules(retry_budget_reserve=4, retry_budget_per_sec=0.1)
    breaker = rig.worker(given)
    for _ in range(4):
        admitted(breaker.admit(retry=True))
    assert rejected(breaker.admit(retry=True)).retry_after_s == stopwatch.left_of(10)
    rig.time_passes(10, given)
    admitted(breaker.admit(retry=True))
    rejected(breaker.admit(retry=True))
    rig.time_passes(3600, given)
    for _ in range(4):
        admitted(breaker.admit(retry=True))
    rejected(breaker.admit(retry=True))


def test_retries_without_a_budget_are_as_good_as_first_attempts(rig: Rig) -> None:
    breaker = rig.worker(rules(retry_budget_enabled=False))
    for _ in range(MANY):
        admitted(breaker.admit(retry=True))


def test_lost_scripts_are_loaded_again(shared: SharedRig) -> None:
    breaker = trip(shared)
    shared.client.script_flush()
    rejected(breaker.admit())
    shared.time_passes(60, RULES)
    probe = admitted(breaker.admit())
    shared.client.script_flush()
    breaker.record(probe, SUCCEEDED)
    assert shared.state() is CLOSED


def test_a_wiped_redis_means_a_fresh_breaker(shared: SharedRig) -> None:
    breaker = shared.worker(RULES)
    trip(shared)
    shared.time_passes(60, RULES)
    probe = admitted(breaker.admit())
    shared.client.flushall()  # the fixture's own
    breaker.record(probe, FAILED)
    assert shared.state() is CLOSED
    assert let_through(breaker, FAILED) == 5


@pytest.mark.every_server
@pytest.mark.parametrize("hours", [1, -1])
def test_a_worker_whose_clock_is_an_hour_off_changes_nothing(
    hours: int, real_redis: redis.Redis, monkeypatch: pytest.MonkeyPatch, stopwatch: Stopwatch
) -> None:
    rig = SharedRig(real_redis)
    now, now_ns = time.time, time.time_ns
    with monkeypatch.context() as skewed:
        skewed.setattr(time, "time", lambda: now() + hours * 3600)
        skewed.setattr(time, "time_ns", lambda: now_ns() + hours * 3600 * 10**9)
        breaker = rig.worker(RULES)
        assert let_through(breaker, FAILED) == 5
        assert rejected(breaker.admit()).retry_after_s == stopwatch.left_of(60)
    breaker = rig.worker(RULES)
    assert rejected(breaker.admit()).retry_after_s == stopwatch.left_of(60)
    rig.time_passes(50, RULES)
    rejected(breaker.admit())
    rig.time_passes(10, RULES)
    assert succeeds(breaker)


def test_a_probe_whose_process_is_killed_frees_its_place_after_its_lease(
    redis_url: str, real_redis: redis.Redis
) -> None:
    rig = SharedRig(real_redis)
    breaker = trip(rig)
    rig.time_passes(60, RULES)
    probing = f"""
import redis, signal
from support.breakers import SharedRig, rules
rig = SharedRig(redis.Redis.from_url({redis_url!r}, decode_responses=True))
print(type(rig.worker(rules()).admit()).__name__, flush=True)
signal.pause()
"""
    with subprocess.Popen(
        [sys.executable, "-c", probing], cwd="tests", stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "Admission\n"
        rejected(breaker.admit())
        process.kill()
    rig.time_passes(LEASE_S - 10, RULES)
    rejected(breaker.admit())
    rig.time_passes(10, RULES)
    assert succeeds(breaker)


@pytest.mark.every_server
def test_without_redis_each_process_has_its_own_breaker_and_shares_again_once_it_is_back(
    own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    client = redis.Redis.from_url(own_redis.url, decode_responses=True, retry=Retry(NoBackoff(), 0))
    here, there = (SharedBreaker(client, "dispatcher", "default", RULES) for _ in range(2))
    under_way = admitted(here.admit())
    own_redis.kill()
    here.record(under_way, FAILED)
    assert let_through(here, FAILED) == 4
    assert let_through(there, FAILED) == 5
    assert here.peek() is None
    own_redis.start()
    a_second_passes(here, there)
    assert sum(let_through(breaker, FAILED) for breaker in (here, there, here)) == 5
    assert caplog.text.count("falls back to a local breaker") == 2
    assert caplog.text.count("shares the breaker again") == 2
    client.close()


@pytest.mark.every_server
def test_an_outcome_of_a_call_that_was_admitted_without_redis_stays_in_the_process(
    own_redis: RedisServer,
) -> None:
    client = redis.Redis.from_url(own_redis.url, decode_responses=True, retry=Retry(NoBackoff(), 0))
    breaker = SharedBreaker(client, "dispatcher", "default", RULES)
    own_redis.kill()
    admissions = [admitted(breaker.admit()) for _ in range(10)]
    own_redis.start()
    a_second_passes(breaker)
    for admission in admissions:
        breaker.record(admission, FAILED)
    assert breaker.status().failures == 0
    client.close()


def a_second_passes(*breakers: SharedBreaker) -> None:
    """The second for which Redis is not asked again."""
    for breaker in breakers:
        assert breaker._away_until > 0
        breaker._away_until = 1e-9


def reported_together(breaker: SharedBreaker, reports: list[Report]) -> None:
    """Calls that were admitted one after the other, and are reported in one call to Redis."""
    unasked = breaker.admitted()
    assert unasked is not None
    both = [(unasked, report) for report in reports]
    breaker._scripts.run([breaker.recording(both, {"apply:answered": 1})])


def in_turn(breaker: SharedBreaker, reports: list[Report]) -> None:
    for report in reports:
        breaker.record(admitted(breaker.admit()), report)


@pytest.mark.parametrize(
    "reports",
    [
        [SUCCEEDED] * 7,
        [FAILED] * 4,
        [FAILED] * 4 + [SUCCEEDED] * 2 + [FAILED] * 4,
        [SUCCEEDED, FAILED] * 5 + [Report(Outcome.NONE)] * 3,
        [Report(Outcome.SUCCESS, took_s=5.0)] * 3 + [SUCCEEDED] * 3,
    ],
)
def test_reports_that_go_together_count_like_reports_that_go_one_by_one(
    reports: list[Report], redis_client: redis.Redis
) -> None:
    stored = []
    for send in (reported_together, in_turn):
        redis_client.flushall()
        breaker = SharedRig(redis_client).worker(rules(circuit_breaker_slow_call_sec=2.0))
        assert isinstance(breaker, SharedBreaker)
        send(breaker, reports)
        fields = cast("dict[str, str]", redis_client.hgetall("{dispatcher}:breaker:default"))
        windows = [value.split(" ")[1:] for name, value in fields.items() if name.startswith("w")]
        calls = [sum(map(int, column)) for column in zip(*windows, strict=True)]
        stored.append((fields.get("failures"), calls))
    assert stored[0] == stored[1]


def test_the_fifth_failure_of_one_batch_opens_the_breaker_and_the_rest_counts_no_more(
    redis_client: redis.Redis,
) -> None:
    breaker = SharedRig(redis_client).worker(RULES)
    assert isinstance(breaker, SharedBreaker)
    reported_together(breaker, [FAILED] * 8)
    status = breaker.status()
    assert (status.state, status.opens) == (OPEN, 1)
    assert breaker.admitted() is None  # the reply said so
    assert redis_client.hget("{dispatcher}:metrics:default", "apply:answered") == "1"


def test_a_newer_word_of_redis_on_the_breaker_is_kept(redis_client: redis.Redis) -> None:
    breaker = SharedRig(redis_client).worker(RULES)
    assert isinstance(breaker, SharedBreaker)
    before = time.monotonic()
    reported_together(breaker, [FAILED] * 5)
    breaker.note_at(before, "", "0")  # a lease that was granted before
    assert breaker.admitted() is None
    breaker.note_at(time.monotonic(), "", "7")
    found = breaker.admitted()
    assert found is not None
    assert found.epoch == "7"
