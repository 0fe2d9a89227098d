"""Exchanges with Redis: which commands follow which replies, apart from the I/O.

An exchange is a generator: it yields the commands to send and is sent their replies. So it is written once,
for threads and for asyncio.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

from dispatcher.ledger.connection import is_other_server, replies_of

if TYPE_CHECKING:
    import redis

__all__ = [
    "Exchange",
    "Send",
    "asking",
    "carry_out",
    "drive",
    "drive_async",
    "exchanging",
    "send_over",
]

T = TypeVar("T")
Request = TypeVar("Request")


@dataclass(frozen=True, slots=True)
class Send:
    """Commands for one round trip. The reply is a list: one reply each, perhaps a `redis.ResponseError`."""

    commands: Sequence[Sequence[Any]]
    anew: bool = False
    """Whether a new connection is needed, because the server behind the present one has changed its role."""


Exchange = Generator[Send, Any, T]
"""An exchange that ends with a `T`."""


def exchanging(commands: Sequence[Sequence[Any]]) -> Exchange[list[Any]]:
    """Send the commands in one round trip; the reply to each, which may be a `redis.ResponseError`.

    Those that another server may take are sent once more, over a new connection: a primary that became a
    replica keeps its connections, and refuses all that comes over them.
    """
    replies: list[Any] = yield Send(commands)
    refused = [number for number, reply in enumerate(replies) if is_other_server(reply)]
    if refused:
        again = yield Send([commands[number] for number in refused], anew=True)
        for number, reply in zip(refused, again, strict=True):
            replies[number] = reply
    return replies


def asking(commands: Sequence[Sequence[Any]]) -> Exchange[list[Any]]:
    """`exchanging`, if each command has a reply. Raises the first `redis.ResponseError` otherwise."""
    return replies_of((yield from exchanging(commands)))


def carry_out(client: redis.Redis, steps: Exchange[T]) -> T:
    """Carry an exchange out over this client; what it ends with.

    Raises `redis.RedisError` if there are no replies. All commands may have been carried out even so.
    """
    return drive(steps, lambda send: send_over(client, send))


def send_over(client: redis.Redis, send: Send) -> list[Any]:
    """The replies to one round trip over this client."""
    if send.anew:
        client.connection_pool.disconnect(inuse_connections=False)
    with client.pipeline(transaction=False) as pipe:
        for command in send.commands:
            pipe.execute_command(*command)  # type: ignore[no-untyped-call]
        replies: list[Any] = pipe.execute(raise_on_error=False)
        return replies


def drive(steps: Generator[Request, Any, T], answer: Callable[[Request], Any]) -> T:
    """What the generator ends with, if each request that it yields is answered so."""
    reply = None
    while True:
        try:
            request = steps.send(reply)
        except StopIteration as stop:
            return cast("T", stop.value)
        reply = answer(request)


async def drive_async(steps: Generator[Request, Any, T], answer: Callable[[Request], Awaitable[Any]]) -> T:
    """`drive`, for asyncio."""
    reply = None
    while True:
        try:
            request = steps.send(reply)
        except StopIteration as stop:
            return cast("T", stop.value)
        reply = await answer(request)
