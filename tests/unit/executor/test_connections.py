"""Clients of the API that are slow, or never say a word, on real sockets."""

from __future__ import annotations

import asyncio
import json
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import uvicorn
from fastapi import BackgroundTasks, FastAPI, Request

from executor.connections import Connections
from executor.limits import BodyLimit
from executor.refusals import refuse_in_the_contracts_words

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

WITHIN_S = 0.3
"""Of real time, which is what these bounds are about."""

LONGER_S = 1.0
OFTEN_S = 0.02
PATIENCE_S = 30.0
MANY = 200_000

REFUSED = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 900000\r\n\r\n"
ASK = b"GET /size HTTP/1.1\r\nHost: x\r\n\r\n"


def application() -> FastAPI:
    app = FastAPI()
    refuse_in_the_contracts_words(app)

    @app.api_route("/size", methods=["GET", "POST"])
    async def size(request: Request) -> int:
        return len(await request.body())

    @app.get("/slow")
    async def slow() -> str:
        await asyncio.sleep(WITHIN_S * 2)
        return "done"

    @app.get("/lingers")
    async def lingers(background: BackgroundTasks) -> str:
        background.add_task(asyncio.sleep, OFTEN_S)
        return "done"

    @app.get("/large")
    async def large() -> str:
        return "x" * MANY

    return app


@asynccontextmanager
async def served(within_s: float, max_waiting: int) -> AsyncIterator[int]:
    """The port of a server with these bounds."""
    connections = Connections(within_s, max_waiting)
    app = connections.watched(BodyLimit(application(), within_s))
    server = uvicorn.Server(
        uvicorn.Config(app, http=connections.http, ws="none", log_level="critical", timeout_keep_alive=60)
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = asyncio.create_task(server.serve([listener]))
        yield listener.getsockname()[1]
        server.should_exit = True
        await running


class Client:
    """A connection that says what it likes, when it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    @asynccontextmanager
    async def to(cls, port: int) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1_000)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()

    async def ask(self, request: bytes = ASK) -> tuple[int, object]:
        """Send a whole request; the status, and the JSON of the answer."""
        self.writer.write(request)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = next(line for line in head.splitlines() if line.startswith("content-length: "))
        content = await self.reader.readexactly(int(length.rpartition(" ")[2]))
        return int(head.split()[1]), json.loads(content)

    async def drip(self, what: bytes) -> None:
        """Send this again and again until the server has had enough."""
        while not self.writer.is_closing() and not self.reader.at_eof():
            self.writer.write(what)
            await asyncio.sleep(OFTEN_S)

    async def ended(self) -> bytes:
        """What came until the server ended the connection."""
        try:
            return await self.reader.read()
        except ConnectionError:
            return b""


def within_a_while(
    scenario: Callable[[int], Awaitable[None]], *, within_s: float = WITHIN_S, max_waiting: int = 100
) -> float:
    """Run it with a server; how long it took."""

    async def run() -> float:
        async with asyncio.timeout(PATIENCE_S), served(within_s, max_waiting) as port:
            begun = asyncio.get_running_loop().time()
            await scenario(port)
            return asyncio.get_running_loop().time() - begun

    return asyncio.run(run())


@pytest.mark.parametrize(
    "first",
    [b"", b"GET /size HTTP/1.1\r\nHost: x\r\n", ASK, ASK + b"GET /size HTT"],
    ids=["says nothing", "sends half a head", "asks once", "asks once and sends half a head"],
)
def test_a_client_is_cut_off_in_time_that(first: bytes) -> None:
    async def scenario(port: int) -> None:
        async with Client.to(port) as client, Client.to(port) as other:
            client.writer.write(first)
            assert await other.ask() == (200, 0)
            await client.ended()

    assert within_a_while(scenario) >= WITHIN_S


@pytest.mark.parametrize(
    "first",
    [b"GET /size HTTP/1.1\r\n", ASK + b"GET /size HTTP/1.1\r\n", REFUSED],
    ids=["a head", "a second head", "a body that was refused already"],
)
def test_what_comes_bit_by_bit_gets_no_more_time(first: bytes) -> None:
    async def scenario(port: int) -> None:
        async with Client.to(port) as client, asyncio.TaskGroup() as group:
            client.writer.write(first)
            group.create_task(client.drip(b"X-Drop: x\r\n"))
            await client.ended()

    within_a_while(scenario)


@pytest.mark.parametrize("drop", [b"", b"x"], ids=["not at all", "bit by bit"])
def test_a_body_that_does_not_arrive_in_time_is_refused(drop: bytes) -> None:
    async def scenario(port: int) -> None:
        async with Client.to(port) as client, asyncio.TaskGroup() as group:
            group.create_task(client.drip(drop))
            status, content = await client.ask(
                b"POST /size HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\n123"
            )
            assert status == 408
            assert content == {"error": "too_slow", "message": "the body took more than 0.3 s"}
            await client.ended()

    within_a_while(scenario)


def test_a_client_that_never_reads_its_answers_is_cut_off() -> None:
    async def scenario(port: int) -> None:
        async with Client.to(port) as client:
            client.writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n" * 200)
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            async with asyncio.timeout(PATIENCE_S):
                while True:
                    try:
                        await client.drip(ASK)
                        break
                    except ConnectionError:
                        break

    within_a_while(scenario)


def test_the_time_that_an_answer_takes_to_make_does_not_count() -> None:
    async def scenario(port: int) -> None:
        async with Client.to(port) as client:
            assert await client.ask(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n") == (200, "done")

    within_a_while(scenario)


def test_a_request_that_came_before_the_end_of_the_one_before_it_has_its_time_too() -> None:
    async def scenario(port: int) -> None:
        async with Client.to(port) as client:
            assert await client.ask(b"GET /lingers HTTP/1.1\r\nHost: x\r\n\r\n") == (200, "done")
            assert await client.ask(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n") == (200, "done")

    within_a_while(scenario)


def test_a_connection_that_goes_on_asking_stays() -> None:
    async def scenario(port: int) -> None:
        async with Client.to(port) as client:
            loop = asyncio.get_running_loop()
            begun = loop.time()
            while (last := loop.time()) < begun + LONGER_S * 1.2:
                try:
                    assert await client.ask() == (200, 0)
                except (ConnectionError, asyncio.IncompleteReadError):  # this process was not run meanwhile
                    assert loop.time() > last + LONGER_S * 0.9
                    return

    within_a_while(scenario, within_s=LONGER_S)


def test_the_oldest_connection_without_a_request_makes_room_for_one_more() -> None:
    async def scenario(port: int) -> None:
        async with Client.to(port) as oldest, Client.to(port) as second, Client.to(port) as third:
            await oldest.ended()
            assert await second.ask() == (200, 0)
            assert await third.ask() == (200, 0)

    within_a_while(scenario, within_s=PATIENCE_S, max_waiting=2)


def test_requests_that_come_together_are_answered_one_after_the_other() -> None:
    async def scenario(port: int) -> None:
        async with Client.to(port) as client:
            assert await client.ask(ASK * 3) == (200, 0)
            assert [await client.ask(b"") for _ in range(2)] == [(200, 0)] * 2

    within_a_while(scenario)
