"""What threads send together, and what each hears of it. The first exchange is held up."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, cast

import pytest
import redis
from support.eventually import eventually

from dispatcher.scripts import Call, Script, Scripts
from workers.combining import CombinedScripts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from dispatcher.scripts import Outcome

SCRIPT = Script("return 1", "sha")
ADD = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])", "")
THREADS = 8
PLACE: ContextVar[str] = ContextVar("place")


def call(name: str) -> Call:
    return Call(SCRIPT, [name], [])


class Wire:
    """Answers each call with its key, or with what is set to go wrong. Holds up the first exchange."""

    def __init__(self) -> None:
        self.sent: list[list[str]] = []
        self.begun, self.let_go = threading.Event(), threading.Event()
        self.wrong: dict[str, BaseException] = {}
        self.broken: dict[int, BaseException] = {}

    def exchange(self, calls: Sequence[Call]) -> list[Any]:
        number = len(self.sent)
        self.sent.append([each.keys[0] for each in calls])
        if number == 0:
            self.begun.set()
            assert self.let_go.wait(5)
        if number in self.broken:
            raise self.broken[number]
        return [self.wrong.get(each.keys[0], each.keys[0]) for each in calls]


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Wire:
    wire = Wire()
    monkeypatch.setattr(Scripts, "exchange", lambda _, calls: wire.exchange(calls))
    return wire


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(THREADS) as pool:
        yield pool


def staged(wire: Wire, pool: ThreadPoolExecutor, first: str, *later: list[str]) -> list[Future[list[Any]]]:
    """A thread that sends `first`, and one for each of the others, which come while that is under way."""
    scripts = CombinedScripts(cast("redis.Redis", None))
    futures = [pool.submit(scripts.run, [call(first)])]
    assert wire.begun.wait(5)
    for number, names in enumerate(later, 1):
        futures.append(pool.submit(scripts.run, [call(name) for name in names]))
        eventually(lambda number=number: len(scripts._waiting) == number, within_s=5)  # type: ignore[misc]
    wire.let_go.set()
    return futures


def test_a_thread_sends_at_once_where_nothing_is_under_way(wire: Wire) -> None:
    wire.let_go.set()
    scripts = CombinedScripts(cast("redis.Redis", None))
    assert scripts.run([call("a"), call("b")]) == ["a", "b"]
    assert scripts.run([call("c")]) == ["c"]
    assert wire.sent == [["a", "b"], ["c"]]


def test_what_comes_during_an_exchange_goes_together_in_the_next_and_each_hears_its_own(
    wire: Wire, pool: ThreadPoolExecutor
) -> None:
    first, second, third = staged(wire, pool, "a", ["b", "c"], ["d"])
    assert (first.result(5), second.result(5), third.result(5)) == (["a"], ["b", "c"], ["d"])
    assert wire.sent == [["a"], ["b", "c", "d"]]


def test_what_breaks_an_exchange_is_heard_by_those_whose_calls_it_carried(
    wire: Wire, pool: ThreadPoolExecutor
) -> None:
    wire.broken[1] = redis.ConnectionError("gone")
    first, second, third = staged(wire, pool, "a", ["b"], ["c"])
    assert first.result(5) == ["a"]
    errors = [second.exception(5), third.exception(5)]
    assert [(type(error), str(error)) for error in errors] == [(redis.ConnectionError, "gone")] * 2
    assert errors[0] is not errors[1]  # each has a traceback of its own


def test_a_broken_exchange_holds_up_nobody_who_comes_after(wire: Wire, pool: ThreadPoolExecutor) -> None:
    wire.broken[0] = SystemExit(1)
    first, second = staged(wire, pool, "a", ["b"])
    assert isinstance(first.exception(5), SystemExit)
    assert second.result(5) == ["b"]


def test_a_call_that_redis_refuses_fails_for_its_thread_alone(wire: Wire, pool: ThreadPoolExecutor) -> None:
    wire.wrong["b"] = redis.ResponseError("no memory")
    _, second, third = staged(wire, pool, "a", ["b"], ["c"])
    assert isinstance(second.exception(5), redis.ResponseError)
    assert third.result(5) == ["c"]


def test_what_is_posted_goes_with_the_next_exchange_and_is_heard_where_it_was_posted_from(
    wire: Wire, pool: ThreadPoolExecutor
) -> None:
    scripts = CombinedScripts(cast("redis.Redis", None))
    first = pool.submit(scripts.run, [call("a")])
    assert wire.begun.wait(5)
    heard: Future[tuple[Outcome, str]] = Future()
    PLACE.set("here")
    scripts.post([call("b"), call("c")], lambda outcome: heard.set_result((outcome, PLACE.get())))
    PLACE.set("elsewhere")
    wire.let_go.set()
    assert heard.result(5) == (["b", "c"], "here")
    assert first.result(5) == ["a"]
    assert wire.sent == [["a"], ["b", "c"]]


def test_what_is_posted_is_sent_at_once_where_nothing_is_under_way(wire: Wire) -> None:
    wire.let_go.set()
    scripts = CombinedScripts(cast("redis.Redis", None))
    heard: list[Outcome] = []
    scripts.post([call("a")], heard.append)
    assert heard == [["a"]]
    assert scripts.run([call("b")]) == ["b"]


def test_whoever_waits_carries_what_was_posted_before(wire: Wire, pool: ThreadPoolExecutor) -> None:
    scripts = CombinedScripts(cast("redis.Redis", None))
    heard: Future[str] = Future()
    first = pool.submit(scripts.run, [call("a")])
    assert wire.begun.wait(5)
    scripts.post([call("b")], lambda _: heard.set_result(threading.current_thread().name))
    second = pool.submit(lambda: (scripts.run([call("c")]), threading.current_thread().name))
    eventually(lambda: len(scripts._waiting) == 2, within_s=5)
    wire.let_go.set()
    replies, name = second.result(5)
    assert (first.result(5), replies, heard.result(5)) == (["a"], ["c"], name)
    assert wire.sent == [["a"], ["b", "c"]]


def test_what_breaks_an_exchange_is_heard_of_by_those_who_have_posted(wire: Wire) -> None:
    wire.let_go.set()
    wire.broken[0] = gone = redis.ConnectionError("gone")
    wire.wrong["b"] = refused = redis.ResponseError("no memory")
    scripts = CombinedScripts(cast("redis.Redis", None))
    heard: list[Outcome] = []
    for name in "ab":
        scripts.post([call(name)], heard.append)
    assert [str(outcome) for outcome in heard] == [str(gone), str(refused)]


def test_who_hears_and_fails_holds_up_nobody(
    wire: Wire, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: Outcome) -> None:
        raise ZeroDivisionError

    scripts = CombinedScripts(cast("redis.Redis", None))
    first = pool.submit(scripts.run, [call("a")])
    assert wire.begun.wait(5)
    heard: Future[Outcome] = Future()
    scripts.post([call("b")], fail)
    scripts.post([call("c")], heard.set_result)
    wire.let_go.set()
    assert (first.result(5), heard.result(5)) == (["a"], ["c"])
    assert "ZeroDivisionError" in caplog.text
    assert scripts.run([call("d")]) == ["d"]


def test_many_threads_each_hear_what_their_own_calls_have_done(redis_client: redis.Redis) -> None:
    scripts = CombinedScripts(redis_client)
    add = Script(ADD.text, redis_client.script_load(ADD.text))
    together = threading.Barrier(THREADS)

    def count(name: str) -> list[int]:
        together.wait(5)
        return [scripts.run([Call(add, [name], [1])])[0] for _ in range(50)]

    with ThreadPoolExecutor(THREADS) as pool:
        for counted in pool.map(count, map(str, range(THREADS))):
            assert counted == list(range(1, 51))
