"""What many tasks of an event loop ask for, carried out in groups (`GroupCommit`)."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from dispatcher.errors import CLOSED, DispatcherClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["GroupCommit"]

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class _Waiting(Generic[Item, Answer]):
    item: Item
    answer: asyncio.Future[Answer]


class GroupCommit(Generic[Item, Answer]):
    """Carries out the items that wait as one group, then those that came meanwhile, in their order.

    One background task does so. If a task is cancelled, its item is dropped unless its group has begun. The
    items of other tasks are not disturbed.
    """

    def __init__(
        self,
        carry_out: Callable[[Sequence[Item]], Awaitable[Sequence[Answer]]],
        most: int,
        size_of: Callable[[Item], int] = lambda _: 1,
    ) -> None:
        """`carry_out` returns one answer for each item of a group.

        `most` is the largest size of a group of several items: a larger one would hold up the loop.
        """
        self._carry_out = carry_out
        self._most = most
        self._size_of = size_of
        self._waiting: deque[_Waiting[Item, Answer]] = deque()
        self._committer: asyncio.Task[None] | None = None

    def put(self, item: Item) -> asyncio.Future[Answer]:
        """Have the item carried out. The future ends with its answer, or raises what its group raised.

        It raises `DispatcherClosedError` if this is closed meanwhile.
        """
        waiting: _Waiting[Item, Answer] = _Waiting(item, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._committer is None or self._committer.done():
            self._committer = asyncio.create_task(self._commit_all())
        return waiting.answer

    async def aclose(self) -> None:
        """End the items that wait."""
        if self._committer is not None:
            self._committer.cancel()
            await asyncio.wait([self._committer])
        self._fail_all([])  # the task may have been cancelled before its first step

    async def _commit_all(self) -> None:
        group: list[_Waiting[Item, Answer]] = []
        try:
            while group := self._next_group():
                await self._commit(group)
        finally:
            self._fail_all(group)  # the loop ends, or this is closed

    def _fail_all(self, group: list[_Waiting[Item, Answer]]) -> None:
        for each in [*group, *self._waiting]:
            _fail(each, DispatcherClosedError(CLOSED))
        self._waiting.clear()

    def _next_group(self) -> list[_Waiting[Item, Answer]]:
        group: list[_Waiting[Item, Answer]] = []
        size = 0
        while self._waiting and (not group or size + self._size_of(self._waiting[0].item) <= self._most):
            each = self._waiting.popleft()
            if not each.answer.done():
                group.append(each)
                size += self._size_of(each.item)
        return group

    async def _commit(self, group: list[_Waiting[Item, Answer]]) -> None:
        try:
            answers = await self._carry_out([each.item for each in group])
        except Exception as exc:  # noqa: BLE001 (each task raises it)
            for each in group:
                _fail(each, exc)
            return
        for each, answer in zip(group, answers, strict=True):
            if not each.answer.done():
                each.answer.set_result(answer)


def _fail(waiting: _Waiting[Item, Answer], error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
