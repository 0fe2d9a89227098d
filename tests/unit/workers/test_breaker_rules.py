"""What shared and local breakers have in common, and what the shared one does with Redis and without it."""

from __future__ import annotations

import dataclasses
import logging
import time
from typing import TYPE_CHECKING, Any, cast

import fakeredis
import pytest
import redis
from support.breakers import (
    DOWN,
    FAILED,
    KEY,
    SUCCEEDED,
    LocalRig,
    SharedRig,
    admitted,
    fails,
    goes,
    rejected,
    rules,
)

from dispatcher import (
    CircuitOpenError,
    ExecutorClientConfig,
    ExecutorRejectedError,
    ExecutorServerError,
    LedgerUnavailableError,
)
from dispatcher.errors import RecordUnreadableError
from workers.breaker.local import LocalBreaker
from workers.breaker.rules import (
    MAX_ASKED,
    UNASKED,
    Admission,
    BreakerRules,
    BreakerState,
    Outcome,
    Rejection,
    Report,
)
from workers.breaker.shared import AWAY_S, BreakerStatus, SharedBreaker

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RULES = rules()
COUNTS_ONLY_ROWS = rules(failure_threshold=1000)
"""Failures in a row open nothing, so that the window does."""

METRICS = "{dispatcher}:metrics:default"


@pytest.fixture(params=["fake", "local"])
def rig(request: pytest.FixtureRequest) -> SharedRig | LocalRig:
    return SharedRig(request.getfixturevalue("fake_redis")) if request.param == "fake" else LocalRig()


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def shared(server: fakeredis.FakeServer) -> Iterator[SharedBreaker]:
    with fakeredis.FakeRedis(decode_responses=True, server=server) as client:
        yield SharedRig(client).worker(RULES)


def test_each_setting_becomes_a_rule_in_the_rules_unit() -> None:
    config = ExecutorClientConfig.model_validate(
        {
            "circuit_breaker_enabled": False,
            "circuit_breaker_failure_threshold": 3,
            "circuit_breaker_failure_rate": 0.4,
            "circuit_breaker_slow_call_sec": 2.5,
            "circuit_breaker_slow_call_rate": 0.6,
            "circuit_breaker_min_calls": 7,
            "circuit_breaker_window_sec": 20,
            "circuit_breaker_success_threshold": 2,
            "circuit_breaker_half_open_probes": 4,
            "circuit_breaker_timeout_sec": 30,
            "circuit_breaker_max_timeout_sec": 90,
            "circuit_breaker_jitter": 0.3,
            "circuit_breaker_recovery_per_sec": 8,
            "retry_budget_enabled": False,
            "retry_budget_ratio": 0.2,
            "retry_budget_reserve": 11,
            "retry_budget_per_sec": 5,
        }
    )
    assert BreakerRules.of(config, lease_s=1.5) == BreakerRules(
        enabled=False,
        failure_threshold=3,
        failure_rate=0.4,
        slow_call_s=2.5,
        slow_rate=0.6,
        min_calls=7,
        window_ms=20_000,
        success_threshold=2,
        half_open_probes=4,
        lease_ms=1_500,
        open_ms=30_000,
        max_open_ms=90_000,
        jitter=0.3,
        slot_ms=125.0,
        budget_enabled=False,
        ratio=0.2,
        reserve=11,
        per_ms=0.005,
    )


@pytest.mark.parametrize(
    ("error", "report"),
    [
        (None, Report(Outcome.SUCCESS, 3.0)),
        (ExecutorRejectedError("no", 400, ""), Report(Outcome.SUCCESS, 3.0)),
        (DOWN, Report(Outcome.FAILURE, 3.0, 0.0, "503 down")),
        (ExecutorServerError("busy", 429, "", 9.0), Report(Outcome.FAILURE, 3.0, 9.0, "busy")),
        (CircuitOpenError("open", 1.0), Report(Outcome.NONE)),
        (LedgerUnavailableError("gone"), Report(Outcome.NONE)),
        (KeyboardInterrupt(), Report(Outcome.NONE, 3.0)),
    ],
    ids=[
        "none",
        "a rejection",
        "a failure",
        "a failure with a time",
        "an open breaker",
        "no Redis",
        "Ctrl-C",
    ],
)
def test_a_report_says_what_the_end_of_a_call_shows(error: BaseException | None, report: Report) -> None:
    assert Report.of(error, 3.0) == report


