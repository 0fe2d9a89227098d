"""How threads and event loops wait for plans, on a fake Redis."""

from __future__ import annotations

import asyncio
import math
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Self

import fakeredis
import pytest
import redis
from pydantic import SecretStr
from support.event_loop import WITHIN_S, run
from support.eventually import eventually
from support.plans import abort_plan
from support.steps import finished

from dispatcher import (
    DispatcherClosedError,
    ExecutorClientError,
    LedgerRefusedError,
    LedgerUnavailableError,
    PlanState,
    Settings,
)
from dispatcher.errors import CLOSED, RecordUnreadableError
from dispatcher.ledger.exchanges import Send
from dispatcher.ledger.leases import Lease, Leases, Named
from dispatcher.ledger.ledger import Ledger, Submission
from dispatcher.ledger.line import AsyncLine
from dispatcher.ledger.listener import Listener
from dispatcher.ledger.record import Order
from dispatcher.ledger.subscription import MESSAGES_IN_A_ROW, Subscription
from dispatcher.ledger.waiters import (
    ASK_AGAIN_SEC,
    AWAY_SEC,
    SHORTEST_BLOCK_SEC,
    AsyncWaiter,
    Waiter,
    _Patience,
    longest_slice_s,
)
from dispatcher.ledger.waits import Block, values_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

SETTINGS = Settings(redis_timeout_sec=5)
QUICK = Settings(redis_timeout_sec=1)
"""Checks every half second."""

BLOCK = Block(lambda seconds: ["BLMOVE", "a", "a", "LEFT", "LEFT", seconds])
OOM = redis.ResponseError("OOM command not allowed")
GONE = redis.ConnectionError("gone")


def result_key(plan_id: str) -> str:
    return f"result-{plan_id}"


def is_end(text: str) -> bool:
    return text == "the result"


class Place:
    """A fake Redis with a ledger and a listener on it."""

    def __init__(self, settings: Settings) -> None:
        self.server = fakeredis.FakeServer()
        self.client = fakeredis.FakeRedis(decode_responses=True, server=self.server)
        self.ledger = Ledger(self.client, settings)
        self.line = AsyncLine(self._async_client())
        self.subscriber = self._async_client()
        waiter = AsyncWaiter(self.line, settings)
        self.listener = Listener(self.subscriber, waiter, self.ledger, result_key, settings, is_end=is_end)

    def _async_client(self) -> fakeredis.FakeAsyncRedis:
        return fakeredis.FakeAsyncRedis(decode_responses=True, server=self.server)

    def submit(self, *plan_ids: str) -> None:
        for plan_id in plan_ids:
            order = Order(plan=abort_plan(service=plan_id), timeout_ms=30_000)
            assert self.ledger.submit([Submission(plan_id, order)]) == [True]

    def end(self, plan_id: str) -> None:
        leases = Leases(self.client, Settings())
        [lease] = leases.fetch([Named(plan_id, 0)], 0).named
        assert isinstance(lease, Lease)
        finished(leases, lease)


@asynccontextmanager
async def place(settings: Settings = SETTINGS) -> AsyncIterator[Place]:
    made = Place(settings)
    try:
        yield made
    finally:
        await made.listener.aclose()
        await made.line.aclose()
        await made.subscriber.aclose()
        made.client.close()


async def until(condition: Callable[[], object]) -> None:
    await asyncio.to_thread(eventually, condition)


def test_each_watch_gets_the_ends_of_its_plans() -> None:
    async def scenario() -> None:
        async with place() as here:
            here.submit("p1", "p2")
            with here.listener.watch(["p1", "p2"]) as both, here.listener.watch(["p1"]) as one:
                await until(lambda: here.listener._subscription.plan_ids)
                here.end("p1")
                assert await both.ends(WITHIN_S) == {"p1": "the result"}
                assert await one.ends(WITHIN_S) == {"p1": "the result"}
                here.end("p2")
                assert await both.ends(WITHIN_S) == {"p2": "the result"}
                assert await both.ends(0.01) == {}
                assert here.listener._watches == {}

    run(scenario())


