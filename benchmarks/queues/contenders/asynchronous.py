"""Contenders whose client is asynchronous."""

from __future__ import annotations

import asyncio
import time
from abc import abstractmethod
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import uvloop

from benchmarks.queues.contenders.base import Base

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Sequence

    from benchmarks.queues.contenders.base import Ended

T = TypeVar("T")


class AsyncBase(Base):
    """The submitter's side has an event loop of its own, on uvloop."""

    at_once: ClassVar[int] = 200
    """How many plans are submitted, or waited for, at the same time."""

    def __enter__(self) -> Self:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._runner.run(self.open())
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._runner.run(self.close())
        self._runner.close()

    @abstractmethod
    async def open(self) -> None:
        """Start servers, and open the client."""

    async def close(self) -> None:
        """Close the client."""

    @abstractmethod
    async def send(self, plan: Any) -> Any:
        """Submit one plan. Returns its handle."""

    async def ended(self, handle: Any, within_s: float) -> Ended | None:
        """Wait for its observation. None if it has none when the time is over."""
        raise NotImplementedError

    def submit_many(self, plans: Sequence[Any]) -> list[Any]:
        return self._runner.run(self._in_turns(map(self.send, plans)))

    def endings(self, submitted: Sequence[Any], timeout_s: float = 0) -> list[Ended | None]:
        give_up_at = time.monotonic() + timeout_s
        asked = (self.ended(each, max(1.0, give_up_at - time.monotonic())) for each in submitted)
        return self._runner.run(self._in_turns(asked))

    async def _in_turns(self, asked: Iterable[Awaitable[T]]) -> list[T]:
        """Await some hundred at a time. They are made in their turns."""
        found: list[T] = []
        waiting = iter(asked)
        while turn := list(islice(waiting, self.at_once)):
            found += await asyncio.gather(*turn)
        return found