def test_a_report_without_a_time_took_none() -> None:
    assert Report.of(None) == Report(Outcome.SUCCESS, 0.0)


def test_of_two_reports_the_failure_stays_and_the_longer_time() -> None:
    good, bad = Report(Outcome.SUCCESS, 5.0), Report(Outcome.FAILURE, 2.0, 1.0, "down")
    worse = Report(Outcome.FAILURE, 5.0, 1.0, "down")
    assert good.and_then(bad) == bad.and_then(good) == worse
    later = Report(Outcome.SUCCESS, 1.0)
    assert good.and_then(later) == Report(Outcome.SUCCESS, 5.0)
    assert later.and_then(good) is good


@pytest.mark.parametrize(
    ("rejection", "message"),
    [
        (Rejection(1.0, "", budget_spent=True), "the fleet has used up its retries at executor x"),
        (
            Rejection(1.0, "moving", by_hand=True),
            "the circuit breaker of executor x was opened by hand (moving)",
        ),
        (Rejection(1.0, "", by_hand=True), "the circuit breaker of executor x was opened by hand"),
        (Rejection(1.0, "down"), "the circuit breaker of executor x lets no call through (down)"),
        (Rejection(1.0, ""), "the circuit breaker of executor x lets no call through"),
    ],
    ids=["the budget", "a person with a reason", "a person", "the breaker with a reason", "the breaker"],
)
def test_a_rejection_names_who_refuses_and_why(rejection: Rejection, message: str) -> None:
    assert rejection.message("x") == message


def test_an_error_says_when_to_try_again(rig: SharedRig | LocalRig) -> None:
    breaker = rig.worker(RULES)
    timed = breaker.error(Rejection(1.2, "down"))
    assert timed.message == (
        "the circuit breaker of executor default lets no call through (down): try again in 2 s"
    )
    assert timed.retry_after_s == 1.2
    by_hand = breaker.error(Rejection(1.2, "", by_hand=True))
    assert by_hand.message.endswith("by hand: try again once it is closed")
    assert by_hand.retry_after_s is None


def test_what_people_write_cannot_break_a_terminal(rig: SharedRig | LocalRig) -> None:
    breaker = rig.worker(RULES)
    assert breaker.open("a\x1b[2Jb")
    assert "\x1b" not in rejected(breaker.admit()).reason
    assert breaker.disable("x\x1b")
    assert breaker.open("again")
    breaker.reset()
    for _ in range(RULES.failure_threshold):
        breaker.record_failure("c\x1b[2Jd")
    assert "\x1b" not in rejected(breaker.admit()).reason


def test_reports_by_hand_have_reasons_of_their_own(rig: SharedRig | LocalRig) -> None:
    breaker = rig.worker(RULES)
    for _ in range(RULES.failure_threshold):
        assert breaker.can_attempt()
        breaker.record_failure()
    assert rejected(breaker.admit()).reason == "5 calls in a row failed: reported as failed"


def test_reports_of_calls_that_were_not_asked_for_count_too(rig: SharedRig | LocalRig) -> None:
    breaker = rig.worker(RULES)
    for _ in range(RULES.failure_threshold):
        breaker.record_failure("down")
    assert rejected(breaker.admit()).reason == "5 calls in a row failed: down"


def test_guarded_calls_are_timed_from_their_own_beginning(rig: SharedRig | LocalRig) -> None:
    breaker = rig.worker(rules(slow_call_s=60.0, slow_rate=0.1, min_calls=1))
    with breaker:
        pass
    assert breaker.can_attempt()
    breaker.record_success()
    assert rig.state() is BreakerState.CLOSED


