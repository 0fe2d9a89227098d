"""All tasks of a loop share one connection, and none gets another's replies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import fakeredis
import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st
from support.event_loop import run

from dispatcher import DispatcherClosedError
from dispatcher.ledger.exchanges import Send, drive, drive_async, exchanging
from dispatcher.ledger.line import MOST_COMMANDS, AsyncLine

if TYPE_CHECKING:
    from collections.abc import Sequence


def fake_client() -> fakeredis.FakeAsyncRedis:
    return fakeredis.FakeAsyncRedis(decode_responses=True, server=fakeredis.FakeServer())


class CountingLine(AsyncLine):
    """Notes how many tasks share each round trip."""

    def __init__(self) -> None:
        super().__init__(fake_client())
        self.shared: list[int] = []
        self.error: Exception | None = None

    async def _round_trip(self, sends: Sequence[Send]) -> list[list[object]]:
        self.shared.append(len(sends))
        if self.error is not None:
            raise self.error
        return await super()._round_trip(sends)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.sets(st.integers(0, 29)))
def test_each_task_gets_its_own_replies_even_if_others_are_cancelled(
    sizes: list[int], cancelled: set[int]
) -> None:
    async def ask(line: AsyncLine, number: int, size: int) -> list[str]:
        return await line.send(Send([["ECHO", f"{number}-{each}"] for each in range(size)]))

    async def scenario() -> None:
        line = CountingLine()
        tasks = [asyncio.create_task(ask(line, number, size)) for number, size in enumerate(sizes)]
        await asyncio.sleep(0)
        for number in cancelled & set(range(len(tasks))):
            tasks[number].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for number, (size, outcome) in enumerate(zip(sizes, outcomes, strict=True)):
            if number in cancelled:
                assert isinstance(outcome, asyncio.CancelledError)
            else:
                assert outcome == [f"{number}-{each}" for each in range(size)]
        assert len(line.shared) <= 1
        await line.aclose()

    run(scenario())


def test_an_error_reply_belongs_only_to_its_command() -> None:
    async def scenario() -> None:
        line = CountingLine()
        wrong, right = await asyncio.gather(
            line.send(Send([["HGET", "x"]])), line.send(Send([["ECHO", "y"]]))
        )
        assert isinstance(wrong[0], redis.ResponseError)
        assert right == ["y"]
        await line.aclose()

    run(scenario())


def test_a_round_trip_carries_no_more_than_may_hold_up_the_loop() -> None:
    async def scenario(commands: int) -> list[int]:
        line = CountingLine()
        sends = [Send([["ECHO", "x"]] * commands) for _ in range(MOST_COMMANDS // commands + 1)]
        await asyncio.gather(*map(line.send, sends))
        await line.aclose()
        return line.shared

    for commands in (1, 2):
        assert run(scenario(commands)) == [MOST_COMMANDS // commands, 1]


def test_an_error_reaches_all_tasks_that_shared_the_round_trip_and_no_later_one() -> None:
    async def scenario() -> None:
        line = CountingLine()
        line.error = redis.ConnectionError("away")
        sends = [line.send(Send([["ECHO", "x"]])) for _ in range(2)]
        outcomes = await asyncio.gather(*sends, return_exceptions=True)
        assert [type(each) for each in outcomes] == [redis.ConnectionError] * 2
        line.error = None
        assert await line.send(Send([["ECHO", "x"]])) == ["x"]
        await line.aclose()

    run(scenario())


def test_closing_the_line_ends_the_calls_that_wait() -> None:
    async def scenario() -> None:
        line = CountingLine()
        waiting = asyncio.create_task(line.send(Send([["ECHO", "x"]])))
        await asyncio.sleep(0)
        await line.aclose()
        with pytest.raises(DispatcherClosedError):
            await waiting

    run(scenario())


class Noting:
    """A client that notes how its connections are dropped: all of them, or only those at rest."""

    def __init__(self) -> None:
        self.dropped_in_use: list[bool] = []
        self.connection_pool = self
        client = fake_client()
        self.pipeline, self.aclose = client.pipeline, client.aclose

    async def disconnect(self, *, inuse_connections: bool = True) -> None:
        self.dropped_in_use.append(inuse_connections)


def test_a_new_connection_replaces_only_those_at_rest() -> None:
    async def scenario() -> None:
        client: Any = Noting()
        line = AsyncLine(client)
        assert await line.send(Send([["ECHO", "x"]])) == ["x"]
        assert client.dropped_in_use == []
        assert await line.send(Send([["ECHO", "y"]], anew=True)) == ["y"]
        assert client.dropped_in_use == [False]
        await line.aclose()

    run(scenario())


READONLY = redis.ReadOnlyError("READONLY You can't write against a read only replica.")


def test_what_another_server_may_take_is_sent_once_more_over_a_new_connection() -> None:
    sent: list[Send] = []

    def answer(send: Send) -> list[object]:
        sent.append(send)
        return ["again"] * len(send.commands) if send.anew else ["first", READONLY]

    async def answer_async(send: Send) -> list[object]:
        return answer(send)

    commands = [["GET", "a"], ["SET", "b", "c"]]
    assert drive(exchanging(commands), answer) == ["first", "again"]
    assert run(drive_async(exchanging(commands), answer_async)) == ["first", "again"]
    assert sent == [Send(commands), Send(commands[1:], anew=True)] * 2
