"""What the tasks of an event loop share: `Session`, one for each loop that uses a Dispatcher."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from dispatcher.ledger.connection import RedisErrors, async_client, subscribing_client
from dispatcher.ledger.exchanges import drive_async
from dispatcher.ledger.group_commit import GroupCommit
from dispatcher.ledger.line import AsyncLine
from dispatcher.ledger.listener import Listener
from dispatcher.ledger.waiters import AsyncWaiter
from dispatcher.submissions import Take, submitting
from dispatcher.turns import Turns

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
    from typing import Any

    from dispatcher.errors import ExecutorClientError
    from dispatcher.ledger.exchanges import Exchange
    from dispatcher.ledger.ledger import Ledger, Submission
    from dispatcher.ledger.listener import Watch
    from dispatcher.ledger.waits import Wait
    from dispatcher.settings.settings import Settings
    from dispatcher.submissions import Door, Publish
    from dispatcher.tasks.publishing import PublishingThread
    from dispatcher.tasks.stored_results import StoredResults

__all__ = ["Session", "Sessions"]

T = TypeVar("T")

PLANS_TOGETHER = 100
"""The most plans that are submitted together: more would hold up the loop while they are encoded."""


class Session:
    """Two connections to Redis, for one event loop: one for commands, one for subscriptions."""

    def __init__(
        self,
        settings: Settings,
        ledger: Ledger,
        door: Door,
        publishing: PublishingThread,
        results: StoredResults,
    ) -> None:
        """Nothing is sent yet."""
        self._door = door
        self._ledger = ledger
        self._publishing = publishing
        self._errors = RedisErrors(settings.redis_address)
        self._line = AsyncLine(async_client(settings))
        self._waiter = AsyncWaiter(self._line, settings)
        self._subscriber = subscribing_client(settings)
        self._listener = Listener(
            self._subscriber, self._waiter, ledger, results.key, settings, is_end=results.is_end
        )
        self.turns = Turns()
        """Of tasks that submit: thousands may begin in one turn of the loop."""

        self._commits = GroupCommit(self._submit, PLANS_TOGETHER)

    async def exchange(self, steps: Exchange[T]) -> T:
        """Carry the exchange out. Raises `LedgerUnavailableError`."""
        with self._errors:
            return await drive_async(steps, self._line.send)

    async def wait(self, wait: Wait[T], timeout_sec: float | None = 0) -> T:
        """What the wait ends with: see `AsyncWaiter.wait`."""
        return await self._waiter.wait(wait, timeout_sec)

    def watch(self, plan_ids: Iterable[str]) -> Watch:
        """A watch on these plans."""
        return self._listener.watch(plan_ids)

    def submit(self, submission: Submission) -> asyncio.Future[ExecutorClientError | None]:
        """Submit the plan, together with those of other tasks: see `GroupCommit.put`."""
        return self._commits.put(submission)

    async def aclose(self) -> None:
        """End all calls with `DispatcherClosedError`, and close the connections."""
        await self._commits.aclose()
        await self._listener.aclose()
        await self._line.aclose()
        await self._subscriber.aclose()

    async def _submit(self, group: Sequence[Submission]) -> list[ExecutorClientError | None]:
        return await drive_async(submitting(self._door, group), self._sent)

    async def _sent(self, request: Take | Publish) -> Any:
        if isinstance(request, Take):
            return await self.exchange(self._ledger.submitting(request.submissions))
        return await self._publishing.send(request.plans)


class Sessions:
    """The sessions of a Dispatcher. A session ends with its loop, or if the Dispatcher is closed."""

    def __init__(self, new_session: Callable[[], Session]) -> None:
        self._new_session = new_session
        self._open: dict[asyncio.AbstractEventLoop, Session] = {}
        self._keepers: dict[Session, AsyncGenerator[None]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def here(self) -> Session:
        """The session of the running loop."""
        loop = asyncio.get_running_loop()
        session = self._open.get(loop)
        if session is None:
            for other in [each for each in self._open if each.is_closed()]:
                self._keepers.pop(self._open.pop(other), None)
            session = self._open[loop] = self._new_session()
            keeper = self._keepers[session] = self._keep(loop, session)
            await anext(keeper)
        return session

    def close(self) -> None:
        """End all sessions. Returns at once: each loop closes its own connections as soon as it runs."""
        for loop in list(self._open):
            session = self._open.pop(loop, None)
            if session is not None and not loop.is_closed():
                loop.call_soon_threadsafe(self._start_closing, session)

    async def aclose(self) -> None:
        """End all sessions; that of the running loop has ended when this returns."""
        session = self._open.pop(asyncio.get_running_loop(), None)
        self.close()
        if session is not None:
            await self._end(session)

    async def _keep(self, loop: asyncio.AbstractEventLoop, session: Session) -> AsyncGenerator[None]:
        """Close the session when this generator is closed. `asyncio.run` closes all at a loop's end.

        By then tasks are cancelled, perhaps one that was closing the session: so it is closed again.
        """
        try:
            yield
        finally:
            if self._open.get(loop) is session:
                del self._open[loop]
            self._keepers.pop(session, None)
            await session.aclose()

    async def _end(self, session: Session) -> None:
        await session.aclose()
        keeper = self._keepers.get(session)
        if keeper is not None:
            await keeper.aclose()

    def _start_closing(self, session: Session) -> None:
        task = asyncio.get_running_loop().create_task(self._end(session))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