def test_guarded_calls_that_take_too_long_are_slow(
    rig: SharedRig | LocalRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker = rig.worker(rules(slow_call_s=60.0, min_calls=2))
    began_s = time.monotonic()
    with monkeypatch.context() as later, breaker:
        assert breaker.can_attempt()
        later.setattr(time, "monotonic", lambda: began_s + 61.0)
        breaker.record_success()
    assert rejected(breaker.admit()).reason == "2 of 2 calls were slow"


def test_only_a_success_can_be_slow() -> None:
    given = rules(slow_call_s=2.0)
    slow = [Report(outcome, 2.0) for outcome in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.NONE)]
    assert [given.slow(report) for report in slow] == [True, False, False]
    assert not given.slow(Report(Outcome.SUCCESS, 1.9))
    assert not RULES.slow(Report(Outcome.SUCCESS, 1e9))


def test_calls_that_are_never_reported_drop_out_the_oldest_first() -> None:
    breaker = LocalRig().worker(RULES)
    for _ in range(MAX_ASKED + 5):
        assert breaker.can_attempt()
    assert len(breaker._asked()) == MAX_ASKED
    for _ in range(MAX_ASKED):
        breaker.record_success()
    breaker.open("by hand")
    breaker.record_success()  # no call is left that it could belong to
    breaker.close()
    assert goes(breaker, SUCCEEDED)


def test_probes_that_are_under_way_together_keep_a_place_each(rig: SharedRig | LocalRig) -> None:
    given = rules(circuit_breaker_half_open_probes=2, circuit_breaker_success_threshold=2)
    breaker = rig.worker(given)
    while fails(breaker):
        pass
    rig.time_passes(60, given)
    first, second = admitted(breaker.admit()), admitted(breaker.admit())
    assert rejected(breaker.admit()).retry_after_s == 1.0
    assert first.id != second.id
    breaker.record(first, SUCCEEDED)
    breaker.record(first, SUCCEEDED)  # it has left its place
    assert rig.state() is BreakerState.HALF_OPEN
    breaker.record(second, SUCCEEDED)
    assert rig.state() is BreakerState.CLOSED


def test_why_it_opened_is_said(rig: SharedRig | LocalRig) -> None:
    breaker = rig.worker(COUNTS_ONLY_ROWS)
    for _ in range(COUNTS_ONLY_ROWS.min_calls):
        assert fails(breaker)
    assert rejected(breaker.admit()).reason.startswith("20 of 20 calls failed")
    rig.time_passes(60, COUNTS_ONLY_ROWS)
    assert fails(breaker)
    rejection = rejected(breaker.admit())
    assert (rejection.reason, rejection.by_hand, rejection.budget_spent) == (
        "a probe failed: 503 down",
        False,
        False,
    )


def test_a_rate_that_is_just_reached_opens_it_and_one_below_does_not(rig: SharedRig | LocalRig) -> None:
    given = rules(failure_threshold=1000, failure_rate=0.5, min_calls=4)
    breaker = rig.worker(given)
    for report in (SUCCEEDED, SUCCEEDED, SUCCEEDED, FAILED, FAILED):
        assert goes(breaker, report)
    assert rig.state() is BreakerState.CLOSED
    assert fails(breaker)
    assert rig.state() is BreakerState.OPEN


def test_a_switch_says_whether_it_changed_anything(rig: SharedRig | LocalRig) -> None:
    breaker = rig.worker(RULES)
    assert not breaker.close()
    assert breaker.disable("x")
    assert not breaker.disable("x")
    assert breaker.close()
    while fails(breaker):
        pass
    assert breaker.open("so that it stays")
    assert not breaker.open("so that it stays")
    assert breaker.peek() is None