def test_what_ended_before_is_found_at_once_and_what_is_unknown_has_no_result() -> None:
    async def scenario() -> None:
        async with place() as here:
            here.submit("p1", "p2", "p3")
            here.end("p1")
            here.end("p2")
            here.client.delete(result_key("p2"))
            here.client.hset(here.ledger.plan_key("p4"), "state", "odd")
            here.client.set(here.ledger.plan_key("p6"), "no hash")
            found: dict[str, object] = {}
            with here.listener.watch([f"p{number}" for number in range(1, 7)]) as watch:
                while len(found) < 5:
                    found |= await watch.ends(WITHIN_S)
            assert isinstance(found.pop("p4"), RecordUnreadableError)
            assert isinstance(found.pop("p6"), RecordUnreadableError)
            assert found == {"p1": "the result", "p2": PlanState.OBSERVED, "p5": None}

    run(scenario())


def test_what_is_stored_or_published_of_a_plan_in_flight_ends_no_wait() -> None:
    async def scenario() -> None:
        async with checked("p1") as (here, listener, _):
            here.client.set(result_key("p1"), "a retry")
            with listener.watch(["p1"]) as watch:
                await subscribed(listener, "p1")
                here.client.publish(result_key("p1"), "a retry")
                here.end("p1")
                assert await watch.ends(WITHIN_S) == {"p1": "the result"}

    run(scenario())


def test_a_message_that_may_be_an_end_has_its_plan_looked_up() -> None:
    async def scenario() -> None:
        async with checked("p1") as (here, listener, _):
            with listener.watch(["p1"]) as watch:
                await subscribed(listener, "p1")
                listener._is_end = lambda _: False
                here.end("p1")
                assert await watch.ends(WITHIN_S) == {"p1": "the result"}

    run(scenario())


def test_plans_that_redis_lost_are_noticed_by_a_check() -> None:
    async def scenario() -> None:
        async with place(QUICK) as here:
            here.submit("p1")
            with here.listener.watch(["p1"]) as watch:
                await until(lambda: here.listener._subscription.plan_ids)
                here.client.delete(here.ledger.plan_key("p1"))
                assert await watch.ends(math.inf) == {"p1": None}

    run(scenario())


def test_a_watch_that_ends_frees_only_its_own_place() -> None:
    async def scenario() -> None:
        async with place() as here:
            here.submit("p1", "p2")
            with here.listener.watch(["p1"]) as stays:
                with here.listener.watch(["p1", "p2"]):
                    assert {each: len(of) for each, of in here.listener._watches.items()} == {
                        "p1": 2,
                        "p2": 1,
                    }
                assert here.listener._watches == {"p1": [stays]}
                here.end("p1")
                assert await stays.ends(WITHIN_S) == {"p1": "the result"}

    run(scenario())


def test_the_end_of_a_plan_that_is_awaited_no_longer_disturbs_no_watch() -> None:
    async def scenario() -> None:
        async with place() as here:
            here.submit("p1", "p2")
            with here.listener.watch(["p2"]) as stays:
                with here.listener.watch(["p1"]):
                    await confirmed(here.listener, "p1", "p2")
                here.end("p1")
                here.end("p2")
                assert await stays.ends(WITHIN_S) == {"p2": "the result"}

    run(scenario())


def test_a_check_that_is_due_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float | None] = []
    timeout = asyncio.timeout

    def noted(seconds: float | None) -> asyncio.Timeout:
        limits.append(seconds)
        return timeout(seconds)

    async def scenario() -> None:
        async with place() as here:
            here.listener._check_at = time.monotonic() - 5.0
            monkeypatch.setattr(asyncio, "timeout", noted)
            await here.listener._pause()
            monkeypatch.undo()

    run(scenario())
    assert limits == [0.0]


def test_closing_ends_each_watch_and_keeps_doing_so() -> None:
    async def scenario() -> None:
        async with place() as here:
            here.submit("p1")
            with here.listener.watch(["p1"]) as watch, here.listener.watch(["p1"]) as other:
                await here.listener.aclose()
                for each in (watch, watch, other):
                    with pytest.raises(DispatcherClosedError, match="closed"):
                        await each.ends(WITHIN_S)

    run(scenario())


