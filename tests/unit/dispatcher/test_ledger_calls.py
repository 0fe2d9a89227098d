"""What each method of the ledger sends and returns, on a fake Redis."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources
from typing import TYPE_CHECKING, Any, cast

import fakeredis
import pytest
import redis
from support.eventually import SET_BACK_MS
from support.plans import abort_plan
from support.steps import finished, parked, retried

from dispatcher import (
    ConflictPolicy,
    DispatchHaltedError,
    InvalidPlanError,
    LedgerRefusedError,
    LedgerUnavailableError,
    PlanConflictError,
    PlanState,
    Settings,
)
from dispatcher.errors import RecordUnreadableError
from dispatcher.ledger.counts import count_ended, plan_counts
from dispatcher.ledger.exchanges import Send, asking, carry_out, drive, send_over
from dispatcher.ledger.leases import SETTLE, Denial, Lease, Leases, Named, Settlement, Standing
from dispatcher.ledger.ledger import LONGEST_REASON, Ledger, Submission, record_of
from dispatcher.ledger.moments import LATEST_MS, moment_of
from dispatcher.ledger.presence import connected_workers, connection_name
from dispatcher.ledger.record import Order
from dispatcher.ledger.scripts import MOST_LOADS, Call, Script, Scripts, calling, trying
from dispatcher.ledger.submission import outcome_of, target_of
from dispatcher.settings.settings import WorkerSettings
from dispatcher.telemetry.exporter import FleetCollector
from dispatcher.telemetry.metrics import executor_counts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PLAN = abort_plan()
ORDER = Order(plan=PLAN, timeout_ms=30_000)
TARGET = f"default:{PLAN.service}:{PLAN.api}"
ECHO = Script.with_text("return {KEYS[1] or '', unpack(ARGV)}")


@pytest.fixture
def server() -> fakeredis.FakeServer:
    return fakeredis.FakeServer()


@pytest.fixture
def client(server: fakeredis.FakeServer) -> Iterator[redis.Redis]:
    with fakeredis.FakeRedis(decode_responses=True, server=server) as client:
        yield client


@pytest.fixture
def ledger(client: redis.Redis) -> Ledger:
    return Ledger(client, Settings())


@pytest.fixture
def leases(client: redis.Redis) -> Leases:
    return Leases(client, Settings())


def submit(ledger: Ledger, *plan_ids: str, **options: Any) -> None:
    """New plans, each with a target of its own."""
    orders = {each: Order(plan=abort_plan(service=each), timeout_ms=30_000) for each in plan_ids}
    submissions = [Submission(each, order, **options) for each, order in orders.items()]
    assert ledger.submit(submissions) == [True] * len(plan_ids)


def begin(leases: Leases, plan_id: str) -> Lease:
    [lease] = leases.fetch([Named(plan_id, 0)], 0).named
    assert isinstance(lease, Lease)
    return lease


def test_keys_begin_with_the_prefix_and_name_what_they_hold(client: redis.Redis) -> None:
    ledger = Ledger(client, Settings(key_prefix="x"))
    keys = [ledger.prefix, ledger.counts_key, ledger.halt_key, ledger.aside_key, ledger.history_key]
    keys += [ledger.doubts_key, ledger.plan_key("p"), ledger.ended_key("p"), ledger.health_key("e")]
    keys += [
        ledger.metrics_key("e"),
        ledger.breaker_key("e"),
        ledger.completions_key("b"),
        ledger.batch_key("b"),
    ]
    names = ["", "counts", "halt", "aside", "history", "doubts", "plan:p", "ended:p", "health:e", "metrics:e"]
    assert keys == [f"{{x}}:{name}" for name in [*names, "breaker:e", "completions:b", "batch:b"]]


def test_a_submission_is_stored_with_all_that_it_says(ledger: Ledger, client: redis.Redis) -> None:
    submit(ledger, "p1", batch="b", traceparent="00-x", tags=("red", "blue"), expires_after_ms=5_000)
    fields = cast("dict[str, str]", client.hgetall("{dispatcher}:plan:p1"))
    assert fields["target"] == f"default:p1:{PLAN.api}"
    assert Order.model_validate_json(fields["order"]).plan.service == "p1"
    assert (fields["batch"].split()[0], fields["tags"], fields["traceparent"]) == ("b", "red blue", "00-x")
    assert int(fields["expires_ms"]) - int(fields["submitted_ms"]) == 5_000
    due_ms = client.zscore("{dispatcher}:due", "p1")
    assert due_ms is not None
    assert due_ms - int(fields["submitted_ms"]) == 60_000
    assert client.lrange("{dispatcher}:batch:b", 0, -1) == ["p1"]


def test_the_arguments_of_a_submission_are_text_and_whole_milliseconds() -> None:
    start = datetime.fromtimestamp(1_900_000_000.0019, UTC)
    order = Order(plan=abort_plan(start_time=start), timeout_ms=1, conflict_policy=ConflictPolicy.REJECT)
    full = Submission("p1", order, 7, "b", "00-x", ("red", "blue"))
    assert full.arguments == ["p1", order.to_json(), TARGET, "reject", "b", "red blue", 7, 1_900_000_000_001]
    assert Submission("p1", ORDER).arguments == ["p1", ORDER.to_json(), TARGET, "queue", "", "", "", ""]


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (("taken",), PlanConflictError, "plan id p1 belongs to another plan: choose another id"),
        (
            ("conflict", "p0"),
            PlanConflictError,
            f"{PLAN.service} {PLAN.api} is held by plan p0: wait until it has ended",
        ),
        (
            ("halted", "drill"),
            DispatchHaltedError,
            "the dispatcher is halted (drill): resume it, then submit again",
        ),
        (
            ("past",),
            InvalidPlanError,
            "invalid plan: start_time has passed: choose a later time, or none to start at once",
        ),
    ],
    ids=["another plan's id", "a held target", "a halt", "a time that has passed"],
)
def test_a_refusal_says_what_to_do(answer: tuple[str, ...], kind: type[Exception], message: str) -> None:
    error = outcome_of(Submission("p1", ORDER), *answer)
    assert isinstance(error, kind)
    assert getattr(error, "message", "") == message
    if isinstance(error, PlanConflictError):
        assert error.holder == (answer[1:] or ("p1",))[0]
    if isinstance(error, InvalidPlanError):
        assert list(error.problems) == [
            ("start_time", "has passed: choose a later time, or none to start at once")
        ]


def test_a_target_is_an_executors_service_and_path() -> None:
    assert target_of("e", "s", "/a") == "e:s:/a"


def test_a_refused_command_refuses_only_its_plan(ledger: Ledger, client: redis.Redis) -> None:
    client.set("{dispatcher}:plan:p1", "no hash")
    wrong, right = ledger.submit([Submission("p1", ORDER), Submission("p2", ORDER)])
    assert right is True
    assert "refused a command" in str(wrong)


def test_reasons_are_cut(ledger: Ledger) -> None:
    long = "x" * (LONGEST_REASON + 5)
    submit(ledger, "p1")
    ledger.cancel(["p1"], long)
    [record] = ledger.read(["p1"])
    assert record is not None
    assert record.cancelled == long[:LONGEST_REASON]
    ledger.halt(long)
    assert ledger.halted() == long[:LONGEST_REASON]


def test_a_cancel_answers_for_each_plan(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "p1", "p2", "p3")
    finished(leases, begin(leases, "p2"))
    parked(leases, begin(leases, "p3"), 1_000)
    assert ledger.cancel(["p1", "p2", "p4"], "", only_begun=True) == [False, False, None]
    assert ledger.cancel(["p1", "p2", "p4"], "enough") == [True, False, None]
    submit(ledger, "p5")
    assert ledger.carry_out(ledger.cancelling(["p5"], "enough")) == [True]


def test_faults_in_doubt_are_listed_until_their_target_is_freed(
    ledger: Ledger, leases: Leases, client: redis.Redis
) -> None:
    submit(ledger, "p1", "p2")
    lease = begin(leases, "p1")
    running = lease.record.applied("f1", lease.now_ms)
    finished(leases, lease, running.ended(RuntimeError("x")), alive_ms=60_000, doubt="who knows")
    assert ledger.in_doubt() == ["p1"]
    client.zadd(ledger.doubts_key, {"p8": 8, "p9": 9})
    assert set(ledger.in_doubt()) == {"p1", "p8", "p9"}
    client.zrem(ledger.doubts_key, "p8", "p9")
    assert plan_counts(ledger).in_doubt == 1
    assert ledger.release("default:other:/", "sure") == []
    assert ledger.release(f"default:p1:{PLAN.api}", "sure") == ["p1"]
    assert ledger.in_doubt() == []


def test_plans_in_flight_come_by_when_they_are_due(ledger: Ledger, client: redis.Redis) -> None:
    submit(ledger, "p1", "p2", "p3")
    client.zadd("{dispatcher}:due", {"p3": 1, "p1": 2, "p2": 3})
    assert ledger.in_flight() == ["p3", "p1", "p2"]
    assert ledger.in_flight(2) == ["p3", "p1"]
    assert ledger.count_in_flight() == 3


def test_reading_names_what_is_unknown_and_raises_what_is_unreadable(
    ledger: Ledger, client: redis.Redis
) -> None:
    submit(ledger, "p1")
    client.set("{dispatcher}:plan:p2", "no hash")
    client.hset("{dispatcher}:plan:p3", "v", "0")
    known, wrong, odd, unknown = ledger.try_read(["p1", "p2", "p3", "p4"])
    assert known is not None
    assert unknown is None
    assert isinstance(wrong, RecordUnreadableError)
    assert isinstance(odd, RecordUnreadableError)
    assert wrong.message.startswith("plan p2 cannot be read: WRONGTYPE")
    assert wrong.plan_id == "p2"
    assert ledger.read(["p1", "p4"]) == [known, None]
    with pytest.raises(RecordUnreadableError, match="p3"):
        ledger.read(["p1", "p3"])


def test_trouble_with_redis_is_not_an_unreadable_record() -> None:
    with pytest.raises(redis.ResponseError, match="OOM"):
        record_of("p1", redis.ResponseError("OOM no memory"))
    assert record_of("p1", {}) is None


def test_the_servers_time_is_in_milliseconds(ledger: Ledger) -> None:
    assert ledger.now_ms() == pytest.approx(time.time() * 1000, rel=0, abs=SET_BACK_MS)
    assert drive(ledger.asking_the_time(), lambda _: [["1900000000", "123999"]]) == 1_900_000_000_123
    assert drive(ledger.asking_the_time(), lambda _: [["1900000000", "999000"]]) == 1_900_000_000_999


def test_how_late_the_oldest_plan_is_is_in_seconds(ledger: Ledger, client: redis.Redis) -> None:
    assert ledger.late_s() is None
    submit(ledger, "p1", "p2")
    assert ledger.late_s() is None
    client.zadd("{dispatcher}:due", {"p2": ledger.now_ms() - 90_000})
    assert ledger.late_s() == pytest.approx(90, abs=30)

    class Stopped(Ledger):
        def now_ms(self) -> int:
            return 9_000_000

    stopped = Stopped(client, Settings())
    for due_ms, late_s in ((1_000_000, 8_000.0), (8_999_999, 0.001), (9_000_000, None)):
        client.zadd("{dispatcher}:due", {"p2": due_ms})
        assert stopped.late_s() == late_s


def test_a_redis_that_is_gone_is_a_typed_error_for_each_method(
    ledger: Ledger, leases: Leases, server: fakeredis.FakeServer
) -> None:
    submit(ledger, "p1")
    lease = begin(leases, "p1")
    ledger.ping()
    ledger.try_to_write()
    server.connected = False
    calls: list[Callable[[], object]] = [
        ledger.ping,
        ledger.try_to_write,
        ledger.server_info,
        ledger.late_s,
        ledger.now_ms,
        ledger.resume,
        ledger.halted,
        ledger.in_doubt,
        ledger.in_flight,
        ledger.count_in_flight,
        lambda: ledger.halt("x"),
        lambda: ledger.release(TARGET, "x"),
        lambda: ledger.execute_all([["PING"]]),
        lambda: leases.renew({"p1": "t"}),
        lambda: leases.announce_apply(lease),
        lambda: leases.fetch([], 0),
    ]
    for call in calls:
        with pytest.raises(
            LedgerUnavailableError, match=f"^Redis at {Settings().redis_address} did not answer"
        ):
            call()


def test_a_write_to_try_leaves_nothing(ledger: Ledger, client: redis.Redis) -> None:
    ledger.try_to_write()
    ttl_ms = client.pttl("{dispatcher}:write")
    assert ttl_ms in {-2, 0, 1}


def test_one_round_trip_has_all_replies(ledger: Ledger) -> None:
    assert ledger.execute_all([["SET", "a", "1"], ["GET", "a"], ["GET", "b"]]) == [True, "1", None]
    with pytest.raises(LedgerRefusedError, match="WRONGTYPE"):
        ledger.execute_all([["SET", "a", "1"], ["LLEN", "a"]])


def test_scripts_get_their_keys_and_arguments_and_are_loaded_when_they_are_missing(
    client: redis.Redis,
) -> None:
    heard: list[Any] = []
    calls = [Call(ECHO, ["k"], ["a", "b"], on_reply=heard.append), Call(ECHO, [], ["c"])]
    for _ in range(2):
        assert Scripts(client).run(calls) == [["k", "a", "b"], ["", "c"]]
        client.script_flush()
    assert heard == [["k", "a", "b"]] * 2
    assert calls[0].command == ["EVALSHA", ECHO.sha, 1, "k", "a", "b"]
    assert len(ECHO.sha) == 40


def test_a_script_is_the_text_of_its_files_in_their_order() -> None:
    folder = resources.files("dispatcher.ledger") / "lua"
    texts = [(folder / f"{name}.lua").read_text("utf-8") for name in ("prelude", "halt")]
    assert Script.of("dispatcher.ledger", "prelude", "halt").text == "\n".join(texts)


def test_only_the_calls_whose_script_was_missing_are_made_again(client: redis.Redis) -> None:
    count = Script.with_text("return redis.call('INCR', KEYS[1])")
    other = Script.with_text("return redis.call('INCRBY', KEYS[1], 10)")
    Scripts(client).run([Call(count, ["n"], [])])
    assert Scripts(client).run([Call(count, ["n"], []), Call(other, ["n"], []), Call(other, ["n"], [])]) == [
        2,
        12,
        22,
    ]


def test_a_script_that_fails_raises_after_all_were_carried_out(client: redis.Redis) -> None:
    wrong = Script.with_text("return redis.call('LLEN', KEYS[1])")
    client.set("a", "1")
    with pytest.raises(redis.ResponseError):
        Scripts(client).run([Call(wrong, ["a"], []), Call(ECHO, ["b"], [])])
    replies = carry_out(client, trying([Call(wrong, ["a"], []), Call(ECHO, ["b"], [])]))
    assert isinstance(replies[0], redis.ResponseError)
    assert replies[1] == ["b"]


def test_scripts_are_loaded_in_a_round_trip_of_their_own() -> None:
    sent: list[Sequence[Sequence[Any]]] = []

    def answer(send: Send) -> list[Any]:
        sent.append(send.commands)
        first = send.commands[0][0]
        missing = redis.exceptions.NoScriptError("NOSCRIPT")
        return (
            ["sha"]
            if first == "SCRIPT LOAD"
            else [missing if len(sent) == 1 else ["x"] for _ in send.commands]
        )

    call = Call(ECHO, ["k"], [])
    assert drive(calling([call, call]), answer) == [["x"], ["x"]]
    assert sent == [[call.command] * 2, [["SCRIPT LOAD", ECHO.text]], [call.command] * 2]


@pytest.mark.parametrize(("losses", "found"), [(MOST_LOADS, ["x"]), (MOST_LOADS + 1, None)])
def test_scripts_that_are_lost_again_are_loaded_again_a_few_times(
    losses: int, found: list[str] | None
) -> None:
    missing = redis.exceptions.NoScriptError("NOSCRIPT")
    replies: list[Any] = [missing] * losses + [["x"]]

    def answer(send: Send) -> list[Any]:
        return ["sha"] if send.commands[0][0] == "SCRIPT LOAD" else [replies.pop(0)]

    assert drive(trying([Call(ECHO, ["k"], [])]), answer) == [found or missing]


def test_asking_raises_the_first_error() -> None:
    error = redis.ResponseError("ERR x")
    with pytest.raises(redis.ResponseError, match="ERR x"):
        drive(asking([["A"], ["B"]]), lambda _: [1, error])
    assert drive(asking([["A"]]), lambda _: [1]) == [1]


def test_a_new_connection_replaces_those_at_rest(client: redis.Redis) -> None:
    dropped: list[bool] = []

    class Pool:
        def disconnect(self, *, inuse_connections: bool = True) -> None:
            dropped.append(inuse_connections)

    class Client:
        connection_pool = Pool()
        pipeline = client.pipeline

    assert send_over(Client(), Send([["PING"]])) == [True]  # type: ignore[arg-type]
    assert dropped == []
    assert send_over(Client(), Send([["PING"], ["LLEN"]], anew=True))[0] is True  # type: ignore[arg-type]
    assert dropped == [False]


def test_leases_come_in_the_order_in_which_they_were_asked_for(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "p1", "p2")
    fetched = leases.fetch([Named("p2", 0), Named("p9", 0), Named("p2", 0)], 0)
    first, unknown, again = fetched.named
    assert isinstance(first, Lease)
    assert (first.plan_id, unknown) == ("p2", Denial.UNKNOWN)
    assert again is not first
    assert (first.first_step, first.breaker, first.in_flight) == (True, ("", "0"), 2)
    assert (fetched.due, fetched.unreadable) == ([], [])
    assert fetched.next_due_s is not None
    assert 0 < fetched.next_due_s <= 60


def test_an_empty_ledger_has_no_next_plan(leases: Leases) -> None:
    assert leases.fetch([], 5).next_due_s is None


def test_tokens_differ_from_call_to_call_and_from_process_to_process(client: redis.Redis) -> None:
    ledger = Ledger(client, Settings())
    submit(ledger, "p1", "p2", "p3")
    one, two = Leases(client, Settings()), Leases(client, Settings())
    tokens = [begin(one, "p1").token, begin(one, "p2").token, begin(two, "p3").token]
    assert len(set(tokens)) == 3
    assert tokens[0].split(":")[0] == tokens[1].split(":")[0] != tokens[2].split(":")[0]


def test_a_lease_knows_the_servers_time_by_the_machines_own_clock(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "p1")
    lease = begin(leases, "p1")
    server_ms = ledger.now_ms()
    assert lease.time_ms - server_ms == pytest.approx(0, abs=2_000)
    earlier = Lease(lease.record, "t", 5_000, time.monotonic() - 10.0)
    assert earlier.time_ms == pytest.approx(15_000, abs=2_000)


def test_an_unreadable_record_is_a_lease_to_set_it_aside(
    ledger: Ledger, leases: Leases, client: redis.Redis
) -> None:
    submit(ledger, "p1", "p2")
    client.hset("{dispatcher}:plan:p1", "attempts", "x" * 500)
    client.hset("{dispatcher}:plan:p2", "attempts", "y")
    client.zadd("{dispatcher}:due", {"p2": 1})
    fetched = leases.fetch([Named("p1", 0)], 5)
    assert (fetched.named, fetched.due) == ([Denial.UNREADABLE], [])
    by_name, due = fetched.unreadable
    assert (by_name.plan_id, due.plan_id) == ("p1", "p2")
    assert due.why == "ValueError: invalid literal for int() with base 10: 'y'"
    assert len(by_name.why) == 200
    aside = [Settlement(each.plan_id, each.token, "aside", [each.why]) for each in (by_name, due)]
    assert not any(standing.lost for standing in leases.settle(aside))
    assert plan_counts(ledger).set_aside == 2


def test_settlements_take_other_calls_along(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "p1")
    lease = begin(leases, "p1")
    heard: list[Any] = []
    call = Call(ECHO, ["k"], [], on_reply=heard.append)
    [standing] = leases.settle([Settlement("p1", lease.token, "snooze", [5_000])], [call])
    assert (standing.lost, standing.cancelled) == (False, False)
    assert standing.due_ms == pytest.approx(5_000, abs=100)
    assert leases.settle([], [call]) == []
    assert heard == [["k"]] * 2
    assert (Standing(-1).lost, Standing(-1).cancelled) == (True, False)
    assert (Standing(-2).lost, Standing(-2).cancelled) == (False, True)


def test_without_settlements_only_the_other_calls_are_made(leases: Leases, client: redis.Redis) -> None:
    client.script_flush()
    assert leases.settle([], [Call(ECHO, ["k"], [])]) == []
    assert client.script_exists(SETTLE.sha, ECHO.sha) == [False, True]


def test_when_the_next_plan_is_due_is_in_seconds(ledger: Ledger, leases: Leases, client: redis.Redis) -> None:
    submit(ledger, "p1")
    client.zadd("{dispatcher}:due", {"p1": ledger.now_ms() + 10_000_000_000})
    assert leases.fetch([], 0).next_due_s == pytest.approx(10_000_000, abs=1_000)


def test_the_size_of_a_settlement_is_that_of_its_text() -> None:
    assert Settlement("p1", "t", "snooze", [1_000_000, "abc", 2.5, "de"]).size == 5


def test_how_long_a_lease_lasts_is_a_setting(client: redis.Redis) -> None:
    assert Leases(client, Settings(worker=WorkerSettings(lease_sec=6.0))).lease_s == 6.0


def test_lost_leases_are_named(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "p1", "p2")
    lease = begin(leases, "p1")
    assert leases.renew({"p2": "x", "p1": lease.token, "p3": "y"}) == ["p2", "p3"]
    assert leases.renew({}) == []


def test_an_apply_is_announced_only_under_its_lease(
    ledger: Ledger, leases: Leases, client: redis.Redis
) -> None:
    submit(ledger, "p1")
    lease = begin(leases, "p1")
    assert leases.announce_apply(lease)
    assert client.hexists("{dispatcher}:plan:p1", "applying_ms")
    assert not leases.announce_apply(Lease(lease.record, "another", 0, 0.0))


def test_a_retry_waits_only_for_its_message(ledger: Ledger, leases: Leases) -> None:
    submit(ledger, "p1")
    assert not retried(leases, begin(leases, "p1"), 0).lost
    assert leases.fetch([Named("p1", 0)], 0).named == [Denial.ELSEWHERE]
    assert isinstance(leases.fetch([Named("p1", 1)], 0).named[0], Lease)


def test_the_cause_of_a_retry_is_stored_with_it_for_as_long_as_a_result(
    ledger: Ledger, leases: Leases, client: redis.Redis
) -> None:
    submit(ledger, "p1")
    retried(leases, begin(leases, "p1"), 0)
    assert client.get("result-p1") == "the cause"
    assert client.ttl("result-p1") > 0


def test_a_retry_under_a_lost_lease_or_of_a_cancelled_plan_stores_no_cause(
    ledger: Ledger, leases: Leases, client: redis.Redis
) -> None:
    submit(ledger, "p1", "p2")
    lease, cancelled = begin(leases, "p1"), begin(leases, "p2")
    finished(leases, lease)
    assert retried(leases, replace(lease, token="another"), 0).lost
    assert client.get("result-p1") == "the result"
    ledger.cancel(["p2"], "enough")
    assert retried(leases, cancelled, 0).cancelled
    assert client.get("result-p2") is None


def test_plans_are_counted_by_state_and_by_who_has_them(
    ledger: Ledger, leases: Leases, client: redis.Redis
) -> None:
    submit(ledger, "p1", "p2", "p3")
    finished(leases, begin(leases, "p3"))
    begin(leases, "p1")
    client.hset("{dispatcher}:plan:p2", "due_ms", ledger.now_ms() - 50_000)
    client.zadd("{dispatcher}:due", {"gone": 1})
    counts = plan_counts(ledger)
    assert counts.states[PlanState.QUEUED] == 2
    assert set(counts.states) == {state for state in PlanState if not state.final}
    assert set(counts.ended) == {state for state in PlanState if state.final}
    assert (counts.in_flight, counts.waiting, counts.submitted, counts.steps) == (2, 1, 3, 2)
    assert counts.oldest_due_s == pytest.approx(50, abs=20)
    assert (counts.ended[PlanState.OBSERVED], count_ended(ledger), counts.halted) == (1, 1, False)
    assert (counts.leases_lost, counts.messages_lost, counts.set_aside, counts.in_doubt) == (0, 0, 0, 0)
    ledger.halt("")
    assert plan_counts(ledger).halted


def test_a_plan_that_ends_while_plans_are_counted_is_in_flight_no_more(
    ledger: Ledger, leases: Leases, client: redis.Redis
) -> None:
    submit(ledger, "p1", "p2")
    finished(leases, begin(leases, "p2"))
    client.hset("{dispatcher}:plan:p2", "due_ms", "5")
    client.hset("{dispatcher}:plan:p3", "due_ms", "5")  # another program's
    client.zadd("{dispatcher}:due", {"p2": 1, "p3": 1})
    counts = plan_counts(ledger)
    assert (counts.in_flight, counts.waiting) == (1, 1)
    assert counts.oldest_due_s < 3_600


def test_how_late_steps_began_is_counted_in_seconds(ledger: Ledger, client: redis.Redis) -> None:
    client.hset(ledger.counts_key, mapping={"late_ms": 2_500, "leases_lost": 3, "messages_lost": 4})
    counts = plan_counts(ledger)
    assert (counts.late_s, counts.leases_lost, counts.messages_lost, counts.oldest_due_s) == (2.5, 3, 4, 0)


def test_counts_that_cannot_be_read_are_named(ledger: Ledger, client: redis.Redis) -> None:
    client.hset(ledger.counts_key, "steps", "many")
    with pytest.raises(RecordUnreadableError, match="the counts of plans cannot be read: invalid literal"):
        plan_counts(ledger)


def test_counts_of_an_executor_that_cannot_be_read_are_named(ledger: Ledger, client: redis.Redis) -> None:
    client.hset(ledger.metrics_key("lab"), "apply:answered", "many")
    with pytest.raises(RecordUnreadableError, match="the counts of executor lab cannot be read: invalid"):
        executor_counts(ledger, ["default", "lab"])
    collected = FleetCollector(ledger, ["lab"]).collect()
    assert [metric.name for metric in collected] == ["dispatcher_redis_up"]


def test_workers_are_known_by_the_oldest_of_their_connections() -> None:
    settings = Settings(key_prefix="x")
    begins = connection_name(settings, "")
    assert begins == "x:worker:"
    assert connection_name(settings, "one@hôst 1") == f"{begins}one@h?st?1"
    lines = [
        f"id=1 name={begins}one age=5 idle=0",
        f"id=2 name={begins}one age=9 idle=0",
        f"id=3 name={begins}one age=7 idle=0",
        f"name={begins}two age=0",
        "id=4 name=y:worker:three age=5",
        f"id=5 name={begins}four age=odd",
        f"id=6 nickname={begins}five age=4",
        f"id=7 name={begins}six",
    ]

    class Listing:
        def execute_all(self, commands: list[list[str]]) -> list[str]:
            assert commands == [["CLIENT", "LIST"]]
            return ["\n".join(lines)]

    found = connected_workers(Listing(), settings)  # type: ignore[arg-type]
    assert found == {f"{begins}one": 9.0, f"{begins}two": 0.0}


def test_a_moment_is_a_date_in_utc_or_an_error() -> None:
    assert moment_of(None) is None
    assert moment_of(1_500) == datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC)
    assert moment_of(LATEST_MS) == datetime(3000, 1, 1, tzinfo=UTC)
    with pytest.raises(ValueError, match=r"^10+ ms since 1970 is not a date$"):
        moment_of(10**30)