def test_a_budget_into_which_nothing_flows_names_no_time(rig: SharedRig | LocalRig) -> None:
    breaker = rig.worker(rules(retry_budget_reserve=1, retry_budget_per_sec=0.0))
    admitted(breaker.admit(retry=True))
    refusal = rejected(breaker.admit(retry=True))
    assert refusal.budget_spent
    assert refusal.reason == ""
    assert refusal.retry_after_s < 0
    assert refusal.known_after_s == 0.0


def test_a_local_budget_names_the_time_until_the_next_retry() -> None:
    breaker = LocalRig().worker(rules(retry_budget_reserve=1, per_ms=0.01))
    admitted(breaker.admit(retry=True))
    assert rejected(breaker.admit(retry=True)).retry_after_s == 0.1


def test_a_person_who_closes_it_ends_the_growth_of_its_times(rig: SharedRig | LocalRig) -> None:
    breaker = rig.worker(RULES)
    for _ in range(2):
        while fails(breaker):
            pass
        assert 59 < rejected(breaker.admit()).retry_after_s <= 60
        breaker.close()


def test_callers_wait_in_line_for_the_end_of_a_probe_too(rig: SharedRig | LocalRig) -> None:
    given = rules(slot_ms=100_000)
    breaker = rig.worker(given)
    while fails(breaker):
        pass
    rig.time_passes(60, given)
    admitted(breaker.admit())
    waits_s = [rejected(breaker.admit(in_line=True)).retry_after_s for _ in range(2)]
    assert waits_s[0] == 1.0
    assert 100 < waits_s[1] <= 101
    assert rejected(breaker.admit()).reason == "probing"


def test_a_breaker_that_is_switched_off_lets_calls_through_even_if_a_person_opened_it(
    rig: SharedRig | LocalRig,
) -> None:
    breaker = rig.worker(rules(circuit_breaker_enabled=False))
    breaker.open("x")
    assert goes(breaker, SUCCEEDED)


def test_a_success_gives_a_share_of_a_retry_back(rig: SharedRig | LocalRig) -> None:
    breaker = rig.worker(rules(retry_budget_reserve=1, retry_budget_per_sec=0.0, ratio=1.0))
    for _ in range(3):
        retry = admitted(breaker.admit(retry=True))
        assert rejected(breaker.admit(retry=True)).budget_spent
        breaker.record(retry, SUCCEEDED)


def test_outcomes_from_before_a_person_intervened_do_not_count_though_it_is_closed_again(
    rig: SharedRig | LocalRig,
) -> None:
    breaker = rig.worker(rules(failure_threshold=1))
    for _ in range(2):
        before = admitted(breaker.admit())
        breaker.open("x")
        breaker.close()
        breaker.record(before, FAILED)
        assert rig.state() is BreakerState.CLOSED


def test_slow_calls_open_it_only_if_they_are_enough_of_all(rig: SharedRig | LocalRig) -> None:
    breaker = rig.worker(rules(slow_call_s=1.0, slow_rate=0.5, min_calls=4))
    slow = Report(Outcome.SUCCESS, 1.0)
    for report in (SUCCEEDED, SUCCEEDED, SUCCEEDED, slow, slow):
        assert goes(breaker, report)
    assert rig.state() is BreakerState.CLOSED
    assert goes(breaker, slow)
    assert rejected(breaker.admit()).reason == "3 of 6 calls were slow"


def test_a_reset_gives_the_retries_back(rig: SharedRig | LocalRig) -> None:
    breaker = rig.worker(rules(retry_budget_reserve=1, retry_budget_per_sec=0.0))
    admitted(breaker.admit(retry=True))
    breaker.reset()
    admitted(breaker.admit(retry=True))


def test_places_in_line_are_forgotten_with_a_switch(rig: SharedRig | LocalRig) -> None:
    breaker = rig.worker(rules(slot_ms=100_000))
    breaker.open("x")
    waits_s = [rejected(breaker.admit(in_line=True)).retry_after_s for _ in range(3)]
    assert waits_s[0] == 1.0
    assert 100 < waits_s[1] <= 101
    assert 200 < waits_s[2] <= 201
    breaker.close()
    breaker.open("x")
    assert rejected(breaker.admit(in_line=True)).retry_after_s == 1.0
    breaker.reset()
    breaker.open("x")
    assert rejected(breaker.admit(in_line=True)).retry_after_s == 1.0