def test_what_arrived_before_an_error_is_not_lost() -> None:
    async def scenario() -> None:
        async with place() as here:
            watch = here.listener.watch(["p1", "p2"])
            watch.on_end("p1", "x")
            watch.on_error(LedgerUnavailableError("gone"))
            assert await watch.ends(WITHIN_S) == {"p1": "x"}
            with pytest.raises(LedgerUnavailableError, match="gone"):
                await watch.ends(WITHIN_S)

    run(scenario())


class Refusing:
    """A connection for subscriptions that fails with the given errors, one a call."""

    def __init__(self, client: Any, *errors: redis.RedisError) -> None:
        self._pubsub = client.pubsub()
        self.errors = list(errors)
        self.subscribed: list[tuple[str, ...]] = []

    def pubsub(self) -> Refusing:
        return self

    async def subscribe(self, *channels: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        self.subscribed.append(channels)
        await self._pubsub.subscribe(*channels)

    async def unsubscribe(self, *channels: str) -> None:
        if self.errors:
            raise self.errors.pop(0)
        await self._pubsub.unsubscribe(*channels)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._pubsub, name)


def refusing(here: Place, *errors: redis.RedisError) -> Listener:
    client: Any = Refusing(here.subscriber, *errors)
    return Listener(client, AsyncWaiter(here.line, QUICK), here.ledger, result_key, QUICK, is_end=is_end)


