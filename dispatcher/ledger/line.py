"""The one connection over which all tasks of an event loop send commands (`AsyncLine`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from dispatcher.ledger.group_commit import GroupCommit

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis.asyncio

    from dispatcher.ledger.exchanges import Send

__all__ = ["AsyncLine"]

MOST_COMMANDS = 200
"""The most commands of several tasks in one round trip: while replies are read, the loop is held up."""


class AsyncLine:
    """Sends the commands of all tasks that wait in one round trip: see `GroupCommit`.

    If a task is cancelled after its commands were sent, they are carried out, and the replies are dropped.
    """

    def __init__(self, client: redis.asyncio.Redis) -> None:
        self._client = client
        self._trips: GroupCommit[Send, list[Any]] = GroupCommit(
            self._round_trip, MOST_COMMANDS, lambda send: len(send.commands)
        )

    async def send(self, send: Send) -> list[Any]:
        """The replies to the commands, each perhaps a `redis.ResponseError`.

        Raises `redis.RedisError` if there are none, `DispatcherClosedError` if the line is closed meanwhile.
        """
        return await self._trips.put(send)

    async def aclose(self) -> None:
        """End the calls that wait, and close the connection. The next call opens another."""
        await self._trips.aclose()
        await self._client.aclose()

    async def _round_trip(self, sends: Sequence[Send]) -> list[list[Any]]:
        if any(send.anew for send in sends):
            await self._client.connection_pool.disconnect(inuse_connections=False)
        async with self._client.pipeline(transaction=False) as pipe:
            for send in sends:
                for command in send.commands:
                    pipe.execute_command(*command)
            replies = iter(await pipe.execute(raise_on_error=False))
        return [[next(replies) for _ in send.commands] for send in sends]