def test_a_local_breaker_needs_no_clock_and_no_chance_of_ours() -> None:
    breaker = LocalBreaker("x", rules(circuit_breaker_jitter=1.0, retry_budget_reserve=1, per_ms=0.01))
    admitted(breaker.admit(retry=True))
    assert rejected(breaker.admit(retry=True)).retry_after_s == pytest.approx(0.1, abs=0.05)
    while fails(breaker):
        pass
    assert 59.0 < rejected(breaker.admit()).retry_after_s <= 120.0


def test_a_local_breaker_forgets_slices_that_have_left_the_window() -> None:
    rig = LocalRig()
    given = rules(failure_threshold=1000, min_calls=2)
    breaker = rig.worker(given)
    assert fails(breaker)
    rig.time_passes(given.window_ms / 1000, given)
    assert fails(breaker)
    assert rig.state() is BreakerState.CLOSED
    rig.time_passes(given.window_ms / 1000 * 0.9, given)
    assert fails(breaker)
    assert rig.state() is BreakerState.OPEN


def test_local_admissions_are_marked(shared: SharedBreaker, server: fakeredis.FakeServer) -> None:
    assert not admitted(shared.admit()).local
    server.connected = False
    assert admitted(shared.admit()).local


def test_changes_are_logged_once_with_their_reason(
    shared: SharedBreaker, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    while fails(shared):
        pass
    SharedRig(shared._client).time_passes(60, RULES)
    assert goes(shared, SUCCEEDED)
    shared.open("a test")
    shared.open("a test")
    shared.reset()
    shared.open("again")
    shared.close()
    assert [record.getMessage() for record in caplog.records] == [
        "executor default: circuit breaker open: 5 calls in a row failed: 503 down",
        "executor default: circuit breaker half_open: its time is over, a probe goes out",
        "executor default: circuit breaker closed: the probes succeeded",
        "executor default: circuit breaker open: a test",
        "executor default: circuit breaker closed: reset by hand",
        "executor default: circuit breaker open: again",
        "executor default: circuit breaker closed: closed by hand",
    ]


def test_without_redis_a_local_breaker_decides_and_forgets_once_redis_is_back(
    shared: SharedBreaker, server: fakeredis.FakeServer, caplog: pytest.LogCaptureFixture
) -> None:
    under_way = admitted(shared.admit())
    server.connected = False
    with pytest.raises(redis.ConnectionError) as gone:
        shared._client.ping()
    shared.record(under_way, FAILED)
    assert [fails(shared) for _ in range(5)] == [True] * 4 + [False]
    assert rejected(shared.admit()).retry_after_s > 59
    waits_s = [rejected(shared.admit(in_line=True)).retry_after_s for _ in range(2)]
    assert waits_s[1] - waits_s[0] > 0.5 * RULES.slot_ms / 1000
    assert shared.peek() is None
    assert shared.changes() == {"opens": 1}
    server.connected = True
    assert isinstance(shared.admit(), Rejection)  # Redis is not asked again for a second
    shared._away_until -= AWAY_S
    assert not admitted(shared.admit()).local
    assert shared.changes() == {}
    assert shared._local.state is BreakerState.CLOSED
    assert [record.getMessage() for record in caplog.records] == [
        f"executor default: falls back to a local breaker: {gone.value}",
        "executor default: this worker shares the breaker again",
    ]


def test_redis_is_asked_again_once_the_second_is_over(
    shared: SharedBreaker, server: fakeredis.FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    began_s = time.monotonic()
    for now_s, connected in ((0.0, False), (AWAY_S / 2, True)):
        monkeypatch.setattr(time, "monotonic", lambda now_s=now_s: began_s + now_s)
        server.connected = connected
        assert admitted(shared.admit()).local
    monkeypatch.setattr(time, "monotonic", lambda: began_s + AWAY_S)
    assert not admitted(shared.admit()).local


def test_redis_is_left_alone_for_a_second_at_a_time(
    shared: SharedBreaker, server: fakeredis.FakeServer
) -> None:
    server.connected = False
    before_s = time.monotonic()
    shared.admit()
    assert before_s + AWAY_S <= shared._away_until <= time.monotonic() + AWAY_S
    shared._away_until = before_s
    shared.admit()
    assert shared._away_until > before_s + AWAY_S


def test_what_was_admitted_without_redis_counts_only_in_this_process(
    shared: SharedBreaker, server: fakeredis.FakeServer
) -> None:
    server.connected = False
    admissions = [admitted(shared.admit()) for _ in range(4)]
    server.connected = True
    shared._away_until = 0.0
    for admission in admissions:
        shared.record(admission, FAILED, {"calls": 1})
    assert shared.status().failures == 0
    assert shared._client.hget(METRICS, "calls") == "4"
    shared.record(UNASKED, FAILED)
    assert shared.status().failures == 0
    assert shared._local.changes() == {}


def test_retries_have_a_local_budget_without_redis(server: fakeredis.FakeServer) -> None:
    given = rules(retry_budget_reserve=1, retry_budget_per_sec=0.0, circuit_breaker_enabled=False)
    with fakeredis.FakeRedis(decode_responses=True, server=server) as client:
        shared = SharedRig(client).worker(given)
        server.connected = False
        admitted(shared.admit(retry=True))
        assert rejected(shared.admit(retry=True)).budget_spent


def test_without_redis_chance_is_drawn_as_with_it(server: fakeredis.FakeServer) -> None:
    with fakeredis.FakeRedis(decode_responses=True, server=server) as client:
        shared = SharedRig(client).worker(rules(circuit_breaker_jitter=1.0), draw=0.0)
        server.connected = False
        while fails(shared):
            pass
        assert 59 < rejected(shared.admit()).retry_after_s <= 60


def test_the_first_retry_on_a_clock_that_has_just_started_is_granted() -> None:
    breaker = LocalBreaker("x", rules(retry_budget_reserve=1, per_ms=0.01), clock_ms=lambda: 0.0)
    admitted(breaker.admit(retry=True))


def test_a_switched_off_breaker_asks_redis_only_for_retries(server: fakeredis.FakeServer) -> None:
    with fakeredis.FakeRedis(decode_responses=True, server=server) as client:
        disabled = rules(circuit_breaker_enabled=False)
        shared = SharedRig(client).worker(disabled)
        assert (admitted(shared.admit()).epoch, shared.admitted()) == ("-", Admission("", "-"))
        assert client.keys() == []
        admitted(shared.admit(retry=True))
        assert client.hget(KEY, "spent") == "1"
        free = SharedRig(client).worker(dataclasses.replace(disabled, budget_enabled=False))
        admitted(free.admit(retry=True))
        assert client.hget(KEY, "spent") == "1"


def test_a_person_learns_that_redis_is_gone(shared: SharedBreaker, server: fakeredis.FakeServer) -> None:
    server.connected = False
    acts: list[Callable[[], object]] = [shared.reset, shared.status, lambda: shared.open("x")]
    for act in acts:
        with pytest.raises(redis.RedisError):
            act()


def test_a_status_has_all_that_is_stored(shared: SharedBreaker) -> None:
    assert shared.status() == BreakerStatus("default", BreakerState.CLOSED, "", None, None, False, 0, 0, 0, 0)
    fields = {"state": "open", "reason": "r", "since_ms": 1, "until_ms": 2, "failures": 3}
    counts = {"opens": 4, "half_opens": 5, "closes": 6}
    shared._client.hset(KEY, mapping=cast("Any", fields | counts))
    assert shared.status() == BreakerStatus("default", BreakerState.OPEN, "r", 1, 2, False, 3, 4, 5, 6)
    shared._client.hdel(KEY, "until_ms")
    assert shared.status().by_hand
    shared.disable("x")
    assert shared.status().by_hand
    shared.close()
    assert not shared.status().by_hand


def test_a_status_that_cannot_be_read_is_named_with_its_remedy(shared: SharedBreaker) -> None:
    shared._client.hset(KEY, "state", "odd")
    with pytest.raises(RecordUnreadableError) as caught:
        shared.status()
    assert str(caught.value) == (
        "the circuit breaker of executor default cannot be read: 'odd' is not a valid BreakerState; "
        "dispatcher breaker reset replaces it"
    )


def test_the_breaker_learns_its_state_from_each_answer_of_redis(shared: SharedBreaker) -> None:
    assert shared.admitted() == Admission("", "0")
    admitted(shared.admit())
    assert shared.admitted() == Admission("", "0")
    while fails(shared):
        pass
    assert shared.admitted() is None
    SharedRig(shared._client).time_passes(60, RULES)
    probe = admitted(shared.admit())
    assert probe.id
    assert shared.admitted() is None
    assert shared.peek() is None
    shared.record(probe, SUCCEEDED)
    closed = shared.admitted()
    assert closed is not None
    assert closed == shared.peek()
    assert int(closed.epoch) > int(probe.epoch)
    shared.disable("x")
    admission = admitted(shared.admit())
    assert shared.admitted() == Admission("", admission.epoch)


def test_the_first_news_count_on_a_machine_that_has_just_started(shared: SharedBreaker) -> None:
    shared.note_at(0.5, "open", "3")
    assert shared.admitted() is None


def test_each_change_in_an_answer_of_redis_is_logged(
    shared: SharedBreaker, caplog: pytest.LogCaptureFixture
) -> None:
    hear = shared.recording([(UNASKED, SUCCEEDED)]).on_reply
    assert hear is not None
    hear(("", "7", ["open", "down", "closed", "the probes succeeded"]))
    assert caplog.messages == [
        "executor default: circuit breaker open: down",
        "executor default: circuit breaker closed: the probes succeeded",
    ]
    assert shared.admitted() == Admission("", "7")


def test_news_as_old_as_what_is_known_change_nothing(shared: SharedBreaker) -> None:
    shared.note_at(5.0, "open", "3")
    assert shared.admitted() is None
    shared.note_at(5.0, "", "4")
    assert shared.admitted() is None
    shared.note_at(5.1, "", "4")
    assert shared.admitted() == Admission("", "4")


def test_an_outcome_is_sent_with_all_that_belongs_to_it(shared: SharedBreaker) -> None:
    unasked = shared.admitted()
    assert unasked is not None
    shared._draw = lambda: 0.25
    failure = Report(Outcome.FAILURE, 9.0, 1.5, "down")
    slow = rules(slow_call_s=1.0)
    shared.rules = slow
    reports = [(unasked, Report(Outcome.SUCCESS, 2.0))] * 2 + [(unasked, SUCCEEDED), (unasked, failure)]
    call = shared.recording([*reports, (Admission("p", "1"), SUCCEEDED)], {"calls": 4})
    rows = call.args[12:]
    assert call.args[11] == 4
    assert rows[:8] == ["", "0", "success", 1, 2, 0, 0.0, ""]
    assert rows[8:16] == ["", "0", "success", 0, 1, 0, 0.0, ""]
    assert rows[16:24] == ["", "0", "failure", 0, 1, 1500, 0.25, "down"]
    assert rows[24:32] == ["p", "1", "success", 0, 1, 0, 0.0, ""]
    assert rows[32:] == ["calls", 4]
    assert call.keys[-1] == METRICS


def test_probes_are_never_merged(shared: SharedBreaker) -> None:
    probe = Admission("p", "1")
    assert shared.recording([(probe, SUCCEEDED)] * 2).args[11] == 2
