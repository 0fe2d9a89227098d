"""What a Dispatcher and its handles share (`Access`)."""

from __future__ import annotations

import asyncio
import functools
from typing import TYPE_CHECKING, Self
from weakref import WeakSet

from dispatcher.ledger.ledger import connect
from dispatcher.ledger.waiters import Waiter
from dispatcher.sessions import Session, Sessions
from dispatcher.settings.settings import Settings, load_settings
from dispatcher.submissions import Door
from dispatcher.tasks.app import make_celery
from dispatcher.tasks.messages import Publisher
from dispatcher.tasks.publishing import PublishingThread
from dispatcher.tasks.results import ResultCodec

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Access"]

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
        self.celery = make_celery(settings)
        self.results = ResultCodec(self.celery)
        self.waiter = Waiter(settings)
        self.publisher = Publisher(self.celery)
        self._publishing = PublishingThread(self.publisher)
        self._sessions = Sessions(self._new_session)
        self._name = settings.redis_address, settings.key_prefix
        _open.add(self)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[[str, str], Access], tuple[str, str]]:
        return _found, self._name

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

    def _close(self) -> None:
        _open.discard(self)
        self.waiter.close()
        self.ledger.close()
        self._publishing.close()
        self.publisher.close()
        self.celery.close()

    def _new_session(self) -> Session:
        return Session(self.settings, self.ledger, self.door, self._publishing, self.results.key)


def _found(redis_address: str, key_prefix: str) -> Access:
    """The access of this process to that Redis. Raises `InvalidSettingsError`."""
    wanted = (redis_address, key_prefix)
    return next((each for each in _open if each._name == wanted), None) or _of_environment()  # noqa: SLF001


@functools.cache
def _of_environment() -> Access:
    return Access(load_settings())
