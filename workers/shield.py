"""Work that an interruption must not leave halfway."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["shield"]

T = TypeVar("T")

LOOK_EVERY_SEC = 0.5
"""An interruption may lose the notice of the work's end. The caller then sees the end this much later."""


def shield(work: Callable[[threading.Event], T]) -> T:
    """Do the work in a thread, so that no signal interrupts it; return or raise what the work does.

    If the caller is interrupted (Ctrl-C), set the event and wait for the end of the work.
    """
    shielded = _Shielded[T]()
    try:
        shielded.thread.start()
        try:
            shielded.tasks.put(work)
            shielded.wait()
        except BaseException:
            shielded.interrupted.set()
            shielded.tasks.put(None)  # ends the thread if the work has not reached it
            shielded.wait()
            raise
    finally:
        shielded.tasks.put(None)
    return shielded.outcome.result()


class _Shielded(Generic[T]):
    """The work's thread. Caller and thread share only queues whose calls are atomic.

    An interruption between `acquire` and `release` leaves a lock locked, and the thread would wait for it.
    """

    def __init__(self) -> None:
        self.interrupted = threading.Event()
        self.outcome: Future[T] = Future()
        self.tasks: SimpleQueue[Callable[[threading.Event], T] | None] = SimpleQueue()
        self.thread = threading.Thread(target=self._run, name="shield")
        self._ended = False
        self._news: SimpleQueue[None] = SimpleQueue()

    def wait(self) -> None:
        """Return after the end of the thread's task."""
        while not self._ended:
            with suppress(Empty):
                self._news.get(timeout=LOOK_EVERY_SEC)

    def _run(self) -> None:
        try:
            task = self.tasks.get()
            if task is not None:
                self.outcome.set_result(task(self.interrupted))
        except BaseException as exc:  # noqa: BLE001 (the caller raises it)
            self.outcome.set_exception(exc)
        finally:
            self._ended = True
            self._news.put(None)