def test_trouble_with_a_subscription_only_delays_an_end(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with place(QUICK) as here:
            here.submit("p1", "p2")
            listener = refusing(here, GONE, GONE)
            with listener.watch(["p1", "p2"]) as watch:
                here.end("p1")
                assert await watch.ends(WITHIN_S) == {"p1": "the result"}
            await listener.aclose()

    caplog.set_level("INFO")
    run(scenario())
    told = [record.getMessage() for record in caplog.records if "subscribes" in record.getMessage()]
    assert told == ["subscribes again to the results of 2 plans: gone"] * 2


def test_trouble_that_lasts_is_asked_for_in_growing_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def pause(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    async def scenario() -> None:
        async with place() as here:
            here.submit("p1", "p2")
            client: Any = Refusing(here.subscriber, *[GONE] * 23)
            listener = Listener(
                client, AsyncWaiter(here.line, QUICK), here.ledger, result_key, QUICK, is_end=is_end
            )
            with listener.watch(["p1"]) as watch:
                here.end("p1")
                assert await watch.ends(WITHIN_S) == {"p1": "the result"}
                client.errors.append(GONE)
                with listener.watch(["p2"]) as later:
                    here.end("p2")
                    assert await later.ends(WITHIN_S) == {"p2": "the result"}
            await listener.aclose()

    with monkeypatch.context() as here:
        here.setattr(asyncio, "sleep", pause)
        run(scenario())
    assert pauses == pytest.approx([min(number / 10, 2.0) for number in range(23)] + [0.0])


def test_what_does_not_pass_ends_all_watches() -> None:
    async def scenario() -> None:
        async with place(QUICK) as here:
            here.submit("p1")
            listener = refusing(here, redis.AuthenticationError("no"))
            with (
                listener.watch(["p1"]) as watch,
                pytest.raises(LedgerRefusedError, match="right user and password") as caught,
            ):
                await watch.ends(WITHIN_S)
            assert caught.value.message.startswith(f"Redis at {QUICK.redis_address} ")
            await listener.aclose()

    run(scenario())


def broken(_: str) -> str:
    raise ZeroDivisionError


def test_a_defect_ends_all_watches_with_its_name() -> None:
    async def scenario() -> None:
        async with place() as here:
            here.submit("p1")
            asyncs = AsyncWaiter(here.line, QUICK)
            listener = Listener(here.subscriber, asyncs, here.ledger, broken, QUICK, is_end=is_end)
            with (
                listener.watch(["p1"]) as watch,
                pytest.raises(ExecutorClientError, match="waiting for plans failed: ZeroDivisionError"),
            ):
                await watch.ends(WITHIN_S)
            await listener.aclose()

    run(scenario())


def test_a_subscription_names_what_is_confirmed_and_settled() -> None:
    async def scenario() -> None:
        async with place() as here:
            heard: list[tuple[str, str]] = []
            woken = asyncio.Event()
            subscription = Subscription(here.subscriber, lambda *each: heard.append(each), woken.set)
            await subscription.add({"r1": "p1", "r2": "p2"})
            assert subscription.settled() == frozenset()
            await asyncio.wait_for(woken.wait(), WITHIN_S)
            assert subscription.take_confirmed() == {"p1", "p2"}
            assert subscription.take_confirmed() == set()
            assert subscription.settled() == frozenset()
            assert subscription.settled() == {"p1", "p2"}
            here.client.publish("r1", "x")
            here.client.publish("r3", "y")
            await until(lambda: heard)
            assert heard == [("p1", "x")]
            subscription.raise_error()
            await subscription.rest(2)
            assert subscription.plan_ids == ["p1", "p2"]
            await subscription.rest(1)
            assert (subscription.plan_ids, subscription.settled()) == ([], frozenset())
            await subscription.aclose()

    run(scenario())


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The monotonic clock, which moves by hand."""
    now_s = [1_000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now_s[0])
    return now_s


def test_a_slice_is_two_seconds_or_half_of_what_redis_may_take() -> None:
    assert longest_slice_s(SETTINGS) == 2.0
    assert longest_slice_s(QUICK) == 0.5


def test_a_wait_blocks_for_a_slice_and_in_a_hurry_for_less(clock: list[float]) -> None:
    def seconds(timeout_s: float | None) -> float:
        return float(_Patience(SETTINGS, timeout_s).words(BLOCK)[-1])

    assert seconds(None) == 2.0
    assert seconds(100.0) == 2.0
    assert seconds(12.0) == 2.0  # twice the timeout of Redis and a slice
    assert seconds(11.9) == 0.25
    assert seconds(0.125) == 0.125
    assert seconds(0.0) == SHORTEST_BLOCK_SEC


def test_a_reply_may_take_as_long_as_the_wait_and_a_little_longer(clock: list[float]) -> None:
    assert _Patience(SETTINGS, None).reply_within_s is None
    patience = _Patience(SETTINGS, 3.0)
    clock[0] += 1.0
    assert (patience.left_s, patience.reply_within_s) == (2.0, 2.5)
    clock[0] += 9.0
    assert patience.left_s == 0.0


def test_trouble_is_waited_out_in_growing_pauses_until_redis_has_been_away_for_a_minute(
    clock: list[float],
) -> None:
    patience = _Patience(SETTINGS, None)
    pauses = []
    for _ in range(10):
        pauses.append(patience.pause_s(BLOCK, GONE))
        clock[0] += AWAY_SEC / 10 - 0.001
    assert 0.1 <= pauses[0] <= 0.2
    assert all(1.0 <= pause <= 2.0 for pause in pauses[-4:])
    patience.replied(Send([]))
    assert patience.pause_s(BLOCK, GONE) >= 1.0  # only a blocking request that succeeds ends the trouble
    patience.replied(BLOCK)
    assert patience.pause_s(BLOCK, GONE) <= 0.2
    clock[0] += AWAY_SEC
    with pytest.raises(LedgerUnavailableError, match="did not answer: gone"):
        patience.pause_s(BLOCK, GONE)


def test_a_wait_that_is_over_or_that_nothing_helps_ends(clock: list[float]) -> None:
    patience = _Patience(SETTINGS, 0.15)
    assert patience.pause_s(BLOCK, GONE) <= 0.15
    clock[0] += 0.15
    with pytest.raises(LedgerUnavailableError):
        patience.pause_s(BLOCK, GONE)
    with pytest.raises(LedgerRefusedError):
        _Patience(SETTINGS, None).pause_s(BLOCK, redis.ResponseError("WRONGTYPE x"))


def test_a_redis_that_only_does_not_block_is_looked_at_for_as_long_as_the_wait(clock: list[float]) -> None:
    patience = _Patience(SETTINGS, None)
    for _ in range(3):
        assert patience.pause_s(BLOCK, OOM) > 0
        clock[0] += AWAY_SEC
    patience.pause_s(Send([]), OOM)
    clock[0] += AWAY_SEC
    with pytest.raises(LedgerUnavailableError, match="OOM"):
        patience.pause_s(Send([]), OOM)


class Shaky:
    """A line over which the first calls fail with the given errors."""

    def __init__(self, line: AsyncLine) -> None:
        self._line = line
        self.errors: list[redis.RedisError] = []

    async def send(self, send: Send) -> list[Any]:
        if self.errors:
            raise self.errors.pop(0)
        return await self._line.send(send)


@asynccontextmanager
async def checked(
    *plan_ids: str, client: Callable[[Place], Any] = lambda here: here.subscriber
) -> AsyncIterator[tuple[Place, Listener, Shaky]]:
    """A place with these plans, a listener that checks only when the test says so, and its line."""
    async with place() as here:
        here.submit(*plan_ids)
        shaky: Any = Shaky(here.line)
        waiter = AsyncWaiter(shaky, QUICK)
        listener = Listener(client(here), waiter, here.ledger, result_key, QUICK, is_end=is_end)
        listener._check_every_s = 3_600.0
        try:
            yield here, listener, shaky
        finally:
            await listener.aclose()


async def confirmed(listener: Listener, *plan_ids: str) -> None:
    """The subscriptions to these plans are confirmed."""
    its = listener._subscription
    await until(lambda: set(its.plan_ids) >= set(plan_ids) and not (its._asked or its._confirmed))


async def subscribed(listener: Listener, *plan_ids: str) -> None:
    """They are, and a check has seen that."""
    await confirmed(listener, *plan_ids)
    await listener._check_all()


def deaf(listener: Listener) -> None:
    """Have all messages lost from now on."""
    listener._subscription._on_message = lambda *_: None


def test_a_check_finds_what_no_message_said_and_subscribes_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with checked("p1", "p2", "p3") as (here, listener, shaky):
            with listener.watch(["p1", "p2"]) as watch:
                await subscribed(listener, "p1", "p2")
                assert listener._check_at > time.monotonic() + 3_000
                deaf(listener)
                with listener.watch(["p3"]):
                    await confirmed(listener, "p3")
                    here.end("p3")  # whose subscription no check has seen
                    here.end("p1")
                    shaky.errors = [GONE]
                    await listener._check_all()
                    assert await watch.ends(WITHIN_S) == {"p1": "the result"}
                    await until(lambda: listener._subscription.plan_ids == ["p2"])

    caplog.set_level("INFO")
    run(scenario())
    assert [text for text in caplog.messages if "subscribes" in text] == [
        "subscribes again to the results of 1 plans: its messages do not arrive"
    ]


def test_one_task_serves_all_watches_and_ends_once_there_are_none() -> None:
    async def scenario() -> None:
        async with checked("p1", "p2", "p3") as (here, listener, _):
            with listener.watch(["p1"]) as first:
                tasks = asyncio.all_tasks()
                with listener.watch(["p2"]):
                    assert asyncio.all_tasks() == tasks
                await subscribed(listener, "p1")
                here.end("p1")
                assert await first.ends(WITHIN_S) == {"p1": "the result"}
                await until(lambda: listener._server is not None and listener._server.done())
            with listener.watch(["p3"]):
                await confirmed(listener, "p3")
                assert listener._server is not None
                assert not listener._server.done()
            await until(lambda: listener._server is not None and listener._server.done())

    run(scenario())


def test_plans_are_subscribed_to_many_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dispatcher.ledger.listener.PAGE", 2)
    noting: list[Any] = []

    def client(here: Place) -> Any:
        noting.append(Refusing(here.subscriber))
        return noting[0]

    async def scenario() -> None:
        async with checked("p1", "p2", "p3", client=client) as (_, listener, __):
            with listener.watch(["p1", "p2", "p3"]):
                await confirmed(listener, "p1", "p2", "p3")

    run(scenario())
    assert noting[0].subscribed == [("result-p1", "result-p2"), ("result-p3",)]


def test_trouble_while_plans_are_looked_up_only_delays_their_ends() -> None:
    async def scenario() -> None:
        async with checked("p1") as (here, listener, shaky):
            here.end("p1")
            shaky.errors = [GONE]
            with listener.watch(["p1"]) as watch:
                assert await watch.ends(WITHIN_S) == {"p1": "the result"}

    run(scenario())


def test_a_check_that_misses_nothing_leaves_the_subscriptions_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def scenario() -> None:
        async with checked("p1", "p2") as (here, listener, _):
            with listener.watch(["p1"]):
                await subscribed(listener, "p1")
                deaf(listener)
                with listener.watch(["p2"]) as later:
                    await confirmed(listener, "p2")
                    here.end("p2")
                    await listener._check_all()
                    assert await later.ends(WITHIN_S) == {"p2": "the result"}
                await listener._check_all()
                assert listener._subscription.plan_ids == ["p1", "p2"]

    caplog.set_level("INFO")
    run(scenario())
    assert not [text for text in caplog.messages if "subscribes" in text]


def test_subscriptions_that_are_left_over_are_ended_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("dispatcher.ledger.listener.MOST_LEFT_OVER", 2)
    refusing: list[Any] = []

    def client(here: Place) -> Any:
        refusing.append(Refusing(here.subscriber))
        return refusing[0]

    async def scenario() -> None:
        async with checked("p1", "p2", "p3", client=client) as (here, listener, _):
            with listener.watch(["p1", "p2", "p3"]) as watch:
                await subscribed(listener, "p1", "p2", "p3")
                for plan_id, left in (("p1", ["p1", "p2", "p3"]), ("p2", ["p3"])):
                    here.end(plan_id)
                    assert await watch.ends(WITHIN_S) == {plan_id: "the result"}
                    await listener._check_all()
                    assert listener._subscription.plan_ids == left
            for number in range(4, 7):
                here.submit(f"p{number}")
            with listener.watch(["p4", "p5", "p6"]) as watch:
                await subscribed(listener, "p4", "p5", "p6")
                here.end("p4")
                assert await watch.ends(WITHIN_S) == {"p4": "the result"}
                refusing[0].errors = [GONE]
                await listener._check_all()
                await until(lambda: listener._subscription.plan_ids == ["p5", "p6"])

    caplog.set_level("INFO")
    run(scenario())
    assert [text for text in caplog.messages if "subscribes" in text] == [
        "subscribes again to the results of 2 plans: gone"
    ]


class Line:
    """Answers with what it was given, one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sent: list[Send] = []

    async def send(self, send: Send) -> list[Any]:
        self.sent.append(send)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if answer is asyncio.sleep:
            await asyncio.sleep(WITHIN_S)
        return list(answer)


def waiter(*answers: Any) -> AsyncWaiter:
    line: Any = Line(*answers)
    return AsyncWaiter(line, QUICK)


def test_in_asyncio_trouble_is_waited_out_and_the_rest_is_the_callers() -> None:
    async def scenario() -> None:
        wrong = redis.ResponseError("WRONGTYPE x")
        assert await waiter([OOM], GONE, [["x"]]).wait(values_of(["a"]), None) == ["x"]
        here = f"^Redis at {QUICK.redis_address}"
        with pytest.raises(LedgerRefusedError, match=f"{here} refused a command: WRONGTYPE"):
            await waiter([wrong]).wait(values_of(["a"]), None)
        with pytest.raises(LedgerUnavailableError, match=f"{here} did not answer: gone"):
            await waiter(GONE).wait(values_of(["a"]))
        with pytest.raises(LedgerUnavailableError, match=f"{here} did not answer: no reply in time"):
            await waiter(asyncio.sleep).wait(values_of(["a"]))

    run(scenario())


def test_in_asyncio_nothing_blocks() -> None:
    async def scenario() -> None:
        def wait() -> Any:
            return (yield BLOCK)

        began_s = time.monotonic()
        assert await waiter().wait(wait(), None) is None
        assert time.monotonic() - began_s >= ASK_AGAIN_SEC - 0.01
        async with asyncio.timeout(WITHIN_S):
            assert await waiter().wait(wait(), 0) is None

    run(scenario())


def test_a_thread_learns_that_redis_is_gone_or_that_it_is_closed(free_tcp_port: int) -> None:
    settings = Settings(redis_url=SecretStr(f"redis://127.0.0.1:{free_tcp_port}/0"), redis_timeout_sec=1)
    waiter = Waiter(settings)
    with pytest.raises(LedgerUnavailableError, match="did not answer"):
        waiter.wait(values_of(["a"]))
    waiter.close()


class Answering:
    """A client whose round trips end with what was given, one after the other."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.sent: list[list[Any]] = []
        self.dropped: list[bool] = []
        self.connection_pool = self

    def pipeline(self, *, transaction: bool) -> Answering:
        assert not transaction
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Nothing is held."""

    def execute_command(self, *words: Any) -> None:
        self.sent.append(list(words))

    def execute(self, *, raise_on_error: bool) -> list[Any]:
        assert not raise_on_error
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return list(answer)

    def disconnect(self, *, inuse_connections: bool) -> None:
        self.dropped.append(inuse_connections)

    def close(self) -> None:
        """Nothing is open."""


def thread_waiter(patient: Any, hasty: Any) -> Waiter:
    """A waiter of threads over these clients."""
    made = Waiter(QUICK)
    made.close()
    made._client, made._hasty_client = patient, hasty
    return made


def block() -> Any:
    """A wait for one answer of a command that blocks."""
    return (yield BLOCK)


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """For how long threads have paused. No time passes meanwhile."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def test_a_thread_blocks_with_patience_unless_the_wait_ends_soon() -> None:
    patient, hasty = Answering(["x"], ["y", None]), Answering(["z"])
    waiter = thread_waiter(patient, hasty)
    assert waiter.wait(block(), None) == "x"
    assert patient.sent == [["BLMOVE", "a", "a", "LEFT", "LEFT", 0.5]]
    assert waiter.wait(_two(), None) == ["y", None]
    assert waiter.wait(block(), 1.0) == "z"
    assert hasty.sent == [["BLMOVE", "a", "a", "LEFT", "LEFT", 0.25]]


def _two() -> Any:
    return (yield Send([["GET", "a"], ["GET", "b"]]))


def test_a_thread_waits_out_trouble_and_a_redis_that_answers_again_is_new_to_it(slept: list[float]) -> None:
    def twice() -> Any:
        return (yield BLOCK), (yield BLOCK)

    answers = [*[GONE] * 5, ["x"], GONE, ["y"]]
    assert thread_waiter(Answering(*answers), None).wait(twice(), None) == ("x", "y")
    assert slept[4] >= 1.0
    assert slept[5] <= 0.2


def test_a_thread_whose_redis_does_not_block_goes_on_until_its_wait_ends(slept: list[float]) -> None:
    for answer in (OOM, [OOM]):
        assert thread_waiter(Answering(answer), None).wait(block(), None) is None
        assert thread_waiter(None, Answering(answer)).wait(block(), 0.0) is None
    assert [pause > 0 for pause in slept] == [True, False] * 2


def test_a_thread_without_patience_learns_at_once_what_redis_says(slept: list[float]) -> None:
    with pytest.raises(LedgerUnavailableError, match="gone"):
        thread_waiter(None, Answering(GONE)).wait(block())
    wrong = redis.ResponseError("WRONGTYPE x")
    with pytest.raises(LedgerRefusedError, match=f"^Redis at {QUICK.redis_address} refused .*: WRONGTYPE x"):
        thread_waiter(Answering([wrong]), None).wait(block(), None)
    assert slept == []


def test_each_close_ends_the_waits_of_threads_that_have_begun() -> None:
    patient, hasty = Answering(), Answering()
    waiter = thread_waiter(patient, hasty)

    def closing() -> Any:
        waiter.close()
        yield BLOCK

    for _ in range(2):
        with pytest.raises(DispatcherClosedError, match=CLOSED):
            waiter.wait(closing(), None)
    assert patient.dropped == hasty.dropped == [False, False]
    patient.answers.append(["x"])
    assert waiter.wait(block(), None) == "x"


def test_a_subscription_that_is_ended_delivers_no_more() -> None:
    async def scenario() -> None:
        async with place() as here:
            heard: list[str] = []
            subscription = Subscription(here.subscriber, lambda plan_id, _: heard.append(plan_id), _nothing)
            await subscription.add({"r1": "p1", "r2": "p2"})
            await until(lambda: len(here.client.pubsub_channels()) == 2)
            await subscription.remove({"p1": "r1", "unknown": "r9"})
            assert subscription.plan_ids == ["p2"]
            await until(lambda: here.client.pubsub_channels() == ["r2"])
            assert (here.client.publish("r1", "x"), here.client.publish("r2", "y")) == (0, 1)
            await until(lambda: heard == ["p2"])
            await subscription.aclose()

    run(scenario())


class Scripted:
    """A connection for subscriptions that delivers these messages at once, and breaks on request."""

    def __init__(self, messages: list[tuple[str, str, str]]) -> None:
        self.messages = [dict(zip(("type", "channel", "data"), each, strict=True)) for each in messages]
        self.breaks = asyncio.Event()

    def pubsub(self) -> Scripted:
        return self

    async def subscribe(self, *channels: str) -> None:
        """Confirmed only by a message."""

    async def aclose(self) -> None:
        """Nothing is open."""

    async def get_message(self, **_: Any) -> dict[str, str]:
        if not self.messages:
            await self.breaks.wait()
            raise GONE
        return self.messages.pop(0)


def scripted(messages: list[tuple[str, str, str]], wake: Callable[[], None]) -> tuple[Any, Subscription]:
    client: Any = Scripted(messages)
    return client, Subscription(client, lambda *_: None, wake)


def test_a_connection_that_breaks_wakes_who_subscribed() -> None:
    async def scenario() -> None:
        woken = asyncio.Event()
        client, subscription = scripted([], woken.set)
        await subscription.add({"r1": "p1"})
        subscription.raise_error()
        assert not woken.is_set()
        client.breaks.set()
        await woken.wait()
        with pytest.raises(redis.ConnectionError, match="gone"):
            subscription.raise_error()
        await subscription.aclose()

    run(scenario())


def test_other_tasks_have_their_turn_between_many_messages() -> None:
    async def scenario() -> None:
        before = asyncio.all_tasks()
        client, subscription = scripted([("message", "r1", "x")] * 120, _nothing)
        await subscription.add({"r1": "p1"})
        left = []
        while client.messages:
            left.append(len(client.messages))
            await asyncio.sleep(0)
        assert left == [120, 120 - MESSAGES_IN_A_ROW, 120 - 2 * MESSAGES_IN_A_ROW]
        await subscription.aclose()
        assert asyncio.all_tasks() == before  # nothing reads on

    run(scenario())


def test_some_hundred_confirmed_plans_are_looked_up_before_the_others_are_confirmed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dispatcher.ledger.subscription.CONFIRMED_TOGETHER", 2)

    async def scenario() -> None:
        for number in (1, 2):
            woken = asyncio.Event()
            messages = [("subscribe", "r1", "1"), ("subscribe", "r2", "2")][:number]
            client, subscription = scripted(messages, woken.set)
            await subscription.add({"r1": "p1", "r2": "p2", "r3": "p3"})
            while client.messages:  # noqa: ASYNC110 (a few turns of the loop)
                await asyncio.sleep(0)
            assert woken.is_set() == (number == 2)
            await subscription.aclose()

    run(scenario())


def _nothing() -> None:
    """Nothing is woken."""
