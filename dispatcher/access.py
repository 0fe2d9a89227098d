"""What a Dispatcher and its handles share (`Access`)."""

from __future__ import annotations

import asyncio
import functools
import os
import threading
from typing import TYPE_CHECKING, Any, Self, TypeVar
from weakref import WeakSet

from dispatcher import tasks
from dispatcher.ledger.ledger import connect
from dispatcher.ledger.waiters import Waiter
from dispatcher.sessions import Session, Sessions
from dispatcher.settings.settings import Settings, load_settings
from dispatcher.submissions import Door
from dispatcher.tasks.publishing import PublishingThread
from dispatcher.tasks.stored_results import StoredResults, global_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery import Celery

    from dispatcher.tasks.messages import Publisher

__all__ = ["Access"]

T = TypeVar("T")

_open: WeakSet[Access] = WeakSet()
"""Those of this process that are not closed."""


class Access:
    """The ledger, the results in it, and the ways to submit and to wait, for threads and for asyncio.

    A copy is the same one. A pickle holds Redis's address and the prefix of keys, no password: where it is
    loaded, it is that process's own, or one with the settings of that process's environment.
    """

    def __init__(self, settings: Settings) -> None:
        """Nothing is sent yet."""
        self.settings = settings
        self.door = Door(settings)
        self.ledger = connect(settings)
        self.results = StoredResults(global_prefix(settings.key_prefix))
        self.waiter = Waiter(settings)
        self._made: dict[str, Any] = {}
        self._making = threading.RLock()
        self._publishing = PublishingThread(self._publish)
        self._sessions = Sessions(self._new_session)
        self._name = settings.redis_address, settings.key_prefix
        _open.add(self)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[[str, str], Access], tuple[str, str]]:
        return _found, self._name

    @property
    def celery(self) -> Celery:
        """The application, made when it is first needed: most programs that read plans submit none."""
        return self._once("celery", lambda: tasks.make_celery(self.settings))

    @property
    def publisher(self) -> Publisher:
        """Sends the messages of plans."""
        return self._once("publisher", lambda: tasks.Publisher(self.celery))

    def _publish(self, plans: Sequence[tuple[str, str]]) -> bool:
        return self.publisher.send(plans)

    def _once(self, name: str, make: Callable[[], T]) -> T:
        """What is made under this name. Threads that come together wait until one has made it."""
        found: T | None = self._made.get(name)
        if found is None:
            with self._making:
                found = self._made.get(name)
                if found is None:
                    found = self._made[name] = make()
        return found

    async def session(self) -> Session:
        """What the tasks of the running event loop share."""
        return await self._sessions.here()

    def close(self) -> None:
        """End all calls that wait with `DispatcherClosedError`, and close the connections."""
        self._sessions.close()
        self._close()

    async def aclose(self) -> None:
        """`close`, for asyncio: the loop's connections are closed when this returns."""
        await self._sessions.aclose()
        await asyncio.to_thread(self._close)

    def after_fork(self) -> None:
        """In the child: a thread of the parent, which is not there any more, may have had the lock."""
        self._making = threading.RLock()

    def _close(self) -> None:
        _open.discard(self)
        self.waiter.close()
        self.ledger.close()
        self._publishing.close()
        for made in ("publisher", "celery"):
            if made in self._made:
                self._made[made].close()

    def _new_session(self) -> Session:
        return Session(self.settings, self.ledger, self.door, self._publishing, self.results)


def _after_fork() -> None:
    for access in list(_open):
        access.after_fork()


os.register_at_fork(after_in_child=_after_fork)


def _found(redis_address: str, key_prefix: str) -> Access:
    """The access of this process to that Redis. Raises `InvalidSettingsError`."""
    wanted = (redis_address, key_prefix)
    return next((each for each in _open if each._name == wanted), None) or _of_environment()  # noqa: SLF001


@functools.cache
def _of_environment() -> Access:
    return Access(load_settings())
