"""Bounds how much tasks do in one turn of their event loop (`Turns`)."""

from __future__ import annotations

import asyncio
from collections import deque

__all__ = ["Turns"]

MOST_TASKS = 50
"""How many tasks go on in one turn: each takes a part of a millisecond."""


class Turns:
    """Lets `MOST_TASKS` tasks go on in each turn of the loop, in the order in which they came."""

    def __init__(self) -> None:
        self._gone_on = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._counting = False

    async def mine(self) -> None:
        """Wait for the task's turn."""
        loop = asyncio.get_running_loop()
        if not self._counting:
            self._counting = True
            loop.call_soon(self._next_turn)
        if self._gone_on < MOST_TASKS and not self._waiting:
            self._gone_on += 1
            return
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next_turn(self) -> None:
        self._gone_on = 0
        while self._waiting and self._gone_on < MOST_TASKS:
            turn = self._waiting.popleft()
            if not turn.done():  # its task was cancelled
                turn.set_result(None)
                self._gone_on += 1
        self._counting = bool(self._gone_on)
        if self._counting:
            asyncio.get_running_loop().call_soon(self._next_turn)
