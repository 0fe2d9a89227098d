"""Submissions of many tasks, handed over together (`GroupCommit`)."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dispatcher.errors import CLOSED, DispatcherClosedError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from dispatcher.errors import ExecutorClientError
    from dispatcher.ledger.submission import Submission

__all__ = ["GroupCommit"]

GROUP = 100
"""The most plans that go together: more would hold up the loop while they are encoded."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    submission: Submission
    refusal: asyncio.Future[ExecutorClientError | None]


class GroupCommit:
    """Hands over the submissions that wait, then those that came meanwhile, in the order in which they came.

    A background task does so. A submission whose task is cancelled is dropped if it has not begun,
    otherwise completed: its plan is in the ledger and has its message, or it is unknown.
    """

    def __init__(
        self, submit: Callable[[Sequence[Submission]], Awaitable[list[ExecutorClientError | None]]]
    ) -> None:
        """`submit` hands a group over; for each plan, why it was refused."""
        self._submit = submit
        self._waiting: deque[_Waiting] = deque()
        self._committer: asyncio.Task[None] | None = None

    def put(self, submission: Submission) -> asyncio.Future[ExecutorClientError | None]:
        """Have the plan submitted. The future ends with why it was refused, None if it was taken.

        It raises `LedgerUnavailableError`, and `DispatcherClosedError` if the dispatcher is closed meanwhile.
        """
        waiting = _Waiting(submission, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        if self._committer is None or self._committer.done():
            self._committer = asyncio.create_task(self._commit_all())
        return waiting.refusal

    async def aclose(self) -> None:
        """End the submissions that wait."""
        if self._committer is not None:
            self._committer.cancel()
            await asyncio.wait([self._committer])
        self._fail_all([])  # the task may have been cancelled before its first step

    async def _commit_all(self) -> None:
        group: list[_Waiting] = []
        try:
            while group := self._next_group():
                await self._commit(group)
        finally:
            self._fail_all(group)  # the loop ends, or the dispatcher is closed

    def _fail_all(self, group: list[_Waiting]) -> None:
        for each in [*group, *self._waiting]:
            _fail(each, DispatcherClosedError(CLOSED))
        self._waiting.clear()

    def _next_group(self) -> list[_Waiting]:
        group: list[_Waiting] = []
        while self._waiting and len(group) < GROUP:
            each = self._waiting.popleft()
            if not each.refusal.done():
                group.append(each)
        return group

    async def _commit(self, group: list[_Waiting]) -> None:
        try:
            refusals = await self._submit([each.submission for each in group])
        except Exception as exc:  # noqa: BLE001 (each task raises it)
            for each in group:
                _fail(each, exc)
            return
        for each, refusal in zip(group, refusals, strict=True):
            if not each.refusal.done():
                each.refusal.set_result(refusal)


def _fail(waiting: _Waiting, error: Exception) -> None:
    if not waiting.refusal.done():
        waiting.refusal.set_exception(error)
